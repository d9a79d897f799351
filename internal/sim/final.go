package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/test/history"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// firstRooms are the rooms that all are in when the faults begin.
const firstRooms = 2

// populate makes users, devices and rooms, while all is well.
func (w *world) populate() {
	for i := range w.opts.Users {
		u := &user{w: w, id: userID(i), n: i, dice: newDice(w.seed, fmt.Sprint("user ", i))}
		w.users = append(w.users, u)
		w.must(u, func(n *node) error {
			_, err := do[any](w, n, account.NewRegister(u.id, account.Account{}, "", &account.Session{Device: devices[0]}))
			return err
		})
		w.must(u, func(n *node) error {
			_, err := do[any](w, n, account.NewLogin(u.id, account.Session{Device: devices[1]}, ""))
			return err
		})
		u.upload()
		for _, d := range devices {
			w.newStream(u.id, d)
		}
	}
	for range firstRooms {
		w.users[0].create()
	}
	for _, r := range w.board.all() {
		for _, u := range w.users[1:] {
			u.join(r)
		}
	}
}

// must does what fails for the weather only, again and again.
func (w *world) must(u *user, fn func(n *node) error) {
	for range attempts {
		if err := fn(w.pick(u.dice)); err == nil || definite(err) { // done, or done before
			return
		}
		time.Sleep(u.dice.between(0, retryTime))
	}
	w.rec.Note("C0 the deployment does not begin to work")
}

const (
	fencePrefix = "fence-"
	// settled is how long all may take to be told of the end once it is healed:
	// leases end, nodes that withdrew come back, streams read what they missed.
	settled = 2 * time.Minute
)

// fence brings all users into all rooms and sends a last message to each, and waits
// until every stream has seen them.
func (w *world) fence() {
	for _, r := range w.board.all() {
		for _, u := range w.users {
			w.enter(u, r)
		}
	}
	var marks []string
	for i, r := range w.board.all() {
		op, cmd := w.users[0].messageTo(r, fmt.Sprint(fencePrefix, i))
		w.users[0].sendOne(op, cmd)
		marks = append(marks, op.Mark)
	}
	deadline := time.Now().Add(settled)
	for _, s := range w.streams {
		from := s.responses()
		seen := func() bool {
			for _, m := range marks {
				if !s.saw(m) {
					return false
				}
			}
			// One more that came as a whole after all was said: of keys and messages.
			return s.responses() > from+1
		}
		for !seen() && time.Now().Before(deadline) {
			time.Sleep(100 * time.Millisecond)
		}
		if !seen() {
			w.rec.Note("C5 %s %s never saw the end", s.user, s.device)
		}
		s.s.Ended = true
	}
}

// enter joins until the user is in.
func (w *world) enter(u *user, r ids.RoomID) {
	for range attempts {
		if m, in := w.memberOf(r, u.id); in || m == event.Ban {
			return
		}
		if op := u.join(r); op.Outcome != history.OK {
			time.Sleep(u.dice.between(0, retryTime))
		}
	}
	w.rec.Note("C0 %s cannot join %s", u.id, r)
}

func (w *world) memberOf(r ids.RoomID, u ids.UserID) (event.Membership, bool) {
	s, err := room.NewReader(w.db.inner, w.opts.Partitions).StateEvent(w.ctx, r, event.TypeMember, string(u))
	if err != nil || s == nil {
		return "", false
	}
	m := s.Member().Membership
	return m, m == event.Join
}

// readAll reads what there is at the end, through each node.
func (w *world) readAll() {
	h := w.rec.History()
	h.Final = history.Final{Rooms: map[string]*history.Room{}, Data: map[string]int{}}
	for i, u := range w.users {
		s := &stream{w: w, user: u.id, device: "reader", dice: u.dice}
		n := w.node(i % w.opts.Nodes)
		raw, err := s.sync(w.ctx, n, "", maxTimeline, 0)
		var b body
		if err == nil {
			err = json.Unmarshal(raw, &b)
		}
		if err != nil {
			w.rec.Note("C7 the first sync of %s was answered %v", u.id, err)
			continue
		}
		for _, id := range sorted(b.Rooms.Join) {
			w.readRoom(h, u, id, b.Rooms.Join[id])
		}
	}
}

// maxTimeline is what one timeline may hold; longer rooms are read from the store.
const maxTimeline = 1000

func (w *world) readRoom(h *history.History, u *user, id string, sec section) {
	final := h.Final.Rooms[id]
	if final == nil {
		final = &history.Room{States: map[string][]history.Event{}, Receipts: map[string]string{}, Unread: map[string]history.Unread{}}
		final.Walks = []history.Walk{{Reader: "store", Dir: "f", Events: w.timeline(id, 0, 1<<40)}}
		final.States["store"] = w.stateOf(id)
		h.Final.Rooms[id] = final
	}
	if !sec.Timeline.Limited {
		final.Walks = append(final.Walks, history.Walk{Reader: string(u.id), Dir: "sync", Events: history.ParseEvents(sec.Timeline.Events)})
	}
	if sec.Unread != nil {
		final.Unread[string(u.id)] = *sec.Unread
	}
	for _, raw := range sec.Ephemeral.Events {
		var e struct {
			Type    string                               `json:"type"`
			Content map[string]map[string]map[string]any `json:"content"`
		}
		if json.Unmarshal(raw, &e) != nil || e.Type != "m.receipt" {
			continue
		}
		for _, target := range sorted(e.Content) {
			for user := range e.Content[target]["m.read"] {
				final.Receipts[user] = target
			}
		}
	}
}

// stateOf is the state of a room as the store has it.
func (w *world) stateOf(id string) (state []history.Event) {
	r := room.NewReader(w.db.inner, w.opts.Partitions)
	err := r.WalkState(w.ctx, ids.RoomID(id), "", func(s *room.Stored) bool {
		state = append(state, history.ParseEvent(s.AppendClient(nil, room.Viewer{})))
		return true
	})
	if err != nil {
		w.rec.Note("C7 the state of %s cannot be read: %v", id, err)
	}
	return state
}
