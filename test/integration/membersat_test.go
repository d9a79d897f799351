package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestMembersAtPrevBatch: the members at the prev_batch of a sync are those from
// before its timeline. One that goes back to the creation of the room gives the
// creator, not nobody.
func TestMembersAtPrevBatch(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol")
	room := alice.room(object{"preset": "public_chat"})
	joinedAt := func(c *client, limit int) []string {
		t.Helper()
		sec := joined(c.device().sync("filter", object{"room": object{"timeline": object{"limit": limit}}}), room)
		prev := apptest.At(sec, "timeline", "prev_batch").(string)
		var out []string
		for _, e := range c.must("GET", at(room, "members")+"?at="+prev, nil)["chunk"].([]any) {
			if content(e.(object), "membership") == "join" {
				out = append(out, e.(object)["state_key"].(string))
			}
		}
		return out
	}
	bob.join(room)
	alice.send(room, "text")
	carol.join(room)
	equal(t, "before the whole room", joinedAt(alice, 50), []string{alice.UserID})
	equal(t, "for one who was not there", joinedAt(carol, 50), []string{alice.UserID})
	equal(t, "before the last event", joinedAt(alice, 1), []string{alice.UserID, bob.UserID})

	alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "joined"})
	alice.send(room, "unseen")
	dave := user(t, s, "dave")
	dave.join(room)
	equal(t, "where the past is closed", joinedAt(dave, 50), []string{alice.UserID, bob.UserID, carol.UserID, dave.UserID})
}
