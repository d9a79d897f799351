package feed

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

func (w *world) slide(conn, pos string) (*slidingAnswer, error) {
	w.t.Helper()
	req := &SlidingRequest{User: alice, Device: "D", Conn: conn, Pos: pos, Lists: []SlidingList{{Name: "l", RoomConfig: RoomConfig{Limit: 1}}}}
	b, err := w.hub.Slide(ctx, req)
	a := &slidingAnswer{}
	if err == nil {
		err = json.Unmarshal(b, a)
	}
	return a, err
}

// A device has so many connections, and each ends when nobody asks for a while.
func TestConnectionsEnd(t *testing.T) {
	w := open(t)
	w.create(alice, "shared")
	var all []*slidingAnswer
	for i := range maxConns + 1 {
		a, err := w.slide(fmt.Sprint(i), "")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
		w.clock.Advance(time.Second)
	}
	if _, err := w.slide("0", all[0].Pos); !errors.Is(err, ErrUnknownPosition) {
		t.Errorf("the oldest connection: %v", err)
	}
	a, err := w.slide("1", all[1].Pos)
	if err != nil || len(a.Rooms) != 0 {
		t.Errorf("the second: %v %v", a, err)
	}
	w.hub.sliding.expire(w.clock.Now().Add(idleConn - time.Second))
	if a, err = w.slide("1", a.Pos); err != nil {
		t.Errorf("not idle for long: %v", err)
	}
	w.hub.sliding.expire(w.clock.Now().Add(idleConn + time.Second))
	if _, err := w.slide("1", a.Pos); !errors.Is(err, ErrUnknownPosition) {
		t.Errorf("idle: %v", err)
	}
	s := &w.hub.sliding
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.count != 0 || len(s.mu.devices) != 0 {
		t.Errorf("%d connections are left of %d devices", s.mu.count, len(s.mu.devices))
	}
}

// Positions that were given out are not kept: two are, however many there were.
func TestConnectionsDoNotGrow(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	a, err := w.slide("", "")
	for i := range 50 {
		if err != nil {
			t.Fatal(err)
		}
		w.say(r, alice, fmt.Sprint(i))
		a, err = w.slide("", a.Pos)
	}
	c := w.hub.sliding.mu.devices[deviceKey{alice, "D"}][""]
	if len(c.mu.base.rooms) != 1 || len(c.mu.next.rooms) != 1 || len(c.mu.base.lazy)+len(c.mu.next.lazy) > 2 || len(c.mu.states) != 1 {
		t.Errorf("a connection keeps %d and %d rooms, %d members, %d states", len(c.mu.base.rooms), len(c.mu.next.rooms), len(c.mu.base.lazy), len(c.mu.states))
	}
	// Rooms that nobody looks at are forgotten beyond the bound.
	for i := range maxSentRooms {
		c.mu.base.rooms[ids.RoomID(fmt.Sprint("!", i))] = &sentRoom{}
	}
	if _, err = w.slide("", a.Pos); err != nil || len(c.mu.base.rooms) != 1 {
		t.Errorf("%d rooms are left: %v", len(c.mu.base.rooms), err)
	}
}
