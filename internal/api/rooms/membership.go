package rooms

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// serverNotTrusted: an identity server that this server does not deal with, which
// is every one. spec: client-server §Common error codes.
const serverNotTrusted merr.Code = "M_SERVER_NOT_TRUSTED"

func errThirdParty() error {
	return merr.New(http.StatusBadRequest, serverNotTrusted, "This server does not invite by e-mail address or phone number")
}

// memberContent is the content of a membership event without a profile.
func memberContent(to event.Membership, why string) []byte {
	content := event.SetString([]byte("{}"), "membership", string(to))
	if why != "" {
		content = event.SetString(content, "reason", why)
	}
	return content
}

// completeMember completes the draft of a membership event that a client asked
// for: it takes away what only the server may say, and fills in what the event
// tells about its target.
func (m *Module) completeMember(ctx context.Context, cmd *room.Send, caller api.Caller) error {
	d := &cmd.Draft
	to, ok := event.StringField(d.Content, "membership")
	if !ok {
		return merr.BadJSONErr("The membership is missing or no string")
	}
	target, err := ids.ParseUserID(*d.StateKey)
	if err != nil {
		return merr.InvalidParamErr("The state key of a membership is a user ID").Because(err)
	}
	// Whoever could say this would enter restricted rooms. roomstate trusts it.
	d.Content = event.DropField(nil, d.Content, "join_authorised_via_users_server")
	if err := m.checkBlocked(ctx, cmd.Room, event.Membership(to)); err != nil {
		return err
	}
	switch event.Membership(to) {
	case event.Join:
		if target != d.Sender {
			return nil // the rules say no
		}
		if d.Content, err = m.withProfile(ctx, d.Content, target, false); err != nil {
			return err
		}
		return m.completeJoin(ctx, cmd, caller)
	case event.Knock:
		d.Content, err = m.withProfile(ctx, d.Content, target, false)
		return err
	case event.Invite:
		if err := m.mustBeIn(ctx, cmd.Room, d.Sender); err != nil {
			return err
		}
		d.Content, err = m.invitation(ctx, d.Content, d.Sender, target)
		return err
	case event.Leave, event.Ban:
		return nil
	}
	return merr.BadJSONErr("Unknown membership")
}

// checkBlocked refuses the ways into a room that an administrator has blocked.
func (m *Module) checkBlocked(ctx context.Context, id ids.RoomID, to event.Membership) error {
	if to != event.Join && to != event.Knock && to != event.Invite {
		return nil
	}
	by, err := m.Rooms.Blocked(ctx, id)
	if err == nil && by != "" {
		err = merr.ForbiddenErr("This room has been blocked by an administrator")
	}
	return err
}

// completeJoin checks what the rules of a room do not know, and names who stands
// for the join to a restricted room.
func (m *Module) completeJoin(ctx context.Context, cmd *room.Send, caller api.Caller) error {
	if caller.Guest {
		if err := m.checkGuest(ctx, cmd.Room); err != nil {
			return err
		}
	}
	who, err := m.Rooms.JoinAuthoriser(ctx, cmd.Room, cmd.Draft.Sender)
	if err != nil {
		return err
	}
	if who != "" {
		cmd.Draft.Content = event.SetString(cmd.Draft.Content, "join_authorised_via_users_server", string(who))
	}
	return nil
}

// checkGuest: spec client-server §m.room.guest_access.
func (m *Module) checkGuest(ctx context.Context, id ids.RoomID) error {
	s, err := m.Rooms.StateEvent(ctx, id, event.TypeGuestAccess, "")
	if err != nil {
		return err
	}
	if s != nil {
		if access, _ := event.StringField(s.Content, "guest_access"); access == "can_join" {
			return nil
		}
	}
	return merr.New(http.StatusForbidden, merr.GuestAccessForbidden, "Guests may not join this room")
}

