package app_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// A server whose data is in two databases forgets nothing when it is restarted,
// and its rooms can be proven there.
func TestPostgres(t *testing.T) {
	pg := pgtest.Start(t)
	stores := pg.Database(t) + "," + pg.Database(t)
	s := apptest.Start(t, func(c *config.Config) { c.Server.Store = stores })
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	rooms := make(map[string]string)
	for _, text := range []string{"one", "two", "three", "four"} {
		room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
		bob.Join(t, room)
		rooms[room] = bob.Send(t, room, text)
	}
	s.Restart(t)
	for room, id := range rooms {
		event := alice.Must(t, "GET", "/_matrix/client/v3/rooms/"+room+"/event/"+id, nil)
		if event["sender"] != bob.UserID {
			t.Errorf("after a restart: %v", event)
		}
	}
	s.Stop()
	var out bytes.Buffer
	if err := app.Fsck(context.Background(), s.Config, &out); err != nil || !strings.HasPrefix(out.String(), "4 rooms") {
		t.Errorf("fsck: %v, %s", err, out.String())
	}
}
