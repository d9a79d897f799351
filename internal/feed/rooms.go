package feed

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// maxReceipts bounds the receipts of one room in one response, the newest
	// first: in a large room all of them would be most of an initial sync.
	maxReceipts = 500
	// maxStateChanges is from how many changes on the whole state is read.
	maxStateChanges = 500
	// scanPage is how many events are read at a time where a filter leaves some
	// out; scanPages bounds how many such reads a response spends on one room.
	scanPage  = 100
	scanPages = 20
	// maxHeroes is how many members name a room without a name. spec:
	// client-server §GET /sync, m.heroes.
	maxHeroes = 5
)

// addRooms adds the sections of all rooms that have something to tell.
func (s *syncer) addRooms(ctx context.Context, moved map[ids.RoomID]*account.Change) error {
	var cold []roomState
	for i := range s.rooms {
		r := &s.rooms[i]
		if !s.req.Filter.Room.Room(r.id) {
			continue
		}
		var err error
		c := moved[r.id]
		switch {
		case r.membership == event.Join && (s.full || c != nil && c.Prev != event.Join):
			err = s.addJoined(ctx, r, s.req.Since == nil || c != nil && c.Prev != event.Join)
		case r.membership == event.Join:
			a := s.since.At[r.p]
			switch {
			case r.last > a || s.typing[r.id] || s.data[r.id] != nil || c != nil || s.recounted(r):
				err = s.addJoined(ctx, r, false)
			case r.since > a && s.next.At[r.p] > a:
				cold = append(cold, *r)
			}
		case c != nil || s.req.Since == nil:
			err = s.addOther(ctx, r, c)
		}
		if err != nil {
			return err
		}
	}
	return s.addCold(ctx, cold)
}

// recounted reports whether what is unread in a room is another number since the client
// last asked, though nothing happened in the room.
func (s *syncer) recounted(r *roomState) bool {
	return s.req.Since != nil && r.recount > s.since.At[s.v.home]
}

// addCold adds those of the rooms that have changed, as their heads tell: the
// view was not there all the time.
func (s *syncer) addCold(ctx context.Context, rooms []roomState) error {
	if len(rooms) == 0 {
		return nil
	}
	list := make([]ids.RoomID, len(rooms))
	for i := range rooms {
		list[i] = rooms[i].id
	}
	heads, err := s.h.rooms.Heads(ctx, list...)
	if err != nil {
		return err
	}
	for i := range rooms {
		if h := heads[i]; h != nil && max(h.Last, h.LastReceipt) > s.since.At[rooms[i].p] {
			if err := s.addJoined(ctx, &rooms[i], false); err != nil {
				return err
			}
		}
	}
	return nil
}

// section is the part of a response about one room.
type section struct {
	s *syncer
	r *roomState
	// from is the position the client knows the room up to, to the end.
	from, to ids.Seq
	// fresh: the client does not know the room.
	fresh bool
	// limit is how many events the timeline may have.
	limit int
	// access decides what may be seen where from lies before the user's stay;
	// nil where all may.
	access *room.Access
	events []*room.Stored // newest first
	// limited: there is more between from and the first of the events.
	limited bool
	state   []*room.Stored
	members bool // the list of members changed
	hidden  bool // the filter keeps changes of state out of the timeline
	read    bool // the user read something, so that the counts may have changed
	// bundled are the aggregations of the events.
	bundled room.Aggregations
}

