package appservice_test

import (
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// ids are the IDs of events, in order.
func ids(events []object) []string {
	var out []string
	for _, e := range events {
		out = append(out, e["event_id"].(string))
	}
	return out
}

// bridged makes a room with alice and a user of the bridge in it.
func bridged(t *testing.T, b *bridge, alice *apptest.Client) string {
	t.Helper()
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	b.register("_irc_a")
	b.bot().Must(t, "POST", as(v3+"/join/"+url.PathEscape(room), "_irc_a"), object{})
	return room
}

func TestEventsOfMembers(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	before := alice.Send(t, room, "nobody of the bridge is here")
	b.register("_irc_a")
	bot := b.bot()
	bot.Must(t, "POST", as(v3+"/join/"+url.PathEscape(room), "_irc_a"), object{})
	var sent []string
	for i := range 250 {
		sent = append(sent, alice.Send(t, room, fmt.Sprint(i)))
	}
	got := b.until(sent[len(sent)-1])
	if got[0]["type"] != "m.room.member" || got[0]["state_key"] != "@_irc_a:"+apptest.Name {
		t.Errorf("the first event is %v", got[0])
	}
	if !slices.Equal(ids(got[1:]), sent) || slices.Contains(ids(got), before) {
		t.Errorf("got %v, want %v", ids(got[1:]), sent)
	}
	for _, e := range got {
		if e["room_id"] != room || e["sender"] == nil || e["content"] == nil || e["origin_server_ts"] == nil {
			t.Errorf("event %v", e)
		}
	}
	// When the last of its users has gone, so has its interest.
	b.register("_irc_b")
	bot.Must(t, "POST", as(v3+"/join/"+url.PathEscape(room), "_irc_b"), object{})
	leave := v3 + "/rooms/" + url.PathEscape(room) + "/leave"
	bot.Must(t, "POST", as(leave, "_irc_a"), object{})
	still := alice.Send(t, room, "b is here")
	bot.Must(t, "POST", as(leave, "_irc_b"), object{})
	unseen := alice.Send(t, room, "nobody is here")
	alice.Must(t, "POST", v3+"/rooms/"+url.PathEscape(room)+"/invite", object{"user_id": "@_irc_a:" + apptest.Name})
	bot.Must(t, "POST", as(v3+"/join/"+url.PathEscape(room), "_irc_a"), object{})
	last := alice.Send(t, room, "a is back")
	got = b.until(last)
	if all := ids(got); !slices.Contains(all, still) || slices.Contains(all, unseen) || len(got) != 7 {
		t.Errorf("got %v", got) // b joins, a leaves, still, b leaves, invite, a joins, last
	}
}

func TestEventsOfSender(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	room := bot.CreateRoom(t, object{"invite": []string{alice.UserID}})
	last := bot.Send(t, room, "hello")
	got := b.until(last)
	if got[0]["type"] != "m.room.create" || got[0]["room_id"] != room {
		t.Errorf("the first event is %v", got[0])
	}
	if e := got[len(got)-2]; e["state_key"] != alice.UserID || apptest.At(e, "content", "membership") != "invite" {
		t.Errorf("the invite is %v", e)
	}
}

// What has expired is not sent to a service either. The bridge says of an event that it
// is old, as it does when it copies a history.
func TestNoExpiredEvents(t *testing.T) {
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file()), func(c *config.Config) {
		c.Retention.Enabled, c.Retention.DefaultMaxLifetimeMS = true, 24*60*60*1000
	})
	bot := b.bot()
	room := bot.CreateRoom(t, nil)
	old := bot.Must(t, "PUT", v3+"/rooms/"+url.PathEscape(room)+"/send/m.room.message/old?ts=1000", object{"msgtype": "m.text", "body": "old"})["event_id"]
	last := bot.Send(t, room, "new")
	if got := b.until(last); slices.Contains(ids(got), old.(string)) {
		t.Errorf("an expired event was sent: %v", got)
	}
}

