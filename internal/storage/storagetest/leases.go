package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

func testAcquireAndRenew(t *testing.T, h *harness) {
	now := h.Clock.Now()
	first := h.acquire(5, "a")
	want := storage.Lease{Partition: 5, Node: "a", Epoch: first.Epoch, Expires: first.Expires}
	if first != want || first.Epoch == 0 {
		t.Errorf("lease %+v, want partition 5, node a and an epoch", first)
	}
	if !first.Expires.Equal(now.Add(ttl)) {
		t.Errorf("expires %v, want %v", first.Expires, now.Add(ttl))
	}
	h.Clock.Advance(ttl / 2)
	renewed := h.acquire(5, "a")
	if renewed.Epoch != first.Epoch {
		t.Errorf("epoch %d after renewal, was %d", renewed.Epoch, first.Epoch)
	}
	if !renewed.Expires.Equal(now.Add(ttl + ttl/2)) {
		t.Errorf("renewed until %v, want %v", renewed.Expires, now.Add(ttl+ttl/2))
	}
	h.Clock.Advance(ttl - time.Millisecond) // past the first lease, not the renewed one
	held, err := h.Store.Acquire(ctx(), 5, "b", ttl)
	wantError(t, "acquire of a held lease", err, storage.ErrHeld)
	if held.Node != "a" || held.Partition != 5 || !held.Expires.Equal(renewed.Expires) {
		t.Errorf("holder %+v, want %+v", held, renewed)
	}
	if err := h.Store.Commit(ctx(), 5, first.Epoch, &storage.Batch{}); err != nil {
		t.Errorf("commit after a failed acquire by another: %v", err)
	}
}

func testRenewTogether(t *testing.T, h *harness) {
	expired := h.acquire(1, "a")
	h.Clock.Advance(ttl / 2)
	kept, released, old, other := h.acquire(2, "a"), h.acquire(3, "a"), h.acquire(4, "a"), h.acquire(5, "b")
	if err := h.Store.Release(ctx(), released); err != nil {
		t.Fatal(err)
	}
	old.Epoch--
	other.Node = "a"
	h.Clock.Advance(ttl / 2)
	leases := []storage.Lease{expired, kept, released, old, other}
	for i, err := range storage.Renew(ctx(), h.Store, leases, ttl) {
		if l := leases[i]; l == kept {
			if err != nil {
				t.Errorf("renew: %v", err)
			}
		} else {
			wantError(t, fmt.Sprintf("renew of %+v", l), err, storage.ErrFenced)
		}
	}
	if _, together := h.Store.(storage.Renewer); together {
		h.acquire(expired.Partition, "b") // they were not given out anew
		h.acquire(released.Partition, "b")
	}
	h.Clock.Advance(ttl - time.Millisecond)
	if _, err := h.Store.Acquire(ctx(), kept.Partition, "b", ttl); !errors.Is(err, storage.ErrHeld) {
		t.Errorf("a lease that was renewed: %v", err)
	}
	if l := h.acquire(other.Partition, "b"); l.Epoch <= other.Epoch {
		t.Errorf("a lease of another node was renewed: %+v", l)
	}
	if err := h.Store.Commit(ctx(), kept.Partition, kept.Epoch, &storage.Batch{}); err != nil {
		t.Errorf("commit with a renewed lease: %v", err)
	}
	for _, err := range storage.Renew(ctx(), h.Store, []storage.Lease{{Partition: ids.MaxPartitions, Node: "a"}}, ttl) {
		wantError(t, "renew of no partition", err, storage.ErrInvalid)
	}
	if errs := storage.Renew(ctx(), h.Store, nil, ttl); len(errs) != 0 {
		t.Errorf("renew of nothing: %v", errs)
	}
}

