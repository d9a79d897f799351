package feed

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// maxCards bounds the rooms of which a node knows what lists ask, about 200
	// bytes each; beyond it, all is forgotten and read again.
	maxCards = 100_000
	// cardPage is how many events are read at a time to find the last activity of a
	// room, cardPages how many such reads one change is worth. A room that had
	// nothing else for so long keeps its place.
	cardPage  = 50
	cardPages = 4

	typeDirect     = "m.direct"
	typeTags       = "m.tag"
	typeSpaceChild = "m.space.child"
)

// isActivity reports whether events of a type move a room to the front of lists. spec:
// MSC4186, bump_stamp; with the names that polls and places had before.
func isActivity(typ string) bool {
	switch typ {
	case event.TypeCreate, event.TypeMessage, event.TypeEncrypted, "m.sticker", "m.call.invite", "m.poll.start",
		"org.matrix.msc3381.poll.start", "m.beacon_info", "org.matrix.msc3672.beacon_info":
		return true
	}
	return false
}

// roomCard is what lists ask about a room, whoever asks.
type roomCard struct {
	// at is up to where the room is known, last its last event then.
	at, last ids.Seq
	// stamp is when the last activity was, in ms: positions of different partitions
	// cannot be compared.
	stamp     int64
	encrypted bool
	kind      string // its type
}

// roomCards are the cards of rooms that someone here is in.
type roomCards struct {
	mu struct {
		sync.Mutex
		rooms map[ids.RoomID]roomCard
	}
}

// cardsOf returns the cards of rooms. Those that have changed since, as the view knows,
// are read again.
func (h *Hub) cardsOf(ctx context.Context, rooms []*roomState) ([]roomCard, error) {
	out := make([]roomCard, len(rooms))
	var stale []int
	c := &h.cards
	c.mu.Lock()
	for i, r := range rooms {
		if out[i] = c.mu.rooms[r.id]; out[i].at < max(r.last, r.since) || out[i].at == 0 {
			stale = append(stale, i)
		}
	}
	c.mu.Unlock()
	if len(stale) == 0 {
		return out, nil
	}
	var unknown []int
	for _, i := range stale {
		if !h.followCard(rooms[i], &out[i]) {
			unknown = append(unknown, i)
		}
	}
	if err := h.readCards(ctx, rooms, unknown, out); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.rooms == nil || len(c.mu.rooms)+len(stale) > maxCards {
		c.mu.rooms = make(map[ids.RoomID]roomCard)
	}
	for _, at := range stale {
		if c.mu.rooms[rooms[at].id].at <= out[at].at {
			c.mu.rooms[rooms[at].id] = out[at]
		}
	}
	return out, nil
}

// followCard brings a card up to where the view knows its room, by what happened since,
// if that is known.
func (h *Hub) followCard(r *roomState, card *roomCard) bool {
	upTo := max(r.last, r.since)
	if card.at == 0 {
		return false
	}
	list, known := h.eventsOf(r.id, card.at, upTo)
	if !known {
		return false
	}
	for _, e := range list {
		card.encrypted = card.encrypted || e.Is(event.TypeEncryption, "")
		if isActivity(e.Type) {
			card.stamp = e.OriginServerTS
		}
		card.last = e.Seq
	}
	card.at = upTo
	return true
}

// readCards reads the cards at some indexes.
func (h *Hub) readCards(ctx context.Context, rooms []*roomState, at []int, out []roomCard) error {
	if len(at) == 0 {
		return nil
	}
	list := make([]ids.RoomID, len(at))
	for i, n := range at {
		list[i] = rooms[n].id
	}
	heads, err := h.rooms.Heads(ctx, list...)
	if err != nil {
		return err
	}
	for i, n := range at {
		if heads[i] == nil {
			continue
		}
		if err := h.readCard(ctx, list[i], heads[i], &out[n]); err != nil {
			return err
		}
		out[n].at = max(out[n].at, rooms[n].last, rooms[n].since)
	}
	return nil
}

// readCard brings a card up to the head of its room.
func (h *Hub) readCard(ctx context.Context, id ids.RoomID, head *room.Head, card *roomCard) error {
	if head.Last == card.last {
		return nil
	}
	state, err := h.rooms.StateEvents(ctx, id, room.StateKey{Type: event.TypeCreate}, room.StateKey{Type: event.TypeEncryption})
	if err != nil {
		return err
	}
	card.encrypted = state[1] != nil
	if create := state[0]; create != nil {
		card.kind, _ = event.StringField(create.Content, "type")
		card.stamp = max(card.stamp, create.OriginServerTS)
	}
	upTo := head.Last
	for range cardPages {
		page, err := h.rooms.Timeline(ctx, id, room.Page{After: card.last, UpTo: upTo, Limit: cardPage, Newest: true})
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(page, func(e *room.Stored) bool { return isActivity(e.Type) }); i >= 0 {
			card.stamp = page[i].OriginServerTS
			break
		}
		if len(page) < cardPage {
			break
		}
		upTo = page[len(page)-1].Seq - 1
	}
	card.last, card.at = head.Last, max(card.at, head.Last)
	return nil
}

