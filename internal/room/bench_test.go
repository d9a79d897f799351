package room

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/clock/cputest"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// BenchmarkSend sends messages of some 250 bytes into 10 rooms, from the command
// to the answer after the commit.
func BenchmarkSend(b *testing.B) {
	stores := map[string]func(b *testing.B) storage.Store{
		"memory": func(*testing.B) storage.Store { return memstore.New(clock.Real{}) },
		"pebble": func(b *testing.B) storage.Store {
			s, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
			if err != nil {
				b.Fatal(err)
			}
			return s
		},
	}
	for _, name := range []string{"memory", "pebble"} {
		for _, senders := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/senders=%d", name, senders), func(b *testing.B) {
				st := stores[name](b)
				b.Cleanup(func() {
					if err := st.Close(); err != nil {
						b.Errorf("close: %v", err)
					}
				})
				benchSend(b, st, senders)
			})
		}
	}
}

func benchSend(b *testing.B, st storage.Store, senders int) {
	w := newWorld(b, st)
	defer w.close()
	rooms := make([]ids.RoomID, 10)
	for i := range rooms {
		rooms[i] = w.create("12")
	}
	content := canonical(b, fmt.Sprintf(`{"body":%q,"msgtype":"m.text"}`, strings.Repeat("hello ", 8)))
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	before := cputest.Used(b)
	var wg sync.WaitGroup
	for g := range senders {
		wg.Go(func() {
			for {
				n := left.Add(-1)
				if n < 0 {
					return
				}
				s := &Send{Room: rooms[g%len(rooms)], Txn: Txn{Device: "DEVICE", Path: "send/m.room.message", ID: fmt.Sprint(n)}}
				s.Draft.Type, s.Draft.Sender, s.Draft.Content = event.TypeMessage, alice, content
				if _, err := w.node.Do(ctx, s); err != nil {
					b.Errorf("send: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkAggregate aggregates what relates to one event: a thread, and reactions,
// however many of which cost nothing.
func BenchmarkAggregate(b *testing.B) {
	for _, reactions := range []int{3, 100_000} {
		b.Run(fmt.Sprintf("reactions=%d", reactions), func(b *testing.B) {
			w := newWorld(b, nil)
			defer w.close()
			room := w.create("12")
			root := w.say(room, alice, "root")
			w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
			for i := range reactions {
				w.related(room, alice, "m.reaction", event.RelAnnotation, root, fmt.Sprintf(`,"key":"%d"`, i))
			}
			list := []*Stored{w.event(room, root)}
			o := &Onlooker{User: bob, UpTo: maxSeq - 1}
			b.ReportAllocs()
			for b.Loop() {
				if a, err := w.r.Aggregate(ctx, room, o, list); err != nil || len(a) != 1 {
					b.Fatalf("%d aggregations, %v", len(a), err)
				}
			}
		})
	}
}

// BenchmarkJoin joins rooms of different size; the cost must not follow the size.
func BenchmarkJoin(b *testing.B) {
	for _, members := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			st := memstore.New(clock.Real{})
			b.Cleanup(func() {
				if err := st.Close(); err != nil {
					b.Errorf("close: %v", err)
				}
			})
			w := newWorld(b, st)
			defer w.close()
			id := w.create("12")
			w.state(id, alice, event.TypeJoinRules, "", `{"join_rule":"public"}`)
			join := func(n int) {
				user := ids.UserID(fmt.Sprintf("@user%d:h", n))
				w.member(id, user, user, event.Join)
			}
			for n := range members {
				join(n)
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cputest.Used(b)
			for n := range b.N {
				join(members + n)
			}
			b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
