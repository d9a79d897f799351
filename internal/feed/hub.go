package feed

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/longlock"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// idleUser is how long a user's view stays in memory after their last
	// request: clients come back at once, or after a change of network.
	idleUser = 2 * time.Minute
	// sweepEvery is how often idle views are looked for, and typing notices
	// that ran out.
	sweepEvery = 5 * time.Second
	// logBatches is how many batches one read of the log takes.
	logBatches = 256
)

// pace is how long a hub trusts the bus, and what else tests shorten.
type pace struct {
	// gap is how long a wait for a position trusts the bus to deliver it before
	// the log is read.
	gap time.Duration
	// poll is how often it is asked whether the bus lost the last batch of a
	// partition, which no later one gives away.
	poll time.Duration
	// many is from how many rooms on a view keeps marks of them.
	many int
}

// A batch that the bus lost reaches those who wait for it within two polls.
var defaultPace = pace{gap: 50 * time.Millisecond, poll: 500 * time.Millisecond, many: manyRooms}

// Heads tells the last committed positions of partitions, at least of all that
// was answered before the call. Asking for many costs about what one does.
type Heads interface {
	Heads(ctx context.Context, ps ...ids.Partition) ([]ids.Seq, error)
}

// Options configure a Hub.
type Options struct {
	Node  ids.NodeID
	Count int
	Store storage.Store
	Bus   bus.Bus
	Heads Heads
	Clock clock.Clock
	Log   *slog.Logger
	Rules *pushrules.Defaults
	// Retention is how long events are shown.
	Retention room.Retention
	// Generation is that of the store, 0 if it was never restored from a backup.
	Generation uint32
	// Damage is told of rows that cannot be read, nil for nobody.
	Damage *damage.Log
	// Presence: it is told who is there.
	Presence bool
	// Router takes acknowledgements to the users' partitions.
	Router partition.Router
	// Typing, if not nil, is told who types in a room when that changes. It must not
	// wait.
	Typing func(r ids.RoomID, users []ids.UserID)
	// Present, if not nil, is told of a user's m.presence event when others are, and
	// of the user's rooms. It must not wait.
	Present func(u ids.UserID, event []byte, rooms []ids.RoomID)
}

// moment is a time of the hub's clock, as how long after the hub's start it was: one word
// of memory, where a time.Time is three.
type moment time.Duration

// longAgo is before anything that matters.
const longAgo = moment(math.MinInt64 / 2)

func (m moment) sub(before moment) time.Duration { return time.Duration(m - before) }

func (h *Hub) moment(t time.Time) moment { return moment(t.Sub(h.start)) }

// Hub follows the logs of all partitions for the users that are connected to
// this node.
//
// How: one subscription for each partition delivers its committed batches. A
// batch that does not follow the one before is a gap, which is filled from the
// log. Every record goes to the views of the users it concerns: a room's events
// to those in the room, a user's changes to that user. A view knows which of its
// rooms changed when, so that a sync reads only these.
//
// Invariant: when processed of a shard is s, every view that was subscribed all
// the time has seen every record up to s.
type Hub struct {
	opts     Options
	start    time.Time
	pace     pace
	rooms    *room.Reader
	accounts *account.Reader
	node     uint32
	shards   []*shard
	typing   typing
	presence presence
	sliding  sliding
	cards    roomCards
	// everything is the filter of those who ask for none; nobody changes it.
	everything Filter
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	mu struct {
		sync.Mutex
		users map[ids.UserID]*view
	}
}

// shard follows one partition.
type shard struct {
	hub *Hub
	p   ids.Partition
	sub bus.Subscription
	// filling is held while the log is read, by one for all who miss something.
	filling longlock.Mutex

	mu struct {
		sync.Mutex
		processed ids.Seq
		// advanced is closed when processed moves; nil while nobody waits for that.
		advanced chan struct{}
		rooms    map[ids.RoomID]*audience
		users    map[ids.UserID]*view
		recent   recent
	}
}

// audience are the views of the users in one room.
type audience struct {
	seats []*seat
	// push is what push rules ask about the room, nil if it has to be read; gen
	// moves when it is taken back.
	push *roomPush
	gen  uint64
}

// seat is one user's place in the audience of a room.
type seat struct {
	view *view
	room *userRoom
	aud  *audience
	at   int // index in aud.seats
}

