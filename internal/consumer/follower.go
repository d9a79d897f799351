package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// follower goes through the log of one partition for one consumer.
//
// Steps: open the cursor; then again and again take what comes next, from the
// queue or, when behind, from the log; have it handled; save the cursor when it is
// time to.
//
// Invariant: all up to at was handled, and while not behind, all above at that
// is committed and published is in the queue, without a gap.
type follower struct {
	set    *Set
	c      Consumer
	p      ids.Partition
	epoch  ids.Epoch
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	// dropped: the owner is gone, and with it the right to move the cursor.
	dropped atomic.Bool
	done    chan struct{}
	// signal has room for one: something was offered.
	signal chan struct{}

	// saved and savedAt are the goroutine's: the durable cursor.
	saved   ids.Seq
	savedAt time.Time
	// took is the goroutine's: when it last took something from the queue.
	took time.Time
	// due is the goroutine's: what it waits for beside a signal.
	due *time.Timer

	mu struct {
		sync.Mutex
		at, head ids.Seq
		// behind: the queue does not continue at; read the log.
		behind bool
		queue  []*partition.Published
		bytes  int
		// gathering: the follower lets the queue grow, up to half of what it may
		// hold, and is not to be woken before.
		gathering bool
		// hurry: up to there somebody waits for what comes.
		hurry ids.Seq
		// since: all that was committed before that time has been handled.
		since time.Time
		// moved is closed, and replaced, when at moves or the log was read to
		// its end; nil while nobody waits.
		moved chan struct{}
	}
}

