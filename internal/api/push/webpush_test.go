package push_test

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/push/webpush/webpushtest"
)

const (
	webKind  = "org.matrix.msc4174.webpush"
	webApp   = "org.example.web"
	ackRoute = "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack"
)

// browser is a browser of a user that is subscribed at a push service.
type browser struct {
	t       *testing.T
	c       *apptest.Client
	service *webpushtest.Service
	keys    *webpushtest.Browser
	url     string
}

// vapidKey is what the server tells browsers to subscribe with.
func vapidKey(t *testing.T, c *apptest.Client) string {
	t.Helper()
	caps := c.Must(t, "GET", v3+"/capabilities", nil)
	if apptest.At(caps, "capabilities", webKind, "enabled") != true {
		t.Fatalf("capabilities %v", caps)
	}
	return apptest.At(caps, "capabilities", webKind, "vapid").(string)
}

func newBrowser(t *testing.T, c *apptest.Client, service *webpushtest.Service) *browser {
	t.Helper()
	b := &browser{t: t, c: c, service: service, keys: webpushtest.NewBrowser(t)}
	b.url = service.Subscribe(b.keys, vapidKey(t, c))
	return b
}

func (b *browser) pushkey() string {
	p256dh, _ := b.keys.Keys()
	return p256dh
}

// pusher is the request for the browser's pusher; data changes its data.
func (b *browser) pusher(data object) object {
	p256dh, auth := b.keys.Keys()
	all := object{"url": b.url, "auth": auth, "format": "event_id_only"}
	maps.Copy(all, data)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return object{
		"app_id": webApp, "pushkey": p256dh, "kind": webKind, "lang": "en",
		"app_display_name": "App", "device_display_name": "Browser", "data": all,
	}
}

// set sets the pusher and returns the status.
func (b *browser) set(data object) int {
	b.t.Helper()
	status, body, _ := b.c.Raw(b.t, "POST", v3+"/pushers/set", b.pusher(data))
	if status >= 300 {
		b.t.Fatalf("set pusher: %d %s", status, body)
	}
	return status
}

// message waits for the next message to the browser.
func (b *browser) message() webpushtest.Message {
	b.t.Helper()
	select {
	case m := <-b.service.Got:
		return m
	case <-time.After(patience):
		b.t.Fatal("nothing was pushed")
		return webpushtest.Message{}
	}
}

// event waits for the next message about an event.
func (b *browser) event() webpushtest.Message {
	b.t.Helper()
	for {
		if m := b.message(); m.Payload["event_id"] != nil {
			return m
		}
	}
}

// token waits for what the app has to say.
func (b *browser) token() string {
	b.t.Helper()
	m := b.message()
	if got := slices.Sorted(maps.Keys(m.Payload)); !reflect.DeepEqual(got, []string{"ack_token", "app_id"}) || m.Payload["app_id"] != webApp {
		b.t.Fatalf("told %s", m.Raw)
	}
	if m.Urgency != "high" || m.TTL != 300 {
		b.t.Errorf("urgency %q, for %d s", m.Urgency, m.TTL)
	}
	return m.Payload["ack_token"].(string)
}

func (b *browser) ack(token string) {
	b.t.Helper()
	b.c.Must(b.t, "POST", ackRoute, object{"app_id": webApp, "ack_token": token})
}

// subscribed is a browser whose pusher is active.
func subscribed(t *testing.T, c *apptest.Client, service *webpushtest.Service, data object) *browser {
	t.Helper()
	b := newBrowser(t, c, service)
	if status := b.set(data); status != http.StatusCreated {
		t.Fatalf("set pusher: %d", status)
	}
	b.ack(b.token())
	return b
}

