package cluster

import (
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Watcher is told which partitions this node runs, and what they commit. Its
// methods must not wait: Published is called from the loop of the owner, the
// others while the partition changes hands. For one partition, Taken and Dropped
// are called one after another; a second Taken without a Dropped between may
// repeat the first.
type Watcher interface {
	// Taken: an owner with that epoch runs here. What it committed before the
	// call may or may not have been told.
	Taken(p ids.Partition, epoch ids.Epoch)
	// Published: a batch is durable. Told in order, and without a gap from Taken
	// to Dropped.
	Published(b *partition.Published)
	// Dropped: the owner does not serve, or is about to end.
	Dropped(p ids.Partition)
}

// Watch tells w of all that this node runs, beginning with what it runs now. A
// node has one watcher.
func (n *Node) Watch(w Watcher) {
	n.watcher.Store(&w)
	for i := range n.slots {
		p := ids.Partition(i)
		n.slots[p].Lock()
		if o := n.owned(p); o != nil {
			w.Taken(p, o.lease.Epoch)
		}
		n.slots[p].Unlock()
	}
}
