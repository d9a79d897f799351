// Package integration plays scenes of two or three clients against a whole
// server over HTTP, and judges what /sync tells each of them.
//
// The tests know the specification and no package of the server but the harness
// that starts it. They wait for nothing but answers.
package integration

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const v3 = "/_matrix/client/v3"

type object = apptest.Object

// client is a user's device that follows sync.
type client struct {
	*apptest.Client
	t     *testing.T
	since string
}

func user(t *testing.T, s *apptest.Server, name string) *client {
	t.Helper()
	return &client{Client: s.User(t, name), t: t}
}

// device logs the same user in once more.
func (c *client) device() *client {
	c.t.Helper()
	return &client{Client: c.Login(c.t), t: c.t}
}

func at(room string, segments ...string) string {
	return v3 + "/rooms/" + url.PathEscape(room) + join(segments)
}

func join(segments []string) string {
	out := ""
	for _, s := range segments {
		out += "/" + url.PathEscape(s)
	}
	return out
}

func (c *client) must(method, target string, body any) object {
	c.t.Helper()
	return c.Must(c.t, method, target, body)
}

func (c *client) room(options object) string {
	c.t.Helper()
	return c.CreateRoom(c.t, options)
}

func (c *client) join(room string) {
	c.t.Helper()
	c.Join(c.t, room)
}

func (c *client) send(room, text string) string {
	c.t.Helper()
	return c.Send(c.t, room, text)
}

func (c *client) sendAs(room, typ, txn string, content object) string {
	c.t.Helper()
	return c.must("PUT", at(room, "send", typ, txn), content)["event_id"].(string)
}

func (c *client) setState(room, typ, key string, content object) string {
	c.t.Helper()
	return c.must("PUT", at(room, "state", typ, key), content)["event_id"].(string)
}

func (c *client) member(action, room, target string) {
	c.t.Helper()
	c.must("POST", at(room, action), object{"user_id": target})
}

func (c *client) leave(room string) {
	c.t.Helper()
	c.must("POST", at(room, "leave"), object{})
}

func (c *client) read(room, kind, event string) {
	c.t.Helper()
	c.must("POST", at(room, "receipt", kind, event), object{})
}

func (c *client) setData(room, typ string, content object) {
	c.t.Helper()
	target := v3 + "/user/" + url.PathEscape(c.UserID)
	if room != "" {
		target += "/rooms/" + url.PathEscape(room)
	}
	c.must("PUT", target+"/account_data/"+typ, content)
}

// with makes query parameters of names and values; a value that is no string is
// written as JSON.
func with(pairs ...any) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		value, ok := pairs[i+1].(string)
		if !ok {
			b, err := json.Marshal(pairs[i+1])
			if err != nil {
				panic(err) // the values are the tests' own
			}
			value = string(b)
		}
		q.Set(pairs[i].(string), value)
	}
	return q
}

// sync goes on from where the client is. It does not wait unless the parameters
// say so.
func (c *client) sync(params ...any) object {
	c.t.Helper()
	q := with(params...)
	if c.since != "" {
		q.Set("since", c.since)
	}
	out := c.must("GET", v3+"/sync?"+q.Encode(), nil)
	c.since = out["next_batch"].(string)
	return out
}

// quiet fails the test if there is anything to be told.
func (c *client) quiet(params ...any) {
	c.t.Helper()
	if out := c.sync(params...); !nothing(out) {
		c.t.Errorf("%s is told of what is no news: %s", c.UserID, text(out))
	}
}

// nothing reports whether a response tells of no change: the numbers of keys stand
// in every one.
func nothing(sync object) bool {
	for name := range sync {
		switch name {
		case "next_batch", "device_one_time_keys_count", "device_unused_fallback_key_types":
		default:
			return false
		}
	}
	return true
}

// until syncs until a condition holds. It waits in long polls.
func (c *client) until(what string, done func(object) bool, params ...any) object {
	c.t.Helper()
	for range 100 {
		if out := c.sync(append(params, "timeout", "30000")...); done(out) {
			return out
		}
	}
	c.t.Fatalf("%s was never told of %s", c.UserID, what)
	return nil
}

func text(o any) string {
	b, _ := json.Marshal(o)
	return string(b)
}

func section(sync object, name, room string) object {
	o, _ := apptest.At(sync, "rooms", name, room).(object)
	return o
}

func joined(sync object, room string) object { return section(sync, "join", room) }

// list returns the events of a part of a section, such as timeline.
func list(section object, part string) []object {
	raw, _ := apptest.At(section, part, "events").([]any)
	out := make([]object, 0, len(raw))
	for _, e := range raw {
		out = append(out, e.(object))
	}
	return out
}

func timeline(sync object, room string) []object { return list(joined(sync, room), "timeline") }

func ids(events []object) []string {
	out := make([]string, 0, len(events))
	for _, e := range events {
		id, _ := e["event_id"].(string)
		out = append(out, id)
	}
	return out
}

func types(events []object) []string {
	out := make([]string, 0, len(events))
	for _, e := range events {
		out = append(out, e["type"].(string))
	}
	return out
}

// find returns the event of a type and state key; key is "" for events without.
func find(events []object, typ, key string) object {
	for _, e := range events {
		if k, _ := e["state_key"].(string); e["type"] == typ && k == key {
			return e
		}
	}
	return nil
}

func content(e object, path ...string) any {
	return apptest.At(e, append([]string{"content"}, path...)...)
}

// page reads messages from a token, in pages, until a stop or the end.
func (c *client) page(room, dir, from string, limit int) []object {
	c.t.Helper()
	var all []object
	for {
		q := with("dir", dir, "limit", strconv.Itoa(limit))
		if from != "" {
			q.Set("from", from)
		}
		out := c.must("GET", at(room, "messages")+"?"+q.Encode(), nil)
		for _, e := range out["chunk"].([]any) {
			all = append(all, e.(object))
		}
		end, _ := out["end"].(string)
		if end == "" {
			return all
		}
		from = end
	}
}

// history is all that the client can read of a room, oldest first.
func (c *client) history(room string) []object {
	c.t.Helper()
	all := c.page(room, "b", "", 100)
	slices.Reverse(all)
	return all
}

// equal compares by what is printed.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := text(got), text(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func numbered(n int, do func(text string) string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = do(fmt.Sprintf("message %d", i))
	}
	return out
}
