package app_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
	var out bytes.Buffer
	moveUnderLoad(t, s, alice, stores+","+pg.Database(t), &out)
	for room, id := range rooms {
		event := alice.Must(t, "GET", "/_matrix/client/v3/rooms/"+room+"/event/"+id, nil)
		if event["sender"] != bob.UserID {
			t.Errorf("after its partition moved: %v", event)
		}
	}
	s.Stop()
	out.Reset()
	if err := app.Fsck(context.Background(), s.Config, &out); err != nil || !strings.HasPrefix(out.String(), "5 rooms") {
		t.Errorf("fsck: %v, %s", err, out.String())
	}
}

// moveUnderLoad starts the server with one more database and moves all partitions to
// it, while somebody speaks, who notices nothing.
func moveUnderLoad(t *testing.T, s *apptest.Server, speaker *apptest.Client, stores string, out io.Writer) {
	t.Helper()
	s.Config.Server.Store = stores
	s.Restart(t)
	room := speaker.CreateRoom(t, apptest.Object{"preset": "public_chat"})
	since := speaker.Sync(t, "")["next_batch"].(string)
	var ended atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ended.Store(true)
	wg.Go(func() {
		for i := 0; !ended.Load(); i++ {
			status, body, _ := speaker.Raw(t, "PUT", fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/moving%d", room, i), apptest.Object{"msgtype": "m.text", "body": fmt.Sprint(i)})
			if status != http.StatusOK {
				t.Errorf("message %d: %d %s", i, status, body)
				return
			}
			got := speaker.Sync(t, since)
			since = got["next_batch"].(string)
			events, _ := apptest.At(got, "rooms", "join", room, "timeline", "events").([]any)
			if len(events) != 1 || apptest.At(events[0], "content", "body") != fmt.Sprint(i) {
				t.Errorf("message %d: the next sync has %v", i, events)
				return
			}
		}
	})
	ctx := context.Background()
	for p := range s.Config.Server.Partitions {
		if err := app.MovePartition(ctx, s.Config, app.MoveOptions{Partition: fmt.Sprint(p), To: "3"}, out); err != nil {
			t.Errorf("partition %d: %v", p, err)
		}
	}
	var list bytes.Buffer
	if err := app.MovePartition(ctx, s.Config, app.MoveOptions{}, &list); err != nil || !strings.Contains(list.String(), "database 1: 0 partitions []\n") {
		t.Errorf("%v, %s", err, list.String())
	}
	for _, o := range []app.MoveOptions{{Partition: "8", To: "1"}, {Partition: "x", To: "1"}, {Partition: "1", To: "4"}, {Partition: "1"}} {
		if err := app.MovePartition(ctx, s.Config, o, out); err == nil {
			t.Errorf("%+v did something", o)
		}
	}
}