func testLeaseExpires(t *testing.T, h *harness) {
	a := h.acquire(1, "a")
	h.Clock.Advance(ttl)
	var b storage.Batch
	b.Put(key(1, 1, "e", "s"), []byte("late"))
	if err := h.Store.Commit(ctx(), 1, a.Epoch, &b); err != nil {
		t.Errorf("commit with an expired lease that nobody took: %v", err)
	}
	again := h.acquire(1, "a")
	if again.Epoch <= a.Epoch {
		t.Errorf("epoch %d after expiry, want it above %d, also for the last holder", again.Epoch, a.Epoch)
	}
	wantError(t, "commit with the old epoch", h.Store.Commit(ctx(), 1, a.Epoch, &b), storage.ErrFenced)
	h.Clock.Advance(ttl + time.Second)
	taken := h.acquire(1, "b")
	if taken.Epoch <= again.Epoch {
		t.Errorf("epoch %d of the next holder, want it above %d", taken.Epoch, again.Epoch)
	}
	if _, err := h.Store.Acquire(ctx(), 1, "a", ttl); !errors.Is(err, storage.ErrHeld) {
		t.Errorf("acquire by the last holder: %v", err)
	}
	h.Clock.Advance(-time.Hour) // clocks jump
	if _, err := h.Store.Acquire(ctx(), 1, "a", ttl); !errors.Is(err, storage.ErrHeld) {
		t.Errorf("acquire after the clock went back: %v", err)
	}
}

func testRelease(t *testing.T, h *harness) {
	a := h.acquire(1, "a")
	if err := h.Store.Release(ctx(), a); err != nil {
		t.Fatal(err)
	}
	wantError(t, "second release", h.Store.Release(ctx(), a), storage.ErrFenced)
	b := h.acquire(1, "b")
	if b.Epoch <= a.Epoch {
		t.Errorf("epoch %d after a release, want it above %d", b.Epoch, a.Epoch)
	}
	wantError(t, "release of an old lease", h.Store.Release(ctx(), a), storage.ErrFenced)
	wantError(t, "release by another node", h.Store.Release(ctx(), storage.Lease{Partition: 1, Node: "a", Epoch: b.Epoch}),
		storage.ErrFenced)
	if _, err := h.Store.Acquire(ctx(), 1, "a", ttl); !errors.Is(err, storage.ErrHeld) {
		t.Errorf("acquire after releases that failed: %v", err)
	}
	wantError(t, "release of a lease that never was",
		h.Store.Release(ctx(), storage.Lease{Partition: 2, Node: "a", Epoch: 1}), storage.ErrFenced)
	h.Clock.Advance(2 * ttl)
	if err := h.Store.Release(ctx(), b); err != nil {
		t.Errorf("release of an expired lease that nobody took: %v", err)
	}
	again := h.acquire(1, "b")
	if again.Epoch <= b.Epoch {
		t.Errorf("epoch %d for the node that released, want it above %d", again.Epoch, b.Epoch)
	}
}

func testOldEpochIsFenced(t *testing.T, h *harness) {
	k := key(1, 1, "e", "s")
	var b storage.Batch
	b.Put(k, []byte("v"))
	for _, epoch := range []ids.Epoch{0, 1, 1 << 40} {
		wantError(t, fmt.Sprintf("commit with epoch %d of a lease never given", epoch),
			h.Store.Commit(ctx(), 1, epoch, &b), storage.ErrFenced)
	}
	old := h.acquire(1, "a")
	h.Clock.Advance(ttl)
	current := h.acquire(1, "b")
	b.Delete(key(1, 1, "e", "other"))
	b.DeleteRange(key(1, 2, "e", ""), "")
	for _, epoch := range []ids.Epoch{0, old.Epoch, current.Epoch + 1} {
		wantError(t, fmt.Sprintf("commit with epoch %d", epoch), h.Store.Commit(ctx(), 1, epoch, &b), storage.ErrFenced)
		wantError(t, fmt.Sprintf("empty commit with epoch %d", epoch),
			h.Store.Commit(ctx(), 1, epoch, &storage.Batch{}), storage.ErrFenced)
	}
	h.wantAbsent(k)
	if err := h.Store.Commit(ctx(), 1, current.Epoch, &b); err != nil {
		t.Errorf("commit by the holder: %v", err)
	}
	h.wantValue(k, "v")
}

func testEpochsArePerPartition(t *testing.T, h *harness) {
	first := h.acquire(1, "a")
	other := h.acquire(2, "b")
	h.Clock.Advance(ttl)
	h.acquire(2, "a")
	if err := h.Store.Commit(ctx(), 1, first.Epoch, &storage.Batch{}); err != nil {
		t.Errorf("commit to 1 after a change in 2: %v", err)
	}
	wantError(t, "commit to 2", h.Store.Commit(ctx(), 2, other.Epoch, &storage.Batch{}), storage.ErrFenced)
}

