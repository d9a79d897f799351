package admin

import (
	"context"
	"maps"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func (m *Module) roomRoutes() []api.Route {
	const one = v1 + "/rooms/{roomId}"
	return []api.Route{
		{Method: get, Path: v1 + "/rooms", Rate: api.RateRead, Handle: m.rooms},
		{Method: get, Path: one, Rate: api.RateRead, Handle: m.room},
		{Method: get, Path: one + "/members", Rate: api.RateRead, Handle: m.members},
		{Method: get, Path: one + "/state", Rate: api.RateRead, Handle: m.state},
		{Method: get, Path: one + "/messages", Rate: api.RateRead, Handle: m.messages},
		{Method: post, Path: one + "/make_room_admin", Rate: api.RateWrite, Handle: m.makeRoomAdmin},
		{Method: post, Path: v1 + "/join/{roomIdOrAlias}", Rate: api.RateWrite, Handle: m.join},
	}
}

// existingRoom reads the room of the path: 404 M_NOT_FOUND if there is none.
func (m *Module) existingRoom(r *api.Request) (*room.Head, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	h, err := m.Rooms.Head(r.Context, id)
	if err == nil && h == nil {
		err = merr.NotFoundErr("No such room")
	}
	return h, err
}

type roomAnswer struct {
	ID         ids.RoomID `json:"room_id"`
	Name       *string    `json:"name"`
	Alias      *string    `json:"canonical_alias"`
	Joined     int        `json:"joined_members"`
	Local      int        `json:"joined_local_members"`
	Version    string     `json:"version"`
	Creator    ids.UserID `json:"creator"`
	Encryption *string    `json:"encryption"`
	Federate   bool       `json:"federatable"`
	Public     bool       `json:"public"`
	JoinRules  *string    `json:"join_rules"`
	Guests     *string    `json:"guest_access"`
	History    *string    `json:"history_visibility"`
	Type       *string    `json:"room_type"`
	Topic      *string    `json:"topic"`
	Avatar     *string    `json:"avatar"`
}

// describeRoom reads what a list shows of a room.
func (m *Module) describeRoom(ctx context.Context, h *room.Head) (*roomAnswer, error) {
	a := &roomAnswer{
		ID: h.RoomID, Joined: h.Joined, Local: h.Joined, Version: h.Version.ID, Creator: h.Creator, Public: h.Public,
	}
	fields := []struct {
		to        **string
		typ, name string
	}{
		{&a.Name, event.TypeName, "name"},
		{&a.Alias, event.TypeCanonicalAlias, "alias"},
		{&a.Encryption, event.TypeEncryption, "algorithm"},
		{&a.JoinRules, event.TypeJoinRules, "join_rule"},
		{&a.Guests, event.TypeGuestAccess, "guest_access"},
		{&a.History, event.TypeHistoryVisibility, "history_visibility"},
		{&a.Type, event.TypeCreate, "type"},
		{&a.Topic, event.TypeTopic, "topic"},
		{&a.Avatar, event.TypeAvatar, "url"},
	}
	keys := make([]room.StateKey, len(fields))
	for i, f := range fields {
		keys[i] = room.StateKey{Type: f.typ}
	}
	list, err := m.Rooms.StateEvents(ctx, h.RoomID, keys...)
	if err != nil {
		return nil, err
	}
	for i, s := range list {
		if s == nil {
			continue
		}
		if text, ok := event.StringField(s.Content, fields[i].name); ok {
			*fields[i].to = &text
		}
	}
	return a, nil
}

// matches reports whether a room belongs to the answer of a search.
func (a *roomAnswer) matches(term string) bool {
	if term == "" || string(a.ID) == term {
		return true
	}
	in := func(s *string) bool { return s != nil && strings.Contains(strings.ToLower(*s), strings.ToLower(term)) }
	return in(a.Name) || in(a.Alias)
}

// rooms lists rooms by ID.
func (m *Module) rooms(r *api.Request) (any, error) {
	p, err := page(r)
	if err != nil {
		return nil, err
	}
	public, err := r.QueryEnum("public_rooms", "", "true", "false")
	if err != nil {
		return nil, err
	}
	empty, err := r.QueryEnum("empty_rooms", "", "true", "false")
	if err != nil {
		return nil, err
	}
	term := r.Query.Get("search_term")
	out := []*roomAnswer{}
	next, more, err := m.list(r.Context, tables.Rooms, &p, func(name string) (bool, error) {
		h, err := m.Rooms.Head(r.Context, ids.RoomID(name))
		if err != nil || h == nil {
			return false, err
		}
		if public != "" && (public == "true") != h.Public || empty != "" && (empty == "true") != (h.Joined == 0) {
			return false, nil
		}
		if p.skip > 0 && term == "" {
			p.skip--
			return true, nil
		}
		a, err := m.describeRoom(r.Context, h)
		if err != nil || !a.matches(term) {
			return false, err
		}
		if p.skip > 0 {
			p.skip--
			return true, nil
		}
		out = append(out, a)
		return true, nil
	}, func() int { return len(out) })
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"rooms": out, "offset": p.prefix, "total_rooms": p.prefix + int64(len(out)) + more}
	if next != "" {
		answer["next_batch"] = next
	}
	return answer, nil
}

