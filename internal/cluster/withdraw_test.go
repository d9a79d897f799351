package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// network joins the buses of nodes, any two of which can be parted.
type network struct {
	mu    sync.Mutex
	buses map[string]*membus.Bus
	cut   map[[2]string]bool
	// lose: what is published does not arrive elsewhere, but for who is there.
	lose atomic.Bool
	// mute: nobody says that they are there.
	mute atomic.Bool
	// hole: who asks a node that it is parted from is not told.
	hole atomic.Bool
}

// isolate parts a node from all others.
func (w *network) isolate(name string, cut bool) {
	for other := range w.buses {
		if other != name {
			w.part(name, other, cut)
		}
	}
}

func (w *network) part(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[[2]string{a, b}], w.cut[[2]string{b, a}] = cut, cut
}

// reaches are the buses that a node reaches, its own first; all tells that it is parted
// from none.
func (w *network) reaches(from string) (list []*membus.Bus, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list = []*membus.Bus{w.buses[from]}
	for name, b := range w.buses {
		if name != from && !w.cut[[2]string{from, name}] {
			list = append(list, b)
		}
	}
	return list, len(list) == len(w.buses)
}

// leg is a node's way into the network.
type leg struct {
	*membus.Bus
	net  *network
	name string
}

func (l leg) Publish(subject string, p bus.Payload) error {
	if subject == "members" && l.net.mute.Load() {
		return nil
	}
	reached, _ := l.net.reaches(l.name)
	for i, b := range reached {
		if i == 0 || subject == "members" || !l.net.lose.Load() {
			_ = b.Publish(subject, p) // one that is closed hears nothing
		}
	}
	return nil
}

