package consumer

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/faultstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// The promise: whatever happens to nodes, owners, commits, reads and handlers, a
// handler is given every record, none before the one in front of it.
func TestEveryRecordIsHandled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, 3)
		defer w.close()
		var flaky atomic.Bool
		var n atomic.Int64
		w.seen.before = func(context.Context, Batch) error {
			if flaky.Load() && n.Add(1)%2 == 0 {
				return errDown
			}
			return nil
		}
		w.start(quick, w.consumer())
		live := func() *node { return w.nodes[len(w.nodes)-1] }
		part := rapid.Map(rapid.IntRange(0, 2), func(n int) ids.Partition { return ids.Partition(n) })
		rt.Repeat(map[string]func(*rapid.T){
			"emit": func(rt *rapid.T) {
				c := emit{p: part.Draw(rt, "partition"), n: rapid.IntRange(1, 40).Draw(rt, "n")}
				_, _ = live().Do(bg, c) // it may fail, or be applied and not say so
			},
			"flaky":      func(*rapid.T) { flaky.Store(!flaky.Load()) },
			"commit":     func(rt *rapid.T) { w.store.FailCommit(rapid.IntRange(1, 3).Draw(rt, "nth")) },
			"answer":     func(rt *rapid.T) { w.store.LoseAnswer(rapid.IntRange(1, 3).Draw(rt, "nth")) },
			"read fails": func(*rapid.T) { w.store.Inject(faultstore.Fault{Calls: faultstore.Scan, Times: 1, Before: errDown}) },
			"restart": func(*rapid.T) {
				live().close()
				w.start(quick, w.consumer())
			},
			"takeover": func(*rapid.T) {
				// The node before goes on and believes that it owns everything.
				w.clock.Advance(2 * longLease)
				w.start(quick, w.consumer())
			},
		})
		flaky.Store(false)
		for _, n := range w.nodes[:len(w.nodes)-1] {
			n.close()
		}
		live().close()
		w.clock.Advance(2 * longLease) // of leases that nobody uses
		last := w.start(quick, w.consumer())
		for last.Owned() < w.count {
			last.Renew(bg)
		}
		for p := range ids.Partition(3) {
			head := last.settle(p)
			for w.seen.at(p) < head {
				last.Renew(bg) // a fault that is left may still end an owner
				ctx, cancel := context.WithTimeout(bg, time.Minute)
				if err := last.set.Await(ctx, "test"); err != nil && !errors.Is(err, partition.ErrLost) {
					rt.Fatalf("await: %v", err)
				}
				cancel()
			}
			if got := w.seen.at(p); got != head {
				rt.Fatalf("partition %d: handled up to %d, the log ends at %d", p, got, head)
			}
		}
	})
}

// settle emits until it is answered, past the faults that are left.
func (n *node) settle(p ids.Partition) ids.Seq {
	for {
		if seq, err := partition.Do[ids.Seq](bg, n, emit{p: p, n: 1}); err == nil {
			return seq
		}
		n.Renew(bg)
	}
}

// A new consumer begins where it says.
func TestStart(t *testing.T) {
	for _, start := range []Start{AtHead, AtBeginning} {
		w := newWorld(t, 1)
		n := w.start(quick, nil)
		head := n.emit(t, 0, 10)
		if start == AtHead {
			w.seen.mu.upTo[0] = head
		}
		if err := n.set.Add(Consumer{Name: "test", Start: start, Handler: w.seen}); err != nil {
			t.Fatal(err)
		}
		n.await(t)
		head = n.emit(t, 0, 5)
		n.await(t)
		want := map[Start]int{AtHead: 5, AtBeginning: 15}[start]
		if w.seen.at(0) != head || w.seen.total() != want {
			t.Errorf("start %v: %d records up to %d, want %d up to %d", start, w.seen.total(), w.seen.at(0), want, head)
		}
		w.close()
	}
}

