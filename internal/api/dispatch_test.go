package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

func options() Options {
	return Options{
		Auth: &tokens{}, Limiter: ratelimit.Off(), Clock: clock.Real{},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
}

func TestNewRefuses(t *testing.T) {
	good := func() Route { return route("GET", v3+"x/{a}", echo, user) }
	if _, err := New([]Route{good()}, options()); err != nil {
		t.Fatalf("a good route: %v", err)
	}
	bad := map[string]func(*Route){
		"no Auth":         func(r *Route) { r.Auth = 0 },
		"unknown Auth":    func(r *Route) { r.Auth = AuthAdmin + 1 },
		"no Rate":         func(r *Route) { r.Rate = "" },
		"unknown Rate":    func(r *Route) { r.Rate = "sned" },
		"account class":   func(r *Route) { r.Rate = ratelimit.LoginAccount },
		"no handler":      func(r *Route) { r.Handle = nil },
		"two handlers":    func(r *Route) { r.Stream = func(*Request, http.ResponseWriter, *http.Request) {} },
		"no method":       func(r *Route) { r.Method = "" },
		"odd method":      func(r *Route) { r.Method = "get" },
		"no path":         func(r *Route) { r.Path = "" },
		"outside":         func(r *Route) { r.Path = "/index.html" },
		"outside, also":   func(r *Route) { r.Also = []string{"/other"} },
		"bad template":    func(r *Route) { r.Path = v3 + "{a" },
		"negative body":   func(r *Route) { r.MaxBody = -1 },
		"unknown Hold":    func(r *Route) { r.Hold = HoldOwn + 1 },
		"duplicate":       func(r *Route) { r.Path = v3 + "same/{b}" },
		"duplicate, also": func(r *Route) { r.Also = []string{v3 + "same/{c}"} },
	}
	for name, edit := range bad {
		r := good()
		edit(&r)
		if _, err := New([]Route{route("GET", v3+"same/{a}", echo), r}, options()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, edit := range map[string]func(*Options){
		"auth": func(o *Options) { o.Auth = nil }, "limiter": func(o *Options) { o.Limiter = nil }, "clock": func(o *Options) { o.Clock = nil },
		"log": func(o *Options) { o.Log = nil }, "metrics": func(o *Options) { o.Metrics = nil },
	} {
		o := options()
		edit(&o)
		if _, err := New([]Route{good()}, o); err == nil {
			t.Errorf("without %s: accepted", name)
		}
	}
}

// TestEveryRouteIsClassified: with any of the obligatory fields missing from any one
// route of a whole table, the dispatcher does not start and names it.
func TestEveryRouteIsClassified(t *testing.T) {
	routes := specRoutes(t, echo)
	for i := range routes {
		for name, edit := range map[string]func(*Route){
			"Auth": func(r *Route) { r.Auth = 0 }, "Rate": func(r *Route) { r.Rate = "" }, "Handle": func(r *Route) { r.Handle = nil },
		} {
			saved := routes[i]
			edit(&routes[i])
			_, err := New(routes, options())
			if err == nil || !strings.Contains(err.Error(), saved.Path) {
				t.Fatalf("%s without %s: %v", saved.Path, name, err)
			}
			routes[i] = saved
		}
		if i%20 != 0 {
			continue
		}
		if _, err := New(append(routes, routes[i]), options()); err == nil {
			t.Fatalf("%s twice: accepted", routes[i].Path)
		}
	}
}

func TestCall(t *testing.T) {
	routes := append(basicRoutes(),
		streamRoute("/_matrix/media/v3/upload", func(*Request, http.ResponseWriter, *http.Request) {}))
	limits := ratelimit.Defaults()
	limits[ratelimit.Send] = ratelimit.Limit{PerSecond: 1, Burst: 1}
	routes = append(routes, route("GET", v3+"send", echo, user, func(r *Route) { r.Rate = RateSend }))
	g := newRig(t, routes, rigOptions{limits: limits})
	alice := Caller{User: "@alice:x"}
	cases := []struct {
		name   string
		call   Call
		status int
		code   merr.Code
		body   string
	}{
		{"params and query", Call{Method: "GET", Target: v3 + "directory/room/%2F?q=a%20b"}, 200, "", ""},
		{"anonymous", Call{Method: "GET", Target: v3 + "user"}, 401, merr.MissingToken, ""},
		{"a token in the target is ignored", Call{Method: "GET", Target: v3 + "user?access_token=alice"}, 401, merr.MissingToken, ""},
		{"caller", Call{Method: "GET", Target: v3 + "user", Caller: alice}, 200, "", ""},
		{"guest", Call{Method: "GET", Target: v3 + "user", Caller: Caller{User: "@g:x", Guest: true}}, 403, merr.GuestAccessForbidden, ""},
		{"admin", Call{Method: "GET", Target: "/_synapse/admin/v1/thing", Caller: Caller{User: "@a:x", Admin: true}}, 200, "", ""},
		{"no admin", Call{Method: "GET", Target: "/_synapse/admin/v1/thing", Caller: alice}, 403, merr.Forbidden, ""},
		{"unknown", Call{Method: "GET", Target: "/_matrix/x"}, 404, merr.Unrecognized, ""},
		{"empty target", Call{Method: "GET"}, 404, merr.Unrecognized, ""},
		{"method", Call{Method: "PUT", Target: v3 + "any"}, 405, merr.Unrecognized, ""},
		{"HEAD is HTTP's alone", Call{Method: "HEAD", Target: v3 + "any"}, 405, merr.Unrecognized, ""},
		{"stream", Call{Method: "POST", Target: "/_matrix/media/v3/upload", Caller: alice}, 404, merr.Unrecognized, ""},
		{"NUL", Call{Method: "GET", Target: v3 + "directory/room/%00"}, 400, merr.InvalidParam, ""},
		{"malformed", Call{Method: "POST", Target: v3 + "any", Body: []byte("{")}, 400, merr.NotJSON, ""},
		{"no object", Call{Method: "POST", Target: v3 + "any", Body: []byte("1")}, 400, merr.BadJSON, ""},
		{"large", Call{Method: "POST", Target: v3 + "small", Body: []byte(`{"a":12345}`)}, 413, merr.TooLarge, ""},
		{"nil", Call{Method: "GET", Target: v3 + "nil"}, 200, "", "{}"},
		{"error", Call{Method: "GET", Target: v3 + "fails"}, 500, merr.Unknown, ""},
		{"panic", Call{Method: "GET", Target: v3 + "panic"}, 500, merr.Unknown, ""},
		{"first send", Call{Method: "GET", Target: v3 + "send", Caller: alice}, 200, "", ""},
		{"second send", Call{Method: "GET", Target: v3 + "send", Caller: alice}, 429, merr.LimitExceeded, ""},
	}
	for _, tc := range cases {
		res := g.Call(context.Background(), tc.call)
		got := reply{Status: res.Status, Body: string(res.Body)}
		if got.Status != tc.status || got.code() != string(tc.code) || tc.body != "" && got.Body != tc.body {
			t.Errorf("%s: %d %s, want %d %s %s", tc.name, got.Status, got.Body, tc.status, tc.code, tc.body)
		}
		if tc.status == 429 && got.member("retry_after_ms") != "1000" {
			t.Errorf("%s: %s", tc.name, got.Body)
		}
	}
	res := g.Call(context.Background(), Call{Method: "GET", Target: v3 + "any", Caller: alice})
	if got := (reply{Body: string(res.Body)}); got.member("user") != "" {
		t.Errorf("a route without authorization sees the caller: %s", res.Body)
	}
	for hold := range HoldOwn {
		if n := g.inFlight.node[hold].Load(); n != 0 {
			t.Errorf("%d calls of hold %d are still in flight", n, hold)
		}
	}
}

// gate is a handler that waits until it is opened or its request is given up.
type gate struct {
	entered chan struct{}
	open    chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 100), open: make(chan struct{})} }

func (g *gate) handle(r *Request) (any, error) {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return Empty, nil
	case <-r.Context.Done():
		return nil, fmt.Errorf("wait: %w", r.Context.Err())
	}
}

