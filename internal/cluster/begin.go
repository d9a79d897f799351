package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// ErrOccupied: a node that this one does not hear of runs the partitions.
var ErrOccupied = errors.New("cluster: another node runs the partitions")

// beginEvery is how often a node that starts looks whether leases have run out.
const beginEvery = 100 * time.Millisecond

// takeFree takes the partitions that this node should run and that are free. If others
// hold some and nobody is heard of, they are of a node that died, whose leases run out,
// or of one that is alive and was not told to this one: a second deployment on the same
// store, or a node without the right way to the others. The two are told apart by
// whether the leases are renewed.
func (n *Node) takeFree(ctx context.Context) error {
	for begun := time.Now(); ; {
		held, err := n.takeOnce(ctx)
		if err != nil || !held || !n.opts.Exclusive {
			return err
		}
		now := time.Now()
		n.members.mu.Lock()
		heard, alive := n.hearsAnyLocked(now), n.unheardLocked(now)
		n.members.mu.Unlock()
		switch {
		case heard || now.Sub(begun) > 2*n.opts.LeaseTTL:
			return nil
		case len(alive) > 0:
			return ErrOccupied
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(beginEvery):
		}
	}
}

// takeOnce tries once, and reports whether another node holds a partition that this one
// should run.
func (n *Node) takeOnce(ctx context.Context) (held bool, err error) {
	for i := range n.opts.Count {
		p := ids.Partition(i)
		if !n.wants(p) {
			continue
		}
		err := n.begin(ctx, p)
		if held = held || errors.Is(err, storage.ErrHeld); err != nil && !errors.Is(err, storage.ErrHeld) {
			return false, fmt.Errorf("take partition %d: %w", p, err)
		}
	}
	return held, nil
}
