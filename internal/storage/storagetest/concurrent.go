package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

func testConcurrentCommits(t *testing.T, h *harness) {
	const partitions, writers, commits = 6, 3, 30
	epochs := make([]ids.Epoch, partitions)
	for p := range epochs {
		epochs[p] = h.acquire(ids.Partition(p), "n").Epoch
	}
	var wg sync.WaitGroup
	for p := range ids.Partition(partitions) {
		for w := range writers {
			wg.Go(func() {
				for i := range commits {
					mine := key(p, 1, fmt.Sprintf("writer %d", w), fmt.Sprintf("%04d", i))
					var b storage.Batch
					b.Put(mine, []byte("v"))
					b.Put(key(p, 2, "shared", fmt.Sprintf("%d-%d", w, i)), []byte("v"))
					if err := h.Store.Commit(ctx(), p, epochs[p], &b); err != nil {
						t.Errorf("commit: %v", err)
						return
					}
					values, err := h.Store.Get(ctx(), mine)
					if err != nil || values[0] == nil {
						t.Errorf("an answered commit is not seen: %v, %v", values, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for p := range ids.Partition(partitions) {
		if n := len(h.rows(p, 100)); n != 2*writers*commits {
			t.Errorf("partition %d has %d rows, want %d", p, n, 2*writers*commits)
		}
	}
}

// testReadersSeeWholeBatches has each commit write the same number to several
// rows, some of them by deleting and putting again.
func testReadersSeeWholeBatches(t *testing.T, h *harness) {
	const rows, commits = 5, 150
	at := func(i int) storage.Key { return key(1, 1, "e", fmt.Sprint(i)) }
	epoch := h.acquire(1, "n").Epoch
	write := func(n int) error {
		var b storage.Batch
		b.DeleteRange(at(0), "")
		for i := range rows {
			b.Put(at(i), fmt.Appendf(nil, "%06d", n))
		}
		return h.Store.Commit(ctx(), 1, epoch, &b)
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			last := ""
			for {
				values := [][]byte{}
				for _, e := range h.scan(all(at(0))) {
					values = append(values, e.Value)
				}
				values = append(values, h.get(at(0), at(rows-1), at(2))...)
				for i, v := range values {
					if string(v) < last || i < rows && string(v) != string(values[0]) {
						t.Errorf("a reader saw %q after %q", values, last)
						return
					}
				}
				if g := values[rows:]; len(values) != rows+3 || string(g[0]) != string(g[1]) || string(g[1]) != string(g[2]) {
					t.Errorf("a reader saw a part of a batch: %q", values)
					return
				}
				last = string(values[rows])
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := range commits {
		if err := write(n); err != nil {
			t.Errorf("commit: %v", err)
		}
	}
	close(done)
	wg.Wait()
}

func testClosed(t *testing.T, h *harness) {
	l := h.acquire(1, "n")
	h.put(key(2, 1, "e", "s"), "v")
	if err := h.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Store.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	_, err := h.Store.Acquire(ctx(), 1, "n", ttl)
	wantError(t, "acquire", err, storage.ErrClosed)
	wantError(t, "release", h.Store.Release(ctx(), l), storage.ErrClosed)
	wantError(t, "commit", h.Store.Commit(ctx(), 1, l.Epoch, &storage.Batch{}), storage.ErrClosed)
	_, err = h.Store.Get(ctx(), key(2, 1, "e", "s"))
	wantError(t, "get", err, storage.ErrClosed)
	_, err = h.Store.Scan(ctx(), all(key(2, 1, "e", "s")))
	wantError(t, "scan", err, storage.ErrClosed)
	_, err = h.Store.ScanPartition(ctx(), storage.Key{Partition: 2}, 1)
	wantError(t, "scan partition", err, storage.ErrClosed)
	_, err = h.Store.InitMeta(ctx(), "name", nil)
	wantError(t, "setting", err, storage.ErrClosed)
}

// testCloseWaits closes under load: every call either works or says closed.
func testCloseWaits(t *testing.T, h *harness) {
	epoch := h.acquire(1, "n").Epoch
	var wg sync.WaitGroup
	started := make(chan struct{}, 64)
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				k := key(1, 1, fmt.Sprint(w), fmt.Sprint(i))
				var b storage.Batch
				b.Put(k, []byte("v"))
				err := h.Store.Commit(ctx(), 1, epoch, &b)
				if err == nil {
					_, err = h.Store.Get(ctx(), k)
				}
				if errors.Is(err, storage.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("call during close: %v", err)
					return
				}
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	for range cap(started) {
		<-started
	}
	if err := h.Store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
}

func testReopen(t *testing.T, h *harness) {
	if h.Reopen == nil {
		return // the store's data ends with it
	}
	names := oddNames()
	for _, entity := range names {
		h.put(key(1, 1, entity, "s"), entity)
	}
	var b storage.Batch
	b.Delete(key(1, 1, "a", "s"))
	b.DeleteRange(key(1, 1, "b", ""), "")
	h.commit(1, &b)
	if _, err := h.Store.InitMeta(ctx(), "name", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	before := h.rows(1, 10)
	if len(before) != len(names)-2 {
		t.Fatalf("%d rows, want %d", len(before), len(names)-2)
	}
	old := h.epochs[1]
	for range 3 {
		h.Store = h.Reopen(t)
		same := func(a, b storage.Row) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }
		if after := h.rows(1, 10); !slices.EqualFunc(before, after, same) {
			t.Fatalf("rows after reopening: %+v, want %+v", after, before)
		}
		got, err := h.Store.InitMeta(ctx(), "name", []byte("other"))
		if err != nil || string(got) != "kept" {
			t.Errorf("setting after reopening: %q, %v", got, err)
		}
		h.Clock.Advance(ttl)
		l := h.acquire(1, "suite")
		if l.Epoch <= old {
			t.Errorf("epoch %d after reopening, want it above %d", l.Epoch, old)
		}
		wantError(t, "commit with the epoch before", h.Store.Commit(ctx(), 1, old, &b), storage.ErrFenced)
		old = l.Epoch
	}
}
