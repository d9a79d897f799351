package rooms_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestJoin(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	bob.Must(t, "PUT", v3+"/profile/"+bob.UserID+"/displayname", object{"displayname": "Bob"})
	room := alice.CreateRoom(t, object{"preset": "public_chat", "room_alias_name": "open"})
	alias := url.PathEscape("#open:" + apptest.Name)

	answer := bob.Must(t, "POST", v3+"/join/"+alias+"?via=elsewhere&server_name=x", object{"reason": "why not"})
	same(t, "by alias", answer, object{"room_id": room})
	first := alice.Must(t, "GET", at(room, "state", "m.room.member", bob.UserID)+"?format=event", nil)
	same(t, "member", first["content"], object{"membership": "join", "displayname": "Bob", "reason": "why not"})
	bob.Must(t, "POST", at(room, "join"), nil)
	again := alice.Must(t, "GET", at(room, "state", "m.room.member", bob.UserID)+"?format=event", nil)
	same(t, "joining again is no event", again["event_id"], first["event_id"])
	same(t, "by ID", eve.Must(t, "POST", at(room, "join"), object{}), object{"room_id": room})
	if apptest.At(eve.Sync(t, ""), "rooms", "join", room) == nil {
		t.Error("the room is not in the sync of who joined")
	}

	private := alice.CreateRoom(t, nil)
	bob.Fails(t, "POST", at(private, "join"), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at("!unknown:"+apptest.Name, "join"), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", v3+"/join/"+url.PathEscape("#unknown:"+apptest.Name), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", v3+"/join/"+url.PathEscape("#unknown:elsewhere"), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", v3+"/join/nonsense", nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "POST", at(room, "join"), object{"reason": 1}, 400, "M_BAD_JSON")
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": eve.UserID})
	eve.Fails(t, "POST", at(room, "join"), nil, 403, "M_FORBIDDEN")
}

func TestRestrictedJoin(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	for _, version := range []string{"10", "12"} {
		club := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, club)
		room := alice.CreateRoom(t, object{"room_version": version, "initial_state": []object{{
			"type": "m.room.join_rules", "content": object{
				"join_rule": "restricted", "allow": []object{{"type": "m.room_membership", "room_id": club}},
			},
		}}})
		eve.Fails(t, "POST", at(room, "join"), nil, 403, "M_FORBIDDEN")
		// Who claims to be let in by somebody is not.
		claim := object{"membership": "join", "join_authorised_via_users_server": alice.UserID}
		eve.Fails(t, "PUT", at(room, "state", "m.room.member", eve.UserID), claim, 403, "M_FORBIDDEN")
		bob.Must(t, "PUT", at(room, "state", "m.room.member", bob.UserID), object{
			"membership": "join", "displayname": "B", "join_authorised_via_users_server": "@x:y",
		})
		same(t, "member", state(t, alice, room, "m.room.member/"+bob.UserID), object{
			"membership": "join", "displayname": "B", "join_authorised_via_users_server": alice.UserID,
		})
		leave(t, bob, club)
		leave(t, bob, room)
		bob.Fails(t, "POST", at(room, "join"), nil, 403, "M_FORBIDDEN")
		invite(t, alice, room, bob)
		bob.Must(t, "PUT", at(room, "state", "m.room.member", bob.UserID), claim)
		same(t, "who was invited", state(t, alice, room, "m.room.member/"+bob.UserID), object{"membership": "join", "displayname": "bob"})
	}
}

func TestKnock(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"initial_state": []object{
		{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}},
	}})
	knock := v3 + "/knock/" + url.PathEscape(room)
	same(t, "answer", bob.Must(t, "POST", knock, object{"reason": "let me in"}), object{"room_id": room})
	same(t, "member", state(t, alice, room, "m.room.member/"+bob.UserID)["reason"], "let me in")
	if apptest.At(bob.Sync(t, ""), "rooms", "knock", room, "knock_state", "events") == nil {
		t.Error("the knock is not in the sync")
	}
	bob.Fails(t, "POST", at(room, "join"), nil, 403, "M_FORBIDDEN")
	leave(t, bob, room)
	bob.Must(t, "POST", knock, nil)
	invite(t, alice, room, bob)
	bob.Fails(t, "POST", knock, nil, 403, "M_FORBIDDEN")
	bob.Join(t, room)
	bob.Fails(t, "POST", v3+"/knock/"+url.PathEscape(alice.CreateRoom(t, nil)), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", v3+"/knock/%21unknown", nil, 404, "M_NOT_FOUND")
}

