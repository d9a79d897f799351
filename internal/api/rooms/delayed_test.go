package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

const (
	delayedV1       = "/_matrix/client/v1/delayed_events"
	delayedUnstable = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
	// far is a delay that no test lives to see, soon one that is over at once.
	far, soon = "?org.matrix.msc4140.delay=3600000", "?org.matrix.msc4140.delay=1"
)

// arrives waits in sync until an event comes into a room that fits, and returns it.
func arrives(t testing.TB, c *apptest.Client, room, since string, fits func(object) bool) object {
	t.Helper()
	for range 50 { // each waits up to 20 s for something to happen
		out := c.Must(t, "GET", v3+"/sync?timeout=20000&since="+url.QueryEscape(since), nil)
		since = out["next_batch"].(string)
		timeline, _ := apptest.At(out, "rooms", "join", room, "timeline").(object)
		if timeline == nil {
			continue
		}
		for _, e := range list(t, timeline, "events") {
			if fits(e) {
				return e
			}
		}
	}
	t.Fatal("the event did not come")
	return nil
}

func delayID(t testing.TB, c *apptest.Client, target string, body any) string {
	t.Helper()
	return c.Must(t, "PUT", target, body)["delay_id"].(string)
}

// waiting are the types of a user's scheduled events.
func waiting(t testing.TB, c *apptest.Client) []string {
	t.Helper()
	out := []string{}
	for _, e := range list(t, c.Must(t, "GET", delayedUnstable, nil), "delayed_events") {
		out = append(out, fmt.Sprint(e["type"]))
	}
	return out
}

func TestDelayedEventIsSent(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	since := alice.Sync(t, "")["next_batch"].(string)
	bobSince := bob.Sync(t, "")["next_batch"].(string)

	message := object{"msgtype": "m.text", "body": "later"}
	id := delayID(t, alice, at(room, "send", "m.room.message", "one")+soon, message)
	isLater := func(e object) bool { return apptest.At(e, "content", "body") == "later" }
	e := arrives(t, alice, room, since, isLater)
	same(t, "delay_id for the sender", apptest.At(e, "unsigned", "org.matrix.msc4140.delay_id"), id)
	e = arrives(t, bob, room, bobSince, isLater)
	same(t, "delay_id for others", apptest.At(e, "unsigned", "org.matrix.msc4140.delay_id"), nil)
	same(t, "history", history(t, alice, room), []string{"later"})
	same(t, "waiting", waiting(t, alice), []string{})

	// A repeated request is the same event, also without its body.
	same(t, "repeated", delayID(t, alice, at(room, "send", "m.room.message", "one")+soon, nil), id)
	same(t, "history", history(t, alice, room), []string{"later"})

	one := alice.Must(t, "GET", delayedV1+"/"+id, nil)
	same(t, "event_id", one["event_id"], e["event_id"])
	same(t, "content", one["content"], message)
	// The content is that of the event, and goes with it.
	alice.Must(t, "PUT", at(room, "redact", e["event_id"].(string), "r"), object{})
	same(t, "redacted", alice.Must(t, "GET", delayedV1+"/"+id, nil)["content"], object{})
	same(t, "redacted in the list", list(t, alice.Must(t, "GET", delayedV1, nil), "delayed_events")[0]["content"], object{})
	bob.Fails(t, "GET", delayedV1+"/"+id, nil, 404, "M_NOT_FOUND")
}

func TestDelayedStateAndRedaction(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	said := alice.Send(t, room, "to go")
	since := alice.Sync(t, "")["next_batch"].(string)
	delayID(t, alice, at(room, "state", "m.room.topic")+"/"+soon, object{"topic": "new"})
	arrives(t, alice, room, since, func(e object) bool { return e["type"] == "m.room.topic" })
	same(t, "topic", state(t, alice, room, "m.room.topic")["topic"], "new")
	// The form of the MSC, with a body of its own.
	alice.Must(t, "PUT", at(room, "delayed_event", "m.room.redaction", "r"), object{"delay": 1, "content": object{"redacts": said}})
	arrives(t, alice, room, since, func(e object) bool { return e["type"] == "m.room.redaction" })
	gone := alice.Must(t, "GET", at(room, "event", said), nil)
	same(t, "redacted", gone["content"], object{})
}

