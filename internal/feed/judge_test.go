package feed

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// truth is what happened in one room, by the store.
type truth struct {
	id     ids.RoomID
	events []*room.Stored
	at     map[ids.EventID]ids.Seq
	head   *room.Head
}

func (w *world) truth(r ids.RoomID) *truth {
	w.t.Helper()
	tr := &truth{id: r, events: w.timeline(r), at: make(map[ids.EventID]ids.Seq)}
	for _, e := range tr.events {
		tr.at[e.ID] = e.Seq
	}
	var err error
	if tr.head, err = w.rooms.Head(ctx, r); err != nil || tr.head == nil {
		w.t.Fatalf("head of %s: %v", r, err)
	}
	return tr
}

func (tr *truth) event(s ids.Seq) *room.Stored {
	i, ok := slices.BinarySearchFunc(tr.events, s, func(e *room.Stored, s ids.Seq) int { return int(e.Seq) - int(s) })
	if !ok {
		return nil
	}
	return tr.events[i]
}

type stateID struct{ typ, key string }

// state is the room's state behind a position.
func (tr *truth) state(upTo ids.Seq) map[stateID]ids.EventID {
	out := make(map[stateID]ids.EventID)
	for _, e := range tr.events {
		if e.Seq <= upTo && e.StateKey != nil {
			out[stateID{e.Type, *e.StateKey}] = e.ID
		}
	}
	return out
}

func own(e *room.Stored, u ids.UserID) bool { return e.Is(event.TypeMember, string(u)) }

func (tr *truth) membership(u ids.UserID, at ids.Seq) event.Membership {
	m := event.NoMembership
	for _, e := range tr.events {
		if e.Seq <= at && own(e, u) {
			m = e.Member().Membership
		}
	}
	return m
}

// ends returns where a user's stays ended behind a position, up to another.
func (tr *truth) ends(u ids.UserID, after, upTo ids.Seq) (out []ids.Seq) {
	was := tr.membership(u, after) == event.Join
	for _, e := range tr.events {
		if e.Seq > after && e.Seq <= upTo && own(e, u) {
			is := e.Member().Membership == event.Join
			if was && !is {
				out = append(out, e.Seq)
			}
			was = is
		}
	}
	return out
}

// maySee: the user was in the room, or it is their own membership, or the room
// shows its past to those who came later, as they did by upTo.
func (tr *truth) maySee(u ids.UserID, e *room.Stored, upTo ids.Seq) bool {
	if own(e, u) || tr.membership(u, e.Seq) == event.Join {
		return true
	}
	if !tr.shared(e.Seq) {
		return false
	}
	for _, x := range tr.events {
		if x.Seq > e.Seq && x.Seq <= upTo && own(x, u) && x.Member().Membership == event.Join {
			return true
		}
	}
	return false
}

// shared: the room shows an event to those who came later. It says so once, and
// does before it says anything.
func (tr *truth) shared(at ids.Seq) bool {
	for _, x := range tr.events {
		if x.Is(event.TypeHistoryVisibility, "") {
			return at <= x.Seq || x.HistoryVisibility() == event.VisibilityShared
		}
	}
	return true
}

// unread is what the default push rules count for a user: messages, and mentions.
// Those that were redacted meanwhile may count as mentions or not.
func (tr *truth) unread(w *world, u ids.UserID, ignored map[ids.UserID]bool) (notify, highlight int) {
	marks, err := w.rooms.ReadMarks(ctx, tr.id, u)
	if err != nil {
		w.t.Fatalf("receipts: %v", err)
	}
	read := marks.Main
	in := false
	for _, e := range tr.events {
		if own(e, u) {
			is := e.Member().Membership == event.Join
			if is && !in {
				read = max(read, e.Seq)
			}
			in = is
		}
		if e.Sender == u && e.StateKey == nil {
			read = max(read, e.Seq) // who sends has read
		}
	}
	for _, e := range tr.events {
		if e.Seq <= read || e.RedactedBy != nil || ignored[e.Sender] || e.Type != event.TypeMessage {
			continue
		}
		notify++
		if strings.Contains(string(e.Content), fmt.Sprintf("%q", u)) {
			highlight++
		}
	}
	return notify, highlight
}

// judge follows what one client was told, and compares it with the truth.
type judge struct {
	w      *world
	name   string
	user   ids.UserID
	filter *Filter
	wishes
	pushes bool // over a socket
	rooms  map[ids.RoomID]*followed
	// log is what the client was told, for whoever reads of a failure.
	log    []string
	truths map[ids.RoomID]*truth
}

