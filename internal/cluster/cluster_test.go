package cluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	counters storage.Table = 200
	// longLease never ends in real time: the manual clock ends it.
	longLease = time.Hour
)

var errDown = errors.New("down")

// ticket adds 1 to a counter of a partition and returns what it was.
type ticket struct {
	p  ids.Partition
	by string
}

func counterKey(p ids.Partition) storage.Key { return storage.Key{Partition: p, Table: counters} }

func (c ticket) Name() string                { return "ticket" }
func (c ticket) Partition(int) ids.Partition { return c.p }

func (c ticket) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, counterKey(c.p))
}

func (c ticket) Apply(tx *partition.Tx) (any, error) {
	var n uint64
	if v := tx.Get(counterKey(c.p)).Value; v != nil {
		n = binary.BigEndian.Uint64(v)
	}
	tx.Put(counterKey(c.p), binary.BigEndian.AppendUint64(nil, n+1), nil)
	tx.Emit(partition.Record{Kind: partition.RecordUser, Entity: c.by, Data: binary.BigEndian.AppendUint64(nil, n)})
	return int(n), nil
}

// nodeStore is one node's way to the shared store, on which commits can be held
// and calls made to fail. It counts what must never be: two commits at once
// under one epoch, and a commit under the epoch of one that failed.
type nodeStore struct {
	storage.Store
	before, after, release, acquire atomic.Pointer[func() error]

	mu struct {
		sync.Mutex
		running    map[[2]uint64]int
		failed     map[ids.Partition]ids.Epoch
		violations []string
	}
}

func newNodeStore(st storage.Store) *nodeStore {
	s := &nodeStore{Store: st}
	s.mu.running = map[[2]uint64]int{}
	s.mu.failed = map[ids.Partition]ids.Epoch{}
	return s
}

func call(hook *atomic.Pointer[func() error]) error {
	if f := hook.Load(); f != nil {
		return (*f)()
	}
	return nil
}

func (s *nodeStore) enter(p ids.Partition, e ids.Epoch) func(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := [2]uint64{uint64(p), uint64(e)}
	s.mu.running[k]++
	if s.mu.running[k] > 1 {
		s.mu.violations = append(s.mu.violations, fmt.Sprintf("two commits at once to %d, epoch %d", p, e))
	}
	if f, ok := s.mu.failed[p]; ok && e <= f {
		s.mu.violations = append(s.mu.violations, fmt.Sprintf("commit to %d with epoch %d after one failed with %d", p, e, f))
	}
	return func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.running[k]--
		if err != nil {
			s.mu.failed[p] = max(s.mu.failed[p], e)
		}
	}
}

func (s *nodeStore) Commit(ctx context.Context, p ids.Partition, e ids.Epoch, b *storage.Batch) (err error) {
	leave := s.enter(p, e)
	defer func() { leave(err) }()
	if err := call(&s.before); err != nil {
		return err
	}
	if err := s.Store.Commit(ctx, p, e, b); err != nil {
		return err
	}
	return call(&s.after)
}

func (s *nodeStore) Release(ctx context.Context, l storage.Lease) error {
	if err := call(&s.release); err != nil {
		return err
	}
	return s.Store.Release(ctx, l)
}

func (s *nodeStore) Acquire(ctx context.Context, p ids.Partition, id ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if err := call(&s.acquire); err != nil {
		return storage.Lease{}, err
	}
	return s.Store.Acquire(ctx, p, id, ttl)
}

func (s *nodeStore) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.mu.violations {
		t.Error(v)
	}
}

// world is what the nodes of a test share.
type world struct {
	t     *testing.T
	store storage.Store
	clock *clock.Manual
	bus   bus.Bus
	count int
}

