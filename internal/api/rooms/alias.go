package rooms

import (
	"context"
	"net/http"
	"strings"
	"unicode"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// parseAlias reads an alias: 400 M_INVALID_PARAM if it is none.
func parseAlias(s string) (ids.RoomAlias, error) {
	a, err := ids.ParseRoomAlias(s)
	if err != nil {
		return "", merr.InvalidParamErr("Not an alias").Because(err)
	}
	if a.Localpart() == "" || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }) {
		return "", merr.InvalidParamErr("Not an alias: it is empty or has white space in it")
	}
	return a, nil
}

func errNoAlias(a ids.RoomAlias) error { return merr.NotFoundErr("There is no alias %s", a) }

// aliasTarget returns the alias of a request and what it leads to; 404
// M_NOT_FOUND if nowhere, as all aliases of other servers.
func (m *Module) aliasTarget(r *api.Request) (ids.RoomAlias, *room.AliasTarget, error) {
	a, err := parseAlias(r.Param("roomAlias"))
	if err != nil {
		return "", nil, err
	}
	t, err := m.aliased(r.Context, a)
	if err == nil && t == nil {
		err = errNoAlias(a)
	}
	return a, t, err
}

// getAlias: spec client-server §GET /directory/room/{roomAlias}.
func (m *Module) getAlias(r *api.Request) (any, error) {
	a, t, err := m.aliasTarget(r)
	if err != nil {
		return nil, err
	}
	head, err := m.Rooms.Head(r.Context, t.Room)
	if err != nil {
		return nil, err
	}
	if head == nil { // it is being made
		return nil, errNoAlias(a)
	}
	return map[string]any{"room_id": t.Room, "servers": []string{m.Server}}, nil
}

// setAlias: spec client-server §PUT /directory/room/{roomAlias}. Members may give
// their room names.
func (m *Module) setAlias(r *api.Request) (any, error) {
	a, err := parseAlias(r.Param("roomAlias"))
	if err != nil {
		return nil, err
	}
	if a.Server() != m.Server {
		return nil, merr.InvalidParamErr("The alias is not one of this server")
	}
	if err := m.mayName(r.Caller, a); err != nil {
		return nil, err
	}
	var req struct {
		RoomID *string `json:"room_id"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.RoomID == nil {
		return nil, api.Missing("room_id")
	}
	id, err := ids.ParseRoomID(*req.RoomID)
	if err != nil {
		return nil, merr.InvalidParamErr("room_id is not a room ID").Because(err)
	}
	if err := m.mayBeNamed(r, id); err != nil {
		return nil, err
	}
	target := room.AliasTarget{Room: id, Creator: r.Caller.User}
	_, err = m.Router.Do(r.Context, &room.SetAlias{Alias: a, Target: target})
	return api.Empty, err
}

// mayBeNamed is the error of who may not give a room a name. An application service,
// whose aliases mayName looked at, need not be in the room: a bridge names rooms by what
// they are on the other side. spec: application-service §Server admin style permissions.
func (m *Module) mayBeNamed(r *api.Request, id ids.RoomID) error {
	if r.Caller.AppService == "" {
		return m.mustBeIn(r.Context, id, r.Caller.User)
	}
	head, err := m.Rooms.Head(r.Context, id)
	if err == nil && head == nil {
		err = errNotIn()
	}
	return err
}

// deleteAlias: spec client-server §DELETE /directory/room/{roomAlias}. It is up
// to who made the alias, who may set the canonical one, and administrators.
func (m *Module) deleteAlias(r *api.Request) (any, error) {
	a, t, err := m.aliasTarget(r)
	if err != nil {
		return nil, err
	}
	if err := m.mayName(r.Caller, a); err != nil {
		return nil, err
	}
	ctx, user := r.Context, r.Caller.User
	// That an application service may do so here follows from mayName.
	if t.Creator != user && !r.Caller.Admin && r.Caller.AppService == "" {
		head, err := m.Rooms.Head(ctx, t.Room)
		if err != nil {
			return nil, err
		}
		may := false
		if head != nil {
			if may, err = m.mayPublish(ctx, head, user); err != nil {
				return nil, err
			}
		}
		if !may {
			return nil, merr.ForbiddenErr("You may not delete this alias")
		}
	}
	if _, err := m.Router.Do(ctx, &room.DeleteAlias{Alias: a, Room: t.Room}); err != nil {
		return nil, err
	}
	return api.Empty, m.dropCanonical(ctx, t.Room, user, a)
}

// dropCanonical takes an alias that is no more out of the room's
// m.room.canonical_alias, if the user may: "Servers may choose to update the alt_aliases".
// spec: client-server §DELETE /directory/room/{roomAlias}.
func (m *Module) dropCanonical(ctx context.Context, id ids.RoomID, user ids.UserID, a ids.RoomAlias) error {
	s, err := m.Rooms.StateEvent(ctx, id, event.TypeCanonicalAlias, "")
	if err != nil || s == nil {
		return err
	}
	content, changed := withoutAlias(s.Content, a)
	if !changed {
		return nil
	}
	key := ""
	_, err = m.Router.Do(ctx, &room.Send{Room: id, Draft: roomstate.Draft{
		Type: event.TypeCanonicalAlias, StateKey: &key, Sender: user, Content: content,
	}})
	if err != nil && merr.From(err).Status < http.StatusInternalServerError {
		return nil // the alias is gone; that the room still names it does no harm
	}
	return err
}

// withoutAlias removes an alias from an m.room.canonical_alias.
func withoutAlias(content []byte, a ids.RoomAlias) (out []byte, changed bool) {
	out = content
	if s, _ := event.StringField(content, "alias"); s == string(a) {
		out, changed = event.DropField(nil, out, "alias"), true
	}
	raw, _ := event.Field(content, "alt_aliases")
	list := []byte{'['}
	dropped := false
	for e := range event.Elements(raw) {
		if s, _ := event.String(e); s == string(a) {
			dropped = true
			continue
		}
		if len(list) > 1 {
			list = append(list, ',')
		}
		list = append(list, e...)
	}
	if dropped {
		out, changed = event.SetField(nil, out, "alt_aliases", append(list, ']')), true
	}
	return out, changed
}

// aliases: spec client-server §GET /rooms/{roomId}/aliases.
func (m *Module) aliases(r *api.Request) (any, error) {
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	if v.access.Membership != event.Join && !v.access.WorldReadable() {
		return nil, errNotIn()
	}
	list, err := m.Rooms.Aliases(r.Context, v.id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"aliases": list}, nil
}

// getListing: spec client-server §GET /directory/list/room/{roomId}.
func (m *Module) getListing(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	head, err := m.Rooms.Head(r.Context, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, merr.NotFoundErr("There is no such room")
	}
	return map[string]string{"visibility": visibility(head)}, nil
}

// setListing: spec client-server §PUT /directory/list/room/{roomId}.
func (m *Module) setListing(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Visibility *string `json:"visibility"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	public := true
	if req.Visibility != nil {
		public = *req.Visibility == "public"
		if !public && *req.Visibility != "private" {
			return nil, merr.InvalidParamErr("Unknown visibility")
		}
	}
	_, err = m.Router.Do(r.Context, &room.SetPublic{Room: id, Sender: r.Caller.User, Public: public, Admin: r.Caller.Admin})
	return api.Empty, err
}
