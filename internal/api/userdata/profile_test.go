package userdata_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestProfile(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, nobody := s.User(t, "alice"), s.User(t, "bob"), s.Anonymous()
	if p := bob.Must(t, "GET", profile(alice, ""), nil); p["displayname"] != "alice" || len(p) != 1 {
		t.Errorf("a new profile: %v", p)
	}
	alice.Must(t, "PUT", profile(alice, "/displayname"), object{"displayname": "Alice 🦊"})
	alice.Must(t, "PUT", profile(alice, "/avatar_url"), object{"avatar_url": "mxc://h/picture"})
	alice.Must(t, "PUT", profile(alice, "/org.example.pronouns"), object{"org.example.pronouns": []string{"she", "her"}})
	alice.Must(t, "PUT", profile(alice, "/org.example.nothing"), object{"org.example.nothing": nil})
	alice.Must(t, "PUT", profile(alice, "/m.tz"), object{"m.tz": "Europe/Berlin"})
	unstable := "/_matrix/client/unstable/uk.tcpip.msc4133/profile/" + url.PathEscape(alice.UserID) + "/org.example.old-path"
	alice.Must(t, "PUT", unstable, object{"org.example.old-path": 1.5})
	p := nobody.Must(t, "GET", profile(alice, ""), nil)
	if p["displayname"] != "Alice 🦊" || p["avatar_url"] != "mxc://h/picture" || p["m.tz"] != "Europe/Berlin" || p["org.example.old-path"] != 1.5 {
		t.Errorf("profile %v", p)
	}
	if null, ok := p["org.example.nothing"]; !ok || null != nil {
		t.Errorf("a null that was set: %v", p)
	}
	if one := nobody.Must(t, "GET", profile(alice, "/displayname"), nil); one["displayname"] != "Alice 🦊" || len(one) != 1 {
		t.Errorf("displayname %v", one)
	}

	alice.Must(t, "DELETE", profile(alice, "/org.example.pronouns"), nil)
	alice.Must(t, "DELETE", profile(alice, "/org.example.pronouns"), nil) // gone is gone
	alice.Must(t, "PUT", profile(alice, "/avatar_url"), object{"avatar_url": ""})
	for _, field := range []string{"/org.example.pronouns", "/avatar_url", "/org.example.never", "/%20", "/" + strings.Repeat("k", 3000)} {
		bob.Fails(t, "GET", profile(alice, field), nil, 404, "M_NOT_FOUND")
	}
	for _, user := range []string{"@nobody:" + apptest.Name, "@alice:elsewhere.example"} {
		bob.Fails(t, "GET", v3+"/profile/"+user, nil, 404, "M_NOT_FOUND")
		bob.Fails(t, "GET", v3+"/profile/"+user+"/displayname", nil, 404, "M_NOT_FOUND")
	}
	bob.Fails(t, "GET", v3+"/profile/nobody", nil, 400, "M_INVALID_PARAM")
}

func TestProfileIsOnesOwn(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	bob.Fails(t, "PUT", profile(alice, "/displayname"), object{"displayname": "fool"}, 403, "M_FORBIDDEN")
	bob.Fails(t, "DELETE", profile(alice, "/displayname"), nil, 403, "M_FORBIDDEN")
	s.Anonymous().Fails(t, "PUT", profile(alice, "/displayname"), object{"displayname": "fool"}, 401, "M_MISSING_TOKEN")
	if p := bob.Must(t, "GET", profile(alice, ""), nil); p["displayname"] != "alice" {
		t.Errorf("profile %v", p)
	}
}

