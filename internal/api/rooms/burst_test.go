package rooms_test

import (
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// One user makes many rooms at once. In version 12 a room's ID is the hash of its
// first event, which differs by its time alone.
func TestCreateRoomBurst(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	const workers, each = 64, 6
	var mu sync.Mutex
	made := make(map[any]bool)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				status, body := alice.Do(t, "POST", "/_matrix/client/v3/createRoom", object{"preset": "public_chat"})
				if status != 200 {
					t.Errorf("%d %v", status, body)
				}
				mu.Lock()
				made[body["room_id"]] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(made) != workers*each {
		t.Errorf("%d rooms of %d", len(made), workers*each)
	}
}