// followed is a room as the client knows it.
type followed struct {
	in, fresh bool
	pos       ids.Seq // of the last event
	state     map[stateID]ids.EventID
	unread    unread
	joined    int
	invited   int
	heroes    []ids.UserID
}

func (j *judge) fail(format string, args ...any) {
	j.w.t.Helper()
	j.w.t.Fatalf("%s: %s\n%s", j.name, fmt.Sprintf(format, args...), strings.Join(j.log, "\n"))
}

func (j *judge) passes(e *room.Stored) bool {
	return j.filter.Room.Timeline.Event(e) && (e.StateKey != nil || !j.ignored[e.Sender])
}

func (j *judge) lazy() bool { return j.filter.Room.State.LazyLoad }

// between lists the events that the client is to be shown of a stretch.
func (j *judge) between(tr *truth, after, upTo ids.Seq) (out []ids.EventID) {
	for _, e := range tr.events {
		if e.Seq > after && e.Seq <= upTo && j.passes(e) {
			out = append(out, e.ID)
		}
	}
	return out
}

func (j *judge) room(id ids.RoomID) (*followed, *truth) {
	f := j.rooms[id]
	if f == nil {
		f = &followed{state: make(map[stateID]ids.EventID)}
		j.rooms[id] = f
	}
	return f, j.truths[id]
}

func (j *judge) take(r *response) {
	j.w.t.Helper()
	j.note(r)
	for id, sec := range r.Rooms.Join {
		j.joined(id, sec)
	}
	for id, sec := range r.Rooms.Leave {
		j.left(id, sec)
	}
	for id := range r.Rooms.Invite {
		if j.blocks {
			j.fail("%s: told of an invite", id)
		}
		f, _ := j.room(id)
		f.in = false // if the user was in the room, that ended too
	}
	if r.NextBatch == "" {
		return
	}
	p, err := ParsePosition(r.NextBatch, partitions)
	if err != nil {
		j.fail("next_batch: %v", err)
	}
	for id, f := range j.rooms {
		if f.in {
			j.reached(f, j.truths[id], p.At[ids.PartitionOf(string(id), partitions)])
		}
	}
}

// reached checks that the client was told all there is up to a position, and moves
// the room there.
func (j *judge) reached(f *followed, tr *truth, at ids.Seq) {
	j.w.t.Helper()
	if rest := j.between(tr, f.pos, at); len(rest) > 0 {
		j.fail("%s: %d events between %d and %d were not told", tr.id, len(rest), f.pos, at)
	}
	ends := tr.ends(j.user, f.pos, at)
	if f.fresh { // an earlier stay is of no interest
		f.fresh = false
		if tr.membership(j.user, at) == event.Join {
			ends = nil
		}
	}
	if len(ends) > 0 {
		j.fail("%s: the ends of the stay at %v were not told up to %d", tr.id, ends, at)
	}
	f.pos = max(f.pos, at)
}

// note writes a response into the log: positions instead of events.
func (j *judge) note(r *response) {
	line := fmt.Sprint("mark ", r.Mark)
	if r.NextBatch != "" {
		p, _ := ParsePosition(r.NextBatch, partitions)
		line = fmt.Sprint("at ", p.At)
	}
	for kind, list := range map[string]map[ids.RoomID]*section_{"join": r.Rooms.Join, "leave": r.Rooms.Leave} {
		for id, sec := range list {
			line += fmt.Sprintf("\n  %s %s: from %s, limited %t", kind, id, sec.Timeline.PrevBatch, sec.Timeline.Limited)
			for _, part := range [][]clientEvent{sec.State.Events, sec.Timeline.Events} {
				line += " |"
				for _, e := range part {
					line += fmt.Sprintf(" %d:%s", j.truths[id].at[e.ID], e.Type)
					if e.Type == event.TypeMember {
						line += fmt.Sprint("=", *e.StateKey, ":", e.Content["membership"])
					}
				}
			}
		}
	}
	j.log = append(j.log, line)
}