func TestInFlightLimits(t *testing.T) {
	small := [HoldOwn]caps{
		HoldShort:    {node: 6, reserve: 2, perUser: 2, perIP: 3},
		HoldLong:     {node: 100, perUser: 2, perIP: 2},
		HoldTransfer: {node: 100, perUser: 2, perIP: 2},
	}
	wait := newGate()
	rate := func(class RateClass) func(*Route) { return func(r *Route) { r.Rate = class } }
	optional := func(r *Route) { r.Auth = AuthOptional }
	g := newRig(t, []Route{
		route("GET", v3+"wait", wait.handle, optional, rate(RateRead)),
		route("GET", v3+"read", echo, optional, rate(RateRead)),
		route("GET", v3+"send", echo, optional, rate(RateSend)),
		route("GET", v3+"poll", wait.handle, optional, rate(RateSync), func(r *Route) { r.Hold = HoldLong }),
		route("GET", v3+"own", wait.handle, optional, func(r *Route) { r.Hold = HoldOwn }),
	}, rigOptions{caps: &small})

	var calls sync.WaitGroup
	addr := netip.MustParseAddr("192.0.2.1")
	call := func(path string, caller Caller) CallResult {
		return g.Call(context.Background(), Call{Method: "GET", Target: v3 + path, Caller: caller, Addr: addr})
	}
	background := func(path string, caller Caller) {
		calls.Go(func() {
			if res := call(path, caller); res.Status != 200 {
				t.Errorf("%s of %q: %d %s", path, caller.User, res.Status, res.Body)
			}
		})
		<-wait.entered
	}
	alice, bob := Caller{User: "@alice:x"}, Caller{User: "@bob:x"}
	want := func(what, path string, caller Caller, status int) reply {
		t.Helper()
		res := call(path, caller)
		if res.Status != status {
			t.Errorf("%s: %d %s, want %d", what, res.Status, res.Body, status)
		}
		return reply{Status: res.Status, Body: string(res.Body)}
	}

	background("wait", alice)
	background("wait", alice)
	got := want("a third request of one user", "read", alice, 429)
	if got.code() != "M_LIMIT_EXCEEDED" || got.member("retry_after_ms") == "" {
		t.Errorf("the answer: %s", got.Body)
	}
	want("another user", "read", bob, 200)
	background("poll", alice)
	background("poll", alice)
	want("a third poll", "poll", alice, 429)
	for range 5 {
		background("own", alice)
	}
	background("wait", Caller{})
	background("wait", Caller{})
	// Four ordinary requests wait: the rest of the node's places is reserved.
	got = want("beyond the node's limit", "read", bob, 503)
	if ms := got.member("retry_after_ms"); len(ms) != 4 {
		t.Errorf("retry after %s ms, want 1000 to 4999", ms)
	}
	want("sending in an overload", "send", bob, 200)
	background("poll", bob)

	close(wait.open)
	calls.Wait()
	want("afterwards", "read", alice, 200)
	for i := range g.inFlight.shards {
		s := &g.inFlight.shards[i]
		s.mu.Lock()
		if len(s.mu.held) > 0 {
			t.Errorf("still held: %v", s.mu.held)
		}
		s.mu.Unlock()
	}
}