func TestProfileBadInput(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	const bad, missing, invalid = "M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM"
	for _, tt := range []struct{ field, body, code string }{
		{"displayname", ``, missing},
		{"displayname", `{}`, missing},
		{"displayname", `{"avatar_url":"x"}`, missing},
		{"displayname", `{"displayname":5}`, bad},
		{"displayname", `{"displayname":null}`, bad},
		{"displayname", `{"displayname":["x"]}`, bad},
		{"displayname", `{"displayname":"a\u0000b"}`, invalid},
		{"displayname", `{"displayname":"` + strings.Repeat("ä", 257) + `"}`, invalid},
		{"displayname", `{`, "M_NOT_JSON"},
		{"avatar_url", `{"avatar_url":5}`, bad},
		{"avatar_url", `{"avatar_url":"https://tracker.example/pixel"}`, invalid},
		{"avatar_url", `{"avatar_url":"//tracker.example/pixel"}`, invalid},
		{"avatar_url", `{"avatar_url":"data:image/png;base64,AA=="}`, invalid},
		{"avatar_url", `{"avatar_url":"` + strings.Repeat("x", 1001) + `"}`, invalid},
		{"avatar_url", `{"avatar_url":"mxc://h"}`, invalid},
		{"avatar_url", `{"avatar_url":"mxc://h/../x"}`, invalid},
		{"avatar_url", `{"avatar_url":"mxc://h/` + strings.Repeat("x", 1000) + `"}`, invalid},
		{"m.tz", `{"m.tz":1}`, bad},
		{"m.tz", `{"m.tz":"` + strings.Repeat("x", 300) + `"}`, invalid},
		{"status", `{"status":"no namespace"}`, invalid},
		{"Org.Example.x", `{"Org.Example.x":1}`, invalid},
		{"1.x", `{"1.x":1}`, invalid},
		{"org.example.%C3%A4", `{"org.example.ä":1}`, invalid},
		{"org." + strings.Repeat("k", 252), `{}`, "M_KEY_TOO_LARGE"},
	} {
		alice.Fails(t, "PUT", profile(alice, "/"+tt.field), tt.body, 400, tt.code)
	}
	alice.Fails(t, "DELETE", profile(alice, "/status"), nil, 400, invalid)
	alice.Must(t, "PUT", profile(alice, "/displayname"), object{"displayname": strings.Repeat("ä", 256)})
	alice.Must(t, "PUT", profile(alice, "/org."+strings.Repeat("k", 251)), object{"org." + strings.Repeat("k", 251): true})
}

// The whole profile stays below 64 KiB, also if fields come at once.
func TestProfileSize(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	set := func(field string, n int) int {
		status, out := alice.Do(t, "PUT", profile(alice, "/"+field), object{field: strings.Repeat("x", n)})
		if status != 200 && (status != 400 || out["errcode"] != "M_PROFILE_TOO_LARGE") {
			t.Errorf("%s of %d bytes: %d %v", field, n, status, out)
		}
		return status
	}
	size := func() int {
		_, raw, _ := alice.Raw(t, "GET", profile(alice, ""), nil)
		return len(raw)
	}
	if set("org.example.a", 64<<10) != 400 {
		t.Error("a field of 64 KiB was taken")
	}
	if set("org.example.a", 60_000) != 200 || set("org.example.b", 10_000) != 400 {
		t.Error("a field beyond the limit was taken, or one within it was not")
	}
	// To the byte: what is answered is what counts.
	free := 64<<10 - 1 - size() - len(`,"org.example.b":""`)
	if set("org.example.b", free+1) != 400 || set("org.example.b", free) != 200 {
		t.Errorf("the limit is not where it should be; the profile has %d bytes", size())
	}
	// Fields give their room back.
	alice.Must(t, "DELETE", profile(alice, "/org.example.a"), nil)
	if set("org.example.b", 10) != 200 || set("org.example.a", 60_000) != 200 {
		t.Error("room that was given back is not free")
	}
	alice.Must(t, "DELETE", profile(alice, "/org.example.a"), nil)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() { set(fmt.Sprintf("org.example.f%d", i), 10_000) })
	}
	wg.Wait()
	if n := size(); n >= 64<<10 || n < 50_000 {
		t.Errorf("the profile has %d bytes", n)
	}
}

// Rooms show the new name as a member event.
func TestProfileReachesRooms(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var rooms []string
	for range 3 {
		room := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, room)
		rooms = append(rooms, room)
	}
	left := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, left)
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(left)+"/leave", object{})
	since := alice.Sync(t, "")["next_batch"].(string)
	bob.Must(t, "PUT", profile(bob, "/displayname"), object{"displayname": "Robert"})
	bob.Must(t, "PUT", profile(bob, "/avatar_url"), object{"avatar_url": "mxc://h/face"})
	member := func(room string) object {
		return alice.Must(t, "GET", v3+"/rooms/"+url.PathEscape(room)+"/state/m.room.member/"+url.PathEscape(bob.UserID), nil)
	}
	for _, room := range rooms {
		if m := member(room); m["membership"] != "join" || m["displayname"] != "Robert" || m["avatar_url"] != "mxc://h/face" {
			t.Errorf("member of %s: %v", room, m)
		}
	}
	if m := member(left); m["membership"] != "leave" {
		t.Errorf("member of the room that was left: %v", m)
	}
	joined := apptest.At(alice.Sync(t, since), "rooms", "join").(object)
	if len(joined) != len(rooms) {
		t.Errorf("a sync shows the change in %d rooms of %d", len(joined), len(rooms))
	}
	bob.Must(t, "DELETE", profile(bob, "/avatar_url"), nil)
	if m := member(rooms[0]); m["avatar_url"] != nil || m["displayname"] != "Robert" {
		t.Errorf("member without avatar: %v", m)
	}
}
