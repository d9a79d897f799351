package feed

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/storage/faultstore"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// After an answer, the caller's next sync shows the effect, at once: also on
// another node, also if the bus loses everything.
func TestReadYourWrites(t *testing.T) {
	for name, trials := range map[string]int{"whole": 10_000, "lossy": 1_000} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			t.Cleanup(w.close)
			for i := range 2 {
				b := newFaultyBus(w.bus, uint64(i))
				if name == "lossy" {
					b.chances(1, 0, 0, 0)
				}
				w.follow(b)
			}
			const writers = 10
			var wg sync.WaitGroup
			for i := range writers {
				user := ids.UserID(fmt.Sprintf("@u%d:h", i))
				wg.Go(func() { readYourWrites(w, user, trials/writers) })
			}
			wg.Wait()
			if t.Failed() {
				t.FailNow()
			}
		})
	}
}

func readYourWrites(w *world, user ids.UserID, trials int) {
	rng := rand.New(rand.NewPCG(1, uint64(len(user))))
	r := w.create(user, "shared")
	since := w.sync(w.hub, user, "", "").NextBatch
	for i := range trials {
		text := fmt.Sprint("w", i)
		var shown func(*response) bool
		switch rng.IntN(4) {
		case 0:
			w.must(account.NewSetData(user, "", "test", []byte(`{"v":"`+text+`"}`)))
			shown = func(got *response) bool {
				return len(got.AccountData.Events) == 1 && got.AccountData.Events[0].Content["v"] == text
			}
		case 1:
			other := w.create(user, "shared")
			shown = func(got *response) bool {
				sec := got.Rooms.Join[other]
				return sec != nil && len(sec.Timeline.Events) == 5
			}
		default:
			w.say(r, user, text)
			shown = func(got *response) bool { return bodies(got.Rooms.Join[r]) == text }
		}
		got := w.sync(w.hubs[rng.IntN(len(w.hubs))], user, since, "")
		if !shown(got) {
			w.t.(*testing.T).Errorf("%s: %s is not in %+v", user, text, got)
			return
		}
		since = got.NextBatch
	}
}

// A batch that the bus lost reaches a socket and a waiting poll, with nothing else
// happening.
func TestLostBatchIsFound(t *testing.T) {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	b := newFaultyBus(w.bus, 1)
	w.follow(b)
	r := w.create(alice, "shared")
	w.join(r, bob)
	s, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	settled(t, s)
	since, err := w.hub.ParseSince(w.sync(w.hub, bob, "", "").NextBatch)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan string, 1)
	go func() {
		body, err := w.hub.Sync(ctx, &Request{User: bob, Device: "P", Since: since, Timeout: time.Minute})
		polled <- fmt.Sprint(string(body), err)
	}()
	b.chances(1, 0, 0, 0)
	w.say(r, alice, "lost")
	k.wait(t, `"lost"`)
	if got := <-polled; !strings.Contains(got, `"lost"`) {
		t.Fatal(got)
	}
}

// A batch from another process is as good as one of this one: it goes the short
// way too.
func TestRawBatches(t *testing.T) {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	b := newFaultyBus(w.bus, 1)
	b.chances(0, 0, 0, 1)
	w.follow(b)
	r := w.create(alice, "shared")
	w.join(r, bob)
	s, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	w.say(r, alice, "one")
	k.wait(t, `"one"`)
	settled(t, s)
	id := w.say(r, alice, "two")
	w.read(r, alice, id)
	if got := kinds(k.wait(t, `"m.receipt"`)); !slices.Equal(got, []string{"mark", "mark"}) {
		t.Fatalf("frames %v", got)
	}
	w.member(r, alice, bob, event.Leave)
	k.wait(t, `"leave":{`)
}

// A hub that is further behind than the log goes back makes its views anew, and
// their clients miss nothing.
func TestTrimmedLog(t *testing.T) {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	b := newFaultyBus(w.bus, 1)
	h, err := newHub(ctx, Options{
		Node: "slow", Count: partitions, Store: w.store, Bus: b, Heads: w.node,
		Clock: w.clock, Log: slog.New(slog.DiscardHandler), Rules: pushrules.NewDefaults(pushrules.Options{}), Router: w.node,
	}, pace{gap: time.Hour, poll: time.Hour}) // it looks at nothing by itself
	if err != nil {
		t.Fatal(err)
	}
	w.hub, w.hubs = h, []*Hub{h}
	r := w.create(alice, "shared")
	w.join(r, bob)
	s, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	settled(t, s)
	old := s.(*session).mu.view
	b.chances(1, 0, 0, 0)
	var want []ids.EventID
	for i := range 20 {
		want = append(want, w.say(r, alice, fmt.Sprint("m", i)))
	}
	// The bus delivers when it comes to it: only then are they lost.
	eventually(t, "the bus has lost them", func() bool { return b.dropped.Load() >= 20 })
	events := w.timeline(r)
	w.trimLog(w.rooms.Place(r).Partition, events[len(events)-3].Seq)
	eventually(t, "the messages were lost", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.mu.dropped >= events[len(events)-1].Seq
	})
	b.chances(0, 0, 0, 0)
	want = append(want, w.say(r, alice, "end"))
	var got []ids.EventID
	for _, f := range k.wait(t, `"end"`) {
		got = append(got, eventIDs(f.Rooms.Join[r].Timeline.Events)...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	if s.(*session).mu.view == old {
		t.Fatal("the view is the old one")
	}
}

// Views nobody uses are forgotten, with their seats; one in use is not.
func TestSweep(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob)
	w.sync(w.hub, alice, "", "")
	_, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	views := func() []ids.UserID {
		w.hub.mu.Lock()
		defer w.hub.mu.Unlock()
		return slices.Sorted(maps.Keys(w.hub.mu.users))
	}
	w.hub.sweep(w.clock.Now())
	w.clock.Advance(idleUser)
	w.hub.sweep(w.clock.Now())
	if got := views(); len(got) != 2 {
		t.Fatalf("swept too early: %v are left", got)
	}
	w.clock.Advance(time.Second)
	w.hub.sweep(w.clock.Now())
	if got := views(); !slices.Equal(got, []ids.UserID{bob}) {
		t.Fatalf("views %v", got)
	}
	s := w.hub.shardOf(string(r))
	s.mu.Lock()
	seats := len(s.mu.rooms[r].seats)
	s.mu.Unlock()
	if seats != 1 {
		t.Fatalf("%d seats", seats)
	}
}