// withProfile adds a user's name and avatar to a membership: in place of those
// that are there if replace. 404 M_NOT_FOUND if there is no such user, since
// nobody could ever accept: there is no other server where they might be.
func (m *Module) withProfile(ctx context.Context, content []byte, user ids.UserID, replace bool) ([]byte, error) {
	acc, err := m.account(ctx, user)
	if err != nil {
		return nil, err
	}
	if acc == nil || acc.Deactivated {
		return nil, merr.NotFoundErr("There is no user %s", user)
	}
	profile, err := m.Accounts.Profile(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, name := range [...]string{"displayname", "avatar_url"} {
		if _, has := event.Field(content, name); has {
			if !replace {
				continue
			}
			content = event.DropField(nil, content, name)
		}
		if value := text(profile[name]); value != "" {
			content = event.SetString(content, name, value)
		}
	}
	return content, nil
}

// invitation completes the content of an invite: what the invited are called is not the
// inviter's to say. 403 M_INVITE_BLOCKED if they want no invites. Where they say so at
// this moment, the invite may still be sent, but the feed does not show it.
func (m *Module) invitation(ctx context.Context, content []byte, by, target ids.UserID) ([]byte, error) {
	if unmade, err := m.unmade(ctx, target); err != nil || unmade {
		for _, name := range [...]string{"displayname", "avatar_url"} {
			content = event.DropField(nil, content, name)
		}
		return content, err
	}
	content, err := m.withProfile(ctx, content, target, true)
	if err != nil || account.Unblockable(by) {
		return content, err
	}
	permission, err := m.Accounts.Data(ctx, target, "", account.TypeInvitePermission)
	if err == nil && account.BlocksInvites(permission) {
		err = merr.New(http.StatusForbidden, merr.InviteBlocked, "%s does not accept invites", target)
	}
	return content, err
}

// text is the string that a JSON value is, "" if it is none.
func text(raw jsontext.Value) string {
	var s string
	if len(raw) == 0 || raw.Kind() != '"' || api.DecodeJSON(raw, &s) != nil {
		return ""
	}
	return s
}

// memberRequest is the body of the membership endpoints.
type memberRequest struct {
	UserID *string `json:"user_id"`
	Reason string  `json:"reason"`
	// Medium and Address are those of an invite by e-mail or phone.
	Medium  *string `json:"medium"`
	Address *string `json:"address"`
}

// changeMembership sends the membership event of one of the endpoints.
func (m *Module) changeMembership(r *api.Request, cmd *room.Send, target ids.UserID, content []byte) error {
	ts, given, err := timestamp(r)
	if err != nil {
		return err
	}
	key := string(target)
	cmd.Unchanged, cmd.Timestamped = true, given
	cmd.Draft = roomstate.Draft{
		Type: event.TypeMember, StateKey: &key, Sender: r.Caller.User, Content: content, OriginServerTS: ts,
	}
	if err := m.completeMember(r.Context, cmd, r.Caller); err != nil {
		return err
	}
	_, err = m.Router.Do(r.Context, cmd)
	return err
}

// joinAny: spec client-server §POST /join/{roomIdOrAlias}.
func (m *Module) joinAny(r *api.Request) (any, error) {
	id, err := m.resolve(r, "roomIdOrAlias")
	if err != nil {
		return nil, err
	}
	return m.enter(r, id, event.Join)
}

// joinByID: spec client-server §POST /rooms/{roomId}/join.
func (m *Module) joinByID(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	return m.enter(r, id, event.Join)
}

// knock: spec client-server §POST /knock/{roomIdOrAlias}.
func (m *Module) knock(r *api.Request) (any, error) {
	id, err := m.resolve(r, "roomIdOrAlias")
	if err != nil {
		return nil, err
	}
	return m.enter(r, id, event.Knock)
}

// resolve returns the room that a parameter names by ID or alias. via and
// server_name are not looked at: there is no other server to ask.
func (m *Module) resolve(r *api.Request, param string) (ids.RoomID, error) {
	name := r.Param(param)
	if !strings.HasPrefix(name, "#") {
		return r.RoomID(param)
	}
	a, err := parseAlias(name)
	if err != nil {
		return "", err
	}
	t, err := m.aliased(r.Context, a)
	if err != nil {
		return "", err
	}
	if t == nil {
		return "", errNoAlias(a)
	}
	return t.Room, nil
}

type roomAnswer struct {
	RoomID ids.RoomID `json:"room_id"`
}

// enter joins a room or knocks at it. Whoever is in already stays as they are.
func (m *Module) enter(r *api.Request, id ids.RoomID, to event.Membership) (any, error) {
	var req memberRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	head, err := m.Rooms.Head(r.Context, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, merr.NotFoundErr("There is no such room")
	}
	if to == event.Join && m.mustBeIn(r.Context, id, r.Caller.User) == nil {
		return roomAnswer{id}, nil
	}
	content, err := entryContent(r, to, req.Reason)
	if err != nil {
		return nil, err
	}
	if err := m.changeMembership(r, &room.Send{Room: id}, r.Caller.User, content); err != nil {
		return nil, err
	}
	if to == event.Join {
		m.carryOver(r.Context, id, r.Caller.User)
	}
	return roomAnswer{id}, nil
}

// entryContent is the content of one's own membership event on entering a room.
// What a client adds to the body stands in it too, as if it had sent the event
// itself, which it may. The specification says nothing of that; clients are used
// to it.
func entryContent(r *api.Request, to event.Membership, why string) ([]byte, error) {
	if len(r.Body) == 0 {
		return memberContent(to, why), nil
	}
	content, err := body(r)
	if err != nil {
		return nil, err
	}
	content = event.DropField(nil, content, "third_party_signed")
	if why == "" {
		content = event.DropField(nil, content, "reason")
	}
	return event.SetString(content, "membership", string(to)), nil
}

// leave: spec client-server §POST /rooms/{roomId}/leave. Leaving once more is
// fine.
func (m *Module) leave(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req memberRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	own, err := m.Accounts.Membership(r.Context, r.Caller.User, id)
	if err != nil {
		return nil, err
	}
	// spec: client-server §Server Notices: an invitation by the server is not rejected.
	if own != nil && own.Membership == event.Invite && own.Sender == account.NoticesUser(m.Server) {
		return nil, merr.New(http.StatusForbidden, merr.CannotLeaveNoticeRoom, "This invitation cannot be rejected")
	}
	return api.Empty, m.changeMembership(r, &room.Send{Room: id}, r.Caller.User, memberContent(event.Leave, req.Reason))
}

// invite: spec client-server §POST /rooms/{roomId}/invite.
func (m *Module) invite(r *api.Request) (any, error) {
	return m.onUser(r, event.Invite, nil)
}

// kick: spec client-server §POST /rooms/{roomId}/kick.
func (m *Module) kick(r *api.Request) (any, error) {
	return m.onUser(r, event.Leave, &room.Expect{
		OneOf: []event.Membership{event.Join, event.Invite, event.Knock},
		Code:  merr.Forbidden, Msg: "The user is not in the room",
	})
}

// ban: spec client-server §POST /rooms/{roomId}/ban.
func (m *Module) ban(r *api.Request) (any, error) {
	return m.onUser(r, event.Ban, nil)
}

// unban: spec client-server §POST /rooms/{roomId}/unban.
func (m *Module) unban(r *api.Request) (any, error) {
	return m.onUser(r, event.Leave, &room.Expect{
		OneOf: []event.Membership{event.Ban}, Code: merr.BadState, Msg: "The user is not banned",
	})
}

// onUser changes the membership of the user that the body names. That the caller
// is in the room is asked first: others learn nothing about the target.
func (m *Module) onUser(r *api.Request, to event.Membership, expect *room.Expect) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req memberRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.UserID == nil {
		if to == event.Invite && req.Medium != nil && req.Address != nil {
			return nil, errThirdParty()
		}
		return nil, api.Missing("user_id")
	}
	target, err := ids.ParseUserID(*req.UserID)
	if err != nil {
		return nil, merr.InvalidParamErr("user_id is not a user ID").Because(err)
	}
	if err := m.mustBeIn(r.Context, id, r.Caller.User); err != nil {
		return nil, err
	}
	return api.Empty, m.changeMembership(r, &room.Send{Room: id, Expect: expect}, target, memberContent(to, req.Reason))
}