func (m *Module) room(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	return m.describeRoom(r.Context, h)
}

func (m *Module) members(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	list, err := m.Rooms.Members(r.Context, h.RoomID, h.Last)
	if list == nil {
		list = []ids.UserID{}
	}
	return map[string]any{"members": list, "total": len(list)}, err
}

// appendEvents appends a JSON array of events, as nobody in particular sees them.
func appendEvents(b []byte, list []*room.Stored) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.AppendClient(b, room.Viewer{RoomID: true})
	}
	return append(b, ']')
}

func (m *Module) state(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	wanted := r.Query.Get("type")
	var list []*room.Stored
	if len(wanted) <= event.MaxFieldSize {
		err = m.Rooms.WalkState(r.Context, h.RoomID, wanted, func(s *room.Stored) bool {
			list = append(list, s)
			return true
		})
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"state": jsontext.Value(appendEvents(nil, list))}, nil
}

// messages pages through a room as /messages does, and shows all of it.
func (m *Module) messages(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	dir, err := r.QueryEnum("dir", "f", "b")
	if err != nil {
		return nil, err
	}
	limit, err := r.QueryInt("limit", 10, 1, maxPage)
	if err != nil {
		return nil, err
	}
	from := h.Last
	if dir == "f" {
		from = 0
	}
	if token := r.Query.Get("from"); token != "" {
		if from, err = feed.ParsePage(token, ids.PartitionOf(string(h.RoomID), m.Count), m.Count); err != nil {
			return nil, merr.InvalidParamErr("from is not a token").Because(err)
		}
	}
	pg := room.Page{After: from, UpTo: h.Last, Limit: int(limit)}
	if dir == "b" {
		pg = room.Page{UpTo: from, Limit: int(limit), Newest: true}
	}
	list, err := m.Rooms.Timeline(r.Context, h.RoomID, pg)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"chunk": jsontext.Value(appendEvents(nil, list)), "start": feed.PageToken(from)}
	if len(list) == int(limit) {
		end := list[len(list)-1].Seq
		if dir == "b" {
			end--
		}
		answer["end"] = feed.PageToken(end)
	}
	return answer, nil
}

