package integration

import (
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestInitialAndIncrementalSync(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat", "name": "The room"})
	bob.join(room)
	sent := numbered(3, func(text string) string { return alice.send(room, text) })

	first := bob.sync()
	sec := joined(first, room)
	if sec == nil {
		t.Fatalf("the room is missing: %s", text(first))
	}
	all := append(list(sec, "state"), list(sec, "timeline")...)
	for _, typ := range []string{"m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility", "m.room.name"} {
		if find(all, typ, "") == nil {
			t.Errorf("no %s in state and timeline", typ)
		}
	}
	for _, u := range []*client{alice, bob} {
		if content(find(all, "m.room.member", u.UserID), "membership") != "join" {
			t.Errorf("%s is not in the room", u.UserID)
		}
	}
	tl := timeline(first, room)
	equal(t, "the end of the timeline", ids(tl[len(tl)-3:]), sent)
	// No event is both in state and timeline.
	for _, e := range ids(list(sec, "state")) {
		if slices.Contains(ids(tl), e) {
			t.Errorf("%s is in state and timeline", e)
		}
	}
	for _, e := range all {
		if e["room_id"] != nil {
			t.Errorf("sync repeats room_id: %s", text(e))
		}
	}
	if find(list(first, "account_data"), "m.push_rules", "") == nil {
		t.Error("no push rules")
	}

	bob.quiet()
	next := alice.send(room, "more")
	out := bob.sync()
	equal(t, "an incremental timeline", ids(timeline(out, room)), []string{next})
	sec = joined(out, room)
	if apptest.At(sec, "timeline", "limited") == true || len(list(sec, "state")) > 0 {
		t.Errorf("nothing was left out: %s", text(sec))
	}
	bob.quiet()
	alice.sync()
	alice.quiet()
}

func TestGapIsFilled(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	before := alice.send(room, "before")
	bob.sync()
	sent := numbered(45, func(text string) string { return alice.send(room, text) })

	out := bob.sync()
	sec := joined(out, room)
	if apptest.At(sec, "timeline", "limited") != true {
		t.Fatalf("45 messages and not limited: %s", text(sec))
	}
	got := ids(timeline(out, room))
	equal(t, "the newest", got, sent[35:])
	prev := apptest.At(sec, "timeline", "prev_batch").(string)
	for _, limit := range []int{1, 7, 35, 100} {
		filled := slices.Clone(got)
		for _, e := range bob.page(room, "b", prev, limit) {
			if e["event_id"] == before {
				break
			}
			filled = append([]string{e["event_id"].(string)}, filled...)
		}
		equal(t, "the gap filled", filled, sent)
	}
	// The token of a sync is a place to read on from, in either direction.
	if after := bob.page(room, "f", bob.since, 10); len(after) > 0 {
		t.Errorf("after the end comes %s", text(after))
	}
	backward, forward := bob.history(room), bob.page(room, "f", "", 9)
	equal(t, "both directions", ids(forward), ids(backward))
}

func TestStateAfterGap(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat", "name": "old"})
	bob.join(room)
	alice.setState(room, "test.same", "", object{"v": 0})
	bob.sync()
	// In the gap: a name twice, a key that changes again in the timeline.
	alice.setState(room, "m.room.name", "", object{"name": "passing"})
	name := alice.setState(room, "m.room.name", "", object{"name": "new"})
	inGap := alice.setState(room, "test.twice", "", object{"v": 1})
	topic := alice.setState(room, "m.room.topic", "", object{"topic": "t"})
	numbered(12, func(text string) string { return alice.send(room, text) })
	inTimeline := alice.setState(room, "test.twice", "", object{"v": 2})
	onlyTimeline := alice.setState(room, "test.late", "k", object{})

	sec := joined(bob.sync(), room)
	state := list(sec, "state")
	want := []string{name, inGap, topic}
	got := ids(state)
	slices.Sort(got)
	slices.Sort(want)
	equal(t, "the state at the start of the timeline", got, want)
	tl := ids(list(sec, "timeline"))
	if !slices.Contains(tl, inTimeline) || !slices.Contains(tl, onlyTimeline) {
		t.Errorf("the timeline misses state events: %v", tl)
	}

	// State changes in a timeline without a gap stand there alone.
	change := alice.setState(room, "test.same", "", object{"v": 1})
	sec = joined(bob.sync(), room)
	equal(t, "the timeline", ids(list(sec, "timeline")), []string{change})
	equal(t, "the state", list(sec, "state"), []object{})
	if v := apptest.At(list(sec, "timeline")[0], "unsigned", "prev_content", "v"); v != 0.0 {
		t.Errorf("prev_content.v is %v", v)
	}
}

func TestFullState(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := user(t, s, "alice")
	room := alice.room(object{"preset": "public_chat", "name": "n"})
	alice.setData("", "test.data", object{"v": 1})
	alice.sync()
	alice.quiet()
	sec := joined(alice.sync("full_state", "true", "timeout", "30000"), room)
	if sec == nil {
		t.Fatal("full_state leaves the room out")
	}
	state := list(sec, "state")
	for _, typ := range []string{"m.room.create", "m.room.name", "m.room.power_levels"} {
		if find(state, typ, "") == nil {
			t.Errorf("no %s in %v", typ, types(state))
		}
	}
	if n := len(list(sec, "timeline")); n > 0 {
		t.Errorf("the timeline repeats %d events", n)
	}
	// What is new stands in the timeline, the state is that before it.
	name := alice.setState(room, "m.room.name", "", object{"name": "m"})
	sec = joined(alice.sync("full_state", "true"), room)
	equal(t, "timeline", ids(list(sec, "timeline")), []string{name})
	if v := content(find(list(sec, "state"), "m.room.name", ""), "name"); v != "n" {
		t.Errorf("the name at the start of the timeline is %v", v)
	}
}

func TestRedactionInSync(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	secret := alice.send(room, "a secret")
	bob.sync()
	by := alice.must("PUT", at(room, "redact", secret, "r1"), object{"reason": "oops"})["event_id"].(string)
	tl := timeline(bob.sync(), room)
	equal(t, "the redaction", ids(tl), []string{by})
	if tl[0]["type"] != "m.room.redaction" || content(tl[0], "redacts") != secret {
		t.Errorf("the redaction is %s", text(tl[0]))
	}
	fresh := bob.device()
	all := timeline(fresh.sync("filter", object{"room": object{"timeline": object{"limit": 50}}}), room)
	i := slices.Index(ids(all), secret)
	if i < 0 || content(all[i], "body") != nil {
		t.Fatalf("the redacted event is %s", text(all))
	}
	if apptest.At(all[i], "unsigned", "redacted_because", "event_id") != by {
		t.Errorf("no redacted_because: %s", text(all[i]))
	}
}
