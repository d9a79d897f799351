package integration

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// lazy is a filter for lazy-loaded members.
func lazy(redundant bool, limit int) object {
	return object{"room": object{
		"timeline": object{"limit": limit},
		"state":    object{"lazy_load_members": true, "include_redundant_members": redundant},
	}}
}

// members lists the state keys of the member events in a section's state.
func members(sec object) []string {
	out := []string{}
	for _, e := range list(sec, "state") {
		if e["type"] == "m.room.member" {
			out = append(out, e["state_key"].(string))
		}
	}
	slices.Sort(out)
	return out
}

func TestLazyMembers(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol, dave := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol"), user(t, s, "dave")
	room := alice.room(object{"preset": "public_chat"})
	for _, u := range []*client{bob, carol, dave} {
		u.join(room)
	}
	numbered(5, func(text string) string { return alice.send(room, text) })

	few := lazy(false, 3)
	sec := joined(dave.sync("filter", few), room)
	equal(t, "first: those in the timeline and oneself", members(sec), []string{alice.UserID, dave.UserID})
	bob.send(room, "hello")
	sec = joined(dave.sync("filter", few), room)
	equal(t, "a new sender", members(sec), []string{bob.UserID})
	bob.send(room, "hello again")
	alice.send(room, "hello bob")
	sec = joined(dave.sync("filter", few), room)
	equal(t, "senders that are known", members(sec), []string{})
	bob.send(room, "once more")
	sec = joined(dave.sync("filter", lazy(true, 3)), room)
	equal(t, "redundant members on request", members(sec), []string{bob.UserID})

	// Another device of the same user has had nobody.
	other := dave.device()
	other.since = dave.since
	carol.send(room, "hi")
	sec = joined(dave.sync("filter", few), room)
	equal(t, "carol on the first device", members(sec), []string{carol.UserID})
	sec = joined(other.sync("filter", few), room)
	equal(t, "carol on the second device", members(sec), []string{carol.UserID})

	// A new name is in the timeline, and is then known.
	carol.must("PUT", v3+"/profile/"+carol.UserID+"/displayname", object{"displayname": "C"})
	carol.send(room, "named")
	sec = joined(dave.sync("filter", few), room)
	equal(t, "after a rename in the timeline", members(sec), []string{})
	if e := find(list(sec, "timeline"), "m.room.member", carol.UserID); content(e, "displayname") != "C" {
		t.Errorf("the rename is %s", text(e))
	}
	// One in a gap is not; the member is sent as of the start of the timeline.
	bob.must("PUT", v3+"/profile/"+bob.UserID+"/displayname", object{"displayname": "B"})
	numbered(4, func(text string) string { return bob.send(room, text) })
	sec = joined(dave.sync("filter", few), room)
	equal(t, "after a rename in the gap", members(sec), []string{bob.UserID})
	if e := find(list(sec, "state"), "m.room.member", bob.UserID); content(e, "displayname") != "B" {
		t.Errorf("the member is %s", text(e))
	}
	// Without lazy loading all are there.
	sec = joined(dave.device().sync(), room)
	all := append(members(sec), membersIn(list(sec, "timeline"))...)
	slices.Sort(all)
	equal(t, "without lazy loading", slices.Compact(all), []string{alice.UserID, bob.UserID, carol.UserID, dave.UserID})
}

func membersIn(events []object) []string {
	var out []string
	for _, e := range events {
		if e["type"] == "m.room.member" {
			out = append(out, e["state_key"].(string))
		}
	}
	return out
}

func TestSummary(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := user(t, s, "alice")
	room := alice.room(object{"preset": "public_chat"})
	summary := func(sync object) object {
		o, _ := apptest.At(joined(sync, room), "summary").(object)
		return o
	}
	check := func(got object, heroes []string, joined, invited int) {
		t.Helper()
		if got == nil {
			t.Error("no summary")
			return
		}
		h, _ := got["m.heroes"].([]any)
		names := []string{}
		for _, u := range h {
			names = append(names, u.(string))
		}
		slices.Sort(names)
		equal(t, "heroes", names, heroes)
		if got["m.joined_member_count"] != float64(joined) || got["m.invited_member_count"] != float64(invited) {
			t.Errorf("counts: %s, want %d joined and %d invited", text(got), joined, invited)
		}
	}
	check(summary(alice.sync()), []string{}, 1, 0)
	var others []*client
	for i := range 7 {
		others = append(others, user(t, s, fmt.Sprintf("user%d", i)))
	}
	alice.member("invite", room, others[0].UserID)
	check(summary(alice.sync()), []string{others[0].UserID}, 1, 1)
	others[0].join(room)
	check(summary(alice.sync()), []string{others[0].UserID}, 2, 0)
	for _, o := range others[1:] {
		o.join(room)
	}
	var five []string
	for _, o := range others[:5] {
		five = append(five, o.UserID)
	}
	check(summary(alice.sync()), five, 8, 0)
	alice.send(room, "no change of members")
	if got := summary(alice.sync()); got != nil {
		t.Errorf("a summary without a change: %s", text(got))
	}
	for _, o := range others {
		o.leave(room)
	}
	// Those who left name the room when nobody else is there.
	check(summary(alice.sync()), five, 1, 0)
	alice.setState(room, "m.room.name", "", object{"name": "named"})
	others[0].join(room)
	if got := summary(alice.sync()); got["m.heroes"] != nil {
		t.Errorf("a named room has heroes: %s", text(got))
	}
}

