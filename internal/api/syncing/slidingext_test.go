package syncing_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func types(list []map[string]any) []string {
	out := []string{}
	for _, e := range list {
		out = append(out, e["type"].(string))
	}
	slices.Sort(out)
	return out
}

// Messages to a device stay until it says that it has them.
func TestToDevice(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	n := 0
	send := func() {
		n++
		alice.Must(t, "PUT", fmt.Sprintf("%s/sendToDevice/m.test/%d", v3, n), object{"messages": object{alice.UserID: object{
			alice.Device: object{"n": n},
		}}})
	}
	to := object{"enabled": true, "limit": 2}
	body := object{"conn_id": "encryption", "extensions": object{"to_device": to}}
	c := slide(t, alice, body)
	numbers := func(a *answer) string {
		out := []any{}
		for _, e := range a.Extensions.ToDevice.Events {
			out = append(out, e["content"].(object)["n"])
		}
		to["since"] = a.Extensions.ToDevice.Next
		return fmt.Sprint(out)
	}
	for range 3 {
		send()
	}
	same(t, "first", numbers(c.ask()), "[1 2]")
	same(t, "rest", numbers(c.ask()), "[3]")
	same(t, "none", numbers(c.ask()), "[]")
	since := to["since"]
	send()
	same(t, "next", numbers(c.ask()), "[4]")
	to["since"] = since
	same(t, "was lost", numbers(c.ask()), "[4]")
	same(t, "is acknowledged", numbers(c.ask()), "[]")
	delete(to, "since")
	c.pos = ""
	same(t, "to a connection that begins", numbers(c.ask()), "[]")
	send()
	to["since"] = "t999999999"
	same(t, "after a position of another server", numbers(c.ask()), "[5]")
	to["since"] = "x"
	alice.Fails(t, "POST", unstable, body, 400, "M_INVALID_PARAM")
	delete(to, "since")
	numbers(c.ask())
	woken := make(chan string)
	go func() { woken <- numbers(c.wait(20_000)) }()
	send()
	same(t, "woken", <-woken, "[6]")

	// A position is good for /sync too, and does not say that messages arrived.
	send()
	c.ask()
	next := alice.Sync(t, c.pos)["to_device"].(object)["events"].([]any)
	same(t, "by /sync", next[len(next)-1].(object)["content"].(object)["n"], any(7))
}

// Whose devices changed, and the device's own keys.
func TestE2EE(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	c := slide(t, alice, object{"extensions": object{"e2ee": object{"enabled": true}}})
	a := c.ask()
	same(t, "at first", []any{len(a.Rooms), len(a.Extensions.E2EE.Lists.Changed), a.Extensions.ToDevice}, []any{0, 0, nil})
	bob.Join(t, room)
	same(t, "shares a room", c.ask().Extensions.E2EE.Lists.Changed, []string{bob.UserID})
	same(t, "once", len(c.ask().Extensions.E2EE.Lists.Changed), 0)
	bob.Must(t, "POST", at(room, "leave"), nil)
	same(t, "is gone", c.ask().Extensions.E2EE.Lists.Left, []string{bob.UserID})
	alice.Must(t, "POST", v3+"/keys/upload", object{"one_time_keys": object{"signed_curve25519:A": object{"key": "x", "signatures": object{}}}})
	same(t, "own keys", c.wait(20_000).Extensions.E2EE.Counts, map[string]int{"signed_curve25519": 1})
}

