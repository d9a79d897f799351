package rooms_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func aliasPath(local string) string {
	return v3 + "/directory/room/" + url.PathEscape("#"+local+":"+apptest.Name)
}

func TestAliases(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	target := object{"room_id": room}
	bob.Must(t, "PUT", aliasPath("bobs"), target)
	alice.Must(t, "PUT", aliasPath("héllo-😀"), target)
	alice.Must(t, "PUT", aliasPath("third"), target)
	found := s.Anonymous().Must(t, "GET", aliasPath("héllo-😀"), nil)
	same(t, "found", found, object{"room_id": room, "servers": []string{apptest.Name}})
	names := func() []string {
		var out []string
		for _, a := range bob.Must(t, "GET", at(room, "aliases"), nil)["aliases"].([]any) {
			out = append(out, strings.TrimSuffix(a.(string)[1:], ":"+apptest.Name))
		}
		slices.Sort(out)
		return out
	}
	same(t, "aliases", names(), "[bobs héllo-😀 third]")
	same(t, "aliases of none", alice.Must(t, "GET", at(alice.CreateRoom(t, nil), "aliases"), nil), object{"aliases": []any{}})

	bob.Fails(t, "PUT", aliasPath("bobs"), target, 409, "M_ROOM_IN_USE")
	eve.Fails(t, "PUT", aliasPath("eves"), target, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", aliasPath("a"), object{"room_id": "!unknown"}, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", aliasPath("a"), object{"room_id": "x"}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", aliasPath("a"), object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "PUT", aliasPath("a b"), target, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", v3+"/directory/room/%23a:elsewhere", target, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", aliasPath("none"), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v3+"/directory/room/none", nil, 400, "M_INVALID_PARAM")

	bob.Fails(t, "DELETE", aliasPath("third"), nil, 403, "M_FORBIDDEN")
	eve.Fails(t, "DELETE", aliasPath("bobs"), nil, 403, "M_FORBIDDEN")
	bob.Must(t, "DELETE", aliasPath("bobs"), nil)
	bob.Fails(t, "DELETE", aliasPath("bobs"), nil, 404, "M_NOT_FOUND")
	bob.Must(t, "PUT", aliasPath("bobs"), target)
	alice.Must(t, "DELETE", aliasPath("bobs"), nil) // has the power
	same(t, "aliases", names(), "[héllo-😀 third]")

	full := "#third:" + apptest.Name
	alice.Must(t, "PUT", at(room, "state", "m.room.canonical_alias"), object{
		"alias": full, "alt_aliases": []string{full, "#héllo-😀:" + apptest.Name},
	})
	alice.Must(t, "DELETE", aliasPath("third"), nil)
	same(t, "canonical alias without what is gone", state(t, alice, room, "m.room.canonical_alias"), object{
		"alt_aliases": []string{"#héllo-😀:" + apptest.Name},
	})
}

func TestListing(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	path := v3 + "/directory/list/room/" + url.PathEscape(room)
	visibility := func() any { return s.Anonymous().Must(t, "GET", path, nil)["visibility"] }
	same(t, "at first", visibility(), "private")
	bob.Fails(t, "PUT", path, object{"visibility": "public"}, 403, "M_FORBIDDEN")
	alice.Must(t, "PUT", path, object{})
	same(t, "published", visibility(), "public")
	same(t, "listed", len(list(t, s.Anonymous().Must(t, "GET", v3+"/publicRooms", nil), "chunk")), 1)
	alice.Must(t, "PUT", path, object{"visibility": "private"})
	same(t, "withdrawn", visibility(), "private")
	same(t, "not listed", len(list(t, bob.Must(t, "GET", v3+"/publicRooms", nil), "chunk")), 0)
	alice.Fails(t, "PUT", path, object{"visibility": "x"}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", v3+"/directory/list/room/%21none", object{}, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v3+"/directory/list/room/%21none", nil, 404, "M_NOT_FOUND")
}

func TestPublicRooms(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	var rooms []string
	for i := range 12 {
		body := object{
			"visibility": "public", "name": fmt.Sprintf("Room %02d", i), "topic": "Weather", "room_alias_name": fmt.Sprintf("alias%02d", i),
		}
		if i == 3 {
			body["topic"], body["creation_content"] = "Of CATS", object{"type": "m.space"}
			body["initial_state"] = []object{
				{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}},
				{"type": "m.room.guest_access", "content": object{"guest_access": "can_join"}},
				{"type": "m.room.avatar", "content": object{"url": "mxc://a/b"}},
			}
		}
		rooms = append(rooms, alice.CreateRoom(t, body))
	}
	for _, c := range []*apptest.Client{bob, eve} {
		c.Join(t, rooms[3])
	}
	bob.Join(t, rooms[7])
	alice.CreateRoom(t, object{"name": "private"})
	empty := bob.CreateRoom(t, object{"visibility": "public", "name": "empty"})
	leave(t, bob, empty)

	ids := func(answer object) []string {
		var out []string
		for _, r := range list(t, answer, "chunk") {
			out = append(out, r["room_id"].(string))
		}
		return out
	}
	all := s.Anonymous().Must(t, "GET", v3+"/publicRooms", nil)
	same(t, "largest first", ids(all)[:2], []string{rooms[3], rooms[7]})
	same(t, "total", all["total_room_count_estimate"], 12)
	same(t, "a room", list(t, all, "chunk")[0], object{
		"room_id": rooms[3], "name": "Room 03", "topic": "Of CATS", "canonical_alias": "#alias03:" + apptest.Name,
		"avatar_url": "mxc://a/b", "num_joined_members": 3, "world_readable": true, "guest_can_join": true,
		"join_rule": "public", "room_type": "m.space",
	})

	var walked []string
	pages := []object{alice.Must(t, "GET", v3+"/publicRooms?limit=5", nil)}
	for {
		last := pages[len(pages)-1]
		walked = append(walked, ids(last)...)
		next, more := last["next_batch"].(string)
		if !more {
			break
		}
		pages = append(pages, alice.Must(t, "POST", v3+"/publicRooms", object{"limit": 5, "since": next}))
	}
	same(t, "in pages", walked, ids(all))
	same(t, "pages", len(pages), 3)
	same(t, "page before", ids(alice.Must(t, "GET", v3+"/publicRooms?limit=5&since="+pages[2]["prev_batch"].(string), nil)), ids(pages[1]))
	if pages[0]["prev_batch"] != nil {
		t.Error("there is a page before the first")
	}

	search := func(filter object) []string {
		return ids(bob.Must(t, "POST", v3+"/publicRooms", object{"filter": filter}))
	}
	same(t, "by name", search(object{"generic_search_term": "rOOM 07"}), []string{rooms[7]})
	same(t, "by topic", search(object{"generic_search_term": "cats"}), []string{rooms[3]})
	same(t, "by alias", search(object{"generic_search_term": "ALIAS11"}), []string{rooms[11]})
	same(t, "nothing", search(object{"generic_search_term": "dogs"}), []string{})
	same(t, "spaces", search(object{"room_types": []any{"m.space"}}), []string{rooms[3]})
	same(t, "rooms", len(search(object{"room_types": []any{nil}})), 11)
	same(t, "both", len(search(object{"room_types": []any{nil, "m.space"}})), 12)
	same(t, "no type", len(search(object{"room_types": []any{}})), 0)
	same(t, "any type", len(search(object{"room_types": nil})), 12)

	same(t, "our server", len(ids(alice.Must(t, "GET", v3+"/publicRooms?server="+apptest.Name, nil))), 12)
	alice.Fails(t, "GET", v3+"/publicRooms?server=elsewhere", nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v3+"/publicRooms?since=x", nil, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", v3+"/publicRooms", object{"limit": "x"}, 400, "M_BAD_JSON")
	s.Anonymous().Fails(t, "POST", v3+"/publicRooms", object{}, 401, "M_MISSING_TOKEN")
}

// TestPublicRoomsIndex walks a directory that is larger than what is read at once,
// there and back, and finds rooms by the beginnings of words in any script.
func TestPublicRoomsIndex(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var want []string // the larger ones first, then by ID
	for i := range 260 {
		options := object{"visibility": "public", "preset": "public_chat", "name": fmt.Sprintf("Salon nº %d", i)}
		if i%2 == 0 {
			options["creation_content"] = object{"type": "m.space"}
		}
		want = append(want, alice.CreateRoom(t, options))
	}
	large := want[100]
	bob.Join(t, large)
	slices.Sort(want)
	want = append([]string{large}, slices.DeleteFunc(want, func(r string) bool { return r == large })...)
	walk := func(filter object, dir, since string) (out []string, last object) {
		for {
			page := alice.Must(t, "POST", v3+"/publicRooms", object{"limit": 33, "filter": filter, "since": since})
			var rooms []string
			for _, r := range list(t, page, "chunk") {
				rooms = append(rooms, r["room_id"].(string))
			}
			if dir == "next_batch" {
				out = append(out, rooms...)
			} else {
				out = append(rooms, out...)
			}
			next, more := page[dir].(string)
			if !more {
				return out, page
			}
			since = next
		}
	}
	all, last := walk(object{}, "next_batch", "")
	same(t, "all", all, want)
	back, _ := walk(object{}, "prev_batch", last["prev_batch"].(string))
	same(t, "back", back, want[:len(want)-len(list(t, last, "chunk"))])
	spaces, _ := walk(object{"room_types": []any{"m.space"}}, "next_batch", "")
	rooms, _ := walk(object{"room_types": []any{nil}}, "next_batch", "")
	both, _ := walk(object{"room_types": []any{nil, "m.space", "m.space"}}, "next_batch", "")
	same(t, "by type", []int{len(spaces), len(rooms)}, []int{130, 130})
	same(t, "both types", both, want)
	found, _ := walk(object{"generic_search_term": "sal"}, "next_batch", "")
	same(t, "searched", found, want)
	for _, name := range []string{"東京の部屋", "Café Müller", "😀 fun"} {
		alice.CreateRoom(t, object{"visibility": "public", "name": name})
	}
	for term, n := range map[string]int{
		"部屋": 1, "の部": 1, "cafe": 1, "MÜLL": 1, "ller": 0, "😀": 1, "salon 17": 11, "cafe salon": 0, "...": 263,
	} {
		page := alice.Must(t, "POST", v3+"/publicRooms", object{"filter": object{"generic_search_term": term}})
		got := len(list(t, page, "chunk"))
		if term == "..." { // no word at all: everything
			got, n = min(got, 100), 100
		}
		same(t, term, got, n)
	}
	types := make([]string, 21)
	alice.Fails(t, "POST", v3+"/publicRooms", object{"filter": object{"room_types": types}}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", v3+"/publicRooms", object{"filter": object{"generic_search_term": strings.Repeat("x", 600)}}, 400, "M_INVALID_PARAM")
}