func newFollower(s *Set, c Consumer, p ids.Partition, epoch ids.Epoch) *follower {
	f := &follower{
		set: s, c: c, p: p, epoch: epoch, done: make(chan struct{}), signal: make(chan struct{}, 1),
		log: s.opts.Log.With("consumer", c.Name, "partition", p),
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.mu.behind = true
	f.mu.since = s.opts.Clock.Now()
	return f
}

// drop ends the follower of an owner that is gone.
func (f *follower) drop() {
	f.dropped.Store(true)
	f.cancel()
}

// offer takes a published batch. It is called from the owner's loop.
func (f *follower) offer(b *partition.Published) {
	f.mu.Lock()
	if f.mu.at >= f.mu.head {
		f.mu.since = f.set.opts.Clock.Now()
	}
	f.mu.head = max(f.mu.head, b.Last)
	if !f.mu.behind {
		f.mu.bytes += size(b)
		if len(f.mu.queue) >= queueBatches || f.mu.bytes > queueBytes {
			f.mu.queue, f.mu.bytes, f.mu.behind = nil, 0, true
		} else {
			f.mu.queue = append(f.mu.queue, b)
		}
	}
	wake := !f.mu.gathering || !f.mayGatherLocked()
	f.mu.Unlock()
	if wake {
		f.wake()
	}
}

// readOn says that the log goes up to a position, and that the queue does not.
func (f *follower) readOn(head ids.Seq) {
	f.mu.Lock()
	if f.mu.at >= f.mu.head {
		f.mu.since = f.set.opts.Clock.Now()
	}
	f.mu.head = max(f.mu.head, head)
	f.mu.queue, f.mu.bytes, f.mu.behind = nil, 0, true
	f.mu.Unlock()
	f.wake()
}

func (f *follower) wake() {
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// mayGatherLocked reports whether what is queued can wait for more.
func (f *follower) mayGatherLocked() bool {
	return !f.mu.behind && f.mu.at >= f.mu.hurry && len(f.mu.queue) < queueBatches/2 && f.mu.bytes < queueBytes/2
}

// size is about what a batch keeps in memory.
func size(b *partition.Published) int {
	const record = 128
	n := 0
	for i := range b.Records {
		n += record + len(b.Records[i].Data) + len(b.Records[i].Body)
	}
	return n
}

func (f *follower) run() {
	defer f.cancel()
	f.due = time.NewTimer(0) // and whatever it says is forgotten by Reset
	defer f.due.Stop()
	if !f.retry("open cursor", f.open) {
		return
	}
	if b, ok := f.c.Handler.(Beginner); ok {
		if !f.retry("begin", func() error { return b.Begin(f.ctx, f.p) }) {
			return
		}
	}
	defer f.lastSave()
	for {
		b, at, err := f.next()
		switch {
		case f.ctx.Err() != nil:
			return
		case errors.Is(err, partition.ErrTrimmed):
			if !f.missed() {
				return
			}
		case err != nil:
			f.log.Warn("read log", "error", err)
			f.pause(f.set.pace.retryMin)
		case b != nil:
			if !f.handle(*b) {
				return
			}
			f.advance(b.Last, at)
		}
		f.save(false)
	}
}

// open finds the cursor, or makes it.
func (f *follower) open() error {
	at, err := partition.Do[ids.Seq](f.ctx, f.set.opts.Router, partition.OpenCursor{
		Consumer: f.c.Name, P: f.p, Epoch: f.epoch, AtHead: f.c.Start == AtHead,
	})
	if err != nil {
		return err
	}
	f.saved, f.savedAt = at, time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.at = at
	f.mu.head = max(f.mu.head, at)
	return nil
}

// next waits for records. It returns nil if there are none and a cursor is to be
// saved; at is a time before which nothing was committed that is not handled when
// the batch is, zero if that is not known.
func (f *follower) next() (b *Batch, at time.Time, err error) {
	now := f.set.opts.Clock.Now()
	f.mu.Lock()
	if f.mu.behind {
		f.mu.Unlock()
		return f.read(now)
	}
	var pause time.Duration
	if len(f.mu.queue) > 0 && f.mayGatherLocked() {
		pause = time.Until(f.took.Add(f.c.Gather))
	}
	if f.mu.gathering = pause > 0; f.mu.gathering {
		f.mu.Unlock()
		f.wait(pause)
		return nil, time.Time{}, nil
	}
	b = f.takeLocked()
	if len(f.mu.queue) > 0 {
		now = time.Time{}
	}
	f.mu.Unlock()
	if b != nil {
		f.took = time.Now()
		return b, now, nil
	}
	f.wait(0)
	return nil, time.Time{}, nil
}

// wait returns when something was offered or the cursor is to be saved; when the
// follower gathers, after the rest of that time, or when it may not any longer.
func (f *follower) wait(gather time.Duration) {
	var due <-chan time.Time
	if gather == 0 && f.position() > f.saved {
		gather = max(time.Until(f.savedAt.Add(f.set.pace.save)), 1)
	}
	if gather > 0 {
		f.due.Reset(gather)
		defer f.due.Stop()
		due = f.due.C
	}
	select {
	case <-f.signal:
	case <-due:
	case <-f.ctx.Done():
	}
}

// takeLocked removes what is next from the queue, up to maxRecords.
func (f *follower) takeLocked() *Batch {
	var list []*partition.Published
	n := 0
	for len(f.mu.queue) > 0 && n < maxRecords {
		b := f.mu.queue[0]
		f.mu.queue[0] = nil
		f.mu.queue = f.mu.queue[1:]
		f.mu.bytes -= size(b)
		if b.Last > f.mu.at {
			list = append(list, b)
			n += len(b.Records)
		}
	}
	return f.join(list, f.mu.at)
}

// join makes one batch of several, without what was handled; nil if nothing is
// left.
func (f *follower) join(list []*partition.Published, after ids.Seq) *Batch {
	if len(list) == 0 {
		return nil
	}
	records := list[0].Records
	if list[0].First <= after {
		records = records[after+1-list[0].First:]
	}
	if len(list) > 1 {
		records = append([]partition.Record(nil), records...)
		for _, b := range list[1:] {
			records = append(records, b.Records...)
		}
	}
	return &Batch{
		Partition: f.p, Epoch: f.epoch,
		First: max(after+1, list[0].First), Last: list[len(list)-1].Last, Records: records,
	}
}

// read takes what is next from the log. At its end the follower is behind no
// more: what is published from then on is queued.
func (f *follower) read(now time.Time) (*Batch, time.Time, error) {
	after := f.position()
	list, err := partition.ReadLog(f.ctx, f.set.opts.Store, f.p, after, logBatches)
	if err != nil {
		return nil, time.Time{}, err
	}
	n, upTo := 0, after
	for i, b := range list {
		upTo = b.Last
		if n += len(b.Records); n >= maxRecords {
			list = list[:i+1]
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.head = max(f.mu.head, upTo)
	if f.mu.head > upTo || n >= maxRecords || len(list) == logBatches {
		now = time.Time{} // there is more
	} else {
		f.mu.behind = false
		f.wakeLocked()
	}
	return f.join(list, after), now, nil
}

// handle has a batch handled, however long it takes. false: the follower is to end.
func (f *follower) handle(b Batch) bool {
	return f.retry("handle batch", f.guarded(b.First, b.Last, func() error {
		err := f.c.Handler.Handle(f.ctx, b)
		if err == nil {
			f.set.metrics.handled(f.c.Name, len(b.Records))
		}
		return err
	}))
}

// guarded makes a panic of fn an error, and success when it is the last of
// maxPanics.
func (f *follower) guarded(first, last ids.Seq, fn func() error) func() error {
	panics := 0
	return func() (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			panics++
			f.set.metrics.panicked(f.c.Name)
			f.log.Error("consumer panicked", "first", first, "last", last, "passed_over", panics == maxPanics,
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			if panics < maxPanics {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		return fn()
	}
}

// missed tells the handler of what the log has lost. false: the follower is to end.
func (f *follower) missed() bool {
	var start ids.Seq
	found := f.retry("find start of log", func() (err error) {
		start, err = partition.LogStart(f.ctx, f.set.opts.Store, f.p, f.position())
		return err
	})
	first, last := f.position()+1, start-1
	if !found || start == 0 || last < first {
		return found
	}
	f.log.Error("consumer missed a part of the log", "first", first, "last", last)
	f.set.metrics.missed(f.c.Name)
	told := f.retry("missed", f.guarded(first, last, func() error {
		return f.c.Handler.Missed(f.ctx, f.p, first, last)
	}))
	if told {
		f.advance(last, time.Time{})
	}
	return told
}

// retry calls fn until it succeeds, with pauses that grow. false: the follower is
// to end.
func (f *follower) retry(what string, fn func() error) bool {
	for pause := f.set.pace.retryMin; ; pause = min(2*pause, f.set.pace.retryMax) {
		err := fn()
		if err == nil {
			return true
		}
		if f.ctx.Err() != nil {
			return false
		}
		f.set.metrics.failed(f.c.Name)
		f.log.Warn("consumer delayed", "what", what, "error", err)
		if !f.pause(pause) {
			return false
		}
	}
}

func (f *follower) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-f.ctx.Done():
		return false
	}
}

func (f *follower) position() ids.Seq {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.at
}

func (f *follower) advance(to ids.Seq, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.at = to
	if !since.IsZero() {
		f.mu.since = since
	}
	f.wakeLocked()
}

func (f *follower) wakeLocked() {
	if f.mu.moved != nil {
		close(f.mu.moved)
		f.mu.moved = nil
	}
}

// save makes the cursor durable if it is time to, or if it must be.
func (f *follower) save(now bool) {
	at := f.position()
	if at == f.saved || !now && at < f.saved+SaveRecords && time.Since(f.savedAt) < f.set.pace.save {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), saveTimeout)
	defer cancel()
	_, err := f.set.opts.Router.Do(ctx, partition.SaveCursor{Consumer: f.c.Name, P: f.p, Epoch: f.epoch, To: at})
	f.savedAt = time.Now() // also after a failure: not at once again
	if err != nil {
		if !f.dropped.Load() {
			f.log.Warn("save cursor", "error", err)
		}
		return
	}
	f.saved = at
}

// lastSave saves the cursor if the owner is still there.
func (f *follower) lastSave() {
	if !f.dropped.Load() {
		f.save(true)
	}
}

// await waits until the follower has handled what was published before the call.
func (f *follower) await(ctx context.Context) error {
	f.mu.Lock()
	upTo, known := f.mu.head, !f.mu.behind
	f.mu.Unlock()
	for {
		f.mu.Lock()
		if !known && !f.mu.behind { // only now it knows where the log ends
			upTo, known = f.mu.head, true
		}
		if known && f.mu.at >= upTo {
			f.mu.Unlock()
			return nil
		}
		if known && f.mu.hurry < upTo {
			f.mu.hurry = upTo
			f.wake()
		}
		if f.mu.moved == nil {
			f.mu.moved = make(chan struct{})
		}
		moved := f.mu.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-f.done:
			return partition.ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lag is how far the follower is behind: in positions, and for how long there has
// been something that it has not handled.
func (f *follower) lag(now time.Time) (ids.Seq, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.at >= f.mu.head {
		return 0, 0
	}
	return f.mu.head - f.mu.at, now.Sub(f.mu.since)
}