func newWorld(t *testing.T, count int) *world {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, store: memstore.New(c), clock: c, bus: membus.New(), count: count}
	t.Cleanup(func() {
		if err := w.bus.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
	return w
}

func (w *world) options(name string, st storage.Store) cluster.Options {
	return cluster.Options{
		Node: ids.NodeID(name), Count: w.count, Store: st, Bus: w.bus, Clock: w.clock,
		Log: slog.New(slog.DiscardHandler), LeaseTTL: longLease, CacheBytes: 1 << 20,
		Tables: map[storage.Table]partition.TableSpec{counters: {Keep: true}},
	}
}

func (w *world) start(o cluster.Options) *cluster.Node {
	w.t.Helper()
	n, err := cluster.Start(context.Background(), o)
	if err != nil {
		w.t.Fatalf("start %s: %v", o.Node, err)
	}
	w.t.Cleanup(n.Close)
	return n
}

// records returns who wrote each ticket of a partition's log, and checks that the
// log is contiguous and the tickets are given out in order.
func (w *world) records(p ids.Partition) []string {
	w.t.Helper()
	var log []*partition.Published
	at := ids.Seq(0)
	for {
		more, err := partition.ReadLog(context.Background(), w.store, p, at, storage.MaxScan)
		if err != nil {
			w.t.Fatalf("read log: %v", err)
		}
		if len(more) == 0 {
			break
		}
		log, at = append(log, more...), more[len(more)-1].Last
	}
	var by []string
	at = 0
	for _, b := range log {
		if b.First != at+1 || int(b.Last-b.First)+1 != len(b.Records) {
			w.t.Fatalf("batch %d to %d behind %d", b.First, b.Last, at)
		}
		at = b.Last
		for _, r := range b.Records {
			if n := binary.BigEndian.Uint64(r.Data); n != uint64(len(by)) {
				w.t.Fatalf("position %d holds ticket %d, want %d", r.Seq, n, len(by))
			}
			by = append(by, r.Entity)
		}
	}
	return by
}

// held makes the calls of a hook wait. entered is closed when the first waits.
func held(hook *atomic.Pointer[func() error]) (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(in) })
	f := func() error {
		once()
		<-out
		return nil
	}
	hook.Store(&f)
	return in, func() { close(out) }
}

func until(cond func() bool) {
	for !cond() {
		runtime.Gosched()
	}
}

// The promise: an owner that was paused for longer than its lease cannot commit.
func TestPausedOwnerCannotCommit(t *testing.T) {
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			w := newWorld(t, 1)
			st := newNodeStore(w.store)
			oa := w.options("a", st)
			own := clock.NewManual(w.clock.Now())
			oa.Clock = own
			a := w.start(oa)
			b := w.start(w.options("b", w.store))
			ctx := context.Background()
			if v, err := b.Do(ctx, ticket{0, "a"}); v != 0 || err != nil { // over the bus
				t.Fatalf("%v, %v", v, err)
			}
			entered, release := held(&st.before)
			const callers = 20
			errs := make(chan error, callers)
			for range callers {
				go func() {
					_, err := a.Do(ctx, ticket{0, "late"})
					errs <- err
				}()
			}
			<-entered
			own.Advance(jump)
			w.clock.Advance(2 * longLease)
			b.Renew(ctx)
			for i := range 100 {
				if v, err := b.Do(ctx, ticket{0, "b"}); v != i+1 || err != nil {
					t.Fatalf("the new owner gives out %v, %v; want %d", v, err, i+1)
				}
			}
			st.before.Store(nil)
			release()
			for range callers {
				// Who had not come to A's owner yet may have found B's.
				if err := <-errs; err != nil && !errors.Is(err, partition.ErrLost) &&
					merr.From(err).Status != http.StatusServiceUnavailable {
					t.Errorf("a caller of the old owner got %v", err)
				}
			}
			until(func() bool { return a.Owned() == 0 })
			by := w.records(0)
			if len(by) < 101 || slices.Contains(by[:101], "late") || slices.Contains(by[1:101], "a") {
				t.Errorf("the log was written by %v", by)
			}
			var v any
			var err error
			until(func() bool { // a moment later it knows where the partition is
				v, err = a.Do(ctx, ticket{0, "a"})
				return !errors.Is(err, bus.ErrNoResponder)
			})
			if v != len(by) || err != nil {
				t.Errorf("through the old owner's node: %v, %v", v, err)
			}
			if head, err := a.Heads(ctx, 0); err != nil || head[0] != ids.Seq(len(by)+1) {
				t.Errorf("head %d, %v", head, err)
			}
			st.check(t)
		})
	}
}

// scanned counts the scans of a store.
type scanned struct {
	storage.Store
	scans atomic.Int64
}

func (s *scanned) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	s.scans.Add(1)
	return s.Store.Scan(ctx, r)
}