func TestWebPush(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id, other := room(t, alice, bob), room(t, alice, bob)
	if features := bob.Must(t, "GET", "/_matrix/client/versions", nil)["unstable_features"]; apptest.At(features, "org.matrix.msc4174") != true {
		t.Errorf("features %v", features)
	}
	b := subscribed(t, bob, webpushtest.New(t), nil)
	e := alice.Send(t, id, "hello")
	m := b.event()
	if want := (object{"room_id": id, "event_id": e, "prio": "high", "unread": 1.0}); !reflect.DeepEqual(m.Payload, want) {
		t.Errorf("told %v, want %v", m.Payload, want)
	}
	if m.TTL < 86000 || m.TTL > 86400 || m.Urgency != "high" {
		t.Errorf("for %d s, urgency %q", m.TTL, m.Urgency)
	}
	again := alice.Send(t, id, "hello?")
	n := b.event()
	if n.Payload["event_id"] != again || n.Payload["unread"] != 2.0 {
		t.Errorf("told %v", n.Payload)
	}
	if n.Topic != m.Topic || len(m.Topic) != 32 || strings.Contains(m.Topic, id[1:5]) {
		t.Errorf("topics %q and %q of one room", m.Topic, n.Topic)
	}
	alice.Send(t, other, "elsewhere")
	if n := b.event(); n.Topic == m.Topic {
		t.Error("two rooms have one topic")
	}
	read(t, bob, id, again)
	n = b.message()
	if want := (object{"unread": 1.0}); !reflect.DeepEqual(n.Payload, want) || n.Urgency != "low" {
		t.Errorf("told %v with urgency %q, want %v", n.Payload, n.Urgency, want)
	}
}

// What is loud is sent so, and what is not is a message like any other.
func TestWebPushUrgency(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	id := room(t, alice, bob, carol)
	b := subscribed(t, bob, webpushtest.New(t), nil)
	alice.Send(t, id, "hello")
	if m := b.event(); m.Urgency != "normal" || m.Payload["prio"] != "low" {
		t.Errorf("urgency %q of %v", m.Urgency, m.Payload)
	}
	send(t, alice, id, "m.room.message", "mention", object{"msgtype": "m.text", "body": "you", "m.mentions": object{"user_ids": []any{bob.UserID}}})
	if m := b.event(); m.Urgency != "high" {
		t.Errorf("urgency %q of %v", m.Urgency, m.Payload)
	}
}

// A pusher that asks for more is told more, save what is said in encrypted rooms.
func TestWebPushWithText(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	open, secret := room(t, alice, bob), room(t, alice, bob)
	alice.Must(t, "PUT", v3+"/rooms/"+secret+"/state/m.room.encryption/", object{"algorithm": "m.megolm.v1.aes-sha2"})
	b := subscribed(t, bob, webpushtest.New(t), object{"format": nil, "default_payload": object{"a": 1, "unread": "x"}})
	e := alice.Send(t, open, "hello")
	m := b.event()
	want := object{
		"room_id": open, "event_id": e, "prio": "high", "unread": 1.0, "a": 1.0, "room_name": "Kitchen", "type": "m.room.message",
		"sender": alice.UserID, "sender_display_name": "alice", "content": object{"msgtype": "m.text", "body": "hello"},
	}
	if !reflect.DeepEqual(m.Payload, want) {
		t.Errorf("told %v, want %v", m.Payload, want)
	}
	for txn, typ := range map[string]string{"cipher": "m.room.encrypted", "plain": "m.room.message"} {
		send(t, alice, secret, typ, txn, object{"msgtype": "m.text", "algorithm": "m.megolm.v1.aes-sha2", "body": "nobody's", "ciphertext": "nobody's"})
		m = b.event()
		if strings.Contains(string(m.Raw), "nobody") || m.Payload["type"] != typ || m.Payload["room_name"] != "Kitchen" {
			t.Errorf("of an encrypted room is told %s", m.Raw)
		}
	}
	long := alice.Send(t, open, strings.Repeat("x", 5000))
	if m = b.event(); m.Payload["event_id"] != long || m.Payload["content"] != nil || m.Payload["sender"] != alice.UserID {
		t.Errorf("of a long message is told %.200s", m.Raw)
	}
}

// A service that takes less is sent less.
func TestWebPushTooLarge(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id := room(t, alice, bob)
	service := webpushtest.New(t)
	b := subscribed(t, bob, service, object{"format": nil})
	service.Limit(600)
	e := alice.Send(t, id, strings.Repeat("x", 1000))
	if m := b.message(); m.Status != http.StatusRequestEntityTooLarge {
		t.Fatalf("first try: %d", m.Status)
	}
	m := b.message()
	if want := (object{"room_id": id, "event_id": e, "prio": "high", "unread": 1.0}); m.Status != 201 || !reflect.DeepEqual(m.Payload, want) {
		t.Errorf("%d %v, want %v", m.Status, m.Payload, want)
	}
	// One that takes nothing is given up on, and what comes next is sent.
	service.Limit(1)
	alice.Send(t, id, "lost")
	for range 2 { // in full, and as small as can be
		if m := b.message(); m.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d", m.Status)
		}
	}
	service.Limit(0)
	e = alice.Send(t, id, "heard")
	if m := b.event(); m.Status != 201 || m.Payload["event_id"] != e {
		t.Errorf("%d %v", m.Status, m.Payload)
	}
}

