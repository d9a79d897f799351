package push_test

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// send sends an event of any type and returns its ID.
func send(t *testing.T, c *apptest.Client, room, typ, txn string, content object) string {
	t.Helper()
	target := v3 + "/rooms/" + url.PathEscape(room) + "/send/" + typ + "/" + txn
	return c.Must(t, "PUT", target, content)["event_id"].(string)
}

func wantFields(t *testing.T, n object, want object) {
	t.Helper()
	for k, v := range want {
		if !reflect.DeepEqual(n[k], v) {
			t.Errorf("%s is %v, want %v", k, n[k], v)
		}
	}
}

func TestMessageIsPushed(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	alice.Must(t, "PUT", v3+"/profile/"+url.PathEscape(alice.UserID)+"/displayname", object{"displayname": "Alice A"})
	set(t, bob, g.pusher("k", nil))
	e := alice.Send(t, id, "hello")
	n := g.event(t)
	wantFields(t, n, object{
		"event_id": e, "room_id": id, "sender": alice.UserID, "type": "m.room.message", "room_name": "Kitchen",
		"sender_display_name": "Alice A", "content": object{"msgtype": "m.text", "body": "hello"},
		"counts": object{"unread": 1.0}, "user_is_target": nil, "prio": "high", // two members: it makes a sound
	})
	d := n["devices"].([]any)[0]
	wantFields(t, d.(object), object{
		"app_id": "org.example.app", "pushkey": "k", "tweaks": object{"sound": "default"},
		"data": object{"default_payload": object{"a": 1.0}},
	})
	// Nobody is told of what they said themselves.
	bob.Send(t, id, "mine")
	e = alice.Send(t, id, "again")
	if n := g.event(t); n["event_id"] != e {
		t.Errorf("pushed %v, want %s", n, e)
	}
}

// Of a room in which people talk it is known who watches: also who begins to.
func TestWhoBeginsToWatchIsPushed(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	g, hers := newGateway(t), newGateway(t)
	id := room(t, alice, bob, carol)
	set(t, bob, g.pusher("k", nil))
	alice.Send(t, id, "hello")
	g.event(t)
	set(t, carol, hers.pusher("hers", nil))
	for deadline := time.Now().Add(patience); ; { // the room learns of it a moment later
		e := alice.Send(t, id, "again")
		if n := g.event(t); n["event_id"] != e {
			t.Fatalf("pushed %v, want %s", n, e)
		}
		select {
		case n := <-hers.got:
			if n["room_id"] != id {
				t.Errorf("pushed %v", n)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("who began to watch a busy room is not pushed to")
		}
	}
}

func TestEventIDOnly(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", object{"data": g.eventIDOnly()}))
	e := alice.Send(t, id, "secret")
	n := g.event(t)
	delete(n, "answered")
	delete(n["devices"].([]any)[0].(object), "pushkey_ts")
	want := object{
		"event_id": e, "room_id": id, "prio": "high", "counts": object{"unread": 1.0},
		"devices": []any{object{"app_id": "org.example.app", "pushkey": "k", "tweaks": object{}, "data": object{"format": "event_id_only"}}},
	}
	if !reflect.DeepEqual(n, want) {
		t.Errorf("pushed %v, want %v", n, want)
	}
}

// What push rules silence is not pushed: each case ends with a message that is, and
// before which nothing may come.
func TestPushRulesDecide(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	g := newGateway(t)
	id, muted := room(t, alice, bob, carol), room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	bob.Must(t, "PUT", v3+"/pushrules/global/override/"+url.PathEscape(muted), object{
		"actions": []any{}, "conditions": []any{object{"kind": "event_match", "key": "room_id", "pattern": muted}},
	})
	bob.Must(t, "PUT", v3+"/pushrules/global/sender/"+url.PathEscape(carol.UserID), object{"actions": []any{}})
	alice.Send(t, muted, "not heard")
	send(t, alice, id, "m.room.message", "notice", object{"msgtype": "m.notice", "body": "a bot"})
	send(t, alice, id, "m.reaction", "reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": "$x", "key": "x"}})
	carol.Send(t, id, "from one who is muted")
	plain := alice.Send(t, id, "plain")
	n := g.event(t)
	wantFields(t, n, object{"event_id": plain, "prio": "low"})
	mention := send(t, alice, id, "m.room.message", "mention", object{
		"msgtype": "m.text", "body": "you", "m.mentions": object{"user_ids": []any{bob.UserID}},
	})
	n = g.event(t)
	wantFields(t, n, object{"event_id": mention, "prio": "high"})
	if tweaks := apptest.At(n["devices"].([]any)[0], "tweaks"); !reflect.DeepEqual(tweaks, any(object{"highlight": true, "sound": "default"})) {
		t.Errorf("tweaks %v", tweaks)
	}
	whole := send(t, alice, id, "m.room.message", "room", object{"msgtype": "m.text", "body": "all", "m.mentions": object{"room": true}})
	wantFields(t, g.event(t), object{"event_id": whole, "prio": "high"})
	secret := send(t, alice, id, "m.room.encrypted", "secret", object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"})
	wantFields(t, g.event(t), object{"event_id": secret, "type": "m.room.encrypted", "prio": "high"})
	g.none(t)
	if got := unread(t, bob); got != 4 {
		t.Errorf("a sync counts %d", got)
	}
}

