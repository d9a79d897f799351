package app_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// fsck proves a stopped server's store and returns what it printed.
func fsck(t *testing.T, cfg config.Config) string {
	t.Helper()
	var out bytes.Buffer
	if err := app.Fsck(t.Context(), cfg, &out); err != nil {
		t.Errorf("fsck: %v\n%s", err, out.String())
	}
	return out.String()
}

// upload stores a text and returns where it is downloaded.
func upload(t *testing.T, c *apptest.Client, text string) string {
	t.Helper()
	uri := c.Must(t, "POST", "/_matrix/media/v3/upload", text)["content_uri"].(string)
	return "/_matrix/client/v1/media/download/" + strings.TrimPrefix(uri, "mxc://")
}

// body returns the text of an event, "" if there is no such event.
func body(t *testing.T, c *apptest.Client, room, event string) string {
	t.Helper()
	_, got := c.Do(t, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/event/"+url.PathEscape(event), nil)
	text, _ := apptest.At(got, "content", "body").(string)
	return text
}

// A backup of a server that is being written to holds all that was answered
// before it, is a whole data directory, and does not change with the server.
func TestBackupOnline(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	before := alice.Send(t, room, "before")
	media := upload(t, alice, "bytes")

	// Writers go on until the backup is made.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		c := s.User(t, fmt.Sprintf("writer%d", i))
		other := c.CreateRoom(t, nil)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.Send(t, other, strings.Repeat("during ", 500))
				}
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "backup")
	var out bytes.Buffer
	err := app.Backup(t.Context(), s.Config, dir, &out)
	close(stop)
	wg.Wait()
	if err != nil || !strings.Contains(out.String(), dir) {
		t.Fatalf("backup: %v, %q", err, out.String())
	}
	after := alice.Send(t, room, "after")
	for _, left := range []string{dir + ".partial", filepath.Join(s.Config.Server.DataDir, "store.checkpoint")} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left over", left)
		}
	}
	if err := app.Backup(t.Context(), s.Config, dir, &out); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second backup to the same place: %v", err)
	}
	s.Restart(t) // the store that was copied is as good as before
	if got := body(t, alice, room, after); got != "after" {
		t.Errorf("the server lost %q after a backup", got)
	}
	s.Stop()
	fsck(t, s.Config)

	restored := s.Config
	restored.Server.DataDir = dir
	fsck(t, restored)
	r := apptest.Start(t, func(c *config.Config) { *c = restored })
	again := r.Anonymous()
	again.UserID, again.Token = alice.UserID, alice.Token
	if got := body(t, again, room, before); got != "before" {
		t.Errorf("the backup has %q, want before", got)
	}
	if got := body(t, again, room, after); got != "" {
		t.Errorf("the backup has %q, which was sent after it", got)
	}
	if _, raw, _ := again.Raw(t, "GET", media, nil); string(raw) != "bytes" {
		t.Errorf("media in the backup: %q", raw)
	}
	again.Login(t).Send(t, room, "from the backup")
}

// past sends messages until a sync has gone on.
func past(t *testing.T, c *apptest.Client, room string) (first string) {
	t.Helper()
	for i := range 8 {
		if id := c.Send(t, room, fmt.Sprint("new ", i)); first == "" {
			first = id
		}
	}
	return first
}

// timeline is the timeline of a room in a sync, and its events' IDs.
func timeline(out apptest.Object, room string) (limited bool, ids []string) {
	limited, _ = apptest.At(out, "rooms", "join", room, "timeline", "limited").(bool)
	events, _ := apptest.At(out, "rooms", "join", room, "timeline", "events").([]any)
	for _, e := range events {
		ids = append(ids, apptest.At(e, "event_id").(string))
	}
	return limited, ids
}

