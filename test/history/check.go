package history

import (
	"fmt"
	"math"
	"slices"
)

// checker judges one history.
type checker struct {
	h *History
	// byEvent are the operations by the event that was answered, byMark all that
	// write events or rooms.
	byEvent, byMark map[string]*Op
	rooms           map[string]*roomOrder
	breaches        []string
}

// roomOrder is a room's timeline and where things stand in it.
type roomOrder struct {
	id     string
	events []Event
	pos    map[string]int // by event ID
	marks  map[string]int // by mark
	// created is how many events came with the room.
	created int
	// member are the positions of member events by user.
	member map[string][]int
}

// Check returns what broke the promises, each with the letter of its check.
func Check(h *History) []string {
	c := &checker{h: h, byEvent: map[string]*Op{}, byMark: map[string]*Op{}, rooms: map[string]*roomOrder{}}
	c.breaches = append(c.breaches, h.Noted...)
	for _, op := range h.Ops {
		if op.EventID != "" {
			if other := c.byEvent[op.EventID]; other != nil {
				c.breach("C3 %s was answered to %v and to %v", op.EventID, other, op)
			}
			c.byEvent[op.EventID] = op
		}
		if op.writesEvents() {
			c.byMark[op.Mark] = op
		}
	}
	for id, r := range h.Final.Rooms {
		c.oneOrder(id, r)
	}
	for _, r := range c.rooms {
		c.askedFor(r)
		c.realTime(r)
		c.fold(r, h.Final.Rooms[r.id])
	}
	c.acknowledged()
	c.roomsWhole()
	for _, s := range h.Streams {
		c.stream(s)
	}
	c.values()
	c.receipts()
	c.tokens()
	slices.Sort(c.breaches)
	return c.breaches
}

func (c *checker) breach(format string, args ...any) {
	c.breaches = append(c.breaches, fmt.Sprintf(format, args...))
}

// String names an operation in reports.
func (op *Op) String() string {
	return fmt.Sprintf("op %d (%s %s by %s, %s)", op.ID, op.Kind, op.Mark, op.User, op.Outcome)
}

func (op *Op) writesEvents() bool {
	switch op.Kind {
	case Send, State, Redact, Join, Leave, Kick, Invite, Create:
		return true
	}
	return false
}

func (op *Op) membership() bool {
	switch op.Kind {
	case Join, Leave, Kick, Invite:
		return true
	}
	return false
}

// subject is whose membership an operation changes, and to what.
func (op *Op) subject() (user, membership string) {
	switch op.Kind {
	case Join:
		return op.User, "join"
	case Leave:
		return op.User, "leave"
	case Kick:
		return op.Target, "leave"
	default:
		return op.Target, "invite"
	}
}

// oneOrder is C4, and takes the common order.
func (c *checker) oneOrder(id string, r *Room) {
	if len(r.Walks) == 0 {
		return
	}
	first := r.Walks[0]
	for _, w := range r.Walks[1:] {
		if len(w.Events) != len(first.Events) {
			c.breach("C4 %s: %s/%s reads %d events, %s/%s reads %d", id, first.Reader, first.Dir, len(first.Events), w.Reader, w.Dir, len(w.Events))
			continue
		}
		for i := range w.Events {
			if w.Events[i].Body != first.Events[i].Body {
				c.breach("C4 %s at %d: %s/%s reads %s, %s/%s reads %s", id, i,
					first.Reader, first.Dir, first.Events[i].Body, w.Reader, w.Dir, w.Events[i].Body)
				break
			}
		}
	}
	o := &roomOrder{id: id, events: first.Events, pos: map[string]int{}, marks: map[string]int{}, member: map[string][]int{}}
	for i, e := range o.events {
		if _, twice := o.pos[e.ID]; twice {
			c.breach("C3 %s: %s is there twice", id, e.ID)
		}
		o.pos[e.ID] = i
		if e.Type == "m.room.member" && e.StateKey != nil {
			o.member[*e.StateKey] = append(o.member[*e.StateKey], i)
		}
	}
	o.created = creation(o.events)
	for i := o.created; i < len(o.events); i++ {
		m := o.events[i].Mark
		if m == "" {
			continue
		}
		if at, twice := o.marks[m]; twice {
			c.breach("C3 %s: %s is there at %d and at %d", id, m, at, i)
		}
		o.marks[m] = i
	}
	c.rooms[id] = o
}

// creation counts the events that came with the room: those of its creator of
// which no operation but the creation carries the mark.
func creation(events []Event) int {
	if len(events) == 0 || events[0].Type != "m.room.create" {
		return 0
	}
	mark := events[0].Mark
	n := 0
	for n < len(events) && events[n].Sender == events[0].Sender && (events[n].Mark == mark || events[n].Mark == "") && events[n].StateKey != nil {
		n++
	}
	return n
}