// join brings a user into a room: as they could come in themselves, or invited by
// the administrator who asks.
func (m *Module) join(r *api.Request) (any, error) {
	var req struct {
		User ids.UserID `json:"user_id"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.User == "" {
		return nil, api.Missing("user_id")
	}
	a, err := m.Accounts.Account(r.Context, req.User)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Deactivated {
		return nil, merr.NotFoundErr("No such user")
	}
	target := r.Param("roomIdOrAlias")
	joined, err := m.as(r, req.User, post, clientV3("join", target), struct{}{})
	if !merr.Is(err, merr.Forbidden) {
		return joined, err
	}
	id := ids.RoomID(target)
	if strings.HasPrefix(target, "#") {
		t, err := m.Rooms.Alias(r.Context, ids.RoomAlias(target))
		if err != nil || t == nil {
			return nil, err
		}
		id = t.Room
	}
	invite := map[string]ids.UserID{"user_id": req.User}
	if _, err := m.as(r, r.Caller.User, post, clientV3("rooms", string(id), "invite"), invite); err != nil {
		return nil, err
	}
	return m.as(r, req.User, post, clientV3("join", target), struct{}{})
}

// makeRoomAdmin gives a user all the power that a member of the room can give, and
// brings them in if need be.
func (m *Module) makeRoomAdmin(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		User ids.UserID `json:"user_id"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.User == "" {
		req.User = r.Caller.User
	}
	giver, power, err := m.strongest(r.Context, h)
	if err != nil {
		return nil, err
	}
	if h.Version.CreatorPower && req.User == h.Creator {
		return api.Empty, m.bringIn(r, h.RoomID, giver, req.User) // has more than any number
	}
	levels, err := m.Rooms.StateEvent(r.Context, h.RoomID, event.TypePowerLevels, "")
	if err != nil {
		return nil, err
	}
	content := map[string]jsontext.Value{}
	if levels != nil {
		if err := api.DecodeJSON(levels.Content, &content); err != nil {
			return nil, err
		}
	}
	users := map[ids.UserID]int64{}
	if raw := content["users"]; raw != nil {
		if err := api.DecodeJSON(raw, &users); err != nil {
			return nil, err
		}
	}
	users[req.User] = power
	body := map[string]any{}
	for k, v := range content {
		body[k] = v
	}
	body["users"] = users
	if _, err := m.as(r, giver, put, clientV3("rooms", string(h.RoomID), "state", event.TypePowerLevels)+"/", body); err != nil {
		return nil, err
	}
	return api.Empty, m.bringIn(r, h.RoomID, giver, req.User)
}

// bringIn invites a user who is not in a room, unless the door is open.
func (m *Module) bringIn(r *api.Request, id ids.RoomID, by, user ids.UserID) error {
	is, err := m.Rooms.Membership(r.Context, id, user)
	if err != nil || is == event.Join || is == event.Invite {
		return err
	}
	rules, err := m.Rooms.StateEvent(r.Context, id, event.TypeJoinRules, "")
	if err != nil {
		return err
	}
	if rules != nil {
		if rule, _ := event.StringField(rules.Content, "join_rule"); rule == string(event.JoinRulePublic) {
			return nil
		}
	}
	_, err = m.as(r, by, post, clientV3("rooms", string(id), "invite"), map[string]ids.UserID{"user_id": user})
	return err
}

// creatorPower is what a user is given by a creator, who has more than any number.
const creatorPower = 100

// strongest returns the member with the most power that can be given, and how much
// that is: 400 if nobody is left who could.
func (m *Module) strongest(ctx context.Context, h *room.Head) (ids.UserID, int64, error) {
	s, err := m.Rooms.StateEvents(ctx, h.RoomID, room.StateKey{Type: event.TypePowerLevels})
	if err != nil {
		return "", 0, err
	}
	power := map[ids.UserID]int64{h.Creator: creatorPower}
	if s[0] != nil {
		var levels struct {
			Users map[ids.UserID]int64 `json:"users"`
		}
		if err := api.DecodeJSON(s[0].Content, &levels); err != nil {
			return "", 0, err
		}
		if !h.Version.CreatorPower {
			power = map[ids.UserID]int64{}
		}
		maps.Copy(power, levels.Users)
	}
	best, most := ids.UserID(""), int64(0)
	for u, n := range power {
		if n < most || n == most && best != "" && u > best {
			continue
		}
		is, err := m.Rooms.Membership(ctx, h.RoomID, u)
		if err != nil {
			return "", 0, err
		}
		if is == event.Join && u.Server() == m.Server {
			best, most = u, n
		}
	}
	if best == "" {
		return "", 0, merr.InvalidParamErr("Nobody in this room has power to give")
	}
	return best, most, nil
}