// A clock of the wall that jumps makes no node trust its lease for longer: ahead, it asks the
// store; back, the steady clock counts.
func TestHeadsWhenClocksJump(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, 0, longLease/2 - time.Second, longLease, 24 * time.Hour} {
		w := newWorld(t, 1)
		st := &scanned{Store: w.store}
		o := w.options("a", st)
		own := clock.NewManual(w.clock.Now())
		o.Clock = own
		a := w.start(o)
		own.Advance(jump)
		before := st.scans.Load()
		if _, err := a.Heads(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if asked := st.scans.Load() > before; asked != (jump >= longLease/2) {
			t.Errorf("after a jump by %v: asked the store %v", jump, asked)
		}
	}
}

// A node whose lease may have run out does not know by itself where its partitions
// stand: they may have gone on elsewhere.
func TestHeadsOfDoubtfulLeases(t *testing.T) {
	w := newWorld(t, 2)
	ctx := context.Background()
	st := newNodeStore(w.store)
	o := w.options("a", st)
	o.LeaseTTL = 2 * time.Nanosecond // of which no time is left as soon as it has it; the manual clock lets it last
	a := w.start(o)
	b := w.start(w.options("b", w.store))
	if _, err := a.Do(ctx, ticket{1, "a"}); err != nil {
		t.Fatal(err)
	}
	_, release := held(&st.acquire) // it learns nothing
	defer release()
	w.clock.Advance(time.Second)
	b.Renew(ctx)
	for range 3 {
		if _, err := b.Do(ctx, ticket{1, "b"}); err != nil {
			t.Fatal(err)
		}
	}
	if !a.Owns(1) {
		t.Fatal("the first node knows that it has lost the partition")
	}
	for _, n := range []*cluster.Node{a, b} {
		if heads, err := n.Heads(ctx, 1, 0, 1); err != nil || !slices.Equal(heads, []ids.Seq{4, 0, 4}) {
			t.Errorf("heads %v, %v", heads, err)
		}
	}
}

// All callers of a batch that is refused learn that they were not served.
func TestFencedBatchFailsItsCallers(t *testing.T) {
	w := newWorld(t, 1)
	st := newNodeStore(w.store)
	a := w.start(w.options("a", st))
	b := w.start(w.options("b", w.store))
	entered, release := held(&st.before)
	errs := make(chan error, 1)
	go func() {
		_, err := a.Do(context.Background(), ticket{0, "late"})
		errs <- err
	}()
	<-entered
	w.clock.Advance(2 * longLease)
	b.Renew(context.Background())
	st.before.Store(nil)
	release()
	// Nothing of it is there: it may be sent again.
	if err := <-errs; !errors.Is(err, partition.ErrClosing) || errors.Is(err, partition.ErrLost) || !errors.Is(err, storage.ErrFenced) {
		t.Errorf("caller got %v", err)
	}
	if by := w.records(0); len(by) != 0 {
		t.Errorf("the log was written by %v", by)
	}
}

// A commit that came through before the lease was lost stays, and the new owner
// goes on behind it.
func TestCommitBeforeTakeover(t *testing.T) {
	w := newWorld(t, 1)
	st := newNodeStore(w.store)
	a := w.start(w.options("a", st))
	b := w.start(w.options("b", w.store))
	entered, release := held(&st.after)
	out := make(chan any, 1)
	go func() {
		v, _ := a.Do(context.Background(), ticket{0, "a"})
		out <- v
	}()
	<-entered
	w.clock.Advance(2 * longLease)
	b.Renew(context.Background())
	if v, err := b.Do(context.Background(), ticket{0, "b"}); v != 1 || err != nil {
		t.Errorf("the new owner gives out %v, %v", v, err)
	}
	st.after.Store(nil)
	release()
	if v := <-out; v != 0 {
		t.Errorf("the old owner's caller got %v", v)
	}
	a.Renew(context.Background())
	if n := a.Owned(); n != 0 {
		t.Errorf("the old owner still runs %d partitions", n)
	}
	if by := w.records(0); !slices.Equal(by, []string{"a", "b"}) {
		t.Errorf("log by %v", by)
	}
}

