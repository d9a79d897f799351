package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Why a node withdraws; callers distinguish them with errors.Is.
var (
	// ErrUnfit: Options.Fit says no, and there are nodes that are well.
	ErrUnfit = errors.New("cluster: the node cannot do its work")
	// ErrParted: it is cut off from nodes that do theirs.
	ErrParted = errors.New("cluster: the node is cut off from others that are alive")
)

const (
	// partedPatience is how long a node is silent, beyond memberTTL, while it is seen to
	// renew its leases, before one of the two withdraws: ten notices in a row that did not
	// come from a node that works, and none that comes late. A node that stood still
	// itself hears the others again before that. hearsayPatience is how long if
	// others only say that they hear it: who just started is known to some before
	// others, and who just died still is, for memberTTL and until they say so.
	partedPatience  = 2 * time.Second
	hearsayPatience = memberTTL + time.Second
	// aliveTTL is how long a node counts as alive after it was seen to renew a lease:
	// the default lease is renewed every two seconds, and looked at each balanceEvery.
	aliveTTL = 4 * time.Second
	// unfitPatience is how long a node that cannot work waits before it withdraws: if
	// the others cannot either, they say so by then.
	unfitPatience = 3 * time.Second
	// returnAfter is how long a node that withdrew leaves the others to take its
	// partitions, before it looks whether there is anybody who does: they take them
	// within balanceEvery, and when all withdraw they do within a notice, a look and a renewal
	// of each other. It differs from node to node by up to a quarter.
	returnAfter = 2 * time.Second
	// triedEvery is how often it looks.
	triedEvery = balanceEvery
)

// withdrawal is why and since when a node has left its work to the others.
//
// A node that is alive but of no use harms more than a dead one: it holds its leases,
// or says on the bus that it is there, and so keeps the others from its partitions.
// Two things make it so.
//
// Its store may be away (Options.Fit) while others reach theirs. When all nodes have
// lost it, none withdraws: there is nobody to leave anything to, and the store may be
// back in a moment.
//
// Or it does not hear a node that is alive: which renews leases in the store, or is
// heard by those it hears. Then one of the two withdraws: the one that fewer nodes
// hear, so that of three nodes the one that was cut off does; between equals one that
// runs no partitions, and then the one with the lower name. Who hears nobody does not
// know whom the others hear, and withdraws in any case. So both sides come to the same
// answer, or to the one that both withdraw. A node that runs no partitions
// and hears none that does withdraws too. Who withdrew gives its leases
// up, waits, and then tries for one partition: it gets it only if nobody serves, as
// when no node hears any other; then this one node serves all.
//
// Nothing here is about safety, which rests on epochs: a wrong guess costs time.
type withdrawal struct {
	why   error
	since time.Time
	// unfitSince is when Fit began to say no.
	unfitSince time.Time
	// partedSince is since when, and from whom, the node is cut off.
	partedSince time.Time
	from        map[ids.NodeID]bool
	// tried is when it last tried for a partition.
	tried time.Time
	// heardCore: it has heard of a node that runs partitions.
	heardCore bool
	// expires are the ends of the leases of others as they were last seen, and
	// renewed when one of a node was seen to be renewed. Both begin anew when a node
	// falls silent: that it has renewed a lease since somebody looked, long ago, does not
	// tell that it is alive now.
	expires map[ids.Partition]storage.Lease
	renewed map[ids.NodeID]time.Time
	// silent is since when nodes are, that were heard before.
	silent map[ids.NodeID]time.Time
}

// fellSilent notes that a node is not heard any more.
func (w *withdrawal) fellSilent(id ids.NodeID, now time.Time) {
	if w.silent == nil {
		w.silent = make(map[ids.NodeID]time.Time)
	}
	maps.DeleteFunc(w.silent, func(_ ids.NodeID, since time.Time) bool { return now.Sub(since) > silentMemory })
	w.silent[id] = now
	delete(w.renewed, id)
	maps.DeleteFunc(w.expires, func(_ ids.Partition, l storage.Lease) bool { return l.Node == id })
}

