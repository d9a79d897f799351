package app

import (
	"fmt"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// TestIndexDirectories: partitions with something in them are marked when they are
// done, the empty ones are not.
func TestIndexDirectories(t *testing.T) {
	cfg := config.Default()
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.Listen = []string{"127.0.0.1:0"}
	cfg.Server.MetricsListen = ""
	cfg.Server.Partitions = 4
	s, err := New(t.Context(), cfg, obs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	const user = "@alice:localhost"
	if _, err := s.node.Do(t.Context(), account.NewRegister(user, account.Account{}, "Zoë", nil)); err != nil {
		t.Fatal(err)
	}
	if !s.indexDirectories(t.Context()) {
		t.Error("no partition is empty")
	}
	for p := range cfg.Server.Partitions {
		rows, err := s.store.Get(t.Context(), room.IndexedKey(ids.Partition(p)))
		if err != nil {
			t.Fatal(err)
		}
		want := ids.PartitionOf(user, cfg.Server.Partitions) == ids.Partition(p)
		if got := rows[0] != nil; got != want {
			t.Errorf("partition %d is marked: %t, want %t", p, got, want)
		}
	}
	// With a user in each, all are marked, and it is not looked again.
	for p, name := 0, 0; p < cfg.Server.Partitions; name++ {
		u := ids.UserID(fmt.Sprintf("@u%d:localhost", name))
		if ids.PartitionOf(string(u), cfg.Server.Partitions) != ids.Partition(p) {
			continue
		}
		if _, err := s.node.Do(t.Context(), account.NewRegister(u, account.Account{}, "", nil)); err != nil {
			t.Fatal(err)
		}
		p++
	}
	s.keepDirectories(t.Context())
	if s.indexDirectories(t.Context()) {
		t.Error("a partition with a user is empty")
	}
	if list, _, err := s.accounts().UsersNamed(t.Context(), "zoe", 10); err != nil || len(list) != 1 {
		t.Errorf("found %v, %v", list, err)
	}
}