// NewHub begins to follow the partitions.
func NewHub(ctx context.Context, opts Options) (*Hub, error) {
	return newHub(ctx, opts, defaultPace)
}

func newHub(ctx context.Context, opts Options, pc pace) (*Hub, error) {
	tag := fnv.New32a()
	_, _ = tag.Write([]byte(opts.Node)) // a hash does not fail
	h := &Hub{
		opts: opts, start: opts.Clock.Now(), pace: pc, node: tag.Sum32(),
		rooms:    room.NewReader(opts.Store, opts.Count).WithRetention(opts.Retention, opts.Clock).Tolerant(opts.Damage),
		accounts: account.NewReader(opts.Store, opts.Count).Tolerant(opts.Damage),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.mu.users = make(map[ids.UserID]*view)
	h.typing.init(h)
	h.presence.init(h)
	h.sliding.init()
	if err := h.openShards(ctx); err != nil {
		h.Close()
		return nil, err
	}
	if err := h.typing.subscribe(); err != nil {
		h.Close()
		return nil, err
	}
	if err := h.presence.start(); err != nil {
		h.Close()
		return nil, err
	}
	h.wg.Go(h.sweepLoop)
	h.wg.Go(h.pollLoop)
	return h, nil
}

// openShards subscribes to all partitions, and then lets each shard begin where its
// partition stands.
func (h *Hub) openShards(ctx context.Context) error {
	all := make([]ids.Partition, h.opts.Count)
	for i := range all {
		all[i] = ids.Partition(i)
		s := &shard{hub: h, p: all[i], filling: longlock.New()}
		s.mu.rooms = make(map[ids.RoomID]*audience)
		s.mu.users = make(map[ids.UserID]*view)
		var err error
		if s.sub, err = h.opts.Bus.Subscribe(partition.Subject(s.p), s.receive); err != nil {
			return fmt.Errorf("follow partition %d: %w", s.p, err)
		}
		h.shards = append(h.shards, s)
	}
	heads, err := h.opts.Heads.Heads(ctx, all...)
	if err != nil {
		return fmt.Errorf("follow partitions: %w", err)
	}
	for i, s := range h.shards {
		s.mu.Lock()
		s.skipLocked(heads[i])
		s.mu.Unlock()
	}
	return nil
}

// Close ends all sessions and stops following.
func (h *Hub) Close() {
	h.cancel()
	for _, s := range h.shards {
		s.sub.Close()
	}
	h.typing.close()
	h.presence.close()
	h.wg.Wait()
	h.mu.Lock()
	views := h.mu.users
	h.mu.users = make(map[ids.UserID]*view)
	h.mu.Unlock()
	for _, v := range views {
		v.leaveAll()
		v.mu.Lock()
		sessions := slices.Clone(v.mu.sessions)
		v.mu.Unlock()
		for _, s := range sessions {
			if s.poll == nil { // a request that waits has been woken, and finds the view stale
				s.sink.Close(closeGoingAway, "going away")
				s.Close()
			}
		}
	}
}

// receive takes a batch from the bus.
func (s *shard) receive(p bus.Payload) {
	var b *partition.Published
	switch m := p.(type) {
	case *partition.Published:
		b = m
	case bus.Raw:
		var err error
		if b, err = partition.UnmarshalPublished(m); err != nil {
			s.hub.opts.Log.Warn("malformed batch", "partition", s.p, "error", err)
			return
		}
	default:
		return
	}
	s.mu.Lock()
	next := s.mu.processed + 1
	if b.First <= next && b.Last >= next {
		s.processLocked(b)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if b.First > next {
		s.filling.Lock()
		defer s.filling.Unlock()
		s.catchUpFilling(s.hub.ctx, b.Last)
	}
}

// decode gives a record from another process its decoded form. One that has none takes
// the long way, which reads the store.
func decode(r *partition.Record) {
	switch r.Kind {
	case partition.RecordEvent:
		if e, err := room.DecodeStored(ids.RoomID(r.Entity), r.Body); err == nil {
			r.Obj = e
		}
	case partition.RecordReceipt:
		if rc, err := room.DecodeReceipt(string(r.Data), r.Body); err == nil {
			r.Obj = rc
		}
	}
}

// catchUp reads the log up to a position that is committed, if nobody does so
// already.
func (s *shard) catchUp(ctx context.Context, upTo ids.Seq) {
	if s.filling.TryLock() {
		defer s.filling.Unlock()
		s.catchUpFilling(ctx, upTo)
	}
}

// catchUpFilling is catchUp for the holder of filling.
func (s *shard) catchUpFilling(ctx context.Context, upTo ids.Seq) {
	for {
		s.mu.Lock()
		at := s.mu.processed
		s.mu.Unlock()
		if at >= upTo {
			return
		}
		batches, err := partition.ReadLog(ctx, s.hub.opts.Store, s.p, at, logBatches)
		switch {
		case errors.Is(err, partition.ErrTrimmed):
			s.resync(upTo)
			return
		case err != nil:
			if ctx.Err() == nil {
				s.hub.opts.Log.Warn("read log", "partition", s.p, "error", err)
			}
			return
		case len(batches) == 0:
			return
		}
		for _, b := range batches {
			if err := s.fill(ctx, b); err != nil {
				s.hub.opts.Log.Warn("fill batch from log", "partition", s.p, "error", err)
				return
			}
			s.mu.Lock()
			if b.First <= s.mu.processed+1 && b.Last > s.mu.processed {
				s.processLocked(b)
			}
			s.mu.Unlock()
		}
	}
}

// fill gives the records of a batch from the log their decoded forms.
func (s *shard) fill(ctx context.Context, b *partition.Published) error {
	for i := range b.Records {
		r := &b.Records[i]
		if r.Kind != partition.RecordEvent {
			continue
		}
		e, err := s.hub.rooms.At(ctx, ids.RoomID(r.Entity), r.Seq)
		if err != nil {
			return err
		}
		if e != nil { // nil if it was purged since
			r.Obj = e
		}
	}
	return nil
}

// resync gives up on records that are no longer in the log: every view with a
// room or its home here is made anew.
func (s *shard) resync(upTo ids.Seq) {
	s.mu.Lock()
	views := make(map[*view]struct{})
	for _, v := range s.mu.users {
		views[v] = struct{}{}
	}
	for _, a := range s.mu.rooms {
		a.forgetPush()
		for _, seat := range a.seats {
			views[seat.view] = struct{}{}
		}
	}
	for v := range views {
		// Before anyone can take the new position for what the view has seen.
		v.mu.Lock()
		v.mu.stale = true
		v.mu.Unlock()
	}
	s.skipLocked(upTo)
	s.mu.Unlock()
	for v := range views {
		s.hub.discard(v)
	}
}

// skipLocked passes over the records up to a position, if they have not come meanwhile.
func (s *shard) skipLocked(to ids.Seq) {
	s.mu.recent.forget(max(to, s.mu.processed))
	s.advanceLocked(to)
}

func (s *shard) advanceLocked(to ids.Seq) {
	if to <= s.mu.processed {
		return
	}
	s.mu.processed = to
	if s.mu.advanced != nil {
		close(s.mu.advanced)
		s.mu.advanced = nil
	}
}

// yieldAfter is after how many views a delivery to a large room lets others have the
// processor: what they do for it waits for less than a millisecond.
const yieldAfter = 256

// delivery is a record as views get it.
type delivery struct {
	rec  *partition.Record
	live *live
}

// deliver hands records of the room to all views: member by member, since what a
// delivery touches of a member of a large room has to be fetched from memory, and the
// next record touches the same.
func (a *audience) deliver(list []delivery) {
	for i, seat := range a.seats {
		for _, d := range list {
			seat.view.roomChanged(seat.room, d.rec, d.live)
		}
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched()
		}
	}
}

// processLocked hands the records of a batch to the views.
func (s *shard) processLocked(b *partition.Published) {
	// Records that follow each other in one room are delivered together.
	var to *audience
	var list []delivery
	flush := func() {
		if len(list) > 0 {
			to.deliver(list)
			list = list[:0]
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Seq <= s.mu.processed {
			continue
		}
		a := s.mu.rooms[ids.RoomID(r.Entity)] // of a user's record there is none
		if a != nil && r.Obj == nil && r.Body != nil {
			decode(r) // each node has the records of all rooms, and people in some of them
		}
		s.mu.recent.add(r, a != nil)
		if a != to {
			flush()
			to = a
		}
		switch r.Kind {
		case partition.RecordEvent, partition.RecordReceipt, partition.RecordDevices:
			if a != nil {
				l := newLive(s.p, r)
				if changesPush(r, l) {
					flush()
					a.forgetPush()
				}
				list = append(list, delivery{r, l})
			}
		case partition.RecordUser:
			if v := s.mu.users[ids.UserID(r.Entity)]; v != nil {
				v.userChanged(r)
			}
		}
	}
	flush()
	s.advanceLocked(b.Last)
}

// await waits until the shard has processed a position that is committed, and returns
// what it has processed.
func (s *shard) await(ctx context.Context, at ids.Seq) (ids.Seq, error) {
	for {
		s.mu.Lock()
		processed := s.mu.processed
		if processed >= at {
			s.mu.Unlock()
			return processed, nil
		}
		if s.mu.advanced == nil {
			s.mu.advanced = make(chan struct{})
		}
		advanced := s.mu.advanced
		s.mu.Unlock()
		t := time.NewTimer(s.hub.pace.gap)
		select {
		case <-advanced:
		case <-t.C:
			s.catchUp(ctx, at)
		case <-ctx.Done():
			t.Stop()
			return 0, ctx.Err()
		}
		t.Stop()
	}
}

func (s *shard) at() ids.Seq {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.processed
}

// used reports whether anyone waits for what happens in the partition.
func (s *shard) used() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.rooms)+len(s.mu.users) > 0
}