// A subscription that is no more, or not ours, ends the pusher.
func TestWebPushGone(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusGone, http.StatusForbidden} {
		s := apptest.Start(t, local)
		alice, bob := s.User(t, "alice"), s.User(t, "bob")
		id := room(t, alice, bob)
		service := webpushtest.New(t)
		b := subscribed(t, bob, service, nil)
		service.Next(webpushtest.Answer{Status: status})
		alice.Send(t, id, "hello")
		if m := b.event(); m.Status != status {
			t.Fatalf("answered %d", m.Status)
		}
		for end := time.Now().Add(patience); len(pushers(t, bob)) > 0; {
			if time.Now().After(end) {
				t.Fatalf("after %d the pusher stays", status)
			}
		}
	}
}

// A service that is busy is asked again when it says, and what it would not take is lost
// alone.
func TestWebPushTryAgain(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id := room(t, alice, bob)
	service := webpushtest.New(t)
	b := subscribed(t, bob, service, nil)
	service.Next(webpushtest.Answer{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "2"}})
	service.Next(webpushtest.Answer{Status: http.StatusBadGateway})
	e := alice.Send(t, id, "hello")
	first := b.event()
	begin := time.Now()
	second, third := b.event(), b.event()
	if first.Status != 429 || second.Status != 502 || third.Status != 201 || third.Payload["event_id"] != e {
		t.Errorf("answered %d, %d, %d; last told %v", first.Status, second.Status, third.Status, third.Payload)
	}
	if waited := time.Since(begin); waited < 2*time.Second {
		t.Errorf("asked again after %s", waited)
	}
	service.Next(webpushtest.Answer{Status: http.StatusBadRequest})
	alice.Send(t, id, "refused")
	if m := b.event(); m.Status != 400 {
		t.Errorf("answered %d", m.Status)
	}
	e = alice.Send(t, id, "again")
	if m := b.event(); m.Payload["event_id"] != e {
		t.Errorf("told %v, want %s", m.Payload, e)
	}
	wantPushers(t, bob, b.pushkey())
}

// Some browsers want to show something each time; they are not told the number alone.
func TestWebPushEventsOnly(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id := room(t, alice, bob)
	b := subscribed(t, bob, webpushtest.New(t), object{"events_only": true})
	e := alice.Send(t, id, "hello")
	b.event()
	read(t, bob, id, e)
	e = alice.Send(t, id, "again")
	if m := b.message(); m.Payload["event_id"] != e {
		t.Errorf("told %v", m.Payload)
	}
}

