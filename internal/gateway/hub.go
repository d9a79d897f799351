package gateway

import (
	"sync"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// maxUserSockets bounds the sockets of one user: far more devices than people
// have, few enough that one account cannot fill a node.
const maxUserSockets = 100

// wheelSlots divides the wheel's round, so that its work is spread out.
const wheelSlots = 20

// hub knows all sessions of the node: by slot of the wheel, and by user. A
// session's slot, index and user links are guarded by the hub's mutex.
type hub struct {
	max int
	mu  struct {
		sync.Mutex
		shut  bool
		n     int
		turn  uint8 // the slot of the next session
		slots [wheelSlots][]*session
		users map[ids.UserID]*session // the newest of each
	}
}

func (h *hub) init(limit int) {
	h.max = limit
	h.mu.users = make(map[ids.UserID]*session)
}

// add registers a session unless the node is full or shutting down. admitted is
// called in the same step, so that Shutdown either waits for the session or it does
// not come to be.
func (h *hub) add(s *session, admitted func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.shut || h.mu.n >= h.max {
		return false
	}
	s.slot = h.mu.turn
	h.mu.turn = (h.mu.turn + 1) % wheelSlots
	s.index = int32(len(h.mu.slots[s.slot]))
	h.mu.slots[s.slot] = append(h.mu.slots[s.slot], s)
	h.mu.n++
	admitted()
	return true
}

// full reports whether add would refuse.
func (h *hub) full() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.shut || h.mu.n >= h.max
}

func (h *hub) remove(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slot := h.mu.slots[s.slot]
	last := slot[len(slot)-1]
	slot[s.index], last.index = last, s.index
	slot[len(slot)-1] = nil
	h.mu.slots[s.slot] = slot[:len(slot)-1]
	h.mu.n--
}

// signIn adds a session to its user's. If that makes too many, the oldest is
// returned, to be closed.
func (h *hub) signIn(s *session, user ids.UserID) *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.older = h.mu.users[user]
	if s.older != nil {
		s.older.newer = s
	}
	h.mu.users[user] = s
	oldest, n := s, 1
	for ; oldest.older != nil; oldest = oldest.older {
		n++
	}
	if n <= maxUserSockets {
		return nil
	}
	h.unlinkLocked(oldest, user)
	return oldest
}

// signOut takes a session out of those of the user, "" for none, whose it is, if it is there.
func (h *hub) signOut(s *session, user ids.UserID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.newer != nil || h.mu.users[user] == s {
		h.unlinkLocked(s, user)
	}
}

func (h *hub) unlinkLocked(s *session, user ids.UserID) {
	if s.older != nil {
		s.older.newer = s.newer
	}
	switch {
	case s.newer != nil:
		s.newer.older = s.older
	case s.older != nil:
		h.mu.users[user] = s.older
	default:
		delete(h.mu.users, user)
	}
	s.older, s.newer = nil, nil
}

// ofUser are the sessions of a user, the newest first.
func (h *hub) ofUser(user ids.UserID) []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*session
	for s := h.mu.users[user]; s != nil; s = s.older {
		all = append(all, s)
	}
	return all
}

// inSlot appends the sessions of one slot to into.
func (h *hub) inSlot(slot int, into []*session) []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(into, h.mu.slots[slot]...)
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.n
}

// shut lets no session in any more and returns those that are there.
func (h *hub) shut() []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.shut = true
	return h.allLocked()
}

// all are the sessions that are there.
func (h *hub) all() []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.allLocked()
}

func (h *hub) allLocked() []*session {
	var all []*session
	for _, slot := range h.mu.slots {
		all = append(all, slot...)
	}
	return all
}
