package e2ee_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// socket receives sync frames.
type socket struct {
	*wsclient.Client
	frames chan object
}

func (p *person) dial(t *testing.T, since string, marks map[string]string) *socket {
	t.Helper()
	s := &socket{frames: make(chan object, 1000)}
	c, err := wsclient.Dial(t.Context(), p.Server.URL, wsclient.Options{
		Token: p.Token, Sync: true, Since: since, Marks: marks,
		OnFrame: func(b []byte) {
			var f object
			if err := json.Unmarshal(b, &f); err != nil {
				t.Errorf("frame: %v", err)
			}
			s.frames <- f
		},
	})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	s.Client = c
	t.Cleanup(func() { _ = c.Close() })
	return s
}

// patience is how long a frame may take before it is taken for lost.
const patience = 20 * time.Second

// until reads frames until one satisfies a condition.
func (s *socket) until(t *testing.T, what string, ok func(object) bool) object {
	t.Helper()
	lost := time.After(patience)
	for {
		select {
		case <-lost:
			t.Fatalf("never: %s", what)
		case f := <-s.frames:
			if ok(f) {
				return f
			}
		case <-s.Done():
			t.Fatalf("the socket ended before %s: %v", what, s.Err())
		}
	}
}

// shows reports whether a frame shows a message with a text.
func shows(room, text string) func(object) bool {
	return func(f object) bool {
		events, _ := apptest.At(f, "rooms", "join", room, "timeline", "events").([]any)
		for _, e := range events {
			if apptest.At(e, "content", "body") == text {
				return true
			}
		}
		return false
	}
}

// TestSocketWindow: a socket is sent 100 messages, then none until some are
// acknowledged, while all else goes on; what was not sent is not lost by a
// reconnect, whatever events came meanwhile.
func TestSocketWindow(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	rooms := make([]string, 12) // in all partitions, the home of the user too
	for i := range rooms {
		rooms[i] = bob.CreateRoom(t, object{"preset": "public_chat"})
		alice.Join(t, rooms[i])
	}
	for i := range 30 {
		alice.send(t, fmt.Sprint("a", i), bob.UserID, bob.Device, object{"n": i})
	}
	k := bob.dial(t, "", nil)
	var got []int
	since := ""
	take := func(f object) bool {
		got = append(got, messages(f)...)
		if next, ok := f["next_batch"].(string); ok && len(messages(f)) > 0 {
			since = next
		}
		return false
	}
	upTo := func(n int) func(object) bool {
		return func(f object) bool { take(f); return len(got) >= n }
	}
	k.until(t, "the first messages", upTo(30))
	for i := 30; i < 250; i++ {
		alice.send(t, fmt.Sprint("a", i), bob.UserID, bob.Device, object{"n": i})
	}
	k.until(t, "the window", upTo(100))
	for i, room := range rooms {
		text := fmt.Sprint("meanwhile ", i)
		alice.Send(t, room, text)
		k.until(t, text, func(f object) bool { take(f); return shows(room, text)(f) })
	}
	if len(got) != 100 {
		t.Fatalf("%d messages without an acknowledgement", len(got))
	}
	position, marks := k.Position()
	if err := k.Ack(since); err != nil {
		t.Fatal(err)
	}
	k.until(t, "more", upTo(200))
	if len(got) != 200 {
		t.Fatalf("%d messages after one acknowledgement", len(got))
	}
	// The second hundred was sent and not acknowledged. A client that stored the
	// position before it goes on from there.
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	got = got[:100]
	k = bob.dial(t, position, marks)
	k.until(t, "the second hundred", upTo(200))
	if err := k.Ack(since); err != nil {
		t.Fatal(err)
	}
	k.until(t, "the rest", upTo(250))
	if err := k.Ack("no token"); err != nil {
		t.Fatal(err)
	}
	<-k.Done()
	for i, n := range got {
		if n != i {
			t.Fatalf("message %d in place %d", n, i)
		}
	}
	// Acknowledged by the socket, gone for all ways to sync.
	if rest := messages(bob.Sync(t, "")); len(rest) != 50 {
		t.Errorf("%d messages are left, 50 were not acknowledged", len(rest))
	}
}

// TestSocketTellsOfKeys: counts and device lists come by themselves.
func TestSocketTellsOfKeys(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	room := alice.CreateRoom(t, encrypted())
	bob.Join(t, room)
	k := bob.dial(t, "", nil)
	bob.upload(t, bob.oneTimeKeys(t, 0, 3))
	k.until(t, "three keys", func(f object) bool { return count(f) == 3.0 })
	alice.claim(t, bob.UserID, bob.Device)
	k.until(t, "two keys", func(f object) bool { return count(f) == 2.0 })
	alice.publish(t)
	k.until(t, "alice's keys", func(f object) bool { return users(apptest.At(f, "device_lists", "changed")) == "alice" })
	alice.Must(t, "POST", inRoom(room, "leave"), object{})
	k.until(t, "alice's leave", func(f object) bool { return users(apptest.At(f, "device_lists", "left")) == "alice" })
}
