package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestJoinBeginsAfresh: the timeline of a room that was just joined may repeat
// what the client has from an earlier stay, and says so by limited.
func TestJoinBeginsAfresh(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	limited := func(what string, out object, want bool) {
		t.Helper()
		if got := apptest.At(joined(out, room), "timeline", "limited"); got != want {
			t.Errorf("%s: limited is %v: %s", what, got, text(joined(out, room)))
		}
	}
	bob.sync()
	bob.join(room)
	limited("a first stay", bob.sync(), true)
	limited("an initial sync", bob.device().sync("filter", object{"room": object{"timeline": object{"limit": 50}}}), false)
	alice.send(room, "seen")
	limited("a stay that goes on", bob.sync(), false)
	bob.leave(room)
	bob.sync()
	alice.send(room, "missed")
	bob.join(room)
	limited("a second stay", bob.sync("filter", object{"room": object{"timeline": object{"limit": 50}}}), true)
	bob.leave(room)
	bob.join(room)
	limited("a stay that was interrupted", bob.sync("filter", object{"room": object{"timeline": object{"limit": 50}}}), true)
}