func TestEventsOfRoomsAndAliases(t *testing.T) {
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file(
		`namespaces: {users: [], aliases: [{exclusive: false, regex: "#_irc_.*"}], rooms: []}`)),
		func(c *config.Config) { c.Server.MetricsListen = "127.0.0.1:0" })
	other := newBridge(t, "xmpp")
	alice := b.server.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	unseen := alice.Send(t, room, "before the alias")
	b.server.CaughtUp(t, "") // an event is judged by the aliases that there are when its turn comes
	alias := v3 + "/directory/room/" + url.PathEscape("#_irc_x:"+apptest.Name)
	alice.Must(t, "PUT", alias, object{"room_id": room})
	seen := alice.Send(t, room, "while there is the alias")
	if got := b.until(seen); slices.Contains(ids(got), unseen) || len(got) != 1 {
		t.Errorf("got %v", got)
	}
	alice.Must(t, "DELETE", alias, nil)
	unseen = alice.Send(t, room, "after the alias")
	// The alias goes to another room: what is said there comes, and nothing of the
	// first. It must not come back to that, as the room is asked when its turn comes.
	second := alice.CreateRoom(t, nil)
	alice.Must(t, "PUT", alias, object{"room_id": second})
	seen = alice.Send(t, second, "in another room")
	if got := b.until(seen); slices.Contains(ids(got), unseen) {
		t.Errorf("got %v", got)
	}

	// A service that is new, with a namespace of rooms, is told what comes.
	b.server.Stop()
	b.server.Config.Server.AppserviceFiles = []string{other.file(fmt.Sprintf(`namespaces: {rooms: [{exclusive: false, regex: %q}]}`, room[:5]))}
	b.server.Restart(t)
	alice = alice.Login(t)
	last := alice.Send(t, room, "for the other")
	if got := other.until(last); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// A transaction that is not taken comes again, the same to the byte, and holds up
// nobody but its service.
func TestRetry(t *testing.T) {
	b, other := newBridge(t, "irc"), newBridge(t, "xmpp")
	s := apptest.Start(t, with(b.file(), other.file()))
	b.server, other.server = s, s
	alice := s.User(t, "alice")
	room := bridged(t, b, alice)
	b.transaction() // the join
	var tries atomic.Int32
	b.takes(func(request) int {
		if tries.Add(1) <= 2 {
			return 500
		}
		return 200
	})
	first := alice.Send(t, room, "first")
	failed := b.transaction()
	var sent []string
	for i := range 5 {
		sent = append(sent, alice.Send(t, room, fmt.Sprint(i)))
	}
	theirs := other.bot().CreateRoom(t, nil)
	other.find("events", func(e object) bool { return e["room_id"] == theirs })
	for _, status := range []int{500, 200} {
		again := b.transaction()
		if again.status != status || again.path != failed.path || again.raw != failed.raw || list(again.body, "events")[0]["event_id"] != first {
			t.Errorf("sent %s %s, then %s %s", failed.path, failed.raw, again.path, again.raw)
		}
	}
	got := b.until(sent[len(sent)-1])
	if !slices.Equal(ids(got), sent) {
		t.Errorf("got %v, want %v", ids(got), sent)
	}
}

