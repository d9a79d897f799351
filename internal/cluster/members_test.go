package cluster_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

func (w *world) balanced(name string, change func(*cluster.Options)) *cluster.Node {
	o := w.options(name, w.store)
	o.Balance, o.Search = true, 30*time.Second
	if change != nil {
		change(&o)
	}
	return w.start(o)
}

// Nodes that come and go share the partitions, and nobody who sends commands
// meanwhile sees an error or a ticket twice.
func TestBalance(t *testing.T) {
	const count = 16
	w := newWorld(t, count)
	a := w.balanced("a", nil)
	edge := w.balanced("edge", func(o *cluster.Options) { o.EdgeOnly = true })
	if a.Owned() != count || edge.Owned() != 0 || edge.Served() != count {
		t.Fatalf("%d and %d owned, %d served", a.Owned(), edge.Owned(), edge.Served())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var sent [count]atomic.Int64
	for p := range count {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := edge.Do(context.Background(), ticket{ids.Partition(p), "x"}); err != nil {
					t.Errorf("partition %d: %v", p, err)
					return
				}
				sent[p].Add(1)
			}
		})
	}
	b := w.balanced("b", nil)
	c := w.balanced("c", nil)
	until(func() bool {
		return a.Owned()+b.Owned()+c.Owned() == count && a.Owned() > 0 && b.Owned() > 0 && c.Owned() > 0
	})
	t.Logf("three nodes own %d, %d, %d", a.Owned(), b.Owned(), c.Owned())
	b.Close()
	until(func() bool { return a.Owned()+c.Owned() == count })
	a.Close()
	until(func() bool { return c.Owned() == count })
	cancel()
	wg.Wait()
	for p := range count {
		// The next ticket counts all before it.
		if v, err := edge.Do(context.Background(), ticket{ids.Partition(p), "x"}); err != nil || int64(v.(int)) != sent[p].Load() {
			t.Errorf("partition %d: %v written, %d answered, %v", p, v, sent[p].Load(), err)
		}
	}
}
