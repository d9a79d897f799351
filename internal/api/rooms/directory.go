package rooms

import (
	"cmp"
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
)

const (
	// maxListing bounds the rooms of one answer of the directory; it is also how
	// many there are if the client does not say.
	maxListing = 100
	// maxListed bounds the rooms of the directory that are sorted, and maxSearched
	// those of them, the largest, that a search reads: an answer is made from
	// what is stored now, so that it is never out of date.
	maxListed   = 50_000
	maxSearched = 5_000
	// headsPage is how many heads are read at a time.
	headsPage = 1000
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
}

// listQuery is a request for a part of the directory.
type listQuery struct {
	limit int
	since string
	// search is lower case, "" for all. types is nil for all; "" in it stands
	// for rooms without a type.
	search string
	types  map[string]bool
	// network is the directory asked for, the zero Instance for the server's own;
	// allNetworks adds those of all networks to that.
	network     appservice.Instance
	allNetworks bool
}

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
	q := listQuery{limit: req.Limit, since: req.Since, search: strings.ToLower(req.Filter.Search), allNetworks: req.AllNetworks}
	if req.Network != "" {
		var ok bool
		if q.network, ok = appservice.ParseInstance(req.Network); !ok || q.allNetworks {
			return nil, merr.InvalidParamErr("third_party_instance_id names no network, or stands beside include_all_networks")
		}
	}
	if req.Filter.Types != nil {
		q.types = make(map[string]bool)
		for _, t := range *req.Filter.Types {
			if t == nil {
				q.types[""] = true
			} else {
				q.types[*t] = true
			}
		}
	}
	return m.list(r, q)
}

type listAnswer struct {
	Chunk []*publicRoom `json:"chunk"`
	Next  string        `json:"next_batch,omitempty"`
	Prev  string        `json:"prev_batch,omitempty"`
	Total int           `json:"total_room_count_estimate"`
}

func (m *Module) list(r *api.Request, q listQuery) (any, error) {
	if s := r.Query.Get("server"); s != "" && s != m.Server {
		return nil, merr.NotFoundErr("This server knows of no rooms but its own")
	}
	if q.limit <= 0 || q.limit > maxListing {
		q.limit = maxListing
	}
	after, err := parseListToken(q.since)
	if err != nil {
		return nil, err
	}
	heads, err := m.listedHeads(r.Context, &q)
	if err != nil {
		return nil, err
	}
	described := make(map[ids.RoomID]*publicRoom)
	if q.search != "" || q.types != nil {
		if heads, err = m.matching(r.Context, heads[:min(len(heads), maxSearched)], q, described); err != nil {
			return nil, err
		}
	}
	from, to := after.page(heads, q.limit)
	a := listAnswer{Chunk: make([]*publicRoom, 0, to-from), Total: len(heads)}
	for _, h := range heads[from:to] {
		p := described[h.RoomID]
		if p == nil {
			if p, err = m.describe(r.Context, h); err != nil {
				return nil, err
			}
		}
		a.Chunk = append(a.Chunk, p)
	}
	if to < len(heads) && to > from {
		a.Next = listToken{joined: heads[to-1].Joined, room: heads[to-1].RoomID}.String()
	}
	if from > 0 && to > from {
		a.Prev = listToken{back: true, joined: heads[from].Joined, room: heads[from].RoomID}.String()
	}
	return a, nil
}

// listedHeads returns the heads of all rooms in the directory asked for that have
// somebody in them, in the order of the directory.
func (m *Module) listedHeads(ctx context.Context, q *listQuery) (all []*room.Head, err error) {
	if q.network.Service == "" {
		if all, err = m.publicHeads(ctx); err != nil {
			return nil, err
		}
	}
	if q.network.Service != "" || q.allNetworks {
		list, err := m.networkRooms(ctx, q)
		if err != nil {
			return nil, err
		}
		if all, err = m.withHeads(ctx, all, list); err != nil {
			return nil, err
		}
	}
	order := func(a, b *room.Head) int { return compareListed(a.Joined, a.RoomID, b.Joined, b.RoomID) }
	slices.SortFunc(all, order)
	return slices.CompactFunc(all, func(a, b *room.Head) bool { return a.RoomID == b.RoomID }), nil
}