func (l leg) Request(ctx context.Context, subject string, p bus.Payload) (bus.Payload, error) {
	reached, all := l.net.reaches(l.name)
	for _, b := range reached {
		answer, err := b.Request(ctx, subject, p)
		if !errors.Is(err, bus.ErrNoResponder) && !errors.Is(err, bus.ErrClosed) {
			return answer, err
		}
	}
	if l.net.hole.Load() && !all { // else nobody was parted from the one who does not run it any more
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, bus.ErrNoResponder
}

// trio are three nodes with a bus each, in a bubble with a time of its own.
type trio struct {
	t     *testing.T
	net   *network
	nodes map[string]*cluster.Node
	away  map[string]*atomic.Bool
	store storage.Store
	slow  atomic.Int64
}

const trioCount = 12

var errAway = errors.New("the store is away")

// awayStore is a node's way to the store, which can be away.
type awayStore struct {
	storage.Store
	away *atomic.Bool
	// slow is how long commits take.
	slow *atomic.Int64
}

func (s awayStore) Acquire(ctx context.Context, p ids.Partition, n ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if s.away.Load() {
		return storage.Lease{}, errAway
	}
	return s.Store.Acquire(ctx, p, n, ttl)
}

// Renew implements storage.Renewer, as the databases of several nodes do: a lease that is
// given up while it is renewed is not held anew.
func (s awayStore) Renew(ctx context.Context, leases []storage.Lease, ttl time.Duration) []error {
	if s.away.Load() {
		return slices.Repeat([]error{errAway}, len(leases))
	}
	return storage.Renew(ctx, s.Store, leases, ttl)
}

func (s awayStore) Commit(ctx context.Context, p ids.Partition, e ids.Epoch, b *storage.Batch) error {
	if s.away.Load() {
		return errAway
	}
	time.Sleep(time.Duration(s.slow.Load()))
	return s.Store.Commit(ctx, p, e, b)
}

func (s awayStore) Release(ctx context.Context, l storage.Lease) error {
	if s.away.Load() {
		return errAway
	}
	return s.Store.Release(ctx, l)
}

// newTrio starts nodes; those called edge run no partitions.
func newTrio(t *testing.T, names ...string) *trio {
	w := &trio{
		t: t, net: &network{buses: map[string]*membus.Bus{}, cut: map[[2]string]bool{}},
		nodes: map[string]*cluster.Node{}, away: map[string]*atomic.Bool{},
	}
	world := &world{t: t, store: memstore.New(clock.Real{}), count: trioCount}
	w.store = world.store
	for _, name := range names {
		b, away := membus.New(), new(atomic.Bool)
		t.Cleanup(func() { _ = b.Close() })
		w.net.mu.Lock()
		w.net.buses[name] = b
		w.net.mu.Unlock()
		o := world.options(name, awayStore{world.store, away, &w.slow})
		o.Bus, o.Clock, o.LeaseTTL = leg{b, w.net, name}, clock.Real{}, 8*time.Second
		o.Balance, o.Search, o.EdgeOnly = true, 10*time.Second, name == "edge"
		o.Fit = func() error {
			if away.Load() {
				return errAway
			}
			return nil
		}
		w.away[name] = away
		w.nodes[name] = world.start(o)
	}
	w.serve(names...)
	return w
}

// serve waits until the nodes named run all partitions, and only they have not
// withdrawn; it returns how long that took.
func (w *trio) serve(names ...string) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for {
		sum, as := 0, true
		for name, n := range w.nodes {
			works := slices.Contains(names, name)
			as = as && works == (n.Withdrawn() == nil) && (works || n.Owned() == 0) && (!works || name == "edge" || n.Owned() > 0)
			sum += n.Owned()
		}
		if as && sum == trioCount {
			break
		}
		if time.Since(begin) > time.Minute {
			for name, n := range w.nodes {
				w.t.Errorf("%s: %d partitions, %v", name, n.Owned(), n.Withdrawn())
			}
			w.t.FailNow()
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(begin)
	for _, name := range names {
		for p := range ids.Partition(trioCount) {
			if _, err := w.nodes[name].Do(w.t.Context(), ticket{p, name}); err != nil {
				w.t.Errorf("%s, partition %d: %v", name, p, err)
			}
		}
	}
	return took
}

// within: who cannot work is replaced before those who wait for it give up.
const within = 10 * time.Second

// answered sends commands to all partitions by way of nodes, each again until it is
// answered, and returns how long that took.
func (w *trio) answered(names ...string) time.Duration {
	begin := time.Now()
	var wg sync.WaitGroup
	for p := range ids.Partition(trioCount) {
		wg.Go(func() {
			for i := 0; ; i++ {
				n := w.nodes[names[i%len(names)]]
				if n.Withdrawn() == nil { // else the load balancer knows
					if _, err := n.Do(w.t.Context(), ticket{p, "x"}); err == nil {
						return
					}
				}
				if time.Since(begin) > time.Minute {
					w.t.Errorf("partition %d is not served again", p)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// Whoever is cut off and however, all partitions answer again in time: those who asked a
// node when what they said vanished do not wait for it, and asking one that is silent
// is not tried.
func TestFailOverInTime(t *testing.T) {
	for _, hole := range []bool{false, true} {
		for _, cut := range [][]string{{"a"}, {"b"}, {"c"}, {"a", "b", "c"}} {
			t.Run(fmt.Sprintf("hole=%v %v", hole, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newTrio(t, "a", "b", "c")
					w.net.hole.Store(hole)
					// At another place of the second each time.
					for _, at := range []time.Duration{0, 1170 * time.Millisecond, 430 * time.Millisecond, 1840 * time.Millisecond} {
						time.Sleep(at)
						for _, name := range cut {
							w.net.isolate(name, true)
						}
						took := w.answered("a", "b", "c")
						if t.Logf("answered again after %v", took); took > within {
							t.Error("that is too long")
						}
						time.Sleep(time.Minute)
						for _, name := range cut {
							w.net.isolate(name, false)
						}
						w.serve("a", "b", "c")
					}
				})
			})
		}
	}
}

// A node that dies takes nobody with it: the others stay ready, as a load balancer sees
// it. One that is cut off says soon that it is not.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c", "edge")
		watch := func(d time.Duration, names ...string) {
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(100 * time.Millisecond) {
				for _, name := range names {
					if err := w.nodes[name].Ready(); err != nil {
						t.Fatalf("%s is not ready after %v: %v", name, time.Since(begin), err)
					}
				}
			}
		}
		w.net.isolate("b", true)
		w.away["b"].Store(true)
		watch(20*time.Second, "a", "c", "edge")
		w.net.isolate("b", false)
		w.away["b"].Store(false)
		w.serve("a", "b", "c", "edge")
		watch(10*time.Second, "a", "b", "c", "edge")
		w.net.isolate("a", true)
		watch(4*time.Second, "b", "c", "edge")
		if w.nodes["a"].Ready() == nil {
			t.Error("who hears nobody is ready")
		}
		watch(20*time.Second, "b", "c", "edge")
	})
}

// A command is on its way to a node that nobody hears for a moment, since the machine is
// busy, say. It is answered.
func TestCommandsOutliveAShortSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c")
		w.slow.Store(int64(6 * time.Second))
		w.net.mute.Store(true)
		time.AfterFunc(4*time.Second, func() { w.net.mute.Store(false) })
		var wg sync.WaitGroup
		for p := range ids.Partition(trioCount) {
			wg.Go(func() {
				if _, err := w.nodes["a"].Do(t.Context(), ticket{p, "x"}); err != nil {
					t.Errorf("partition %d: %v", p, err)
				}
			})
		}
		time.Sleep(3800 * time.Millisecond)
		if n := w.nodes["a"].Served(); n == trioCount {
			t.Error("all are heard: this proves nothing")
		}
		wg.Wait()
		w.slow.Store(0)
	})
}

