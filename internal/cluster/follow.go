package cluster

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Follower is a Watcher that follows partitions which run on other nodes too.
type Follower interface {
	Watcher
	// Behind: the log of a partition goes up to head, and not all of what is new was
	// or will be published to it.
	Behind(p ids.Partition, head ids.Seq)
}

// followEvery is how often a worker looks whose partitions it follows, and whether the
// bus has lost the last batch of one.
const followEvery = time.Second

// follows are the partitions of other nodes that this one follows.
//
// The nodes with the role of a worker share the partitions whose own node does not have
// it, by the hash that shares partitions. The bus brings batches; what it loses shows as
// a gap, or in the head that is asked for each second. When a partition changes hands
// from one worker to another, both may follow it for a moment: who follows bears that
// records come again.
type follows struct {
	mu struct {
		sync.Mutex
		by map[ids.Partition]*followed
	}
}

// followed is one such partition.
type followed struct {
	epoch ids.Epoch
	sub   bus.Subscription
	// last is the last position that the follower was told of.
	last ids.Seq
}

// Follow tells w of what other nodes run that are no workers, until the node closes. It
// is called once.
func (n *Node) Follow(w Follower) {
	n.follows.mu.Lock()
	n.follows.mu.by = make(map[ids.Partition]*followed)
	n.follows.mu.Unlock()
	n.wg.Go(func() {
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			n.follow(w)
			select {
			case <-tick.C:
			case <-n.ctx.Done():
				n.unfollow(w)
				return
			}
		}
	})
}

// Follows reports whether what follows the log of a partition runs on this node.
func (n *Node) Follows(p ids.Partition) bool {
	n.follows.mu.Lock()
	defer n.follows.mu.Unlock()
	return n.follows.mu.by[p] != nil || n.opts.Worker && n.Owns(p)
}

// follow begins and ends to follow partitions, and looks for what the bus lost.
func (n *Node) follow(w Follower) {
	want := n.toFollow()
	n.follows.mu.Lock()
	have := maps.Clone(n.follows.mu.by)
	n.follows.mu.Unlock()
	for p, f := range have {
		if epoch, still := want[p]; !still || epoch != f.epoch {
			n.endFollow(w, p, f)
			delete(have, p)
		}
	}
	for p, epoch := range want {
		if have[p] == nil {
			n.beginFollow(w, p, epoch)
		}
	}
	n.pollFollowed(w)
}

// toFollow are the partitions to follow with the epochs of their owners.
func (n *Node) toFollow() map[ids.Partition]ids.Epoch {
	now := time.Now()
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	var workers []ids.NodeID
	if !n.members.idleLocked() {
		workers = append(workers, n.opts.Node)
	}
	for id, o := range n.members.mu.others {
		if o.Worker && !o.Draining && n.hearsLocked(id, now) {
			workers = append(workers, id)
		}
	}
	want := make(map[ids.Partition]ids.Epoch)
	for p, at := range n.members.mu.places {
		o := n.members.mu.others[at.node]
		if o != nil && !o.Worker && n.hearsLocked(at.node, now) && rightful(p, workers) == n.opts.Node {
			want[p] = at.epoch
		}
	}
	return want
}

func (n *Node) beginFollow(w Follower, p ids.Partition, epoch ids.Epoch) {
	f := &followed{epoch: epoch}
	// Who watches is told of what runs here under the same lock.
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	if n.owned(p) != nil {
		return
	}
	w.Taken(p, epoch)
	sub, err := n.opts.Bus.Subscribe(partition.Subject(p), func(m bus.Payload) { n.heardBatch(w, f, m) })
	if err != nil {
		w.Dropped(p)
		if !errors.Is(err, bus.ErrClosed) {
			n.opts.Log.Warn("follow partition", "partition", p, "error", err)
		}
		return
	}
	f.sub = sub
	n.follows.mu.Lock()
	n.follows.mu.by[p] = f
	n.follows.mu.Unlock()
}

func (n *Node) endFollow(w Follower, p ids.Partition, f *followed) {
	n.follows.mu.Lock()
	delete(n.follows.mu.by, p)
	n.follows.mu.Unlock()
	f.sub.Close()
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	if n.owned(p) == nil { // else it has been taken, and is followed as that
		w.Dropped(p)
	}
}

func (n *Node) unfollow(w Follower) {
	n.follows.mu.Lock()
	have := maps.Clone(n.follows.mu.by)
	n.follows.mu.Unlock()
	for p, f := range have {
		n.endFollow(w, p, f)
	}
}

// heardBatch takes a batch from the bus.
func (n *Node) heardBatch(w Follower, f *followed, m bus.Payload) {
	b, ok := m.(*partition.Published)
	if raw, isRaw := m.(bus.Raw); isRaw {
		var err error
		b, err = partition.UnmarshalPublished(raw)
		ok = err == nil
	}
	if !ok || b.Epoch != f.epoch {
		return
	}
	n.follows.mu.Lock()
	last := f.last
	f.last = max(f.last, b.Last)
	n.follows.mu.Unlock()
	switch {
	case b.First == last+1:
		w.Published(b)
	case b.Last > last:
		w.Behind(b.Partition, b.Last)
	}
}

// pollFollowed looks how far the logs go.
func (n *Node) pollFollowed(w Follower) {
	n.follows.mu.Lock()
	have := maps.Clone(n.follows.mu.by)
	n.follows.mu.Unlock()
	if len(have) == 0 {
		return
	}
	ps := make([]ids.Partition, 0, len(have))
	for p := range have {
		ps = append(ps, p)
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.opts.LeaseTTL)
	defer cancel()
	heads, err := n.Heads(ctx, ps...)
	if err != nil {
		if n.ctx.Err() == nil {
			n.opts.Log.Warn("look for what other nodes committed", "error", err)
		}
		return
	}
	for i, p := range ps {
		n.follows.mu.Lock()
		behind := heads[i] > have[p].last
		have[p].last = max(have[p].last, heads[i])
		n.follows.mu.Unlock()
		if behind {
			w.Behind(p, heads[i])
		}
	}
}
