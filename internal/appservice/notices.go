package appservice

import (
	"context"
	"crypto/rand"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// noticeQueue is how many notices wait for one service. More are lost, which is
	// what they may be.
	noticeQueue = 256
	// noticeTimeout bounds passing notices on: later they are not true.
	noticeTimeout = 5 * time.Second
)

// notice is what is not in the log: who types in a room or, if user is set, how
// present a user is.
type notice struct {
	room   ids.RoomID
	typing []ids.UserID

	user  ids.UserID
	event jsontext.Value
	rooms []ids.RoomID // of the user
}

// Typing tells who types in a room now. It does not wait; a notice too many is lost.
func (s *Sender) Typing(r ids.RoomID, users []ids.UserID) {
	s.notify(notice{room: r, typing: users})
}

// Present tells how present a user is who is in rooms, as an m.presence event. It
// does not wait; a notice too many is lost.
func (s *Sender) Present(u ids.UserID, event []byte, rooms []ids.RoomID) {
	s.notify(notice{user: u, event: event, rooms: rooms})
}

func (s *Sender) notify(n notice) {
	if s == nil {
		return
	}
	for _, l := range s.lines {
		if !l.svc.Ephemeral {
			continue
		}
		select {
		case l.notices <- n:
		default:
		}
	}
}

// noticeLoop passes notices on. They are not stored: a service that does not take
// one at once has missed it.
func (l *line) noticeLoop() {
	for {
		select {
		case n := <-l.notices:
			typing, present := make(map[ids.RoomID]notice), make(map[ids.UserID]notice)
			for more := len(l.notices); ; more-- {
				if n.user != "" {
					present[n.user] = n
				} else {
					typing[n.room] = n
				}
				if more == 0 {
					break
				}
				n = <-l.notices
			}
			l.tell(l.sender.ctx, typing, present)
		case <-l.sender.ctx.Done():
			return
		}
	}
}

// tell sends the last notice of each room and user, unless something else is on its
// way for long.
func (l *line) tell(ctx context.Context, typing map[ids.RoomID]notice, present map[ids.UserID]notice) {
	t := &draft{}
	for id, n := range typing {
		if l.wants(ctx, id) {
			t.typing(id, n.typing)
		}
	}
	for u, n := range present {
		if l.svc.HasUser(u) || slices.ContainsFunc(n.rooms, func(id ids.RoomID) bool { return l.wants(ctx, id) }) {
			t.add(&t.ephemeral, n.event)
		}
	}
	if t.items() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-l.turn }()
	if err := l.attempt(ctx, &outgoing{txn: "notice-" + rand.Text(), body: t.body(l.svc)}); err != nil {
		l.log.Debug("pass notices on", "error", err)
	}
}

// wants reports whether the service is interested in a room of this node now. All
// nodes learn of notices, and each passes on those of its rooms.
func (l *line) wants(ctx context.Context, id ids.RoomID) bool {
	p := ids.PartitionOf(string(id), l.sender.opts.Count)
	if !l.sender.opts.Owns(p) {
		return false
	}
	in, err := l.parts[p].rooms.now(ctx, id)
	if err != nil {
		l.log.Debug("pass notices on", "room", id, "error", err)
	}
	return in.any()
}

// now returns the present interest in a room. What it finds is not what the events
// of the log are judged by, which may be behind; that there is none is remembered
// until the first event, so that people who type in a large room are not looked
// at again and again.
func (k *known) now(ctx context.Context, id ids.RoomID) (interest, error) {
	k.mu.Lock()
	in, ok := k.mu.of[id]
	_, quiet := k.mu.quiet[id]
	k.mu.Unlock()
	if ok || quiet {
		return in, nil
	}
	in, err := k.look(ctx, id, math.MaxInt64)
	if err != nil || in.any() {
		return in, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.quiet == nil || len(k.mu.quiet) >= maxKnownRooms {
		k.mu.quiet = make(map[ids.RoomID]struct{})
	}
	k.mu.quiet[id] = struct{}{}
	return in, nil
}