func TestIgnoredUsersAreNotPushed(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	g := newGateway(t)
	id := room(t, alice, bob, carol)
	set(t, bob, g.pusher("k", nil))
	bob.Must(t, "PUT", v3+"/user/"+url.PathEscape(bob.UserID)+"/account_data/m.ignored_user_list",
		object{"ignored_users": object{carol.UserID: object{}}})
	carol.Send(t, id, "hello?")
	e := alice.Send(t, id, "hello")
	wantFields(t, g.event(t), object{"event_id": e, "counts": object{"unread": 1.0}})
}

// Nor are they with what waited for a gateway when they came to be ignored.
func TestIgnoredWhileQueued(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	g := newGateway(t)
	id := room(t, alice, bob, carol)
	set(t, bob, g.pusher("k", nil))
	g.setDown(true)
	e := carol.Send(t, id, "hello?")
	wantFields(t, g.event(t), object{"event_id": e, "answered": http.StatusServiceUnavailable})
	bob.Must(t, "PUT", v3+"/user/"+url.PathEscape(bob.UserID)+"/account_data/m.ignored_user_list",
		object{"ignored_users": object{carol.UserID: object{}}})
	g.setDown(false)
	e = alice.Send(t, id, "hello")
	n := g.event(t)
	for n["answered"] == http.StatusServiceUnavailable {
		n = g.event(t)
	}
	wantFields(t, n, object{"event_id": e})
}

func TestInviteIsPushed(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	set(t, bob, g.pusher("k", nil))
	id := alice.CreateRoom(t, object{"preset": "private_chat", "invite": []any{bob.UserID}})
	n := g.event(t)
	wantFields(t, n, object{"room_id": id, "type": "m.room.member", "sender": alice.UserID, "user_is_target": true})
	// Who joins hears what is said from then on.
	bob.Join(t, id)
	e := alice.Send(t, id, "welcome")
	wantFields(t, g.event(t), object{"event_id": e})
}

// A member who leaves hears nothing more, one who comes back does.
func TestLeaveAndComeBack(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id, other := room(t, alice, bob), room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(id)+"/leave", object{})
	alice.Send(t, id, "gone?")
	e := alice.Send(t, other, "here")
	wantFields(t, g.event(t), object{"event_id": e})
	bob.Join(t, id)
	e = alice.Send(t, id, "back")
	wantFields(t, g.event(t), object{"event_id": e})
}

// The number follows what is read, and is told when it changes, not otherwise.
func TestBadge(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	one, two := room(t, alice, bob), room(t, alice, bob)
	first := alice.Send(t, one, "before there was a pusher")
	set(t, bob, g.pusher("k", nil))
	told := map[any]bool{alice.Send(t, one, "1"): false}
	last := alice.Send(t, two, "2")
	told[last] = false
	// The rooms are in no order; what comes late has the number of then.
	for count := 0.0; count != 3 || len(told) > 0; {
		n := g.push(t)
		delete(told, n["event_id"])
		count, _ = apptest.At(n, "counts", "unread").(float64)
	}
	if got := unread(t, bob); got != 3 {
		t.Errorf("a sync counts %d", got)
	}
	read(t, bob, one, first)
	n := g.badge(t, 2)
	if n["event_id"] != nil || n["type"] != nil || n["content"] != nil {
		t.Errorf("only a number is to be told: %v", n)
	}
	read(t, bob, two, last)
	g.badge(t, 1)
	// A receipt that changes no number is not told again.
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(two)+"/receipt/m.read.private/"+url.PathEscape(last), object{})
	e := alice.Send(t, two, "3")
	for n = g.push(t); n["event_id"] == nil; n = g.push(t) {
		// Of the event, the number may come before the rest.
		wantFields(t, n, object{"counts": object{"unread": 2.0}})
	}
	wantFields(t, n, object{"event_id": e, "counts": object{"unread": 2.0}})
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(one)+"/leave", object{})
	read(t, bob, two, e)
	g.badge(t, 0)
}

// Who answers has read what was said before.
func TestBadgeOfWhoAnswers(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	alice.Send(t, id, "hello?")
	g.badge(t, 1)
	bob.Send(t, id, "hello")
	n := g.badge(t, 0)
	if n["event_id"] != nil {
		t.Errorf("pushed %v", n)
	}
	if got := unread(t, bob); got != 0 {
		t.Errorf("a sync counts %d", got)
	}
}

