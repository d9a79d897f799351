package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// lease is that of the simulated nodes: short, so that a run sees many end.
const lease = 4 * time.Second

// skewed is a clock that can be wrong.
type skewed struct {
	mu     sync.Mutex
	offset time.Duration
}

// Now implements clock.Clock.
func (c *skewed) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *skewed) jump(to time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = to
}

// node is one process of the deployment: from its start to its end. The next
// process in its place is another node with the same number.
type node struct {
	world  *world
	number int
	id     ids.NodeID
	clock  skewed
	store  *nodeStore
	bus    *nodeBus
	// cluster, hub and consumers are set when up is closed.
	cluster   *cluster.Node
	hub       *feed.Hub
	consumers *consumer.Set
	up        chan struct{}
	dead      chan struct{} // closed by a crash
	killed    sync.Once
	ended     chan struct{} // closed when nothing of it runs
	// ending and followed let one of several do it.
	ending, followed atomic.Bool

	mu struct {
		sync.Mutex
		paused   chan struct{} // closed when it goes on, nil while it runs
		storeCut bool
		leaving  bool
	}
}

// boot starts a process. It comes up by itself, and again if it fails.
func (w *world) boot(number int) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.booted++
	n := &node{
		world: w, number: number, id: ids.NodeID(fmt.Sprintf("n%d-%d", number, w.mu.booted)),
		up: make(chan struct{}), dead: make(chan struct{}), ended: make(chan struct{}),
	}
	n.store = &nodeStore{db: w.db, node: n, dice: newDice(w.seed, "store "+string(n.id))}
	n.bus = w.net.open(n)
	w.mu.nodes[number] = n
	go n.start()
	return n
}

// start brings the node up as internal/app does.
func (n *node) start() {
	for !n.isDead() {
		err := n.try()
		if err == nil {
			close(n.up)
			if n.isDead() { // meanwhile, and whoever did it saw that it was not up
				n.end()
			}
			return
		}
		time.Sleep(n.store.dice.between(100*time.Millisecond, time.Second))
	}
	close(n.ended)
}

func (n *node) try() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := n.world
	core, err := cluster.Start(ctx, cluster.Options{
		Node: n.id, Count: w.opts.Partitions, Store: n.store, Bus: n.bus, Clock: &n.clock, Log: w.log.With("node", n.id),
		LeaseTTL: lease, Tables: merged(room.Tables(), account.Tables()), Effects: merged(room.Effects(), account.Effects()),
		CacheBytes: 1 << 20, Wire: w.wire, Balance: true, Search: lease + 2*time.Second, Fit: n.fit,
	})
	if err != nil {
		return err
	}
	hub, err := feed.NewHub(ctx, feed.Options{
		Node: n.id, Count: w.opts.Partitions, Store: n.store, Bus: n.bus, Heads: heads{core, w.opts.Mutant},
		Clock: &n.clock, Log: w.log.With("node", n.id), Rules: pushrules.NewDefaults(pushrules.Options{}), Router: core,
	})
	if err != nil {
		core.Close()
		return err
	}
	set, err := n.newConsumers(core)
	if err != nil {
		hub.Close()
		core.Close()
		return err
	}
	core.Watch(set)
	n.cluster, n.hub, n.consumers = core, hub, set
	return nil
}

// fit says whether the node reaches the store, as that of PostgreSQL does.
func (n *node) fit() error {
	if n.cutFromStore() {
		return errNoWord
	}
	return nil
}

func merged[K comparable, V any](parts ...map[K]V) map[K]V {
	out := make(map[K]V)
	for _, p := range parts {
		maps.Copy(out, p)
	}
	return out
}

func newWire() (*partition.Wire, error) {
	return partition.NewWire(partition.WireOptions{
		Commands: append(account.Commands(), room.Commands()...), Unions: account.Unions(),
		Failures: append([]error{roomstate.ErrRejected}, account.Failures()...),
	})
}

// heads is where the feed asks for the ends of the logs.
type heads struct {
	*cluster.Node
	mutant Mutant
}

// Heads implements feed.Heads.
func (h heads) Heads(ctx context.Context, ps ...ids.Partition) ([]ids.Seq, error) {
	if h.mutant == NoHeads {
		return make([]ids.Seq, len(ps)), nil
	}
	return h.Node.Heads(ctx, ps...)
}

func (n *node) isDead() bool {
	select {
	case <-n.dead:
		return true
	default:
		return false
	}
}

// isUp reports whether clients would be sent here.
func (n *node) isUp() bool {
	select {
	case <-n.up:
	default:
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.mu.leaving && !n.isDead()
}

// awake waits while the node is stopped. Nothing that a node does has an effect
// outside but through it, so that one which waits here does nothing.
func (n *node) awake() error {
	for {
		n.mu.Lock()
		paused := n.mu.paused
		n.mu.Unlock()
		if n.isDead() {
			return errGone
		}
		if paused == nil {
			return nil
		}
		select {
		case <-paused:
		case <-n.dead:
		}
	}
}

func (n *node) pause() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.paused == nil {
		n.mu.paused = make(chan struct{})
	}
}

func (n *node) resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.paused != nil {
		close(n.mu.paused)
		n.mu.paused = nil
	}
}

func (n *node) cutFromStore() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.storeCut
}

func (n *node) setStoreCut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.storeCut = cut
}

// crash ends the node at once: what it had in memory is lost. What it sent before
// arrives.
func (n *node) crash() {
	n.killed.Do(func() { close(n.dead) })
	n.bus.vanish()
	select {
	case <-n.up:
		// Its goroutines find that nothing they do has an effect, and end.
		go n.end()
	default: // start ends it
	}
}

func (n *node) end() {
	if n.ending.Swap(true) {
		<-n.ended
		return
	}
	n.hub.Close()
	n.consumers.Close()
	n.cluster.Close()
	n.bus.vanish()
	close(n.ended)
}

// reboot starts the next process in the place of one that ended.
func (n *node) reboot() {
	<-n.ended
	if !n.followed.Swap(true) {
		n.world.boot(n.number)
	}
}

// drain lets the node end in good order, as internal/app does on SIGTERM.
func (n *node) drain() {
	n.mu.Lock()
	n.mu.leaving = true
	n.mu.Unlock()
	n.end()
	n.killed.Do(func() { close(n.dead) })
}

// serve runs a request of a client on the node, and returns errGone if the
// connection ends before the answer.
func serve[R any](ctx context.Context, n *node, fn func(context.Context) (R, error)) (R, error) {
	type answer struct {
		r   R
		err error
	}
	var none R
	if !n.isUp() {
		return none, errGone
	}
	done := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	n.world.net.wg.Go(func() {
		time.Sleep(n.store.dice.between(wireMin, wireMax))
		if err := n.awake(); err != nil {
			return
		}
		r, err := fn(ctx)
		if n.awake() != nil {
			return
		}
		time.Sleep(n.store.dice.between(wireMin, wireMax))
		done <- answer{r, err}
	})
	select {
	case a := <-done:
		return a.r, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-n.dead:
		return none, errors.Join(errGone)
	}
}

// clientPatience is how long clients wait for an answer.
const clientPatience = 10 * time.Second

// node is the process in a place.
func (w *world) node(number int) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.nodes[number]
}
