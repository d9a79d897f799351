package app_test

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
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
