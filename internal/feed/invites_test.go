package feed

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
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
