package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const v1 = "/_matrix/client/v1"

func summaryPath(room string) string { return v1 + "/room_summary/" + url.PathEscape(room) }

func hierarchyPath(room, query string) string {
	return v1 + "/rooms/" + url.PathEscape(room) + "/hierarchy?" + query
}

// TestDiscoveryRights asks for summaries and hierarchies of rooms of every join
// rule on behalf of users in every relation to them.
func TestDiscoveryRights(t *testing.T) {
	relations := strings.Fields("never invited joined left banned member")
	// For each rule the statuses of the summary, then without a token, and those of
	// the hierarchy. A member is one of a room that the restricted rules allow.
	table := map[string]string{
		"invite":                "404 200 200 404 404 404 / 404 / 403 200 200 403 403 403",
		"private":               "404 200 200 404 404 404 / 404 / 403 200 200 403 403 403",
		"public":                "200 200 200 200 200 200 / 200 / 200 200 200 200 403 200",
		"knock":                 "200 200 200 200 200 200 / 200 / 200 200 200 200 403 200",
		"restricted":            "404 200 200 404 404 200 / 404 / 403 200 200 403 403 200",
		"knock_restricted":      "200 200 200 200 200 200 / 200 / 200 200 200 200 403 200",
		"invite world_readable": "200 200 200 200 200 200 / 200 / 200 200 200 200 200 200",
	}
	s := apptest.Start(t)
	admin := s.User(t, "admin")
	clients := make(map[string]*apptest.Client)
	for _, relation := range relations {
		clients[relation] = s.User(t, relation)
	}
	club := admin.CreateRoom(t, object{"preset": "public_chat"})
	clients["member"].Join(t, club)
	for name, want := range table {
		t.Run(name, func(t *testing.T) {
			rule, visibility, _ := strings.Cut(name, " ")
			if visibility == "" {
				visibility = "shared"
			}
			room := admin.CreateRoom(t, object{"creation_content": object{"type": "m.space"}, "initial_state": []object{
				{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
				{"type": "m.room.join_rules", "content": object{"join_rule": rule, "allow": []object{
					{"type": "m.room_membership", "room_id": "not a room"}, {"type": "m.room_membership", "room_id": club},
				}}},
			}})
			outer := admin.CreateRoom(t, object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
			admin.Must(t, "PUT", at(outer, "state", "m.space.child", room), object{"via": []string{apptest.Name}})
			for _, relation := range []string{"invited", "joined", "left"} {
				invite(t, admin, room, clients[relation])
			}
			for _, relation := range []string{"joined", "left"} {
				if rule != "private" {
					clients[relation].Join(t, room)
				}
			}
			leave(t, clients["left"], room)
			admin.Must(t, "POST", at(room, "ban"), object{"user_id": clients["banned"].UserID})
			var summaries, hierarchies []string
			for _, relation := range relations {
				if relation == "joined" && rule == "private" {
					summaries, hierarchies = append(summaries, "200"), append(hierarchies, "200") // invited: nobody can join
					continue
				}
				c := clients[relation]
				status, out := c.Do(t, "GET", summaryPath(room), nil)
				summaries = append(summaries, fmt.Sprint(status))
				if status == 200 {
					is := map[string]string{"never": "leave", "invited": "invite", "joined": "join", "left": "leave", "banned": "ban", "member": "leave"}
					same(t, relation+" is", out["membership"], is[relation])
				} else {
					same(t, relation+" is told", out["errcode"], "M_NOT_FOUND")
				}
				status, _ = c.Do(t, "GET", hierarchyPath(room, ""), nil)
				hierarchies = append(hierarchies, fmt.Sprint(status))
				below := list(t, c.Must(t, "GET", hierarchyPath(outer, ""), nil), "rooms")
				if shown := len(below) == 2; shown != (status == 200) {
					t.Errorf("%s: shown below a space: %v, by itself: %d", relation, shown, status)
				}
			}
			status, out := s.Anonymous().Do(t, "GET", summaryPath(room), nil)
			if out["membership"] != nil {
				t.Errorf("nobody has a membership: %v", out)
			}
			same(t, "statuses", fmt.Sprintf("%s / %d / %s", strings.Join(summaries, " "), status, strings.Join(hierarchies, " ")), want)
		})
	}
	s.Anonymous().Fails(t, "GET", hierarchyPath(club, ""), nil, 401, "M_MISSING_TOKEN")
}

func TestRoomSummary(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	club := alice.CreateRoom(t, nil)
	room := alice.CreateRoom(t, object{
		"room_version": "11", "name": "name", "topic": "topic", "room_alias_name": "summary", "creation_content": object{"type": "m.space"},
		"initial_state": []object{
			{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
			{"type": "m.room.avatar", "content": object{"url": "mxc://a/b"}},
			{"type": "m.room.join_rules", "content": object{
				"join_rule": "knock_restricted", "allow": []object{{"type": "m.room_membership", "room_id": club}},
			}},
		},
	})
	want := object{
		"room_id": room, "name": "name", "topic": "topic", "canonical_alias": "#summary:" + apptest.Name, "avatar_url": "mxc://a/b",
		"num_joined_members": 1, "world_readable": false, "guest_can_join": true, "join_rule": "knock_restricted",
		"room_type": "m.space", "room_version": "11", "encryption": "m.megolm.v1.aes-sha2", "allowed_room_ids": []string{club},
		"im.nheko.summary.room_version": "11", "im.nheko.summary.encryption": "m.megolm.v1.aes-sha2",
	}
	const unstable = "/_matrix/client/unstable/im.nheko.summary/"
	alias := url.PathEscape("#summary:" + apptest.Name)
	for _, path := range []string{
		summaryPath(room), v1 + "/room_summary/" + alias, unstable + "summary/" + alias, unstable + "rooms/" + url.PathEscape(room) + "/summary?via=x",
	} {
		same(t, path, s.Anonymous().Must(t, "GET", path, nil), want)
	}
	want["membership"] = "join"
	same(t, "for a member", alice.Must(t, "GET", summaryPath(room), nil), want)
	s.Anonymous().Fails(t, "GET", summaryPath("!none"), nil, 404, "M_NOT_FOUND")
	s.Anonymous().Fails(t, "GET", summaryPath("#none:x"), nil, 404, "M_NOT_FOUND")
	s.Anonymous().Fails(t, "GET", summaryPath("none"), nil, 400, "M_INVALID_PARAM")
	plain := alice.CreateRoom(t, object{"preset": "public_chat"})
	same(t, "what is not there", alice.Must(t, "GET", summaryPath(plain), nil), object{
		"room_id": plain, "num_joined_members": 1, "world_readable": false, "guest_can_join": false, "join_rule": "public",
		"room_version": "12", "membership": "join", "im.nheko.summary.room_version": "12",
	})
}

// tree makes spaces and rooms: names that end in / are spaces, and the lines give
// the children in order, which may be given; ~ stands for none, * for suggested.
func tree(t *testing.T, by *apptest.Client, lines ...string) map[string]string {
	t.Helper()
	rooms := make(map[string]string)
	make1 := func(name string) {
		if rooms[name] != "" {
			return
		}
		options := object{"preset": "public_chat", "name": name}
		if strings.HasSuffix(name, "/") {
			options["creation_content"] = object{"type": "m.space"}
		}
		rooms[name] = by.CreateRoom(t, options)
	}
	for _, line := range lines {
		names := strings.Fields(line)
		for _, name := range names {
			name, _, _ = strings.Cut(name, "=")
			make1(strings.TrimLeft(name, "*~"))
		}
		for i, entry := range names[1:] {
			name, order, ordered := strings.Cut(entry, "=")
			content := object{"via": []string{apptest.Name}, "order": fmt.Sprint("k", i)}
			if ordered {
				content["order"] = order
			}
			name, unordered := strings.CutPrefix(name, "~")
			if unordered {
				delete(content, "order")
			}
			name, suggested := strings.CutPrefix(name, "*")
			if suggested {
				content["suggested"] = true
			}
			by.Must(t, "PUT", at(rooms[names[0]], "state", "m.space.child", rooms[name]), content)
		}
	}
	return rooms
}

// walk names the rooms of a hierarchy in pages.
func walkTree(t *testing.T, by *apptest.Client, room, query string) string {
	t.Helper()
	var names []string
	from := ""
	for range 100 {
		page := by.Must(t, "GET", hierarchyPath(room, query+from), nil)
		for _, r := range list(t, page, "rooms") {
			names = append(names, fmt.Sprint(r["name"]))
		}
		next, more := page["next_batch"].(string)
		if !more {
			return strings.Join(names, " ")
		}
		names = append(names, "|")
		from = "&from=" + url.QueryEscape(next)
	}
	t.Fatal("the pages do not end")
	return ""
}

func TestHierarchy(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	rooms := tree(
		t, alice,
		"root/ ~old *a=2 b/=1 private c", "b/ *d e/ root/", "e/ f d", "a x", "private y",
	)
	alice.Must(t, "PUT", at(rooms["private"], "state", "m.room.join_rules"), object{"join_rule": "invite"})
	root := rooms["root/"]
	alice.Must(t, "PUT", at(root, "state", "m.space.child", rooms["x"]), object{})
	alice.Must(t, "PUT", at(root, "state", "m.space.child", rooms["y"]), object{"via": "x"})
	alice.Must(t, "PUT", at(root, "state", "m.space.child", "nonsense"), object{"via": []string{"x"}, "order": strings.Repeat("a", 51)})
	alice.Must(t, "PUT", at(root, "state", "m.space.child", "!unknown"), object{"via": []string{"x"}, "order": "0"})

	same(t, "as alice", walkTree(t, alice, root, ""), "root/ b/ d e/ f a private c old")
	same(t, "as bob", walkTree(t, bob, root, ""), "root/ b/ d e/ f a c old")
	same(t, "in pages", walkTree(t, bob, root, "limit=3"), "root/ b/ d | e/ f a | c old")
	same(t, "page that fits", walkTree(t, bob, root, "limit=8"), "root/ b/ d e/ f a c old")
	same(t, "depth 0", walkTree(t, bob, root, "max_depth=0"), "root/")
	same(t, "depth 1", walkTree(t, bob, root, "max_depth=1&limit=2"), "root/ b/ | a c | old")
	same(t, "suggested", walkTree(t, bob, root, "suggested_only=true"), "root/ a")
	same(t, "suggested below", walkTree(t, bob, rooms["b/"], "suggested_only=true"), "b/ d")
	same(t, "below", walkTree(t, bob, rooms["e/"], ""), "e/ f d")
	same(t, "no space", walkTree(t, bob, rooms["a"], ""), "a")
	same(t, "huge limits", walkTree(t, bob, root, "limit=9999999&max_depth=9999999"), "root/ b/ d e/ f a c old")

	first := list(t, bob.Must(t, "GET", hierarchyPath(root, ""), nil), "rooms")[0]
	var keys []string
	for _, c := range list(t, first, "children_state") {
		keys = append(keys, fmt.Sprint(c["state_key"]))
		if c["type"] != "m.space.child" || c["sender"] != alice.UserID || c["origin_server_ts"].(float64) < 1e12 || apptest.At(c, "content", "via") == nil {
			t.Errorf("child state %v", c)
		}
	}
	same(t, "children", keys, []string{"!unknown", rooms["b/"], rooms["a"], rooms["private"], rooms["c"], rooms["old"], "nonsense"})
	same(t, "of no space", list(t, bob.Must(t, "GET", hierarchyPath(rooms["a"], ""), nil), "rooms")[0]["children_state"], []any{})
	same(t, "suggested children", len(list(t, list(t, bob.Must(t, "GET", hierarchyPath(root, "suggested_only=true"), nil), "rooms")[0], "children_state")), 1)

	token := bob.Must(t, "GET", hierarchyPath(root, "limit=1"), nil)["next_batch"].(string)
	for _, query := range []string{
		"limit=0", "limit=-1", "limit=x", "max_depth=-1", "max_depth=x", "suggested_only=x", "from=x", "from=%00", "from=e30",
		"max_depth=1&from=" + token, "suggested_only=true&from=" + token,
	} {
		bob.Fails(t, "GET", hierarchyPath(root, query), nil, 400, "M_INVALID_PARAM")
	}
	bob.Fails(t, "GET", hierarchyPath(rooms["a"], "from="+token), nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "GET", hierarchyPath("!none", ""), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", hierarchyPath("none", ""), nil, 400, "M_INVALID_PARAM")
}

// TestMutualRooms: only rooms in which both are now.
func TestMutualRooms(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	path := v1 + "/mutual_rooms?user_id=" + url.QueryEscape(bob.UserID)
	shared := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, shared)
	alice.CreateRoom(t, nil)
	bob.CreateRoom(t, nil)
	invite(t, alice, alice.CreateRoom(t, nil), bob)
	for _, end := range []string{"leave", "kick", "ban"} {
		room := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, room)
		if end == "leave" {
			leave(t, bob, room)
		} else {
			alice.Must(t, "POST", at(room, end), object{"user_id": bob.UserID})
		}
	}
	want := object{"joined": []string{shared}, "count": 1}
	same(t, "shared", alice.Must(t, "GET", path, nil), want)
	const unstable = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id="
	same(t, "shared, from the other side", bob.Must(t, "GET", unstable+url.QueryEscape(alice.UserID), nil), want)
	same(t, "nothing shared", eve.Must(t, "GET", path, nil), object{"joined": []any{}, "count": 0})
	same(t, "nobody", eve.Must(t, "GET", v1+"/mutual_rooms?user_id=@none:x", nil), object{"joined": []any{}, "count": 0})
	eve.Fails(t, "GET", v1+"/mutual_rooms", nil, 400, "M_MISSING_PARAM")
	eve.Fails(t, "GET", v1+"/mutual_rooms?user_id=x", nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "GET", path, nil, 400, "M_INVALID_PARAM")
	eve.Fails(t, "GET", path+"&from=x", nil, 400, "M_INVALID_PARAM")
	s.Anonymous().Fails(t, "GET", path, nil, 401, "M_MISSING_TOKEN")

	for range 205 {
		bob.Join(t, alice.CreateRoom(t, object{"preset": "public_chat"}))
	}
	page := alice.Must(t, "GET", path, nil)
	same(t, "count", page["count"], 206)
	rest := alice.Must(t, "GET", path+"&from="+page["next_batch"].(string), nil)
	same(t, "pages", []int{len(page["joined"].([]any)), len(rest["joined"].([]any))}, []int{200, 6})
	if rest["next_batch"] != nil {
		t.Error("there is a page behind the last")
	}
}
