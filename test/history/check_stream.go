package history

import "maps"

// cursor is how far a stream is in a room.
type cursor struct {
	at    int // position of the last event, -1 before the first
	state map[stateKey]string
	// unread is what was told last.
	unread *Unread
}

// stream is C5.
func (c *checker) stream(s *Stream) {
	rooms := map[string]*cursor{}
	data := map[string]int{}
	for i := range s.Parts {
		p := &s.Parts[i]
		for key, n := range p.Data {
			if n < data[key] {
				c.breach("C5 %s %s: %s went back from %d to %d", s.Transport, s.User, key, data[key], n)
			}
			data[key] = n
		}
		r := c.rooms[p.Room]
		if r == nil || p.Section == "invite" {
			continue
		}
		cur := rooms[p.Room]
		if cur == nil {
			cur = &cursor{at: -1, state: map[stateKey]string{}}
			rooms[p.Room] = cur
		}
		if !c.advance(s, r, cur, p) {
			return // one breach of a stream is enough, the rest follows from it
		}
	}
	if s.Ended {
		c.caughtUp(s, rooms)
	}
}

// advance follows one part.
func (c *checker) advance(s *Stream, r *roomOrder, cur *cursor, p *Part) bool {
	rejoin := c.rejoins(s, r, cur, p)
	if rejoin {
		cur.state = map[stateKey]string{}
	}
	for _, e := range p.State {
		if _, ok := r.pos[e.ID]; !ok {
			c.breach("C5 %s %s in %s was told of state that is not there: %s", s.Transport, s.User, r.id, e.Body)
			return false
		}
		if e.StateKey != nil {
			cur.state[stateKey{e.Type, *e.StateKey}] = e.ID
		}
	}
	overlap := rejoin
	for i, e := range append(append([]Event(nil), p.Fill...), p.Events...) {
		at, ok := r.pos[e.ID]
		switch {
		case !ok:
			c.breach("C5 %s %s in %s was told of what is not there: %s", s.Transport, s.User, r.id, e.Body)
			return false
		case cur.at < 0 || at == cur.at+1:
		case at > cur.at && c.declines(s, r, cur, p):
		case at <= cur.at && !overlap:
			c.breach("C5 %s %s in %s: %s at %d again, after %d", s.Transport, s.User, r.id, e.ID, at, cur.at)
			return false
		case at > cur.at+1:
			c.breach("C5 %s %s in %s: a gap from %d to %d (limited %v)", s.Transport, s.User, r.id, cur.at, at, p.Limited)
			return false
		}
		overlap = overlap && i == 0 // what follows the first must follow it
		cur.at = at
		if known := &r.events[at]; known.Body != e.Body && !known.Redacted {
			c.breach("C5 %s %s in %s: %s was %s and is %s", s.Transport, s.User, r.id, e.ID, e.Body, known.Body)
			return false
		}
		if e.StateKey != nil && i >= len(p.Fill) {
			cur.state[stateKey{e.Type, *e.StateKey}] = e.ID
		}
	}
	if p.Unread != nil {
		cur.unread = p.Unread
	}
	return c.endsWithLeave(s, r, cur, p)
}

// rejoins reports whether the user left and came back before the end of a part:
// then the room is told of as if it were new.
func (c *checker) rejoins(s *Stream, r *roomOrder, cur *cursor, p *Part) bool {
	if p.Section != "join" || cur.at < 0 || len(p.Events) == 0 {
		return false
	}
	if membershipAt(r, s.User, cur.at) != "join" {
		return true
	}
	end := r.pos[p.Events[len(p.Events)-1].ID]
	for _, i := range r.member[s.User] {
		if i > cur.at && i <= end && r.events[i].Membership != "join" {
			return true
		}
	}
	return false
}

// declines reports whether a part tells of the end of an invite: what happened
// before it is none of the invited's business.
func (c *checker) declines(s *Stream, r *roomOrder, cur *cursor, p *Part) bool {
	return p.Section == "leave" && membershipAt(r, s.User, cur.at) != "join"
}

// endsWithLeave: who left is told nothing that came after.
func (c *checker) endsWithLeave(s *Stream, r *roomOrder, cur *cursor, p *Part) bool {
	if p.Section != "leave" || len(p.Events) == 0 {
		return true
	}
	e := p.Events[len(p.Events)-1]
	if e.Type == "m.room.member" && e.StateKey != nil && *e.StateKey == s.User && e.Membership != "join" {
		return true
	}
	c.breach("C5 %s %s in %s: told of %d, which is not their leave, after leaving", s.Transport, s.User, r.id, cur.at)
	return false
}

// caughtUp: at the end a stream is where its rooms are, with their state.
func (c *checker) caughtUp(s *Stream, rooms map[string]*cursor) {
	for id, r := range c.rooms {
		last := len(r.events) - 1
		if membershipAt(r, s.User, last) != "join" {
			continue
		}
		cur := rooms[id]
		switch {
		case cur == nil:
			c.breach("C5 %s %s was never told of %s", s.Transport, s.User, id)
		case cur.at != last:
			c.breach("C5 %s %s in %s: stands at %d, the end is %d", s.Transport, s.User, id, cur.at, last)
		default:
			if want := foldOf(r.events); !maps.Equal(cur.state, want) {
				c.breach("C7 %s %s in %s: state differs: %s", s.Transport, s.User, id, difference(cur.state, want))
			}
			if want, ok := c.h.Final.Rooms[id].Unread[s.User]; ok && (cur.unread == nil || *cur.unread != want) {
				c.breach("C7 %s %s in %s: was told %v is unread, a first sync says %v", s.Transport, s.User, id, cur.unread, want)
			}
		}
	}
}
