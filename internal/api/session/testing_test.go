package session_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const (
	v3         = "/_matrix/client/v3"
	partitions = 4
	serverName = "h"
)

// world is the module behind a real HTTP server, on a clock that the test moves.
type world struct {
	*apptest.Server
	t     *testing.T
	clock *clock.Manual
	node  *cluster.Node
	store storage.Store
	// tokens is closed when the test ends.
	tokens *session.Authenticator

	mu struct {
		sync.Mutex
		revoked []ids.DeviceID
	}
}

// newWorld starts it; each change is applied to what the module stands on.
func newWorld(t *testing.T, changes ...func(*session.Deps)) *world {
	t.Helper()
	w := &world{Server: &apptest.Server{}, t: t, clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	w.store = memstore.New(w.clock)
	log, bus := slog.New(slog.DiscardHandler), membus.New()
	tables := room.Tables()
	for k, v := range account.Tables() {
		tables[k] = v
	}
	effects := room.Effects()
	for k, v := range account.Effects() {
		effects[k] = v
	}
	var err error
	w.node, err = cluster.Start(t.Context(), cluster.Options{
		Node: "n", Count: partitions, Store: w.store, Bus: bus, Clock: w.clock, LeaseTTL: time.Hour,
		Log: log, Tables: tables, Effects: effects, CacheBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := auth.NewSecrets(auth.NewMaster())
	if err != nil {
		t.Fatal(err)
	}
	accounts := account.NewReader(w.store, partitions)
	w.tokens = session.NewAuthenticator(accounts, w.node, serverName, w.clock, log)
	d := session.Deps{
		Server: serverName, Mode: config.RegistrationOpen, Router: w.node, Accounts: accounts,
		Hasher: auth.NewHasher(auth.CheapParams()), Policy: auth.NewPolicy(false), Secrets: secrets,
		Shared:  auth.NewSharedSecret("shared", secrets, w.clock),
		Limiter: ratelimit.Off(), Clock: w.clock, Log: log, Tokens: w.tokens,
		Revoked: func(_ ids.UserID, devices []ids.DeviceID) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mu.revoked = append(w.mu.revoked, devices...)
		},
	}
	for _, change := range changes {
		change(&d)
	}
	dispatcher, err := api.New(session.New(d).Routes(), api.Options{
		Auth: w.tokens, Limiter: d.Limiter, Clock: w.clock, Log: log, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(dispatcher.Handler(http.NotFoundHandler()))
	w.URL = srv.URL
	t.Cleanup(func() {
		srv.Close()
		w.tokens.Close()
		w.node.Close()
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func mode(m config.RegistrationMode) func(*session.Deps) {
	return func(d *session.Deps) { d.Mode = m }
}

func limited(t *testing.T) func(*session.Deps) {
	return func(d *session.Deps) {
		l, err := ratelimit.New(ratelimit.Defaults())
		if err != nil {
			t.Fatal(err)
		}
		d.Limiter = l
	}
}

func (w *world) do(cmd partition.Command) any {
	w.t.Helper()
	out, err := w.node.Do(context.Background(), cmd)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// anonymous returns a client without a token.
func (w *world) anonymous() *apptest.Client {
	c := w.Anonymous()
	w.t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// wasRevoked reports whether the rest of the server was told that a device's
// tokens ended.
func (w *world) wasRevoked(device string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.mu.revoked, ids.DeviceID(device))
}

func (w *world) forgetRevoked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.revoked = nil
}

// works and fails401 say whether a token is good.
func works(t *testing.T, c *apptest.Client) {
	t.Helper()
	if out := c.Must(t, "GET", v3+"/account/whoami", nil); out["user_id"] != c.UserID {
		t.Errorf("whoami: %v, want %s", out, c.UserID)
	}
}

func fails401(t *testing.T, c *apptest.Client) {
	t.Helper()
	c.Fails(t, "GET", v3+"/account/whoami", nil, 401, "M_UNKNOWN_TOKEN")
}

// with returns a client with another token.
func with(c *apptest.Client, token any) *apptest.Client {
	n := *c
	n.Token, _ = token.(string)
	return &n
}

func loginBody(user, password string) object {
	return object{"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.user", "user": user}}
}

// passwordAuth is the auth object that proves who calls.
func passwordAuth(user, password string) object { return loginBody(user, password) }

// inParallel calls fn with each item at once.
func inParallel[T any](items []T, fn func(T)) {
	var wg sync.WaitGroup
	for _, item := range items {
		wg.Go(func() { fn(item) })
	}
	wg.Wait()
}
