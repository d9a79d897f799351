package syncing_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// everything asks for all of a room, by a list and by name, and all extensions.
func everything(room string) object {
	on := object{"enabled": true}
	config := func() object { return object{"timeline_limit": 50, "required_state": [][]string{{"*", "*"}}} }
	return object{
		"lists": object{"all": config()}, "room_subscriptions": object{room: config()},
		"extensions": object{"to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on},
	}
}

// TestRights asks for a room on behalf of users in every relation to it: by a
// connection that begins then, and by one that knew the room before.
func TestRights(t *testing.T) {
	s := apptest.Start(t)
	admin := s.User(t, "admin")
	// What each may see of a room: its past, what was said when they were no longer
	// in it, and whether it is there at all. s: stripped state only.
	table := map[string]struct{ begins, knew string }{
		"never":     {"-", "-"},
		"invited":   {"s", "s"},
		"knocking":  {"s", "s"},
		"joined":    {"before after", "before after"},
		"left":      {"-", "before"},
		"kicked":    {"-", "before"},
		"banned":    {"-", "before"},
		"declined":  {"-", ""},
		"forgotten": {"-", ""},
	}
	for _, visibility := range []string{"shared", "world_readable", "joined"} {
		t.Run(visibility, func(t *testing.T) {
			room := admin.CreateRoom(t, object{
				"name": "secret name", "power_level_content_override": object{"invite": 50}, "initial_state": []object{
					{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
					{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}},
				},
			})
			c, knew := make(map[string]*apptest.Client), make(map[string]*slider)
			for relation := range table {
				c[relation] = s.User(t, relation+strings.ReplaceAll(visibility, "_", "")+"1")
				if relation != "never" && relation != "knocking" {
					admin.Must(t, "POST", at(room, "invite"), object{"user_id": c[relation].UserID})
				}
			}
			for _, relation := range []string{"joined", "left", "kicked", "banned", "forgotten"} {
				c[relation].Join(t, room)
			}
			c["knocking"].Must(t, "POST", v3+"/knock/"+url.PathEscape(room), nil)
			for relation, user := range c {
				knew[relation] = slide(t, user, everything(room))
				knew[relation].ask()
			}
			admin.Send(t, room, "before")
			for _, relation := range []string{"left", "declined", "forgotten"} {
				c[relation].Must(t, "POST", at(room, "leave"), nil)
			}
			c["forgotten"].Must(t, "POST", at(room, "forget"), nil)
			admin.Must(t, "POST", at(room, "kick"), object{"user_id": c["kicked"].UserID})
			admin.Must(t, "POST", at(room, "ban"), object{"user_id": c["banned"].UserID})
			admin.Must(t, "PUT", at(room, "state", "m.room.topic"), object{"topic": "later topic"})
			admin.Send(t, room, "after")
			admin.Must(t, "PUT", at(room, "typing", url.PathEscape(admin.UserID)), object{"typing": true, "timeout": 30000})
			admin.Must(t, "POST", at(room, "receipt", "m.read", admin.Send(t, room, "read")), object{})
			for relation, want := range table {
				begins := slide(t, c[relation], everything(room))
				begins.body["conn_id"] = "new"
				judgeRights(t, relation+" begins", begins.ask(), room, want.begins)
				a := knew[relation].ask()
				judgeRights(t, relation+" knew", a, room, want.knew)
				again := knew[relation].ask()
				same(t, relation+" is told once", fmt.Sprint(rooms(again)), "[]")
			}
		})
	}
}

// judgeRights compares what was told of a room with what may be.
func judgeRights(t *testing.T, who string, a *answer, room, want string) {
	t.Helper()
	raw, _ := json.Marshal(a)
	text := string(raw)
	r := a.Rooms[room]
	switch want {
	case "-":
		if r != nil || strings.Contains(text, room) {
			t.Errorf("%s: told of the room: %s", who, text)
		}
		return
	case "s":
		if r == nil && strings.Contains(who, "knew") {
			break // told before
		}
		if r == nil || len(r.Invite) == 0 {
			t.Errorf("%s: not told of the room: %s", who, text)
			return
		}
	default:
		if r == nil {
			t.Errorf("%s: not told of the room: %s", who, text)
			return
		}
	}
	for _, word := range []string{"before", "after"} {
		told := r != nil && strings.Contains(" "+r.bodies()+" ", " "+word+" ")
		if told != strings.Contains(want, word) {
			t.Errorf("%s: told %q is %t", who, word, told)
		}
	}
	inside := strings.Contains(want, "after")
	for _, later := range []string{"later topic", `"user_ids":["@admin`, `"m.read"`} {
		if strings.Contains(text, later) != inside {
			t.Errorf("%s: told %s is %t: %s", who, later, !inside, text)
		}
	}
	if inside || r == nil {
		return
	}
	if want != "s" && (r.Membership != "leave" && r.Membership != "ban" || r.Joined != nil || r.Notify != nil) {
		t.Errorf("%s: told %s", who, text)
	}
	if want == "s" && (len(r.Timeline)+len(r.State) > 0 || r.Joined != nil) {
		t.Errorf("%s: told %s", who, text)
	}
}

// Who is ignored is not heard, and does not invite.
func TestIgnoredUsers(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/account_data/m.ignored_user_list", object{"ignored_users": object{bob.UserID: object{}}})
	c := slide(t, alice, everything(room))
	c.ask()
	bob.Send(t, room, "x")
	invite := bob.CreateRoom(t, object{"invite": []string{alice.UserID}})
	bob.Must(t, "PUT", at(room, "typing", url.PathEscape(bob.UserID)), object{"typing": true, "timeout": 30000})
	a := c.ask()
	raw, _ := json.Marshal(a)
	if a.Rooms[invite] != nil || a.Rooms[room].bodies() != "" || strings.Contains(string(raw), bob.UserID) {
		t.Errorf("told of who is ignored: %s", raw)
	}
	alice.Send(t, room, "y")
	same(t, "others", c.ask().Rooms[room].bodies(), "y")
}

// Who blocks invites is not shown those that came before. They are shown when the block
// ends: by /sync in the next that begins anew, by a connection of sliding sync at once.
func TestBlockedInvites(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := bob.CreateRoom(t, nil)
	c := slide(t, alice, everything(room))
	c.ask()
	begun := alice.Sync(t, "")["next_batch"].(string)
	says := func(action string) {
		t.Helper()
		alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/account_data/m.invite_permission_config", object{"default_action": action})
	}
	invited := func(since string) bool {
		t.Helper()
		return apptest.At(alice.Sync(t, since), "rooms", "invite", room) != nil
	}
	bob.Must(t, "POST", at(room, "invite"), object{"user_id": alice.UserID})
	same(t, "as usual", []bool{invited(""), invited(begun)}, []bool{true, true})
	says("block")
	same(t, "blocked", []bool{invited(""), invited(begun)}, []bool{false, false})
	a := c.ask()
	same(t, "blocked, sliding", []any{len(a.Rooms), a.Lists["all"].Count}, []any{0, 0})
	blocked := alice.Sync(t, "")["next_batch"].(string)
	says("allow")
	same(t, "allowed", []bool{invited(""), invited(begun), invited(blocked)}, []bool{true, true, false})
	a = c.ask()
	if r := a.Rooms[room]; r == nil || r.Membership != "invite" || len(r.Invite) == 0 {
		t.Errorf("allowed, sliding: %+v", a)
	}
	alice.Join(t, room)
}

// A stay that ends and one that begins again, as the client follows them.
func TestStays(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "private_chat", "name": "n", "invite": []string{bob.UserID}})
	c := slide(t, bob, window(0, 9, 10, [][]string{{"m.room.member", "$ME"}}, nil))
	r := c.ask().Rooms[room]
	same(t, "invited", []any{r.Membership, r.Initial, len(r.Invite) > 0, len(r.Timeline)}, []any{"invite", true, true, 0})
	bob.Join(t, room)
	r = c.ask().Rooms[room]
	same(t, "joined", []any{r.Membership, r.Initial, *r.Name, r.state()}, []any{"join", true, "n", "member/" + bob.UserID})
	alice.Send(t, room, "a")
	bob.Must(t, "POST", at(room, "leave"), nil)
	alice.Send(t, room, "b")
	a := c.ask()
	r = a.Rooms[room]
	same(t, "left", []any{r.Membership, r.Initial, r.bodies(), r.state(), a.Lists["all"].Count}, []any{"leave", false, "a", "member/" + bob.UserID, 1})
	same(t, "gone", c.ask().Lists["all"].Count, 0)
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID})
	same(t, "invited again", c.ask().Rooms[room].Membership, "invite")
	bob.Must(t, "POST", at(room, "leave"), nil)
	r = c.ask().Rooms[room]
	same(t, "declined", []any{r.Membership, len(r.Timeline)}, []any{"leave", 1})
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID})
	bob.Join(t, room)
	bob.Must(t, "POST", at(room, "leave"), nil)
	same(t, "came and went between two requests", len(c.ask().Rooms), 0)
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID})
	bob.Join(t, room)
	r = c.ask().Rooms[room]
	same(t, "a new stay", []any{r.Membership, r.Initial}, []any{"join", true})
	bob.Must(t, "POST", at(room, "leave"), nil)
	alice.Must(t, "POST", at(room, "invite"), object{"user_id": bob.UserID})
	bob.Join(t, room)
	r = c.ask().Rooms[room]
	same(t, "left and came back between two requests", []any{r.Membership, r.Initial}, []any{"join", true})
}