func TestAddressLimit(t *testing.T) {
	f := newInFlight([HoldOwn]caps{HoldShort: {node: 100, perUser: 100, perIP: 2}}, nil)
	a := holder{addr: addressKey(netip.MustParseAddr("2001:db8::1"))}
	same := holder{addr: addressKey(netip.MustParseAddr("2001:db8::2"))}
	other := holder{addr: addressKey(netip.MustParseAddr("192.0.2.1"))}
	if f.enterHolder(HoldShort, a) != nil || f.enterHolder(HoldShort, same) != nil {
		t.Fatal("refused within the limit")
	}
	if err := f.enterHolder(HoldShort, a); !merr.Is(err, merr.LimitExceeded) {
		t.Errorf("beyond the limit: %v", err)
	}
	if err := f.enterHolder(HoldShort, other); err != nil {
		t.Errorf("another address: %v", err)
	}
	for range 10 {
		if err := f.enterHolder(HoldShort, holder{}); err != nil {
			t.Errorf("in process: %v", err)
		}
	}
	f.leaveHolder(HoldShort, same)
	if err := f.enterHolder(HoldShort, a); err != nil {
		t.Errorf("after a leave: %v", err)
	}
}

func TestGivenUp(t *testing.T) {
	wait := newGate()
	g := newRig(t, []Route{route("GET", v3+"wait", wait.handle)}, rigOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan CallResult)
	go func() { done <- g.Call(ctx, Call{Method: "GET", Target: v3 + "wait"}) }()
	<-wait.entered
	cancel()
	if res := <-done; res.Status != 503 {
		t.Errorf("cancelled: %d %s", res.Status, res.Body)
	}
	if n := counted(t, g.metrics.requests.WithLabelValues("GET", v3+"wait", "499")); n != 1 {
		t.Errorf("a client that is gone counts as a failure")
	}
	ctx, cancel = context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if res := g.Call(ctx, Call{Method: "GET", Target: v3 + "wait"}); res.Status != 503 {
		t.Errorf("too late: %d %s", res.Status, res.Body)
	}
	<-wait.entered
	if strings.Contains(g.logs.String(), "ERROR") {
		t.Errorf("requests that were given up are logged as errors:\n%s", g.logs)
	}

	// The same over HTTP: the handler ends when the connection does.
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET "+v3+"wait HTTP/1.1\r\nHost: x\r\n\r\n")
	<-wait.entered
	conn.Close()
	// rig's server.Close waits for the handler; a handler that did not notice would
	// hang the test.
}