// askedFor is C2: every event belongs to an operation that may have happened.
func (c *checker) askedFor(r *roomOrder) {
	for i, e := range r.events {
		if i < r.created {
			continue
		}
		op := c.byEvent[e.ID]
		if op == nil {
			op = c.byMark[e.Mark]
		}
		switch {
		case op == nil && c.renamed(&e):
		case op == nil:
			c.breach("C2 %s at %d: nobody asked for %s", r.id, i, e.Body)
		case op.Outcome == Fail:
			c.breach("C2 %s at %d: %s was refused with %d, but is there as %s", r.id, i, op, op.Status, e.ID)
		case op.Room != r.id || op.User != e.Sender:
			c.breach("C2 %s at %d: %s went elsewhere: %s", r.id, i, op, e.Body)
		}
	}
}

// renamed reports whether an event is a member event that a change of a display
// name made.
func (c *checker) renamed(e *Event) bool {
	return e.Type == "m.room.member" && e.Membership == "join" && e.StateKey != nil && *e.StateKey == e.Sender && e.Name != ""
}

// acknowledged is C1 for events, and C3 for answers to repeated requests.
func (c *checker) acknowledged() {
	for _, op := range c.h.Ops {
		for _, a := range op.Answers {
			if a != op.EventID {
				c.breach("C3 %s was answered %s and then %s", op, op.EventID, a)
			}
		}
		r := c.rooms[op.Room]
		if op.Outcome != OK || !op.writesEvents() || op.Kind == Create || r == nil {
			continue
		}
		if op.membership() {
			c.memberAcknowledged(r, op)
			continue
		}
		i, ok := r.pos[op.EventID]
		if !ok {
			c.breach("C1 %s was acknowledged as %s and is not there", op, op.EventID)
			continue
		}
		e := &r.events[i]
		switch {
		case e.Sender != op.User || e.Type != op.Type:
			c.breach("C1 %s became %s", op, e.Body)
		case e.Mark != op.Mark && !e.Redacted:
			c.breach("C1 %s lost its content: %s", op, e.Body)
		case op.Kind == Redact:
			if t, ok := r.pos[op.Target]; ok && !r.events[t].Redacted {
				c.breach("C1 %s was acknowledged, but %s is not redacted", op, op.Target)
			}
		}
	}
}

// memberAcknowledged: the event is there, or there was nothing to do.
func (c *checker) memberAcknowledged(r *roomOrder, op *Op) {
	user, want := op.subject()
	if i, ok := r.marks[op.Mark]; ok {
		if e := &r.events[i]; *e.StateKey != user || e.Membership != want {
			c.breach("C1 %s became %s", op, e.Body)
		}
		return
	}
	low, high := c.window(r, op)
	if membershipAt(r, user, low) == want {
		return
	}
	for _, i := range r.member[user] {
		if i > low && i < high && r.events[i].Membership == want {
			return
		}
	}
	c.breach("C1 %s was acknowledged, and %s is not %s anywhere between %d and %d", op, user, want, low, high)
}

// window returns the positions between which an operation took place.
func (c *checker) window(r *roomOrder, op *Op) (low, high int) {
	high = len(r.events)
	for i := range r.events {
		other := c.opOf(r, i)
		if other == nil || other == op {
			continue
		}
		if other.Outcome == OK && other.Return < op.Invoke {
			low = i
		}
		if other.Invoke > op.Return {
			high = min(high, i)
		}
	}
	return low, high
}

func (c *checker) opOf(r *roomOrder, i int) *Op {
	if op := c.byEvent[r.events[i].ID]; op != nil {
		return op
	}
	if i < r.created {
		return nil
	}
	return c.byMark[r.events[i].Mark]
}

// membershipAt is a user's membership after the event at a position.
func membershipAt(r *roomOrder, user string, at int) string {
	m := ""
	for _, i := range r.member[user] {
		if i > at {
			break
		}
		m = r.events[i].Membership
	}
	return m
}

// realTime is C6: read backwards, nothing may have been answered before what
// stands in front of it was asked.
func (c *checker) realTime(r *roomOrder) {
	seen := c.firstSeen(r)
	earliest, which := int64(math.MaxInt64), -1
	for i := len(r.events) - 1; i >= r.created; i-- {
		op := c.opOf(r, i)
		if op == nil {
			continue
		}
		if op.Invoke > earliest {
			c.breach("C6 %s: %s was asked at %d and stands at %d, before %s at %d, which was known at %d",
				r.id, op, op.Invoke, i, r.events[which].ID, which, earliest)
		}
		known := int64(math.MaxInt64)
		if op.Outcome == OK {
			known = op.Return
		}
		if at, ok := seen[i]; ok {
			known = min(known, at)
		}
		if known < earliest {
			earliest, which = known, i
		}
	}
}

// firstSeen says when an event was first seen in a stream.
func (c *checker) firstSeen(r *roomOrder) map[int]int64 {
	seen := map[int]int64{}
	for _, s := range c.h.Streams {
		for _, p := range s.Parts {
			if p.Room != r.id {
				continue
			}
			for _, e := range p.Events {
				i, ok := r.pos[e.ID]
				if at, had := seen[i]; ok && (!had || p.At < at) {
					seen[i] = p.At
				}
			}
		}
	}
	return seen
}