// wanted is a room that can be told: what lists ask of it, and what of the request it
// matches.
type wanted struct {
	r    *roomState
	card roomCard
	// member is the user's place in a room that they are invited to, or knock at.
	member *account.Membership
	limit  int
	states []*RequiredState
	state  *required
	lists  []string
	named  bool // by a subscription
}

func (w *wanted) match(c *RoomConfig) {
	w.limit = max(w.limit, c.Limit)
	w.states = append(w.states, &c.State)
}

// pick finds the rooms that the client looks at.
func (b *slide) pick(ctx context.Context) error {
	b.byRoom = make(map[ids.RoomID]*wanted)
	b.counts = make([]int, len(b.ask.Lists))
	rooms, err := b.candidates(ctx)
	if err != nil {
		return err
	}
	for i := range b.ask.Lists {
		l := &b.ask.Lists[i]
		f, err := b.newListFilter(ctx, &l.Filters)
		if err != nil {
			return err
		}
		for _, w := range rooms {
			ok, err := f.passes(ctx, w)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if l.in(b.counts[i]) {
				w.match(&l.RoomConfig)
				w.lists = append(w.lists, l.Name)
			}
			b.counts[i]++
		}
	}
	states := make(map[string]*required) // rooms of the same lists share one
	for _, w := range rooms {
		if c := b.ask.Subscriptions[w.r.id]; c != nil {
			w.named = true
			w.match(c)
		}
		if len(w.states) == 0 {
			continue
		}
		w.state = newRequired(w.states)
		if old := states[w.state.key]; old != nil {
			w.state = old
		} else {
			w.state = b.conn.internLocked(w.state)
			states[w.state.key] = w.state
		}
		b.wanted = append(b.wanted, w)
		b.byRoom[w.r.id] = w
	}
	return nil
}

