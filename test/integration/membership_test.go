package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// memberships lists what the reader was at each event, as the events say.
func memberships(events []object) []any {
	out := make([]any, 0, len(events))
	for _, e := range events {
		out = append(out, apptest.At(e, "unsigned", "membership"))
	}
	return out
}

// TestMembershipAtEvents: each event of a timeline says what its reader was when
// it was sent. spec: client-server §ClientEventWithoutRoomID, unsigned.membership.
func TestMembershipAtEvents(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.sync()
	alice.send(room, "before")
	alice.member("invite", room, bob.UserID)
	alice.send(room, "invited")
	bob.join(room)
	alice.send(room, "in")

	want := []any{"leave", "invite", "invite", "join", "join"}
	last := func(out object) []object {
		tl := timeline(out, room)
		return tl[max(len(tl)-len(want), 0):]
	}
	equal(t, "a new room", memberships(last(bob.sync())), want)
	equal(t, "an initial sync", memberships(last(bob.device().sync())), want)

	alice.send(room, "next")
	bob.must("PUT", v3+"/profile/"+bob.UserID+"/displayname", object{"displayname": "Bob"})
	equal(t, "a room that goes on", memberships(timeline(bob.sync(), room)), []any{"join", "join"})

	alice.send(room, "last")
	alice.member("kick", room, bob.UserID)
	alice.send(room, "unseen")
	equal(t, "a room that was left", memberships(list(section(bob.sync(), "leave", room), "timeline")), []any{"join", "leave"})
}
