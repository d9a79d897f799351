package appservice

import (
	"context"
	"crypto/rand"
	"math"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// typingQueue is how many typing notices wait for one service. More are lost,
	// which is what typing notices may be.
	typingQueue = 256
	// typingTimeout bounds passing typing notices on: later they are not true.
	typingTimeout = 5 * time.Second
)

type typingNotice struct {
	room  ids.RoomID
	users []ids.UserID
}

// Typing tells who types in a room now. It does not wait; a notice too many is lost.
func (s *Sender) Typing(r ids.RoomID, users []ids.UserID) {
	if s == nil {
		return
	}
	for _, l := range s.lines {
		if !l.svc.Ephemeral {
			continue
		}
		select {
		case l.typing <- typingNotice{r, users}:
		default:
		}
	}
}

// typingLoop passes typing notices on. They are not stored: a service that does not
// take one at once has missed it.
func (l *line) typingLoop() {
	for {
		select {
		case n := <-l.typing:
			latest := map[ids.RoomID][]ids.UserID{n.room: n.users}
			for range len(l.typing) {
				n = <-l.typing
				latest[n.room] = n.users
			}
			l.tellTyping(l.sender.ctx, latest)
		case <-l.sender.ctx.Done():
			return
		}
	}
}

// tellTyping sends typing notices, unless something else is on its way for long.
func (l *line) tellTyping(ctx context.Context, latest map[ids.RoomID][]ids.UserID) {
	t := &draft{}
	for id, users := range latest {
		p := ids.PartitionOf(string(id), l.sender.opts.Count)
		if !l.sender.opts.Owns(p) {
			continue
		}
		in, err := l.parts[p].rooms.now(ctx, id)
		if err != nil {
			l.log.Debug("typing", "room", id, "error", err)
			continue
		}
		if in.any() {
			t.typing(id, users)
		}
	}
	if t.items() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, typingTimeout)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-l.turn }()
	if err := l.attempt(ctx, &outgoing{txn: "typing-" + rand.Text(), body: t.body(l.svc)}); err != nil {
		l.log.Debug("typing", "error", err)
	}
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
