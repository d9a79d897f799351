package app_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// cancelAfter ends a context when so many lines were written.
type cancelAfter struct {
	lines  int
	cancel func()
}

func (c *cancelAfter) Write(b []byte) (int, error) {
	if c.lines--; c.lines == 0 {
		c.cancel()
	}
	return len(b), nil
}

func migrate(t *testing.T, cfg config.Config, to string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := app.MigrateStore(t.Context(), cfg, to, &out)
	return out.String(), err
}

func refuses(t *testing.T, what string, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("%s: %v, want %q", what, err, part)
	}
}

// A store goes from the disk to two databases and back, with everything in it;
// what is running, full, or only half copied is refused.
func TestMigrateStore(t *testing.T) {
	pg := pgtest.Start(t, "fsync=off")
	target := pg.Database(t) + "," + pg.Database(t)
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	key := webPushKey(t, alice)
	rooms := map[string]string{}
	for i := range 12 {
		room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
		rooms[room] = alice.Send(t, room, fmt.Sprint("text ", i))
	}
	_, err := migrate(t, s.Config, target)
	refuses(t, "a server that runs", err, "in use")
	s.Stop()
	want := fsck(t, s.Config)

	// A copying that is interrupted leaves a store that nobody serves, and goes on.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := app.MigrateStore(ctx, s.Config, target, &cancelAfter{3, cancel}); err == nil {
		t.Fatal("it was not interrupted")
	}
	onPG := s.Config
	onPG.Server.Store = target
	_, err = app.New(t.Context(), onPG, obs.Discard())
	refuses(t, "a half copied store", err, "unfinished copy")

	if err := app.Restored(t.Context(), s.Config, &bytes.Buffer{}); err != nil { // its generation goes with it
		t.Fatal(err)
	}
	s.Restart(t) // the source may go on meanwhile, also away from what was copied
	for room := range rooms {
		rooms[room] = alice.Send(t, room, "later")
	}
	since := alice.Sync(t, "")["next_batch"].(string)
	s.Stop()
	if now := fsck(t, s.Config); now == want {
		t.Errorf("nothing was sent: %q", now)
	} else {
		want = now
	}
	out, err := migrate(t, s.Config, target)
	if err != nil || !strings.Contains(out, "all compared") {
		t.Fatalf("go on: %v\n%s", err, out)
	}
	if got := fsck(t, onPG); got != want {
		t.Errorf("fsck of the copy says %q, of the original %q", got, want)
	}
	_, err = migrate(t, s.Config, target)
	refuses(t, "a target that is whole", err, "found whole before")

	since = serveMigrated(t, onPG, alice, rooms, since, key)
	want = fsck(t, onPG)
	back := filepath.Join(t.TempDir(), "back")
	if out, err := migrate(t, onPG, back); err != nil {
		t.Fatalf("back: %v\n%s", err, out)
	}
	onDisk := s.Config
	onDisk.Server.DataDir = back
	if got := fsck(t, onDisk); got != want {
		t.Errorf("back on disk fsck says %q, in PostgreSQL %q", got, want)
	}
	serveMigrated(t, onDisk, alice, rooms, since, key)

	other := apptest.Start(t)
	other.User(t, "bob")
	other.Stop()
	_, err = migrate(t, onPG, other.Config.Server.DataDir)
	refuses(t, "a target with another deployment", err, "not empty")
}

func webPushKey(t *testing.T, c *apptest.Client) string {
	t.Helper()
	return apptest.At(c.Must(t, "GET", "/_matrix/client/v3/capabilities", nil), "capabilities", "org.matrix.msc4174.webpush", "vapid").(string)
}

// serveMigrated runs a server on a copy: the tokens, the history, new messages and
// a sync that began before work there. It returns where the sync has come to.
func serveMigrated(t *testing.T, cfg config.Config, alice *apptest.Client, rooms map[string]string, since, key string) string {
	t.Helper()
	s := apptest.Start(t, func(c *config.Config) { *c = cfg })
	defer s.Stop()
	c := s.Anonymous()
	c.UserID, c.Token = alice.UserID, alice.Token
	if got := webPushKey(t, c); got != key {
		t.Errorf("browsers subscribed with %s, and the key of the copy is %s", key, got)
	}
	joined := apptest.At(c.Sync(t, ""), "rooms", "join").(apptest.Object)
	for room, event := range rooms {
		if joined[room] == nil {
			t.Errorf("sync has no room %s", room)
		}
		if got := body(t, c, room, event); got != "later" {
			t.Errorf("the copy has %q in %s", got, room)
		}
		// A device's IDs of requests are still known: this one has to be new.
		target := "/_matrix/client/v3/rooms/" + url.PathEscape(room) + "/send/m.room.message/" + url.PathEscape(since)
		c.Must(t, "PUT", target, apptest.Object{"msgtype": "m.text", "body": "on the copy"})
	}
	next := c.Sync(t, since)
	for room := range rooms {
		timeline, _ := apptest.At(next, "rooms", "join", room, "timeline", "events").([]any)
		if len(timeline) != 1 || apptest.At(timeline[0], "content", "body") != "on the copy" {
			t.Errorf("a sync that began before the copying brings %v", timeline)
		}
	}
	return next["next_batch"].(string)
}

func TestMigrateStoreRefuses(t *testing.T) {
	cfg := config.Default()
	cfg.Server.DataDir = t.TempDir()
	for what, c := range map[string]struct{ to, part string }{
		"no source":    {filepath.Join(t.TempDir(), "to"), "no such file"},
		"other scheme": {"mysql://host/database", "neither"},
		"the same":     {cfg.Server.DataDir, "the same"},
	} {
		_, err := migrate(t, cfg, c.to)
		refuses(t, what, err, c.part)
	}
}
