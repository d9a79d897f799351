package integration

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestStateAfter: who asks for the state after the timeline finds every change
// there, also those that the timeline shows, and need not look into the timeline.
func TestStateAfter(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	alice.setState(room, "m.room.topic", "", object{"topic": "old"})
	topic := alice.setState(room, "m.room.topic", "", object{"topic": "new"})
	lazy := object{"room": object{"state": object{"lazy_load_members": true}, "timeline": object{"limit": 3}}}

	first := joined(bob.sync("filter", lazy, "use_state_after", "true"), room)
	if first["state"] != nil {
		t.Errorf("state is there too: %s", text(first["state"]))
	}
	equal(t, "the topic as it is", find(list(first, "state_after"), "m.room.topic", "")["event_id"], topic)
	for _, u := range []string{alice.UserID, bob.UserID} { // both are in the timeline
		if find(list(first, "state_after"), "m.room.member", u) == nil {
			t.Errorf("%s is in the timeline and not in the state", u)
		}
	}

	// Changes that the timeline shows, and one that its filter leaves out.
	quiet := object{"room": object{"timeline": object{"not_types": []string{"m.room.name"}}}}
	name := alice.setState(room, "m.room.name", "", object{"name": "n"})
	topic = alice.setState(room, "m.room.topic", "", object{"topic": "newer"})
	next := joined(bob.sync("filter", quiet, "org.matrix.msc4222.use_state_after", "true"), room)
	equal(t, "the timeline", ids(list(next, "timeline")), []string{topic})
	equal(t, "what changed", ids(list(next, "org.matrix.msc4222.state_after")), []string{name, topic})
	if next["state"] != nil || next["state_after"] != nil {
		t.Errorf("other members: %s", text(next))
	}
	alice.send(room, "hello")
	quietly := joined(bob.sync("use_state_after", "true"), room)
	equal(t, "nothing changed", len(list(quietly, "state_after")), 0)
	// A gap: what changed in it and after it.
	name = alice.setState(room, "m.room.name", "", object{"name": "m"})
	for range 30 {
		alice.send(room, "more")
	}
	topic = alice.setState(room, "m.room.topic", "", object{"topic": "newest"})
	gap := joined(bob.sync("use_state_after", "true"), room)
	equal(t, "limited", apptest.At(gap, "timeline", "limited"), true)
	equal(t, "what changed in the gap", ids(list(gap, "state_after")), []string{name, topic})
	bob.Fails(t, "GET", v3+"/sync?use_state_after=maybe", nil, 400, "M_INVALID_PARAM")
}