func TestDelayedActions(t *testing.T) {
	s := apptest.Start(t)
	alice, anyone := s.User(t, "alice"), s.Anonymous()
	room := alice.CreateRoom(t, nil)
	put := func(txn string) string {
		return delayID(t, alice, at(room, "send", "m.room.message", txn)+far, object{"body": txn, "msgtype": "m.text"})
	}
	byPath := func(id, action string) (int, object) {
		return anyone.Do(t, "POST", delayedUnstable+"/"+id+"/"+action, object{})
	}
	for _, form := range []string{"path", "body"} {
		act := byPath
		if form == "body" {
			act = func(id, action string) (int, object) {
				return anyone.Do(t, "POST", delayedV1+"/"+id, object{"action": action})
			}
		}
		t.Run(form, func(t *testing.T) {
			want := func(id, action string, status int) {
				t.Helper()
				if got, out := act(id, action); got != status {
					t.Errorf("%s: got %d %v, want %d", action, got, out, status)
				}
			}
			sent, cancelled := put("send-"+form), put("cancel-"+form)
			before := alice.Must(t, "GET", delayedV1+"/"+sent, nil)["running_since"].(float64)
			want(sent, "restart", 200)
			if after := alice.Must(t, "GET", delayedV1+"/"+sent, nil)["running_since"].(float64); after < before {
				t.Errorf("restarted at %v, before at %v", after, before)
			}
			want(sent, "send", 200)
			want(sent, "send", 200)
			want(sent, "cancel", 409)
			want(sent, "restart", 404)
			want(cancelled, "cancel", 200)
			want(cancelled, "cancel", 200)
			want(cancelled, "send", 409)
			want(cancelled, "restart", 409)
			want("unknown", "send", 404)
			want(strings.Repeat("a", len(sent)), "send", 404)
		})
	}
	same(t, "history", history(t, alice, room), []string{"send-path", "send-body"})
	same(t, "waiting", waiting(t, alice), []string{})
	anyone.Fails(t, "POST", delayedV1+"/"+put("x")+"/oops", object{}, 404, "M_UNRECOGNIZED")
	anyone.Fails(t, "POST", delayedV1+"/abc", object{}, 400, "M_MISSING_PARAM")
	anyone.Fails(t, "POST", delayedV1+"/abc", object{"action": "oops"}, 400, "M_INVALID_PARAM")
	anyone.Fails(t, "GET", delayedUnstable, nil, 401, "M_MISSING_TOKEN")
}

// TestDelayedSendRefused: an event that may not be sent now stays scheduled.
func TestDelayedSendRefused(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	id := delayID(t, bob, at(room, "state", "m.room.topic")+"/"+far, object{"topic": "mine"})
	bob.Fails(t, "POST", delayedV1+"/"+id+"/send", nil, 403, "M_FORBIDDEN")
	same(t, "waiting", waiting(t, bob), []string{"m.room.topic"})
	levels := state(t, alice, room, "m.room.power_levels")
	levels["state_default"] = 0
	levels["events"] = object{}
	alice.Must(t, "PUT", at(room, "state", "m.room.power_levels")+"/", levels)
	bob.Must(t, "POST", delayedV1+"/"+id+"/send", nil)
	same(t, "topic", state(t, alice, room, "m.room.topic")["topic"], "mine")
}

// TestDelayedStateOvertaken: state that somebody else changed is not changed
// back; what its sender changed is.
func TestDelayedStateOvertaken(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "power_level_content_override": object{"state_default": 0, "events": object{}}})
	bob.Join(t, room)
	topic := at(room, "state", "m.room.topic") + "/"
	own := delayID(t, alice, topic+far, object{"topic": "alice, later"})
	alice.Must(t, "PUT", topic, object{"topic": "alice, now"})
	same(t, "waiting", waiting(t, alice), []string{"m.room.topic"})
	alice.Must(t, "POST", delayedV1+"/"+own+"/send", nil)
	same(t, "topic", state(t, bob, room, "m.room.topic")["topic"], "alice, later")

	other := delayID(t, alice, topic+far, object{"topic": "lost"})
	bob.Must(t, "PUT", topic, object{"topic": "bob"})
	alice.Must(t, "PUT", topic, object{"topic": "alice again"})
	same(t, "waiting", waiting(t, alice), []string{})
	same(t, "reason", apptest.At(alice.Must(t, "GET", delayedV1+"/"+other, nil), "error", "org.matrix.msc4140.errcode"), "M_CANCELLED_BY_STATE_UPDATE")
	alice.Fails(t, "POST", delayedV1+"/"+other+"/send", nil, 409, "M_UNKNOWN")
	alice.Must(t, "POST", delayedV1+"/"+other+"/cancel", nil)
	same(t, "topic", state(t, bob, room, "m.room.topic")["topic"], "alice again")
}