func TestInvite(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, nil)
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID, "reason": "come"})
	same(t, "member", state(t, alice, room, "m.room.member/"+bob.UserID), object{"membership": "invite", "displayname": "bob", "reason": "come"})
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID, "reason": "come"})
	bob.Fails(t, "POST", at(room, "invite"), object{"user_id": eve.UserID}, 403, "M_FORBIDDEN")
	bob.Join(t, room)
	bob.Must(t, "POST", at(room, "invite"), object{"user_id": eve.UserID})
	leave(t, eve, room)
	same(t, "declined", membership(t, alice, room, eve.UserID), "leave")
	if apptest.At(eve.Sync(t, ""), "rooms", "invite", room) != nil {
		t.Error("a declined invite is still in the sync")
	}

	alice.Fails(t, "POST", at(room, "invite"), object{"user_id": bob.UserID}, 403, "M_FORBIDDEN")
	alice.Fails(t, "POST", at(room, "invite"), object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", at(room, "invite"), object{"user_id": "bob"}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", at(room, "invite"), object{"user_id": "@nobody:" + apptest.Name}, 404, "M_NOT_FOUND")
	alice.Fails(t, "POST", at(room, "invite"), object{
		"id_server": "x", "id_access_token": "y", "medium": "email", "address": "a@b",
	}, 400, "M_SERVER_NOT_TRUSTED")
	eve.Fails(t, "POST", at(room, "invite"), object{"user_id": "@nobody:" + apptest.Name}, 403, "M_FORBIDDEN")
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": eve.UserID})
	alice.Fails(t, "POST", at(room, "invite"), object{"user_id": eve.UserID}, 403, "M_FORBIDDEN")
	// Nobody is given a name by whoever invites them.
	carol := s.User(t, "carol")
	alice.Must(t, "PUT", at(room, "state", "m.room.member", carol.UserID), object{"membership": "invite", "displayname": "Fool"})
	same(t, "name", state(t, alice, room, "m.room.member/"+carol.UserID)["displayname"], "carol")
}

