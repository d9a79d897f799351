package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		runChild(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// fakeAuth knows tokens "user/device" that were not revoked.
type fakeAuth struct {
	mu struct {
		sync.Mutex
		revoked map[string]error
		hook    func(token string) // called first, without the lock
	}
}

func (a *fakeAuth) Authenticate(_ context.Context, c api.Credentials) (api.Caller, error) {
	a.mu.Lock()
	hook := a.mu.hook
	a.mu.Unlock()
	token := cmp.Or(c.Token, c.TokenHash)
	if hook != nil {
		hook(token)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.mu.revoked[token]; err != nil {
		return api.Caller{}, err
	}
	user, device, ok := strings.Cut(token, "/")
	if !ok {
		return api.Caller{}, merr.New(http.StatusUnauthorized, merr.UnknownToken, "Unknown token")
	}
	device, _, _ = strings.Cut(device, "#") // what follows makes tokens of one device differ
	return api.Caller{User: ids.UserID(user), Device: ids.DeviceID(device), TokenHash: token}, nil
}

// Look implements Auth: there is nothing to read.
func (a *fakeAuth) Look(context.Context, []api.Credentials) {}

func (a *fakeAuth) revoke(token string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.revoked == nil {
		a.mu.revoked = make(map[string]error)
	}
	a.mu.revoked[token] = err
}

// fakeAPI echoes calls; some paths do more.
type fakeAPI struct {
	// block holds calls to /block until it is closed or they are cancelled.
	block chan struct{}
	// onLogout runs in calls to /logout.
	onLogout func(api.Call)
	// cancelled takes a value for each call to /block that was cancelled.
	cancelled chan struct{}
}

func (a *fakeAPI) Call(ctx context.Context, c api.Call) api.CallResult {
	path, _, _ := strings.Cut(c.Target, "?")
	switch path {
	case "/block":
		select {
		case <-a.block:
		case <-ctx.Done():
			a.cancelled <- struct{}{}
		}
	case "/logout":
		a.onLogout(c)
	case "/panic":
		panic("a handler's defect")
	case "/large":
		return api.CallResult{Status: 200, Body: []byte(`"` + strings.Repeat("x", 1<<20) + `"`)}
	case "/missing":
		return api.CallResult{Status: 404, Body: []byte(`{"errcode":"M_UNRECOGNIZED","error":"no"}`)}
	}
	body, err := json.Marshal(map[string]any{
		"method": c.Method, "target": c.Target, "body": string(c.Body), "user": c.Caller.User,
		"device": c.Caller.Device, "addr": c.Addr.String(), "agent": c.UserAgent,
	})
	if err != nil {
		panic(err)
	}
	return api.CallResult{Status: 200, Body: body}
}

// fakeFeed hands out sessions and remembers them.
type fakeFeed struct {
	opened chan *fakeSession // a value for each Open, while there is room
	acks   chan string
	// ackTimes are until when each acknowledgement had time.
	ackTimes chan time.Time
	mu       struct {
		sync.Mutex
		sessions []*fakeSession
	}
}

func (f *fakeFeed) Open(ctx context.Context, o feed.Open, sink feed.Sink) (feed.Session, error) {
	switch o.Since {
	case "unknown":
		return nil, feed.ErrUnknownPosition
	case "badfilter":
		return nil, merr.InvalidParamErr("bad filter")
	case "broken":
		return nil, context.DeadlineExceeded
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := &fakeSession{f: f, open: o, sink: sink, drained: make(chan struct{}, 100)}
	f.mu.Lock()
	f.mu.sessions = append(f.mu.sessions, s)
	f.mu.Unlock()
	select {
	case f.opened <- s:
	default:
	}
	return s, nil
}

func (f *fakeFeed) all() []*fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeSession(nil), f.mu.sessions...)
}

type fakeSession struct {
	f       *fakeFeed
	open    feed.Open
	sink    feed.Sink
	drained chan struct{}
}

func (s *fakeSession) Drained() { s.drained <- struct{}{} }

func (s *fakeSession) Ack(ctx context.Context, since string) error {
	if since == "unknown" {
		return feed.ErrUnknownPosition
	}
	until, _ := ctx.Deadline()
	s.f.ackTimes <- until
	s.f.acks <- since
	return nil
}

func (s *fakeSession) Close() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for i, o := range s.f.mu.sessions {
		if o == s {
			s.f.mu.sessions = append(s.f.mu.sessions[:i], s.f.mu.sessions[i+1:]...)
			return
		}
	}
}

// fixture is a gateway behind a real HTTP server.
type fixture struct {
	*Gateway
	api  *fakeAPI
	auth *fakeAuth
	feed *fakeFeed
	url  string // http://127.0.0.1:port
	addr string
}

func serve(tb testing.TB, cfg Config) *fixture {
	tb.Helper()
	f := &fixture{
		api:  &fakeAPI{block: make(chan struct{}), cancelled: make(chan struct{}, 1000)},
		auth: &fakeAuth{},
		feed: &fakeFeed{opened: make(chan *fakeSession, 1000), acks: make(chan string, 100), ackTimes: make(chan time.Time, 100)},
	}
	cfg.API, cfg.Auth, cfg.Feed = f.api, f.auth, f.feed
	if cfg.DrainSpread == 0 {
		cfg.DrainSpread = time.Millisecond
	}
	f.Gateway = New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	f.addr = l.Addr().String()
	f.url = "http://" + f.addr
	stream := f.Routes()[0].Stream
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream(&api.Request{Addr: netip.MustParseAddrPort(r.RemoteAddr).Addr(), UserAgent: r.UserAgent()}, w, r)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			tb.Errorf("shutdown: %v", err)
		}
		_ = srv.Close()
		<-served
	})
	return f
}
