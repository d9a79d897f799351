// Package cluster decides which node runs which partition, and brings commands
// there.
//
// A node takes the lease of every partition it can get, renews it, and runs an
// owner for as long as it holds it. Safety rests on the epoch that each commit
// checks, never on the time a lease lasts: a node that was paused beyond its
// lease still believes that it owns the partition, and learns otherwise from its
// next commit. An owner that ends by itself is replaced under a new epoch, since
// the outcome of its last commit is not known.
//
// Methods are safe for concurrent use.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/longlock"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// DefaultLeaseTTL is how long a partition stands still when its node dies.
	DefaultLeaseTTL = 8 * time.Second
	// renewals is how many chances a node has to renew a lease before it ends.
	renewals = 4
	// trusted is the part of a lease, since it was renewed, in which a node does not
	// doubt it: half, so that clocks may run a little faster or slower than others.
	trusted = 2
	// minRenewal keeps a very short lease from asking the store all the time.
	minRenewal = time.Millisecond
	// shortLife is how long an owner has to have run to be replaced at once when it ends.
	// One that ends sooner met a store that refuses what is written, and so will the
	// next: without a pause, taking leases would keep the node and the store busier than
	// any load.
	shortLife = 500 * time.Millisecond
	// moved is what a caller is told to wait while a partition changes hands.
	moved = time.Second
)

// Options configure a Node.
type Options struct {
	Node  ids.NodeID
	Count int
	Store storage.Store
	Bus   bus.Bus
	Clock clock.Clock
	Log   *slog.Logger
	// LeaseTTL is DefaultLeaseTTL if 0.
	LeaseTTL time.Duration
	Tables   map[storage.Table]partition.TableSpec
	Effects  map[string]partition.EffectHandler
	// CacheBytes bounds the rows kept in memory, over all partitions.
	CacheBytes int64
	Metrics    *partition.Metrics
	// Wire is how commands leave the process; nil if they do not.
	Wire *partition.Wire
	// Encode is for tests: commands to partitions of this node go through their
	// encoding too.
	Encode bool
	// Balance: there are other nodes, and they share the partitions evenly. Otherwise
	// a node takes what it can get.
	Balance bool
	// Fit says, without waiting, why this node cannot do its work, nil if it can. nil
	// stands for a node that always can.
	Fit func() error
	// Worker: what follows the logs runs here, of the partitions that this node runs
	// and, with Follow, of those whose nodes are no workers.
	Worker bool
	// Exclusive: a node that is alive and not heard of belongs to somebody else, and
	// this one must not start beside it.
	Exclusive bool
	// EdgeOnly: this node runs no partitions.
	EdgeOnly bool
	// Search is how long Do looks for the owner of a partition that changes hands.
	Search time.Duration
}

// Node is this process's part in the deployment.
type Node struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	// closing lets one Close do it, and others wait; leaving does so for Leave.
	closing, leaving sync.Once
	wg               sync.WaitGroup
	slots            []slot // by partition
	// handler takes the commands of other nodes.
	handler bus.Subscription
	members members
	follows follows
	// watcher is told what the node runs, nil if nobody is.
	watcher atomic.Pointer[Watcher]
	// complete: all partitions were served at one time.
	complete atomic.Bool

	mu struct {
		sync.RWMutex
		owned map[ids.Partition]*owned
	}
}

// slot lets one goroutine at a time change what this node does with a partition.
// Otherwise two could both acquire the lease, which gives one node one epoch, and
// run two owners that nothing keeps from writing over each other.
type slot struct {
	longlock.Mutex
	// spent is the epoch of the last owner here that ended. What became of its last
	// commit may not be known, whoever ended it, and nor whether the lease was given
	// up: so no other owner runs under it.
	spent ids.Epoch
}

type owned struct {
	owner *partition.Owner
	lease storage.Lease
	// began is when the owner was made.
	began time.Time
	// renewed is when the lease was last asked for, and then granted: the same for all
	// leases that were renewed together. Guarded by Node.mu.
	renewed *moment
}

var _ partition.Router = (*Node)(nil)