// A node whose last peer dies takes its work over. That the peer has renewed its leases
// since somebody looked, a while ago, does not make it alive.
func TestDeadPeerIsNoReasonToWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b")
		w.net.part("a", "b", true)
		time.Sleep(4 * time.Second) // both look at each other's leases
		w.net.part("a", "b", false)
		time.Sleep(time.Minute)
		w.serve("a", "b")
		w.net.part("a", "b", true)
		w.away["b"].Store(true)
		begin := time.Now()
		for w.nodes["a"].Owned() < trioCount {
			if err := w.nodes["a"].Withdrawn(); err != nil {
				t.Fatalf("it withdrew after %v: %v", time.Since(begin), err)
			}
			if time.Since(begin) > within {
				t.Fatal("it does not take over")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// A node that the others do not hear, though it is alive, leaves its partitions to
// them, refuses at once what it cannot do, and comes back.
func TestPartedNodeWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c")
		for _, name := range []string{"c", "a"} {
			rest := slices.DeleteFunc([]string{"a", "b", "c"}, func(s string) bool { return s == name })
			for _, other := range rest {
				w.net.part(name, other, true)
			}
			took := w.serve(rest...)
			t.Logf("%s is cut off: the others serve all after %v", name, took)
			if took > within {
				t.Errorf("that is too long")
			}
			if err := w.nodes[name].Withdrawn(); !errors.Is(err, cluster.ErrParted) {
				t.Errorf("%s withdrew because %v", name, err)
			}
			begin := time.Now()
			if _, err := w.nodes[name].Do(t.Context(), ticket{0, name}); err == nil || time.Since(begin) > time.Second {
				t.Errorf("a command at %s: %v after %v", name, err, time.Since(begin))
			}
			time.Sleep(time.Minute)
			w.serve(rest...)
			for _, other := range rest {
				w.net.part(name, other, false)
			}
			w.serve("a", "b", "c")
		}
	})
}

// Of two that do not hear each other, while a third hears both, one goes on.
func TestBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c")
		w.net.part("a", "b", true)
		w.serve("b", "c")
		time.Sleep(time.Minute)
		w.serve("b", "c")
		w.net.part("a", "b", false)
		w.serve("a", "b", "c")
	})
}

// When nobody hears anybody, one node serves, and only one.
func TestNobodyHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c")
		all := []string{"a", "b", "c"}
		for i, x := range all {
			for _, y := range all[i+1:] {
				w.net.part(x, y, true)
			}
		}
		alone := func() (names []string) {
			for name, n := range w.nodes {
				if n.Owned() == trioCount {
					names = append(names, name)
				}
			}
			return names
		}
		for begin := time.Now(); len(alone()) == 0; time.Sleep(100 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("nobody serves")
			}
		}
		one := alone()
		w.serve(one...)
		time.Sleep(time.Minute)
		w.serve(one...)
		for i, x := range all {
			for _, y := range all[i+1:] {
				w.net.part(x, y, false)
			}
		}
		w.serve(all...)
	})
}

// A node whose store is away leaves its work to those that reach theirs; when all have
// lost it, nobody leaves.
func TestUnfitNodeWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c", "edge")
		w.away["b"].Store(true)
		t.Logf("the others serve all after %v", w.serve("a", "c", "edge"))
		if err := w.nodes["b"].Withdrawn(); !errors.Is(err, cluster.ErrUnfit) || !errors.Is(err, errAway) {
			t.Errorf("b withdrew because %v", err)
		}
		w.away["b"].Store(false)
		w.serve("a", "b", "c", "edge")
		for _, away := range w.away {
			away.Store(true)
		}
		time.Sleep(time.Minute)
		for name, n := range w.nodes {
			if err := n.Withdrawn(); err != nil {
				t.Errorf("%s withdrew: %v", name, err)
			}
		}
		for _, away := range w.away {
			away.Store(false)
		}
		w.serve("a", "b", "c", "edge")
	})
}

// A node without partitions that hears none of those that run them withdraws.
func TestPartedEdgeWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "edge")
		w.net.part("edge", "a", true)
		w.serve("a", "b")
		w.net.part("edge", "b", true)
		time.Sleep(time.Minute)
		w.serve("a", "b")
		w.net.part("edge", "a", false)
		w.net.part("edge", "b", false)
		w.serve("a", "b", "edge")
	})
}

// A node that withdrew from a silent store gave nothing up, and a commit of its own may
// still arrive there: when it comes back while it has the leases, it runs under other
// epochs.
func TestWithdrawnEpochsAreSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t, "a", "b", "c")
		w.away["a"].Store(true)
		for begin := time.Now(); w.nodes["a"].Withdrawn() == nil; {
			if time.Since(begin) > time.Minute {
				t.Fatal("it does not withdraw")
			}
			time.Sleep(10 * time.Millisecond)
		}
		had := map[ids.Partition]ids.Epoch{}
		for p := range ids.Partition(trioCount) {
			if l, err := w.store.Acquire(t.Context(), p, "rival", time.Second); errors.Is(err, storage.ErrHeld) && l.Node == "a" {
				had[p] = l.Epoch
			}
		}
		if len(had) == 0 {
			t.Fatal("its leases have run out already: this proves nothing")
		}
		w.away["a"].Store(false)
		w.serve("a", "b", "c")
		for p, epoch := range had {
			var late storage.Batch
			late.Put(storage.Key{Partition: p, Table: counters, Entity: "late"}, []byte("late"))
			if err := w.store.Commit(t.Context(), p, epoch, &late); !errors.Is(err, storage.ErrFenced) {
				t.Errorf("partition %d: a commit under epoch %d, from before, took effect: %v", p, epoch, err)
			}
		}
	})
}
