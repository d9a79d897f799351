package userdata_test

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestDeleteAccountData: MSC3391. A sync that goes on tells of the end, as {}; one
// that begins does not.
func TestDeleteAccountData(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, nil)
	const unstable = "/_matrix/client/unstable/org.matrix.msc3391"
	for _, under := range []string{"/user/" + alice.UserID + "/account_data/", "/user/" + alice.UserID + "/rooms/" + room + "/account_data/"} {
		path := under + "org.example.x"
		alice.Must(t, "PUT", v3+path, apptest.Object{"a": 1})
		since := alice.Sync(t, "")["next_batch"].(string)
		bob.Fails(t, "DELETE", unstable+path, nil, 403, "M_FORBIDDEN")
		s.Anonymous().Fails(t, "DELETE", unstable+path, nil, 401, "M_MISSING_TOKEN")
		alice.Must(t, "GET", v3+path, nil)
		for range 2 {
			alice.Must(t, "DELETE", unstable+path, nil)
			alice.Fails(t, "GET", v3+path, nil, 404, "M_NOT_FOUND")
		}
		if got := dataOf(alice.Sync(t, since), room, "org.example.x"); len(got) != 1 || len(got[0].(apptest.Object)) != 0 {
			t.Errorf("the sync that goes on shows %v, want {}", got)
		}
		if got := dataOf(alice.Sync(t, ""), room, "org.example.x"); len(got) != 0 {
			t.Errorf("the sync that begins shows %v", got)
		}
		// To put nothing there is the same, and is told of each time: clients wait for it.
		alice.Must(t, "PUT", v3+path, apptest.Object{"a": 2})
		for range 2 {
			since = alice.Sync(t, "")["next_batch"].(string)
			alice.Must(t, "PUT", v3+path, ` { } `)
			alice.Fails(t, "GET", v3+path, nil, 404, "M_NOT_FOUND")
			if got := dataOf(alice.Sync(t, since), room, "org.example.x"); len(got) != 1 || len(got[0].(apptest.Object)) != 0 {
				t.Errorf("after an empty one: %v, want {}", got)
			}
			if got := dataOf(alice.Sync(t, ""), room, "org.example.x"); len(got) != 0 {
				t.Errorf("after an empty one the sync that begins shows %v", got)
			}
		}
		alice.Must(t, "DELETE", unstable+under+"never.was", nil)
		alice.Fails(t, "DELETE", unstable+under+"m.push_rules", nil, 405, "M_BAD_JSON")
	}
}

// dataOf returns the contents of account data of a type, of the user and of a room.
func dataOf(sync apptest.Object, room, typ string) (out []any) {
	for _, part := range []any{sync, apptest.At(sync, "rooms", "join", room)} {
		events, _ := apptest.At(part, "account_data", "events").([]any)
		for _, e := range events {
			if apptest.At(e, "type") == typ {
				out = append(out, apptest.At(e, "content"))
			}
		}
	}
	return out
}
