package push_test

import (
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// list returns the event IDs of an answer, and those that are read.
func list(t *testing.T, answer object) (all []string, read map[string]bool) {
	t.Helper()
	read = map[string]bool{}
	items, ok := answer["notifications"].([]any)
	if !ok {
		t.Fatalf("answer %v", answer)
	}
	for _, n := range items {
		id := apptest.At(n, "event", "event_id").(string)
		all = append(all, id)
		read[id], _ = apptest.At(n, "read").(bool)
		if apptest.At(n, "room_id") != apptest.At(n, "event", "room_id") || apptest.At(n, "ts") != apptest.At(n, "event", "origin_server_ts") {
			t.Errorf("notification %v", n)
		}
		if _, ok := apptest.At(n, "actions").([]any); !ok {
			t.Errorf("actions %v", apptest.At(n, "actions"))
		}
	}
	return all, read
}

// until asks until the list has a number of items.
func until(t *testing.T, c *apptest.Client, query string, n int) object {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		out := c.Must(t, "GET", v3+"/notifications"+query, nil)
		if got, _ := list(t, out); len(got) >= n {
			return out
		}
		if time.Now().After(end) {
			t.Fatalf("%v, want %d", out, n)
		}
	}
}

func wantList(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("list %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("list %v, want %v", got, want)
		}
	}
}

func TestNotifications(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	id := room(t, alice, bob, carol)
	first := alice.Send(t, id, "before anyone asked")
	got, _ := list(t, until(t, bob, "", 1))
	wantList(t, got, first)
	mention := send(t, alice, id, "m.room.message", "m", object{
		"msgtype": "m.text", "body": "x", "m.mentions": object{"user_ids": []any{bob.UserID}},
	})
	last := alice.Send(t, id, "plain")
	out := until(t, bob, "", 3)
	got, seen := list(t, out)
	wantList(t, got, last, mention, first)
	if seen[first] || seen[mention] || seen[last] || out["next_token"] != nil {
		t.Errorf("answer %v", out)
	}
	read(t, bob, id, mention)
	_, seen = list(t, until(t, bob, "", 3))
	if !seen[first] || !seen[mention] || seen[last] {
		t.Errorf("read %v", seen)
	}
	got, _ = list(t, until(t, bob, "?only=highlight", 1))
	wantList(t, got, mention)
	page := until(t, bob, "?limit=2", 2)
	got, _ = list(t, page)
	wantList(t, got, last, mention)
	rest := bob.Must(t, "GET", v3+"/notifications?limit=2&from="+page["next_token"].(string), nil)
	got, _ = list(t, rest)
	wantList(t, got, first)
	if rest["next_token"] != nil {
		t.Errorf("a token at the end: %v", rest)
	}
	bob.Fails(t, "GET", v3+"/notifications?limit=x", nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "GET", v3+"/notifications?only=x", nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "GET", v3+"/notifications?from=!", nil, 400, "M_INVALID_PARAM")
	s.Anonymous().Fails(t, "GET", v3+"/notifications", nil, 401, "M_MISSING_TOKEN")
}

// What a user may not see any more is not listed.
func TestNotificationsOfRedactedEvents(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id := room(t, alice, bob)
	e := alice.Send(t, id, "oops")
	until(t, bob, "", 1)
	alice.Must(t, "PUT", v3+"/rooms/"+id+"/redact/"+e+"/r", object{})
	out := bob.Must(t, "GET", v3+"/notifications", nil)
	if body := apptest.At(out["notifications"].([]any)[0], "event", "content", "body"); body != nil {
		t.Errorf("a redacted event is shown: %v", body)
	}
}

// Whoever is ignored is not listed, also not with what they said before.
func TestNotificationsOfIgnoredUsers(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	id := room(t, alice, bob, carol)
	of, by := alice.Send(t, id, "from alice"), carol.Send(t, id, "from carol")
	got, _ := list(t, until(t, bob, "", 2))
	wantList(t, got, by, of)
	ignored := v3 + "/user/" + bob.UserID + "/account_data/m.ignored_user_list"
	bob.Must(t, "PUT", ignored, object{"ignored_users": object{carol.UserID: object{}}})
	got, _ = list(t, bob.Must(t, "GET", v3+"/notifications?limit=1", nil))
	wantList(t, got, of)
	bob.Must(t, "PUT", ignored, object{"ignored_users": object{}})
	got, _ = list(t, bob.Must(t, "GET", v3+"/notifications", nil))
	wantList(t, got, by, of)
}
