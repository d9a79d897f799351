// Package apptest starts whole servers for tests: the real store on disk, the
// real listeners on a loopback port, in test mode. It is imported by tests only.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// Name is the server name of every server of this package.
const Name = "test.localhost"

// Password is the password of every user that User makes.
const Password = "correct horse battery staple"

// partitions are few: each costs a little at every start, and tests start often.
const partitions = 8

// Server is a running server.
type Server struct {
	// URL has no slash at its end.
	URL string
	// Config is what it was started with.
	Config config.Config

	app *app.Server
	log *slog.Logger
	// ClusterAddr is where other nodes join it, "" if there can be none.
	ClusterAddr string

	stop func()
	txn  atomic.Int64
}

// Start runs a server until the test ends. Each change is applied to the
// configuration before.
func Start(t testing.TB, changes ...func(*config.Config)) *Server {
	t.Helper()
	log := obs.NewLogger(logWriter{t}, obs.LogOptions{Level: config.LogWarn.Slog()})
	return StartLogging(t, log, changes...)
}

// FreeAddr is an address of this machine, host:port, that was free a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// StartLogging is Start with a log of the test's own.
func StartLogging(t testing.TB, log *slog.Logger, changes ...func(*config.Config)) *Server {
	t.Helper()
	cfg := config.Default()
	cfg.Server.Name = Name
	cfg.Server.Listen = []string{"127.0.0.1:0"}
	cfg.Server.MetricsListen = ""
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.Partitions = partitions
	cfg.Server.ShutdownGraceMS = 5000
	cfg.Cluster.DrainMS = 100 // nobody has to notice
	cfg.Server.TestMode = true
	cfg.Registration.Mode = config.RegistrationOpen
	cfg.Registration.AllowWeakPasswords = true
	cfg.Registration.CheapPasswordHashes = true
	cfg.Registration.SharedSecret = "shared"
	cfg.Limits.NoRateLimits = true
	cfg.Media.LegacyDownload = true
	for _, change := range changes {
		change(&cfg)
	}
	s := &Server{Config: cfg, log: log}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *Server) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := app.New(ctx, s.Config, s.log)
	if err != nil {
		cancel()
		t.Fatalf("start server: %v", err)
	}
	s.app, s.URL, s.ClusterAddr = srv, srv.URL(), srv.ClusterAddr()
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stop server: %v", err)
		}
	})
}

// Restart stops the server in good order and starts it on the same data, maybe
// at another address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.stop()
	s.start(t)
}

// Stop stops the server in good order, before the test ends.
func (s *Server) Stop() { s.stop() }

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("server: %s", bytes.TrimRight(b, "\n"))
	return len(b), nil
}

// Object is a JSON object.
type Object = map[string]any

// Client makes requests, for a user if it has a token.
type Client struct {
	Server *Server
	UserID string
	Token  string
	Device string
	// HTTP is the transport; each client has its own connections.
	HTTP *http.Client
}

// Anonymous returns a client without a token.
func (s *Server) Anonymous() *Client { return &Client{Server: s, HTTP: &http.Client{}} }

// User registers an account whose password is Password, and logs it in.
func (s *Server) User(t testing.TB, name string) *Client {
	t.Helper()
	c := s.Anonymous()
	body := c.Must(t, "POST", "/_matrix/client/v3/register", Object{
		"username": name, "password": Password, "auth": Object{"type": "m.login.dummy"},
	})
	c.take(body)
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// Login logs the user in on a further device.
func (c *Client) Login(t testing.TB) *Client {
	t.Helper()
	n := c.Server.Anonymous()
	n.take(n.Must(t, "POST", "/_matrix/client/v3/login", Object{
		"type": "m.login.password", "password": Password,
		"identifier": Object{"type": "m.id.user", "user": c.UserID},
	}))
	t.Cleanup(n.HTTP.CloseIdleConnections)
	return n
}

func (c *Client) take(body Object) {
	c.UserID, _ = body["user_id"].(string)
	c.Token, _ = body["access_token"].(string)
	c.Device, _ = body["device_id"].(string)
}

// Do makes a request and returns the status and the JSON object answered. body
// is marshalled, unless it is nil, a string or []byte, which are sent as they are.
func (c *Client) Do(t testing.TB, method, target string, body any) (int, Object) {
	t.Helper()
	status, raw, _ := c.Raw(t, method, target, body)
	out := Object{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatalf("%s %s: %d with a body that is no JSON object: %v: %s", method, target, status, err, raw)
		}
	}
	if status >= 500 {
		t.Errorf("%s %s: %d %s", method, target, status, raw)
	}
	return status, out
}

// Raw is Do without looking at the answer.
func (c *Client) Raw(t testing.TB, method, target string, body any) (int, []byte, http.Header) {
	t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	case []byte:
		rd = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			t.Fatalf("marshal body: %v", err)
		}
		rd = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.Server.URL+target, rd)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read answer: %v", method, target, err)
	}
	return resp.StatusCode, raw, resp.Header
}

// Must is Do for a request that has to succeed.
func (c *Client) Must(t testing.TB, method, target string, body any) Object {
	t.Helper()
	status, out := c.Do(t, method, target, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: %d %v", method, target, status, out)
	}
	return out
}

// Fails is Do for a request that has to fail with a status and a code.
func (c *Client) Fails(t testing.TB, method, target string, body any, status int, code string) {
	t.Helper()
	got, out := c.Do(t, method, target, body)
	if got != status || out["errcode"] != code {
		t.Errorf("%s %s: got %d %v, want %d %s", method, target, got, out, status, code)
	}
}

// CreateRoom makes a room and returns its ID. options is the body, nil for {}.
func (c *Client) CreateRoom(t testing.TB, options Object) string {
	t.Helper()
	if options == nil {
		options = Object{}
	}
	return c.Must(t, "POST", "/_matrix/client/v3/createRoom", options)["room_id"].(string)
}

// Join joins a room.
func (c *Client) Join(t testing.TB, room string) {
	t.Helper()
	c.Must(t, "POST", "/_matrix/client/v3/join/"+url.PathEscape(room), Object{})
}

// Send sends a text message and returns its event ID.
func (c *Client) Send(t testing.TB, room, text string) string {
	t.Helper()
	target := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/txn%d", url.PathEscape(room), c.Server.txn.Add(1))
	return c.Must(t, "PUT", target, Object{"msgtype": "m.text", "body": text})["event_id"].(string)
}

// Sync makes a sync request that does not wait; since may be "".
func (c *Client) Sync(t testing.TB, since string) Object {
	t.Helper()
	q := url.Values{"timeout": {"0"}}
	if since != "" {
		q.Set("since", since)
	}
	return c.Must(t, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil)
}

// At returns a value inside nested objects, nil where there is none.
func At(o any, path ...string) any {
	for _, p := range path {
		m, ok := o.(Object)
		if !ok {
			return nil
		}
		o = m[p]
	}
	return o
}