// What is read in a thread counts there.
func TestBadgeOfThreads(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	root := alice.Send(t, id, "root")
	in := send(t, alice, id, "m.room.message", "t", object{
		"msgtype": "m.text", "body": "in it", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
	})
	g.badge(t, 2)
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(id)+"/receipt/m.read/"+url.PathEscape(in), object{"thread_id": root})
	g.badge(t, 1)
	bob.Must(t, "POST", v3+"/rooms/"+url.PathEscape(id)+"/receipt/m.read/"+url.PathEscape(root), object{"thread_id": "main"})
	g.badge(t, 0)
}

// A gateway that fails is asked again, and what waits comes in order.
func TestRetryKeepsOrder(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	g.next(answer{status: http.StatusBadGateway})
	e := []string{alice.Send(t, id, "1"), alice.Send(t, id, "2"), alice.Send(t, id, "3")}
	wantFields(t, g.event(t), object{"event_id": e[0], "answered": http.StatusBadGateway})
	for _, want := range e {
		wantFields(t, g.event(t), object{"event_id": want, "answered": http.StatusOK})
	}
}

// A gateway that refuses one thing gets the next.
func TestRefusedIsPassedOver(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	g.next(answer{status: http.StatusBadRequest})
	e := []string{alice.Send(t, id, "1"), alice.Send(t, id, "2")}
	wantFields(t, g.event(t), object{"event_id": e[0], "answered": http.StatusBadRequest})
	wantFields(t, g.event(t), object{"event_id": e[1]})
	wantPushers(t, bob, "k")
}

func TestRejectedPushKeyEndsThePusher(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("old", nil))
	g.next(answer{status: http.StatusOK, rejected: []string{"another", "old"}})
	alice.Send(t, id, "1")
	g.event(t)
	set(t, bob, g.pusher("new", nil))
	e := alice.Send(t, id, "2")
	n := g.event(t)
	if apptest.At(n["devices"].([]any)[0], "pushkey") != "new" || n["event_id"] != e {
		t.Errorf("pushed %v", n)
	}
	wantPushers(t, bob, "new")
}

// What a gateway did not take before a restart, it is sent after it.
func TestRestartLosesNothing(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	id := room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	g.setDown(true)
	e := []string{alice.Send(t, id, "1"), alice.Send(t, id, "2")}
	for range 2 { // by then the consumer is done with both: only the queue knows of them
		wantFields(t, g.event(t), object{"event_id": e[0], "answered": http.StatusServiceUnavailable})
	}
	s.Restart(t)
	g.setDown(false)
	for _, want := range e {
		n := g.event(t)
		for n["answered"] == http.StatusServiceUnavailable {
			wantFields(t, n, object{"event_id": e[0]}) // never the second before the first
			n = g.event(t)
		}
		wantFields(t, n, object{"event_id": want})
	}
	e = append(e, alice.Send(t, id, "3"))
	wantFields(t, g.event(t), object{"event_id": e[2], "counts": object{"unread": 3.0}})
}

// What waited for a gateway until it had expired is news no more, and unread no more.
func TestExpiredEventsAreNotPushed(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g := newGateway(t)
	brief, kept := room(t, alice, bob), room(t, alice, bob)
	alice.Must(t, "PUT", v3+"/rooms/"+url.PathEscape(brief)+"/state/m.room.retention/", object{"max_lifetime": 1})
	set(t, bob, g.pusher("k", nil))
	g.setDown(true)
	gone := alice.Send(t, brief, "gone")
	wantFields(t, g.event(t), object{"event_id": gone, "answered": http.StatusServiceUnavailable})
	s.Stop()
	g.setDown(false)
	s.Config.Retention.Enabled = true
	s.Restart(t)
	e := alice.Send(t, kept, "kept")
	n := g.event(t)
	for n["answered"] == http.StatusServiceUnavailable {
		n = g.event(t)
	}
	wantFields(t, n, object{"event_id": e, "counts": object{"unread": 1.0}})
}

// Of several pushers each gets everything, and one that is dead delays no other.
func TestTwoPushers(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	g, dead := newGateway(t), newGateway(t)
	dead.Close()
	id := room(t, alice, bob)
	set(t, bob, dead.pusher("dead", nil))
	set(t, bob, g.pusher("k1", nil))
	set(t, bob, g.pusher("k2", nil))
	got := map[any]int{}
	e1, e2 := alice.Send(t, id, "1"), alice.Send(t, id, "2")
	for range 4 {
		n := g.event(t)
		got[n["event_id"]]++
	}
	if got[e1] != 2 || got[e2] != 2 {
		t.Errorf("pushed %v", got)
	}
}