// After a restart the transaction that may have arrived comes again under its ID,
// and then all that happened since.
func TestRestart(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	room := bridged(t, b, alice)
	b.transaction() // the join
	b.takes(func(request) int { return 503 })
	sent := []string{alice.Send(t, room, "first")}
	failed := b.transaction()
	for i := range 30 {
		sent = append(sent, alice.Send(t, room, fmt.Sprint(i)))
	}
	s.Restart(t)
	b.takes(func(request) int { return 200 })
	var got []object
	first := true
	for len(got) == 0 || got[len(got)-1]["event_id"] != sent[len(sent)-1] {
		r := b.transaction()
		if r.path == failed.path {
			if r.raw != failed.raw {
				t.Errorf("sent %s, then %s", failed.raw, r.raw)
			}
			if !first {
				continue
			}
			first = false
		}
		got = append(got, list(r.body, "events")...)
	}
	if first {
		t.Error("the transaction of before the restart did not come again")
	}
	if !slices.Equal(ids(got), sent) {
		t.Errorf("got %v, want %v", ids(got), sent)
	}
	// What was taken does not come again.
	s.Restart(t)
	alice = alice.Login(t)
	last := alice.Send(t, room, "last")
	if got := b.until(last); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestLegacyTransactions(t *testing.T) {
	_, b := start(t)
	b.takes(func(request) int { return 404 })
	b.answers(func(r request) (int, any) { return 200, object{} })
	room := b.bot().CreateRoom(t, nil)
	for {
		r := b.next()
		if r.method != "PUT" || len(list(r.body, "events")) == 0 {
			t.Fatalf("asked %+v", r)
		}
		if list(r.body, "events")[0]["room_id"] == room {
			break
		}
	}
}

func TestEphemeral(t *testing.T) {
	s, b := start(t, "receive_ephemeral: true")
	alice := s.User(t, "alice")
	room := bridged(t, b, alice)
	in := v3 + "/rooms/" + url.PathEscape(room)
	id := alice.Send(t, room, "read this")
	alice.Must(t, "POST", in+"/receipt/m.read.private/"+url.PathEscape(id), object{})
	alice.Must(t, "POST", in+"/receipt/m.read/"+url.PathEscape(id), object{"thread_id": "main"})
	e := b.find("ephemeral", func(e object) bool { return e["type"] == "m.receipt" })
	read, _ := apptest.At(e, "content", id, "m.read", alice.UserID).(object)
	if e["room_id"] != room || read["ts"] == nil || read["thread_id"] != "main" {
		t.Errorf("receipt %v", e)
	}
	b.bot().Must(t, "POST", as(in+"/receipt/m.read.private/"+url.PathEscape(id), "_irc_a"), object{})
	e = b.find("ephemeral", func(e object) bool { return e["type"] == "m.receipt" })
	if apptest.At(e, "content", id, "m.read.private", "@_irc_a:"+apptest.Name) == nil {
		t.Errorf("its own private receipt: %v", e)
	}
	alice.Must(t, "PUT", in+"/typing/"+url.PathEscape(alice.UserID), object{"typing": true, "timeout": 30000})
	e = b.find("ephemeral", func(e object) bool { return e["type"] == "m.typing" })
	if users, _ := apptest.At(e, "content", "user_ids").([]any); e["room_id"] != room || len(users) != 1 || users[0] != alice.UserID {
		t.Errorf("typing %v", e)
	}
	alice.Must(t, "PUT", in+"/typing/"+url.PathEscape(alice.UserID), object{"typing": false})
	e = b.find("ephemeral", func(e object) bool { return e["type"] == "m.typing" })
	if users, ok := apptest.At(e, "content", "user_ids").([]any); !ok || len(users) != 0 {
		t.Errorf("no more typing: %v", e)
	}
}

func TestPresence(t *testing.T) {
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file("receive_ephemeral: true")), func(c *config.Config) { c.Presence.Enabled = true })
	alice, bob := b.server.User(t, "alice"), b.server.User(t, "bob")
	bridged(t, b, alice)
	set := func(c *apptest.Client, status string) {
		c.Must(t, "PUT", v3+"/presence/"+url.PathEscape(c.UserID)+"/status", object{"presence": "online", "status_msg": status})
	}
	set(bob, "shares no room with the bridge")
	set(alice, "here")
	for {
		e := b.find("ephemeral", func(e object) bool { return e["type"] == "m.presence" })
		if e["sender"] == bob.UserID {
			t.Errorf("presence %v", e)
		}
		if e["sender"] == alice.UserID && apptest.At(e, "content", "status_msg") == "here" {
			break
		}
	}
}

// Nothing but events comes to a service that did not ask for more.
func TestNoEphemeral(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	room := bridged(t, b, alice)
	in := v3 + "/rooms/" + url.PathEscape(room)
	id := alice.Send(t, room, "x")
	alice.Must(t, "POST", in+"/receipt/m.read/"+url.PathEscape(id), object{})
	last := alice.Send(t, room, "y")
	for done := false; !done; {
		r := b.transaction()
		if len(r.body) != 1 {
			t.Errorf("transaction %v", r.body)
		}
		for _, e := range list(r.body, "events") {
			done = done || e["event_id"] == last
		}
	}
}