// Seats and audiences go with the stays.
func TestSeats(t *testing.T) {
	w := open(t)
	users := []ids.UserID{alice, bob, carol}
	var rooms []ids.RoomID
	for range 4 {
		rooms = append(rooms, w.create(alice, "shared"))
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, u := range users {
		w.sync(w.hub, u, "", "")
	}
	in := map[ids.RoomID]map[ids.UserID]bool{}
	for _, r := range rooms {
		in[r] = map[ids.UserID]bool{alice: true}
	}
	for range 100 {
		r, u := rooms[rng.IntN(len(rooms))], users[1+rng.IntN(2)]
		if in[r][u] = !in[r][u]; in[r][u] {
			w.join(r, u)
		} else {
			w.member(r, alice, u, event.Leave)
		}
		if rng.IntN(10) == 0 {
			w.hub.mu.Lock()
			v := w.hub.mu.users[u]
			w.hub.mu.Unlock()
			w.hub.discard(v)
		}
		for _, u := range users {
			w.sync(w.hub, u, "", "")
		}
		for _, r := range rooms {
			want := 0
			for _, yes := range in[r] {
				if yes {
					want++
				}
			}
			s := w.hub.shardOf(string(r))
			s.mu.Lock()
			for i, st := range s.mu.rooms[r].seats {
				if st.at != i || st.room.id != r || !in[r][st.view.user] {
					t.Fatalf("seat %d of %s: %+v", i, r, st)
				}
			}
			if got := len(s.mu.rooms[r].seats); got != want {
				t.Fatalf("%d seats in %s, want %d", got, r, want)
			}
			s.mu.Unlock()
		}
	}
}

// Close ends sockets, wakes polls, and what comes afterwards is refused.
func TestHubClose(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob)
	s, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	settled(t, s)
	since, err := w.hub.ParseSince(w.sync(w.hub, alice, "", "").NextBatch)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan error, 1)
	go func() {
		_, err := w.hub.Sync(ctx, &Request{User: alice, Device: "P", Since: since, Timeout: time.Hour})
		polled <- err
	}()
	eventually(t, "the poll waits", func() bool {
		v := viewOfUser(w.hub, alice)
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.mu.sessions) == 1 && v.mu.sessions[0].isLive()
	})
	w.hub.Close()
	if err := <-polled; merr.From(err).Status != 503 {
		t.Fatalf("the poll: %v", err)
	}
	if k.mu.closed != closeGoingAway {
		t.Fatalf("the socket was closed with %d", k.mu.closed)
	}
	if _, err := w.hub.Open(ctx, Open{User: bob, Device: "D"}, newSink(1)); merr.From(err).Status != 503 {
		t.Fatalf("a socket after the end: %v", err)
	}
	w.say(r, alice, "late")
	if n := len(k.take()); n != 0 {
		t.Fatalf("%d frames after the end", n)
	}
}

// A view that could not be loaded is made again by the next request, and so is one
// that could not read what changed.
func TestStoreFails(t *testing.T) {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	st := faultstore.New(memstore.New(c))
	w := newWorld(t, st)
	t.Cleanup(w.close)
	w.follow(w.bus)
	r := w.create(alice, "shared")
	w.join(r, bob, carol)
	restore := st.FailReads()
	if _, err := w.hub.Sync(ctx, &Request{User: bob, Device: "D"}); !errors.Is(err, faultstore.ErrInjected) {
		t.Fatalf("sync: %v", err)
	}
	restore()
	since := w.sync(w.hub, bob, "", "").NextBatch
	s, k := w.socket(t, bob, since, "")
	settled(t, s)
	restore = st.FailReads()
	s.(*session).wake()
	eventually(t, "the socket is closed", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.mu.closed == closeInternal })
	restore()

	// The list of the ignored cannot be read when it changes.
	w.sync(w.hub, bob, since, "")
	w.must(account.NewSetData(bob, "", TypeIgnored, []byte(`{"ignored_users":{"@carol:h":{}}}`)))
	home := w.hub.homeOf(bob)
	st.Inject(faultstore.Fault{
		Calls: faultstore.Get, Times: 1, Before: faultstore.ErrInjected,
		Match: func(p ids.Partition) bool { return p == home },
	})
	w.sync(w.hub, bob, since, "")
	w.say(r, carol, "unheard")
	if got := bodies(w.sync(w.hub, bob, since, "").Rooms.Join[r]); got != "" {
		t.Fatalf("bob hears %q", got)
	}
}