// withHeads adds the heads of those rooms that have somebody in them.
func (m *Module) withHeads(ctx context.Context, all []*room.Head, list []ids.RoomID) ([]*room.Head, error) {
	for chunk := range slices.Chunk(list, headsPage) {
		heads, err := m.Rooms.Heads(ctx, chunk...)
		if err != nil {
			return nil, err
		}
		for _, h := range heads {
			if h != nil && h.Joined > 0 {
				all = append(all, h)
			}
		}
	}
	return all, nil
}

// publicHeads returns the heads of the rooms in the server's own directory, in no order.
func (m *Module) publicHeads(ctx context.Context) ([]*room.Head, error) {
	var all []*room.Head
	for p := range m.Rooms.Count() {
		last := ids.RoomID("")
		for len(all) < maxListed {
			page, err := m.Rooms.PublicRooms(ctx, ids.Partition(p), last)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			last = page[len(page)-1]
			if all, err = m.withHeads(ctx, all, page); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// compareListed is the order of the directory: the most members first.
func compareListed(joinedA int, a ids.RoomID, joinedB int, b ids.RoomID) int {
	return cmp.Or(cmp.Compare(joinedB, joinedA), cmp.Compare(a, b))
}

// matching keeps the rooms that a query asks for.
func (m *Module) matching(ctx context.Context, heads []*room.Head, q listQuery, described map[ids.RoomID]*publicRoom) ([]*room.Head, error) {
	var out []*room.Head
	for _, h := range heads {
		p, err := m.describe(ctx, h)
		if err != nil {
			return nil, err
		}
		if q.matches(p) {
			out = append(out, h)
			described[h.RoomID] = p
		}
	}
	return out, nil
}

func (q *listQuery) matches(p *publicRoom) bool {
	if q.types != nil && !q.types[p.RoomType] {
		return false
	}
	for _, s := range [...]string{p.Name, p.Topic, p.Alias} {
		if strings.Contains(strings.ToLower(s), q.search) {
			return true
		}
	}
	return false
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
	p := &publicRoom{RoomID: h.RoomID, Joined: h.Joined, JoinRule: string(event.JoinRuleInvite)}
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
	back   bool
	joined int
	room   ids.RoomID
}

// String writes the token for clients.
func (t listToken) String() string {
	dir := "n"
	if t.back {
		dir = "p"
	}
	return base64.RawURLEncoding.EncodeToString([]byte(dir + strconv.Itoa(t.joined) + string(t.room)))
}

// parseListToken reads a token; "" is the beginning, before any room.
func parseListToken(s string) (*listToken, error) {
	if s == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	dir, id, ok := strings.Cut(string(raw), "!")
	if err != nil || !ok || dir == "" || dir[0] != 'n' && dir[0] != 'p' {
		return nil, merr.InvalidParamErr("Unknown token in since")
	}
	joined, err := strconv.Atoi(dir[1:])
	if err != nil {
		return nil, merr.InvalidParamErr("Unknown token in since").Because(err)
	}
	return &listToken{dir[0] == 'p', joined, ids.RoomID("!" + id)}, nil
}

// page returns the rooms that follow, or precede, the token's place.
func (t *listToken) page(heads []*room.Head, limit int) (from, to int) {
	if t == nil {
		return 0, min(limit, len(heads))
	}
	at, found := slices.BinarySearchFunc(heads, t, func(h *room.Head, t *listToken) int {
		return compareListed(h.Joined, h.RoomID, t.joined, t.room)
	})
	if t.back {
		return max(0, at-limit), at
	}
	if found {
		at++
	}
	return at, min(at+limit, len(heads))
}