// saw notes a lease of another node.
func (w *withdrawal) saw(l storage.Lease, now time.Time, ttl time.Duration) {
	if w.expires == nil {
		w.expires, w.renewed = make(map[ids.Partition]storage.Lease), make(map[ids.NodeID]time.Time)
	}
	if before := w.expires[l.Partition]; before.Node == l.Node && l.Expires.After(before.Expires) {
		since, silent := w.silent[l.Node]
		if _, again := w.renewed[l.Node]; silent && !again && now.Sub(since) > ttl {
			// It was dead, or stood still, and has come to life: it may be heard yet.
			w.silent[l.Node] = now
		}
		w.renewed[l.Node] = now
	}
	w.expires[l.Partition] = l
}

// Withdrawn says why this node has left its work to the others, nil if it has not.
func (n *Node) Withdrawn() error {
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	return n.members.mu.withdrawal.why
}

// sawLease remembers who holds a partition, and that it is alive if it has renewed
// the lease.
func (n *Node) sawLease(l storage.Lease) {
	n.note(l.Partition, place{l.Node, l.Epoch})
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	n.members.mu.withdrawal.saw(l, time.Now(), n.opts.LeaseTTL)
}

// reconsider withdraws, or returns to work.
func (n *Node) reconsider(ctx context.Context) {
	var unfit error
	if n.opts.Fit != nil {
		unfit = n.opts.Fit()
	}
	now := time.Now()
	n.members.mu.Lock()
	w := &n.members.mu.withdrawal
	was, wasUnfit := w.why, !w.unfitSince.IsZero()
	why := n.whyLocked(unfit, now)
	if was == nil && why != nil {
		w.since, w.tried = now, time.Time{}
	}
	w.why = why
	trial := errors.Is(why, ErrParted) && len(n.members.mu.others) == 0 && !n.opts.EdgeOnly &&
		now.Sub(w.since) > n.patience() && now.Sub(w.tried) >= triedEvery
	if trial {
		w.tried = now
	}
	n.members.mu.Unlock()
	switch {
	case was == nil && why != nil:
		n.opts.Log.Warn("withdrawing: other nodes do this one's work", "error", why)
		n.announce(false)
		n.abandon(unfit == nil)
	case was != nil && why == nil:
		n.opts.Log.Warn("back at work")
		n.announce(false)
	case trial && n.begin(ctx, 0) == nil:
		n.opts.Log.Warn("nobody else is at work; going on alone")
		n.members.mu.Lock()
		w.why, w.from, w.partedSince = nil, nil, time.Time{}
		clear(w.renewed)
		n.members.mu.Unlock()
		n.announce(false)
	case wasUnfit != (unfit != nil):
		n.announce(false)
	}
}

// patience is how long this node waits before it tries whether anybody serves.
func (n *Node) patience() time.Duration {
	var spread time.Duration
	for _, c := range n.opts.Node {
		spread = (spread*31 + time.Duration(c)) % (returnAfter / 4)
	}
	return returnAfter + spread
}

// whyLocked is why this node should not work.
func (n *Node) whyLocked(unfit error, now time.Time) error {
	w := &n.members.mu.withdrawal
	switch {
	case unfit == nil:
		w.unfitSince = time.Time{}
	case w.unfitSince.IsZero():
		w.unfitSince = now
	case now.Sub(w.unfitSince) >= unfitPatience && n.othersWellLocked(now):
		return fmt.Errorf("%w: %w", ErrUnfit, unfit)
	}
	if errors.Is(w.why, ErrParted) {
		if n.stillPartedLocked(now) {
			return w.why
		}
		w.from, w.partedSince = nil, time.Time{}
		return nil
	}
	from := n.yieldsToLocked(now)
	if len(from) == 0 {
		w.partedSince = time.Time{}
		return nil
	}
	if w.partedSince.IsZero() {
		w.partedSince = now
	}
	patience, since := hearsayPatience, w.partedSince
	for _, id := range from {
		if at, seen := w.renewed[id]; seen && now.Sub(at) <= aliveTTL {
			patience = partedPatience
			if silent, was := w.silent[id]; was && silent.Before(since) {
				since = silent
			}
		}
	}
	if now.Sub(since) < patience {
		return nil
	}
	w.from = make(map[ids.NodeID]bool)
	for _, id := range from {
		w.from[id] = true
	}
	return fmt.Errorf("%w: %v", ErrParted, from)
}