func TestLeaveKickBan(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	user := func(c *apptest.Client) object { return object{"user_id": c.UserID, "reason": "because"} }

	bob.Fails(t, "POST", at(room, "leave"), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at("!unknown", "leave"), nil, 403, "M_FORBIDDEN")
	bob.Join(t, room)
	bob.Must(t, "POST", at(room, "leave"), object{"reason": "bye"})
	same(t, "member", state(t, alice, room, "m.room.member/"+bob.UserID), object{"membership": "leave", "reason": "bye"})
	bob.Join(t, room)
	leave(t, bob, room)
	leave(t, bob, room) // once more is fine
	bob.Join(t, room)

	eve.Fails(t, "POST", at(room, "kick"), user(bob), 403, "M_FORBIDDEN")
	eve.Fails(t, "POST", at(room, "ban"), user(bob), 403, "M_FORBIDDEN")
	eve.Fails(t, "POST", at(room, "unban"), user(bob), 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at(room, "kick"), user(alice), 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at(room, "ban"), user(eve), 403, "M_FORBIDDEN")
	alice.Fails(t, "POST", at(room, "kick"), user(eve), 403, "M_FORBIDDEN")
	alice.Fails(t, "POST", at(room, "kick"), object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", at(room, "unban"), user(bob), 400, "M_BAD_STATE")

	alice.Must(t, "POST", at(room, "kick"), user(bob))
	same(t, "kicked", state(t, alice, room, "m.room.member/"+bob.UserID), object{"membership": "leave", "reason": "because"})
	alice.Fails(t, "POST", at(room, "kick"), user(bob), 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at(room, "leave"), nil, 403, "M_FORBIDDEN")
	bob.Join(t, room)
	alice.Must(t, "POST", at(room, "ban"), user(bob))
	alice.Fails(t, "POST", at(room, "kick"), user(bob), 403, "M_FORBIDDEN")
	bob.Fails(t, "POST", at(room, "leave"), nil, 403, "M_FORBIDDEN")
	alice.Must(t, "POST", at(room, "unban"), user(bob))
	same(t, "unbanned", membership(t, alice, room, bob.UserID), "leave")
	bob.Join(t, room)
	// Who never was here, and even who is nobody, can be kept out.
	alice.Must(t, "POST", at(room, "ban"), user(eve))
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": "@nobody:elsewhere"})
	invite(t, alice, alice.CreateRoom(t, nil), bob)
	same(t, "joined rooms", bob.Must(t, "GET", v3+"/joined_rooms", nil)["joined_rooms"], []string{room})
}

func TestForget(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	ev := alice.Send(t, room, "hello")
	bob.Fails(t, "POST", at(room, "forget"), nil, 400, "M_UNKNOWN")
	leave(t, bob, room)
	bob.Must(t, "GET", at(room, "messages")+"?dir=b", nil)
	bob.Must(t, "POST", at(room, "forget"), nil)
	bob.Must(t, "POST", at(room, "forget"), nil)
	bob.Fails(t, "GET", at(room, "messages")+"?dir=b", nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", at(room, "state"), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", at(room, "event", ev), nil, 404, "M_NOT_FOUND")
	filter := url.QueryEscape(`{"room":{"include_leave":true}}`)
	if apptest.At(bob.Must(t, "GET", v3+"/sync?filter="+filter, nil), "rooms", "leave", room) != nil {
		t.Error("a forgotten room is in the sync")
	}
	bob.Join(t, room)
	same(t, "after coming back", history(t, bob, room), []string{"hello"})
	alice.Must(t, "PUT", at(room, "state", "m.room.history_visibility"), object{"history_visibility": "world_readable"})
	leave(t, bob, room)
	bob.Must(t, "POST", at(room, "forget"), nil)
	bob.Must(t, "GET", at(room, "messages")+"?dir=b", nil) // as anyone may
}

func TestMembers(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve, dan := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve"), s.User(t, "dan")
	alice.Must(t, "PUT", v3+"/profile/"+alice.UserID+"/displayname", object{"displayname": "Alice"})
	alice.Must(t, "PUT", v3+"/profile/"+alice.UserID+"/avatar_url", object{"avatar_url": "mxc://a/b"})
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	before := alice.Sync(t, "")["next_batch"].(string)
	bob.Join(t, room)
	invite(t, alice, room, eve)
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": dan.UserID})

	who := func(c *apptest.Client, query string) string {
		var out []string
		for _, e := range list(t, c.Must(t, "GET", at(room, "members")+query, nil), "chunk") {
			same(t, "type", e["type"], "m.room.member")
			same(t, "room", e["room_id"], room)
			name, _, _ := strings.Cut(e["state_key"].(string)[1:], ":")
			out = append(out, name+" "+apptest.At(e, "content", "membership").(string))
		}
		return strings.Join(out, ", ")
	}
	same(t, "all", who(alice, ""), "alice join, bob join, dan ban, eve invite")
	same(t, "joined", who(bob, "?membership=join"), "alice join, bob join")
	same(t, "not joined", who(bob, "?not_membership=join"), "dan ban, eve invite")
	same(t, "before", who(alice, "?at="+url.QueryEscape(before)), "alice join")
	alice.Fails(t, "GET", at(room, "members")+"?at=x", nil, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", at(room, "members")+"?membership=x", nil, 400, "M_INVALID_PARAM")
	same(t, "joined members", alice.Must(t, "GET", at(room, "joined_members"), nil)["joined"], object{
		alice.UserID: object{"display_name": "Alice", "avatar_url": "mxc://a/b"},
		bob.UserID:   object{"display_name": "bob", "avatar_url": nil},
	})

	leave(t, bob, room)
	s.User(t, "late").Join(t, room)
	same(t, "as of leaving", who(bob, ""), "alice join, bob leave, dan ban, eve invite")
}

// Who was in a room before one could look at it is not told.
func TestMembersBefore(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}})
	eve.Join(t, room)
	before := alice.Sync(t, "")["next_batch"].(string)
	leave(t, eve, room)
	bob.Join(t, room)
	at := at(room, "members") + "?membership=join&at=" + url.QueryEscape(before)
	same(t, "who was there", len(list(t, alice.Must(t, "GET", at, nil), "chunk")), 2)
	for _, e := range list(t, bob.Must(t, "GET", at, nil), "chunk") {
		if e["state_key"] == eve.UserID {
			t.Error("bob learns who was there before him")
		}
	}
}

