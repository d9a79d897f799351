package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// sample makes a small history in which every promise held.
func sample() *History {
	b := &builder{h: &History{Final: Final{Rooms: map[string]*Room{}, Data: map[string]int{}}}}
	create := b.op(Op{Kind: Create, User: "@a:x", Outcome: OK})
	create.Room = "!r"
	for i, t := range wholeRoom() {
		key, mark := "", ""
		if t == "m.room.member" {
			key = "@a:x"
		}
		if i == 0 {
			mark = create.Mark
		}
		b.event(&Op{User: "@a:x", Mark: mark}, t, &key)
		if t == "m.room.member" {
			b.events[i].Membership = "join"
		}
	}
	b.member(b.op(Op{Kind: Join, User: "@b:x", Room: "!r", Outcome: OK}), "@b:x", "join")
	for i := range 6 {
		op := b.op(Op{Kind: Send, User: []string{"@a:x", "@b:x"}[i%2], Room: "!r", Type: "m.room.message", Outcome: OK})
		op.EventID = b.event(op, op.Type, nil)
		op.Answers = []string{op.EventID, op.EventID}
	}
	unsure := b.op(Op{Kind: Send, User: "@b:x", Room: "!r", Type: "m.room.message", Outcome: Unknown})
	b.event(unsure, "m.room.message", nil)
	target := b.events[9].ID
	b.events[9].Redacted, b.events[9].Mark = true, ""
	redact := b.op(Op{Kind: Redact, User: "@a:x", Room: "!r", Type: "m.room.redaction", Target: target, Outcome: OK})
	redact.EventID = b.event(redact, redact.Type, nil)
	key := "k"
	state := b.op(Op{Kind: State, User: "@a:x", Room: "!r", Type: "test.state", Key: key, Outcome: OK})
	state.EventID = b.event(state, state.Type, &key)
	b.member(b.op(Op{Kind: Leave, User: "@b:x", Room: "!r", Outcome: OK}), "@b:x", "leave")
	back := b.op(Op{Kind: Join, User: "@b:x", Room: "!r", Outcome: OK})
	b.member(back, "@b:x", "join")
	b.op(Op{Kind: Join, User: "@b:x", Room: "!r", Outcome: OK}) // changes nothing
	last := b.op(Op{Kind: Send, User: "@a:x", Room: "!r", Type: "m.room.message", Outcome: OK})
	last.EventID = b.event(last, last.Type, nil)
	b.op(Op{Kind: Data, User: "@a:x", Key: "d", N: 1, Outcome: OK})
	b.op(Op{Kind: Data, User: "@a:x", Key: "d", N: 2, Outcome: Unknown})
	b.op(Op{Kind: Receipt, User: "@a:x", Room: "!r", Target: b.events[10].ID, Outcome: OK})
	b.op(Op{Kind: Login, User: "@a:x", Device: "D", Token: "t", Outcome: OK})
	b.op(Op{Kind: Login, User: "@a:x", Device: "E", Token: "u", Outcome: OK})
	b.op(Op{Kind: Logout, User: "@a:x", Device: "E", Outcome: OK})
	b.finish()
	return b.h
}

// builder gives events and operations times and IDs in order.
type builder struct {
	h      *History
	events []Event
}

func (b *builder) op(op Op) *Op {
	op.ID = len(b.h.Ops)
	op.Mark = fmt.Sprintf("m%d", op.ID)
	op.Invoke = int64(10 * op.ID)
	if op.Outcome == OK {
		op.Return = op.Invoke + 5
	}
	b.h.Ops = append(b.h.Ops, &op)
	return &op
}

func (b *builder) event(op *Op, typ string, key *string) string {
	id := fmt.Sprintf("$%d", len(b.events))
	b.events = append(b.events, Event{ID: id, Type: typ, Sender: op.User, StateKey: key, Mark: op.Mark, Body: id + typ})
	return id
}

func (b *builder) member(op *Op, user, membership string) {
	b.event(op, "m.room.member", &user)
	b.events[len(b.events)-1].Membership = membership
}

