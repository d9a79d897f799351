package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

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

// takers take partitions at the same time. Each waits for the disk, and the store lets
// those that come together wait once: on a disk that is busy, one after another would
// take seconds.
const takers = 16

// takeOnce tries once, and reports whether another node holds a partition that this one
// should run.
func (n *Node) takeOnce(ctx context.Context) (bool, error) {
	var held atomic.Bool
	var taking errgroup.Group
	taking.SetLimit(takers)
	for i := range n.opts.Count {
		p := ids.Partition(i)
		if !n.wants(p) {
			continue
		}
		taking.Go(func() error {
			err := n.begin(ctx, p)
			if errors.Is(err, storage.ErrHeld) {
				held.Store(true)
				return nil
			}
			if err != nil {
				return fmt.Errorf("take partition %d: %w", p, err)
			}
			return nil
		})
	}
	err := taking.Wait()
	return held.Load(), err
}
