package userdata_test

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func search(t *testing.T, c *apptest.Client, term string, more ...object) (found []string, limited bool) {
	t.Helper()
	body := object{"search_term": term}
	for _, m := range more {
		for k, v := range m {
			body[k] = v
		}
	}
	out := c.Must(t, "POST", v3+"/user_directory/search", body)
	for _, r := range out["results"].([]any) {
		id := apptest.At(r, "user_id").(string)
		found = append(found, strings.TrimPrefix(strings.TrimSuffix(id, ":"+apptest.Name), "@"))
	}
	return found, out["limited"].(bool)
}

func TestSearchUsersVisible(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	friend, lonely, hidden := s.User(t, "bob-friend"), s.User(t, "bob-lonely"), s.User(t, "bob-hidden")
	public, readable, gone := s.User(t, "bob-public"), s.User(t, "bob-readable"), s.User(t, "bob-gone")
	private := alice.CreateRoom(t, object{"invite": []string{friend.UserID}})
	friend.Join(t, private)
	hidden.CreateRoom(t, nil)
	public.CreateRoom(t, object{"preset": "public_chat"})
	readable.CreateRoom(t, object{"initial_state": []any{object{
		"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": "world_readable"},
	}}})
	left := gone.CreateRoom(t, object{"preset": "public_chat"})
	gone.Must(t, "POST", v3+"/rooms/"+url.PathEscape(left)+"/leave", object{})
	got, limited := search(t, alice, "bob")
	slices.Sort(got)
	if want := []string{"bob-friend", "bob-public", "bob-readable"}; !reflect.DeepEqual(got, want) || limited {
		t.Errorf("found %v (limited: %t), want %v", got, limited, want)
	}
	if got, _ := search(t, lonely, "bob"); !reflect.DeepEqual(got, []string{"bob-public", "bob-readable"}) {
		t.Errorf("somebody without rooms found %v", got)
	}
	if got, _ := search(t, public, "bob-public"); got != nil {
		t.Errorf("who searches found themself: %v", got)
	}
}

func TestSearchUsersTerms(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	for name, shown := range map[string]string{
		"zoe": "Zoë Müller", "zed": "", "max": "Max Zoe", "zoe2": "Second", "yamada": "山田太郎", "anna-maria": "Анна Ёлкина", "smile": "a 🦊",
	} {
		u := s.User(t, name)
		u.Must(t, "PUT", profile(u, "/displayname"), object{"displayname": shown})
		u.Join(t, room)
	}
	for term, want := range map[string][]string{
		"zoe":                     {"zoe", "max", "zoe2"},
		"ZOE":                     {"zoe", "max", "zoe2"},
		"@zoe:" + apptest.Name:    {"zoe"},
		"MÜLLER":                  {"zoe"},
		"müller zoë":              {"zoe"},
		"mull zo":                 {"zoe"},
		"uller":                   nil,
		"太郎":                      {"yamada"},
		"田太":                      {"yamada"},
		"田郎":                      nil,
		"елк":                     {"anna-maria"},
		"АННА":                    {"anna-maria"},
		"maria":                   {"anna-maria"},
		"@anna-mar":               {"anna-maria"},
		"🦊":                       {"smile"},
		"z":                       {"max", "zoe2", "zoe", "zed"}, // those with a name first
		"zoë nobody":              nil,
		"zed":                     {"zed"},
		"  ":                      nil,
		"":                        nil,
		strings.Repeat("z", 5000): nil,
	} {
		if got, _ := search(t, alice, term); !reflect.DeepEqual(got, want) {
			t.Errorf("%.30q found %v, want %v", term, got, want)
		}
	}
	out := alice.Must(t, "POST", v3+"/user_directory/search", object{"search_term": "müller"})
	if got := apptest.At(out["results"].([]any)[0], "display_name"); got != "Zoë Müller" {
		t.Errorf("display name %v", got)
	}
	// A name in one room is nobody else's business.
	plain := s.User(t, "plain")
	plain.Join(t, room)
	plain.Must(t, "PUT", v3+"/rooms/"+url.PathEscape(room)+"/state/m.room.member/"+url.PathEscape(plain.UserID),
		object{"membership": "join", "displayname": "incognito"})
	if got, _ := search(t, alice, "incognito"); got != nil {
		t.Errorf("a room's own name is found: %v", got)
	}
}

// TestSearchUsersFollows: who is found follows names, rooms and accounts at once.
func TestSearchUsersFollows(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	find := func(term string, want ...string) {
		t.Helper()
		if got, _ := search(t, alice, term); !slices.Equal(got, want) {
			t.Errorf("%q finds %v, want %v", term, got, want)
		}
	}
	rename := func(name string) { bob.Must(t, "PUT", profile(bob, "/displayname"), object{"displayname": name}) }
	room := alice.CreateRoom(t, object{"preset": "private_chat", "invite": []string{bob.UserID}})
	find("bob")
	bob.Join(t, room)
	find("bob", "bob")
	rename("Robert")
	find("robert", "bob")
	find("bob", "bob") // the localpart
	rename("Bobby Tables")
	find("robert")
	find("tables bob", "bob")
	bob.Must(t, "DELETE", profile(bob, "/displayname"), nil)
	find("tables")
	rename("Tables")
	alice.Must(t, "POST", v3+"/rooms/"+url.PathEscape(room)+"/kick", object{"user_id": bob.UserID})
	find("tables")
	bob.CreateRoom(t, object{"preset": "public_chat"})
	find("tables", "bob")
	bob.Must(t, "POST", v3+"/account/deactivate", object{"auth": object{
		"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": "bob"}, "password": apptest.Password,
	}})
	find("tables")
	find("bob")
	find(bob.UserID)
}

func TestSearchAllUsers(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Directory.SearchAllUsers = true })
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	bob.CreateRoom(t, nil)
	for _, term := range []string{"bob", bob.UserID} {
		if got, _ := search(t, alice, term); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("%q finds %v", term, got)
		}
	}
}

func TestSearchUsersLimit(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	for i := range 12 {
		s.User(t, fmt.Sprintf("user%d", i)).Join(t, room)
	}
	for _, tt := range []struct {
		limit any
		found int
		more  bool
	}{{nil, 10, true}, {5, 5, true}, {12, 12, false}, {1_000_000, 12, false}, {0, 1, true}, {-1, 1, true}} {
		var body object
		if tt.limit != nil {
			body = object{"limit": tt.limit}
		}
		if got, limited := search(t, alice, "user", body); len(got) != tt.found || limited != tt.more {
			t.Errorf("limit %v: %d users, limited %t; want %d, %t", tt.limit, len(got), limited, tt.found, tt.more)
		}
	}
	const path = v3 + "/user_directory/search"
	alice.Fails(t, "POST", path, object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", path, object{"search_term": 5}, 400, "M_BAD_JSON")
	alice.Fails(t, "POST", path, object{"search_term": "x", "limit": "ten"}, 400, "M_BAD_JSON")
	s.Anonymous().Fails(t, "POST", path, object{"search_term": "x"}, 401, "M_MISSING_TOKEN")
}
