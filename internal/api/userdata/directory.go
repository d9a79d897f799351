package userdata

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// A search looks at all users, one partition after the other, keeps those whose
// name matches, and then asks, the best first, whom of them the caller may see.
// There is no index: the bounds below are what one search may cost, and a search
// that meets one says that its result is limited.
const (
	// maxSearches is how many searches run at once on this node; others wait.
	maxSearches = 2
	// maxSearchUsers is how many users one search looks at: about 50 ms of work.
	maxSearchUsers = 20_000
	// maxSearchLists is how many users' lists of rooms one search reads.
	maxSearchLists = 200
	// maxSearchRooms is how many rooms one search asks whether they are public.
	maxSearchRooms = 2000
	// defaultResults is from the specification, maxResults what a person reads.
	defaultResults = 10
	maxResults     = 50
	// maxTermBytes is the longest term: the longest user ID and a name.
	maxTermBytes = 512
)

type searchAnswer struct {
	Results []foundUser `json:"results"`
	Limited bool        `json:"limited"`
}

type foundUser struct {
	UserID      ids.UserID `json:"user_id"`
	DisplayName string     `json:"display_name,omitempty"`
	AvatarURL   string     `json:"avatar_url,omitempty"`
}

// search: spec client-server §POST /user_directory/search.
func (m *Module) search(r *api.Request) (any, error) {
	var req struct {
		Term  *string `json:"search_term"`
		Limit *int    `json:"limit"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Term == nil {
		return nil, api.Missing("search_term")
	}
	limit := defaultResults
	if req.Limit != nil {
		limit = min(max(*req.Limit, 1), maxResults)
	}
	t := newTerm(*req.Term)
	if len(t.words) == 0 || len(*req.Term) > maxTermBytes {
		return searchAnswer{Results: []foundUser{}}, nil
	}
	select {
	case m.searches <- struct{}{}:
		defer func() { <-m.searches }()
	case <-r.Context.Done():
		return nil, r.Context.Err()
	}
	matches, limited, err := m.matches(r.Context, t, r.Caller.User)
	if err != nil {
		return nil, err
	}
	return m.visible(r.Context, r.Caller.User, matches, limit, limited)
}

// term is what is searched for.
type term struct {
	text  string
	words []string
}

func newTerm(s string) term {
	s = strings.ToLower(strings.TrimSpace(s))
	return term{text: s, words: strings.Fields(s)}
}

// The ranks of matches, the best first.
const (
	rankExact = iota
	rankPrefix
	rankInside
	noMatch
)

// rank says how well a user matches: every word has to occur in the display name
// or the user ID.
func (t term) rank(n *account.Names) int {
	id, name := strings.ToLower(string(n.User)), strings.ToLower(n.DisplayName)
	for _, w := range t.words {
		if !strings.Contains(id, w) && !strings.Contains(name, w) {
			return noMatch
		}
	}
	local := ids.UserID(id).Localpart()
	bare := strings.TrimPrefix(t.text, "@")
	switch {
	case t.text == id, bare == local, t.text == name:
		return rankExact
	case strings.HasPrefix(local, bare), strings.HasPrefix(id, t.text), strings.HasPrefix(name, t.text):
		return rankPrefix
	}
	for i, c := range name {
		if unicode.IsSpace(c) && strings.HasPrefix(strings.TrimSpace(name[i:]), t.text) {
			return rankPrefix
		}
	}
	return rankInside
}

type match struct {
	account.Names
	rank int
}

// matches returns the users that match, the best first, without the caller.
// limited reports that not all users were looked at.
func (m *Module) matches(ctx context.Context, t term, caller ids.UserID) (out []match, limited bool, err error) {
	seen := 0
	add := func(n account.Names) {
		if rank := t.rank(&n); rank != noMatch && n.User != caller {
			out = append(out, match{n, rank})
		}
	}
	for p := range m.Partitions {
		after := ids.UserID("")
		for seen < maxSearchUsers {
			page, err := m.Accounts.Users(ctx, ids.Partition(p), after)
			if err != nil {
				return nil, false, err
			}
			if len(page) == 0 {
				break
			}
			for _, n := range page {
				add(n)
			}
			seen += len(page)
			after = page[len(page)-1].User
		}
	}
	limited = seen >= maxSearchUsers
	if limited {
		if err := m.addNamed(ctx, t, add); err != nil {
			return nil, false, err
		}
	}
	slices.SortFunc(out, func(a, b match) int {
		return cmp.Or(
			cmp.Compare(a.rank, b.rank),
			-cmp.Compare(min(1, len(a.DisplayName)), min(1, len(b.DisplayName))),
			cmp.Compare(a.User, b.User),
		)
	})
	return slices.CompactFunc(out, func(a, b match) bool { return a.User == b.User }), limited, nil
}

// addNamed adds the user whose ID or localpart the term is: that one is found
// however many users there are.
func (m *Module) addNamed(ctx context.Context, t term, add func(account.Names)) error {
	local, _, _ := strings.Cut(strings.TrimPrefix(t.text, "@"), ":")
	user, err := ids.ParseLocalpart(local, m.Server)
	if err != nil {
		return nil // no name that anybody here has
	}
	n, err := m.Accounts.Names(ctx, user)
	if err != nil || n == nil {
		return err
	}
	add(*n)
	return nil
}

// visible picks from matches whom the caller may see: those who share a room with
// them, or are in a room that anybody can join or read.
func (m *Module) visible(ctx context.Context, caller ids.UserID, matches []match, limit int, limited bool) (any, error) {
	joined, err := m.Accounts.Joined(ctx, caller)
	if err != nil {
		return nil, err
	}
	v := &visibility{state: m.State, open: make(map[ids.RoomID]bool, len(joined))}
	for _, r := range joined {
		v.open[r] = true
	}
	out := searchAnswer{Results: []foundUser{}, Limited: limited}
	for i, c := range matches {
		if i == maxSearchLists {
			out.Limited = true
			break
		}
		rooms, err := m.Accounts.Joined(ctx, c.User)
		if err != nil {
			return nil, err
		}
		ok, err := v.anyOpen(ctx, rooms)
		if err != nil {
			return nil, err
		}
		if ok && len(out.Results) == limit {
			out.Limited = true
			break
		}
		if ok {
			out.Results = append(out.Results, foundUser{c.User, c.DisplayName, c.AvatarURL})
		}
	}
	out.Limited = out.Limited || v.asked >= maxSearchRooms
	return out, nil
}

// visibility remembers during one search which rooms show their members.
type visibility struct {
	state RoomState
	open  map[ids.RoomID]bool
	asked int
}

func (v *visibility) anyOpen(ctx context.Context, rooms []ids.RoomID) (bool, error) {
	if slices.ContainsFunc(rooms, func(r ids.RoomID) bool { return v.open[r] }) {
		return true, nil
	}
	for _, r := range rooms {
		if _, known := v.open[r]; known || v.asked >= maxSearchRooms {
			continue
		}
		v.asked++
		list, err := v.state.StateEvents(ctx, r,
			room.StateKey{Type: event.TypeJoinRules}, room.StateKey{Type: event.TypeHistoryVisibility})
		if err != nil {
			return false, err
		}
		v.open[r] = list[0] != nil && list[0].JoinRules().Rule == event.JoinRulePublic ||
			list[1] != nil && list[1].HistoryVisibility() == event.VisibilityWorldReadable
		if v.open[r] {
			return true, nil
		}
	}
	return false, nil
}
