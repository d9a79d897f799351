package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testStart = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// tokens is an Authenticator over a table.
type tokens struct {
	mu struct {
		sync.Mutex
		seen    []Credentials
		revoked map[string]bool
	}
}

// revoke makes a token one that is not known.
func (a *tokens) revoke(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.revoked == nil {
		a.mu.revoked = make(map[string]bool)
	}
	a.mu.revoked[token] = true
}

func (a *tokens) Authenticate(_ context.Context, c Credentials) (Caller, error) {
	a.mu.Lock()
	a.mu.seen = append(a.mu.seen, c)
	if a.mu.revoked[c.Token] {
		c.Token = ""
	}
	a.mu.Unlock()
	switch c.Token {
	case "alice":
		return Caller{User: "@alice:x", Device: "A"}, nil
	case "bob":
		return Caller{User: "@bob:x", Device: "B"}, nil
	case "admin":
		return Caller{User: "@admin:x", Admin: true}, nil
	case "guest":
		return Caller{User: "@guest:x", Guest: true}, nil
	case "bridge":
		user := ids.UserID("@bridge:x")
		if c.ActAs != "" {
			user = c.ActAs
		}
		return Caller{User: user, AppService: "irc", Unlimited: true}, nil
	case "broken":
		return Caller{}, fmt.Errorf("the store is away: secret detail")
	case "nobody":
		return Caller{}, nil
	}
	return Caller{}, merr.New(http.StatusUnauthorized, merr.UnknownToken, "Unknown token").With("soft_logout", true)
}

func (a *tokens) last() Credentials {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.seen[len(a.mu.seen)-1]
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.String()
}

// rig is a dispatcher behind a real HTTP server.
type rig struct {
	*Dispatcher
	t     testing.TB
	auth  *tokens
	clock *clock.Manual
	logs  *logBuffer
	reg   *prometheus.Registry
	url   string
	addr  string
	lot   *parking.Lot
}

type rigOptions struct {
	limits  ratelimit.Config
	caps    *[HoldOwn]caps
	proxies []netip.Prefix
	server  func(*http.Server)
	// parks: long polls are parked as soon as they wait.
	parks bool
}

func newRig(t testing.TB, routes []Route, o rigOptions) *rig {
	t.Helper()
	g := &rig{t: t, auth: &tokens{}, clock: clock.NewManual(testStart), logs: &logBuffer{}, reg: prometheus.NewRegistry()}
	limiter := ratelimit.Off()
	if o.limits != nil {
		var err error
		if limiter, err = ratelimit.New(o.limits); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if o.parks {
		if g.lot, err = parking.NewLot(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.lot.Close() })
	}
	g.Dispatcher, err = New(routes, Options{
		Auth: g.auth, Limiter: limiter, Clock: g.clock, Metrics: g.reg, TrustedProxies: o.proxies, Lot: g.lot,
		Log: slog.New(slog.NewTextHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.caps != nil {
		g.inFlight.caps = *o.caps
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = NewHTTPServer(g.Handler(http.NotFoundHandler()))
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(g.logs, nil), slog.LevelError)
	if o.server != nil {
		o.server(server.Config)
	}
	if o.parks {
		g.parkAfter = time.Nanosecond
		server.Config.ConnContext = g.lot.ConnContext
	}
	server.Start()
	if o.parks {
		go func() { _ = server.Config.Serve(g.lot) }()
	}
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	g.url, g.addr = server.URL, server.Listener.Addr().String()
	return g
}

// reply is an HTTP answer that was read to its end.
type reply struct {
	Status int
	Header http.Header
	Body   string
}

func (r reply) member(name string) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(r.Body), &m); err != nil {
		return "not JSON: " + r.Body
	}
	if m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

func (r reply) code() string { return r.member("errcode") }

// raw sends a request line and headers exactly as given, so that no client
// normalises them.
func (g *rig) raw(method, target, body string, headers ...string) reply {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n", method, target)
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	// The server may answer and close before it has read everything.
	_, _ = io.WriteString(conn, b.String())
	return g.read(conn, method)
}

func (g *rig) read(conn net.Conn, method string) reply {
	g.t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		g.t.Fatalf("read the answer: %v", err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatalf("read the answer's body: %v", err)
	}
	return reply{Status: res.StatusCode, Header: res.Header, Body: string(got)}
}

func as(token string) string { return "Authorization: Bearer " + token }

// route returns a Route with everything that is needed; edit changes it.
func route(method, path string, handle Handler, edit ...func(*Route)) Route {
	rt := Route{Method: method, Path: path, Auth: AuthNone, Rate: RateNone, Handle: handle}
	for _, e := range edit {
		e(&rt)
	}
	return rt
}

// echo answers with what the handler saw.
func echo(r *Request) (any, error) {
	params := map[string]string{}
	for _, p := range r.params {
		params[p.name] = p.value
	}
	return map[string]any{
		"route": r.Route.Path, "params": params, "query": map[string][]string(r.Query), "body": string(r.Body),
		"nil_body": r.Body == nil, "user": r.Caller.User, "addr": r.Addr.String(), "id": r.ID,
	}, nil
}

func wantError(t testing.TB, what string, got reply, status int, code merr.Code) {
	t.Helper()
	if got.Status != status || got.code() != string(code) {
		t.Errorf("%s: %d %s, want %d %s", what, got.Status, got.Body, status, code)
	}
}

// counted returns the value of a counter.
func counted(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// series returns how many series a metric has.
func (g *rig) series(name string) int {
	g.t.Helper()
	families, err := g.reg.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return len(f.GetMetric())
		}
	}
	return 0
}