// addJoined adds a room that the user is in. fresh: the client does not know it.
func (s *syncer) addJoined(ctx context.Context, r *roomState, fresh bool) error {
	sec := &section{s: s, r: r, to: s.next.At[r.p], fresh: fresh, limit: s.timelineLimit(fresh), read: s.recounted(r)}
	if !fresh {
		sec.from = s.since.At[r.p]
	}
	if fresh {
		a, err := s.h.rooms.Access(ctx, r.id, s.v.user)
		if err != nil || a == nil {
			return err
		}
		sec.access = a
	}
	left, err := sec.leftBehindIndex(ctx)
	if err != nil {
		return err
	}
	if left > 0 {
		s.v.noteLeft(r.id, left)
		sec.endAt(left)
		if sec.from >= left {
			return nil // was told
		}
	}
	if err := sec.readTimeline(ctx); err != nil {
		return err
	}
	// What a client may still hold of an earlier stay does not lead up to this
	// timeline, which can even repeat it: it has to begin afresh.
	sec.limited = sec.limited || sec.fresh && s.req.Since != nil
	if err := sec.readState(ctx); err != nil {
		return err
	}
	body, any, err := sec.encodeJoined(ctx, left > 0)
	if err != nil || !any {
		return err
	}
	if left > 0 {
		addRoom(&s.out.leave, r.id, body)
	} else {
		addRoom(&s.out.join, r.id, body)
	}
	return nil
}

// endAt makes it the section of a stay that is over. If the client has not been told
// that the stay began, nothing begins afresh: it is told of it from where it stands,
// as it would be if the list of rooms said so too (addLeft), and at least of its end.
func (sec *section) endAt(left ids.Seq) {
	sec.to = left
	if sec.fresh && sec.s.req.Since != nil {
		sec.fresh, sec.from = false, min(sec.s.since.At[sec.r.p], left-1)
	}
}

// leftBehindIndex looks whether the user has left the room between from and to
// although their list of rooms does not say so yet: the room is ahead of the
// list by as long as an effect takes. It returns the position of the event that
// ended the stay, 0 if there is none: nothing behind it may be shown.
func (sec *section) leftBehindIndex(ctx context.Context) (ids.Seq, error) {
	if r := sec.r; r.looked && r.since <= sec.from && r.left <= r.roomSeq {
		return 0, nil // the user was there, and the view saw no such event since
	}
	rd := sec.s.h.rooms
	own, err := sec.own(ctx)
	if err != nil || own == nil {
		return 0, err
	}
	var left ids.Seq
	for own != nil && own.Seq > sec.r.roomSeq {
		if own.Seq <= sec.to && own.Member().Membership != event.Join {
			left = own.Seq
		}
		before := own.Replaces
		if before == 0 {
			break
		}
		if own, err = rd.Replaced(ctx, own); err != nil {
			return 0, err
		}
		if own == nil && before > sec.r.roomSeq && before <= sec.to {
			left = before // it cannot be read, and may have ended the stay
		}
	}
	return left, nil
}

// timelineLimit is how many events a timeline of the response has, of a room that the
// client does not know yet (fresh) or does.
func (s *syncer) timelineLimit(fresh bool) int {
	if s.req.Pushed && !fresh {
		return MaxTimeline
	}
	return s.req.Filter.Room.Timeline.limit()
}

// readTimeline collects the newest events that pass, up to the limit.
func (sec *section) readTimeline(ctx context.Context) error {
	f := &sec.s.req.Filter.Room.Timeline
	if !f.Room(sec.r.id) {
		sec.hidden, sec.members = true, true // for all that is known
		return nil
	}
	upTo := sec.to
	for range scanPages {
		page, err := sec.s.h.newest(ctx, sec.r.id, sec.from, upTo, scanPage)
		if err != nil {
			return err
		}
		if len(page) > scanPage {
			page = page[:scanPage]
		}
		var related []bool
		if f.Related() {
			if related, err = sec.s.h.rooms.RelatedBy(ctx, sec.r.id, sec.onlooker(), page, f.RelatedBySenders, f.RelatedByRelTypes); err != nil {
				return err
			}
		}
		for i, e := range page {
			if sec.access != nil && !sec.access.MaySee(e) {
				// Older events may be visible again, but not without a gap.
				sec.limited = true
				return nil
			}
			sec.members = sec.members || e.Type == event.TypeMember && e.StateKey != nil
			if !f.Event(e) || related != nil && !related[i] || e.StateKey == nil && sec.s.v.ignores(e.Sender) {
				sec.hidden = sec.hidden || e.StateKey != nil
				continue
			}
			if len(sec.events) == sec.limit {
				sec.limited = true
				return nil
			}
			sec.events = append(sec.events, e)
		}
		if len(page) < scanPage {
			return nil
		}
		upTo = page[len(page)-1].Seq - 1
	}
	sec.limited = true
	return nil
}

