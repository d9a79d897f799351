package feed

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// typingSubject carries typing notices between nodes. They are a hint in every
// sense: not stored, not ordered, lost without harm.
const typingSubject = "typing"

// MaxTyping bounds how long one notice lasts. spec: client-server §Typing
// Notifications; the bound keeps a crashed client from typing for ever.
const MaxTyping = 120 * time.Second

// TypingNotice says that a user types, or (Until zero) no longer does.
type TypingNotice struct {
	Room  ids.RoomID
	User  ids.UserID
	Until time.Time
	// Node is where the notice was taken.
	Node ids.NodeID
}

var _ bus.Payload = (*TypingNotice)(nil)

// MarshalBinary implements bus.Payload.
func (n *TypingNotice) MarshalBinary() ([]byte, error) { return json.Marshal(n) }

// typing is who types where, as far as this node knows.
type typing struct {
	hub *Hub
	sub bus.Subscription

	mu struct {
		sync.Mutex
		serial uint64
		rooms  map[ids.RoomID]*typingRoom
	}
}

type typingRoom struct {
	until   map[ids.UserID]time.Time
	changed uint64 // serial
	// at is the time of the last change.
	at time.Time
}

// keepTyping is for how long it is remembered that nobody types in a room any
// more: clients that were told of someone and were away since learn that it is
// over, if they are back by then.
const keepTyping = 10 * time.Minute

func (t *typing) init(h *Hub) {
	t.hub = h
	t.mu.rooms = make(map[ids.RoomID]*typingRoom)
}

func (t *typing) subscribe() error {
	sub, err := t.hub.opts.Bus.Subscribe(typingSubject, func(p bus.Payload) {
		n, ok := p.(*TypingNotice)
		if raw, isRaw := p.(bus.Raw); isRaw {
			n = &TypingNotice{}
			ok = json.Unmarshal(raw, n) == nil
		}
		if ok && n.Node != t.hub.opts.Node {
			t.set(n)
		}
	})
	if err != nil {
		return fmt.Errorf("follow typing: %w", err)
	}
	t.sub = sub
	return nil
}

func (t *typing) close() {
	if t.sub != nil {
		t.sub.Close()
	}
}

// Type takes a notice from a client of this node.
func (h *Hub) Type(n TypingNotice) error {
	n.Node = h.opts.Node
	h.typing.set(&n)
	return h.opts.Bus.Publish(typingSubject, &n)
}

func (t *typing) set(n *TypingNotice) {
	t.mu.Lock()
	r := t.mu.rooms[n.Room]
	if r == nil {
		r = &typingRoom{until: make(map[ids.UserID]time.Time)}
		t.mu.rooms[n.Room] = r
	}
	_, was := r.until[n.User]
	if n.Until.IsZero() {
		delete(r.until, n.User)
	} else {
		r.until[n.User] = n.Until
	}
	changed := was == n.Until.IsZero()
	if changed {
		t.mu.serial++
		r.changed, r.at = t.mu.serial, t.hub.opts.Clock.Now()
	}
	t.mu.Unlock()
	if changed {
		t.wake(n.Room)
	}
}

// expire ends notices that ran out.
func (t *typing) expire(now time.Time) {
	var changed []ids.RoomID
	t.mu.Lock()
	for id, r := range t.mu.rooms {
		before := len(r.until)
		if before == 0 {
			if now.Sub(r.at) > keepTyping {
				delete(t.mu.rooms, id)
			}
			continue
		}
		for u, until := range r.until {
			if !now.Before(until) {
				delete(r.until, u)
			}
		}
		if len(r.until) != before {
			t.mu.serial++
			r.changed, r.at = t.mu.serial, now
			changed = append(changed, id)
		}
	}
	t.mu.Unlock()
	for _, id := range changed {
		t.wake(id)
	}
}

