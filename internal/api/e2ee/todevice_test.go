package e2ee_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestToDevice(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	phone := bob.again(t)
	laptop, mobile := bob.follow(t), phone.follow(t)
	body := object{"messages": object{
		bob.UserID:                object{phone.Device: object{"n": 1}, "NONE": object{"n": 9}},
		"@nobody:" + apptest.Name: object{"*": object{"n": 9}},
		"@bob:elsewhere.example":  object{"X": object{"n": 9}},
		alice.UserID:              object{},
	}}
	alice.Must(t, "PUT", v3+"/sendToDevice/m.test/t1", body)
	alice.Must(t, "PUT", v3+"/sendToDevice/m.test/t1", body) // repeated
	out := mobile.sync(t)
	want := fmt.Sprintf(`{"events":[{"content":{"n":1},"sender":%q,"type":"m.test"}]}`, alice.UserID)
	if got := asJSON(t, out["to_device"]); got != want {
		t.Errorf("to_device: %s, want %s", got, want)
	}
	if out := laptop.sync(t); out["to_device"] != nil {
		t.Errorf("another device got %v", out["to_device"])
	}
	if out := mobile.sync(t); out["to_device"] != nil {
		t.Errorf("acknowledged, and there again: %v", out["to_device"])
	}
	// The transaction is one of device and path: other ones are new messages.
	alice.Must(t, "PUT", v3+"/sendToDevice/m.other/t1", body)
	alice.again(t).Must(t, "PUT", v3+"/sendToDevice/m.test/t1", body)
	if got := messages(mobile.sync(t)); len(got) != 2 {
		t.Errorf("two more: %v", got)
	}
	alice.Must(t, "PUT", v3+"/sendToDevice/m.test/t2", object{"messages": object{bob.UserID: object{"*": object{"n": 2}, phone.Device: object{"n": 3}}}})
	if a, b := messages(laptop.sync(t)), messages(mobile.sync(t)); !slices.Equal(a, []int{2}) || !slices.Equal(b, []int{3}) {
		t.Errorf("all devices: %v, and the one that is named: %v", a, b)
	}
	mobile.sync(t)
	// To oneself, and in an initial sync.
	bob.send(t, "t3", bob.UserID, phone.Device, object{"n": 4})
	if got := messages(phone.Sync(t, "")); !slices.Equal(got, []int{4}) {
		t.Errorf("initial sync: %v", got)
	}
}

func TestToDeviceRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	to := func(content any) object { return object{"messages": object{alice.UserID: object{"D": content}}} }
	for _, c := range []struct {
		path string
		body any
		code int
		err  string
	}{
		{"m.test/t", object{}, 400, "M_MISSING_PARAM"},
		{"m.test/t", object{"messages": "x"}, 400, "M_BAD_JSON"},
		{"m.test/t", to("text"), 400, "M_BAD_JSON"},
		{"m.test/t", object{"messages": object{"alice": object{}}}, 400, "M_INVALID_PARAM"},
		{"m.test/t", to(object{"x": strings.Repeat("x", 70<<10)}), 413, "M_TOO_LARGE"},
		{"m.test/" + strings.Repeat("t", 256), to(object{}), 400, "M_INVALID_PARAM"},
		{strings.Repeat("t", 256) + "/t", to(object{}), 400, "M_INVALID_PARAM"},
		{"a%00b/t", to(object{}), 400, "M_INVALID_PARAM"},
	} {
		alice.Fails(t, "PUT", v3+"/sendToDevice/"+c.path, c.body, c.code, c.err)
	}
	s.Anonymous().Fails(t, "PUT", v3+"/sendToDevice/m.test/t", to(object{}), 401, "M_MISSING_TOKEN")
}

// TestToDeviceSurvivesCutAnswers: a client whose answers get lost at random, that
// repeats requests with the old token, and a server that restarts, lose nothing,
// and nothing comes twice but by a repeated token.
func TestToDeviceSurvivesCutAnswers(t *testing.T) {
	s := apptest.Start(t)
	bob := newPerson(t, s, "bob")
	senders := []*person{newPerson(t, s, "alice"), newPerson(t, s, "carol")}
	const each = 230
	rng := rand.New(rand.NewPCG(1, 2))
	sent := 0
	send := func(n int) {
		for range n {
			if sent == len(senders)*each {
				return
			}
			p := senders[sent%2]
			for range 1 + rng.IntN(2) { // some are repeated
				p.send(t, fmt.Sprint("t", sent), bob.UserID, bob.Device, object{"n": sent})
			}
			sent++
		}
	}
	send(250) // offline: more than two responses
	since, got, before := "", []int(nil), []int(nil)
	for round := 0; len(got) < len(senders)*each; round++ {
		if round > 1000 {
			t.Fatalf("%d of %d after %d rounds", len(got), sent, round)
		}
		out := bob.Sync(t, since)
		list := messages(out)
		if len(list) > 100 {
			t.Fatalf("%d messages in one response", len(list))
		}
		if before != nil && len(list) < len(before) || before != nil && !slices.Equal(list[:len(before)], before) {
			t.Fatalf("the repeated request gave %v, before it gave %v", list, before)
		}
		if round == 7 {
			s.Restart(t)
		}
		send(rng.IntN(30))
		if rng.IntN(10) < 3 {
			before = list // the answer got lost: once more
			continue
		}
		before = nil
		got = append(got, list...)
		since = out["next_batch"].(string)
	}
	for i, n := range got {
		if n != i {
			t.Fatalf("message %d in place %d", n, i)
		}
	}
	if list := messages(bob.Sync(t, since)); len(list) != 0 {
		t.Errorf("afterwards: %v", list)
	}
	if list := messages(bob.Sync(t, "")); len(list) != 0 {
		t.Errorf("acknowledged, and there again: %v", list)
	}
}

// TestHeldBackMessagesHoldNothingElse: a response that is full of messages still
// shows all events, each once.
func TestHeldBackMessagesHoldNothingElse(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	f := bob.follow(t)
	for i := range 150 {
		alice.send(t, fmt.Sprint("a", i), bob.UserID, bob.Device, object{"n": i})
	}
	room := bob.CreateRoom(t, nil)
	bob.Must(t, "PUT", v3+"/user/"+bob.UserID+"/account_data/x", object{"a": 1})
	first := f.sync(t)
	if len(messages(first)) != 100 || apptest.At(first, "rooms", "join", room) == nil || first["account_data"] == nil {
		t.Errorf("first: %d messages, %v", len(messages(first)), first["rooms"])
	}
	second := f.sync(t)
	if len(messages(second)) != 50 || second["rooms"] != nil || second["account_data"] != nil {
		t.Errorf("second: %d messages, %v, %v", len(messages(second)), second["rooms"], second["account_data"])
	}
}

func TestLogoutEmptiesInbox(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	phone := bob.again(t)
	alice.send(t, "t", bob.UserID, phone.Device, object{"n": 1})
	phone.Must(t, "POST", v3+"/logout", object{})
	alice.send(t, "u", bob.UserID, phone.Device, object{"n": 2})
	out := s.Anonymous().Must(t, "POST", v3+"/login", object{
		"type": "m.login.password", "password": apptest.Password, "device_id": phone.Device,
		"identifier": object{"type": "m.id.user", "user": bob.UserID},
	})
	phone.Token = out["access_token"].(string)
	if got := messages(phone.Sync(t, "")); len(got) != 0 {
		t.Errorf("messages for the device before: %v", got)
	}
}