// stretch checks the order of a timeline, and returns where it begins and ends: the
// position before its first event and that of its last.
func (j *judge) stretch(tr *truth, sec *section_, f *followed) (from, to ids.Seq) {
	j.w.t.Helper()
	from = f.pos
	if sec.Timeline.PrevBatch != "" && (sec.Timeline.Limited || !f.in) {
		var err error
		if from, err = ParsePage(sec.Timeline.PrevBatch, 0, partitions); err != nil {
			j.fail("prev_batch: %v", err)
		}
	}
	to = from
	limit := j.filter.Room.Timeline.limit()
	if j.pushes && !f.fresh {
		limit = MaxTimeline
	}
	if n := len(sec.Timeline.Events); n > limit {
		j.fail("%s: %d events, the limit is %d", tr.id, n, limit)
	}
	for _, e := range sec.Timeline.Events {
		at := tr.at[e.ID]
		if at <= to {
			j.fail("%s at %d of %s comes behind %d", e.ID, at, tr.id, to)
		}
		to = at
	}
	for _, e := range sec.Timeline.Events {
		s := tr.event(tr.at[e.ID])
		if s.RedactedBy == nil || len(e.Content) == 0 {
			continue
		}
		for _, x := range tr.events {
			if x.Redacts == e.ID && x.Seq <= to && e.Content["body"] != nil {
				j.fail("%s of %s was redacted at %d and is shown with %v at %d", e.ID, tr.id, x.Seq, e.Content, to)
			}
		}
	}
	return from, to
}

func (j *judge) joined(id ids.RoomID, sec *section_) {
	j.w.t.Helper()
	f, tr := j.room(id)
	fresh := false // the whole state comes with the room's creation
	for _, list := range [][]clientEvent{sec.State.Events, sec.Timeline.Events} {
		fresh = fresh || slices.ContainsFunc(list, func(e clientEvent) bool { return e.Type == event.TypeCreate && e.StateKey != nil })
	}
	if f.fresh = fresh; fresh {
		f.in = false
	} else if !f.in {
		j.fail("%s goes on, but begins nowhere: %+v", id, sec)
	}
	from, to := j.stretch(tr, sec, f)
	if fresh {
		clear(f.state)
		if m := tr.membership(j.user, to); j.whole() && m != event.Join {
			j.fail("%s begins up to %d, where the user's membership is %q", id, to, m)
		}
	} else {
		if from < f.pos {
			j.fail("%s goes back from %d to %d", id, f.pos, from)
		}
		if ends := tr.ends(j.user, f.pos, to); len(ends) > 0 {
			j.fail("%s goes on from %d to %d, but the stay ended at %v", id, f.pos, to, ends)
		}
		if from > f.pos && !sec.Timeline.Limited {
			j.fail("%s has a gap from %d to %d", id, f.pos, from)
		}
	}
	if got, want := eventIDs(sec.Timeline.Events), j.between(tr, from, to); !slices.Equal(got, want) {
		j.fail("%s from %d to %d: %d events, want %d", id, from, to, len(got), len(want))
	}
	upTo := to
	if !j.whole() {
		upTo = 1 << 40 // where the section ends is not told
	}
	j.visible(tr, sec, upTo)
	if fresh && !sec.Timeline.Limited && j.whole() && from >= tr.events[0].Seq {
		j.fail("%s begins at %d, without saying that there is more", id, from)
	}
	f.in, f.pos = true, to
	j.apply(f, sec)
	j.checkState(f, tr, sec)
	if sec.Unread != nil {
		f.unread = *sec.Unread
	}
	if sec.Summary != nil {
		f.joined, f.invited = sec.Summary.Joined, sec.Summary.Invited
		if sec.Summary.Heroes != nil {
			f.heroes = *sec.Summary.Heroes
		}
	}
}

// visible checks that the user may see what is shown, if they joined by upTo.
func (j *judge) visible(tr *truth, sec *section_, upTo ids.Seq) {
	j.w.t.Helper()
	for _, e := range sec.Timeline.Events {
		if s := tr.event(tr.at[e.ID]); !tr.maySee(j.user, s, upTo) {
			j.fail("%s shows the event at %d up to %d", tr.id, s.Seq, upTo)
		}
	}
}

func (j *judge) apply(f *followed, sec *section_) {
	for _, list := range [][]clientEvent{sec.State.Events, sec.Timeline.Events} {
		for _, e := range list {
			if e.StateKey != nil {
				f.state[stateID{e.Type, *e.StateKey}] = e.ID
			}
		}
	}
}

// whole: no event is kept from the client's timelines.
func (j *judge) whole() bool { return j.filter.Room.Timeline.Types == nil }