// forget: spec client-server §POST /rooms/{roomId}/forget.
func (m *Module) forget(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewForget(r.Caller.User, id))
	return api.Empty, err
}

// joinedRooms: spec client-server §GET /joined_rooms.
func (m *Module) joinedRooms(r *api.Request) (any, error) {
	list, err := m.Accounts.Joined(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	return map[string]any{"joined_rooms": list}, nil
}

// members: spec client-server §GET /rooms/{roomId}/members.
func (m *Module) members(r *api.Request) (any, error) {
	only, err := membershipParam(r, "membership")
	if err != nil {
		return nil, err
	}
	not, err := membershipParam(r, "not_membership")
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	at := v.until
	if token := r.Query.Get("at"); token != "" {
		s, err := m.position(v, token, "at")
		if err != nil {
			return nil, err
		}
		// Who was there when the caller could not look stays unsaid.
		at = min(v.access.NextVisible(max(s, 1)), v.until)
	}
	wanted := func(is event.Membership) bool { return (only == "" || is == only) && (not == "" || is != not) }
	return m.membersAt(r.Context, v, at, wanted)
}

// membersAt writes the member events of a room at a position. The prev_batch of a
// timeline that reaches back to the creation of the room stands before its first
// member; who asks by that is told of the first moment with one.
//
// Events are written as they are read: the list of a large room is tens of megabytes,
// and its events would take several times that in memory.
func (m *Module) membersAt(ctx context.Context, v *reading, at ids.Seq, wanted func(event.Membership) bool) (any, error) {
	chunk, met := api.NewLongList(`{"chunk":[`), false
	add := func(s *room.Stored) {
		met = true
		if wanted(s.Member().Membership) {
			chunk.Add(func(b []byte) []byte { return v.appendEvent(b, s) })
		}
	}
	o := room.StateOptions{Type: event.TypeMember}
	if err := m.Rooms.WalkStateUpTo(ctx, v.id, at, o, add); err != nil {
		return nil, err
	}
	if !met {
		// A room begins with its creation and the join of who created it.
		first, err := m.Rooms.Timeline(ctx, v.id, room.Page{After: feed.PageStart, UpTo: v.until, Limit: 2})
		if err != nil {
			return nil, err
		}
		if len(first) > 0 {
			if err := m.Rooms.WalkStateUpTo(ctx, v.id, first[len(first)-1].Seq, o, add); err != nil {
				return nil, err
			}
		}
	}
	return chunk.End("]}"), nil
}

func membershipParam(r *api.Request, name string) (event.Membership, error) {
	s, err := r.QueryEnum(name, "", "join", "invite", "knock", "leave", "ban")
	return event.Membership(s), err
}

// joinedMembers: spec client-server §GET /rooms/{roomId}/joined_members.
func (m *Module) joinedMembers(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	if err := m.mustBeIn(r.Context, id, r.Caller.User); err != nil {
		return nil, err
	}
	joined := api.NewLongList(`{"joined":{`)
	err = m.Rooms.WalkState(r.Context, id, event.TypeMember, func(s *room.Stored) bool {
		if c := s.Member(); c.Membership == event.Join {
			joined.Add(func(b []byte) []byte { return appendJoined(b, *s.StateKey, c) })
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return joined.End("}}"), nil
}

// appendJoined appends a member of the object of those who are in a room.
func appendJoined(b []byte, user string, m *event.Member) []byte {
	b = append(event.AppendString(b, user), `:{"avatar_url":`...)
	b = appendOrNull(b, m.AvatarURL)
	b = append(b, `,"display_name":`...)
	return append(appendOrNull(b, m.DisplayName), '}')
}

func appendOrNull(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return event.AppendString(b, s)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
