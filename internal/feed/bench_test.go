package feed

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// nowhere is a socket that takes everything and keeps nothing.
type nowhere struct{}

func (nowhere) Send([]byte) bool             { return true }
func (nowhere) SendTail([]byte, []byte) bool { return true }
func (nowhere) Close(int, string)            {}

func benchWorld(b *testing.B, st storage.Store) *world {
	b.Helper()
	w := newWorld(b, st)
	b.Cleanup(w.close)
	w.follow(w.bus)
	return w
}

func benchUser(i int) ids.UserID { return ids.UserID(fmt.Sprintf("@user%d:h", i)) }

// BenchmarkFanout hands one message to live sessions whose sockets cost nothing.
func BenchmarkFanout(b *testing.B) {
	for _, sessions := range []int{500, 5000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			w := benchWorld(b, nil)
			r := w.create(alice, "shared")
			for i := range sessions {
				w.join(r, benchUser(i))
			}
			for i := range sessions {
				s, err := w.hub.Open(ctx, Open{User: benchUser(i), Device: "D"}, nowhere{})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
			}
			w.say(r, alice, "first")
			s := w.hub.shardOf(string(r))
			for !w.allLive(s, r) {
				time.Sleep(time.Millisecond)
			}
			list := w.timeline(r)
			last := list[len(list)-1]
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s.mu.Lock()
				next := s.mu.processed + 1
				s.processLocked(&partition.Published{First: next, Last: next, Records: []partition.Record{{
					Seq: next, Kind: partition.RecordEvent, Entity: string(r), Obj: last,
				}}})
				s.mu.Unlock()
			}
			b.StopTimer()
			if !w.allLive(s, r) {
				b.Fatal("sessions fell behind")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sessions), "ns/delivery")
		})
	}
}

func (w *world) allLive(s *shard, r ids.RoomID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.rooms[r] == nil {
		return false
	}
	for _, st := range s.mu.rooms[r].seats {
		st.view.mu.Lock()
		ok := len(st.view.mu.sessions) == 1
		for _, x := range st.view.mu.sessions {
			x.mu.Lock()
			ok = ok && x.mu.live
			x.mu.Unlock()
		}
		st.view.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

// fill makes rooms with members and messages.
func (w *world) fill(rooms, members, messages int) (list []ids.RoomID) {
	for i := range rooms {
		var first []draftOf
		for m := range members - 2 {
			// Members by another's hand: what the rules ask is tested elsewhere.
			first = append(first, membership(alice, benchUser(m), event.Invite))
		}
		first = append(first, state(alice, event.TypeName, "", fmt.Sprintf(`{"name":"Room %d"}`, i)))
		r := w.create(alice, "shared", first...)
		w.join(r, bob)
		for m := range messages {
			w.say(r, alice, fmt.Sprint("message ", m))
		}
		list = append(list, r)
	}
	return list
}

func stores(b *testing.B, run func(b *testing.B, st storage.Store)) {
	b.Run("mem", func(b *testing.B) { run(b, memstore.New(clock.Real{})) })
	b.Run("pebble", func(b *testing.B) {
		st, err := pebblestore.Open(b.TempDir(), pebblestore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = st.Close() })
		run(b, st)
	})
}

func BenchmarkIncrementalSync(b *testing.B) {
	for _, rooms := range []int{300, 2000} {
		stores(b, func(b *testing.B, st storage.Store) {
			w := benchWorld(b, st)
			list := w.fill(rooms, 2, 1)
			b.Run(fmt.Sprintf("%d_rooms/nothing", rooms), func(b *testing.B) {
				since := w.sync(w.hub, bob, "", "").NextBatch
				p, _ := w.hub.ParseSince(since)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					at := p.Clone()
					if _, err := w.hub.Sync(ctx, &Request{User: bob, Device: "D", Since: &at}); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("%d_rooms/one", rooms), func(b *testing.B) {
				p, _ := w.hub.ParseSince(w.sync(w.hub, bob, "", "").NextBatch)
				w.say(list[0], alice, "news")
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					at := p.Clone()
					if _, err := w.hub.Sync(ctx, &Request{User: bob, Device: "D", Since: &at}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkInitialSync(b *testing.B) {
	const rooms, members = 300, 300
	stores(b, func(b *testing.B, st storage.Store) {
		w := benchWorld(b, st)
		w.fill(rooms, members, 20)
		filter, err := w.hub.LoadFilter(ctx, bob, `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":20}}}`)
		if err != nil {
			b.Fatal(err)
		}
		for _, warm := range []bool{false, true} {
			b.Run(map[bool]string{false: "cold", true: "warm"}[warm], func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					if !warm {
						w.clock.Advance(2 * idleUser)
						w.hub.sweep(w.clock.Now())
					}
					if _, err := w.hub.Sync(ctx, &Request{User: bob, Device: "D", Filter: filter}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

// BenchmarkSlide is a request of a client that looks at the first 20 of 1000 rooms, in
// one of which something was said.
func BenchmarkSlide(b *testing.B) {
	w := newWorld(b, nil)
	defer w.close()
	w.follow(w.bus)
	var rooms []ids.RoomID
	for range 1000 {
		rooms = append(rooms, w.create(alice, "shared"))
	}
	req := &SlidingRequest{User: alice, Device: "D", Lists: []SlidingList{{
		Name: "l", RoomConfig: RoomConfig{Limit: 1, State: RequiredState{Include: []StatePattern{{}}, Lazy: true}}, Ranges: [][2]int{{0, 19}},
	}}}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		w.say(rooms[i%20], alice, "x")
		b.StartTimer()
		body, err := w.hub.Slide(ctx, req)
		a := &slidingAnswer{}
		if err == nil {
			err = json.Unmarshal(body, a)
		}
		if err != nil {
			b.Fatal(err)
		}
		req.Pos = a.Pos
	}
}