func (b *builder) finish() {
	all := func() []Event { return slices.Clone(b.events) }
	var state []Event
	for k, id := range foldOf(b.events) {
		for _, e := range b.events {
			if e.ID == id && e.Type == k.typ {
				state = append(state, e)
			}
		}
	}
	b.h.Final.Rooms["!r"] = &Room{
		Walks:    []Walk{{"@a:x", "f", all()}, {"@b:x", "b", all()}},
		States:   map[string][]Event{"@a:x": state, "@b:x": slices.Clone(state)},
		Receipts: map[string]string{"@a:x": b.events[10].ID},
		Unread:   map[string]Unread{"@a:x": {2, 1}},
	}
	b.h.Final.Data["d"] = 2
	for _, op := range b.h.Ops {
		if op.Token != "" {
			b.h.Final.Tokens = append(b.h.Final.Tokens, Token{op.ID, op.Device == "D"})
		}
	}
	n := len(b.events)
	part := func(section string, from, to int) Part {
		return Part{At: 1000, Room: "!r", Section: section, Events: slices.Clone(b.events[from:to])}
	}
	a := &Stream{User: "@a:x", Transport: "poll", Ended: true}
	first := part("join", 9, 11)
	first.State = slices.Clone(b.events[:9])
	gap := part("join", 14, 17)
	gap.Limited, gap.Fill = true, slices.Clone(b.events[11:14])
	end := part("join", 17, n)
	end.Unread = &Unread{2, 1}
	a.Parts = []Part{first, {Data: map[string]int{"d": 1}}, gap, {Data: map[string]int{"d": 2}}, end}
	// @b:x left at n-3 and came back at n-2, and is told the room anew.
	second := &Stream{User: "@b:x", Transport: "socket", Ended: true}
	rejoin := part("join", n-4, n)
	rejoin.State = slices.Clone(b.events[:n-4])
	second.Parts = []Part{part("join", 0, n-3), part("leave", n-3, n-2), rejoin}
	b.h.Streams = []*Stream{a, second}
}

func TestCheckPassesWhatIsRight(t *testing.T) {
	if got := Check(sample()); len(got) > 0 {
		t.Errorf("breaches in a history without one:\n%s", strings.Join(got, "\n"))
	}
}

// find returns the n-th operation of a kind.
func find(h *History, k Kind, n int) *Op {
	for _, op := range h.Ops {
		if op.Kind == k {
			if n == 0 {
				return op
			}
			n--
		}
	}
	panic("no such operation")
}

func eachWalk(h *History, change func([]Event) []Event) {
	walks := h.Final.Rooms["!r"].Walks
	for i := range walks {
		walks[i].Events = change(walks[i].Events)
	}
}

func without(i int) func([]Event) []Event {
	return func(e []Event) []Event { return slices.Delete(e, i, i+1) }
}

func swapped(i, j int) func([]Event) []Event {
	return func(e []Event) []Event {
		e[i], e[j] = e[j], e[i]
		return e
	}
}

