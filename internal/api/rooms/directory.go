package rooms

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

const (
	// maxListing bounds the rooms of one answer of the directory; it is also how
	// many there are if the client does not say.
	maxListing = 100
	// maxMatches bounds the rooms of one partition that a search looks at, of those
	// that one of its words finds.
	maxMatches = 200
	// maxTypes bounds the room types that a query may ask for: each is a list of its
	// own in every partition.
	maxTypes = 20
	// maxSearchBytes is the longest search term: more than anyone types.
	maxSearchBytes = 512
)

// publicRoom is a room in the directory. spec: client-server §PublicRoomsChunk.
type publicRoom struct {
	RoomID        ids.RoomID `json:"room_id"`
	Name          string     `json:"name,omitempty"`
	Topic         string     `json:"topic,omitempty"`
	Alias         string     `json:"canonical_alias,omitempty"`
	AvatarURL     string     `json:"avatar_url,omitempty"`
	Joined        int        `json:"num_joined_members"`
	WorldReadable bool       `json:"world_readable"`
	GuestCanJoin  bool       `json:"guest_can_join"`
	JoinRule      string     `json:"join_rule,omitempty"`
	RoomType      string     `json:"room_type,omitempty"`

	public bool // it is in the server's own directory
}

// listQuery is a request for a part of the directory.
type listQuery struct {
	limit int
	since string
	// words are the folded words to find, nil for all rooms.
	words []string
	// types is nil for all; "" in it stands for rooms without a type.
	types []string
	// network is the directory asked for, the zero Instance for the server's own;
	// allNetworks adds those of all networks to that.
	network     appservice.Instance
	allNetworks bool
}

// ofNetworks reports whether a query asks for directories of other networks.
func (q *listQuery) ofNetworks() bool { return q.network.Service != "" || q.allNetworks }

// getPublicRooms: spec client-server §GET /publicRooms.
func (m *Module) getPublicRooms(r *api.Request) (any, error) {
	limit, err := r.QueryInt("limit", 0, 0, maxListing)
	if err != nil {
		return nil, err
	}
	return m.list(r, listQuery{limit: int(limit), since: r.Query.Get("since")})
}