// Account data, receipts and typing of the rooms that the client looks at.
func TestRoomExtensions(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	data := func(room, typ string, v int) {
		target := v3 + "/user/" + url.PathEscape(alice.UserID)
		if room != "" {
			target += "/rooms/" + url.PathEscape(room)
		}
		alice.Must(t, "PUT", target+"/account_data/"+typ, object{"v": v})
	}
	var made []string
	for range 2 {
		r := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, r)
		data(r, "org.test", 1)
		bob.Must(t, "POST", at(r, "receipt", "m.read", alice.Send(t, r, "x")), object{})
		made = append(made, r)
	}
	data("", "org.global", 1)
	on := object{"enabled": true}
	body := window(0, 0, 1, nil, nil)
	body["extensions"] = object{"account_data": on, "receipts": on, "typing": on}
	c := slide(t, alice, body)
	a := c.ask()
	same(t, "global", types(a.Extensions.AccountData.Global), []string{"m.push_rules", "org.global"})
	same(t, "rooms", fmt.Sprint(len(a.Extensions.AccountData.Rooms), types(a.Extensions.AccountData.Rooms[made[1]]), len(a.Extensions.Receipts.Rooms), len(a.Extensions.Typing.Rooms)), "1 [org.test] 1 0")
	a = c.ask()
	same(t, "nothing new", fmt.Sprint(len(a.Rooms), len(a.Extensions.AccountData.Global), len(a.Extensions.Receipts.Rooms)), "0 0 0")

	data("", "org.global", 2)
	data(made[0], "org.test", 2) // nobody looks at it
	data(made[1], "org.test", 2)
	bob.Must(t, "PUT", at(made[1], "typing", url.PathEscape(bob.UserID)), object{"typing": true, "timeout": 60000})
	bob.Must(t, "PUT", at(made[0], "typing", url.PathEscape(bob.UserID)), object{"typing": true, "timeout": 60000})
	a = c.ask()
	same(t, "changed", fmt.Sprint(len(a.Rooms), types(a.Extensions.AccountData.Global), len(a.Extensions.AccountData.Rooms), len(a.Extensions.Typing.Rooms)), "0 [org.global] 1 1")
	same(t, "who types", a.Extensions.Typing.Rooms[made[1]]["content"], any(object{"user_ids": []string{bob.UserID}}))
	bob.Must(t, "PUT", at(made[1], "typing", url.PathEscape(bob.UserID)), object{"typing": false})
	same(t, "nobody types", c.ask().Extensions.Typing.Rooms[made[1]]["content"], any(object{"user_ids": []string{}}))

	// The other room takes its place, and then both are looked at.
	event := alice.Send(t, made[0], "y")
	a = c.ask()
	same(t, "the other", fmt.Sprint(len(a.Rooms), types(a.Extensions.AccountData.Rooms[made[0]]), len(a.Extensions.Receipts.Rooms), len(a.Extensions.Typing.Rooms)), "1 [org.test] 1 1")
	data(made[1], "org.unseen", 3)
	same(t, "not looked at", len(c.ask().Extensions.AccountData.Rooms), 0)
	c.body["lists"] = window(0, 1, 1, nil, nil)["lists"]
	a = c.ask()
	same(t, "looked at again", types(a.Extensions.AccountData.Rooms[made[1]]), []string{"org.unseen"})
	alice.Must(t, "POST", at(made[0], "receipt", "m.read.private", event), object{})
	receipts := c.ask().Extensions.Receipts.Rooms
	same(t, "own private receipt", fmt.Sprint(len(receipts))+fmt.Sprint(receipts[made[0]]["type"]), "1m.receipt")

	// Named rooms alone.
	c.body["extensions"] = object{"account_data": object{"enabled": true, "lists": []string{}, "rooms": []string{made[0]}}}
	c.body["room_subscriptions"] = object{made[0]: object{"timeline_limit": 1}}
	data(made[1], "org.test", 4)
	a = c.ask()
	same(t, "scope", fmt.Sprint(len(a.Extensions.AccountData.Rooms), types(a.Extensions.AccountData.Rooms[made[0]])), "1 [org.test]")
}

// Subscriptions to threads. spec: MSC4308.
func TestThreadSubscriptions(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	var roots []string
	subscription := func(root string) string {
		return "/_matrix/client/unstable/io.element.msc4306/rooms/" + url.PathEscape(room) + "/thread/" + url.PathEscape(root) + "/subscription"
	}
	for range 3 {
		roots = append(roots, alice.Send(t, room, "root"))
		alice.Must(t, "PUT", subscription(roots[len(roots)-1]), object{})
	}
	c := slide(t, alice, object{"extensions": object{"io.element.msc4308.thread_subscriptions": object{"enabled": true, "limit": 2}}})
	a := c.ask().Extensions.Threads
	same(t, "the last", []any{len(a.Subscribed[room]), a.Subscribed[room][roots[0]] == nil, a.PrevBatch != ""}, []any{2, true, true})
	rest := alice.Must(t, "GET", "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b&from="+a.PrevBatch, nil)
	same(t, "the rest", len(rest["subscribed"].(object)[room].(object)), 1)
	same(t, "once", len(c.ask().Extensions.Threads.Subscribed), 0)
	alice.Must(t, "DELETE", subscription(roots[1]), nil)
	a = c.wait(20_000).Extensions.Threads
	same(t, "ended", []any{len(a.Subscribed), len(a.Unsubscribed[room])}, []any{0, 1})
	missed := alice.Must(t, "GET", "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b&to="+url.QueryEscape(c.old), nil)
	same(t, "since a position", []any{missed["subscribed"] == nil, len(missed["unsubscribed"].(object))}, []any{true, 1})
}