// othersWellLocked reports whether a node that runs partitions is at work and well.
func (n *Node) othersWellLocked(now time.Time) bool {
	for id, o := range n.members.mu.others {
		if o.Core && !o.Draining && !o.Unfit && n.hearsLocked(id, now) {
			return true
		}
	}
	return false
}

// hearsLocked reports whether this node heard another lately.
func (n *Node) hearsLocked(id ids.NodeID, now time.Time) bool {
	o := n.members.mu.others[id]
	return o != nil && now.Sub(o.seen) <= memberTTL
}

// hearsAnyLocked reports whether it hears another node, one that runs partitions if it
// does not itself.
func (n *Node) hearsAnyLocked(now time.Time) bool {
	for id, o := range n.members.mu.others {
		if (o.Core || !n.opts.EdgeOnly) && n.hearsLocked(id, now) {
			return true
		}
	}
	return false
}

// unheardLocked are the nodes that run partitions, or would, and are alive though this
// one does not hear them.
func (n *Node) unheardLocked(now time.Time) map[ids.NodeID]bool {
	out := make(map[ids.NodeID]bool)
	add := func(id ids.NodeID, core bool) {
		if core && id != n.opts.Node && !n.hearsLocked(id, now) {
			out[id] = true
		}
	}
	for id, at := range n.members.mu.withdrawal.renewed {
		if now.Sub(at) <= aliveTTL {
			add(id, true)
		}
	}
	for id, o := range n.members.mu.others {
		if n.hearsLocked(id, now) {
			for heard, core := range o.Hears {
				add(heard, core)
			}
		}
	}
	return out
}

// standing says which of two nodes that do not hear each other goes on.
type standing struct {
	hears int
	core  int
	id    ids.NodeID
}

func (a standing) compare(b standing) int {
	return cmp.Or(cmp.Compare(a.hears, b.hears), cmp.Compare(a.core, b.core), cmp.Compare(a.id, b.id))
}

// yieldsToLocked are the nodes that this one should leave its work to.
func (n *Node) yieldsToLocked(now time.Time) (to []ids.NodeID) {
	if n.opts.EdgeOnly && n.members.mu.heardCore && !n.hearsAnyLocked(now) {
		return []ids.NodeID{"all that run partitions"}
	}
	unheard := n.unheardLocked(now)
	if len(unheard) == 0 {
		return nil
	}
	own := standing{id: n.opts.Node}
	if !n.opts.EdgeOnly {
		own.core = 1
	}
	for id := range n.members.mu.others {
		if n.hearsLocked(id, now) {
			own.hears++
		}
	}
	for id := range unheard {
		// Those out of reach are taken to hear each other.
		other := standing{id: id, core: 1, hears: len(unheard) - 1}
		for by, o := range n.members.mu.others {
			if _, heard := o.Hears[id]; heard && n.hearsLocked(by, now) {
				other.hears++
			}
		}
		if own.hears == 0 || own.compare(other) < 0 {
			to = append(to, id)
		}
	}
	slices.Sort(to)
	return to
}

// stillPartedLocked reports whether the cut that made this node withdraw is still
// there, as far as it knows. Who hears nobody does not.
func (n *Node) stillPartedLocked(now time.Time) bool {
	if !n.hearsAnyLocked(now) {
		return true
	}
	unheard := n.unheardLocked(now)
	for id := range n.members.mu.withdrawal.from {
		if unheard[id] {
			return true
		}
	}
	return false
}

// abandon ends all owners, and gives their leases up if the store answers.
func (n *Node) abandon(release bool) {
	var wg sync.WaitGroup
	for i := range n.opts.Count {
		p := ids.Partition(i)
		wg.Go(func() {
			n.slots[p].Lock()
			defer n.slots[p].Unlock()
			o := n.dropLocked(p, (*partition.Owner).Close)
			if o == nil || !release {
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), takeTimeout)
			defer cancel()
			if err := n.opts.Store.Release(ctx, o.lease); err != nil && !errors.Is(err, storage.ErrFenced) {
				n.opts.Log.Warn("release partition", "partition", p, "error", err)
			}
		})
	}
	wg.Wait()
}
