package cluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// A node that starts waits for the leases of one that died, and refuses to start beside
// one that is alive and not heard of.
func TestStartBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 8 * time.Second
		w := &world{t: t, store: memstore.New(clock.Real{}), count: trioCount}
		start := func(name string) (*cluster.Node, error) {
			b := membus.New()
			t.Cleanup(func() { _ = b.Close() })
			o := w.options(name, w.store)
			o.Bus, o.Clock, o.LeaseTTL, o.Balance, o.Exclusive = b, clock.Real{}, lease, true, true
			n, err := cluster.Start(context.Background(), o)
			if err == nil {
				t.Cleanup(n.Close)
			}
			return n, err
		}
		for p := range ids.Partition(trioCount) {
			if _, err := w.store.Acquire(t.Context(), p, "dead", lease); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		a, err := start("a")
		if err != nil || a.Owned() != trioCount {
			t.Fatalf("after a death: %v", err)
		}
		t.Logf("it took the partitions of one that died after %v", time.Since(begin))
		if _, err := start("b"); !errors.Is(err, cluster.ErrOccupied) {
			t.Errorf("beside one that is alive: %v", err)
		}
		if a.Owned() != trioCount {
			t.Errorf("it lost %d partitions by that", trioCount-a.Owned())
		}
	})
}