// TestCheckFindsWhatIsWrong: each way to doctor a history is found by the check
// that is for it.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	phantom := Event{ID: "$x", Type: "m.room.message", Sender: "@a:x", Mark: "nobody's", Body: "x"}
	tests := []struct {
		name, want string
		doctor     func(h *History)
	}{
		{"an acknowledged message is lost", "C1", func(h *History) { eachWalk(h, without(10)) }},
		{"an acknowledged state event is lost", "C1", func(h *History) { eachWalk(h, without(17)) }},
		{"an acknowledged join is lost", "C1", func(h *History) { eachWalk(h, without(8)) }},
		{"an acknowledged room is lost", "C1", func(h *History) { delete(h.Final.Rooms, "!r") }},
		{"a redaction had no effect", "C1", func(h *History) {
			eachWalk(h, func(e []Event) []Event { e[9].Redacted = false; return e })
		}},
		{"a message lost its content", "C1", func(h *History) {
			eachWalk(h, func(e []Event) []Event { e[10].Mark = ""; return e })
		}},
		{"a phantom", "C2", func(h *History) {
			eachWalk(h, func(e []Event) []Event { return append(e, phantom) })
		}},
		{"a refused operation took place", "C2", func(h *History) { find(h, Send, 6).Outcome = Fail }},
		{"an event in another's name", "C2", func(h *History) { find(h, Send, 6).User = "@a:x" }},
		{"a message twice under two IDs", "C3", func(h *History) {
			eachWalk(h, func(e []Event) []Event {
				again := e[10]
				again.ID, again.Body = "$again", "again"
				return append(e, again)
			})
		}},
		{"an event twice", "C3", func(h *History) {
			eachWalk(h, func(e []Event) []Event { return append(e, e[10]) })
		}},
		{"a repeated request got another answer", "C3", func(h *History) { find(h, Send, 0).Answers[1] = "$other" }},
		{"two requests got one event", "C3", func(h *History) { find(h, Send, 0).EventID = find(h, Send, 1).EventID }},
		{"two readers see two orders", "C4", func(h *History) { swapped(10, 11)(h.Final.Rooms["!r"].Walks[0].Events) }},
		{"a reader misses the end", "C4", func(h *History) {
			w := &h.Final.Rooms["!r"].Walks[1]
			w.Events = w.Events[:len(w.Events)-1]
		}},
		{"a reader sees other bytes", "C4", func(h *History) { h.Final.Rooms["!r"].Walks[1].Events[12].Body = "other" }},
		{"a stream misses an event", "C5", func(h *History) {
			p := &h.Streams[0].Parts[2]
			p.Events = slices.Delete(p.Events, 1, 2)
		}},
		{"a stream misses a part", "C5", func(h *History) { h.Streams[0].Parts = slices.Delete(h.Streams[0].Parts, 2, 3) }},
		{"a gap is not filled", "C5", func(h *History) { h.Streams[0].Parts[2].Fill = nil }},
		{"a stream repeats an event", "C5", func(h *History) {
			p := &h.Streams[0].Parts[4]
			p.Events = append([]Event{h.Streams[0].Parts[2].Events[2]}, p.Events...)
		}},
		{"a stream has two events swapped", "C5", func(h *History) { swapped(0, 1)(h.Streams[0].Parts[2].Events) }},
		{"a stream has a phantom", "C5", func(h *History) {
			p := &h.Streams[0].Parts[4]
			p.Events = append(p.Events, phantom)
		}},
		{"a stream has other bytes", "C5", func(h *History) { h.Streams[0].Parts[2].Events[0].Body = "other" }},
		{"a stream stops early", "C5", func(h *History) { h.Streams[0].Parts = h.Streams[0].Parts[:4] }},
		{"a stream goes on after a leave", "C5", func(h *History) {
			s := h.Streams[1]
			n := len(h.Final.Rooms["!r"].Walks[0].Events)
			s.Parts[1].Events = append(s.Parts[1].Events, h.Final.Rooms["!r"].Walks[0].Events[n-2])
		}},
		{"data goes back in a stream", "C5", func(h *History) { h.Streams[0].Parts[1].Data["d"] = 3 }},
		{"order against time", "C6", func(h *History) { eachWalk(h, swapped(11, 12)) }},
		{"the state of a reader is old", "C7", func(h *History) {
			r := h.Final.Rooms["!r"]
			r.States["@b:x"] = slices.DeleteFunc(r.States["@b:x"], func(e Event) bool { return e.Type == "test.state" })
		}},
		{"the state of a stream is old", "C7", func(h *History) {
			p := &h.Streams[0].Parts[0]
			p.State = slices.Delete(p.State, 6, 7)
		}},
		{"unread counts of a stream are old", "C7", func(h *History) { h.Streams[0].Parts[4].Unread.Notifications = 3 }},
		{"half a room", "C7", func(h *History) {
			eachWalk(h, without(5))
		}},
		{"account data is lost", "C1", func(h *History) { delete(h.Final.Data, "d") }},
		{"account data nobody wrote", "C2", func(h *History) { h.Final.Data["d"] = 7 }},
		{"a receipt went back", "C1", func(h *History) { h.Final.Rooms["!r"].Receipts["@a:x"] = "$9" }},
		{"a receipt nobody sent", "C2", func(h *History) { h.Final.Rooms["!r"].Receipts["@b:x"] = "$9" }},
		{"a login is lost", "C1", func(h *History) { h.Final.Tokens[0].Works = false }},
		{"a logout is lost", "C1", func(h *History) { h.Final.Tokens[1].Works = true }},
		{"a note", "C0", func(h *History) { h.Noted = append(h.Noted, "C0 the server answered 500") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := sample()
			tt.doctor(h)
			got := Check(h)
			if !slices.ContainsFunc(got, func(b string) bool { return strings.HasPrefix(b, tt.want) }) {
				t.Errorf("not found as %s; found: %q", tt.want, got)
			}
		})
	}
}
