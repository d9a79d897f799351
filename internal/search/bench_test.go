package search

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
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