// start is the position before the first event of the timeline.
func (sec *section) start() ids.Seq {
	if len(sec.events) == 0 {
		return sec.to
	}
	return sec.events[len(sec.events)-1].Seq - 1
}

// stateAt is the position whose state goes with the timeline: the one before it,
// or the end for a client that does not want to work out the latter.
func (sec *section) stateAt() ids.Seq {
	if sec.s.req.StateAfter != "" {
		return sec.to
	}
	return sec.start()
}

// readState collects the state that goes with the timeline: all of it for a
// client that does not know the room, what changed for others. It is not in the gap
// alone that state changes before the timeline: it does too where the filter of the
// timeline lets other events pass and those not. spec: client-server §GET /sync, state.
func (sec *section) readState(ctx context.Context) error {
	f := &sec.s.req.Filter.Room
	rd := sec.s.h.rooms
	whole := sec.fresh || sec.s.req.FullState
	var list []*room.Stored
	var err error
	switch {
	case !whole && !sec.limited && !sec.hidden && sec.s.req.StateAfter == "":
		// Nothing but what is in the timeline.
	case !whole:
		sec.members = sec.members || sec.limited
		var more bool
		list, more, err = sec.s.h.stateChanges(ctx, sec.r.id, sec.from, sec.stateAt(), maxStateChanges)
		if err == nil && more {
			list, err = rd.StateUpTo(ctx, sec.r.id, sec.stateAt(), room.StateOptions{NoMembers: f.State.LazyLoad})
			if err == nil && f.State.LazyLoad {
				err = rd.WalkStateUpTo(ctx, sec.r.id, sec.stateAt(), room.StateOptions{Type: event.TypeMember}, func(e *room.Stored) {
					if e.Seq > sec.from {
						list = append(list, e)
					}
				})
			}
		}
	default:
		sec.members = true
		list, err = rd.StateUpTo(ctx, sec.r.id, sec.stateAt(), room.StateOptions{NoMembers: f.State.LazyLoad})
	}
	if err != nil {
		return err
	}
	if f.State.LazyLoad {
		members, err := sec.lazyMembers(ctx, whole, list)
		if err != nil {
			return err
		}
		list = append(list, members...)
	}
	for _, e := range list {
		if f.State.Event(e) {
			sec.state = append(sec.state, e)
		}
	}
	return nil
}