// Before its app has said what it was sent, a pusher is told nothing.
func TestActivation(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	id := room(t, alice, bob)
	service := webpushtest.New(t)
	b := newBrowser(t, bob, service)
	bob.Fails(t, "POST", ackRoute, object{"app_id": webApp, "ack_token": "x"}, 404, "M_NOT_FOUND")
	activated := func() any {
		list := bob.Must(t, "GET", v3+"/pushers", nil)["pushers"].([]any)
		return apptest.At(list[len(list)-1], "data", "activated")
	}
	other := subscribed(t, bob, webpushtest.New(t), nil) // by which is known when something was judged
	b.set(nil)
	token := b.token()
	alice.Send(t, id, "not told")
	other.event()
	if activated() != false {
		t.Error("it is active before it was activated")
	}
	bob.Fails(t, "POST", ackRoute, object{"app_id": webApp, "ack_token": "x"}, 400, "M_UNKNOWN_ACTIVATION_TOKEN")
	bob.Fails(t, "POST", ackRoute, object{"app_id": "other", "ack_token": token}, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", ackRoute, object{"app_id": webApp}, 400, "M_MISSING_PARAM")
	bob.Fails(t, "POST", ackRoute, object{"ack_token": token}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", ackRoute, object{"app_id": webApp, "ack_token": token}, 404, "M_NOT_FOUND")
	s.Anonymous().Fails(t, "POST", ackRoute, object{"app_id": webApp, "ack_token": token}, 401, "M_MISSING_TOKEN")
	if len(service.Got) > 0 {
		t.Errorf("told %v before", (<-service.Got).Payload)
	}
	b.ack(token)
	b.ack(token) // the answer may be lost
	if activated() != true {
		t.Error("it is not active")
	}
	e := alice.Send(t, id, "told")
	if m := b.message(); m.Payload["event_id"] != e {
		t.Errorf("told %s", m.Raw)
	}
	// The same again changes nothing; another address has to be proved.
	if status := b.set(nil); status != http.StatusOK || activated() != true {
		t.Errorf("set again: %d, active: %v", status, activated())
	}
	b.url = service.Subscribe(b.keys, vapidKey(t, bob))
	if status := b.set(nil); status != http.StatusCreated || activated() != false {
		t.Errorf("set to another address: %d, active: %v", status, activated())
	}
	first := b.token()
	b.set(nil) // the first one was lost
	second := b.token()
	if first == second {
		t.Error("a token is given twice")
	}
	bob.Fails(t, "POST", ackRoute, object{"app_id": webApp, "ack_token": first}, 400, "M_UNKNOWN_ACTIVATION_TOKEN")
	b.ack(second)
}

func TestWebPusherMistakes(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	service := webpushtest.New(t)
	b := newBrowser(t, alice, service)
	for name, c := range map[string]struct {
		data object
		code string
	}{
		"no url":               {object{"url": nil}, "M_MISSING_PARAM"},
		"no auth":              {object{"auth": nil}, "M_MISSING_PARAM"},
		"a short auth":         {object{"auth": "AAAA"}, "M_INVALID_PARAM"},
		"auth is a number":     {object{"auth": 1}, "M_BAD_JSON"},
		"another scheme":       {object{"url": "ftp://push.example.org/x"}, "M_INVALID_PARAM"},
		"a password":           {object{"url": "https://a:b@push.example.org/x"}, "M_INVALID_PARAM"},
		"activated":            {object{"activated": true}, "M_INVALID_PARAM"},
		"events_only is a sum": {object{"events_only": 1}, "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			alice.Fails(t, "POST", v3+"/pushers/set", b.pusher(c.data), http.StatusBadRequest, c.code)
		})
	}
	body := b.pusher(nil)
	body["pushkey"] = "not a key"
	alice.Fails(t, "POST", v3+"/pushers/set", body, 400, "M_INVALID_PARAM")
	wantPushers(t, alice)
	if len(service.Got) > 0 {
		t.Errorf("told %v", (<-service.Got).Payload)
	}
}

// What only the browser and the server know is not shown again.
func TestWebPusherKeepsItsSecret(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	b := subscribed(t, alice, webpushtest.New(t), object{"x": object{"y": 1}})
	list := alice.Must(t, "GET", v3+"/pushers", nil)["pushers"].([]any)
	want := b.pusher(nil)
	want["data"] = object{"url": b.url, "format": "event_id_only", "activated": true, "x": object{"y": 1.0}}
	if len(list) != 1 || !reflect.DeepEqual(list[0], any(want)) {
		t.Errorf("pushers %v, want %v", list, want)
	}
}

// Browsers subscribed with the key, so it stays.
func TestWebPushKeyIsKept(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	key := vapidKey(t, alice)
	s.Restart(t)
	if again := vapidKey(t, alice); again != key {
		t.Errorf("the key was %s and is %s", key, again)
	}
	other := apptest.Start(t, local)
	if vapidKey(t, other.User(t, "bob")) == key {
		t.Error("two deployments have one key")
	}
}

// Without allowed networks a push service is reached by TLS, at a public address.
func TestWebPushToThePublicOnly(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Push.Allow = nil })
	alice := s.User(t, "alice")
	service := webpushtest.New(t)
	b := newBrowser(t, alice, service)
	alice.Fails(t, "POST", v3+"/pushers/set", b.pusher(nil), 400, "M_INVALID_PARAM")
	b.url = "https://" + strings.TrimPrefix(b.url, "http://")
	b.set(nil) // nothing comes of it: it is not connected to
	s.Stop()
	if len(service.Got) > 0 {
		t.Errorf("told %v", (<-service.Got).Payload)
	}
}
