package userdata

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// A search asks two indexes by one of its words: of each room that the caller is
// in, by name of its members, and of all users. Whom the first finds may be seen;
// of whom only the second finds it is asked whether they are in a room that anyone
// may join or read. What a search costs depends on the rooms of the caller and the
// bounds below, never on how many users or rooms there are. A search that meets a
// bound says that its result is limited.
const (
	// maxSearches is how many searches run at once on this node; others wait.
	maxSearches = 2
	// maxRoomIndexes is how many rooms of the caller one search asks, and
	// maxOfRoom how many members it takes from each.
	maxRoomIndexes = 1000
	maxOfRoom      = 50
	// maxShared is how many users one search takes from all these rooms together,
	// maxFound from the index of all.
	maxShared = 1000
	maxFound  = 500
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
	t := m.newTerm(*req.Term)
	if len(t.words) == 0 || len(*req.Term) > maxTermBytes {
		return searchAnswer{Results: []foundUser{}}, nil
	}
	select {
	case m.searches <- struct{}{}:
		defer func() { <-m.searches }()
	case <-r.Context.Done():
		return nil, r.Context.Err()
	}
	f := &finder{m: m, term: t, caller: r.Caller.User, open: make(map[ids.RoomID]bool)}
	return f.search(r.Context, limit)
}

// term is what is searched for.
type term struct {
	text  string   // folded
	words []string // folded
	// exact is the user that the term names in full, "" if it does not.
	exact ids.UserID
}

func (m *Module) newTerm(s string) term {
	s = strings.TrimSpace(s)
	if user, err := ids.ParseUserID(s); err == nil {
		return term{exact: user, words: textindex.Words(user.Localpart())}
	}
	s = strings.TrimPrefix(s, "@")
	s = strings.TrimSuffix(s, ":"+m.Server)
	return term{text: textindex.Fold(s), words: textindex.Words(s)}
}

// The ranks of matches, the best first.
const (
	rankExact = iota
	rankPrefix
	rankWords
	noMatch
)

// rank says how well a user matches: every word has to begin a word of the display
// name or of the localpart.
func (t term) rank(n *account.Names) int {
	if t.exact != "" {
		if n.User == t.exact {
			return rankExact
		}
		return noMatch
	}
	if !textindex.HavePrefixes(room.NameTerms(n.User, n.DisplayName), t.words) {
		return noMatch
	}
	local, name := textindex.Fold(n.User.Localpart()), textindex.Fold(n.DisplayName)
	switch {
	case t.text == local, t.text == name:
		return rankExact
	case strings.HasPrefix(local, t.text), strings.HasPrefix(name, t.text), strings.Contains(name, " "+t.text):
		return rankPrefix
	}
	return rankWords
}

type match struct {
	account.Names
	rank int
}

// finder is one search.
type finder struct {
	m       *Module
	term    term
	caller  ids.UserID
	limited bool

	// shared are the users found in rooms of the caller, who are in those rooms.
	shared map[ids.UserID]bool
	// open remembers which rooms show their members.
	open  map[ids.RoomID]bool
	asked int
}

func (f *finder) search(ctx context.Context, limit int) (any, error) {
	matches, err := f.matches(ctx)
	if err != nil {
		return nil, err
	}
	out := searchAnswer{Results: []foundUser{}}
	lists := 0
	for _, c := range matches {
		ok := f.m.SearchAll || f.shared[c.User]
		if !ok {
			if lists == maxSearchLists {
				f.limited = true
				continue
			}
			lists++
			if ok, err = f.mayMeet(ctx, c.User); err != nil {
				return nil, err
			}
		}
		if ok && len(out.Results) == limit {
			f.limited = true
			break
		}
		if ok {
			out.Results = append(out.Results, foundUser{c.User, c.DisplayName, c.AvatarURL})
		}
	}
	out.Limited = f.limited
	return out, nil
}

// matches returns the users that match, the best first, without the caller.
func (f *finder) matches(ctx context.Context) ([]match, error) {
	found, err := f.candidates(ctx)
	if err != nil {
		return nil, err
	}
	names, err := f.m.Accounts.NamesOf(ctx, found)
	if err != nil {
		return nil, err
	}
	var out []match
	for _, n := range names {
		if rank := f.term.rank(&n); rank != noMatch && n.User != f.caller {
			out = append(out, match{n, rank})
		}
	}
	slices.SortFunc(out, func(a, b match) int {
		return cmp.Or(
			cmp.Compare(a.rank, b.rank),
			-cmp.Compare(min(1, len(a.DisplayName)), min(1, len(b.DisplayName))),
			cmp.Compare(a.User, b.User),
		)
	})
	return out, nil
}

// candidates asks the indexes by the longest word, each user once.
func (f *finder) candidates(ctx context.Context) ([]ids.UserID, error) {
	rooms, err := f.m.Accounts.Joined(ctx, f.caller)
	if err != nil {
		return nil, err
	}
	for _, r := range rooms {
		f.open[r] = true
	}
	if f.term.exact != "" {
		return []ids.UserID{f.term.exact}, nil
	}
	word := textindex.Longest(f.term.words)
	f.shared = make(map[ids.UserID]bool)
	var out []ids.UserID
	f.limited = len(rooms) > maxRoomIndexes
	for _, r := range rooms[:min(len(rooms), maxRoomIndexes)] {
		if len(out) >= maxShared {
			f.limited = true
			break
		}
		list, more, err := f.m.State.MembersNamed(ctx, r, word, maxOfRoom)
		if err != nil {
			return nil, err
		}
		f.limited = f.limited || more
		for _, u := range list {
			if !f.shared[u] {
				f.shared[u] = true
				out = append(out, u)
			}
		}
	}
	all, more, err := f.m.Accounts.UsersNamed(ctx, word, maxFound)
	f.limited = f.limited || more
	for _, u := range all {
		if !f.shared[u] {
			out = append(out, u)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// mayMeet reports whether a user is in a room of the caller's, or in one that
// anyone may join or read. spec: client-server §POST /user_directory/search.
func (f *finder) mayMeet(ctx context.Context, user ids.UserID) (bool, error) {
	rooms, err := f.m.Accounts.Joined(ctx, user)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(rooms, func(r ids.RoomID) bool { return f.open[r] }) {
		return true, nil
	}
	for _, r := range rooms {
		if _, known := f.open[r]; known {
			continue
		}
		if f.asked++; f.asked > maxSearchRooms {
			f.limited = true
			return false, nil
		}
		list, err := f.m.State.StateEvents(ctx, r,
			room.StateKey{Type: event.TypeJoinRules}, room.StateKey{Type: event.TypeHistoryVisibility})
		if err != nil {
			return false, err
		}
		f.open[r] = list[0] != nil && list[0].JoinRules().Rule == event.JoinRulePublic ||
			list[1] != nil && list[1].HistoryVisibility() == event.VisibilityWorldReadable
		if f.open[r] {
			return true, nil
		}
	}
	return false, nil
}