// Three connections of a device stand on their own, and each waits.
func TestConnectionsWait(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	var all []*slider
	for _, id := range []string{"room-list", "notifications"} {
		body := window(0, 9, 5, nil, nil)
		body["conn_id"] = id
		all = append(all, slide(t, alice, body))
	}
	all = append(all, slide(t, alice, object{"conn_id": "encryption", "extensions": object{"e2ee": object{"enabled": true}}}))
	for _, c := range all {
		c.ask()
	}
	heard := make(chan string)
	for _, c := range all[:2] {
		go func() { heard <- c.wait(20_000).Rooms[room].bodies() }()
	}
	bob.Send(t, room, "hello")
	same(t, "heard", []string{<-heard, <-heard}, []string{"hello", "hello"})
	same(t, "not the third", len(all[2].ask().Rooms), 0)
	empty := all[0].wait(1)
	same(t, "time is over", []any{len(empty.Rooms), empty.Lists["all"].Count}, []any{0, 1})

	// A request that is repeated ends the one that waits, whose answer nobody reads.
	first := *all[0]
	ended := make(chan *answer)
	go func() { ended <- first.wait(100_000) }()
	same(t, "repeated", len(all[0].ask().Rooms), 0)
	bob.Send(t, room, "again") // in case the first came second
	same(t, "ended", (<-ended).Pos != "", true)
}

// What no client should send is refused.
func TestNonsense(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	many := make(object)
	for i := range 101 {
		many[fmt.Sprint(i)] = object{"timeline_limit": 1}
	}
	pairs := make([][]string, 501)
	for i := range pairs {
		pairs[i] = []string{"a", "b"}
	}
	list := func(l any) object { return object{"lists": object{"a": l}} }
	for name, c := range map[string]struct {
		body any
		code string
	}{
		"too many lists":   {object{"lists": many}, "M_INVALID_PARAM"},
		"too much state":   {list(object{"required_state": pairs}), "M_INVALID_PARAM"},
		"negative limit":   {list(object{"timeline_limit": -1}), "M_INVALID_PARAM"},
		"bad range":        {list(object{"ranges": [][]int{{3, 1}}}), "M_INVALID_PARAM"},
		"negative range":   {list(object{"range": []int{-1, 1}}), "M_INVALID_PARAM"},
		"range of one":     {list(object{"range": []int{1}}), "M_BAD_JSON"},
		"state as text":    {list(object{"required_state": "x"}), "M_BAD_JSON"},
		"state as numbers": {list(object{"required_state": [][]int{{1}}}), "M_BAD_JSON"},
		"presence":         {object{"set_presence": "x"}, "M_INVALID_PARAM"},
		"conn_id":          {object{"conn_id": fmt.Sprintf("%0256d", 1)}, "M_INVALID_PARAM"},
		"list":             {object{"lists": []string{}}, "M_BAD_JSON"},
		"extension":        {object{"extensions": object{"to_device": object{"enabled": true, "limit": -1}}}, "M_INVALID_PARAM"},
		"no object":        {"[]", "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{unstable, stable} {
				alice.Fails(t, "POST", path, c.body, 400, c.code)
			}
		})
	}
	s.Anonymous().Fails(t, "POST", unstable, object{}, 401, "M_MISSING_TOKEN")
	for _, body := range []object{
		{"room_subscriptions": object{"!nowhere:x": object{}, "x": nil}},
		{"lists": object{"": object{}}, "extensions": object{"unknown": 1}},
		list(object{"ranges": [][]int{{0, 4294967295}}, "filters": object{"spaces": []string{"x"}, "room_types": []any{nil}}}),
	} {
		alice.Must(t, "POST", unstable, body)
	}
}

// The second form of the proposal has other names for some things.
func TestStableForm(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, nil)
	alice.Send(t, room, "x")
	invite := bob.CreateRoom(t, object{"invite": []string{alice.UserID}})
	body := object{"conn_id": "c", "lists": object{"l": object{
		"range": []int{0, 9}, "timeline_limit": 1, "required_state": object{"include": []object{{"type": "m.room.create"}}},
	}}}
	a := alice.Must(t, "POST", stable, body)
	r := a["rooms"].(object)[room].(object)
	same(t, "room", []any{len(r["timeline_events"].([]any)), r["timeline"], len(r["required_state"].([]any)), r["initial"]}, []any{1, nil, 1, true})
	same(t, "invite", len(a["rooms"].(object)[invite].(object)["stripped_state"].([]any)) > 0, true)
	body["pos"] = a["pos"]
	body["lists"].(object)["l"].(object)["timeline_limit"] = 3
	r = alice.Must(t, "POST", stable, body)["rooms"].(object)[room].(object)
	same(t, "grown", []any{len(r["timeline_events"].([]any)), r["expanded_timeline"]}, []any{3, true})
}
