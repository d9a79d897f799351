package presence_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

type object = apptest.Object

const v3 = "/_matrix/client/v3"

func status(of *apptest.Client) string {
	return v3 + "/presence/" + url.PathEscape(of.UserID) + "/status"
}

// events are the contents of the presence events in a sync, by sender.
func events(sync object) map[string]object {
	out := map[string]object{}
	list, _ := apptest.At(sync, "presence", "events").([]any)
	for _, e := range list {
		out[e.(object)["sender"].(string)] = e.(object)["content"].(object)
	}
	return out
}

// learns waits in sync until c learns that another is present so; all else is read
// past. It returns the content and where the sync stands.
func learns(t *testing.T, c, of *apptest.Client, since, presence string) (object, string) {
	t.Helper()
	for range 50 { // each waits up to 20 s for something to happen
		out := c.Must(t, "GET", v3+"/sync?set_presence=offline&timeout=20000&since="+url.QueryEscape(since), nil)
		since = out["next_batch"].(string)
		if e := events(out)[of.UserID]; e != nil && e["presence"] == presence {
			return e, since
		}
	}
	t.Fatalf("%s was not seen %s", of.UserID, presence)
	return nil, ""
}

func quiet(t *testing.T, c *apptest.Client, since string) object {
	t.Helper()
	return c.Must(t, "GET", v3+"/sync?set_presence=offline&since="+url.QueryEscape(since), nil)
}

func TestPresence(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	since := quiet(t, alice, "")["next_batch"].(string)
	if got := alice.Must(t, "GET", status(bob), nil); got["presence"] != "offline" {
		t.Errorf("at first: %v", got)
	}

	// A change, told to who shares a room.
	bob.Must(t, "PUT", status(bob), object{"presence": "online", "status_msg": "here"})
	e, since := learns(t, alice, bob, since, "online")
	if e["status_msg"] != "here" || e["currently_active"] != true || e["last_active_ago"] == nil {
		t.Errorf("event: %v", e)
	}
	got := alice.Must(t, "GET", status(bob), nil)
	if got["presence"] != "online" || got["status_msg"] != "here" || got["currently_active"] != true {
		t.Errorf("status: %v", got)
	}
	// Told once; again in an initial sync.
	if e := events(quiet(t, alice, since)); len(e) != 0 {
		t.Errorf("told again: %v", e)
	}
	if e := events(quiet(t, alice, "")); e[bob.UserID] == nil && len(e) != 0 {
		t.Errorf("initial sync: %v", e)
	}
	// By a sync, and back.
	bob.Must(t, "GET", v3+"/sync?set_presence=unavailable", nil)
	_, since = learns(t, alice, bob, since, "unavailable")
	bob.Must(t, "PUT", status(bob), object{"presence": "offline"})
	e, since = learns(t, alice, bob, since, "offline")
	if e["status_msg"] != "here" {
		t.Errorf("gone: %v", e)
	}

	// Nobody else sees any of it, until there is a room.
	carol.Fails(t, "GET", status(bob), nil, 403, "M_FORBIDDEN")
	first := carol.Sync(t, "")
	if e := events(first); e[bob.UserID] != nil {
		t.Errorf("carol sees %v", e)
	}
	bob.Sync(t, "") // is online, and has a place in the room
	carol.Join(t, room)
	if e := events(quiet(t, carol, first["next_batch"].(string))); e[bob.UserID] == nil {
		t.Errorf("carol came in and sees %v", e)
	}
	learns(t, alice, carol, since, "online")
}

func TestPresenceRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	alice.Fails(t, "PUT", status(bob), object{"presence": "online"}, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", status(alice), object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "PUT", status(alice), object{"presence": "dreaming"}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", status(alice), object{"presence": 1}, 400, "M_BAD_JSON")
	alice.Fails(t, "PUT", status(alice), object{"presence": "online", "status_msg": strings.Repeat("x", 2000)}, 413, "M_TOO_LARGE")
	alice.Fails(t, "GET", v3+"/presence/x/status", nil, 400, "M_INVALID_PARAM")
	s.Anonymous().Fails(t, "GET", status(alice), nil, 401, "M_MISSING_TOKEN")
}

func TestStatusIsKept(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	alice.Must(t, "PUT", status(alice), object{"presence": "online", "status_msg": "writing"})
	s.Restart(t)
	if got := alice.Must(t, "GET", status(alice), nil); got["status_msg"] != "writing" || got["presence"] != "offline" {
		t.Errorf("after a restart: %v", got)
	}
}

func TestSwitchedOff(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Presence.Enabled = false })
	alice := s.User(t, "alice")
	alice.CreateRoom(t, nil)
	alice.Must(t, "PUT", status(alice), object{"presence": "online"})
	if got := alice.Must(t, "GET", status(alice), nil); got["presence"] != "offline" {
		t.Errorf("switched off: %v", got)
	}
	if out := alice.Sync(t, ""); out["presence"] != nil {
		t.Errorf("sync: %v", out["presence"])
	}
}
