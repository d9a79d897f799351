// Package cluster_test runs several nodes of one deployment, on a real PostgreSQL and
// with NATS between them, and takes nodes away while people talk.
package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// nodeVariable makes this test program a node with the configuration in it.
const nodeVariable = "HUBBUB_TEST_NODE"

// patience bounds what has to happen: a lease must run out in it.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if text := os.Getenv(nodeVariable); text != "" {
		if err := runNode(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runNode(text string) error {
	var cfg config.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	s, err := app.New(context.Background(), cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	return s.Run(context.Background())
}

// process starts a node that can be killed.
func process(t *testing.T, cfg config.Config) (node *apptest.Server, kill func()) {
	t.Helper()
	cfg.Server.DataDir = t.TempDir()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill() // fails when it is dead already
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("node did not start: %v", err)
	}
	return &apptest.Server{URL: strings.TrimSpace(line)}, kill
}

// on is a client that talks to another node.
func on(c *apptest.Client, s *apptest.Server) *apptest.Client {
	n := *c
	n.Server = s
	return &n
}

func TestNodesComeAndGo(t *testing.T) {
	pg := pgtest.Start(t)
	store := pg.Database(t)
	join := ""
	node := func(c *config.Config) {
		c.Server.Store, c.Cluster.Listen = store, "127.0.0.1:0"
		if join != "" {
			c.Server.Join = []string{join}
		}
	}
	a := apptest.Start(t, node)
	join = a.ClusterAddr
	b := apptest.Start(t, node)
	cfg := a.Config
	node(&cfg)
	c, kill := process(t, cfg)

	alice, bob := a.User(t, "alice"), b.User(t, "bob")
	room := on(alice, c).CreateRoom(t, apptest.Object{"preset": "public_chat"})
	on(bob, a).Join(t, room)
	since := on(bob, c).Sync(t, "")["next_batch"].(string)

	var alive atomic.Pointer[[]*apptest.Server]
	alive.Store(&[]*apptest.Server{a, b, c})
	s := &speaker{t: t, client: alice, room: room, alive: &alive}
	r := &reader{t: t, client: bob, room: room, since: since, alive: &alive}
	s.say(20)
	r.read(s.acked)

	alive.Store(&[]*apptest.Server{a, c})
	b.Stop() // gives its partitions away first
	s.say(20)
	r.read(s.acked)

	kill()
	alive.Store(&[]*apptest.Server{a})
	s.say(20)
	r.read(s.acked)
	history(t, on(alice, a), room, s.acked)
}

// speaker sends messages, each to the next node, until it is accepted.
type speaker struct {
	t      *testing.T
	client *apptest.Client
	room   string
	alive  *atomic.Pointer[[]*apptest.Server]
	acked  []string
}

func (s *speaker) say(n int) {
	s.t.Helper()
	for range n {
		txn := len(s.acked)
		target := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/m%d", url.PathEscape(s.room), txn)
		begin := time.Now()
		for try := 0; ; try++ {
			nodes := *s.alive.Load()
			status, body, _ := on(s.client, nodes[(txn+try)%len(nodes)]).Raw(s.t, "PUT", target, apptest.Object{"msgtype": "m.text", "body": fmt.Sprint(txn)})
			if status == http.StatusOK {
				var out struct {
					EventID string `json:"event_id"`
				}
				if err := json.Unmarshal(body, &out); err != nil {
					s.t.Fatal(err)
				}
				s.acked = append(s.acked, out.EventID)
				break
			}
			if status < 500 || time.Since(begin) > patience {
				s.t.Fatalf("message %d: %d %s", txn, status, body)
			}
		}
	}
}

// reader syncs, each time at the next node.
type reader struct {
	t      *testing.T
	client *apptest.Client
	room   string
	since  string
	alive  *atomic.Pointer[[]*apptest.Server]
	seen   []string
	syncs  int
}

// read syncs until all that was accepted came, and checks that it is that, once and in
// order.
func (r *reader) read(want []string) {
	r.t.Helper()
	for begin := time.Now(); len(r.seen) < len(want); {
		nodes := *r.alive.Load()
		r.syncs++
		// The filter leaves no gap to fill.
		q := url.Values{"since": {r.since}, "timeout": {"1000"}, "filter": {`{"room":{"timeline":{"limit":100}}}`}}
		status, body := on(r.client, nodes[r.syncs%len(nodes)]).Do(r.t, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil)
		if status != http.StatusOK || time.Since(begin) > patience {
			r.t.Fatalf("sync: %d, %d of %d seen", status, len(r.seen), len(want))
		}
		r.since = body["next_batch"].(string)
		events, _ := apptest.At(body, "rooms", "join", r.room, "timeline", "events").([]any)
		for _, e := range events {
			if apptest.At(e, "type") == "m.room.message" {
				r.seen = append(r.seen, apptest.At(e, "event_id").(string))
			}
		}
	}
	compare(r.t, "the stream", r.seen, want)
}

// history checks what the room says in the end.
func history(t *testing.T, c *apptest.Client, room string, want []string) {
	t.Helper()
	page := c.Must(t, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/messages?dir=f&limit=200", nil)
	var got []string
	for _, e := range page["chunk"].([]any) {
		if apptest.At(e, "type") == "m.room.message" {
			got = append(got, apptest.At(e, "event_id").(string))
		}
	}
	compare(t, "the history", got, want)
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("%s is %v\nwant %v", what, got, want)
	}
}
