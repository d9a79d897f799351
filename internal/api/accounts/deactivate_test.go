package accounts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// gone waits until a user has left a room, as a member of it learns.
func gone(t *testing.T, c *apptest.Client, room, user string) {
	t.Helper()
	member := v3 + "/rooms/" + esc(room) + "/state/m.room.member/" + esc(user)
	since := ""
	for {
		if _, out := c.Do(t, "GET", member, nil); out["membership"] == "leave" {
			return
		}
		target := v3 + "/sync?timeout=20000"
		if since != "" {
			target += "&since=" + esc(since)
		}
		next := c.Must(t, "GET", target, nil)["next_batch"].(string)
		if next == since {
			t.Fatal("the user never leaves")
		}
		since = next
	}
}

// bodies returns the texts of the messages of a room, "" for such without content.
func bodies(t *testing.T, c *apptest.Client, room string) string {
	t.Helper()
	var out []string
	chunk := c.Must(t, "GET", v3+"/rooms/"+esc(room)+"/messages?dir=f&limit=100", nil)["chunk"].([]any)
	for _, e := range chunk {
		if apptest.At(e, "type") == "m.room.message" {
			out = append(out, fmt.Sprint(apptest.At(e, "content", "body")))
		}
	}
	return strings.Join(out, ",")
}

// Erased users: those who were there keep what they have seen, those who come later
// get redacted copies. spec: client-server §POST /account/deactivate, erase.
func TestErase(t *testing.T) {
	s, box := withMail(t)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	add(t, bob, box, "bob@example.org")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "Room"})
	bob.Join(t, room)
	secret := bob.Send(t, room, "bob's secret")
	alice.Send(t, room, "hello")
	root := alice.Send(t, room, "root")
	bob.Must(t, "PUT", v3+"/rooms/"+esc(room)+"/send/m.room.message/reply", object{
		"msgtype": "m.text", "body": "secret reply", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
	})
	bob.Must(t, "PUT", v3+"/user/"+esc(bob.UserID)+"/account_data/x", object{"a": 1})
	bob.Must(t, "POST", v3+"/account/deactivate", object{"auth": passwordAuth(bob), "erase": true})
	gone(t, alice, room, bob.UserID)
	carol.Join(t, room)

	if got := bodies(t, alice, room); got != "bob's secret,hello,root,secret reply" {
		t.Errorf("who was there sees %s", got)
	}
	if got := bodies(t, carol, room); got != "<nil>,hello,root,<nil>" {
		t.Errorf("who came later sees %s", got)
	}
	path := v3 + "/rooms/" + esc(room)
	for _, target := range []string{
		path + "/event/" + esc(secret), path + "/context/" + esc(secret), path + "/messages?dir=b", v3 + "/sync", path + "/state", path + "/members",
	} {
		if _, body, _ := carol.Raw(t, "GET", target, nil); strings.Contains(string(body), "secret") {
			t.Errorf("%s shows what was erased: %s", target, body)
		}
		if _, body, _ := alice.Raw(t, "GET", target, nil); strings.HasSuffix(target, "/event/"+esc(secret)) && !strings.Contains(string(body), "secret") {
			t.Errorf("%s hides what was seen: %s", target, body)
		}
	}
	// What comes along with other events is hidden too.
	for _, target := range []string{path + "/event/" + esc(root), "/_matrix/client/v1/rooms/" + esc(room) + "/relations/" + esc(root)} {
		if _, body, _ := carol.Raw(t, "GET", target, nil); strings.Contains(string(body), "secret") || !strings.Contains(string(body), bob.UserID) {
			t.Errorf("%s to who came later: %s", target, body)
		}
		if _, body, _ := alice.Raw(t, "GET", target, nil); !strings.Contains(string(body), "secret") {
			t.Errorf("%s to who was there: %s", target, body)
		}
	}
	if out := carol.Must(t, "GET", path+"/state/m.room.name/", nil); out["name"] != "Room" {
		t.Errorf("the name of the room: %v", out)
	}
	carol.Fails(t, "GET", v3+"/profile/"+esc(bob.UserID)+"/displayname", nil, 404, "M_NOT_FOUND")
	// The address is free, and proves nothing any more.
	anonymous(t, s).Fails(t, "POST", v3+"/login", mailLogin("bob@example.org", apptest.Password), 403, "M_FORBIDDEN")
	add(t, carol, box, "bob@example.org")
	// Who leaves and comes again was there before.
	alice.Must(t, "POST", path+"/leave", object{})
	alice.Join(t, room)
	if got := bodies(t, alice, room); got != "bob's secret,hello,root,secret reply" {
		t.Errorf("who was there and comes again sees %s", got)
	}
}

// A deactivation is completed by the server that comes after.
func TestDeactivateSurvivesRestart(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var rooms []string
	for range 5 {
		room := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, room)
		rooms = append(rooms, room)
	}
	bob.Must(t, "POST", v3+"/account/deactivate", object{"auth": passwordAuth(bob)})
	s.Restart(t)
	for _, room := range rooms {
		gone(t, alice, room, bob.UserID)
	}
	if out := alice.Must(t, "GET", v3+"/profile/"+esc(bob.UserID)+"/displayname", nil); out["displayname"] != "bob" {
		t.Errorf("without erase the profile stays: %v", out)
	}
}
