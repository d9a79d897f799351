package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// toldTo gathers what one device is told of a room.
type toldTo struct {
	room string

	mu struct {
		sync.Mutex
		events []string
	}
}

func (d *toldTo) take(sync object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range []string{"join", "leave"} {
		sec := section(sync, name, d.room)
		d.mu.events = append(d.mu.events, ids(list(sec, "timeline"))...)
		d.mu.events = append(d.mu.events, ids(list(sec, "state"))...)
	}
}

func (d *toldTo) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mu.events)
}

// listen follows the room over a socket.
func (d *toldTo) listen(t *testing.T, c *client) {
	t.Helper()
	ws, err := wsclient.Dial(t.Context(), c.Server.URL, wsclient.Options{
		Token: c.Token, Sync: true, Reconnect: true,
		OnFrame: func(frame []byte) {
			var o object
			if err := json.Unmarshal(frame, &o); err != nil {
				t.Errorf("malformed frame: %v", err)
			}
			d.take(o)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
}

// TestAbsenceStaysHidden: in a room whose past is for members alone, who is
// kicked and comes back again and again is never told what was said meanwhile,
// neither by syncs nor over a socket nor by paging.
func TestAbsenceStaysHidden(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat", "initial_state": []any{object{
		"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": "joined"},
	}}})
	bob.join(room)
	polled, pushed := &toldTo{room: room}, &toldTo{room: room}
	pushed.listen(t, bob.device())
	poller, looker := bob.device(), bob.device()
	ctx, stop := context.WithCancel(t.Context())
	var chatting, following sync.WaitGroup
	for range 3 {
		talker := alice.device()
		chatting.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				talker.send(room, fmt.Sprint("message ", i))
			}
		})
	}
	following.Go(func() {
		for ctx.Err() == nil {
			polled.take(poller.sync())
		}
	})
	const absences = 60
	for range absences {
		alice.member("kick", room, bob.UserID)
		bob.join(room)
	}
	stop()
	chatting.Wait()
	following.Wait()
	last := alice.send(room, "the end")
	polled.take(poller.sync())
	for !slices.Contains(pushed.all(), last) {
		// Frames come by themselves; asking keeps the wait from spinning.
		looker.sync()
	}

	present, absent := true, map[string]bool{}
	kicks := 0
	history := alice.history(room)
	joins := slices.IndexFunc(history, func(e object) bool { return e["type"] == "m.room.member" && e["state_key"] == bob.UserID })
	for _, e := range history[joins:] {
		if e["type"] == "m.room.member" && e["state_key"] == bob.UserID {
			present = content(e, "membership") == "join"
			if !present {
				kicks++
			}
			continue
		}
		if !present {
			absent[e["event_id"].(string)] = true
		}
	}
	if kicks != absences || len(absent) == 0 {
		t.Fatalf("%d kicks, %d events meanwhile", kicks, len(absent))
	}
	t.Logf("%d events, %d of them meanwhile", len(history), len(absent))
	for path, got := range map[string][]string{
		"/sync": polled.all(), "the socket": pushed.all(),
		"/messages back": ids(bob.page(room, "b", "", 100)), "/messages forward": ids(bob.page(room, "f", "", 100)),
	} {
		leaks := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !absent[id] })
		if len(leaks) > 0 {
			t.Errorf("%s tells %d events of the time away, such as %s", path, len(leaks), leaks[0])
		}
	}
}

// TestAwayBetweenTwoSyncs: leaving and coming back between two syncs hides what
// was said meanwhile, as if there had been a sync in between.
func TestAwayBetweenTwoSyncs(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat", "initial_state": []any{object{
		"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": "joined"},
	}}})
	bob.join(room)
	before := alice.send(room, "before")
	bob.sync()
	seen := alice.send(room, "not synced yet")
	bob.leave(room)
	secret := alice.send(room, "a secret")
	name := alice.setState(room, "m.room.name", "", object{"name": "n"})
	bob.join(room)
	after := alice.send(room, "after")
	sec := joined(bob.sync(), room)
	tl := ids(list(sec, "timeline"))
	if slices.Contains(tl, secret) || !slices.Contains(tl, after) {
		t.Errorf("the timeline is %s", text(list(sec, "timeline")))
	}
	if !slices.Contains(ids(list(sec, "state")), name) {
		t.Errorf("the state misses what changed meanwhile: %v", types(list(sec, "state")))
	}
	got := ids(bob.history(room))
	if !slices.Contains(got, before) || !slices.Contains(got, seen) || slices.Contains(got, secret) {
		t.Errorf("of before, away and after, the history has %v", []bool{slices.Contains(got, before), slices.Contains(got, secret), slices.Contains(got, after)})
	}
}
