package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// workload commits numbered batches to several partitions, one after another in
// each, and keeps account of what was tried, answered and seen. Batch n of a
// partition puts rowsOf(n) rows under an entity of its own, overwrites the head
// row with n, and deletes the rows of batch n-keep as a range.
type workload struct {
	store *pebblestore.Store
	parts []*part
}

type part struct {
	id        ids.Partition
	epoch     ids.Epoch
	attempted atomic.Int64
	acked     atomic.Int64
	seen      atomic.Int64 // the highest head a reader has seen
}

const (
	workloadParts = 4
	// keep is how many batches a partition has rows of.
	keep = 40
)

func rowsOf(n int64) int { return int(n%7) + 1 }

// valueOf is large now and then, so that some batches are larger than a
// memtable, which Pebble handles in another way.
func valueOf(n int64) []byte {
	size := int(n*37) % 400
	if n%23 == 0 {
		size = smallTables
	}
	return append(make([]byte, size), strconv.FormatInt(n, 10)...)
}

func batchKey(p ids.Partition, n int64, row int) storage.Key {
	return storage.Key{Partition: p, Table: 1, Entity: fmt.Sprintf("b%d", n), Sort: strconv.Itoa(row)}
}

func headKey(p ids.Partition) storage.Key { return storage.Key{Partition: p, Table: 2} }

func newWorkload(t *testing.T, s *pebblestore.Store) *workload {
	t.Helper()
	w := &workload{store: s}
	for i := range workloadParts {
		p := &part{id: ids.Partition(i)}
		l, err := s.Acquire(context.Background(), p.id, "workload", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		p.epoch = l.Epoch
		w.parts = append(w.parts, p)
	}
	return w
}

func (w *workload) commit(ctx context.Context, p *part) error {
	n := p.attempted.Add(1)
	var b storage.Batch
	for row := range rowsOf(n) {
		b.Put(batchKey(p.id, n, row), valueOf(n))
	}
	b.Put(headKey(p.id), strconv.AppendInt(nil, n, 10))
	if n > keep {
		b.DeleteRange(batchKey(p.id, n-keep, 0), "")
	}
	if err := w.store.Commit(ctx, p.id, p.epoch, &b); err != nil {
		return err
	}
	p.acked.Store(n)
	return nil
}

func (w *workload) read(p *part) error {
	values, err := w.store.Get(context.Background(), headKey(p.id))
	if err != nil || values[0] == nil {
		return err
	}
	n, err := strconv.ParseInt(string(values[0]), 10, 64)
	if n > p.seen.Load() {
		p.seen.Store(n)
	}
	return err
}

// run commits and reads until stop is closed or every committer has its error,
// which it returns, joined.
func (w *workload) run(stop <-chan struct{}) error {
	errs := make([]error, len(w.parts))
	ended := make(chan struct{})
	var writers, readers sync.WaitGroup
	for i, p := range w.parts {
		writers.Go(func() {
			for errs[i] == nil && !closed(stop) {
				errs[i] = w.commit(context.Background(), p)
			}
		})
	}
	readers.Go(func() {
		for i := 0; !closed(ended); i++ {
			if w.read(w.parts[i%len(w.parts)]) != nil {
				return
			}
		}
	})
	writers.Wait()
	close(ended)
	readers.Wait()
	return errors.Join(errs...)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// state is what was promised at one moment, and how far it may have come.
type state struct{ promised, attempted []int64 }

func (w *workload) promises() (s state) {
	for _, p := range w.parts {
		s.promised = append(s.promised, max(p.acked.Load(), p.seen.Load()))
	}
	return s
}

func (w *workload) attempts(s state) state {
	for _, p := range w.parts {
		s.attempted = append(s.attempted, p.attempted.Load())
	}
	return s
}

// check compares a store that was opened after a crash with the promises.
func (w *workload) check(t *testing.T, s storage.Store, want state) {
	t.Helper()
	for i, p := range w.parts {
		values, err := s.Get(context.Background(), headKey(p.id))
		if err != nil {
			t.Fatalf("partition %d: %v", p.id, err)
		}
		head, _ := strconv.ParseInt(string(values[0]), 10, 64)
		if head < want.promised[i] {
			t.Errorf("partition %d ends at batch %d, %d was answered or seen", p.id, head, want.promised[i])
		}
		if head > want.attempted[i] {
			t.Errorf("partition %d ends at batch %d, only %d were tried", p.id, head, want.attempted[i])
		}
		// Later batches delete earlier ones, so exactly the last keep are there.
		got := map[storage.Key]string{}
		for after := (storage.Key{Partition: p.id}); ; {
			rows, err := s.ScanPartition(context.Background(), after, 1000)
			if err != nil {
				t.Fatalf("partition %d: %v", p.id, err)
			}
			for _, r := range rows {
				got[r.Key] = string(r.Value)
			}
			if len(rows) < 1000 {
				break
			}
			after = rows[len(rows)-1].Key
		}
		delete(got, headKey(p.id))
		for n := max(1, head-keep+1); n <= head; n++ {
			for row := range rowsOf(n) {
				k := batchKey(p.id, n, row)
				if got[k] != string(valueOf(n)) {
					t.Errorf("partition %d, head %d: row %d of batch %d is missing or wrong", p.id, head, row, n)
				}
				delete(got, k)
			}
		}
		if len(got) > 0 {
			t.Errorf("partition %d, head %d: %d rows of no or a deleted batch", p.id, head, len(got))
		}
		l, err := s.Acquire(context.Background(), p.id, "after", time.Hour)
		if err != nil || l.Epoch <= p.epoch {
			t.Errorf("partition %d: epoch %d after the crash, %d before: %v", p.id, l.Epoch, p.epoch, err)
		}
	}
}

func seeded(t *testing.T, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
