package rooms_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestCreateRoomPresets(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	for _, test := range []struct {
		name               string
		body               object
		join, guest, trust string
	}{
		{"nothing said", object{}, "invite", "can_join", "0"},
		{"published", object{"visibility": "public"}, "public", "forbidden", "0"},
		{"private", object{"preset": "private_chat"}, "invite", "can_join", "0"},
		{"trusted", object{"preset": "trusted_private_chat"}, "invite", "can_join", "100"},
		{"public", object{"preset": "public_chat"}, "public", "forbidden", "0"},
		{"preset before visibility", object{"preset": "private_chat", "visibility": "public"}, "invite", "can_join", "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, version := range []string{"10", "11", "12"} {
				test.body["room_version"], test.body["invite"] = version, []string{bob.UserID}
				room := alice.CreateRoom(t, test.body)
				same(t, "join rule", state(t, alice, room, "m.room.join_rules")["join_rule"], test.join)
				same(t, "guest access", state(t, alice, room, "m.room.guest_access")["guest_access"], test.guest)
				same(t, "visibility", state(t, alice, room, "m.room.history_visibility")["history_visibility"], "shared")
				create := state(t, alice, room, "m.room.create")
				same(t, "version", create["room_version"], version)
				users := apptest.At(state(t, alice, room, "m.room.power_levels"), "users").(object)
				switch {
				case version == "12" && test.trust == "100":
					same(t, "creators", create["additional_creators"], []string{bob.UserID})
				case version == "12":
					same(t, "creators", create["additional_creators"], nil)
					same(t, "levels", users, object{})
				default:
					same(t, "creator's level", users[alice.UserID], 100)
					trusted := "<nil>"
					if test.trust == "100" {
						trusted = "100"
					}
					same(t, "level of the invited", users[bob.UserID], trusted)
				}
				same(t, "ID with a server", strings.Contains(room, ":"), version != "12")
				same(t, "the invited", membership(t, alice, room, bob.UserID), "invite")
			}
		})
	}
}

func TestCreateRoomOrderOfEvents(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	alice.Must(t, "PUT", v3+"/profile/"+alice.UserID+"/displayname", object{"displayname": "Alice"})
	bob.Must(t, "PUT", v3+"/profile/"+bob.UserID+"/displayname", object{"displayname": "Bob"})
	room := alice.CreateRoom(t, object{
		"name": "Room", "topic": "Topic", "room_alias_name": "order", "invite": []string{bob.UserID, bob.UserID},
		"is_direct": true, "creation_content": object{"type": "m.space", "m.federate": false, "creator": "@x:y"},
		"initial_state": []object{
			{"type": "m.room.encryption", "state_key": "", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
			{"type": "com.example", "state_key": "a", "content": object{"n": 1}},
		},
	})
	chunk := list(t, alice.Must(t, "GET", at(room, "messages")+"?dir=f&limit=50", nil), "chunk")
	var types []string
	for _, e := range chunk {
		types = append(types, e["type"].(string))
	}
	same(t, "order", types, []string{
		"m.room.create", "m.room.member", "m.room.power_levels", "m.room.canonical_alias", "m.room.join_rules",
		"m.room.guest_access", "m.room.encryption", "m.room.history_visibility", "com.example",
		"m.room.name", "m.room.topic", "m.room.member",
	})
	same(t, "alias", state(t, alice, room, "m.room.canonical_alias")["alias"], "#order:"+apptest.Name)
	same(t, "topic", state(t, alice, room, "m.room.topic"), object{
		"topic": "Topic", "m.topic": object{"m.text": []any{object{"body": "Topic"}}},
	})
	create := state(t, alice, room, "m.room.create")
	same(t, "type", create["type"], "m.space")
	same(t, "creator", create["creator"], nil)
	same(t, "creator's name", apptest.At(chunk[1], "content", "displayname"), "Alice")
	last := chunk[len(chunk)-1]
	same(t, "invite", last["content"], object{"membership": "invite", "displayname": "Bob", "is_direct": true})

	invited := apptest.At(bob.Sync(t, ""), "rooms", "invite", room, "invite_state", "events")
	if invited == nil {
		t.Error("the invite is not in the sync of the invited")
	}
}

func TestCreateRoomOverrides(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{
		"room_version": "11", "power_level_content_override": object{"events_default": 7, "users": object{alice.UserID: 101}},
	})
	levels := state(t, alice, room, "m.room.power_levels")
	same(t, "events_default", levels["events_default"], 7)
	same(t, "users", levels["users"], object{alice.UserID: 101})
	same(t, "kick", levels["kick"], 50)

	room = alice.CreateRoom(t, object{"room_version": "11", "name": "kept", "initial_state": []object{
		{"type": "m.room.power_levels", "content": object{"users": object{alice.UserID: 100}}},
		{"type": "m.room.name", "content": object{"name": "replaced"}},
	}})
	same(t, "levels of initial_state", state(t, alice, room, "m.room.power_levels"), object{"users": object{alice.UserID: 100}})
	same(t, "name", state(t, alice, room, "m.room.name")["name"], "kept")
}