// After a clean end nothing is handled again, also if nothing was saved before.
func TestCloseSaves(t *testing.T) {
	w := newWorld(t, 2)
	defer w.close()
	n := w.start(lazy, w.consumer())
	n.emit(t, 0, 10)
	n.emit(t, 1, 10)
	n.await(t)
	if at, ok := w.cursor(0, "test"); at != 0 || !ok {
		t.Errorf("cursor %d, %v before it is time to save", at, ok)
	}
	n.close()
	if at, _ := w.cursor(0, "test"); at != 10 {
		t.Errorf("cursor %d after the end", at)
	}
	m := w.start(lazy, w.consumer())
	m.emit(t, 0, 1)
	m.await(t)
	if got := w.seen.total(); got != 21 {
		t.Errorf("%d records handled, want 21", got)
	}
}

// The cursor is saved now and then, not for each batch.
func TestSavesAreBounded(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	n := w.start(lazy, w.consumer())
	for range 3 {
		n.emit(t, 0, 1)
		n.await(t)
	}
	if at, _ := w.cursor(0, "test"); at != 0 {
		t.Errorf("saved at %d, after each batch", at)
	}
	n.emit(t, 0, SaveRecords)
	for {
		if at, _ := w.cursor(0, "test"); at >= SaveRecords {
			break
		}
		runtime.Gosched()
	}
}

// A slow handler holds up nobody: the owner goes on, memory is bounded, and what
// did not fit is read from the log.
func TestSlowConsumer(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	w.seen.before = func(context.Context, Batch) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-gate
		return nil
	}
	n := w.start(quick, w.consumer())
	n.await(t) // it stands at the end and is given batches in memory
	n.emit(t, 0, 1)
	<-entered
	var head ids.Seq
	for range 3 * queueBatches {
		head = n.emit(t, 0, 2)
	}
	f := n.set.mu.consumers["test"].byPart[0]
	f.mu.Lock()
	queued, behind := len(f.mu.queue), f.mu.behind
	f.mu.Unlock()
	if queued > queueBatches || !behind {
		t.Errorf("%d batches wait in memory, behind %v", queued, behind)
	}
	w.clock.Advance(7 * time.Second)
	if l := n.metric(t, "lag_positions"); l != float64(head) {
		t.Errorf("lag of %v positions, want %d", l, head)
	}
	if l := n.metric(t, "lag_seconds"); l != 7 {
		t.Errorf("lag of %v s, want 7", l)
	}
	close(gate)
	n.await(t)
	if w.seen.at(0) != head || w.seen.total() != int(head) {
		t.Errorf("%d records up to %d, want up to %d", w.seen.total(), w.seen.at(0), head)
	}
	if l := n.metric(t, "lag_positions") + n.metric(t, "lag_seconds"); l != 0 {
		t.Errorf("lag %v at the end of the log", l)
	}
}

// Few large batches are not kept in memory either.
func TestQueueBytes(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	gate := make(chan struct{})
	handling := make(chan struct{}, 4)
	w.seen.before = func(context.Context, Batch) error {
		handling <- struct{}{}
		<-gate
		return nil
	}
	n := w.start(quick, w.consumer())
	n.await(t)
	for i := range 4 {
		if i == 1 {
			<-handling // the others come while it handles the first, and are not taken with it
		}
		if _, err := n.Do(bg, emit{n: 1, size: queueBytes / 2}); err != nil {
			t.Fatal(err)
		}
	}
	f := n.set.mu.consumers["test"].byPart[0]
	for end, behind := time.Now().Add(20*time.Second), false; !behind; time.Sleep(time.Millisecond) { // who was answered may be told first
		f.mu.Lock()
		behind = f.mu.behind
		bytes := f.mu.bytes
		f.mu.Unlock()
		if bytes > queueBytes || time.Now().After(end) {
			t.Errorf("%d bytes wait in memory, behind %v", bytes, behind)
			break
		}
	}
	close(gate)
	n.await(t)
	if w.seen.at(0) != 4 {
		t.Errorf("handled up to %d", w.seen.at(0))
	}
}