// What clients hold of the time after a backup means nothing to a server that was
// restored from it, also when its log has become longer than theirs: they are told
// everything anew, and no message to a device is taken for received.
func TestTokensAfterARestore(t *testing.T) {
	const slide = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	device := alice.Must(t, "GET", "/_matrix/client/v3/account/whoami", nil)["device_id"].(string)
	room := alice.CreateRoom(t, nil)
	toDevice := func(c *apptest.Client, txn string) {
		t.Helper()
		c.Must(t, "PUT", "/_matrix/client/v3/sendToDevice/m.x/"+txn, apptest.Object{"messages": apptest.Object{alice.UserID: apptest.Object{device: apptest.Object{"n": txn}}}})
	}
	inbox := apptest.Object{"extensions": apptest.Object{"to_device": apptest.Object{"enabled": true}}}
	dir := filepath.Join(t.TempDir(), "backup")
	if err := app.Backup(t.Context(), s.Config, dir, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	alice.Send(t, room, "lost")
	toDevice(alice, "lost")
	since := alice.Sync(t, "")["next_batch"].(string)
	slid := alice.Must(t, "POST", slide, inbox)
	had, _ := apptest.At(slid, "extensions", "to_device", "next_batch").(string)
	if raw, err := base64.RawURLEncoding.DecodeString(since[1:]); err != nil || raw[0] != 2 || strings.Contains(had, ".") { // as they were before there were generations
		t.Errorf("tokens of a store that was never restored: %s %s", since, had)
	}
	s.Stop()

	restored := s.Config
	restored.Server.DataDir = dir
	fsck(t, restored) // looks at it, and begins nothing
	r := apptest.Start(t, func(c *config.Config) { *c = restored })
	again := r.Anonymous()
	again.UserID, again.Token = alice.UserID, alice.Token
	first := past(t, again, room)
	for i := range 4 {
		toDevice(again, fmt.Sprint(i))
	}
	out := again.Sync(t, since)
	if limited, ids := timeline(out, room); !limited && !slices.Contains(ids, first) {
		t.Errorf("a sync with the old token skips %s: %v", first, ids)
	}
	if apptest.At(out, "account_data", "events") == nil {
		t.Error("a sync with the old token is not a whole one")
	}
	next := out["next_batch"].(string)
	again.Fails(t, "POST", slide+"?pos="+url.QueryEscape(slid["pos"].(string)), inbox, 400, "M_UNKNOWN_POS")
	inbox["extensions"].(apptest.Object)["to_device"].(apptest.Object)["since"] = had
	if got := apptest.At(again.Must(t, "POST", slide, inbox), "extensions", "to_device", "events").([]any); len(got) != 4 {
		t.Errorf("messages to the device: %v", got)
	}
	r.Restart(t) // that is no restore
	last := again.Send(t, room, "last")
	if limited, ids := timeline(again.Sync(t, next), room); limited || !slices.Equal(ids, []string{last}) {
		t.Errorf("with a token of this generation: %v", ids)
	}
	r.Stop()
	if err := app.Restored(t.Context(), restored, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if _, ids := timeline(again.Sync(t, next), room); len(ids) < 2 {
		t.Errorf("after another restore: %v", ids)
	}
	if err := app.Restored(t.Context(), config.Config{Server: config.Server{DataDir: t.TempDir(), Store: config.StoreEmbedded}}, &bytes.Buffer{}); err == nil {
		t.Error("there was nothing to restore")
	}
}

// Of a stopped server the command makes the backup itself.
func TestBackupStopped(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	alice.Send(t, alice.CreateRoom(t, nil), "hello")
	s.Stop()
	want := fsck(t, s.Config)
	dir := filepath.Join(t.TempDir(), "backup")
	var out bytes.Buffer
	if err := app.Backup(t.Context(), s.Config, dir, &out); err != nil {
		t.Fatal(err)
	}
	restored := s.Config
	restored.Server.DataDir = dir
	if got := fsck(t, restored); got != want {
		t.Errorf("fsck of the backup says %q, of the original %q", got, want)
	}
}

func TestBackupRefuses(t *testing.T) {
	var out bytes.Buffer
	cfg := config.Default()
	cfg.Server.DataDir = t.TempDir()
	if err := app.Backup(t.Context(), cfg, t.TempDir()+"/b", &out); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no data: %v", err)
	}
	cfg.Server.Store = "postgres://user@host/database"
	if err := app.Backup(t.Context(), cfg, t.TempDir()+"/b", &out); err == nil || !strings.Contains(err.Error(), "pg_dump") {
		t.Errorf("PostgreSQL: %v", err)
	}
}

// pgTool finds a program of PostgreSQL's clients.
func pgTool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		skip.Test(t, "no "+name+": install PostgreSQL's clients (Debian: postgresql) to run this test")
	}
	return found[len(found)-1]
}

// A PostgreSQL store is backed up by PostgreSQL's tools, while the server runs, and
// restored to another database.
func TestBackupPostgres(t *testing.T) {
	pg := pgtest.Start(t, "fsync=off")
	from, to := pg.Database(t), pg.Database(t)
	s := apptest.Start(t, func(c *config.Config) { c.Server.Store = from })
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	event := alice.Send(t, room, "before")
	media := upload(t, alice, "bytes")

	dump := filepath.Join(t.TempDir(), "hubbub.dump")
	for _, args := range [][]string{
		{pgTool(t, "pg_dump"), "--format=custom", "--file=" + dump, from},
		{pgTool(t, "pg_restore"), "--no-owner", "--exit-on-error", "--single-transaction", "--dbname=" + to, dump},
		{pgTool(t, "psql"), "--command=UPDATE hubbub_lease SET expires = now()", to}, // of the original's nodes
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
	s.Stop()
	want := fsck(t, s.Config)
	restored := s.Config // with its data directory, where the media are
	restored.Server.Store = to
	if got := fsck(t, restored); got != want {
		t.Errorf("fsck of the restored database says %q, of the original %q", got, want)
	}
	if err := app.Restored(t.Context(), restored, &bytes.Buffer{}); err != nil {
		t.Error(err)
	}
	again := apptest.Start(t, func(c *config.Config) { *c = restored }).Anonymous()
	again.UserID, again.Token = alice.UserID, alice.Token
	if got := body(t, again, room, event); got != "before" {
		t.Errorf("the restored database has %q", got)
	}
	if _, raw, _ := again.Raw(t, "GET", media, nil); string(raw) != "bytes" {
		t.Errorf("media: %q", raw)
	}
	again.Login(t).Send(t, room, "from the backup")
}