func testConcurrentAcquire(t *testing.T, h *harness) {
	const nodes = 16
	var last ids.Epoch
	for round := range 20 {
		leases := make([]storage.Lease, nodes)
		errs := make([]error, nodes)
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() {
				leases[i], errs[i] = h.Store.Acquire(ctx(), 1, ids.NodeID(fmt.Sprintf("n%d", i)), ttl)
			})
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("round %d: nodes %d and %d both hold the lease", round, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, storage.ErrHeld):
				t.Fatalf("round %d: node %d: %v", round, i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody got the lease", round)
		}
		for i, l := range leases {
			if l.Node != leases[winner].Node || l.Epoch != leases[winner].Epoch {
				t.Errorf("round %d: node %d was told %+v, want %+v", round, i, l, leases[winner])
			}
		}
		if leases[winner].Epoch <= last {
			t.Errorf("round %d: epoch %d after %d", round, leases[winner].Epoch, last)
		}
		last = leases[winner].Epoch
		h.Clock.Advance(ttl)
	}
}

// testFencedWhileCommitting lets owners commit counters as fast as they can
// while others take the lease over. Once an Acquire was answered, no write of an
// epoch before may appear.
func testFencedWhileCommitting(t *testing.T, h *harness) {
	k := key(1, 1, "e", "owner")
	var wg sync.WaitGroup
	stop := make(chan struct{}) // for a store that never fences
	defer func() {
		close(stop)
		wg.Wait()
	}()
	for round := range 15 {
		l := h.acquire(1, ids.NodeID(fmt.Sprintf("n%d", round)))
		for range 4 { // each still at work when the next node takes over
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					var b storage.Batch
					b.Put(k, fmt.Appendf(nil, "%d", l.Epoch))
					err := h.Store.Commit(ctx(), 1, l.Epoch, &b)
					if errors.Is(err, storage.ErrFenced) || errors.Is(err, storage.ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("commit with epoch %d: %v", l.Epoch, err)
						return
					}
				}
			})
		}
		h.Clock.Advance(ttl)
		next := h.acquire(1, "taker")
		var b storage.Batch
		b.Put(k, []byte("taker"))
		if err := h.Store.Commit(ctx(), 1, next.Epoch, &b); err != nil {
			t.Fatalf("commit after take-over: %v", err)
		}
		for range 20 {
			if got := h.get(k)[0]; string(got) != "taker" {
				t.Fatalf("epoch %s wrote after epoch %d was given out", got, next.Epoch)
			}
		}
		h.Clock.Advance(ttl)
	}
	h.acquire(1, "end") // fences the last round
}

func testInitMeta(t *testing.T, h *harness) {
	for _, value := range []string{"first", "second", ""} {
		got, err := h.Store.InitMeta(ctx(), "partitions", []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != "first" {
			t.Errorf("setting is %q, want what was set first", got)
		}
		got[0] = 'X' // the caller's to keep
	}
	got, err := h.Store.InitMeta(ctx(), "partition", nil)
	if err != nil || got == nil || len(got) != 0 {
		t.Errorf("setting of nothing: %v, %v, want empty and not nil", got, err)
	}
	got, err = h.Store.InitMeta(ctx(), "partition", []byte("late"))
	if err != nil || len(got) != 0 {
		t.Errorf("setting that is empty: %q, %v", got, err)
	}
	if rows := h.rows(0, 10); len(rows) != 0 {
		t.Errorf("settings show up as rows: %+v", rows)
	}
}

func testConcurrentInitMeta(t *testing.T, h *harness) {
	const callers = 32
	got := make([][]byte, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { got[i], errs[i] = h.Store.InitMeta(ctx(), "name", fmt.Appendf(nil, "value %d", i)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if string(got[i]) != string(got[0]) {
			t.Errorf("caller %d got %q, caller 0 %q", i, got[i], got[0])
		}
	}
	if len(got[0]) < len("value 0") {
		t.Errorf("the setting is %q, which nobody set", got[0])
	}
}
