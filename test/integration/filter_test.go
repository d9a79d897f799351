package integration

import (
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestFilters(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	one := alice.room(object{"preset": "public_chat"})
	two := alice.room(object{"preset": "public_chat"})
	bob.join(one)
	bob.join(two)
	bob.sync()
	base := bob.since
	text1 := alice.send(one, "text")
	image := alice.sendAs(one, "m.room.message", "i", object{"msgtype": "m.image", "body": "i", "url": "mxc://test.localhost/x"})
	custom := alice.sendAs(one, "test.custom.a", "c", object{})
	mine := bob.send(one, "mine")
	name := alice.setState(one, "m.room.name", "", object{"name": "n"})
	other := alice.send(two, "other room")

	tests := []struct {
		name     string
		filter   object // of the timeline
		one, two []string
	}{
		{"none", object{}, []string{text1, image, custom, mine, name}, []string{other}},
		{"types", object{"types": []string{"m.room.message"}}, []string{text1, image, mine}, []string{other}},
		{"types with a star", object{"types": []string{"test.*"}}, []string{custom}, []string{}},
		{"no types", object{"types": []string{}}, []string{}, []string{}},
		{"not_types", object{"not_types": []string{"m.room.*"}}, []string{custom}, []string{}},
		{"not_types beats types", object{"types": []string{"m.*"}, "not_types": []string{"m.room.name"}}, []string{text1, image, mine}, []string{other}},
		{"senders", object{"senders": []string{bob.UserID}}, []string{mine}, []string{}},
		{"not_senders", object{"not_senders": []string{bob.UserID}}, []string{text1, image, custom, name}, []string{other}},
		{"rooms", object{"rooms": []string{two}}, []string{}, []string{other}},
		{"not_rooms", object{"not_rooms": []string{two}}, []string{text1, image, custom, mine, name}, []string{}},
		{"contains_url", object{"contains_url": true}, []string{image}, []string{}},
		{"no contains_url", object{"contains_url": false}, []string{text1, custom, mine, name}, []string{other}},
		{"limit", object{"limit": 2}, []string{mine, name}, []string{other}},
		{"limit after types", object{"limit": 2, "types": []string{"m.room.message"}}, []string{image, mine}, []string{other}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &client{Client: bob.Client, t: t, since: base}
			out := c.sync("filter", object{"room": object{"timeline": tt.filter}})
			equal(t, "room one", ids(timeline(out, one)), tt.one)
			equal(t, "room two", ids(timeline(out, two)), tt.two)
		})
	}

	t.Run("whole rooms", func(t *testing.T) {
		c := &client{Client: bob.Client, t: t, since: base}
		out := c.sync("filter", object{"room": object{"rooms": []string{two}}})
		if joined(out, one) != nil || joined(out, two) == nil {
			t.Errorf("rooms: %s", text(out))
		}
		c.since = base
		out = c.sync("filter", object{"room": object{"not_rooms": []string{two}}})
		if joined(out, one) == nil || joined(out, two) != nil {
			t.Errorf("not_rooms: %s", text(out))
		}
	})
	t.Run("state and account data", func(t *testing.T) {
		c := &client{Client: bob.Client, t: t}
		out := c.sync("filter", object{
			"account_data": object{"not_types": []string{"m.push_rules"}},
			"room":         object{"timeline": object{"limit": 1}, "state": object{"types": []string{"m.room.create"}}},
		})
		equal(t, "state", types(list(joined(out, one), "state")), []string{"m.room.create"})
		if find(list(out, "account_data"), "m.push_rules", "") != nil {
			t.Error("account data is not filtered")
		}
	})
	t.Run("event_fields", func(t *testing.T) {
		c := &client{Client: bob.Client, t: t, since: base}
		out := c.sync("filter", object{"event_fields": []string{"type", "content.body"}})
		equal(t, "an event", timeline(out, one)[0], object{"type": "m.room.message", "content": object{"body": "text"}})
	})
	t.Run("by ID", func(t *testing.T) {
		target := v3 + "/user/" + url.PathEscape(bob.UserID) + "/filter"
		id := bob.must("POST", target, object{"room": object{"timeline": object{"types": []string{"test.*"}}}})["filter_id"].(string)
		c := &client{Client: bob.Client, t: t, since: base}
		equal(t, "room one", ids(timeline(c.sync("filter", id), one)), []string{custom})
		c.Fails(t, "GET", v3+"/sync?filter=nonsense", nil, 400, "M_INVALID_PARAM")
	})
}

// TestFilteredGap: a filter that leaves most out still reaches what it lets pass,
// or says that there is a gap.
func TestFilteredGap(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := user(t, s, "alice")
	room := alice.room(nil)
	alice.sync()
	rare := alice.sendAs(room, "test.rare", "r", object{})
	numbered(150, func(text string) string { return alice.send(room, text) })
	f := object{"room": object{"timeline": object{"types": []string{"test.rare"}, "limit": 5}}}
	out := alice.sync("filter", f)
	equal(t, "the rare one", ids(timeline(out, room)), []string{rare})
	alice.send(room, "noise")
	alice.quiet("filter", f)
}