// TestLongPollOutlivesTheServersTimeouts: neither the read nor the write timeout of the
// server may end a poll that is longer.
func TestLongPollOutlivesTheServersTimeouts(t *testing.T) {
	const timeout = 20 * time.Millisecond
	g := newRig(t, []Route{
		route("GET", v3+"poll", func(r *Request) (any, error) {
			select {
			case <-time.After(5 * timeout):
				return Empty, nil
			case <-r.Context.Done():
				return nil, r.Context.Err()
			}
		}, func(r *Route) { r.Hold = HoldLong }),
	}, rigOptions{server: func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = timeout, timeout }})
	if got := g.raw("GET", v3+"poll", ""); got.Status != 200 || got.Body != "{}" {
		t.Errorf("%d %s", got.Status, got.Body)
	}
}

func TestDeadlines(t *testing.T) {
	var left time.Duration
	note := func(r *Request) (any, error) {
		left = 0
		if deadline, ok := r.Context.Deadline(); ok {
			left = time.Until(deadline).Round(time.Second)
		}
		return nil, nil
	}
	var routes []Route
	for hold := range HoldOwn + 1 {
		routes = append(routes, route("GET", fmt.Sprint(v3, "hold", hold), note, func(r *Route) { r.Hold = hold }))
	}
	g := newRig(t, routes, rigOptions{})
	for hold, want := range map[Hold]time.Duration{
		HoldShort: shortTimeout, HoldLong: MaxLongPoll + longGrace, HoldTransfer: transferTimeout, HoldOwn: 0,
	} {
		g.Call(context.Background(), Call{Method: "GET", Target: fmt.Sprint(v3, "hold", hold)})
		if left != want {
			t.Errorf("hold %d has %v left, want %v", hold, left, want)
		}
	}
}

func TestDecodeBody(t *testing.T) {
	type content struct {
		Name    *string           `json:"name"`
		Count   int               `json:"count"`
		Nested  map[string][]bool `json:"nested"`
		Content jsontext.Value    `json:"content"`
	}
	cases := []struct {
		body, member string
		code         merr.Code
	}{
		{`{"name":"a","count":1,"unknown":{},"nested":{"x":[true]}}`, "", ""},
		{``, "", ""},
		{`{"name":null}`, "", ""},
		{`{"NAME":5}`, "", ""},
		{`{"name":5}`, "name", merr.BadJSON},
		{`{"count":"1"}`, "count", merr.BadJSON},
		{`{"count":1.5}`, "count", merr.BadJSON},
		{`{"count":1e400}`, "count", merr.BadJSON},
		{`{"count":99999999999999999999}`, "count", merr.BadJSON},
		{`{"nested":{"x":[true,3]}}`, "nested.x.1", merr.BadJSON},
		{`{"count":1,"count":2}`, "count", merr.BadJSON},
		{`{"content":{"a":1,"a":2}}`, "content.a", merr.BadJSON},
		{`[]`, "", merr.BadJSON},
		{`{`, "", merr.NotJSON},
	}
	for _, tc := range cases {
		var v content
		err := DecodeBody(&Request{Body: []byte(tc.body)}, &v)
		if tc.code == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.body, err)
			}
			continue
		}
		if !merr.Is(err, tc.code) || tc.member != "" && !strings.Contains(merr.From(err).Msg, " "+tc.member) {
			t.Errorf("%s: %v, want %s about %q", tc.body, err, tc.code, tc.member)
		}
	}
	var long map[string]int
	err := DecodeBody(&Request{Body: []byte(`{"` + strings.Repeat("é", 5000) + `":"x"}`)}, &long)
	if e := merr.From(err); e.Code != merr.BadJSON || len(e.Msg) > 200 {
		t.Errorf("a long name: %d bytes, %s", len(e.Msg), e.Code)
	}
	if err := Missing("user"); merr.From(err).Code != merr.MissingParam || !strings.Contains(merr.From(err).Msg, "user") {
		t.Errorf("Missing: %v", err)
	}
}