// Start takes what partitions it can get and returns when these are served.
func Start(ctx context.Context, opts Options) (*Node, error) {
	if opts.LeaseTTL == 0 {
		opts.LeaseTTL = DefaultLeaseTTL
	}
	n := &Node{opts: opts, slots: make([]slot, opts.Count)}
	for i := range n.slots {
		n.slots[i].Mutex = longlock.New()
	}
	n.mu.owned = make(map[ids.Partition]*owned, opts.Count)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(ctx); err != nil {
		n.Close()
		return nil, err
	}
	n.wg.Go(n.renewLoop)
	if opts.Balance {
		n.wg.Go(n.announceLoop)
		n.wg.Go(n.balanceLoop)
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) (err error) {
	if n.handler, err = n.opts.Bus.Handle(commandSubject(n.opts.Node), n.serve); err != nil {
		return fmt.Errorf("handle commands: %w", err)
	}
	if n.opts.Balance {
		if err := n.join(ctx); err != nil {
			return fmt.Errorf("join the other nodes: %w", err)
		}
	}
	if err := n.takeFree(ctx); err != nil {
		return err
	}
	n.announce(false)
	return nil
}

func (n *Node) begin(ctx context.Context, p ids.Partition) error {
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	if n.ctx.Err() != nil || n.owned(p) != nil {
		return nil
	}
	return n.takeLocked(ctx, p)
}

// takeLocked acquires a partition that this node does not run, and runs it.
func (n *Node) takeLocked(ctx context.Context, p ids.Partition) error {
	asked := n.moment()
	lease, err := n.acquireLocked(ctx, p)
	if err != nil {
		return err
	}
	subject := partition.Subject(p)
	owner, err := partition.NewOwner(ctx, partition.Options{
		Partition: p, Count: n.opts.Count, Store: n.opts.Store, Epoch: lease.Epoch,
		Clock: n.opts.Clock, Log: n.opts.Log, Tables: n.opts.Tables, Effects: n.opts.Effects,
		Router: n, Metrics: n.opts.Metrics,
		CacheBytes: n.opts.CacheBytes / int64(n.opts.Count),
		Publish: func(b *partition.Published) {
			if w := n.watcher.Load(); w != nil {
				(*w).Published(b)
			}
			// The bus is a hint: subscribers see the gap and read the log.
			if err := n.opts.Bus.Publish(subject, b); err != nil {
				n.opts.Log.Debug("publish batch", "partition", p, "error", err)
			}
		},
		Lost: func(error) { n.replace(p, lease.Epoch) },
	})
	if err != nil {
		// Nobody commits under it: somebody else may run the partition at once.
		return errors.Join(err, n.opts.Store.Release(context.WithoutCancel(ctx), lease))
	}
	n.mu.Lock()
	n.mu.owned[p] = &owned{owner: owner, lease: lease, began: time.Now(), renewed: asked}
	n.mu.Unlock()
	n.opts.Log.Debug("partition taken", "partition", p, "epoch", lease.Epoch)
	if w := n.watcher.Load(); w != nil {
		(*w).Taken(p, lease.Epoch)
	}
	return nil
}

// acquireLocked acquires a lease with an epoch under which no owner of this node has
// run.
func (n *Node) acquireLocked(ctx context.Context, p ids.Partition) (storage.Lease, error) {
	lease, err := n.opts.Store.Acquire(ctx, p, n.opts.Node, n.opts.LeaseTTL)
	if errors.Is(err, storage.ErrHeld) {
		n.sawLease(lease)
	}
	if err != nil || lease.Epoch != n.slots[p].spent {
		return lease, err
	}
	if err := n.opts.Store.Release(ctx, lease); err != nil && !errors.Is(err, storage.ErrFenced) {
		return storage.Lease{}, fmt.Errorf("release partition: %w", err)
	}
	return n.opts.Store.Acquire(ctx, p, n.opts.Node, n.opts.LeaseTTL)
}

// dropLocked ends a partition's owner by end, if there is one, and returns what it
// was.
func (n *Node) dropLocked(p ids.Partition, end func(*partition.Owner)) *owned {
	n.mu.Lock()
	o := n.mu.owned[p]
	delete(n.mu.owned, p)
	n.mu.Unlock()
	if o == nil {
		return nil
	}
	n.slots[p].spent = o.lease.Epoch
	if w := n.watcher.Load(); w != nil {
		(*w).Dropped(p)
	}
	end(o.owner)
	return o
}

// replace puts a new owner, with a new epoch, in the place of one that ended, unless the
// partition is another node's by now. If that fails now, the renewal loop goes on trying.
func (n *Node) replace(p ids.Partition, epoch ids.Epoch) {
	n.mu.RLock()
	closed := n.ctx.Err() != nil
	if !closed {
		n.wg.Add(1)
	}
	n.mu.RUnlock()
	if closed {
		return
	}
	defer n.wg.Done()
	n.slots[p].Lock()
	o := n.owned(p)
	ended := o != nil && o.lease.Epoch == epoch
	if ended {
		n.dropLocked(p, (*partition.Owner).Close)
	}
	n.slots[p].Unlock() // whoever renews all leases waits for none that pauses
	if !ended {
		return
	}
	select {
	case <-time.After(shortLife - time.Since(o.began)):
		n.renew(n.ctx, p)
	case <-n.ctx.Done():
	}
}

// retakeLocked takes a partition if it is to be had, and otherwise leaves it to
// the next renewal.
func (n *Node) retakeLocked(ctx context.Context, p ids.Partition) {
	err := n.takeLocked(ctx, p)
	if err != nil && !errors.Is(err, storage.ErrHeld) && ctx.Err() == nil && n.ctx.Err() == nil {
		n.opts.Log.Warn("take partition", "partition", p, "error", err)
	}
}

func (n *Node) renewLoop() {
	tick := time.NewTicker(max(n.opts.LeaseTTL/renewals, minRenewal))
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
			n.Renew(n.ctx)
		}
	}
}

