package pebblestore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock/cputest"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

const benchPartitions = 64

func openBench(b *testing.B) (*pebblestore.Store, []ids.Epoch) {
	b.Helper()
	s, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	epochs := make([]ids.Epoch, benchPartitions)
	for p := range epochs {
		l, err := s.Acquire(context.Background(), ids.Partition(p), "bench", time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		epochs[p] = l.Epoch
	}
	return s, epochs
}

// message fills a batch like that of a chat message: the log entry, the event by
// its ID, its place in the timeline, the transaction ID, the head.
func message(batch *storage.Batch, p ids.Partition, seq int, text []byte) {
	batch.Reset()
	room := fmt.Sprintf("!room%d", seq%500)
	batch.Put(storage.Key{Partition: p, Table: 1, Entity: fmt.Sprint(seq / 1000), Sort: fmt.Sprintf("%016x", seq)}, text[:700])
	batch.Put(storage.Key{Partition: p, Table: 2, Entity: fmt.Sprintf("$%043x", seq*7919)}, text[:600])
	batch.Put(storage.Key{Partition: p, Table: 3, Entity: room, Sort: fmt.Sprintf("%016x", seq)}, text[:60])
	batch.Put(storage.Key{Partition: p, Table: 4, Entity: "@user:example.org", Sort: fmt.Sprintf("m%d.%d", seq, seq*31)}, text[:60])
	batch.Put(storage.Key{Partition: p, Table: 5, Entity: room}, text[:40])
}

func text() []byte {
	const letters = `abcdefghijklmnopqrstuvwxyz {"":,}`
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, 4096)
	for i := range out {
		out[i] = letters[r.IntN(len(letters))]
	}
	return out
}

func BenchmarkCommit(b *testing.B) {
	for _, committers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("committers=%d", committers), func(b *testing.B) {
			s, epochs := openBench(b)
			var next atomic.Int64
			var wg sync.WaitGroup
			text := text()
			b.ReportAllocs()
			start := cputest.Used(b)
			b.ResetTimer()
			for c := range committers {
				p := ids.Partition(c % benchPartitions)
				wg.Go(func() {
					var batch storage.Batch
					for {
						seq := int(next.Add(1))
						if seq > b.N {
							return
						}
						message(&batch, p, seq, text[seq%1000:])
						if err := s.Commit(context.Background(), p, epochs[p], &batch); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cputest.Used(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
			st := s.Stats()
			b.ReportMetric(float64(st.Commits)/float64(max(1, st.Groups)), "commits/group")
		})
	}
}

func fill(b *testing.B, rows int) *pebblestore.Store {
	b.Helper()
	s, epochs := openBench(b)
	text := text()
	var all storage.Batch
	for seq := range rows {
		var one storage.Batch
		message(&one, 1, seq, text[seq%1000:])
		if all.Ops = append(all.Ops, one.Ops...); len(all.Ops) >= 5000 || seq == rows-1 {
			if err := s.Commit(context.Background(), 1, epochs[1], &all); err != nil {
				b.Fatal(err)
			}
			all.Reset()
		}
	}
	return s
}

func BenchmarkGetMiss(b *testing.B) {
	s := fill(b, 100_000)
	b.ReportAllocs()
	start, i := cputest.Used(b), 0
	for b.Loop() {
		i++
		k := storage.Key{Partition: 1, Table: 4, Entity: "@user:example.org", Sort: fmt.Sprintf("m%d.x", i%100_000)}
		if v, err := s.Get(context.Background(), k); err != nil || v[0] != nil {
			b.Fatal(v, err)
		}
	}
	b.ReportMetric(float64((cputest.Used(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func BenchmarkGetHit(b *testing.B) {
	s := fill(b, 100_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		k := storage.Key{Partition: 1, Table: 2, Entity: fmt.Sprintf("$%043x", i%100_000*7919)}
		if v, err := s.Get(context.Background(), k); err != nil || v[0] == nil {
			b.Fatal(v, err)
		}
	}
}

func BenchmarkScan100(b *testing.B) {
	s := fill(b, 100_000)
	b.ReportAllocs()
	start, i := cputest.Used(b), 0
	for b.Loop() {
		i++
		r := storage.Range{Partition: 1, Table: 1, Entity: fmt.Sprint(i % 100), From: fmt.Sprintf("%016x", i%100*1000+500), Limit: 100}
		if rows, err := s.Scan(context.Background(), r); err != nil || len(rows) != 100 {
			b.Fatal(len(rows), err)
		}
	}
	b.ReportMetric(float64((cputest.Used(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