func TestRoutingAndHandover(t *testing.T) {
	const count = 8
	w := newWorld(t, count)
	a := w.start(w.options("a", w.store))
	b := w.start(w.options("b", w.store))
	ctx := context.Background()
	if a.Owned() != count || b.Owned() != 0 {
		t.Fatalf("%d and %d owned", a.Owned(), b.Owned())
	}
	for p := range count {
		for i, n := range []*cluster.Node{a, b} {
			if v, err := n.Do(ctx, ticket{ids.Partition(p), "x"}); v != i || err != nil {
				t.Fatalf("partition %d: %v, %v", p, v, err)
			}
		}
	}
	a.Close()
	_, err := b.Do(ctx, ticket{0, "x"})
	if e := merr.From(err); e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 {
		t.Errorf("while nobody runs a partition: %v", err)
	}
	b.Renew(ctx)
	if b.Owned() != count {
		t.Fatalf("%d taken over", b.Owned())
	}
	for p := range count {
		if v, err := b.Do(ctx, ticket{ids.Partition(p), "x"}); v != 2 || err != nil {
			t.Errorf("partition %d after the hand-over: %v, %v", p, v, err)
		}
	}
	a.Renew(ctx)
	if a.Owned() != 0 {
		t.Error("a closed node takes partitions")
	}
}

// A lease that ran out and was renewed by the same node comes with a new epoch
// and a new owner.
func TestLeaseRunsOut(t *testing.T) {
	w := newWorld(t, 2)
	a := w.start(w.options("a", w.store))
	for i := range 3 {
		if v, err := a.Do(context.Background(), ticket{1, "a"}); v != i || err != nil {
			t.Fatalf("%v, %v; want %d", v, err, i)
		}
		w.clock.Advance(2 * longLease)
		a.Renew(context.Background())
	}
	if by := w.records(1); len(by) != 3 {
		t.Errorf("log by %v", by)
	}
}

// After a commit of unknown outcome the partition goes on under a new epoch, even
// if giving up the old lease fails at first.
func TestOwnerIsReplaced(t *testing.T) {
	for _, applied := range []bool{false, true} {
		for _, releaseFails := range []bool{false, true} {
			t.Run(fmt.Sprintf("applied=%v,releaseFails=%v", applied, releaseFails), func(t *testing.T) {
				w := newWorld(t, 1)
				st := newNodeStore(w.store)
				a := w.start(w.options("a", st))
				ctx := context.Background()
				fail := func() error { return errDown }
				hook, want := &st.before, 0
				if applied {
					hook, want = &st.after, 1
				}
				if releaseFails {
					st.release.Store(&fail)
				}
				hook.Store(&fail)
				if _, err := a.Do(ctx, ticket{0, "a"}); !errors.Is(err, partition.ErrLost) {
					t.Errorf("caller got %v", err)
				}
				hook.Store(nil)
				if releaseFails {
					until(func() bool { return a.Owned() == 0 })
					a.Renew(ctx)
					if a.Owned() != 0 {
						t.Error("runs again under an epoch that may have been used")
					}
					st.release.Store(nil)
					a.Renew(ctx)
				}
				var v any
				until(func() bool {
					var err error
					v, err = a.Do(ctx, ticket{0, "a"})
					return err == nil
				})
				if v != want {
					t.Errorf("the new owner gives out %v, want %d", v, want)
				}
				w.records(0)
				st.check(t)
			})
		}
	}
}

// Whatever the length of a lease, and however often owners change or fail, no
// ticket is given out twice, and none is lost that was answered.
func TestOwnersComeAndGo(t *testing.T) {
	for _, ttl := range []time.Duration{1, time.Millisecond, time.Minute} {
		t.Run(ttl.String(), func(t *testing.T) {
			w := newWorld(t, 2)
			w.store = memstore.New(clock.Real{})
			var nodes []*cluster.Node
			var stores []*nodeStore
			for _, name := range []string{"a", "b"} {
				st := newNodeStore(w.store)
				var n atomic.Int64
				fail := func() error {
					if n.Add(1)%29 == 0 {
						return errDown
					}
					return nil
				}
				st.before.Store(&fail)
				st.after.Store(&fail)
				o := w.options(name, st)
				o.LeaseTTL = ttl
				nodes, stores = append(nodes, w.start(o)), append(stores, st)
			}
			got := hammer(t, nodes)
			for p, tickets := range got {
				by := w.records(ids.Partition(p))
				seen := map[int]bool{}
				for _, n := range tickets {
					if seen[n] || n >= len(by) {
						t.Errorf("ticket %d of %d was given out again or lost", n, len(by))
					}
					seen[n] = true
				}
			}
			for _, s := range stores {
				s.check(t)
			}
		})
	}
}

