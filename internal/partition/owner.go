package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Owner runs one partition on this node. Its methods are safe for concurrent use.
type Owner struct {
	opts  Options
	rows  *rows
	queue chan *task
	head  atomic.Uint64
	relay *relay

	stop     chan struct{} // closed by Close: take no more
	stopOnce sync.Once
	done     chan struct{} // closed when the loop has ended
	closeErr error         // why, if not by Close; set before done is closed

	batch batchState // the loop's
}

// task is a command on its way through the owner.
type task struct {
	cmd   Command
	prep  Prep // what the command prepares with
	pins  []*row
	fresh string
	res   any
	err   error
	// effects counts the effects that are not applied yet.
	effects atomic.Int32
	done    chan struct{}
}

// finish answers the caller; called exactly once.
func (t *task) finish() { close(t.done) }

// batchState is what the loop gathers for one commit.
type batchState struct {
	storage  storage.Batch
	tx       Tx
	first    ids.Seq
	next     ids.Seq
	records  []Record
	effects  []outItem
	tasks    []*task
	inFlight []*row
	bytes    int
	trimmed  ids.Seq
	// logStart is where the log begins since it was last trimmed, 0 before.
	logStart ids.Seq
	// cursors are where the consumers of the log stand, as far as they saved it.
	cursors map[string]ids.Seq
}

// NewOwner begins to run a partition whose lease the caller holds with
// opts.Epoch. It reads where the log ends, and which effects have not arrived.
func NewOwner(ctx context.Context, opts Options) (*Owner, error) {
	head, err := Head(ctx, opts.Store, opts.Partition)
	if err != nil {
		return nil, err
	}
	opts.Tables = withOwn(opts.Tables)
	o := &Owner{
		opts:  opts,
		rows:  newRows(opts.Store, opts.Tables, opts.CacheBytes),
		queue: make(chan *task, QueueLength),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	o.head.Store(uint64(head))
	o.batch.next = head + 1
	if o.batch.cursors, err = loadCursors(ctx, opts.Store, opts.Partition); err != nil {
		return nil, err
	}
	pending, err := loadOutbox(ctx, opts.Store, opts.Partition)
	if err != nil {
		return nil, err
	}
	o.relay = newRelay(opts)
	go o.run()
	o.relay.push(pending)
	return o, nil
}

// withOwn adds the tables of the partition itself: the relay keeps a row for each
// origin, a consumer one cursor.
func withOwn(specs map[storage.Table]TableSpec) map[storage.Table]TableSpec {
	all := Tables()
	maps.Copy(all, specs)
	return all
}

// Head is the last committed position.
func (o *Owner) Head() ids.Seq { return ids.Seq(o.head.Load()) }

// Epoch is the epoch the owner commits with.
func (o *Owner) Epoch() ids.Epoch { return o.opts.Epoch }

// Done is closed when the owner has stopped, by Close or because it lost the
// partition.
func (o *Owner) Done() <-chan struct{} { return o.done }

// Close lets the commands that are queued finish, refuses new ones, and waits
// until nothing of the owner runs any more. Effects that have not arrived stay
// in the outbox for the next owner.
func (o *Owner) Close() {
	o.stopOnce.Do(func() { close(o.stop) })
	<-o.done
	o.relay.close()
}

// CloseSettled is Close that lets the effects that callers wait for arrive first, for
// as long as ctx says: a partition that moves is no error to them.
func (o *Owner) CloseSettled(ctx context.Context) {
	o.stopOnce.Do(func() { close(o.stop) })
	<-o.done
	o.relay.settle(ctx)
	o.relay.close()
}

// Do runs a command and waits until it is committed and the effects its caller
// must see are applied. When ctx ends before, the command may still be applied.
func (o *Owner) Do(ctx context.Context, cmd Command) (any, error) {
	for range maxAttempts {
		if res, err := o.attempt(ctx, cmd); !errors.Is(err, ErrRetry) {
			return res, err
		}
	}
	return nil, overloaded()
}

func (o *Owner) attempt(ctx context.Context, cmd Command) (any, error) {
	t := &task{cmd: cmd, done: make(chan struct{})}
	queued := false
	defer func() { // also when Prepare panics
		if !queued {
			o.rows.unpin(t.pins)
		}
	}()
	t.prep = Prep{owner: o, task: t}
	if err := cmd.Prepare(ctx, &t.prep); err != nil {
		return nil, err
	}
	if err := o.enqueue(t); err != nil {
		return nil, err
	}
	queued = true // from here on the pins are the loop's
	select {
	case <-t.done:
		return t.res, t.err
	case <-ctx.Done():
		return nil, lost(ctx.Err())
	}
}

func (o *Owner) enqueue(t *task) error {
	select {
	case <-o.stop:
		return closing(o.lostCause())
	default:
	}
	select {
	case o.queue <- t:
	default:
		o.opts.Metrics.overload()
		return overloaded()
	}
	select {
	case <-o.done:
		// The loop may have ended before it saw the task.
		o.abandonQueue()
	default:
	}
	return nil
}

func (o *Owner) lostCause() error {
	select {
	case <-o.done:
		return o.closeErr
	default:
		return nil
	}
}

func (o *Owner) run() {
	defer func() {
		close(o.done)
		o.abandonQueue()
	}()
	for {
		select {
		case t := <-o.queue:
			if err := o.runBatch(t); err != nil {
				o.fail(err)
				return
			}
		case <-o.stop:
			for {
				select {
				case t := <-o.queue:
					if err := o.runBatch(t); err != nil {
						o.closeErr = err
						return
					}
				default:
					return
				}
			}
		}
	}
}

// fail ends the owner after a commit that did not succeed.
func (o *Owner) fail(err error) {
	o.closeErr = err
	o.stopOnce.Do(func() { close(o.stop) })
	o.opts.Log.Error("partition lost", "partition", o.opts.Partition, "epoch", o.opts.Epoch, "error", err)
	if o.opts.Lost != nil {
		go o.opts.Lost(err)
	}
}

func (o *Owner) abandonQueue() {
	for {
		select {
		case t := <-o.queue:
			t.err = closing(o.closeErr) // the loop never saw it
			o.rows.unpin(t.pins)
			t.finish()
		default:
			return
		}
	}
}

// runBatch executes first and everything that waits behind it, commits, and
// answers. An error means that the partition is lost.
func (o *Owner) runBatch(first *task) error {
	b := &o.batch
	b.first = b.next
	for t := first; ; {
		b.tasks = append(b.tasks, t)
		o.execute(t)
		if len(b.tasks) >= maxBatchCommands || b.bytes >= maxBatchBytes {
			break
		}
		select {
		case t = <-o.queue:
			continue
		default:
		}
		break
	}
	early := ackEarly()
	if early > 0 {
		o.answer(nil)
		time.Sleep(early)
	}
	err := o.commit()
	if err == nil {
		o.publish()
	}
	if early == 0 {
		o.answer(err)
	}
	o.resetBatch()
	return err
}

// execute applies one command to the batch, or leaves no trace of it but its
// error.
func (o *Owner) execute(t *task) {
	b := &o.batch
	tx := &b.tx
	*tx = Tx{
		Now:   o.opts.Clock.Now().UnixMilli(),
		owner: o, task: t, batch: &b.storage, next: b.next,
		writes: tx.writes[:0], records: b.records, own: len(b.records), effects: tx.effects[:0],
	}
	begin := tx.mark()
	t.err = o.guarded(t.cmd.Name(), func() (err error) {
		t.res, err = t.cmd.Apply(tx)
		return err
	})
	if t.err == nil {
		t.err = tx.check(begin)
	}
	if t.err != nil {
		t.res = nil
		tx.undo(begin)
		return
	}
	b.records, b.next = tx.records, tx.next
	b.bytes += tx.bytes
	if len(tx.writes) > 0 {
		b.inFlight = o.rows.write(tx.writes, b.inFlight)
	}
	waiting := t
	if _, relayed := t.cmd.(*ApplyEffects); relayed {
		// Nobody waits for the effects of effects: relays that waited for each
		// other, or one for itself, would never end.
		waiting = nil
	} else {
		t.effects.Store(int32(len(tx.effects)))
	}
	for _, e := range tx.effects {
		b.effects = append(b.effects, outItem{effect: e, task: waiting})
	}
}

// guarded runs pure code of a command. A panic is a bug of that code: the command
// fails, the partition goes on, since nothing of it has been kept.
func (o *Owner) guarded(name string, fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			o.opts.Metrics.panicked()
			o.opts.logger().Error("command panicked", "command", name,
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = merr.From(fmt.Errorf("command %s panicked: %v", name, r))
		}
	}()
	return fn()
}