// Renew renews the leases this node holds and takes those that have become free.
// The node calls it by itself; tests call it at times of their choice.
func (n *Node) Renew(ctx context.Context) {
	sure := n.renewTogether(ctx)
	for p := range n.opts.Count {
		if !sure[p] {
			n.renew(ctx, ids.Partition(p))
		}
	}
}

// renewTogether renews all leases at once: one after another they would run out
// meanwhile when each waits its turn on a busy store. It returns which need no further
// look: those that were renewed, and those of which nothing is known.
func (n *Node) renewTogether(ctx context.Context) []bool {
	sure := make([]bool, n.opts.Count)
	n.mu.RLock()
	mine := make([]*owned, 0, len(n.mu.owned))
	leases := make([]storage.Lease, 0, len(n.mu.owned))
	for _, o := range n.mu.owned {
		mine, leases = append(mine, o), append(leases, o.lease)
	}
	n.mu.RUnlock()
	if len(leases) == 0 {
		return sure
	}
	asked := n.moment()
	var failed error
	for i, err := range storage.Renew(ctx, n.opts.Store, leases, n.opts.LeaseTTL) {
		sure[leases[i].Partition] = !errors.Is(err, storage.ErrFenced)
		if err == nil {
			n.mu.Lock()
			mine[i].renewed = asked
			n.mu.Unlock()
		} else if sure[leases[i].Partition] {
			failed = err
		}
	}
	if failed != nil && ctx.Err() == nil {
		n.opts.Log.Warn("renew leases", "error", failed)
	}
	return sure
}

func (n *Node) renew(ctx context.Context, p ids.Partition) {
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	if n.ctx.Err() != nil {
		return
	}
	o := n.owned(p)
	if o == nil {
		if n.wants(p) {
			n.retakeLocked(ctx, p)
		}
		return
	}
	asked := n.moment()
	lease, err := n.opts.Store.Acquire(ctx, p, n.opts.Node, n.opts.LeaseTTL)
	switch {
	case err == nil && lease.Epoch == o.lease.Epoch:
		n.mu.Lock()
		o.renewed = asked
		n.mu.Unlock()
	case errors.Is(err, storage.ErrHeld):
		n.sawLease(lease)
		n.opts.Log.Warn("partition taken by another node", "partition", p, "node", lease.Node)
		n.dropLocked(p, (*partition.Owner).Close)
	case err != nil:
		if ctx.Err() == nil {
			n.opts.Log.Warn("renew lease", "partition", p, "error", err)
		}
	default:
		// It had expired: the store gave a new epoch, and the running owner can
		// no longer commit.
		n.opts.Log.Warn("lease had run out", "partition", p, "epoch", o.lease.Epoch)
		n.dropLocked(p, (*partition.Owner).Close)
		n.retakeLocked(ctx, p)
	}
}

