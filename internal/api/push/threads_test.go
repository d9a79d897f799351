package push_test

import (
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// Subscriptions to threads decide what is pushed, listed and counted, at once when they
// change. spec: MSC4306.
func TestThreadSubscriptions(t *testing.T) {
	s := apptest.Start(t, local, func(c *config.Config) {
		c.Push.ThreadSubscriptions = true
		c.Server.MetricsListen = "127.0.0.1:0"
	})
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	if features := alice.Must(t, "GET", "/_matrix/client/versions", nil)["unstable_features"]; apptest.At(features, "org.matrix.msc4306") != true {
		t.Errorf("features %v", features)
	}
	g := newGateway(t)
	id, other := room(t, alice, bob, s.User(t, "carol")), room(t, alice, bob)
	set(t, bob, g.pusher("k", nil))
	root := alice.Send(t, id, "the root")
	wantFields(t, g.event(t), object{"event_id": root})
	read(t, bob, id, root)
	n := 0
	reply := func(more object) string {
		t.Helper()
		n++
		content := object{"msgtype": "m.text", "body": "x", "m.relates_to": object{"rel_type": "m.thread", "event_id": root}}
		for k, v := range more {
			content[k] = v
		}
		return send(t, alice, id, "m.room.message", "r"+string(rune('a'+n)), content)
	}
	since := bob.Sync(t, "")["next_batch"].(string)
	subscription := "/_matrix/client/unstable/io.element.msc4306/rooms/" + url.PathEscape(id) + "/thread/" + url.PathEscape(root) + "/subscription"

	reply(nil) // tells nobody
	if got := unread(t, bob); got != 0 {
		t.Errorf("%d unread in a thread without subscription", got)
	}
	mention := reply(object{"m.mentions": object{"user_ids": []string{bob.UserID}}})
	wantFields(t, g.event(t), object{"event_id": mention, "counts": object{"unread": 1.0}})
	bob.Must(t, "PUT", subscription, object{})
	if got := unread(t, bob); got != 2 { // what was said before counts as well now
		t.Errorf("%d unread with a subscription", got)
	}
	elsewhere := alice.Send(t, other, "elsewhere")
	wantFields(t, g.event(t), object{"event_id": elsewhere, "counts": object{"unread": 3.0}})
	e := reply(nil)
	wantFields(t, g.event(t), object{"event_id": e, "counts": object{"unread": 4.0}})
	if got := unread(t, bob); got != 4 {
		t.Errorf("%d unread", got)
	}
	// The view that a sync goes on with counts as a new one does.
	count := func() float64 {
		t.Helper()
		out := bob.Sync(t, since)
		since = out["next_batch"].(string)
		got, _ := apptest.At(out, "rooms", "join", id, "unread_notifications", "notification_count").(float64)
		return got
	}
	if got := count(); got != 3 {
		t.Errorf("%v unread in the next sync", got)
	}
	bob.Must(t, "DELETE", subscription, nil)
	reply(nil)
	s.CaughtUp(t, "push") // a message is judged by the subscriptions that there are when its turn comes
	if got := count(); got != 1 {
		t.Errorf("%v unread after the subscription ended", got)
	}
	// A sync that waits is told, though nothing happens in the room.
	waited := make(chan object, 1)
	go func() {
		_, out := bob.Do(t, "GET", v3+"/sync?timeout=60000&since="+since, nil)
		waited <- out
	}()
	phone := bob.Login(t)
	phone.Must(t, "PUT", subscription, object{})
	if got, _ := apptest.At(<-waited, "rooms", "join", id, "unread_notifications", "notification_count").(float64); got != 4 {
		t.Errorf("%v unread in the sync that waited", got)
	}
	phone.Must(t, "DELETE", subscription, nil)
	list1, _ := list(t, bob.Must(t, "GET", v3+"/notifications", nil))
	wantList(t, list1, e, elsewhere, mention, root)
}
