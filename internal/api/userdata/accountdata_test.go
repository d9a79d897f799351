package userdata_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestAccountData(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	other := alice.Login(t)
	room := alice.CreateRoom(t, nil)
	for name, path := range map[string]string{
		"global": user(alice, "/account_data/org.example.settings"),
		"room":   in(alice, room, "/account_data/org.example.settings"),
	} {
		t.Run(name, func(t *testing.T) {
			alice.Fails(t, "GET", path, nil, 404, "M_NOT_FOUND")
			since := other.Sync(t, "")["next_batch"].(string)
			alice.Must(t, "PUT", path, ` { "level" : 0.5 , "where" : "`+name+`" } `)
			want := object{"level": 0.5, "where": name}
			if got := other.Must(t, "GET", path, nil); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			sync := other.Sync(t, since)
			events := apptest.At(sync, "account_data", "events")
			if name == "room" {
				events = apptest.At(sync, "rooms", "join", room, "account_data", "events")
			}
			if got := event(events, "org.example.settings"); !reflect.DeepEqual(got, want) {
				t.Errorf("sync has %v, want %v", got, want)
			}
		})
	}
}

func TestAccountDataBadInput(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	for _, path := range []string{user(alice, "/account_data/"), in(alice, room, "/account_data/")} {
		for _, typ := range []string{"m.fully_read", "m.push_rules"} {
			alice.Fails(t, "PUT", path+typ, object{"x": 1}, 405, "M_BAD_JSON")
		}
		alice.Fails(t, "PUT", path+"a", ``, 400, "M_NOT_JSON")
		alice.Fails(t, "PUT", path+"a", `{`, 400, "M_NOT_JSON")
		alice.Fails(t, "PUT", path+"a", `[]`, 400, "M_BAD_JSON")
		alice.Fails(t, "PUT", path+"a", `{"a":1,"a":2}`, 400, "M_BAD_JSON")
		alice.Fails(t, "PUT", path+strings.Repeat("a", 256), `{}`, 400, "M_INVALID_PARAM")
		alice.Fails(t, "GET", path+strings.Repeat("a", 3000), nil, 404, "M_NOT_FOUND")
		alice.Fails(t, "PUT", path+"a", `{"a":"`+strings.Repeat("x", 1<<20)+`"}`, 413, "M_TOO_LARGE")
	}
	alice.Fails(t, "PUT", user(alice, "/rooms/nowhere/account_data/a"), object{}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", user(alice, "/rooms/nowhere/account_data/a"), nil, 400, "M_INVALID_PARAM")
}

// Nothing of a user's own can be read or written by another.
func TestOwnOnly(t *testing.T) {
	s := apptest.Start(t)
	alice, mallory := s.User(t, "alice"), s.User(t, "mallory")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	mallory.Join(t, room)
	alice.Must(t, "PUT", user(alice, "/account_data/a"), object{"secret": 1})
	filter := alice.Must(t, "POST", user(alice, "/filter"), object{})["filter_id"].(string)
	for _, to := range [][2]string{
		{"GET", user(alice, "/account_data/a")},
		{"PUT", user(alice, "/account_data/a")},
		{"GET", user(alice, "/account_data/m.push_rules")},
		{"GET", in(alice, room, "/account_data/a")},
		{"PUT", in(alice, room, "/account_data/a")},
		{"GET", in(alice, room, "/tags")},
		{"PUT", in(alice, room, "/tags/m.favourite")},
		{"DELETE", in(alice, room, "/tags/m.favourite")},
		{"POST", user(alice, "/filter")},
		{"GET", user(alice, "/filter/"+filter)},
	} {
		mallory.Fails(t, to[0], to[1], object{}, 403, "M_FORBIDDEN")
		s.Anonymous().Fails(t, to[0], to[1], object{}, 401, "M_MISSING_TOKEN")
	}
	if got := alice.Must(t, "GET", user(alice, "/account_data/a"), nil); got["secret"] != 1.0 {
		t.Errorf("account data %v", got)
	}
}

func TestTags(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	tags := in(alice, room, "/tags")
	check := func(want object) {
		t.Helper()
		if got := alice.Must(t, "GET", tags, nil); !reflect.DeepEqual(got, object{"tags": want}) {
			t.Errorf("tags %v, want %v", got, want)
		}
	}
	check(object{})
	alice.Must(t, "PUT", tags+"/m.favourite", object{"order": 0.25})
	alice.Must(t, "PUT", tags+"/u.W%C3%B6rk", nil)
	check(object{"m.favourite": object{"order": 0.25}, "u.Wörk": object{}})
	sync := alice.Sync(t, "")
	if got := apptest.At(event(apptest.At(sync, "rooms", "join", room, "account_data", "events"), "m.tag"), "tags", "m.favourite", "order"); got != 0.25 {
		t.Errorf("sync has order %v", got)
	}
	alice.Must(t, "DELETE", tags+"/m.favourite", nil)
	alice.Must(t, "DELETE", tags+"/m.favourite", nil)
	check(object{"u.Wörk": object{}})
	alice.Fails(t, "PUT", tags+"/x", object{"order": "first"}, 400, "M_BAD_JSON")
	alice.Fails(t, "PUT", tags+"/"+strings.Repeat("x", 256), object{}, 400, "M_INVALID_PARAM")

	// What another client wrote there does not matter.
	for _, odd := range []string{`{"tags":5}`, `{"tags":null}`, `{}`} {
		alice.Must(t, "PUT", in(alice, room, "/account_data/m.tag"), odd)
		check(object{})
	}
	alice.Must(t, "PUT", in(alice, room, "/account_data/m.tag"), `{"tags":5}`)
	alice.Must(t, "PUT", tags+"/m.lowpriority", object{})
	check(object{"m.lowpriority": object{}})
}

// Of tags set at once none gets lost.
func TestTagsAtOnce(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	var wg sync.WaitGroup
	const n = 20
	for i := range n {
		wg.Go(func() { alice.Do(t, "PUT", in(alice, room, fmt.Sprintf("/tags/u.%d", i)), object{}) })
	}
	wg.Wait()
	if got := alice.Must(t, "GET", in(alice, room, "/tags"), nil)["tags"].(object); len(got) != n {
		t.Errorf("%d tags, want %d", len(got), n)
	}
}

// Tags add to what is there; that ends before it is too much for a sync.
func TestTagsAreBounded(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	big := object{"x": strings.Repeat("x", 120_000)}
	for i := range 10 {
		status, out := alice.Do(t, "PUT", in(alice, room, fmt.Sprintf("/tags/u.%d", i)), big)
		if status == 413 && out["errcode"] == "M_TOO_LARGE" && i > 1 {
			return
		}
		if status != 200 {
			t.Fatalf("tag %d: %d %v", i, status, out)
		}
	}
	t.Error("tags without end")
}

func TestFilters(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	post := func(body any) string {
		t.Helper()
		return alice.Must(t, "POST", user(alice, "/filter"), body)["filter_id"].(string)
	}
	id := post(`{"room":{"timeline":{"limit":2,"types":["m.room.message"]}},"org.example.later":1.50}`)
	if again := post(`{ "org.example.later":1.5, "room" : {"timeline":{"types":["m.room.message"],"limit":2}}}`); again != id {
		t.Errorf("the same filter has two IDs: %s, %s", id, again)
	}
	if id == "" || strings.HasPrefix(id, "{") || id == post(nil) || id == post(`{"room":{"timeline":{"limit":3}}}`) {
		t.Errorf("filter ID %q", id)
	}
	want := object{"room": object{"timeline": object{"limit": 2.0, "types": []any{"m.room.message"}}}, "org.example.later": 1.5}
	if got := alice.Must(t, "GET", user(alice, "/filter/"+id), nil); !reflect.DeepEqual(got, want) {
		t.Errorf("filter %v, want %v", got, want)
	}
	// A sync uses it.
	room := alice.CreateRoom(t, nil)
	for range 4 {
		alice.Send(t, room, "hello")
	}
	sync := alice.Must(t, "GET", v3+"/sync?timeout=0&filter="+id, nil)
	if events := apptest.At(sync, "rooms", "join", room, "timeline", "events").([]any); len(events) != 2 {
		t.Errorf("%d events, want 2", len(events))
	}
	for _, unknown := range []string{"unknown", "%7B%7D", strings.Repeat("f", 3000)} {
		alice.Fails(t, "GET", user(alice, "/filter/"+unknown), nil, 404, "M_NOT_FOUND")
	}
	alice.Fails(t, "GET", v3+"/sync?timeout=0&filter="+strings.Repeat("f", 3000), nil, 400, "M_INVALID_PARAM")
	for body, code := range map[string]string{
		`{"room":{"timeline":{"limit":"ten"}}}`: "M_BAD_JSON",
		`{"room":[]}`:                           "M_BAD_JSON",
		`{"event_format":"xml"}`:                "M_BAD_JSON",
		`{"room":{"rooms":["nowhere"]}}`:        "M_BAD_JSON",
		`{`:                                     "M_NOT_JSON",
	} {
		alice.Fails(t, "POST", user(alice, "/filter"), body, 400, code)
	}
	many, err := json.Marshal(object{"room": object{"timeline": object{"types": make([]string, 5000)}}})
	if err != nil {
		t.Fatal(err)
	}
	alice.Fails(t, "POST", user(alice, "/filter"), many, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", user(alice, "/filter"), object{"x": strings.Repeat("x", 70_000)}, 413, "M_TOO_LARGE")
}
