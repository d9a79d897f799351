package search

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// BenchmarkFind searches 300 rooms of 100 messages each, on disk, for words of
// different frequency.
func BenchmarkFind(b *testing.B) {
	const rooms, messages = 300, 100
	st, err := pebblestore.Open(b.TempDir(), pebblestore.Options{Clock: clock.Real{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	})
	w := newWorld(b, st)
	list := make([]ids.RoomID, rooms)
	for i := range list {
		list[i] = w.create()
	}
	var wg sync.WaitGroup
	for part := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(part), 1))
			zipf := rand.NewZipf(rnd, 1.1, 4, 20_000)
			for i := part; i < rooms; i += 16 {
				for n := range messages {
					var words []string
					for range 12 {
						words = append(words, fmt.Sprintf("w%dx", zipf.Uint64()))
					}
					if i == 7 && n == 50 {
						words = append(words, "singular")
					}
					w.say(list[i], strings.Join(words, " "))
				}
			}
		})
	}
	wg.Wait()
	w.await()
	w.once = true
	for _, term := range []string{"singular", "ingula", "nowhere", "w500x", "w3x", "w3x w9x", "w0x"} {
		b.Run(term, func(b *testing.B) {
			hits := 0
			for b.Loop() {
				hits = len(w.find(term, list...))
			}
			b.ReportMetric(float64(hits), "hits")
		})
	}
}

// counting counts what the commands that pass it write.
type counting struct {
	partition.Router
	writes, rows, bytes int
}

func (c *counting) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if w, ok := cmd.(*Write); ok {
		c.writes++
		c.rows += len(w.Rows)
		for _, r := range w.Rows {
			c.bytes += len(r.Room) + len(r.Sort) + len(r.Value)
		}
	}
	return c.Router.Do(ctx, cmd)
}

// BenchmarkHandle indexes messages as they come from memory: of a dozen words with
// a usual distribution, one at a time or those of a busy second, and of numbers that were
// never said before. Each is sent to a store on disk first: give -benchtime=1024x.
func BenchmarkHandle(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	zipf := rand.NewZipf(rnd, 1.1, 4, 20_000)
	prose := func(int) string {
		var words []string
		for range 12 {
			words = append(words, fmt.Sprintf("w%dx", zipf.Uint64()))
		}
		return strings.Join(words, " ")
	}
	numbers := func(n int) string {
		return fmt.Sprintf("number.%d.%d.%d.1.%s", n%64, n/64, 1_780_000_000_000_000_000+n*98_765, strings.Repeat("x", 30))
	}
	for _, c := range []struct {
		name   string
		gather int
		text   func(int) string
	}{{"prose/1", 1, prose}, {"prose/128", 128, prose}, {"numbers/1", 1, numbers}, {"numbers/128", 128, numbers}} {
		b.Run(c.name, func(b *testing.B) { benchmarkHandle(b, c.gather, c.text) })
	}
}

func benchmarkHandle(b *testing.B, gather int, text func(int) string) {
	st, err := pebblestore.Open(b.TempDir(), pebblestore.Options{Clock: clock.Real{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	})
	w := newStill(b, st)
	id := w.create()
	batches := make([]consumer.Batch, 0, b.N/gather+1)
	for n := 0; n < b.N; n += gather {
		var records []partition.Record
		for i := range gather {
			e, err := w.rooms.Event(w.ctx, id, w.say(id, text(n+i)))
			if err != nil {
				b.Fatal(err)
			}
			records = append(records, partition.Record{Kind: partition.RecordEvent, Seq: e.Seq, Entity: string(id), Obj: e})
		}
		batches = append(batches, consumer.Batch{
			Partition: w.rooms.Place(id).Partition, First: records[0].Seq, Last: records[gather-1].Seq, Records: records,
		})
	}
	c := &counting{Router: w.node}
	x := New(st, c, w.rooms, nil)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range batches {
		if err := x.Handle(w.ctx, batches[i]); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(len(batches) * gather)
	b.ReportMetric(float64(c.rows)/n, "rows/op")
	b.ReportMetric(float64(c.bytes)/n, "wbytes/op")
}
