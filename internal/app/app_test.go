package app_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

func TestRegisterAndSync(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	first := alice.Sync(t, "")
	if apptest.At(first, "next_batch") == "" {
		t.Fatalf("no next_batch: %v", first)
	}
	s.Restart(t)
	alice.Sync(t, first["next_batch"].(string))
}

// patience bounds the wait for what must come.
const patience = 20 * time.Second

// TestChatOverSocket has two people chat: one sends over the socket, the other
// receives pushed frames, of both kinds.
func TestChatOverSocket(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
	bob.Join(t, room)

	frames := make(chan string, 100)
	c, err := wsclient.Dial(t.Context(), s.URL, wsclient.Options{
		Token: bob.Token, Sync: true, OnFrame: func(b []byte) { frames <- string(b) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := map[string]bool{}
	for range 5 {
		want[alice.Send(t, room, "hello")] = true
	}
	marks := 0
	for len(want) > 0 {
		select {
		case f := <-frames:
			var frame struct {
				Mark  []string `json:"mark"`
				Rooms struct {
					Join map[string]struct {
						Timeline struct {
							Events []struct {
								EventID string `json:"event_id"`
							} `json:"events"`
						} `json:"timeline"`
					} `json:"join"`
				} `json:"rooms"`
			}
			if err := json.Unmarshal([]byte(f), &frame); err != nil {
				t.Fatalf("frame %s: %v", f, err)
			}
			if frame.Mark != nil {
				marks++
			}
			for _, e := range frame.Rooms.Join[room].Timeline.Events {
				delete(want, e.EventID)
			}
		case <-time.After(patience):
			t.Fatalf("%d messages did not come", len(want))
		}
	}
	t.Logf("%d frames with a mark", marks)
}
