package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// errIsolated: a node has to expect that nobody can be helped by way of it.
var errIsolated = errors.New("cluster: no other node is heard")

// Served is how many partitions this node can reach: it runs them, or knows a live
// node that does.
func (n *Node) Served() int {
	served := 0
	for p := range n.opts.Count {
		if n.Owns(ids.Partition(p)) {
			served++
			continue
		}
		at := n.placeOf(ids.Partition(p))
		n.members.mu.Lock()
		if m := n.members.mu.others[at]; m != nil && time.Since(m.seen) < memberTTL {
			served++
		}
		n.members.mu.Unlock()
	}
	return served
}

// Ready says why clients should not be sent to this node, nil if they should: it has
// withdrawn, or has not found all partitions yet, or hears none of several others that it heard
// before.
//
// That some partitions are served by nobody for a moment, since their node died, is no
// reason: commands to them wait here as well as anywhere, and if all nodes said no at
// once, a load balancer would have nobody to send the other commands to.
func (n *Node) Ready() error {
	if err := n.Withdrawn(); err != nil {
		return err
	}
	served := n.Served()
	if served == n.opts.Count {
		n.complete.Store(true)
		return nil
	}
	if !n.complete.Load() {
		return fmt.Errorf("%d of %d partitions are served", served, n.opts.Count)
	}
	now := time.Now()
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	const several = 2 // of two nodes that do not hear each other one may be dead
	if len(n.members.mu.silent) >= several && !n.hearsAnyLocked(now) {
		return errIsolated
	}
	return nil
}
