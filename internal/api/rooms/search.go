package rooms

import (
	"cmp"
	"context"
	"encoding/base64"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/search"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

const (
	// defaultHits and maxHits are the results of one answer.
	defaultHits = 10
	maxHits     = 100
	// defaultAround and maxAround are the events of a context on either side.
	defaultAround = 5
	maxAround     = 50
	// maxStateMembers is in how large a room include_state shows all members; of
	// larger ones it shows who sent the results.
	maxStateMembers = 1000
	// maxPredecessors bounds how often a room was replaced.
	maxPredecessors = 20
	// maxFinds bounds how often a search looks further back for a page that is not
	// full: common words that are rarely together. A search by rank orders what it
	// has found then; what is older than that it does not find.
	maxFinds = 5
	// searchWait bounds how long a search waits for the index to have what was
	// committed before it.
	searchWait = time.Second
)

// Searcher finds events by their text.
type Searcher interface {
	Find(ctx context.Context, q *search.Query) (hits []search.Hit, end *search.Place, err error)
	// Await waits until what is committed is indexed, or ctx ends.
	Await(ctx context.Context) error
}

// searchRequest is the room_events category of a search.
type searchRequest struct {
	Term    *string        `json:"search_term"`
	Keys    *[]string      `json:"keys"`
	Filter  jsontext.Value `json:"filter"`
	OrderBy string         `json:"order_by"`
	Context *struct {
		Before  *int `json:"before_limit"`
		After   *int `json:"after_limit"`
		Profile bool `json:"include_profile"`
	} `json:"event_context"`
	State     bool `json:"include_state"`
	Groupings struct {
		GroupBy []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

// searching is a search under way.
type searching struct {
	m      *Module
	caller api.Caller

	words   []string
	keys    search.Keys
	filter  *feed.EventFilter
	limit   int
	byRank  bool
	state   bool
	groups  []string
	around  *around // nil for no context
	token   *searchToken
	ignored map[ids.UserID]struct{}

	// rooms are the rooms of the hits as the caller reads them.
	rooms map[ids.RoomID]*reading
	// end is where the search stopped though there may be more.
	end *search.Place
}

// around is the context wanted.
type around struct {
	before, after int
	profile       bool
}

// search: spec client-server §POST /search.
func (m *Module) search(r *api.Request) (any, error) {
	var req struct {
		Categories *struct {
			RoomEvents *searchRequest `json:"room_events"`
		} `json:"search_categories"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Categories == nil {
		return nil, api.Missing("search_categories")
	}
	if req.Categories.RoomEvents == nil {
		return jsontext.Value(`{"search_categories":{}}`), nil
	}
	s, err := m.newSearch(r, req.Categories.RoomEvents)
	if err != nil {
		return nil, err
	}
	if s.ignored, err = m.ignored(r.Context, r.Caller.User); err != nil {
		return nil, err
	}
	answer, err := s.run(r.Context)
	if err != nil {
		return nil, err
	}
	return map[string]any{"search_categories": map[string]any{"room_events": answer}}, nil
}

// newSearch checks a request.
func (m *Module) newSearch(r *api.Request, req *searchRequest) (*searching, error) {
	s := &searching{m: m, caller: r.Caller, state: req.State, rooms: make(map[ids.RoomID]*reading), filter: &feed.EventFilter{}}
	if req.Term == nil {
		return nil, api.Missing("search_term")
	}
	if len(*req.Term) > maxSearchBytes {
		return nil, merr.InvalidParamErr("The search term is longer than %d bytes", maxSearchBytes)
	}
	if s.words = textindex.Words(*req.Term); len(s.words) > search.MaxWords {
		return nil, merr.InvalidParamErr("A search is for %d words at most", search.MaxWords)
	}
	var err error
	if s.keys, err = searchKeys(req.Keys); err != nil {
		return nil, err
	}
	if len(req.Filter) > 0 && req.Filter.Kind() != 'n' {
		if s.filter, err = feed.ParseEventFilter(req.Filter); err != nil {
			return nil, err
		}
	}
	s.limit = defaultHits
	if s.filter.Limit != nil {
		s.limit = min(max(*s.filter.Limit, 1), maxHits)
	}
	switch req.OrderBy {
	case "", "rank":
		s.byRank = true
	case "recent":
	default:
		return nil, merr.InvalidParamErr("order_by is neither rank nor recent")
	}
	for _, g := range req.Groupings.GroupBy {
		if g.Key != "room_id" && g.Key != "sender" {
			return nil, merr.InvalidParamErr("Results are grouped by room_id and sender only")
		}
		s.groups = append(s.groups, g.Key)
	}
	if c := req.Context; c != nil {
		s.around = &around{before: defaultAround, after: defaultAround, profile: c.Profile}
		for _, l := range [...]struct {
			from *int
			to   *int
		}{{c.Before, &s.around.before}, {c.After, &s.around.after}} {
			if l.from != nil {
				*l.to = min(max(*l.from, 0), maxAround)
			}
		}
	}
	s.token, err = parseSearchToken(r.Query.Get("next_batch"), s.byRank)
	return s, err
}

func searchKeys(list *[]string) (keys search.Keys, err error) {
	if list == nil {
		return search.AllKeys, nil
	}
	for _, k := range *list {
		switch k {
		case "content.body":
			keys |= search.Body
		case "content.name":
			keys |= search.RoomName
		case "content.topic":
			keys |= search.Topic
		default:
			return 0, merr.InvalidParamErr("keys has an unknown key")
		}
	}
	return keys, nil
}

// searchToken is the place behind the last result of a page.
type searchToken struct {
	ByRank bool    `json:"o"`
	Rank   float64 `json:"k,omitzero"`
	// Before is how many results were on the pages before.
	Before int        `json:"n"`
	TS     int64      `json:"t"`
	Room   ids.RoomID `json:"r"`
	Seq    ids.Seq    `json:"s"`
	// Group and Value limit what follows to one group.
	Group string `json:"g,omitempty"`
	Value string `json:"v,omitempty"`
}

func (t *searchToken) place() search.Place { return search.Place{TS: t.TS, Room: t.Room, Seq: t.Seq} }

func parseSearchToken(s string, byRank bool) (*searchToken, error) {
	if s == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	t := &searchToken{}
	if err != nil || json.Unmarshal(raw, t) != nil || t.Before < 0 {
		return nil, merr.InvalidParamErr("Unknown token in next_batch")
	}
	if t.ByRank != byRank {
		return nil, merr.InvalidParamErr("order_by cannot change from one page to the next")
	}
	return t, nil
}

// String writes the token.
func (t searchToken) String() string {
	raw, err := json.Marshal(&t, json.Deterministic(true))
	if err != nil {
		return "" // IDs are valid UTF-8, and ranks finite
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// run makes the answer.
func (s *searching) run(ctx context.Context) (any, error) {
	hits, count, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	page := hits[:min(len(hits), s.limit)]
	results, err := s.results(ctx, page)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"count": count, "highlights": s.highlights(page), "results": results}
	switch {
	case len(page) == s.limit: // there may be more
		answer["next_batch"] = s.next(page[len(page)-1].Place, page[len(page)-1].Rank, len(page), "", "").String()
	case s.end != nil && !s.byRank:
		answer["next_batch"] = s.next(*s.end, 0, len(page), "", "").String()
	}
	if len(s.groups) > 0 {
		groups := make(map[string]any)
		for _, g := range s.groups {
			groups[g] = s.group(g, page, hits[len(page):])
		}
		answer["groups"] = groups
	}
	if s.state {
		if answer["state"], err = s.roomStates(ctx, page); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

func (s *searching) next(last search.Place, rank float64, n int, group, value string) searchToken {
	t := searchToken{ByRank: s.byRank, Before: n, TS: last.TS, Room: last.Room, Seq: last.Seq, Group: group, Value: value}
	if s.byRank {
		t.Rank = rank
	}
	if s.token != nil {
		t.Before += s.token.Before
		if group == "" {
			t.Group, t.Value = s.token.Group, s.token.Value
		}
	}
	return t
}

// find returns what follows the token in the order asked for, and how many results
// there are, as far as is known.
func (s *searching) find(ctx context.Context) (hits []search.Hit, count int, err error) {
	if len(s.words) == 0 || s.keys == 0 {
		return nil, 0, nil
	}
	short, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	if err := s.m.Search.Await(short); err != nil && ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	list, err := s.candidates(ctx)
	if err != nil {
		return nil, 0, err
	}
	q := &search.Query{Words: s.words, Keys: s.keys, Rooms: list, Open: s.open, Pass: s.pass}
	if s.token != nil && !s.byRank {
		place := s.token.place()
		q.After, count = &place, s.token.Before
	}
	for range maxFinds {
		found, end, err := s.m.Search.Find(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		hits, s.end, q.After = append(hits, found...), end, end
		if end == nil || len(hits) >= s.limit {
			break
		}
	}
	count += len(hits)
	if !s.byRank {
		return hits, count, nil
	}
	order := func(a *search.Hit, rank float64, at search.Place) int {
		return cmp.Or(cmp.Compare(rank, a.Rank), a.Compare(at))
	}
	slices.SortFunc(hits, func(a, b search.Hit) int { return order(&a, b.Rank, b.Place) })
	if s.token != nil {
		hits = slices.DeleteFunc(hits, func(h search.Hit) bool { return order(&h, s.token.Rank, s.token.place()) <= 0 })
	}
	return hits, count, nil
}

// candidates lists the rooms to search: those that the caller is or was in, that
// pass the filter. A filter for a room also means those it replaced. spec:
// client-server §Server Side Search.
func (s *searching) candidates(ctx context.Context) ([]ids.RoomID, error) {
	all, err := s.m.Accounts.Memberships(ctx, s.caller.User)
	if err != nil {
		return nil, err
	}
	was := make(map[ids.RoomID]bool, len(all))
	for _, own := range all {
		switch own.Membership {
		case event.Join, event.Leave, event.Ban:
			was[own.Room] = !own.Forgotten
		}
	}
	if s.filter.Rooms != nil {
		wanted := make(map[ids.RoomID]bool)
		for _, id := range *s.filter.Rooms {
			if err := s.addWithPredecessors(ctx, id, was, wanted); err != nil {
				return nil, err
			}
		}
		was = wanted
	}
	var out []ids.RoomID
	for id, in := range was {
		if in && !slices.Contains(s.filter.NotRooms, id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *searching) addWithPredecessors(ctx context.Context, id ids.RoomID, was, wanted map[ids.RoomID]bool) error {
	for range maxPredecessors {
		if !was[id] || wanted[id] {
			return nil
		}
		wanted[id] = true
		create, err := s.m.Rooms.StateEvent(ctx, id, event.TypeCreate, "")
		if err != nil || create == nil {
			return err
		}
		id = create.Create().Predecessor
	}
	return nil
}

// open says what the caller may see of a room: of one that they left, what was
// before.
func (s *searching) open(ctx context.Context, id ids.RoomID) (*room.Access, ids.Seq, error) {
	encrypted, err := s.m.Rooms.StateEvent(ctx, id, event.TypeEncryption, "")
	if err != nil || encrypted != nil {
		return nil, 0, err
	}
	a, err := s.m.access(ctx, id, s.caller.User)
	if err != nil || a == nil {
		return nil, 0, err
	}
	until := a.Left()
	if a.Membership == event.Join {
		until = a.Head.Last
	}
	if until == 0 {
		return nil, 0, nil // was never in it
	}
	s.rooms[id] = &reading{id: id, access: a, until: until, caller: s.caller}
	return a, until, nil
}

// pass reports whether an event is one that was asked for.
func (s *searching) pass(e *room.Stored) bool {
	if _, ignored := s.ignored[e.Sender]; ignored && e.StateKey == nil {
		return false
	}
	if t := s.token; t != nil && (t.Group == "room_id" && t.Value != string(e.RoomID) || t.Group == "sender" && t.Value != string(e.Sender)) {
		return false
	}
	f := *s.filter
	f.Rooms, f.NotRooms = nil, nil // rooms were chosen, with those they replaced
	return f.Event(e)
}

func (s *searching) highlights(page []search.Hit) []string {
	out := []string{}
	for i := range page {
		for _, mark := range page[i].Marks(s.words) {
			if !slices.Contains(out, mark) {
				out = append(out, mark)
			}
		}
	}
	return out
}

// searchGroup is one group of results.
type searchGroup struct {
	Results []ids.EventID `json:"results"`
	Order   int           `json:"order"`
	Next    string        `json:"next_batch,omitempty"`
}

// group groups the results of a page by a key; rest is what follows the page.
func (s *searching) group(by string, page, rest []search.Hit) map[string]*searchGroup {
	of := func(h *search.Hit) string {
		if by == "room_id" {
			return string(h.Room)
		}
		return string(h.Event.Sender)
	}
	groups, last := make(map[string]*searchGroup), make(map[string]*search.Hit)
	for i := range page {
		h := &page[i]
		g := groups[of(h)]
		if g == nil {
			g = &searchGroup{Order: len(groups) + 1}
			groups[of(h)] = g
		}
		g.Results = append(g.Results, h.Event.ID)
		last[of(h)] = h
	}
	for i := range rest {
		value := of(&rest[i])
		if g := groups[value]; g != nil && g.Next == "" {
			g.Next = s.next(last[value].Place, last[value].Rank, len(g.Results), by, value).String()
		}
	}
	return groups
}

// searchResult is one result.
type searchResult struct {
	Rank    float64        `json:"rank"`
	Result  jsontext.Value `json:"result"`
	Context jsontext.Value `json:"context,omitzero"`
}

func (s *searching) results(ctx context.Context, page []search.Hit) ([]searchResult, error) {
	byRoom := make(map[ids.RoomID][]*room.Stored)
	for i := range page {
		byRoom[page[i].Room] = append(byRoom[page[i].Room], page[i].Event)
	}
	for id, events := range byRoom {
		if err := s.m.bundle(ctx, s.rooms[id], s.ignored, events); err != nil {
			return nil, err
		}
	}
	out := make([]searchResult, len(page))
	for i := range page {
		h := &page[i]
		out[i] = searchResult{Rank: math.Round(h.Rank*1e6) / 1e6, Result: s.rooms[h.Room].appendEvent(nil, h.Event)}
	}
	if s.around == nil {
		return out, nil
	}
	for i := range page {
		var err error
		if out[i].Context, err = s.contextOf(ctx, &page[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// contextOf reads what stands around a result.
func (s *searching) contextOf(ctx context.Context, h *search.Hit) (jsontext.Value, error) {
	v := s.rooms[h.Room]
	all := &feed.EventFilter{}
	before := &walk{reading: v, back: true, filter: all, ignored: s.ignored, limit: s.around.before, pos: h.Seq - 1, stop: feed.PageStart}
	after := &walk{reading: v, filter: all, ignored: s.ignored, limit: s.around.after, pos: h.Seq, stop: v.until}
	for _, w := range [...]*walk{before, after} {
		if w.limit > 0 {
			if err := s.m.collect(ctx, w); err != nil {
				return nil, err
			}
		}
	}
	events := slices.Concat([]*room.Stored{h.Event}, before.chunk, after.chunk)
	if err := s.m.bundle(ctx, v, s.ignored, events); err != nil {
		return nil, err
	}
	b := v.appendEvents([]byte(`{"events_before":`), before.chunk)
	b = v.appendEvents(append(b, `,"events_after":`...), after.chunk)
	b = append(append(append(b, `,"start":"`...), feed.PageToken(before.pos)...), '"')
	b = append(append(append(b, `,"end":"`...), feed.PageToken(after.pos)...), '"')
	if s.around.profile {
		members, err := s.m.senders(ctx, v, events)
		if err != nil {
			return nil, err
		}
		profiles, err := json.Marshal(profilesOf(members), json.Deterministic(true))
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"profile_info":`...), profiles...)
	}
	return append(b, '}'), nil
}

type searchProfile struct {
	DisplayName *string `json:"displayname,omitempty"`
	AvatarURL   *string `json:"avatar_url,omitempty"`
}

func profilesOf(members []*room.Stored) map[string]searchProfile {
	out := make(map[string]searchProfile, len(members))
	for _, e := range members {
		c := e.Member()
		out[*e.StateKey] = searchProfile{orNull(c.DisplayName), orNull(c.AvatarURL)}
	}
	return out
}

// roomStates reads the state of the rooms of a page.
func (s *searching) roomStates(ctx context.Context, page []search.Hit) (map[ids.RoomID]jsontext.Value, error) {
	out := make(map[ids.RoomID]jsontext.Value)
	events := make(map[ids.RoomID][]*room.Stored)
	for i := range page {
		events[page[i].Room] = append(events[page[i].Room], page[i].Event)
	}
	for id, list := range events {
		v := s.rooms[id]
		large := v.access.Head.Joined > maxStateMembers
		state, err := s.m.Rooms.StateUpTo(ctx, id, v.until, room.StateOptions{NoMembers: large})
		if err != nil {
			return nil, err
		}
		if large {
			senders, err := s.m.senders(ctx, v, list)
			if err != nil {
				return nil, err
			}
			state = append(state, senders...)
		}
		out[id] = v.appendEvents(nil, state)
	}
	return out, nil
}