// candidates are the rooms that may be told, the last activity first: those that the
// user is in, is invited to or knocks at, and those that they left and the client does
// not know it. Without lists, only the rooms that are named.
func (b *slide) candidates(ctx context.Context) ([]*wanted, error) {
	var out []*wanted
	var known []*roomState
	for i := range b.rooms {
		r := &b.rooms[i]
		if len(b.ask.Lists) == 0 && b.ask.Subscriptions[r.id] == nil {
			continue
		}
		w := &wanted{r: r}
		switch r.membership {
		case event.Join:
			known = append(known, r)
		case event.Invite, event.Knock:
			ok, err := b.readOffer(ctx, w)
			if err != nil {
				return nil, err
			}
			if !ok {
				if w.r, err = b.endedBefore(ctx, r); err != nil {
					return nil, err
				}
				if w.r == nil {
					continue
				}
				known = append(known, w.r)
			}
		default:
			if b.stateOf(r.id) == nil {
				continue
			}
			known = append(known, r)
		}
		out = append(out, w)
	}
	cards, err := b.h.cardsOf(ctx, known)
	if err != nil {
		return nil, err
	}
	for _, w := range out {
		if w.member == nil {
			w.card, cards = cards[0], cards[1:]
		}
		if w.member == nil && w.r.membership != event.Join {
			if err := b.readStamp(ctx, w); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(out, func(x, y *wanted) int {
		return cmp.Or(cmp.Compare(y.card.stamp, x.card.stamp), cmp.Compare(x.r.id, y.r.id))
	})
	return out, nil
}

// endedBefore returns a room whose invite is not told as it was before, if the client knows
// the user in it, or else nil.
func (b *slide) endedBefore(ctx context.Context, r *roomState) (*roomState, error) {
	if sent := b.stateOf(r.id); sent == nil || sent.membership != event.Join || r.membership != event.Invite {
		return nil, nil
	}
	return b.beforeInvite(ctx, r)
}

// readOffer reads what the user may know of a room that they are not in yet. It
// reports false for an invite that they do not want to see.
func (b *slide) readOffer(ctx context.Context, w *wanted) (bool, error) {
	m, err := b.h.accounts.Membership(ctx, b.v.user, w.r.id)
	if err != nil || m == nil || m.Membership != w.r.membership || m.Membership == event.Invite && b.v.hidesInvite(m.Sender) {
		return false, err // or the view is about to hear what came of it
	}
	w.member = m
	if err := b.readStamp(ctx, w); err != nil {
		return false, err
	}
	var stripped []struct {
		Type    string         `json:"type"`
		Content jsontext.Value `json:"content"`
	}
	if len(m.Stripped) > 0 {
		if err := json.Unmarshal(m.Stripped, &stripped); err != nil {
			return true, nil // it says nothing
		}
	}
	for _, s := range stripped {
		switch s.Type {
		case event.TypeEncryption:
			w.card.encrypted = true
		case event.TypeCreate:
			w.card.kind, _ = event.StringField(s.Content, "type")
		}
	}
	return true, nil
}

// readStamp takes for the last activity that of the user's own membership: of what
// comes after it in a room that they are not in they know nothing.
func (b *slide) readStamp(ctx context.Context, w *wanted) error {
	e, err := b.h.rooms.At(ctx, w.r.id, w.r.roomSeq)
	if e != nil {
		w.card.stamp = e.OriginServerTS
	}
	return err
}

// listFilter is the filter of a list with what has to be read for it.
type listFilter struct {
	b *slide
	*SlidingFilters
	// children are the rooms in the spaces.
	children map[ids.RoomID]bool
}

func (b *slide) newListFilter(ctx context.Context, f *SlidingFilters) (*listFilter, error) {
	lf := &listFilter{b: b, SlidingFilters: f}
	if f.Direct != nil {
		if err := b.readDirect(ctx); err != nil {
			return nil, err
		}
	}
	if f.Spaces == nil {
		return lf, nil
	}
	lf.children = make(map[ids.RoomID]bool)
	for i := range b.rooms {
		r := &b.rooms[i]
		if r.membership != event.Join || !slices.Contains(f.Spaces, r.id) {
			continue
		}
		// A child without servers is none any more. spec: client-server §m.space.child.
		err := b.h.rooms.WalkState(ctx, r.id, typeSpaceChild, func(e *room.Stored) bool {
			if _, ok := event.Field(e.Content, "via"); ok {
				lf.children[ids.RoomID(*e.StateKey)] = true
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return lf, nil
}

func (f *listFilter) passes(ctx context.Context, w *wanted) (bool, error) {
	switch {
	case f.Invited != nil && *f.Invited != (w.r.membership == event.Invite),
		f.Encrypted != nil && *f.Encrypted != w.card.encrypted,
		f.Direct != nil && *f.Direct != f.b.direct[w.r.id],
		f.Types != nil && !slices.Contains(f.Types, w.card.kind),
		slices.Contains(f.NotTypes, w.card.kind),
		f.Spaces != nil && !f.children[w.r.id]:
		return false, nil
	case f.Tags == nil && len(f.NotTags) == 0:
		return true, nil
	}
	tags, err := f.b.tags(ctx, w.r.id)
	if err != nil {
		return false, err
	}
	has := func(t string) bool { return tags[t] }
	return (f.Tags == nil || slices.ContainsFunc(f.Tags, has)) && !slices.ContainsFunc(f.NotTags, has), nil
}

// tags are those that the user gave a room. A client may have written anything there;
// then there are none.
func (b *slide) tags(ctx context.Context, id ids.RoomID) (map[string]bool, error) {
	d, err := b.h.accounts.Data(ctx, b.v.user, id, typeTags)
	if err != nil || d == nil {
		return nil, err
	}
	var content struct {
		Tags map[string]jsontext.Value `json:"tags"`
	}
	if json.Unmarshal(d.Content, &content) != nil {
		return nil, nil
	}
	out := make(map[string]bool, len(content.Tags))
	for t := range content.Tags {
		out[t] = true
	}
	return out, nil
}

// readDirect reads which rooms are direct chats, if it is not known. spec:
// client-server §Direct Messaging.
func (b *slide) readDirect(ctx context.Context) error {
	if b.direct != nil {
		return nil
	}
	b.direct = make(map[ids.RoomID]bool)
	d, err := b.h.accounts.Data(ctx, b.v.user, "", typeDirect)
	if err != nil || d == nil {
		return err
	}
	var content map[ids.UserID]jsontext.Value
	if json.Unmarshal(d.Content, &content) != nil {
		return nil
	}
	for _, raw := range content {
		var rooms []ids.RoomID
		if json.Unmarshal(raw, &rooms) != nil {
			continue
		}
		for _, id := range rooms {
			b.direct[id] = true
		}
	}
	return nil
}