// A bridge that encrypts, as MSC3202, MSC2409 and MSC4190 have it.
func TestEncryption(t *testing.T) {
	s, b := start(t, "de.sorunome.msc2409.push_ephemeral: true", "org.matrix.msc3202: true", "io.element.msc4190: true")
	alice, bot := s.User(t, "alice"), b.bot()
	room := bridged(t, b, alice)
	user := "@_irc_a:" + apptest.Name
	if status, _ := bot.Do(t, "PUT", as(v3+"/devices/BRIDGE", "_irc_a"), object{}); status != 201 {
		t.Fatalf("device: %d", status)
	}
	bot.Must(t, "POST", as(v3+"/keys/upload?device_id=BRIDGE", "_irc_a"), object{
		"one_time_keys": object{"signed_curve25519:A": object{"key": "x", "signatures": object{}}},
	})
	for {
		r := b.transaction()
		if n := apptest.At(r.body, "org.matrix.msc3202.device_one_time_keys_count", user, "BRIDGE", "signed_curve25519"); n != nil {
			if n != 1.0 || apptest.At(r.body, "org.matrix.msc3202.device_unused_fallback_key_types", user, "BRIDGE") == nil {
				t.Errorf("counts %v", r.body)
			}
			break
		}
	}
	// Alice's keys are new to those she shares a room with.
	alice.Must(t, "POST", v3+"/keys/upload", object{"device_keys": object{
		"user_id": alice.UserID, "device_id": alice.Device, "algorithms": []string{}, "signatures": object{},
		"keys": object{"ed25519:" + alice.Device: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
	}})
	for {
		changed, _ := apptest.At(b.transaction().body, "org.matrix.msc3202.device_lists", "changed").([]any)
		if slices.Contains(changed, any(alice.UserID)) {
			break
		}
	}
	bob := s.User(t, "bob")
	bob.Join(t, room)
	for {
		r := b.transaction()
		if changed, _ := apptest.At(r.body, "org.matrix.msc3202.device_lists", "changed").([]any); slices.Contains(changed, any(bob.UserID)) {
			break // with the event, or before
		}
		if slices.ContainsFunc(list(r.body, "events"), func(e object) bool { return e["state_key"] == bob.UserID }) {
			t.Fatal("bob came, and his devices are not new")
		}
	}
	alice.Must(t, "PUT", v3+"/sendToDevice/m.room.encrypted/1", object{"messages": object{user: object{"BRIDGE": object{"secret": "yes"}}}})
	m := b.find("de.sorunome.msc2409.to_device", func(object) bool { return true })
	if m["to_user_id"] != user || m["to_device_id"] != "BRIDGE" || m["sender"] != alice.UserID || m["type"] != "m.room.encrypted" ||
		apptest.At(m, "content", "secret") != "yes" {
		t.Errorf("message %v", m)
	}
	// It was taken, and is not in the inbox any more once the next one has come.
	alice.Must(t, "PUT", v3+"/sendToDevice/m.room.encrypted/2", object{"messages": object{user: object{"BRIDGE": object{"secret": "2"}}}})
	b.find("de.sorunome.msc2409.to_device", func(m object) bool { return apptest.At(m, "content", "secret") == "2" })
	out := bot.Must(t, "GET", as(v3+"/sync?device_id=BRIDGE", "_irc_a"), nil)
	for _, m := range list(object{"events": apptest.At(out, "to_device", "events")}, "events") {
		if apptest.At(m, "content", "secret") == "yes" {
			t.Errorf("still in the inbox: %v", m)
		}
	}
	// The unstable name is for who asked by it.
	id := alice.Send(t, room, "x")
	alice.Must(t, "POST", v3+"/rooms/"+url.PathEscape(room)+"/receipt/m.read/"+url.PathEscape(id), object{})
	b.find("de.sorunome.msc2409.ephemeral", func(e object) bool { return e["type"] == "m.receipt" })
}

// To a user of this server whom others too may be, messages stay until their own
// devices have them.
func TestInboxOfOthers(t *testing.T) {
	s, b := start(t, "receive_ephemeral: true", `namespaces: {users: [{exclusive: false, regex: "@.*"}]}`)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	for i := range 2 {
		target := fmt.Sprintf(v3+"/sendToDevice/m.x/%d", i)
		alice.Must(t, "PUT", target, object{"messages": object{bob.UserID: object{bob.Device: object{"n": i}}}})
		b.find("de.sorunome.msc2409.to_device", func(m object) bool { return apptest.At(m, "content", "n") == float64(i) })
	}
	if got, _ := apptest.At(bob.Sync(t, ""), "to_device", "events").([]any); len(got) != 2 {
		t.Errorf("bob got %v", got)
	}
}

// A service that is gone for good does not hold the log, and has no place in it when
// it comes back.
func TestComesAndGoes(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	room := bridged(t, b, alice)
	b.until(alice.Send(t, room, "here"))
	files := s.Config.Server.AppserviceFiles
	s.Config.Server.AppserviceFiles = nil
	s.Restart(t)
	alice = alice.Login(t)
	unseen := alice.Send(t, room, "gone")
	s.Config.Server.AppserviceFiles = files
	s.Restart(t)
	alice = alice.Login(t)
	if got := b.until(alice.Send(t, room, "back")); slices.Contains(ids(got), unseen) || len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