func (s *shard) joinLocked(v *view, r *userRoom) *seat {
	a := s.mu.rooms[r.id]
	if a == nil {
		a = &audience{}
		s.mu.rooms[r.id] = a
	}
	st := &seat{view: v, room: r, aud: a, at: len(a.seats)}
	a.seats = append(a.seats, st)
	return st
}

func (s *shard) leave(st *seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(st)
}

func (s *shard) leaveLocked(st *seat) {
	a := st.aud
	if a == nil {
		return
	}
	last := a.seats[len(a.seats)-1]
	a.seats[st.at], last.at = last, st.at
	a.seats[len(a.seats)-1] = nil
	a.seats = a.seats[:len(a.seats)-1]
	st.aud = nil
	if len(a.seats) == 0 {
		delete(s.mu.rooms, st.room.id)
	}
}

func (h *Hub) shardOf(entity string) *shard { return h.shards[ids.PartitionOf(entity, h.opts.Count)] }

func (h *Hub) sweepLoop() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
			now := h.opts.Clock.Now()
			h.typing.expire(now)
			h.presence.expire(now)
			h.sliding.expire(now)
			h.sweep(now)
		}
	}
}

// pollLoop looks whether the bus lost the last batches of a partition: the next
// one would tell, but who knows when it comes.
func (h *Hub) pollLoop() {
	tick := time.NewTicker(h.pace.poll)
	defer tick.Stop()
	before := make([]ids.Seq, len(h.shards))
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
			h.poll(h.ctx, before)
		}
	}
}

