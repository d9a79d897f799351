package cluster_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// heard keeps what a follower is told of: up to where each partition goes, and under
// which epoch it is followed.
type heard struct {
	mu     sync.Mutex
	epochs map[ids.Partition]ids.Epoch
	upTo   map[ids.Partition]ids.Seq
	// published counts the batches that came as such, behind what had to be read.
	published, behind int
}

func newHeard() *heard {
	return &heard{epochs: map[ids.Partition]ids.Epoch{}, upTo: map[ids.Partition]ids.Seq{}}
}

func (h *heard) Taken(p ids.Partition, e ids.Epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epochs[p] = e
}

func (h *heard) Dropped(p ids.Partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.epochs, p)
	delete(h.upTo, p)
}

func (h *heard) Published(b *partition.Published) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published++
	h.upTo[b.Partition] = max(h.upTo[b.Partition], b.Last)
}

func (h *heard) Behind(p ids.Partition, head ids.Seq) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behind++
	h.upTo[p] = max(h.upTo[p], head)
}

// knows reports whether all partitions are followed up to a position.
func (h *heard) knows(at ids.Seq) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range ids.Partition(trioCount) {
		if h.epochs[p] == 0 || h.upTo[p] < at {
			return false
		}
	}
	return true
}

func (h *heard) count() (published, behind, follows int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.published, h.behind, len(h.epochs)
}

// Workers follow what a node commits that is none, also what the bus loses, and share
// that; one that runs its own partitions leaves nothing to them.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{buses: map[string]*membus.Bus{}, cut: map[[2]string]bool{}}
		world := &world{t: t, store: memstore.New(clock.Real{}), count: trioCount}
		start := func(name string, edge, worker bool) *cluster.Node {
			b := membus.New()
			t.Cleanup(func() { _ = b.Close() })
			net.mu.Lock()
			net.buses[name] = b
			net.mu.Unlock()
			o := world.options(name, world.store)
			o.Bus, o.Clock, o.LeaseTTL = leg{b, net, name}, clock.Real{}, 8*time.Second
			o.Balance, o.Search, o.EdgeOnly, o.Worker = true, 10*time.Second, edge, worker
			return world.start(o)
		}
		await := func(what string, is func() bool) {
			t.Helper()
			for begin := time.Now(); !is(); time.Sleep(50 * time.Millisecond) {
				if time.Since(begin) > time.Minute {
					t.Fatalf("still not: %s", what)
				}
			}
		}
		commit := func(n *cluster.Node) {
			t.Helper()
			for p := range ids.Partition(trioCount) {
				if _, err := n.Do(t.Context(), ticket{p, "x"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		a := start("a", false, false)
		commit(a)
		w := start("w", true, true)
		first := newHeard()
		w.Follow(first)
		await("the worker knows what was committed before", func() bool { return first.knows(1) })
		before, _, _ := first.count()
		commit(a)
		await("and what is committed now", func() bool { return first.knows(2) })
		if now, _, _ := first.count(); now != before+trioCount {
			t.Errorf("%d batches came over the bus, want %d", now-before, trioCount)
		}
		if !w.Follows(0) || a.Follows(0) {
			t.Error("it does not say who follows")
		}
		net.lose.Store(true)
		commit(a)
		await("what the bus lost is found", func() bool { return first.knows(3) })
		net.lose.Store(false)

		second := newHeard()
		v := start("v", true, true)
		v.Follow(second)
		await("two workers share", func() bool {
			_, _, one := first.count()
			_, _, two := second.count()
			return one > 0 && two > 0 && one+two == trioCount
		})
		v.Close()
		await("one follows all again", func() bool { return first.knows(3) })
		whole := start("whole", false, true)
		a.Close()
		await("a node that is a worker too leaves nothing", func() bool {
			_, _, n := first.count()
			return n == 0 && whole.Owned() == trioCount
		})
	})
}
