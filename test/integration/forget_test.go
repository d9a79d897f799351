package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestForgottenRoomEndsElsewhere: a room that one device left and forgot ends on
// the others, which knew it, and on them alone; nothing else is shown of it.
func TestForgottenRoomEndsElsewhere(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room, invited := alice.room(object{"preset": "public_chat"}), alice.room(nil)
	passing := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	alice.member("invite", invited, bob.UserID)
	other := bob.device()
	bob.sync()
	other.sync()

	alice.send(room, "before")
	bob.join(passing)
	for _, r := range []string{room, invited, passing} {
		bob.leave(r)
		bob.must("POST", at(r, "forget"), object{})
	}
	alice.send(room, "after")

	again := func(when string) {
		t.Helper()
		c := &client{Client: other.Client, t: t, since: other.since}
		out := c.sync("filter", object{"room": object{"include_leave": true}})
		for _, r := range []string{room, invited} {
			sec := section(out, "leave", r)
			equal(t, when+": the end", types(list(sec, "timeline")), []string{"m.room.member"})
			equal(t, when+": the state", types(list(sec, "state")), []string{})
		}
		if sec := section(out, "leave", passing); sec != nil {
			t.Errorf("%s: a room that was never known ends: %s", when, text(sec))
		}
		c.quiet("filter", object{"room": object{"include_leave": true}})
	}
	again("at once")
	s.Restart(t)
	again("after a restart")

	fresh := bob.device().sync("filter", object{"room": object{"include_leave": true}})
	if fresh["rooms"] != nil {
		t.Errorf("an initial sync shows forgotten rooms: %s", text(fresh["rooms"]))
	}
}
