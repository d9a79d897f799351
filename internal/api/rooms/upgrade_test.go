package rooms_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func upgrade(t *testing.T, by *apptest.Client, room string, body object) string {
	t.Helper()
	return by.Must(t, "POST", at(room, "upgrade"), body)["replacement_room"].(string)
}

// TestUpgrade replaces a room by one of every version that there is.
func TestUpgrade(t *testing.T) {
	s := apptest.Start(t)
	for _, from := range []string{"10", "11", "12"} {
		for _, to := range []string{"10", "11", "12"} {
			t.Run(from+" to "+to, func(t *testing.T) { upgradeTo(t, s, from, to) })
		}
	}
}

func upgradeTo(t *testing.T, s *apptest.Server, from, to string) {
	name := from + "to" + to
	alice, bob, eve := s.User(t, "alice"+name), s.User(t, "bob"+name), s.User(t, "eve"+name)
	old := alice.CreateRoom(t, object{
		"room_version": from, "visibility": "public", "preset": "public_chat", "name": "name", "topic": "topic", "room_alias_name": name,
		"creation_content": object{"type": "com.example", "m.federate": false},
		"initial_state": []object{
			{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
			{"type": "m.room.avatar", "content": object{"url": "mxc://a/b"}},
			{"type": "m.room.server_acl", "content": object{"allow": []string{"*"}}},
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
			{"type": "com.example.widget", "content": object{"a": 1}},
		},
	})
	alias := "#" + name + ":" + apptest.Name
	bob.Join(t, old)
	levels := state(t, alice, old, "m.room.power_levels")
	levels["users_default"], levels["kick"] = 2, 42
	users := levels["users"].(object)
	users[bob.UserID] = 50
	alice.Must(t, "PUT", at(old, "state", "m.room.power_levels"), levels)
	alice.Must(t, "PUT", at(old, "state", "m.room.canonical_alias"), object{"alias": alias})
	alice.Must(t, "POST", at(old, "ban"), object{"user_id": eve.UserID, "reason": "spam"})
	bob.Must(t, "PUT", at(old, "state", "m.space.child", "!child"), object{"via": []string{apptest.Name}})
	last := bob.Send(t, old, "last")

	body := object{"new_version": to}
	if to == "12" {
		body["additional_creators"] = []string{bob.UserID}
	}
	next := upgrade(t, alice, old, body)
	same(t, "tombstone", state(t, alice, old, "m.room.tombstone")["replacement_room"], next)
	create := state(t, alice, next, "m.room.create")
	predecessor := object{"room_id": old}
	if to == "12" {
		same(t, "creators", create["additional_creators"], []string{bob.UserID})
	} else {
		predecessor["event_id"] = last
	}
	same(t, "predecessor", create["predecessor"], predecessor)
	same(t, "creation", []any{create["room_version"], create["type"], create["m.federate"]}, []any{to, "com.example", false})
	for _, name := range []string{
		"m.room.encryption", "m.room.avatar", "m.room.server_acl", "m.room.history_visibility", "m.room.name", "m.room.topic",
		"m.room.join_rules", "m.room.guest_access", "m.space.child/!child",
	} {
		same(t, name, state(t, alice, next, name), state(t, bob, old, name))
	}
	alice.Fails(t, "GET", at(next, "state", "com.example.widget"), nil, 404, "M_NOT_FOUND")
	same(t, "ban", state(t, alice, next, "m.room.member/"+eve.UserID), object{"membership": "ban", "reason": "spam"})
	same(t, "alias", s.Anonymous().Must(t, "GET", aliasPath(name), nil)["room_id"], next)
	same(t, "aliases", alice.Must(t, "GET", at(next, "aliases"), nil)["aliases"], []string{alias})
	same(t, "old aliases", alice.Must(t, "GET", at(old, "aliases"), nil)["aliases"], []string{})
	same(t, "canonical", state(t, alice, next, "m.room.canonical_alias"), object{"alias": alias})
	same(t, "old canonical", state(t, alice, old, "m.room.canonical_alias"), object{})
	listed := func(room string) any {
		return alice.Must(t, "GET", v3+"/directory/list/room/"+url.PathEscape(room), nil)["visibility"]
	}
	same(t, "listed", []any{listed(old), listed(next)}, []any{"private", "public"})

	now := state(t, alice, next, "m.room.power_levels")
	want := object{alice.UserID: 100, bob.UserID: 50}
	if from == "12" {
		want[alice.UserID] = 150 // what it takes to replace a room
	}
	if to == "12" {
		want = object{}
	}
	same(t, "users", now["users"], want)
	same(t, "kick", now["kick"], 42)
	muted := state(t, alice, old, "m.room.power_levels")
	same(t, "muted", []any{muted["events_default"], muted["invite"], muted["kick"]}, []any{50, 50, 42})
	eve.Fails(t, "POST", at(next, "join"), nil, 403, "M_FORBIDDEN")
	bob.Join(t, next)
	bob.Send(t, next, "here we are")
}

// TestUpgradeRights: who may send a tombstone may upgrade, also with less power
// than it takes to set what is copied.
func TestUpgradeRights(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{
		"room_version": "11", "preset": "public_chat",
		"power_level_content_override": object{
			"users": object{alice.UserID: 100, bob.UserID: 60}, "state_default": 90, "ban": 95,
			"events": object{"m.room.tombstone": 60, "m.room.power_levels": 100, "m.room.encryption": 100},
		},
		"initial_state": []object{{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}}},
	})
	bob.Join(t, room)
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": eve.UserID})
	carol := s.User(t, "carol")
	body := object{"new_version": "11"}
	carol.Fails(t, "POST", at(room, "upgrade"), body, 403, "M_FORBIDDEN")
	carol.Join(t, room)
	carol.Fails(t, "POST", at(room, "upgrade"), body, 403, "M_FORBIDDEN")
	eve.Fails(t, "POST", at(room, "upgrade"), body, 403, "M_FORBIDDEN")
	eve.Fails(t, "POST", at("!none", "upgrade"), body, 403, "M_FORBIDDEN")
	s.Anonymous().Fails(t, "POST", at(room, "upgrade"), body, 401, "M_MISSING_TOKEN")
	bob.Fails(t, "POST", at(room, "upgrade"), object{}, 400, "M_MISSING_PARAM")
	bob.Fails(t, "POST", at(room, "upgrade"), object{"new_version": "x"}, 400, "M_UNSUPPORTED_ROOM_VERSION")
	bob.Fails(t, "POST", at(room, "upgrade"), object{"new_version": "12", "additional_creators": []string{"x"}}, 400, "M_INVALID_PARAM")
	carol.Fails(t, "GET", at(room, "state", "m.room.tombstone"), nil, 404, "M_NOT_FOUND")
	next := upgrade(t, bob, room, body)
	same(t, "power", state(t, bob, next, "m.room.power_levels")["users"], object{alice.UserID: 100, bob.UserID: 60})
	same(t, "encryption", state(t, bob, next, "m.room.encryption")["algorithm"], "m.megolm.v1.aes-sha2")
	same(t, "ban", membership(t, bob, next, eve.UserID), "ban")
	same(t, "not muted without the power", state(t, alice, room, "m.room.power_levels")["events_default"], 0)
	// A creator of version 12 need not be one of the old room's mighty.
	upgrade(t, bob, room, object{"new_version": "12"})
}