func TestUpdateProfile(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var rooms []string
	for range 3 {
		rooms = append(rooms, alice.CreateRoom(t, object{"preset": "public_chat"}))
		bob.Join(t, rooms[len(rooms)-1])
	}
	leave(t, bob, rooms[2])
	bob.Must(t, "PUT", v3+"/profile/"+bob.UserID+"/displayname", object{"displayname": "Bob"})
	for i, want := range []any{"Bob", "Bob", nil} {
		same(t, "name", state(t, alice, rooms[i], "m.room.member/"+bob.UserID)["displayname"], want)
	}
	same(t, "who left", membership(t, alice, rooms[2], bob.UserID), "leave")
}

// Who blocks invites gets none, by no way, and of what was asked nothing is done.
func TestInvitesBlocked(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	says := func(content object) {
		t.Helper()
		bob.Must(t, "PUT", v3+"/user/"+url.PathEscape(bob.UserID)+"/account_data/m.invite_permission_config", content)
	}
	room := alice.CreateRoom(t, nil)
	knocked := alice.CreateRoom(t, object{"initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
	before := alice.Must(t, "GET", v3+"/joined_rooms", nil)
	says(object{"default_action": "block"})
	refused := func(method, path string, body object) {
		t.Helper()
		alice.Fails(t, method, path, body, 403, "M_INVITE_BLOCKED")
	}
	for range 2 {
		refused("POST", at(room, "invite"), object{"user_id": bob.UserID})
		refused("PUT", at(room, "state", "m.room.member", bob.UserID), object{"membership": "invite"})
		refused("POST", v3+"/createRoom", object{"room_alias_name": "free", "invite": []string{carol.UserID, bob.UserID}})
		refused("POST", v3+"/createRoom", object{"is_direct": true, "preset": "trusted_private_chat", "invite": []string{bob.UserID}})
	}
	same(t, "member", membership(t, alice, room, bob.UserID), "404")
	same(t, "rooms", alice.Must(t, "GET", v3+"/joined_rooms", nil), before)
	alice.Fails(t, "GET", v3+"/directory/room/"+url.PathEscape("#free:"+apptest.Name), nil, 404, "M_NOT_FOUND")
	if apptest.At(carol.Sync(t, ""), "rooms", "invite") != nil {
		t.Error("another was invited to a room that was not made")
	}

	// It is about invites alone, and about those of this user.
	invite(t, alice, room, carol)
	bob.Must(t, "POST", v3+"/knock/"+url.PathEscape(knocked), nil)
	refused("POST", at(knocked, "invite"), object{"user_id": bob.UserID})
	alice.Must(t, "POST", at(knocked, "kick"), object{"user_id": bob.UserID})
	bob.Join(t, alice.CreateRoom(t, object{"preset": "public_chat"}))
	invite(t, bob, bob.CreateRoom(t, nil), alice)

	// Others learn who wants no invites only where they may invite.
	s.User(t, "eve").Fails(t, "POST", at(room, "invite"), object{"user_id": bob.UserID}, 403, "M_FORBIDDEN")

	for _, content := range []object{{"default_action": "allow"}, {"default_action": 1}, {}} {
		says(object{"default_action": "block"})
		refused("POST", at(room, "invite"), object{"user_id": bob.UserID})
		says(content)
		invite(t, alice, room, bob)
		leave(t, bob, room)
	}
	bob.Join(t, alice.CreateRoom(t, object{"invite": []string{bob.UserID}}))
}