// poll reads the logs of the shards that are behind and have not moved since the poll
// before. before is where they were then, and becomes where they are.
func (h *Hub) poll(ctx context.Context, before []ids.Seq) {
	var quiet []ids.Partition
	for i, s := range h.shards {
		if at := s.at(); at == before[i] && s.used() {
			quiet = append(quiet, s.p)
		} else {
			before[i] = at
		}
	}
	if len(quiet) == 0 {
		return
	}
	heads, err := h.opts.Heads.Heads(ctx, quiet...)
	if err != nil {
		if ctx.Err() == nil {
			h.opts.Log.Warn("read log heads", "error", err)
		}
		return
	}
	for i, p := range quiet {
		s := h.shards[p]
		if heads[i] > s.at() {
			s.catchUp(ctx, heads[i])
		}
		before[p] = s.at()
	}
}

// sweep forgets the views nobody has used for a while.
func (h *Hub) sweep(now time.Time) {
	h.mu.Lock()
	var idle []*view
	for _, v := range h.mu.users {
		if v.refs == 0 && h.moment(now).sub(v.used) > idleUser {
			idle = append(idle, v)
			delete(h.mu.users, v.user)
		}
	}
	h.mu.Unlock()
	for _, v := range idle {
		v.leaveAll()
	}
}

// discard makes the next request of a user build a new view; those that use the
// old one are woken and find it stale.
func (h *Hub) discard(v *view) {
	h.mu.Lock()
	if h.mu.users[v.user] == v {
		delete(h.mu.users, v.user)
	}
	h.mu.Unlock()
	v.leaveAll()
}
