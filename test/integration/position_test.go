package integration

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestLongPollWakes: were polls answered when their time is over, and not by what
// happens, these turns would take longer than any test may.
func TestLongPollWakes(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	alice.sync()
	bob.sync()
	const turns = 40
	play := func(me *client, mine, theirs string) func() {
		return func() {
			seen := 0
			for seen < turns {
				out := me.sync("timeout", "110000")
				for _, e := range timeline(out, room) {
					if body, _ := content(e, "body").(string); strings.HasPrefix(body, theirs) {
						seen++
						if mine != "" {
							me.send(room, mine+body)
						}
					}
				}
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(play(bob, "pong ", "ping"))
	wg.Go(func() {
		for i := range turns {
			alice.send(room, fmt.Sprint("ping ", i))
			for answered := false; !answered; {
				for _, e := range timeline(alice.sync("timeout", "110000"), room) {
					answered = answered || content(e, "body") == fmt.Sprint("pong ping ", i)
				}
			}
		}
	})
	wg.Wait()

	// All else that wakes: an invite, a receipt, typing, account data, a leave.
	second := alice.room(nil)
	alice.sync()
	bob.sync()
	wakes := []struct {
		name string
		who  *client
		do   func()
	}{
		{"an invite", bob, func() { alice.member("invite", second, bob.UserID) }},
		{"a join", alice, func() { bob.join(second) }},
		{"a receipt", alice, func() { bob.read(second, "m.read", alice.send(second, "x")) }},
		{"typing", alice, func() { bob.types(second, true, 1000) }},
		{"account data", bob, func() { bob.device().setData("", "test.wake", object{"v": 1}) }},
		{"a kick", bob, func() { alice.member("kick", second, bob.UserID) }},
	}
	for _, w := range wakes {
		for !nothing(w.who.sync()) { // up to the present
		}
		var out object
		var wg sync.WaitGroup
		wg.Go(func() { out = w.who.sync("timeout", "110000") })
		w.do()
		wg.Wait()
		if nothing(out) {
			t.Errorf("%s does not wake", w.name)
		}
	}
}

func TestPositionsOutliveRestarts(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	bob.sync()
	var sent, seen []string
	for i := range 3 {
		sent = append(sent, alice.send(room, fmt.Sprint("before ", i)))
		s.Restart(t)
		sent = append(sent, alice.send(room, fmt.Sprint("after ", i)))
		seen = append(seen, ids(timeline(bob.sync(), room))...)
		bob.quiet()
	}
	equal(t, "across restarts", seen, sent)

	// An old token gives the same again, or more.
	old := bob.since
	one := alice.send(room, "one")
	equal(t, "first time", ids(timeline(bob.sync(), room)), []string{one})
	bob.since = old
	equal(t, "second time", ids(timeline(bob.sync(), room)), []string{one})
	two := alice.send(room, "two")
	bob.since = old
	equal(t, "with more", ids(timeline(bob.sync(), room)), []string{one, two})

	// A token belongs to the user; any device can use it.
	other := bob.device()
	other.since = old
	equal(t, "another device", ids(timeline(other.sync(), room)), []string{one, two})
}

func TestGarbageTokens(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := user(t, s, "alice")
	room := alice.room(nil)
	alice.sync()
	good := alice.since
	bad := []string{
		"x", "s", "s!", "s12_34_5", "t5", strings.Repeat("s", 1000), strings.Repeat("sA", 40_000/2), good[:len(good)-1], good + "A",
		"s" + good, good + "~1", good + "~1.", good + "~99.1", good + "~-1.1", good + "~1.zz!", "\x00", "{}",
	}
	for i := 1; i < len(good); i++ {
		c := byte('A')
		if good[i] == c {
			c = 'B'
		}
		bad = append(bad, good[:i]+string(c)+good[i+1:])
	}
	for _, token := range bad {
		if len(token) > 30_000 {
			continue // the request line itself is refused
		}
		alice.Fails(t, "GET", v3+"/sync?timeout=0&since="+url.QueryEscape(token), nil, 400, "M_INVALID_PARAM")
	}
	for _, token := range []string{"x", "t", "t-1", "t99999999999999999999", "s!"} {
		alice.Fails(t, "GET", at(room, "messages")+"?dir=b&from="+url.QueryEscape(token), nil, 400, "M_INVALID_PARAM")
	}
	for _, q := range []string{"timeout=x", "full_state=maybe", "set_presence=asleep", "filter=%7B", "filter=%7B%22room%22:1%7D"} {
		if status, out := alice.Do(t, "GET", v3+"/sync?"+q, nil); status != 400 {
			t.Errorf("%s: %d %s", q, status, text(out))
		}
	}
	alice.quiet()
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := user(t, s, "alice"), user(t, s, "bob")
	phone := alice.device()
	room := alice.room(object{"preset": "public_chat"})
	bob.join(room)
	for _, c := range []*client{alice, phone, bob} {
		c.sync()
	}
	message := object{"msgtype": "m.text", "body": "once"}
	target := at(room, "send", "m.room.message", "txn")
	const parallel = 20
	answers := make([]string, parallel)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i], _ = alice.must("PUT", target, message)["event_id"].(string) })
	}
	wg.Wait()
	slices.Sort(answers)
	if answers[0] != answers[parallel-1] || answers[0] == "" {
		t.Errorf("%d equal requests got the answers %v", parallel, slices.Compact(answers))
	}
	id := answers[0]
	for _, tt := range []struct {
		who  *client
		want any
	}{{alice, "txn"}, {phone, nil}, {bob, nil}} {
		tl := timeline(tt.who.sync(), room)
		equal(t, "one event", ids(tl), []string{id})
		if got := apptest.At(tl[0], "unsigned", "transaction_id"); got != tt.want {
			t.Errorf("%s %s sees transaction_id %v, want %v", tt.who.UserID, tt.who.Device, got, tt.want)
		}
		e := tt.who.must("GET", at(room, "event", id), nil)
		if got := apptest.At(e, "unsigned", "transaction_id"); got != tt.want {
			t.Errorf("%s %s reads transaction_id %v, want %v", tt.who.UserID, tt.who.Device, got, tt.want)
		}
	}
	// The same ID from elsewhere, or for something else, is another request.
	others := []string{
		id,
		phone.must("PUT", target, message)["event_id"].(string),
		bob.must("PUT", target, message)["event_id"].(string),
		alice.must("PUT", at(room, "send", "test.type", "txn"), message)["event_id"].(string),
		alice.must("PUT", at(room, "redact", id, "txn"), object{})["event_id"].(string),
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(others)))); n != len(others) {
		t.Errorf("%d events of %d requests", n, len(others))
	}
	s.Restart(t)
	again := alice.must("PUT", target, message)["event_id"]
	if again != id {
		t.Errorf("after a restart the answer is %v, was %v", again, id)
	}
	n := 0
	for _, e := range alice.history(room) {
		if e["type"] == "m.room.message" && e["sender"] == alice.UserID {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d messages of alice, want one of each device", n)
	}
}
