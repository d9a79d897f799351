package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestNoTimelineWanted: a limit of 0 gives rooms without a timeline, whose state
// is that of the end, so that nothing is missing but what was not wanted.
func TestNoTimelineWanted(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	left := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	bob.join(left)
	last := alice.send(room, "last")
	bob.leave(left)
	none := object{"room": object{"timeline": object{"limit": 0}, "include_leave": true}}

	check := func(what string, sec object, state ...string) {
		t.Helper()
		if len(list(sec, "timeline")) != 0 || apptest.At(sec, "timeline", "limited") != true {
			t.Errorf("%s: %s", what, text(sec["timeline"]))
		}
		for i := 0; i < len(state); i += 3 {
			if got := content(find(list(sec, "state"), state[i], state[i+1]), "membership"); got != state[i+2] {
				t.Errorf("%s: %s of %s is %v", what, state[i], state[i+1], got)
			}
		}
	}
	first := bob.sync("filter", none)
	check("a room", joined(first, room), "m.room.member", bob.UserID, "join", "m.room.member", alice.UserID, "join")
	check("a room that was left", section(first, "leave", left), "m.room.member", bob.UserID, "leave")
	prev := apptest.At(joined(first, room), "timeline", "prev_batch").(string)
	equal(t, "what comes before", ids(bob.page(room, "b", prev, 100))[0], last)

	alice.send(room, "more")
	check("a room that goes on", joined(bob.sync("filter", none), room))
	name := alice.setState(room, "m.room.name", "", object{"name": "n"})
	equal(t, "new state", ids(list(joined(bob.sync("filter", none), room), "state")), []string{name})
}