func (n *Node) owned(p ids.Partition) *owned {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.owned[p]
}

func (n *Node) local(p ids.Partition) *partition.Owner {
	if o := n.owned(p); o != nil {
		return o.owner
	}
	return nil
}

// Heads returns the last committed positions of partitions: at least of all that was
// answered anywhere before the call. A partition that runs here tells its own, those
// elsewhere are read from the store together.
func (n *Node) Heads(ctx context.Context, ps ...ids.Partition) ([]ids.Seq, error) {
	heads, rest := n.ownHeads(ps)
	if len(rest) == 0 {
		return heads, nil
	}
	ask := make([]ids.Partition, len(rest))
	for i, at := range rest {
		ask[i] = ps[at]
	}
	read, err := partition.Heads(ctx, n.opts.Store, ask...)
	if err != nil {
		return nil, err
	}
	for i, h := range read {
		heads[rest[i]] = h
	}
	return heads, nil
}

// ownHeads are the heads of those partitions that this node runs; rest are the indexes
// of the others, and of those whose head is not sure to be the last: a node that was
// stopped for longer than its lease believes that it runs partitions which have gone on
// elsewhere.
func (n *Node) ownHeads(ps []ids.Partition) (heads []ids.Seq, rest []int) {
	heads = make([]ids.Seq, len(ps))
	renewed := make([]*moment, len(ps)) // nil for the others
	n.mu.RLock()
	for i, p := range ps {
		if o := n.mu.owned[p]; o != nil {
			heads[i], renewed[i] = o.owner.Head(), o.renewed
		}
	}
	n.mu.RUnlock()
	// Only now: who stopped between the two would trust what was long over.
	now := n.moment()
	var last *moment
	sure := false // of last
	for i, m := range renewed {
		if m != last {
			last, sure = m, m.within(now, n.opts.LeaseTTL/trusted)
		}
		if !sure {
			rest = append(rest, i)
		}
	}
	return heads, rest
}

// moment is a time by two clocks: the one that measures, and stands still while a machine
// sleeps, and that of the wall, which jumps.
type moment struct{ steady, wall time.Time }

func (n *Node) moment() *moment { return &moment{time.Now(), n.opts.Clock.Now().Round(0)} }

// within reports whether less than d has passed since a moment by both clocks: one that
// jumps back or stands still makes nobody trust a lease for longer. A nil one is long ago.
func (m *moment) within(now *moment, d time.Duration) bool {
	return m != nil && now.steady.Sub(m.steady) < d && now.wall.Sub(m.wall) < d
}

// Owns reports whether this node runs a partition.
func (n *Node) Owns(p ids.Partition) bool { return n.owned(p) != nil }

// Owned is how many partitions this node runs.
func (n *Node) Owned() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.mu.owned)
}

// Close finishes what is queued, gives the leases up and waits.
func (n *Node) Close() {
	n.closing.Do(n.close)
}

// Leave hands all partitions over to the other nodes. The node goes on bringing commands
// to them.
func (n *Node) Leave() {
	if n.opts.Balance && n.members.sub != nil {
		n.leaving.Do(n.leave)
	}
}

func (n *Node) close() {
	n.Leave()
	n.part()
	n.mu.Lock()
	n.cancel()
	n.mu.Unlock()
	n.wg.Wait()
	n.members.part()
	var wg sync.WaitGroup
	for p := range n.opts.Count {
		wg.Go(func() { n.giveUp(ids.Partition(p)) })
	}
	wg.Wait()
	if n.handler != nil {
		n.handler.Close()
	}
}

func (n *Node) giveUp(p ids.Partition) {
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	o := n.dropLocked(p, (*partition.Owner).Close)
	if o == nil {
		return
	}
	err := n.opts.Store.Release(context.Background(), o.lease)
	if err != nil && !errors.Is(err, storage.ErrFenced) {
		n.opts.Log.Warn("release partition", "partition", p, "error", err)
	}
}