func TestDelayedSurvivesRestart(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	since := alice.Sync(t, "")["next_batch"].(string)
	delayID(t, alice, at(room, "send", "m.room.message", "far")+far, object{"body": "far"})
	delayID(t, alice, at(room, "send", "m.room.message", "near")+"?org.matrix.msc4140.delay=1500", object{"body": "near", "msgtype": "m.text"})
	same(t, "waiting", len(waiting(t, alice)), 2)
	s.Restart(t)
	arrives(t, alice, room, since, func(e object) bool { return apptest.At(e, "content", "body") == "near" })
	same(t, "history", history(t, alice, room), []string{"near"})
	same(t, "waiting", len(waiting(t, alice)), 1)
}

func TestDelayedLimits(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) {
		c.Limits.MaxDelayedEvents, c.Limits.MaxEventDelayMS = 2, 10_000_000
	})
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, nil)
	target := func(txn string) string { return at(room, "send", "m.room.message", txn) }
	for _, c := range []struct {
		query string
		body  any
		code  string
	}{
		{"?org.matrix.msc4140.delay=0", object{}, "M_INVALID_PARAM"},
		{"?org.matrix.msc4140.delay=-1", object{}, "M_INVALID_PARAM"},
		{"?org.matrix.msc4140.delay=soon", object{}, "M_INVALID_PARAM"},
		{"?org.matrix.msc4140.delay=", object{}, "M_INVALID_PARAM"},
		{far, nil, "M_NOT_JSON"},
		{far, object{"x": 1.5}, "M_BAD_JSON"},
	} {
		alice.Fails(t, "PUT", target("bad")+c.query, c.body, 400, c.code)
	}
	status, out := alice.Do(t, "PUT", target("long")+"?org.matrix.msc4140.delay=10000001", object{})
	same(t, "too long", []any{status, out["errcode"], out["org.matrix.msc4140.errcode"], out["org.matrix.msc4140.max_delay"]}, []any{400, "M_UNKNOWN", "M_MAX_DELAY_EXCEEDED", 1e7})
	bob.Fails(t, "PUT", target("out")+far, object{}, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", at(room, "delayed_event", "m.x", "1"), object{"content": object{}}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "PUT", at(room, "delayed_event", "m.x", "1"), object{"delay": 1}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", delayedV1+"?status=odd", nil, 400, "M_INVALID_PARAM")

	first := delayID(t, alice, target("1")+far, object{})
	second := delayID(t, alice, at(room, "state", "m.room.topic")+"/"+far, object{})
	status, out = alice.Do(t, "PUT", target("3")+far, object{})
	same(t, "too many", []any{status, out["errcode"], out["org.matrix.msc4140.errcode"]}, []any{429, "M_LIMIT_EXCEEDED", "M_MAX_DELAYED_EVENTS_EXCEEDED"})
	if ms, _ := out["retry_after_ms"].(float64); ms <= 0 || ms > 3_600_000 {
		t.Errorf("retry after %v ms", out["retry_after_ms"])
	}
	alice.Must(t, "POST", delayedV1+"/"+first+"/cancel", nil)
	delayID(t, alice, target("3")+far, object{})

	// The list in its forms.
	ids := func(query string) []any {
		var out []any
		for _, e := range list(t, alice.Must(t, "GET", delayedV1+query, nil), "delayed_events") {
			out = append(out, e["delay_id"])
		}
		return out
	}
	same(t, "finalised", ids("?status=finalised"), []any{first})
	same(t, "cancelled", ids("?outcome=cancel&reason=action"), []any{first})
	same(t, "by type", ids("?type=m.room.topic"), []any{second})
	same(t, "others", ids("?room_id=!x"), []any(nil))
	all, back := ids(""), ids("?dir=b")
	same(t, "all", len(all), 3)
	same(t, "backwards", []any{back[2], back[1], back[0]}, all)
	same(t, "rest", ids("?from=2"), all[2:])
}

func TestDelayedSwitchedOff(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Limits.MaxEventDelayMS = 0 })
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	status, out := alice.Do(t, "PUT", at(room, "send", "m.room.message", "1")+soon, object{})
	same(t, "off", []any{status, out["org.matrix.msc4140.errcode"]}, []any{400, "M_MAX_DELAY_UNSUPPORTED"})
	features := alice.Must(t, "GET", "/_matrix/client/versions", nil)["unstable_features"]
	same(t, "feature", apptest.At(features, "org.matrix.msc4140"), false)
}