func TestInviteKnockAndLeaveSections(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol")
	room := alice.room(object{"preset": "private_chat", "name": "Private", "initial_state": []any{
		object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}},
		object{"type": "test.hidden", "state_key": "", "content": object{}},
	}})
	alice.send(room, "not for all")
	alice.sync()
	bob.sync()
	carol.sync()

	alice.member("invite", room, bob.UserID)
	out := bob.sync()
	stripped := list(section(out, "invite", room), "invite_state")
	for _, typ := range []string{"m.room.create", "m.room.name", "m.room.join_rules"} {
		if find(stripped, typ, "") == nil {
			t.Errorf("invite_state has no %s: %v", typ, types(stripped))
		}
	}
	if content(find(stripped, "m.room.member", bob.UserID), "membership") != "invite" {
		t.Errorf("invite_state has not the invite: %s", text(stripped))
	}
	if content(find(stripped, "m.room.member", alice.UserID), "displayname") != "alice" || find(stripped, "m.room.member", carol.UserID) != nil {
		t.Errorf("invite_state does not show the inviter, and no further member: %s", text(stripped))
	}
	if find(stripped, "test.hidden", "") != nil {
		t.Error("invite_state tells too much")
	}
	if joined(out, room) != nil || section(out, "leave", room) != nil {
		t.Errorf("the room is elsewhere too: %s", text(out))
	}
	bob.quiet()
	if section(bob.device().sync(), "invite", room) == nil {
		t.Error("a first sync leaves the invite out")
	}
	bob.leave(room)
	out = bob.sync()
	tl := list(section(out, "leave", room), "timeline")
	if len(tl) != 1 || content(tl[0], "membership") != "leave" {
		t.Errorf("declining is told as %s", text(out))
	}
	bob.quiet()

	carol.must("POST", v3+"/knock/"+room, object{"reason": "let me in"})
	out = carol.sync()
	stripped = list(section(out, "knock", room), "knock_state")
	if content(find(stripped, "m.room.member", carol.UserID), "membership") != "knock" || find(stripped, "m.room.name", "") == nil {
		t.Errorf("knock_state is %s", text(out))
	}
	if e := find(timeline(alice.sync(), room), "m.room.member", carol.UserID); content(e, "reason") != "let me in" {
		t.Errorf("the knock is told as %s", text(e))
	}
	alice.member("invite", room, carol.UserID)
	if out = carol.sync(); section(out, "invite", room) == nil {
		t.Errorf("no invite after the knock: %s", text(out))
	}
	carol.join(room)
	sec := joined(carol.sync(), room)
	if find(append(list(sec, "state"), list(sec, "timeline")...), "test.hidden", "") == nil {
		t.Errorf("no full state after the join: %s", text(sec))
	}
}

