package feed

import (
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// What a user says on one node is not undone by what another node, which had not
// heard of it, said of them before and which arrives after.
func TestLateNoticeKeepsStatus(t *testing.T) {
	w := open(t)
	said := func(status string) *account.Presence {
		w.clock.Advance(time.Millisecond)
		return w.must(account.NewSetPresence(alice, status)).(*account.Presence)
	}
	status := func() string {
		st, err := w.hub.PresenceOf(ctx, alice)
		if err != nil {
			t.Fatal(err)
		}
		return st.Status
	}
	w.hub.opts.Presence = true
	before := said("before")
	notice := func(p account.Presence) {
		w.hub.presence.remote(&PresenceNotice{User: alice, State: Online, Said: p, Node: ids.NodeID("other")})
	}
	w.hub.SetPresence(alice, "A", Online, said("now"))
	for _, late := range []account.Presence{{}, *before} {
		notice(late)
		if got := status(); got != "now" {
			t.Fatalf("after a notice from before: %q", got)
		}
	}
	notice(*said("then"))
	if got := status(); got != "then" {
		t.Fatalf("after a notice that is newer: %q", got)
	}
	notice(*said(""))
	if got := status(); got != "" {
		t.Fatalf("taken back: %q", got)
	}
}

// What is said within one tick of the clock is still told apart, and saying it again
// says nothing new.
func TestSaidInOrder(t *testing.T) {
	w := open(t)
	say := func(status string) *account.Presence {
		return w.must(account.NewSetPresence(alice, status)).(*account.Presence)
	}
	first, second := say("a"), say("b")
	if first.TS >= second.TS {
		t.Errorf("at %d, then at %d", first.TS, second.TS)
	}
	if again := say("b"); *again != *second {
		t.Errorf("again: %+v, not %+v", again, second)
	}
}

// Who comes is there and active, also when the node has just begun to run.
func TestThereFromTheStart(t *testing.T) {
	w := open(t)
	w.hub.opts.Presence = true
	d := w.hub.presence.begin(alice, "A", "")
	defer w.hub.presence.end(&d)
	st, err := w.hub.PresenceOf(ctx, alice)
	if err != nil || st.Presence != Online || !st.Currently {
		t.Errorf("%+v, %v", st, err)
	}
}