func (o *Owner) commit() error {
	b := &o.batch
	p := o.opts.Partition
	if len(b.records) > 0 {
		last := b.next - 1
		b.storage.Insert(storage.Key{Partition: p, Table: tables.Log, Sort: tables.SeqSort(last)},
			appendRecords(nil, b.first, b.records, false))
		o.trim(last)
	}
	for i := range b.effects {
		e := &b.effects[i].effect
		b.storage.Insert(outboxKey(e), encodeOutbox(e))
	}
	if len(b.storage.Ops) > 0 {
		// Only then: forgetting effects that have arrived is no reason to write.
		o.relay.appendArrived(&b.storage)
	}
	// Not the context of any caller: the batch belongs to many. An empty batch
	// checks the epoch: a refusal by an owner that has lost the partition may
	// rest on what is no longer so.
	if err := o.opts.Store.Commit(context.Background(), p, o.opts.Epoch, &b.storage); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	o.opts.Metrics.batch(len(b.tasks))
	o.head.Store(uint64(b.next - 1))
	return nil
}

func (o *Owner) publish() {
	b := &o.batch
	if len(b.records) == 0 || o.opts.Publish == nil {
		return
	}
	o.opts.Publish(&Published{
		Partition: o.opts.Partition, Epoch: o.opts.Epoch,
		First: b.first, Last: b.next - 1, Records: append([]Record(nil), b.records...),
	})
}

// answer tells the callers how it ended. Tasks with effects are answered by the
// relay.
func (o *Owner) answer(err error) {
	b := &o.batch
	waiting := b.effects
	if err != nil {
		waiting = nil
	}
	o.rows.release(b.tasks, b.inFlight)
	for _, t := range b.tasks {
		if err != nil {
			t.res, t.err = nil, refused(err)
		}
		if err != nil || t.effects.Load() == 0 {
			t.finish()
		}
	}
	if len(waiting) > 0 {
		o.relay.push(append([]outItem(nil), waiting...))
	}
}

func (o *Owner) resetBatch() {
	b := &o.batch
	b.storage.Reset()
	clear(b.records)
	clear(b.effects)
	clear(b.tasks)
	clear(b.inFlight)
	b.records, b.effects, b.tasks, b.inFlight = b.records[:0], b.effects[:0], b.tasks[:0], b.inFlight[:0]
	b.bytes = 0
}

// logger returns the owner's log with its partition.
func (o *Options) logger() *slog.Logger { return o.Log.With("partition", o.Partition) }