func TestLeaveBanRejoin(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	bob.sync()
	last := alice.send(room, "the last bob sees")
	alice.member("kick", room, bob.UserID)
	alice.send(room, "after the kick")
	out := bob.sync()
	tl := list(section(out, "leave", room), "timeline")
	if len(tl) != 2 || tl[0]["event_id"] != last || content(tl[1], "membership") != "leave" {
		t.Errorf("the kick is told as %s", text(out))
	}
	if joined(out, room) != nil {
		t.Error("the room is still joined")
	}
	bob.quiet()
	alice.send(room, "still away")
	bob.quiet()
	bob.Fails(t, "PUT", at(room, "send", "m.room.message", "t"), object{"body": "x", "msgtype": "m.text"}, 403, "M_FORBIDDEN")

	bob.join(room)
	out = bob.sync()
	sec := joined(out, room)
	all := append(list(sec, "state"), list(sec, "timeline")...)
	if find(all, "m.room.create", "") == nil || find(all, "m.room.power_levels", "") == nil {
		t.Errorf("a room that is entered again has no full state: %s", text(out))
	}
	back := alice.send(room, "welcome back")
	equal(t, "after the return", ids(timeline(bob.sync(), room)), []string{back})

	alice.must("POST", at(room, "ban"), object{"user_id": bob.UserID, "reason": "enough"})
	out = bob.sync()
	tl = list(section(out, "leave", room), "timeline")
	if len(tl) != 1 || content(tl[0], "membership") != "ban" || content(tl[0], "reason") != "enough" {
		t.Errorf("the ban is told as %s", text(out))
	}
	bob.Fails(t, "POST", at(room, "join"), object{}, 403, "M_FORBIDDEN")
	alice.member("unban", room, bob.UserID)
	bob.sync()
	bob.join(room)
	if joined(bob.sync(), room) == nil {
		t.Error("no room after the unban and join")
	}

	// Left and back between two syncs: the room is there, with nothing missing.
	bob.leave(room)
	alice.send(room, "while bob was away")
	bob.join(room)
	out = bob.sync()
	if joined(out, room) == nil || section(out, "leave", room) != nil {
		t.Errorf("left and back: %s", text(out))
	}
	// Back and away between two syncs.
	bob.leave(room)
	bob.sync()
	bob.join(room)
	bob.leave(room)
	out = bob.sync()
	tl = list(section(out, "leave", room), "timeline")
	if len(tl) == 0 || content(tl[len(tl)-1], "membership") != "leave" {
		t.Errorf("back and away: %s", text(out))
	}
	include := object{"room": object{"include_leave": true}}
	if out = bob.device().sync(); section(out, "leave", room) != nil {
		t.Error("a first sync tells of rooms that were left")
	}
	if out = bob.device().sync("filter", include); section(out, "leave", room) == nil {
		t.Error("include_leave does not")
	}
	bob.must("POST", at(room, "forget"), object{})
	if out = bob.device().sync("filter", include); section(out, "leave", room) != nil {
		t.Error("a forgotten room is told of")
	}
}

// TestKickRacesWithSends: who is kicked never reads what comes after, on no path.
func TestKickRacesWithSends(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, carol, bob := user(t, s, "alice"), user(t, s, "carol"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	carol.join(room)
	bob.sync()
	const sends = 500
	var wg sync.WaitGroup
	var mu sync.Mutex
	var told []string // what bob's syncs tell
	half, stop := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		for i := range sends {
			alice.send(room, fmt.Sprint("a", i))
			if i == sends/2 {
				close(half)
			}
		}
		close(stop)
	})
	wg.Go(func() {
		<-half
		carol.Client.Do(t, "GET", v3+"/account/whoami", nil)
		kicker := &client{Client: &apptest.Client{Server: s, UserID: alice.UserID, Token: alice.Token, HTTP: alice.HTTP}, t: t}
		kicker.member("kick", room, bob.UserID)
	})
	wg.Go(func() {
		for ended := false; !ended; {
			select {
			case <-stop:
				ended = true
			default:
			}
			out := bob.sync("filter", object{"room": object{"timeline": object{"limit": 100}}})
			mu.Lock()
			told = append(told, ids(timeline(out, room))...)
			told = append(told, ids(list(section(out, "leave", room), "timeline"))...)
			mu.Unlock()
		}
	})
	wg.Wait()
	all := ids(alice.history(room))
	kick := slices.IndexFunc(alice.history(room), func(e object) bool {
		return e["type"] == "m.room.member" && e["state_key"] == bob.UserID && content(e, "membership") == "leave"
	})
	if kick < 0 || kick == len(all)-1 {
		t.Fatalf("the kick stands at %d of %d", kick, len(all))
	}
	forbidden := all[kick+1:]
	never := func(path string, got []string) {
		t.Helper()
		for _, id := range got {
			if slices.Contains(forbidden, id) {
				t.Errorf("%s tells of %s, which came after the kick", path, id)
				return
			}
		}
	}
	never("/sync", told)
	if !slices.Contains(told, all[kick]) {
		t.Error("bob was not told of the kick")
	}
	for i, id := range told[1:] {
		if slices.Index(all, id) != slices.Index(all, told[i])+1 {
			t.Errorf("/sync skips or repeats between %s and %s", told[i], id)
			break
		}
	}
	never("/messages back", ids(bob.page(room, "b", "", 100)))
	never("/messages forward", ids(bob.page(room, "f", "", 100)))
	never("/messages from the end", ids(bob.page(room, "f", bob.since, 100)))
	never("/messages from alice's token", func() []string { alice.sync(); return ids(bob.page(room, "b", alice.since, 100)) }())
	out := bob.must("GET", at(room, "context", all[kick])+"?limit=100", nil)
	for _, part := range []string{"events_before", "events_after"} {
		for _, e := range out[part].([]any) {
			never("/context", []string{e.(object)["event_id"].(string)})
		}
	}
	bob.Fails(t, "GET", at(room, "event", forbidden[0]), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "GET", at(room, "context", forbidden[0]), nil, 404, "M_NOT_FOUND")
	include := object{"room": object{"include_leave": true, "timeline": object{"limit": 100}}}
	first := bob.device().sync("filter", include)
	never("a first /sync", ids(list(section(first, "leave", room), "timeline")))
	never("a first /sync's state", ids(list(section(first, "leave", room), "state")))
}