// lazyMembers returns the member events of those who sent something, where this
// device has not had them. changed is the state that is sent in any case: what
// changed in a gap about members is lost to a client that is not told of it there,
// whoever they are. spec: client-server §GET /sync, §Lazy-loading room members.
func (sec *section) lazyMembers(ctx context.Context, whole bool, changed []*room.Stored) ([]*room.Stored, error) {
	want := make(map[ids.UserID]bool)
	if whole {
		want[sec.s.v.user] = true
	}
	shown := make(map[ids.UserID]ids.Seq)
	for _, e := range sec.events {
		want[e.Sender] = true
		if e.Type == event.TypeMember && e.StateKey != nil && shown[ids.UserID(*e.StateKey)] == 0 {
			shown[ids.UserID(*e.StateKey)] = e.Seq
			if sec.s.req.StateAfter != "" { // it is in the timeline, which changes no state
				want[ids.UserID(*e.StateKey)] = true
			}
		}
	}
	for _, e := range changed {
		if e.Type == event.TypeMember {
			u := ids.UserID(*e.StateKey)
			delete(want, u)
			sec.s.out.lazy = append(sec.s.out.lazy, lazyMember{lazyKey{sec.r.id, u}, e.Seq})
		}
	}
	keys := make([]room.StateAt, 0, len(want))
	for u := range want {
		keys = append(keys, room.StateAt{StateKey: room.StateKey{Type: event.TypeMember, Key: string(u)}, UpTo: sec.stateAt()})
	}
	list, err := sec.s.h.rooms.StateEventsAt(ctx, sec.r.id, keys...)
	if err != nil {
		return nil, err
	}
	var out []*room.Stored
	for _, e := range list {
		k := lazyKey{sec.r.id, ids.UserID(*e.StateKey)}
		if whole || sec.s.req.Filter.Room.State.Redundant || sec.s.lazy.member(k) != e.Seq {
			out = append(out, e)
			sec.s.out.lazy = append(sec.s.out.lazy, lazyMember{k, e.Seq})
		}
	}
	for u, at := range shown {
		sec.s.out.lazy = append(sec.s.out.lazy, lazyMember{lazyKey{sec.r.id, u}, at})
	}
	slices.SortFunc(out, func(a, b *room.Stored) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, nil
}

// encodeJoined writes the section of a joined room; any is false if it says
// nothing.
func (sec *section) encodeJoined(ctx context.Context, left bool) (b []byte, any bool, err error) {
	var ephemeral []byte
	if !left { // who types now is none of the business of those who left
		if ephemeral, err = sec.ephemeral(ctx); err != nil {
			return nil, false, err
		}
	}
	var data []byte
	f := &sec.s.req.Filter.Room.AccountData
	for _, d := range sec.s.data[sec.r.id] {
		if f.Type(d.Type) && f.Room(sec.r.id) {
			data = AppendDataEvent(data, d.Type, d.Content)
		}
	}
	unread, err := sec.s.v.unread(ctx, sec.r, sec.to, sec.s.req.Filter.Room.Timeline.ThreadNotifications)
	if err != nil {
		return nil, false, err
	}
	any = left || sec.fresh || sec.read || sec.s.req.FullState || len(sec.events)+len(sec.state)+len(ephemeral)+len(data) > 0 || sec.limited
	if !any {
		return nil, false, nil
	}
	if err := sec.bundle(ctx); err != nil {
		return nil, false, err
	}
	b = append(make([]byte, 0, 1024), '{')
	b = sec.appendTimeline(b)
	b = sec.appendState(b)
	b = append(append(append(b, `,"ephemeral":{"events":[`...), ephemeral...), `]}`...)
	b = append(append(append(b, `,"account_data":{"events":[`...), data...), `]}`...)
	b = appendBadge(b, unread)
	if !left && (sec.fresh || sec.members) {
		if b, err = sec.appendSummary(ctx, b); err != nil {
			return nil, false, err
		}
	}
	return append(b, '}'), true, nil
}

// viewer is the client as the reader of an event of the timeline. spec:
// client-server §ClientEventWithoutRoomID, unsigned.membership.
func (sec *section) viewer(e *room.Stored) room.Viewer {
	v := room.Viewer{User: sec.s.req.User, Device: sec.s.req.Device, Membership: event.Join, Erasures: sec.erasures()}
	switch {
	case sec.access != nil:
		v.Membership = sec.access.MembershipAt(e.Seq)
	case e.Is(event.TypeMember, string(v.User)):
		v.Membership = e.Member().Membership
	}
	if v.Membership == event.NoMembership {
		v.Membership = event.Leave
	}
	v.Relations = sec.bundled[e.Seq]
	return v
}

// onlooker is the client as the one who is shown aggregations.
func (sec *section) onlooker() *room.Onlooker {
	return &room.Onlooker{
		User: sec.s.req.User, Device: sec.s.req.Device, Access: sec.access, UpTo: sec.to, Ignored: sec.s.v.ignoredUsers(),
	}
}

// bundle reads the aggregations of the timeline, if it has a gap before it: of what
// relates to the events of a timeline without one, the client hears as it comes.
// spec: client-server §Aggregations of child events, GET /sync.
func (sec *section) bundle(ctx context.Context) (err error) {
	if sec.limited || sec.fresh {
		sec.bundled, err = sec.s.h.rooms.Aggregate(ctx, sec.r.id, sec.onlooker(), sec.events)
	}
	return err
}

func (sec *section) appendTimeline(b []byte) []byte {
	b = append(b, `"timeline":{"events":[`...)
	for i := len(sec.events) - 1; i >= 0; i-- {
		b = sec.s.appendEvent(b, sec.events[i], sec.viewer(sec.events[i]))
		if i > 0 {
			b = append(b, ',')
		}
	}
	b = append(b, `],"limited":`...)
	b = strconv.AppendBool(b, sec.limited)
	b = append(b, `,"prev_batch":"`...)
	return append(append(b, PageToken(sec.start())...), `"}`...)
}

// erasures are the users whose events are hidden. Whoever follows a room was there
// when its newest events were sent.
func (sec *section) erasures() *room.Erasures {
	if sec.access == nil {
		return nil
	}
	return sec.access.Erasures
}

func (sec *section) appendState(b []byte) []byte {
	b = event.AppendString(append(b, ','), cmp.Or(sec.s.req.StateAfter, "state"))
	b = append(b, `:{"events":[`...)
	for i, e := range sec.state {
		if i > 0 {
			b = append(b, ',')
		}
		// Without unsigned.membership, which nobody asks of the state of a room.
		b = sec.s.appendEvent(b, e, room.Viewer{User: sec.s.req.User, Device: sec.s.req.Device, Erasures: sec.erasures()})
	}
	return append(b, `]}`...)
}

func (s *syncer) appendEvent(b []byte, e *room.Stored, v room.Viewer) []byte {
	if len(s.req.Filter.EventFields) == 0 {
		return e.AppendClient(b, v)
	}
	return append(b, selectFields(e.AppendClient(nil, v), s.req.Filter.EventFields)...)
}

// ephemeral returns the receipts and the typing notice of the room, as elements
// of a list.
func (sec *section) ephemeral(ctx context.Context) ([]byte, error) {
	f := &sec.s.req.Filter.Room.Ephemeral
	if !f.Room(sec.r.id) {
		return nil, nil
	}
	var out []byte
	list, err := sec.receipts(ctx, sec.from)
	if err != nil {
		return nil, err
	}
	if f.Type("m.receipt") && len(list) > 0 {
		out = appendReceipts(out, list)
	}
	if f.Type("m.typing") {
		known := sec.s.known && !sec.fresh
		if e := sec.s.h.typing.event(sec.r.id, sec.s.since.Typing, known, sec.s.v.ignores); e != nil {
			out = appendList(out, e)
		}
	}
	return out, nil
}

// receipts returns the receipts behind a position that the user may see, and notes
// whether some are the user's own.
func (sec *section) receipts(ctx context.Context, from ids.Seq) ([]*room.Receipt, error) {
	list, err := sec.s.h.receipts(ctx, sec.r.id, from, sec.to, maxReceipts)
	if err != nil {
		return nil, err
	}
	sec.read = sec.read || slices.ContainsFunc(list, func(r *room.Receipt) bool { return r.User == sec.s.v.user })
	return slices.DeleteFunc(list, func(r *room.Receipt) bool {
		return r.Type == room.ReceiptReadPrivate && r.User != sec.s.v.user || sec.s.v.ignores(r.User)
	}), nil
}

// appendReceipts writes receipts as one m.receipt event: event, type, user.
func appendReceipts(b []byte, list []*room.Receipt) []byte {
	slices.SortStableFunc(list, func(x, y *room.Receipt) int {
		if x.Event != y.Event {
			return int(x.Seq) - int(y.Seq)
		}
		// Of a user's, one without a thread first: it says more. spec: MSC4102.
		return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(min(len(x.Thread), 1), min(len(y.Thread), 1)))
	})
	b = append(b, `{"content":{`...)
	for i := 0; i < len(list); {
		if i > 0 {
			b = append(b, ',')
		}
		ev := list[i].Event
		b = append(event.AppendString(b, ev), `:{`...)
		for first := true; i < len(list) && list[i].Event == ev; first = false {
			if !first {
				b = append(b, ',')
			}
			i, b = appendReceiptType(b, list, i)
		}
		b = append(b, '}')
	}
	return append(b, `},"type":"m.receipt"}`...)
}

