package feed

import (
	"context"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// addSlidingRooms adds what there is to tell of the rooms that the client looks at.
func (b *slide) addSlidingRooms(ctx context.Context, changes []*account.Change) error {
	seen, known := b.since.Typing, b.known
	if b.begins.typing {
		seen, known = 0, false
	}
	b.typers = b.h.typing.changedRooms(b.rooms, seen, known)
	// Direct chats were told as such, or not: look again if the list changed.
	if b.direct == nil && slices.ContainsFunc(changes, func(c *account.Change) bool {
		return c.Kind == account.ChangeAccountData && c.Room == "" && c.Type == typeDirect
	}) {
		if err := b.readDirect(ctx); err != nil {
			return err
		}
	}
	cold, err := b.unchanged(ctx)
	if err != nil {
		return err
	}
	for _, w := range b.wanted {
		sent := b.stateOf(w.r.id)
		switch {
		case w.member != nil:
			b.addOffer(w, sent)
		case w.r.membership != event.Join:
			err = b.addEnd(ctx, w, sent, w.r.roomSeq)
		case !cold[w.r.id] && b.mayHaveNews(w, sent):
			err = b.addStay(ctx, w, sent)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unchanged returns the rooms in which nothing happened although the view, which was
// not there all the time, cannot say so.
func (b *slide) unchanged(ctx context.Context) (map[ids.RoomID]bool, error) {
	var list []ids.RoomID
	for _, w := range b.wanted {
		sent := b.stateOf(w.r.id)
		if w.r.membership == event.Join && sent != nil && !b.hasNews(w, sent) && w.r.since > sent.upTo {
			list = append(list, w.r.id)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	heads, err := b.h.rooms.Heads(ctx, list...)
	if err != nil {
		return nil, err
	}
	out := make(map[ids.RoomID]bool)
	for i, id := range list {
		if h, sent := heads[i], b.stateOf(id); h == nil || max(h.Last, h.LastReceipt) <= sent.upTo {
			out[id] = true
			on := *sent
			on.upTo = max(on.upTo, b.next.At[b.byRoom[id].r.p])
			b.step.rooms[id] = &on
		}
	}
	return out, nil
}

// hasNews reports whether there is something to look for in a room that the user is
// in, as far as the view knows.
func (b *slide) hasNews(w *wanted, sent *sentRoom) bool {
	return sent == nil || sent.membership != event.Join || sent.joined != w.r.joined || !sent.watched ||
		w.r.last > sent.upTo || w.limit > sent.limit || w.state.key != sent.state.key ||
		b.typers[w.r.id] || b.data[w.r.id] != nil ||
		b.direct != nil && b.direct[w.r.id] != sent.direct ||
		b.begins.data || b.begins.receipts || b.begins.typing
}

// mayHaveNews is hasNews where the view does not know.
func (b *slide) mayHaveNews(w *wanted, sent *sentRoom) bool {
	return b.hasNews(w, sent) || w.r.since > sent.upTo && b.next.At[w.r.p] > sent.upTo
}

// stay is what a response tells of a room that the user is in, or was.
type stay struct {
	*section
	w    *wanted
	sent *sentRoom // nil if nothing
	// grown: the timeline reaches further back than what the client has.
	grown bool
	// upTo is how far the client knows the room.
	upTo   ids.Seq
	change *stateChange
	tally  tally
	direct bool
}

// addStay adds a room that the user is in.
func (b *slide) addStay(ctx context.Context, w *wanted, sent *sentRoom) error {
	st := &stay{section: &section{s: b.syncer, r: w.r, to: b.next.At[w.r.p], limit: w.limit}, w: w, sent: sent}
	st.fresh = sent == nil || sent.membership != event.Join || sent.joined != w.r.joined
	if !st.fresh {
		st.upTo, st.from = sent.upTo, sent.upTo
		st.grown = w.limit > sent.limit
	}
	if st.fresh || st.grown {
		a, err := b.h.rooms.Access(ctx, w.r.id, b.v.user)
		if err != nil || a == nil {
			return err
		}
		st.access = a
	}
	left, err := st.leftBehindIndex(ctx)
	if err != nil {
		return err
	}
	if left > 0 {
		b.v.noteLeft(w.r.id, left)
		return b.addEnd(ctx, w, sent, left)
	}
	if st.access != nil {
		st.from = 0
	}
	if err := st.read(ctx, b); err != nil {
		return err
	}
	body, any, err := st.encode(ctx, b)
	if err != nil {
		return err
	}
	if any {
		addRoom(&b.parts.rooms, w.r.id, body)
	}
	if err := b.addRoomExtensions(ctx, st); err != nil {
		return err
	}
	if st.fresh {
		b.step.renewed = append(b.step.renewed, w.r.id)
	}
	b.step.lazy = append(b.step.lazy, b.out.lazy...)
	b.out.lazy = nil
	now := st.after()
	if !any && sent != nil && !st.fresh {
		now.bump = sent.bump // it goes with the next thing that is told
	}
	b.step.rooms[w.r.id] = now
	return nil
}

// read collects what there is to tell.
func (st *stay) read(ctx context.Context, b *slide) error {
	if err := st.readTimeline(ctx); err != nil {
		return err
	}
	var has *required
	if !st.fresh {
		has = st.sent.state
	}
	var err error
	if st.change, err = st.readRequired(ctx, st.w.state, has, st.upTo); err != nil {
		return err
	}
	st.members = st.change.has(event.TypeMember)
	unread, err := b.v.unread(ctx, st.r, st.to, true)
	if err != nil {
		return err
	}
	st.tally = unread.tally
	if st.fresh {
		if err := b.readDirect(ctx); err != nil {
			return err
		}
	}
	switch {
	case b.direct != nil:
		st.direct = b.direct[st.r.id]
	default:
		st.direct = st.sent.direct
	}
	if st.limited || st.fresh || st.grown {
		st.bundled, err = b.h.rooms.Aggregate(ctx, st.r.id, st.onlooker(), st.events)
	}
	return err
}

// after is what the client was told of the room then.
func (st *stay) after() *sentRoom {
	now := &sentRoom{
		membership: event.Join, joined: st.r.joined, upTo: st.to, limit: st.w.limit, state: st.w.state,
		bump: st.w.card.stamp, tally: st.tally, direct: st.direct, watched: true,
	}
	switch {
	case (st.fresh || st.grown) && !st.limited:
		now.limit = MaxTimeline // it has everything
	case !st.fresh && !st.grown && !st.limited:
		now.limit = st.sent.limit
	}
	return now
}

// encode writes the room; any is false if there is nothing to tell.
func (st *stay) encode(ctx context.Context, b *slide) (out []byte, any bool, err error) {
	moved := st.fresh || st.direct != st.sent.direct || st.tally != st.sent.tally
	any = moved || st.grown || len(st.events)+len(st.change.list) > 0 || st.limited || st.members ||
		st.change.has(event.TypeName, event.TypeAvatar, event.TypeCanonicalAlias)
	if !any {
		return nil, false, nil
	}
	out = append(make([]byte, 0, 1024), `{"membership":"join"`...)
	if st.fresh {
		out = append(out, `,"initial":true`...)
	}
	if st.fresh || st.w.card.stamp != st.sent.bump {
		out = strconv.AppendInt(append(out, `,"bump_stamp":`...), st.w.card.stamp, 10)
	}
	out = st.w.appendLists(out)
	if out, err = st.appendNames(ctx, out); err != nil {
		return nil, false, err
	}
	if st.fresh && st.direct || !st.fresh && st.direct != st.sent.direct {
		out = strconv.AppendBool(append(out, `,"is_dm":`...), st.direct)
	}
	if st.fresh || st.tally != st.sent.tally {
		out = strconv.AppendInt(append(out, `,"notification_count":`...), int64(st.tally.notify), 10)
		out = strconv.AppendInt(append(out, `,"highlight_count":`...), int64(st.tally.highlight), 10)
	}
	return append(st.appendEvents(out, b), '}'), true, nil
}

// appendLists names the lists that the room is in, where a client may ask what it is
// in.
func (w *wanted) appendLists(b []byte) []byte {
	if len(w.lists) == 0 {
		return b
	}
	b = append(b, `,"lists":[`...)
	for i, l := range w.lists {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, l)
	}
	return append(b, ']')
}

// appendNames writes by what the room is known: its name and picture, the heroes of
// one without a name, and how many are in it. Of these, what may have changed.
func (st *stay) appendNames(ctx context.Context, b []byte) ([]byte, error) {
	named := st.change.has(event.TypeName)
	if named || st.change.has(event.TypeAvatar) || st.members {
		state, err := st.s.h.rooms.StateEvents(ctx, st.r.id, room.StateKey{Type: event.TypeName}, room.StateKey{Type: event.TypeAvatar})
		if err != nil {
			return nil, err
		}
		if named {
			b = st.appendText(b, "name", state[0], "name")
		}
		if st.change.has(event.TypeAvatar) {
			b = st.appendText(b, "avatar", state[1], "url")
		}
		if !hasText(state[0], "name") {
			heroes, err := st.heroes(ctx)
			if err != nil {
				return nil, err
			}
			b = appendHeroes(b, heroes)
		}
	}
	if !st.members {
		return b, nil
	}
	head, err := st.s.h.rooms.Head(ctx, st.r.id)
	if err != nil || head == nil {
		return b, err
	}
	b = strconv.AppendInt(append(b, `,"joined_count":`...), int64(head.Joined), 10)
	return strconv.AppendInt(append(b, `,"invited_count":`...), int64(head.Invited), 10), nil
}

// appendText writes a text of the state; null if it is gone.
func (st *stay) appendText(b []byte, member string, e *room.Stored, field string) []byte {
	if !hasText(e, field) {
		if st.fresh {
			return b
		}
		return append(event.AppendString(append(b, ','), member), `:null`...)
	}
	text, _ := event.StringField(e.Content, field)
	b = append(event.AppendString(append(b, ','), member), ':')
	return event.AppendString(b, text)
}

func appendHeroes(b []byte, heroes []*room.Stored) []byte {
	b = append(b, `,"heroes":[`...)
	for i, e := range heroes {
		if i > 0 {
			b = append(b, ',')
		}
		m := e.Member()
		b = event.AppendString(append(b, `{"user_id":`...), *e.StateKey)
		if m.DisplayName != "" {
			b = event.AppendString(append(b, `,"displayname":`...), m.DisplayName)
		}
		if m.AvatarURL != "" {
			b = event.AppendString(append(b, `,"avatar_url":`...), m.AvatarURL)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendEvents writes the state and the timeline, where there is any.
func (st *stay) appendEvents(out []byte, b *slide) []byte {
	if len(st.change.list) > 0 {
		out = append(st.appendStates(append(out, `,"required_state":[`...), st.change.list), ']')
	}
	if len(st.events) == 0 && !st.limited && !st.fresh {
		return out
	}
	names := unstableNames
	if b.ask.Stable {
		names = stableNames
	}
	if st.grown {
		out = append(event.AppendString(append(out, ','), names.expanded), `:true`...)
	}
	out = append(event.AppendString(append(out, ','), names.timeline), `:[`...)
	live := 0
	for i, e := range slices.Backward(st.events) {
		out = st.s.appendEvent(out, e, st.viewer(e))
		if i > 0 {
			out = append(out, ',')
		}
		if st.isLive(e, b) {
			live++
		}
	}
	out = strconv.AppendInt(append(out, `],"num_live":`...), int64(live), 10)
	if st.limited {
		out = append(out, `,"limited":true`...)
	}
	out = append(append(out, `,"prev_batch":"`...), PageToken(st.start())...)
	return append(out, '"')
}

// isLive: it happened since the last response. spec: MSC4186, num_live.
func (st *stay) isLive(e *room.Stored, b *slide) bool {
	if st.fresh {
		return !b.first && e.Seq > b.since.At[st.r.p]
	}
	return e.Seq > st.upTo
}

// slidingNames are the names of members that changed when the proposal did.
type slidingNames struct{ timeline, expanded, stripped string }

var (
	unstableNames = slidingNames{"timeline", "unstable_expanded_timeline", "invite_state"}
	stableNames   = slidingNames{"timeline_events", "expanded_timeline", "stripped_state"}
)

// addOffer adds a room that the user is invited to or knocks at, once: the state that
// goes with it, and nothing else of the room.
func (b *slide) addOffer(w *wanted, sent *sentRoom) {
	if sent != nil && sent.membership == w.r.membership && sent.upTo == w.r.roomSeq {
		if !sent.watched {
			again := *sent
			again.watched = true
			b.step.rooms[w.r.id] = &again
		}
		return
	}
	name := unstableNames.stripped // of knocks too, which clients tell apart by the membership in it
	if b.ask.Stable {
		name = stableNames.stripped
	}
	stripped := w.member.Stripped
	if stripped == nil {
		stripped = []byte("[]")
	}
	body := event.AppendString([]byte(`{"initial":true,"membership":`), w.r.membership)
	body = append(event.AppendString(append(body, ','), name), ':')
	body = append(append(body, stripped...), `,"bump_stamp":`...)
	body = w.appendLists(strconv.AppendInt(body, w.card.stamp, 10))
	addRoom(&b.parts.rooms, w.r.id, append(body, '}'))
	b.step.rooms[w.r.id] = &sentRoom{membership: w.r.membership, upTo: w.r.roomSeq, state: w.state, watched: true}
}

// addEnd tells a client that knows a room that the user is no longer in it, by their
// event at a position: what happened up to then, if they were, and their own event.
// Then the room is forgotten, and is not in lists any more.
func (b *slide) addEnd(ctx context.Context, w *wanted, sent *sentRoom, at ids.Seq) error {
	if sent == nil {
		return nil // of a room that the client does not know it need not know the end
	}
	a, err := b.h.rooms.Access(ctx, w.r.id, b.v.user)
	if err != nil || a == nil {
		return err
	}
	m, err := b.h.accounts.Membership(ctx, b.v.user, w.r.id)
	if err != nil {
		return err
	}
	own, err := b.h.rooms.At(ctx, w.r.id, at)
	if err != nil {
		return err
	}
	st := &stay{section: &section{s: b.syncer, r: w.r, to: at, access: a, limit: w.limit}, w: w, sent: sent, upTo: at - 1, change: &stateChange{}}
	was := sent.membership == event.Join && (m == nil || !m.Forgotten)
	if was {
		st.upTo = min(sent.upTo, at-1)
	}
	st.from = st.upTo
	if err := st.readTimeline(ctx); err != nil {
		return err
	}
	if was {
		if st.change, err = st.readRequired(ctx, w.state, sent.state, st.upTo); err != nil {
			return err
		}
	}
	membership := event.Leave
	if own != nil {
		st.change.list = onceEach(append(st.change.list, own))
		membership = own.Member().Membership
	}
	body := event.AppendString([]byte(`{"membership":`), membership)
	body = strconv.AppendInt(append(body, `,"bump_stamp":`...), w.card.stamp, 10)
	body = st.appendEvents(w.appendLists(body), b)
	addRoom(&b.parts.rooms, w.r.id, append(body, '}'))
	b.out.lazy = nil
	b.step.rooms[w.r.id] = nil
	b.step.renewed = append(b.step.renewed, w.r.id)
	return nil
}