// A follower whose owner was replaced cannot move the cursor.
func TestStaleFollowerIsFenced(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	old := w.start(quick, w.consumer())
	old.emit(t, 0, 3)
	old.await(t)
	epoch := old.set.mu.owned[0]
	w.clock.Advance(2 * longLease)
	w.start(quick, nil)
	next := w.nodes[1]
	next.Renew(bg)
	_, err := next.Do(bg, partition.SaveCursor{Consumer: "test", Epoch: epoch, To: 3000})
	if !errors.Is(err, partition.ErrOtherEpoch) {
		t.Errorf("an old epoch moves the cursor: %v", err)
	}
	if _, err := next.Do(bg, partition.OpenCursor{Consumer: "test", Epoch: epoch}); !errors.Is(err, partition.ErrOtherEpoch) {
		t.Errorf("an old epoch opens the cursor: %v", err)
	}
	if at, _ := w.cursor(0, "test"); at > 3 {
		t.Errorf("cursor at %d", at)
	}
}

// A record that makes the handler panic is passed over, in the end; those after it
// are handled.
func TestPanic(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	calls := 0
	w.seen.before = func(_ context.Context, b Batch) error {
		if b.First == 2 {
			calls++
			w.seen.mu.Lock()
			w.seen.mu.upTo[0] = 2
			w.seen.mu.Unlock()
			panic("poison")
		}
		return nil
	}
	n := w.start(quick, w.consumer())
	for range 3 {
		n.emit(t, 0, 1)
		n.await(t)
	}
	if w.seen.at(0) != 3 || calls != maxPanics || n.metric(t, "panics_total") != maxPanics {
		t.Errorf("handled up to %d after %d calls", w.seen.at(0), calls)
	}
}

// Who comes when the log was trimmed is told what is missing, and goes on behind.
func TestMissed(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	n := w.start(quick, nil)
	n.emit(t, 0, 4)
	n.emit(t, 0, 4)
	n.close()
	lease, err := w.mem.Acquire(bg, 0, "trimmer", longLease)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	b.DeleteRange(storage.Key{Table: tables.Log}, tables.SeqSort(5))
	if err := w.mem.Commit(bg, 0, lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	if err := w.mem.Release(bg, lease); err != nil {
		t.Fatal(err)
	}
	m := w.start(quick, w.consumer())
	m.await(t)
	if len(w.seen.mu.missed) != 1 || w.seen.mu.missed[0] != [2]ids.Seq{1, 4} || w.seen.at(0) != 8 || w.seen.total() != 4 {
		t.Errorf("missed %v, handled %d up to %d", w.seen.mu.missed, w.seen.total(), w.seen.at(0))
	}
	if m.metric(t, "missed_total") != 1 {
		t.Error("not counted")
	}
}

// Names are unique, and one that was removed is new.
func TestAddAndRemove(t *testing.T) {
	w := newWorld(t, 2)
	defer w.close()
	n := w.start(quick, w.consumer())
	for _, name := range []string{"", "test", strings.Repeat("x", maxName+1)} {
		if err := n.set.Add(Consumer{Name: name, Handler: w.seen}); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	n.emit(t, 0, 3)
	n.await(t)
	if err := n.set.Remove(bg, "test"); err != nil {
		t.Fatal(err)
	}
	for p := range ids.Partition(2) {
		if at, ok := w.cursor(p, "test"); ok {
			t.Errorf("cursor %d is left in partition %d", at, p)
		}
	}
	if err := n.set.Add(*w.consumer()); err != nil {
		t.Fatal(err)
	}
	n.await(t)
	if w.seen.total() != 6 {
		t.Errorf("%d records, want the 3 twice", w.seen.total())
	}
	n.close()
	if err := n.set.Add(Consumer{Name: "late", Handler: w.seen}); !errors.Is(err, ErrClosed) {
		t.Errorf("added after the end: %v", err)
	}
}

// Waiting ends with its context.
func TestAwaitCanceled(t *testing.T) {
	w := newWorld(t, 1)
	defer w.close()
	gate := make(chan struct{})
	w.seen.before = func(ctx context.Context, _ Batch) error {
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n := w.start(quick, w.consumer())
	n.emit(t, 0, 1)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if err := n.set.Await(ctx, "test"); !errors.Is(err, context.Canceled) {
		t.Errorf("await: %v", err)
	}
	n.close() // with a handler that waits: its context ends
	if at, _ := w.cursor(0, "test"); at != 0 {
		t.Errorf("cursor %d for what was not handled", at)
	}
}
