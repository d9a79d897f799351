package rooms

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// state: spec client-server §GET /rooms/{roomId}/state.
func (m *Module) state(r *api.Request) (any, error) {
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	list := api.NewLongList("[")
	err = m.Rooms.WalkStateUpTo(r.Context, v.id, v.until, room.StateOptions{}, func(s *room.Stored) {
		list.Add(func(b []byte) []byte { return v.appendEvent(b, s) })
	})
	if err != nil {
		return nil, err
	}
	return list.End("]"), nil
}

// stateEvent: spec client-server §GET /rooms/{roomId}/state/{eventType}/{stateKey}.
func (m *Module) stateEvent(r *api.Request) (any, error) {
	format, err := r.QueryEnum("format", "content", "event")
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	k := room.StateKey{Type: r.Param("eventType"), Key: r.Param("stateKey")}
	var s *room.Stored
	if len(k.Type) <= event.MaxFieldSize && len(k.Key) <= event.MaxFieldSize { // nothing longer exists
		if s, err = m.Rooms.StateEventUpTo(r.Context, v.id, k, v.until); err != nil {
			return nil, err
		}
	}
	switch {
	case s == nil:
		return nil, merr.NotFoundErr("The room has no such state")
	case format == "event":
		return jsontext.Value(v.appendEvent(nil, s)), nil
	}
	return jsontext.Value(s.Content), nil
}

// putState: spec client-server §PUT /rooms/{roomId}/state/{eventType}/{stateKey}.
func (m *Module) putState(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	eventType, key := r.Param("eventType"), r.Param("stateKey")
	if r.Query.Has(delayParam) {
		return m.delay(r, &delayed.Event{Room: id, Type: eventType, StateKey: &key}, "", nil)
	}
	content, err := body(r)
	if err != nil {
		return nil, err
	}
	if err := checkState(eventType, key, content); err != nil {
		return nil, err
	}
	ts, given, err := timestamp(r)
	if err != nil {
		return nil, err
	}
	cmd := &room.Send{Room: id, Unchanged: true, Timestamped: given, Draft: roomstate.Draft{
		Type: eventType, StateKey: &key, Sender: r.Caller.User, Content: content, OriginServerTS: ts,
	}}
	if err := m.completeState(r.Context, cmd, r.Caller); err != nil {
		return nil, err
	}
	answer, err := m.submit(r.Context, cmd)
	if err == nil && eventType == event.TypeMember && event.ParseMember(cmd.Draft.Content).Membership == event.Join {
		m.carryOver(r.Context, id, r.Caller.User)
	}
	return answer, err
}

// completeState completes the draft of a state event, and checks what the rules of
// the room do not look at.
func (m *Module) completeState(ctx context.Context, cmd *room.Send, caller api.Caller) error {
	switch cmd.Draft.Type {
	case event.TypeMember:
		return m.completeMember(ctx, cmd, caller)
	case event.TypeCanonicalAlias:
		return m.checkCanonicalAlias(ctx, cmd.Room, caller.User, cmd.Draft.Content)
	}
	return nil
}

// checkCanonicalAlias checks that the aliases which a new m.room.canonical_alias
// adds lead to the room. spec: client-server §PUT …/state: M_BAD_ALIAS,
// M_INVALID_PARAM.
func (m *Module) checkCanonicalAlias(ctx context.Context, id ids.RoomID, user ids.UserID, content []byte) error {
	list, err := canonicalAliases(content)
	if err != nil || len(list) == 0 {
		return err
	}
	if err := m.mustBeIn(ctx, id, user); err != nil {
		return err
	}
	known := make(map[ids.RoomAlias]bool)
	old, err := m.Rooms.StateEvent(ctx, id, event.TypeCanonicalAlias, "")
	if err != nil {
		return err
	}
	if old != nil {
		// Of a malformed one nothing is known.
		before, _ := canonicalAliases(old.Content)
		for _, a := range before {
			known[a] = true
		}
	}
	for _, a := range list {
		if known[a] {
			continue
		}
		known[a] = true
		t, err := m.Rooms.Alias(ctx, a)
		if err != nil {
			return err
		}
		if t == nil || t.Room != id {
			return merr.New(http.StatusBadRequest, merr.BadAlias, "The alias %s does not lead to this room", a)
		}
	}
	return nil
}

// canonicalAliases lists the aliases that an m.room.canonical_alias names: 400
// M_INVALID_PARAM if one is malformed.
func canonicalAliases(content []byte) ([]ids.RoomAlias, error) {
	var out []ids.RoomAlias
	add := func(raw []byte) error {
		s, ok := event.String(raw)
		a, err := parseAlias(s)
		if !ok || err != nil {
			return merr.InvalidParamErr("Not an alias: %s", strings.ToValidUTF8(string(raw[:min(len(raw), ids.MaxLength)]), ""))
		}
		out = append(out, a)
		return nil
	}
	// An empty alias is how one is removed. spec: §m.room.canonical_alias.
	if raw, ok := event.Field(content, "alias"); ok && string(raw) != `""` && string(raw) != "null" {
		if err := add(raw); err != nil {
			return nil, err
		}
	}
	raw, ok := event.Field(content, "alt_aliases")
	if !ok || string(raw) == "null" {
		return out, nil
	}
	if raw[0] != '[' {
		return nil, merr.InvalidParamErr("alt_aliases is not a list")
	}
	for a := range event.Elements(raw) {
		if err := add(a); err != nil {
			return nil, err
		}
	}
	return out, nil
}
