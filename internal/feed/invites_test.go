package feed

import (
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// A socket is not told of an invite to who blocks invites, and that of another user is.
func TestBlockedInvitesOnSockets(t *testing.T) {
	w, r, s, k := calm(t, "")
	_, other := w.socket(t, carol, "", "")
	other.wait(t, `"next_batch"`)
	w.must(account.NewSetData(bob, "", account.TypeInvitePermission, []byte(`{"default_action":"block"}`)))
	k.wait(t, account.TypeInvitePermission)
	more := w.create(alice, "shared")
	w.member(more, alice, bob, event.Invite) // at the same time as the block: the API would refuse it
	w.member(more, alice, carol, event.Invite)
	other.wait(t, `"invite"`)
	w.say(r, alice, "after")
	for _, f := range k.wait(t, `"after"`) {
		if len(f.Rooms.Invite) > 0 {
			t.Fatalf("told of %v", f.Rooms.Invite)
		}
	}
	settled(t, s)
	_, again := w.socket(t, bob, "", "")
	if f := again.wait(t, `"next_batch"`)[0]; len(f.Rooms.Join) != 1 || len(f.Rooms.Invite) > 0 {
		t.Fatalf("a new socket is told of %+v", f.Rooms)
	}
	w.must(account.NewSetData(bob, "", account.TypeInvitePermission, []byte(`{}`)))
	eventually(t, "the invite is shown", func() bool { return len(w.sync(w.hub, bob, "", "").Rooms.Invite) == 1 })
	w.join(more, bob)
	k.wait(t, string(more))
}

// A client that knows its user in a room hears that they left it, though an invite came
// since that they do not want to see.
func TestStayThatEndedBeforeHiddenInvite(t *testing.T) {
	w := open(t)
	r := w.create(bob, "joined")
	w.join(r, alice)
	since := w.sync(w.hub, alice, "", "").NextBatch
	first, err := w.slide("c", "")
	if err != nil || first.Rooms[r] == nil {
		t.Fatalf("%+v, %v", first, err)
	}
	w.say(r, bob, "heard")
	left := w.member(r, alice, alice, event.Leave)
	w.say(r, bob, "unheard")
	w.member(r, bob, alice, event.Invite)
	w.must(account.NewSetData(alice, "", TypeIgnored, []byte(`{"ignored_users":{"@bob:h":{}}}`)))
	out := w.sync(w.hub, alice, since, "")
	sec := out.Rooms.Leave[r]
	if len(out.Rooms.Invite) > 0 || sec == nil || !slices.Equal(eventIDs(sec.Timeline.Events), []ids.EventID{left}) {
		t.Fatalf("told %+v", out.Rooms)
	}
	if out = w.sync(w.hub, alice, out.NextBatch, ""); len(out.Rooms.Leave)+len(out.Rooms.Invite) > 0 {
		t.Fatalf("told again: %+v", out.Rooms)
	}
	second, err := w.slide("c", first.Pos)
	if err != nil || second.Rooms[r] == nil || second.Rooms[r].Membership != event.Leave {
		t.Fatalf("%+v, %v", second.Rooms[r], err)
	}
	if list := eventIDs(second.Rooms[r].Timeline); len(list) == 0 || list[len(list)-1] != left {
		t.Fatalf("told %v", list)
	}
	third, err := w.slide("c", second.Pos)
	if err != nil || len(third.Rooms) > 0 {
		t.Fatalf("told again: %+v, %v", third, err)
	}
	// Now they want it, and to this client the room is new.
	w.must(account.NewSetData(alice, "", TypeIgnored, []byte(`{}`)))
	fourth, err := w.slide("c", third.Pos)
	if err != nil || fourth.Rooms[r] == nil || fourth.Rooms[r].Membership != event.Invite || !fourth.Rooms[r].Initial {
		t.Fatalf("%+v, %v", fourth.Rooms[r], err)
	}
}