// TestUpgradeCarriesSettings: what a user set for the old room holds in the new one.
func TestUpgradeCarriesSettings(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	settings := func(c *apptest.Client, room string) (tags, data object) {
		base := v3 + "/user/" + url.PathEscape(c.UserID) + "/rooms/" + url.PathEscape(room)
		tags = c.Must(t, "GET", base+"/tags", nil)["tags"].(object)
		_, data = c.Do(t, "GET", base+"/account_data/com.example", nil)
		return tags, data
	}
	rules := func(c *apptest.Client, kind string) (out []string) {
		for _, r := range list(t, c.Must(t, "GET", v3+"/pushrules/global/", nil), kind) {
			if r["default"] == false {
				out = append(out, fmt.Sprintf("%v %v %v %v", r["rule_id"], r["enabled"], r["actions"], r["conditions"]))
			}
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []*apptest.Client{alice, bob, eve} {
		if c != eve {
			c.Join(t, room)
		}
		own := v3 + "/user/" + url.PathEscape(c.UserID)
		c.Must(t, "PUT", own+"/rooms/"+url.PathEscape(room)+"/tags/m.favourite", object{"order": 0.5})
		c.Must(t, "PUT", own+"/rooms/"+url.PathEscape(room)+"/account_data/com.example", object{"a": 1})
		c.Must(t, "PUT", own+"/account_data/m.direct", object{"@x:y": []string{room}, "@z:y": []string{"!other"}})
		c.Must(t, "PUT", v3+"/pushrules/global/room/"+url.PathEscape(room), object{"actions": []string{}})
		c.Must(t, "PUT", v3+"/pushrules/global/override/"+url.PathEscape(room), object{"actions": []string{}, "conditions": []object{
			{"kind": "event_match", "key": "room_id", "pattern": room},
		}})
		c.Must(t, "PUT", v3+"/pushrules/global/override/mine", object{"actions": []string{"notify"}, "conditions": []object{
			{"kind": "event_match", "key": "room_id", "pattern": room}, {"kind": "event_match", "key": "type", "pattern": "x"},
		}})
		c.Must(t, "PUT", v3+"/pushrules/global/override/mine/enabled", object{"enabled": false})
	}
	check := func(what, next string, users ...*apptest.Client) {
		t.Helper()
		for _, c := range users {
			tags, data := settings(c, next)
			same(t, what+": tags", tags, object{"m.favourite": object{"order": 0.5}})
			same(t, what+": data", data, object{"a": 1})
			direct := c.Must(t, "GET", v3+"/user/"+url.PathEscape(c.UserID)+"/account_data/m.direct", nil)
			same(t, what+": direct", direct, object{"@x:y": []string{room, next}, "@z:y": []string{"!other"}})
			same(t, what+": room rules", len(rules(c, "room")), 2)
			cond := func(r string) string {
				return fmt.Sprint(object{"kind": "event_match", "key": "room_id", "pattern": r})
			}
			x := fmt.Sprint(object{"kind": "event_match", "key": "type", "pattern": "x"})
			want := []string{
				room + " true [] [" + cond(room) + "]", next + " true [] [" + cond(next) + "]",
				"mine false [notify] [" + cond(room) + " " + x + "]", "mine." + next + " false [notify] [" + cond(next) + " " + x + "]",
			}
			slices.Sort(want)
			same(t, what+": override rules", rules(c, "override"), want)
		}
	}
	next := upgrade(t, alice, room, object{"new_version": "11"})
	bob.Join(t, next)
	eve.Join(t, next)
	check("upgraded", next, alice, bob)
	if tags, _ := settings(eve, next); len(tags) > 0 {
		t.Error("settings for a room that eve never was in")
	}
	// Whoever may not replace a room does not say so by making one.
	false1 := bob.CreateRoom(t, object{"preset": "public_chat", "creation_content": object{"predecessor": object{"room_id": room}}})
	alice.Join(t, false1)
	if tags, _ := settings(alice, false1); len(tags) > 0 {
		t.Error("settings carried over to a room that replaces none")
	}
}