// appendReceiptType writes the receipts from i on that have one event and type.
// A user has one there: that without a thread, or of the thread that moved first.
func appendReceiptType(b []byte, list []*room.Receipt, i int) (next int, out []byte) {
	ev, typ := list[i].Event, list[i].Type
	b = append(event.AppendString(b, typ), `:{`...)
	seen := make(map[ids.UserID]bool)
	for ; i < len(list) && list[i].Event == ev && list[i].Type == typ; i++ {
		r := list[i]
		if seen[r.User] {
			continue
		}
		if len(seen) > 0 {
			b = append(b, ',')
		}
		seen[r.User] = true
		b = append(event.AppendString(b, r.User), `:{"ts":`...)
		b = strconv.AppendInt(b, r.TS, 10)
		if r.Thread != "" {
			b = event.AppendString(append(b, `,"thread_id":`...), r.Thread)
		}
		b = append(b, '}')
	}
	return i, append(b, '}')
}

// appendSummary writes the room's summary. spec: client-server §GET /sync,
// RoomSummary.
func (sec *section) appendSummary(ctx context.Context, b []byte) ([]byte, error) {
	rd := sec.s.h.rooms
	head, err := sec.head(ctx)
	if err != nil || head == nil {
		return b, err
	}
	b = append(b, `,"summary":{`...)
	names, err := rd.StateEvents(ctx, sec.r.id, room.StateKey{Type: event.TypeName}, room.StateKey{Type: event.TypeCanonicalAlias})
	if err != nil {
		return b, err
	}
	if !hasText(names[0], "name") && !hasText(names[1], "alias") {
		heroes, err := sec.heroes(ctx)
		if err != nil {
			return b, err
		}
		b = append(b, `"m.heroes":[`...)
		for i, e := range heroes {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(b, *e.StateKey)
		}
		b = append(b, `],`...)
	}
	b = strconv.AppendInt(append(b, `"m.invited_member_count":`...), int64(head.Invited), 10)
	b = strconv.AppendInt(append(b, `,"m.joined_member_count":`...), int64(head.Joined), 10)
	return append(b, '}'), nil
}