func TestCreateRoomErrors(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	alice.CreateRoom(t, object{"room_alias_name": "taken"})
	initial := func(eventType string, content any) object {
		return object{"initial_state": []object{{"type": eventType, "content": content}}}
	}
	for name, test := range map[string]struct {
		body   any
		status int
		code   string
	}{
		"version unknown":        {object{"room_version": "13"}, 400, "M_UNSUPPORTED_ROOM_VERSION"},
		"version a number":       {object{"room_version": 11}, 400, "M_BAD_JSON"},
		"alias taken":            {object{"room_alias_name": "taken"}, 400, "M_ROOM_IN_USE"},
		"alias with server":      {object{"room_alias_name": "a:" + apptest.Name}, 400, "M_INVALID_PARAM"},
		"alias empty":            {object{"room_alias_name": ""}, 400, "M_INVALID_PARAM"},
		"alias with space":       {object{"room_alias_name": "a b"}, 400, "M_INVALID_PARAM"},
		"alias too long":         {object{"room_alias_name": strings.Repeat("x", 255)}, 400, "M_INVALID_PARAM"},
		"visibility":             {object{"visibility": "secret"}, 400, "M_INVALID_PARAM"},
		"preset":                 {object{"preset": "x"}, 400, "M_INVALID_PARAM"},
		"invite of no ID":        {object{"invite": []string{"bob"}}, 400, "M_INVALID_PARAM"},
		"invite of nobody":       {object{"invite": []string{"@nobody:" + apptest.Name}}, 404, "M_NOT_FOUND"},
		"invite of another":      {object{"invite": []string{"@nobody:elsewhere"}}, 404, "M_NOT_FOUND"},
		"invite of oneself":      {object{"invite": []string{alice.UserID}}, 400, "M_INVALID_ROOM_STATE"},
		"invite by mail":         {object{"invite_3pid": []object{{"medium": "email", "address": "a@b"}}}, 400, "M_SERVER_NOT_TRUSTED"},
		"name a number":          {object{"name": 1}, 400, "M_BAD_JSON"},
		"name too long":          {object{"name": strings.Repeat("x", 66000)}, 413, "M_TOO_LARGE"},
		"initial create":         {initial("m.room.create", object{}), 400, "M_INVALID_ROOM_STATE"},
		"initial member":         {initial("m.room.member", object{"membership": "leave"}), 400, "M_INVALID_ROOM_STATE"},
		"initial redaction":      {initial("m.room.redaction", object{"redacts": "$x"}), 400, "M_INVALID_ROOM_STATE"},
		"initial levels":         {initial("m.room.power_levels", object{"ban": "50"}), 400, "M_BAD_JSON"},
		"initial creator level":  {initial("m.room.power_levels", object{"users": object{alice.UserID: 1}}), 400, "M_INVALID_ROOM_STATE"},
		"initial alias":          {initial("m.room.canonical_alias", object{"alias": "#taken:" + apptest.Name}), 400, "M_BAD_ALIAS"},
		"initial no content":     {object{"initial_state": []object{{"type": "x"}}}, 400, "M_BAD_JSON"},
		"initial no type":        {object{"initial_state": []object{{"content": object{}}}}, 400, "M_BAD_JSON"},
		"initial content":        {initial("x", 1), 400, "M_BAD_JSON"},
		"initial long type":      {initial(strings.Repeat("x", 256), object{}), 413, "M_TOO_LARGE"},
		"float":                  {initial("x", object{"a": 1.5}), 400, "M_BAD_JSON"},
		"creation_content":       {object{"creation_content": []int{}}, 400, "M_BAD_JSON"},
		"creators":               {object{"creation_content": object{"additional_creators": "x"}}, 400, "M_BAD_JSON"},
		"override":               {object{"power_level_content_override": object{"ban": "x"}}, 400, "M_INVALID_ROOM_STATE"},
		"too weak for the name":  {object{"room_version": "11", "name": "x", "power_level_content_override": object{"users": object{alice.UserID: 0}}}, 400, "M_INVALID_ROOM_STATE"},
		"no JSON":                {"{", 400, "M_NOT_JSON"},
		"no object":              {"[]", 400, "M_BAD_JSON"},
		"member twice":           {`{"name":"a","name":"b"}`, 400, "M_BAD_JSON"},
		"half of a surrogate":    {`{"name":"\ud800"}`, 400, "M_NOT_JSON"},
		"larger than any may be": {`{"name":"` + strings.Repeat("x", 1<<18) + `"}`, 413, "M_TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			alice.Fails(t, "POST", v3+"/createRoom", test.body, test.status, test.code)
		})
	}
	same(t, "rooms that were made", len(alice.Must(t, "GET", v3+"/joined_rooms", nil)["joined_rooms"].([]any)), 1)
	s.Anonymous().Fails(t, "POST", v3+"/createRoom", object{}, 401, "M_MISSING_TOKEN")
}

// The alias of a room that could not be made is free again.
func TestCreateRoomGivesAliasBack(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	body := object{
		"room_version": "11", "room_alias_name": "again", "name": "x",
		"power_level_content_override": object{"users": object{alice.UserID: 0}},
	}
	alice.Fails(t, "POST", v3+"/createRoom", body, 400, "M_INVALID_ROOM_STATE")
	alice.Fails(t, "GET", v3+"/directory/room/%23again:"+apptest.Name, nil, 404, "M_NOT_FOUND")
	delete(body, "power_level_content_override")
	room := alice.CreateRoom(t, body)
	same(t, "alias leads to", alice.Must(t, "GET", v3+"/directory/room/%23again:"+apptest.Name, nil)["room_id"], room)
}

// In version 12 the ID of a room follows from its create event, which is the same
// for all rooms a user makes in one millisecond.
func TestCreateRoomsAtTheSameTime(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	const n = 24
	ids := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			status, out := alice.Do(t, "POST", v3+"/createRoom", object{})
			ids[i], _ = out["room_id"].(string)
			if status != 200 {
				t.Errorf("got %d %v", status, out)
			}
		})
	}
	wg.Wait()
	slices.Sort(ids)
	same(t, "different rooms", len(slices.Compact(ids)), n)
}