func (j *judge) checkState(f *followed, tr *truth, sec *section_) {
	j.w.t.Helper()
	if !j.whole() {
		return
	}
	senders := make(map[string]bool)
	for _, e := range sec.Timeline.Events {
		senders[string(e.Sender)] = true
	}
	for k, want := range tr.state(f.pos) {
		got := f.state[k]
		if j.lazy() && k.typ == event.TypeMember && !senders[k.key] && got == "" {
			continue // what the client has of others is kept up to date
		}
		if got != want {
			j.fail("%s at %d: state %v is the event at %d, want %d\n%+v", tr.id, f.pos, k, tr.at[got], tr.at[want], sec)
		}
	}
}

func (j *judge) left(id ids.RoomID, sec *section_) {
	j.w.t.Helper()
	f, tr := j.room(id)
	was, pos := f.in, f.pos
	f.fresh = false
	if sec.Timeline.Limited {
		f.in = false // it goes on from a gap
	}
	from, to := j.stretch(tr, sec, f)
	f.in = false
	f.pos = max(pos, to)
	if len(sec.Timeline.Events) > 0 && to <= pos && j.whole() {
		j.fail("%s ends at %d, which was told at %d", id, to, pos)
	}
	if n := len(sec.Timeline.Events); n > 0 && tr.at[sec.Timeline.Events[0].ID] <= pos {
		j.fail("%s, left, goes back from %d to %d", id, pos, tr.at[sec.Timeline.Events[0].ID])
	}
	if n := len(sec.Timeline.Events); j.whole() && n > 0 {
		last := tr.event(to)
		if !own(last, j.user) || last.Member().Membership == event.Join {
			j.fail("%s ends with the event at %d, which ends nothing", id, to)
		}
	}
	j.visible(tr, sec, 1<<40) // the user may be back, although that is not yet told
	if ends := tr.ends(j.user, pos, to); was && len(ends) == 1 && ends[0] == to {
		if got, want := eventIDs(sec.Timeline.Events), j.between(tr, max(from, pos), to); !slices.Equal(got, want) {
			j.fail("%s, left, from %d to %d: %d events, want %d", id, from, to, len(got), len(want))
		}
		if from > pos && !sec.Timeline.Limited {
			j.fail("%s, left, has a gap from %d to %d", id, pos, from)
		}
	}
}

// end compares what the client holds when all is over.
func (j *judge) end() {
	j.w.t.Helper()
	for id, tr := range j.truths {
		f, _ := j.room(id)
		in := tr.membership(j.user, 1<<40) == event.Join
		if f.in != in {
			j.fail("%s: in the room %t, should be %t, by the events at %v", id, f.in, in, tr.ends(j.user, 0, 1<<40))
		}
		if !in {
			continue
		}
		if rest := j.between(tr, f.pos, 1<<40); len(rest) > 0 {
			j.fail("%s: %d events behind %d never came", id, len(rest), f.pos)
		}
		if !j.whole() {
			continue
		}
		if f.joined != tr.head.Joined || f.invited != tr.head.Invited {
			j.fail("%s: %d joined, %d invited, want %d and %d", id, f.joined, f.invited, tr.head.Joined, tr.head.Invited)
		}
		j.checkHeroes(f, tr)
		notify, highlight := tr.unread(j.w, j.user, j.ignored)
		if f.unread.Notify != notify || f.unread.Highlight != highlight {
			j.fail("%s: unread %+v, want %d and %d", id, f.unread, notify, highlight)
		}
	}
}

func (j *judge) checkHeroes(f *followed, tr *truth) {
	j.w.t.Helper()
	for k := range tr.state(1 << 40) {
		if k.typ == event.TypeName {
			return
		}
	}
	var present []ids.UserID
	for k, id := range tr.state(1 << 40) {
		u := ids.UserID(k.key)
		if m := tr.event(tr.at[id]); k.typ == event.TypeMember && u != j.user {
			if s := m.Member().Membership; s == event.Join || s == event.Invite {
				present = append(present, u)
			}
		}
	}
	if len(present) == 0 {
		return // those who left
	}
	if len(f.heroes) != min(len(present), maxHeroes) {
		j.fail("%s: heroes %v of %v", tr.id, f.heroes, present)
	}
	for _, h := range f.heroes {
		if !slices.Contains(present, h) {
			j.fail("%s: hero %s is not in the room", tr.id, h)
		}
	}
}