// own is the user's member event, read already as the head is.
func (sec *section) own(ctx context.Context) (*room.Stored, error) {
	if sec.access != nil {
		return sec.access.Member, nil
	}
	return sec.s.h.rooms.StateEvent(ctx, sec.r.id, event.TypeMember, string(sec.s.v.user))
}

// head is the room's, which whoever has asked what the user may see has read already.
func (sec *section) head(ctx context.Context) (*room.Head, error) {
	if sec.access != nil {
		return sec.access.Head, nil
	}
	return sec.s.h.rooms.Head(ctx, sec.r.id)
}

func hasText(e *room.Stored, field string) bool {
	if e == nil {
		return false
	}
	s, _ := event.StringField(e.Content, field)
	return s != ""
}

// heroes returns the member events of those to name the room after: those in it or invited, else
// those who left, without the user.
func (sec *section) heroes(ctx context.Context) ([]*room.Stored, error) {
	var in, out []*room.Stored
	err := sec.s.h.rooms.WalkState(ctx, sec.r.id, event.TypeMember, func(e *room.Stored) bool {
		if ids.UserID(*e.StateKey) == sec.s.v.user {
			return true
		}
		switch e.Member().Membership {
		case event.Join, event.Invite:
			in = append(in, e)
		case event.Leave, event.Ban:
			if len(out) < maxHeroes {
				out = append(out, e)
			}
		}
		return len(in) < maxHeroes
	})
	if len(in) == 0 {
		in = out
	}
	slices.SortFunc(in, func(a, b *room.Stored) int { return int(a.Seq) - int(b.Seq) })
	return in[:min(len(in), maxHeroes)], err
}
