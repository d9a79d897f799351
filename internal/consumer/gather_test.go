package consumer

import (
	"context"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// TestGather: what comes soon after a batch is handled together with what follows
// it, when somebody awaits it or half of the queue is full.
func TestGather(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	var batches []Batch
	handled := make(chan ids.Seq, 4*queueBatches)
	w.seen.before = func(_ context.Context, b Batch) error {
		batches = append(batches, b)
		handled <- b.Last
		return nil
	}
	c := w.consumer()
	c.Gather = time.Hour
	n := w.start(lazy, c)
	n.await(t)
	n.emit(t, 0, 1) // after a while of quiet: at once
	for (<-handled) < n.emit(t, 0, 0) {
	}
	n.await(t)
	before := len(batches)
	const many = queueBatches / 4
	for range many {
		n.emit(t, 0, 1)
	}
	n.await(t)
	if got := len(batches) - before; got != 1 || len(batches[before].Records) != many {
		t.Errorf("%d records came in %d batches", many, got)
	}
	first := n.emit(t, 0, 1)
	done := first
	for last := first; last < first+2*queueBatches; { // nobody awaits them
		last = n.emit(t, 0, 1)
		for last > done+queueBatches*3/4 { // behind, it would read the log in pages
			done = <-handled
		}
	}
	n.await(t)
	if got := len(batches) - before; got > 12 {
		t.Errorf("%d batches", got)
	}
}
