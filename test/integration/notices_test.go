package integration

import (
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func ephemeral(sync object, room, typ string) object {
	return find(list(joined(sync, room), "ephemeral"), typ, "")
}

func typing(sync object, room string) (users []any, told bool) {
	e := ephemeral(sync, room, "m.typing")
	users, _ = content(e, "user_ids").([]any)
	return users, e != nil
}

func (c *client) types(room string, on bool, timeoutMS int) {
	c.t.Helper()
	c.must("PUT", at(room, "typing", c.UserID), object{"typing": on, "timeout": timeoutMS})
}

func TestTyping(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	alice.sync()
	bob.sync()
	bob.types(room, true, 60_000)
	out := alice.sync()
	users, _ := typing(out, room)
	equal(t, "who types", users, []string{bob.UserID})
	if n := len(timeline(out, room)); n > 0 {
		t.Errorf("typing comes with %d events", n)
	}
	alice.quiet()
	// One who comes later is told too.
	users, _ = typing(alice.device().sync(), room)
	equal(t, "who types, at first", users, []string{bob.UserID})
	bob.types(room, false, 0)
	users, told := typing(alice.sync(), room)
	if !told || len(users) > 0 {
		t.Errorf("bob stopped, alice is told %v, %v", users, told)
	}
	// A notice that nobody takes back runs out.
	bob.types(room, true, 50)
	alice.until("typing", func(o object) bool { u, _ := typing(o, room); return len(u) == 1 })
	alice.until("the end of typing", func(o object) bool { u, told := typing(o, room); return told && len(u) == 0 })
	carol.Fails(t, "PUT", at(room, "typing", carol.UserID), object{"typing": true}, 403, "M_FORBIDDEN")
	bob.Fails(t, "PUT", at(room, "typing", alice.UserID), object{"typing": true}, 403, "M_FORBIDDEN")
}

// readers lists the users of a receipt type of an event.
func readers(sync object, room, event, kind string) []string {
	users, _ := content(ephemeral(sync, room, "m.receipt"), event, kind).(object)
	out := []string{}
	for u := range users {
		out = append(out, u)
	}
	slices.Sort(out)
	return out
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	carol.join(room)
	first, second := alice.send(room, "1"), alice.send(room, "2")
	for _, c := range []*client{alice, bob, carol} {
		c.sync()
	}
	bob.read(room, "m.read", first)
	out := alice.sync()
	equal(t, "readers of the first", readers(out, room, first, "m.read"), []string{bob.UserID})
	if ts, _ := content(ephemeral(out, room, "m.receipt"), first, "m.read", bob.UserID, "ts").(float64); ts == 0 {
		t.Errorf("no time in %s", text(out))
	}
	alice.quiet()
	bob.sync()
	carol.sync()
	bob.read(room, "m.read.private", second)
	equal(t, "bob's own private receipt", readers(bob.sync(), room, second, "m.read.private"), []string{bob.UserID})
	alice.quiet()
	if out := text(alice.device().sync()); out == "" || slices.Contains(readers(alice.device().sync(), room, second, "m.read.private"), bob.UserID) {
		t.Errorf("a private receipt is told to others: %s", out)
	}
	equal(t, "a first sync", readers(alice.device().sync(), room, first, "m.read"), []string{bob.UserID})
	// A receipt does not go back.
	bob.read(room, "m.read", second)
	bob.read(room, "m.read", first)
	equal(t, "the receipt stays", readers(alice.sync(), room, second, "m.read"), []string{bob.UserID})
	carol.read(room, "m.read", second)
	equal(t, "one that is new", readers(alice.sync(), room, second, "m.read"), []string{carol.UserID})
	equal(t, "all, at first", readers(alice.device().sync(), room, second, "m.read"), []string{bob.UserID, carol.UserID})
	bob.Fails(t, "POST", at(room, "receipt", "m.nonsense", second), object{}, 400, "M_INVALID_PARAM")

	bob.sync()
	bob.must("POST", at(room, "read_markers"), object{"m.fully_read": second, "m.read": second})
	marker := find(list(joined(bob.sync(), room), "account_data"), "m.fully_read", "")
	if content(marker, "event_id") != second {
		t.Errorf("the marker is %s", text(marker))
	}
}

func unread(sync object, room string) (notify, highlight any) {
	n := apptest.At(joined(sync, room), "unread_notifications")
	return apptest.At(n, "notification_count"), apptest.At(n, "highlight_count")
}

func TestUnreadCounts(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob, carol := user(t, s, "alice"), user(t, s, "bob"), user(t, s, "carol")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	carol.join(room)
	check := func(what string, out object, notify, highlight int) {
		t.Helper()
		n, h := unread(out, room)
		if n != float64(notify) || h != float64(highlight) {
			t.Errorf("%s: %v notifications, %v highlights, want %d, %d", what, n, h, notify, highlight)
		}
	}
	check("at first", bob.sync(), 0, 0)
	alice.send(room, "hello")
	check("a message", bob.sync(), 1, 0)
	mention := alice.sendAs(room, "m.room.message", "mention", object{
		"msgtype": "m.text", "body": "Bob!", "m.mentions": object{"user_ids": []string{bob.UserID}},
	})
	check("a mention", bob.sync(), 2, 1)
	check("another device", bob.device().sync(), 2, 1)
	bob.read(room, "m.read", mention)
	check("after the receipt", bob.sync(), 0, 0)
	alice.send(room, "again")
	check("the next", bob.sync(), 1, 0)
	// One's own message is no news, but does not read for one either.
	own := bob.send(room, "an answer")
	out := bob.sync()
	if n, _ := unread(out, room); n != 1.0 && n != 0.0 {
		t.Errorf("after one's own message: %v", n)
	}
	bob.read(room, "m.read.private", own)
	check("after a private receipt", bob.sync(), 0, 0)

	// A rule that mutes the room.
	bob.must("PUT", v3+"/pushrules/global/room/"+room, object{"actions": []string{}})
	alice.send(room, "muted")
	check("muted", bob.sync(), 0, 0)
	mention = alice.sendAs(room, "m.room.message", "mention2", object{
		"msgtype": "m.text", "body": "Bob?", "m.mentions": object{"user_ids": []string{bob.UserID}},
	})
	check("a mention in a muted room", bob.sync(), 1, 1)
	// What was sent before one's time is no news.
	late := user(t, s, "late")
	late.join(room)
	check("a new member", late.sync(), 0, 0)
	s.Restart(t)
	bob.since, late.since = "", ""
	check("a new member after a restart", late.sync(), 0, 0)
	check("after a restart", bob.sync(), 1, 1)
	bob.read(room, "m.read", mention)
	check("read after a restart", bob.sync(), 0, 0)
	bob.quiet()
}

func TestAccountData(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := user(t, s, "alice")
	room := alice.room(nil)
	alice.sync()
	alice.setData("", "test.global", object{"v": 1})
	out := alice.sync()
	equal(t, "global", content(find(list(out, "account_data"), "test.global", ""), "v"), 1)
	if out["rooms"] != nil {
		t.Errorf("global data comes with rooms: %s", text(out))
	}
	alice.setData(room, "test.room", object{"v": 2})
	out = alice.sync()
	equal(t, "of the room", content(find(list(joined(out, room), "account_data"), "test.room", ""), "v"), 2)
	if n := len(timeline(out, room)); n > 0 {
		t.Errorf("data comes with %d events", n)
	}
	tags := v3 + "/user/" + alice.UserID + "/rooms/" + room + "/tags/"
	alice.must("PUT", tags+"m.favourite", object{"order": 0.5})
	alice.must("PUT", tags+"u.work", object{})
	out = alice.sync()
	equal(t, "tags", content(find(list(joined(out, room), "account_data"), "m.tag", ""), "tags"),
		object{"m.favourite": object{"order": 0.5}, "u.work": object{}})
	alice.must("DELETE", tags+"m.favourite", nil)
	out = alice.sync()
	equal(t, "a tag less", content(find(list(joined(out, room), "account_data"), "m.tag", ""), "tags"), object{"u.work": object{}})
	alice.quiet()

	alice.setData("", "test.global", object{"v": 3})
	alice.setData("", "test.global", object{"v": 4})
	s.Restart(t)
	out = alice.sync()
	events := list(out, "account_data")
	if len(events) != 1 || content(events[0], "v") != 4.0 {
		t.Errorf("the last of two changes: %s", text(out))
	}
	first := alice.device().sync()
	equal(t, "at first, global", content(find(list(first, "account_data"), "test.global", ""), "v"), 4)
	equal(t, "at first, of the room", content(find(list(joined(first, room), "account_data"), "test.room", ""), "v"), 2)
}

func TestIgnoredUsers(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	alice.sync()
	alice.setData("", "m.ignored_user_list", object{"ignored_users": object{bob.UserID: object{}}})
	alice.sync()
	bob.send(room, "unheard")
	name := bob.setState(room, "m.room.member", bob.UserID, object{"membership": "join", "displayname": "B"})
	equal(t, "state of the ignored is shown, messages are not", ids(timeline(alice.sync(), room)), []string{name})
	if n, _ := unread(alice.device().sync(), room); n != 0.0 {
		t.Errorf("%v unread messages of one who is ignored", n)
	}
	hidden := bob.room(nil)
	bob.member("invite", hidden, alice.UserID)
	alice.quiet()
}