// hammer sends commands to two partitions from all nodes, which renew all the
// while, until enough are answered; it returns the tickets.
func hammer(t *testing.T, nodes []*cluster.Node) (tickets [2][]int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	var wg, renewing sync.WaitGroup
	for _, n := range nodes {
		for range 2 {
			renewing.Go(func() {
				for ctx.Err() == nil {
					n.Renew(ctx)
					runtime.Gosched()
				}
			})
		}
		for p := range 2 {
			wg.Go(func() {
				for served := 0; served < 150; {
					v, err := n.Do(ctx, ticket{ids.Partition(p), "x"})
					if err != nil {
						if merr.From(err).Status != http.StatusServiceUnavailable {
							t.Errorf("caller got %v", err)
							return
						}
						continue
					}
					served++
					mu.Lock()
					tickets[p] = append(tickets[p], v.(int))
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	cancel()
	renewing.Wait()
	return tickets
}

// Close answers everybody, local callers and those of other nodes.
func TestCloseWhileBusy(t *testing.T) {
	w := newWorld(t, 2)
	a := w.start(w.options("a", w.store))
	b := w.start(w.options("b", w.store))
	var served atomic.Int64
	var wg, begun sync.WaitGroup
	begun.Add(16)
	for i := range 16 {
		n := []*cluster.Node{a, b}[i%2]
		wg.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			for {
				_, err := n.Do(context.Background(), ticket{ids.Partition(i / 2 % 2), "x"})
				begin()
				if err != nil {
					if merr.From(err).Status != http.StatusServiceUnavailable {
						t.Errorf("caller got %v", err)
					}
					return
				}
				served.Add(1)
			}
		})
	}
	begun.Wait()
	a.Close()
	wg.Wait()
	if n := len(w.records(0)) + len(w.records(1)); int64(n) != served.Load() {
		t.Errorf("%d written, %d answered", n, served.Load())
	}
}

// A node that cannot start leaves nothing behind.
func TestStartFails(t *testing.T) {
	w := newWorld(t, 2)
	if _, err := cluster.Start(context.Background(), w.options("a", brokenStore{w.store})); !errors.Is(err, errDown) {
		t.Fatalf("started: %v", err)
	}
	if n := w.start(w.options("b", w.store)); n.Owned() != 2 {
		t.Errorf("%d of 2 partitions are free", n.Owned())
	}
}

// brokenStore cannot lease the second partition.
type brokenStore struct{ storage.Store }

func (s brokenStore) Acquire(ctx context.Context, p ids.Partition, n ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if p == 1 {
		return storage.Lease{}, errDown
	}
	return s.Store.Acquire(ctx, p, n, ttl)
}

// Where the store refuses what is written, owners do not follow each other without a
// pause, however much is asked for.
func TestRefusedOwnersPause(t *testing.T) {
	const pause = 500 * time.Millisecond // twice a second is what a node and a store take
	w := newWorld(t, 1)
	st := newNodeStore(w.store)
	began := time.Now()
	n := w.start(w.options("a", st))
	var refused []time.Time
	fault := func() error {
		refused = append(refused, time.Now())
		return errDown
	}
	st.before.Store(&fault)
	for len(refused) < 2 { // one owner runs at a time
		if _, err := n.Do(context.Background(), ticket{0, "a"}); err == nil {
			t.Fatal("it was written")
		}
	}
	if early := began.Add(pause).Sub(refused[1]); early > 0 {
		t.Errorf("the second owner wrote %v too early", early)
	}
	st.before.Store(nil)
	w.clock.Advance(time.Second)
	for {
		if _, err := n.Do(context.Background(), ticket{0, "a"}); err == nil {
			return
		}
	}
}

// Without a TTL a node takes the default.
func TestDefaultLease(t *testing.T) {
	w := newWorld(t, 1)
	o := w.options("a", w.store)
	o.LeaseTTL = 0
	w.start(o)
	w.clock.Advance(cluster.DefaultLeaseTTL - 1)
	lease, err := w.store.Acquire(context.Background(), 0, "b", time.Hour)
	if !errors.Is(err, storage.ErrHeld) || lease.Node != "a" {
		t.Errorf("lease %+v, %v", lease, err)
	}
}
