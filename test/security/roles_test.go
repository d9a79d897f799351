package security

import (
	"net/http"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestRolesInParallel: while a moderator is demoted and promoted again and again, they
// promote others and change the room. Each of that which is taken comes where they had
// the right to it.
func TestRolesInParallel(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "room_version": "11"})
	bob.Join(t, room)
	carol.Join(t, room)
	levels := func(of object) object { return object{"users": of, "state_default": 50, "events": object{}} }
	demoted, promoted := levels(object{alice.UserID: 100}), levels(object{alice.UserID: 100, bob.UserID: 50})
	grab := levels(object{alice.UserID: 100, bob.UserID: 50, carol.UserID: 50})
	var wg sync.WaitGroup
	change := func(c *apptest.Client, typ string, contents ...object) {
		wg.Go(func() {
			for range 30 {
				for _, content := range contents {
					status, raw, _ := c.Raw(t, "PUT", at(room, "state", typ, ""), content)
					if status != http.StatusOK && status != http.StatusForbidden {
						t.Errorf("%s %s: %d %s", c.UserID, typ, status, raw)
					}
				}
			}
		})
	}
	change(alice, "m.room.power_levels", promoted, demoted)
	change(bob, "m.room.power_levels", grab)
	change(bob, "m.room.name", object{"name": "bob's"}, object{"name": "bob's own"})
	change(carol, "m.room.topic", object{"topic": "carol's"}, object{"topic": "carol's own"})
	wg.Wait()
	users, byBob := object{alice.UserID: 100.0}, 0
	level := func(user string) float64 {
		n, _ := users[user].(float64)
		return n
	}
	for from := ""; ; {
		out := alice.Must(t, "GET", at(room, "messages")+"?dir=f&limit=100"+from, nil)
		for _, raw := range out["chunk"].([]any) {
			e := raw.(object)
			sender := e["sender"].(string)
			if _, isState := e["state_key"]; !isState || e["type"] == "m.room.member" {
				continue
			}
			if sender == bob.UserID {
				byBob++
			}
			if level(sender) < 50 {
				t.Errorf("%s, who has %v, changed %s: %v", sender, level(sender), e["type"], e["content"])
			}
			if e["type"] == "m.room.power_levels" {
				users, _ = apptest.At(e, "content", "users").(object)
			}
		}
		end, more := out["end"].(string)
		if !more {
			break
		}
		from = "&from=" + end
	}
	if byBob == 0 {
		t.Error("bob was never in time")
	}
	got := alice.Must(t, "GET", at(room, "state", "m.room.power_levels", ""), nil)["users"].(object)
	if len(got) != len(users) || got[bob.UserID] != users[bob.UserID] || got[carol.UserID] != users[carol.UserID] {
		t.Errorf("the levels are %v, after a history that ends with %v", got, users)
	}
}