// wake tells the views in a room's audience who types. Sessions that are live are
// handed a frame, without a position: it is no part of any log.
func (t *typing) wake(r ids.RoomID) {
	if also := t.hub.opts.Typing; also != nil {
		also(r, t.users(r))
	}
	s := t.hub.shardOf(string(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mu.rooms[r]
	if a == nil {
		return
	}
	// Under the lock, so that the last frame tells the last of the notices.
	users := t.users(r)
	shared := typingFrame(r, users)
	for _, st := range a.seats {
		st.view.typingChanged(r, users, shared)
	}
}

// users lists who types in a room.
func (t *typing) users(r ids.RoomID) []ids.UserID {
	now := t.hub.opts.Clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.mu.rooms[r]
	if tr == nil {
		return nil
	}
	var users []ids.UserID
	for u, until := range tr.until {
		if now.Before(until) {
			users = append(users, u)
		}
	}
	slices.Sort(users)
	return users
}

func typingFrame(r ids.RoomID, users []ids.UserID) []byte {
	b := event.AppendString([]byte(`{"op":"sync","rooms":{"join":{`), r)
	b = append(b, `:{"ephemeral":{"events":[`...)
	return append(appendTyping(b, users), `]}}}}}`...)
}

func appendTyping(b []byte, users []ids.UserID) []byte {
	b = appendUsers(append(b, `{"content":{"user_ids":`...), users)
	return append(b, `},"type":"m.typing"}`...)
}

// typingChanged is called by a shard, which is locked. shared is the frame for
// those who ignore none of the users.
func (v *view) typingChanged(r ids.RoomID, users []ids.UserID, shared []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ur := v.roomLocked(r)
	if ur == nil || ur.left > ur.roomSeq {
		return
	}
	if !ur.counts.fresh { // no response looked yet whether the user is still in the room
		v.bumpLocked()
		return
	}
	v.wakePollersLocked()
	frame := shared
	if heard := slices.DeleteFunc(slices.Clone(users), v.ignoresLocked); len(heard) < len(users) {
		frame = typingFrame(r, heard)
	}
	for _, s := range v.mu.sessions {
		s.typing(r, frame)
	}
}

// next draws the number of a notice.
func (t *typing) next() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.serial++
	return t.mu.serial
}

// serial is the number of the last notice.
func (t *typing) serial() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.serial
}

// event returns the m.typing event of a room for a client that has seen the
// notices up to a number of this node; nil if it has nothing to learn. known is
// false if it has seen none of this node's.
func (t *typing) event(r ids.RoomID, seen uint64, known bool, ignored func(ids.UserID) bool) []byte {
	t.mu.Lock()
	tr := t.mu.rooms[r]
	nothing := tr == nil || known && tr.changed <= seen
	t.mu.Unlock()
	if nothing {
		return nil
	}
	users := slices.DeleteFunc(t.users(r), ignored)
	if !known && len(users) == 0 {
		return nil
	}
	return appendTyping(nil, users)
}

// changedAnywhere lists all rooms whose notices changed after a number. ok is false if
// there are more rooms with notices than limit: then whoever knows as many looks at their
// own.
func (t *typing) changedAnywhere(seen uint64, limit int) (changed map[ids.RoomID]bool, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.serial <= seen {
		return nil, true
	}
	if len(t.mu.rooms) > limit {
		return nil, false
	}
	for id, r := range t.mu.rooms {
		if r.changed > seen {
			if changed == nil {
				changed = make(map[ids.RoomID]bool)
			}
			changed[id] = true
		}
	}
	return changed, true
}

// changedRooms lists the rooms, of those given, whose notices changed after a number.
func (t *typing) changedRooms(rooms []roomState, seen uint64, known bool) map[ids.RoomID]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.rooms) == 0 || known && t.mu.serial <= seen {
		return nil
	}
	out := make(map[ids.RoomID]bool)
	for i := range rooms {
		if tr := t.mu.rooms[rooms[i].id]; tr != nil && (!known || tr.changed > seen) {
			out[rooms[i].id] = true
		}
	}
	return out
}