// queryPublicRooms: spec client-server §POST /publicRooms.
func (m *Module) queryPublicRooms(r *api.Request) (any, error) {
	var req struct {
		Limit  int    `json:"limit"`
		Since  string `json:"since"`
		Filter struct {
			Search string     `json:"generic_search_term"`
			Types  *[]*string `json:"room_types"`
		} `json:"filter"`
		Network     string `json:"third_party_instance_id"`
		AllNetworks bool   `json:"include_all_networks"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if len(req.Filter.Search) > maxSearchBytes {
		return nil, merr.InvalidParamErr("The search term is longer than %d bytes", maxSearchBytes)
	}
	q := listQuery{limit: req.Limit, since: req.Since, words: textindex.Words(req.Filter.Search), allNetworks: req.AllNetworks}
	if req.Network != "" {
		var ok bool
		if q.network, ok = appservice.ParseInstance(req.Network); !ok || q.allNetworks {
			return nil, merr.InvalidParamErr("third_party_instance_id names no network, or stands beside include_all_networks")
		}
	}
	if types := req.Filter.Types; types != nil {
		if len(*types) > maxTypes {
			return nil, merr.InvalidParamErr("More than %d room types", maxTypes)
		}
		q.types = make([]string, len(*types))
		for i, t := range *types {
			if t != nil {
				q.types[i] = *t
			}
		}
	}
	return m.list(r, q)
}

type listAnswer struct {
	Chunk []*publicRoom `json:"chunk"`
	Next  string        `json:"next_batch,omitempty"`
	Prev  string        `json:"prev_batch,omitempty"`
	// Total is nil if it is not known: to count all rooms is to look at them.
	Total *int `json:"total_room_count_estimate,omitzero"`
}

func (m *Module) list(r *api.Request, q listQuery) (any, error) {
	if s := r.Query.Get("server"); s != "" && s != m.Server {
		return nil, merr.NotFoundErr("This server knows of no rooms but its own")
	}
	if q.limit <= 0 || q.limit > maxListing {
		q.limit = maxListing
	}
	since, err := parseListToken(q.since)
	if err != nil {
		return nil, err
	}
	networks, err := m.fromNetworks(r.Context, &q)
	if err != nil {
		return nil, err
	}
	if len(q.words) > 0 {
		return m.searched(r.Context, &q, networks, since)
	}
	list, before, after, err := m.stretch(r.Context, &q, networks, since)
	if err != nil {
		return nil, err
	}
	a, err := m.listed(r.Context, list, before, after)
	if err == nil && !before && !after {
		n := len(a.Chunk)
		a.Total = &n
	}
	return a, err
}

// fromNetworks describes the rooms that application services list, of the types
// asked for; none if the query does not ask for them.
func (m *Module) fromNetworks(ctx context.Context, q *listQuery) ([]*publicRoom, error) {
	if !q.ofNetworks() {
		return nil, nil
	}
	list, err := m.networkRooms(ctx, q)
	if err != nil {
		return nil, err
	}
	rooms, err := m.describeAll(ctx, list)
	return slices.DeleteFunc(rooms, func(p *publicRoom) bool { return !q.hasType(p) }), err
}

// stretch returns the rooms of one page in order, and whether there are others
// before and after it.
func (m *Module) stretch(ctx context.Context, q *listQuery, networks []*publicRoom, since *listToken) (list []room.Listing, before, after bool, err error) {
	// One more than asked for says that there are others on that side. On the other
	// side is where the client comes from.
	ask := room.ListQuery{Types: q.types, Limit: q.limit + 1}
	if since != nil {
		ask.From, ask.Back = &since.Listing, since.back
	}
	if q.network.Service == "" && (q.types == nil || len(q.types) > 0) {
		if list, err = m.Rooms.Listed(ctx, ask); err != nil {
			return nil, false, false, err
		}
	}
	for _, p := range networks {
		l := p.listing()
		if since == nil || since.back == (l.Compare(since.Listing) < 0) && l != since.Listing {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, room.Listing.Compare)
	list = slices.Compact(list)
	more := len(list) > q.limit
	if ask.Back {
		return list[max(0, len(list)-q.limit):], more, true, nil
	}
	return list[:min(len(list), q.limit)], since != nil, more, nil
}

// searched answers a query for rooms that are described by some words. All that
// one of the words finds are looked at, the others in the rooms themselves.
func (m *Module) searched(ctx context.Context, q *listQuery, networks []*publicRoom, since *listToken) (any, error) {
	all := networks
	if q.network.Service == "" {
		found, err := m.Rooms.ListedLike(ctx, textindex.Longest(q.words), maxMatches)
		if err != nil {
			return nil, err
		}
		described, err := m.describeAll(ctx, found)
		if err != nil {
			return nil, err
		}
		all = append(all, slices.DeleteFunc(described, func(p *publicRoom) bool { return !p.public })...)
	}
	var list []room.Listing
	for _, p := range all {
		if q.matches(p) {
			list = append(list, p.listing())
		}
	}
	slices.SortFunc(list, room.Listing.Compare)
	list = slices.Compact(list)
	from, to := since.page(list, q.limit)
	a, err := m.listed(ctx, list[from:to], from > 0, to < len(list))
	if err == nil {
		n := len(list)
		a.Total = &n
	}
	return a, err
}

func (p *publicRoom) listing() room.Listing { return room.Listing{Joined: p.Joined, Room: p.RoomID} }

func (q *listQuery) hasType(p *publicRoom) bool {
	return q.types == nil || slices.Contains(q.types, p.RoomType)
}

// matches reports whether a room is what a query asks for.
func (q *listQuery) matches(p *publicRoom) bool {
	if !q.hasType(p) {
		return false
	}
	var terms []string
	for _, text := range [...]string{p.Name, p.Topic, p.Alias} {
		terms = append(terms, textindex.Prefixes(text, textindex.DescriptionTerms)...)
	}
	return textindex.HavePrefixes(terms, q.words)
}

// listed makes an answer. before and after report whether there are rooms on
// either side.
func (m *Module) listed(ctx context.Context, list []room.Listing, before, after bool) (*listAnswer, error) {
	found := make([]ids.RoomID, len(list))
	for i, l := range list {
		found[i] = l.Room
	}
	rooms, err := m.describeAll(ctx, found)
	if err != nil {
		return nil, err
	}
	a := &listAnswer{Chunk: rooms}
	if len(list) > 0 && after {
		a.Next = listToken{Listing: list[len(list)-1]}.String()
	}
	if len(list) > 0 && before {
		a.Prev = listToken{back: true, Listing: list[0]}.String()
	}
	return a, nil
}

// describeAll describes those of the rooms that have members.
func (m *Module) describeAll(ctx context.Context, rooms []ids.RoomID) ([]*publicRoom, error) {
	heads, err := m.Rooms.Heads(ctx, rooms...)
	if err != nil {
		return nil, err
	}
	out := make([]*publicRoom, 0, len(rooms))
	for _, h := range heads {
		if h == nil || h.Joined == 0 {
			continue // it changed since the directory was read
		}
		p, err := m.describe(ctx, h)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// listedState is the state that the directory and summaries show.
func listedState() []room.StateKey {
	types := [...]string{
		event.TypeCreate, event.TypeName, event.TypeTopic, event.TypeCanonicalAlias, event.TypeAvatar,
		event.TypeJoinRules, event.TypeGuestAccess, event.TypeHistoryVisibility,
	}
	keys := make([]room.StateKey, len(types))
	for i, t := range types {
		keys[i].Type = t
	}
	return keys
}

// describe reads what the directory shows of a room.
func (m *Module) describe(ctx context.Context, h *room.Head) (*publicRoom, error) {
	list, err := m.Rooms.StateEvents(ctx, h.RoomID, listedState()...)
	if err != nil {
		return nil, err
	}
	p := &publicRoom{RoomID: h.RoomID, Joined: h.Joined, JoinRule: string(event.JoinRuleInvite), public: h.Public}
	for _, s := range list {
		if s != nil {
			p.fill(s)
		}
	}
	return p, nil
}

// fill adds what a piece of state says.
func (p *publicRoom) fill(s *room.Stored) {
	member := func(name string) string { v, _ := event.StringField(s.Content, name); return v }
	switch s.Type {
	case event.TypeCreate:
		p.RoomType = s.Create().RoomType
	case event.TypeName:
		p.Name = member("name")
	case event.TypeTopic:
		p.Topic = member("topic")
	case event.TypeCanonicalAlias:
		p.Alias = member("alias")
	case event.TypeAvatar:
		p.AvatarURL = member("url")
	case event.TypeJoinRules:
		p.JoinRule = string(s.JoinRules().Rule)
	case event.TypeGuestAccess:
		p.GuestCanJoin = member("guest_access") == "can_join"
	case event.TypeHistoryVisibility:
		p.WorldReadable = s.HistoryVisibility() == event.VisibilityWorldReadable
	}
}

// listToken names a place in the directory: behind a room or, if back, before it.
// Rooms that come, go and grow meanwhile may be shown twice or not at all; the
// place is found even if its room is gone.
type listToken struct {
	room.Listing
	back bool
}

// String writes the token for clients.
func (t listToken) String() string {
	dir := "n"
	if t.back {
		dir = "p"
	}
	return base64.RawURLEncoding.EncodeToString([]byte(dir + strconv.Itoa(t.Joined) + string(t.Room)))
}

// parseListToken reads a token; "" is the beginning, before any room.
func parseListToken(s string) (*listToken, error) {
	if s == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	dir, id, ok := strings.Cut(string(raw), "!")
	if err != nil || !ok || dir == "" || dir[0] != 'n' && dir[0] != 'p' || len(id) > ids.MaxLength {
		return nil, merr.InvalidParamErr("Unknown token in since")
	}
	joined, err := strconv.Atoi(dir[1:])
	if err != nil || joined < 0 {
		return nil, merr.InvalidParamErr("Unknown token in since").Because(err)
	}
	return &listToken{room.Listing{Joined: joined, Room: ids.RoomID("!" + id)}, dir[0] == 'p'}, nil
}

// page returns which of the rooms follow, or precede, the token's place.
func (t *listToken) page(list []room.Listing, limit int) (from, to int) {
	if t == nil {
		return 0, min(limit, len(list))
	}
	at, found := slices.BinarySearchFunc(list, t.Listing, room.Listing.Compare)
	if t.back {
		return max(0, at-limit), at
	}
	if found {
		at++
	}
	return at, min(at+limit, len(list))
}