func TestInput(t *testing.T) {
	r := &Request{
		Caller: Caller{User: "@me:x"},
		params: []param{{"room", "!r:x"}, {"me", "@me:x"}, {"you", "@you:x"}, {"bad", "nope"}, {"event", "$e"}, {"alias", "#a:x"}},
		Query:  map[string][]string{"n": {"50"}, "neg": {"-5"}, "bad": {"5x"}, "t": {"true"}, "f": {"false"}, "dir": {"b"}, "empty": {""}},
	}
	check := func(what string, got, want any, err error, code merr.Code) {
		t.Helper()
		if code == "" && (err != nil || got != want) || code != "" && !merr.Is(err, code) {
			t.Errorf("%s: %v, %v; want %v %s", what, got, err, want, code)
		}
	}
	room, err := r.RoomID("room")
	check("room", string(room), "!r:x", err, "")
	_, err = r.RoomID("me")
	check("no room", nil, nil, err, merr.InvalidParam)
	_, err = r.RoomID("absent")
	check("absent", nil, nil, err, merr.InvalidParam)
	event, err := r.EventID("event")
	check("event", string(event), "$e", err, "")
	alias, err := r.RoomAlias("alias")
	check("alias", string(alias), "#a:x", err, "")
	me, err := r.Self("me")
	check("self", string(me), "@me:x", err, "")
	_, err = r.Self("you")
	check("another", nil, nil, err, merr.Forbidden)
	_, err = r.Self("bad")
	check("no user", nil, nil, err, merr.InvalidParam)

	n, err := r.QueryInt("n", 10, 0, 100)
	check("int", n, int64(50), err, "")
	n, err = r.QueryInt("n", 10, 0, 20)
	check("int above", n, int64(20), err, "")
	n, err = r.QueryInt("neg", 10, 0, 20)
	check("int below", n, int64(0), err, "")
	n, err = r.QueryInt("absent", 10, 0, 20)
	check("int absent", n, int64(10), err, "")
	_, err = r.QueryInt("bad", 10, 0, 20)
	check("no int", nil, nil, err, merr.InvalidParam)
	for name, want := range map[string]bool{"t": true, "f": false, "absent": false} {
		b, err := r.QueryBool(name)
		check("bool "+name, b, want, err, "")
	}
	_, err = r.QueryBool("n")
	check("no bool", nil, nil, err, merr.InvalidParam)
	dir, err := r.QueryEnum("dir", "f", "b")
	check("enum", dir, "b", err, "")
	dir, err = r.QueryEnum("absent", "f", "b")
	check("enum absent", dir, "f", err, "")
	_, err = r.QueryEnum("n", "f", "b")
	check("no enum", nil, nil, err, merr.InvalidParam)
}

func BenchmarkCall(b *testing.B) {
	routes := specRoutes(b, nil)
	for i := range routes {
		routes[i].Auth, routes[i].Rate = AuthUser, RateSend
		routes[i].Handle = func(*Request) (any, error) { return jsontext.Value(`{"event_id":"$x"}`), nil }
	}
	o := options()
	limits := ratelimit.Defaults()
	limits[ratelimit.Send] = ratelimit.Limit{PerSecond: 1e6, Burst: 1e6}
	var err error
	if o.Limiter, err = ratelimit.New(limits); err != nil {
		b.Fatal(err)
	}
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	d, err := New(routes, o)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{60, 500, 5000} {
		body := []byte(`{"msgtype":"m.text","body":"` + strings.Repeat("x", size) + `"}`)
		b.Run(fmt.Sprint("send", size), func(b *testing.B) {
			b.ReportAllocs()
			call := Call{
				Method: "PUT", Target: "/_matrix/client/v3/rooms/!room/send/m.room.message/m1", Body: body,
				Caller: Caller{User: "@alice:x", Device: "D"}, Addr: netip.MustParseAddr("192.0.2.1"),
			}
			for b.Loop() {
				if res := d.Call(context.Background(), call); res.Status != 200 {
					b.Fatal(res.Status, string(res.Body))
				}
			}
		})
	}
}
