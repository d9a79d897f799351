package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

const v3 = "/_matrix/client/v3/"

func user(r *Route) { r.Auth = AuthUser }

func basicRoutes() []Route {
	return []Route{
		route("GET", v3+"directory/room/{roomAlias}", echo),
		route("GET", v3+"rooms/{roomId}/state/{eventType}/{stateKey}", echo, func(r *Route) {
			r.Also = []string{v3 + "rooms/{roomId}/state/{eventType}/"}
		}),
		route("PUT", v3+"rooms/{roomId}/state/{eventType}/{stateKey}", echo, func(r *Route) {
			r.Also = []string{v3 + "rooms/{roomId}/state/{eventType}/"}
		}),
		route("POST", v3+"any", echo),
		route("DELETE", v3+"any", echo),
		route("GET", v3+"any", echo),
		route("POST", v3+"small", echo, func(r *Route) { r.MaxBody = 10 }),
		route("PUT", v3+"raw", echo, func(r *Route) { r.RawBody = true }),
		route("GET", v3+"user", echo, user),
		route("GET", v3+"optional", echo, func(r *Route) { r.Auth = AuthOptional }),
		route("GET", v3+"guests", echo, user, func(r *Route) { r.Guest = true }),
		route("GET", v3+"header_only", echo, user, func(r *Route) { r.HeaderTokenOnly = true }),
		route("GET", "/_synapse/admin/v1/thing", echo, func(r *Route) { r.Auth = AuthAdmin }),
		route("GET", v3+"panic", func(*Request) (any, error) { panic("boom with detail") }),
		route("GET", v3+"fails", func(*Request) (any, error) { return nil, errors.New("disk on fire") }),
		route("GET", v3+"limited", func(*Request) (any, error) { return nil, merr.LimitedErr(1500*time.Millisecond + 1) }),
		route("GET", v3+"no_status", func(*Request) (any, error) { return nil, &merr.Error{Code: merr.Unknown} }),
		route("GET", v3+"status", func(*Request) (any, error) {
			return &Response{Status: 401, Header: http.Header{"Cache-Control": {"max-age=60"}, "x-lower": {"1"}}, Body: map[string]int{"a": 1}}, nil
		}),
		route("GET", v3+"bad_status", func(*Request) (any, error) { return Response{Status: 42}, nil }),
		route("GET", v3+"nil", func(*Request) (any, error) { return nil, nil }),
		route("GET", v3+"chan", func(*Request) (any, error) { return make(chan int), nil }),
		route("GET", v3+"bad_text", func(*Request) (any, error) { return "a\xff", nil }),
	}
}

func TestPathsAreTakenAsSent(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	alias := func(escaped, want string) {
		t.Helper()
		got := g.raw("GET", v3+"directory/room/"+escaped, "")
		if got.Status != 200 || got.member("params") != fmt.Sprint(map[string]any{"roomAlias": want}) {
			t.Errorf("%s: %d %s", escaped, got.Status, got.Body)
		}
	}
	alias("%23a%2Fb%3Ax", "#a/b:x")
	alias("%252F", "%2F")
	alias("..", "..")
	alias("a+b;c", "a+b;c")
	// A byte that should have been escaped must not make the slash a separator.
	alias(`%2F"`, `/"`)
	alias("%2F\xc3\xa9", "/é")

	for _, target := range []string{
		v3 + "directory//room/x", "/" + v3 + "directory/room/x", v3 + "directory/room//", v3 + "directory/room/x/",
		v3 + "x/../directory/room/x", v3 + "directory/room/x/..", v3 + "./directory/room/x", "/_matrix", "/_matrix/",
		"/_matrix/../_matrix/client/v3/any", "/_matrix/client/api/v1/any", "/_hubbub/x", "/_synapse/x", "/.well-known/matrix/x",
		"/_matrix/federation/v1/version",
	} {
		got := g.raw("GET", target, "")
		if strings.HasPrefix(target, "//") {
			// Not ours: the web app's handler answers.
			if got.Status != 404 || got.Body != "404 page not found\n" {
				t.Errorf("%s: %d %s", target, got.Status, got.Body)
			}
			continue
		}
		wantError(t, target, got, 404, merr.Unrecognized)
	}
	for _, target := range []string{
		v3 + "directory/room/%ff", v3 + "directory/room/a%00b", v3 + "directory/room/\xff",
		v3 + "any?a=%ff", v3 + "any?a=%00", v3 + "any?%zz=1", v3 + "any?a=%2", v3 + "any?" + strings.Repeat("a&", 10) + strings.Repeat("a=1&", 101),
	} {
		wantError(t, target, g.raw("GET", target, ""), 400, merr.InvalidParam)
	}
	got := g.raw("GET", v3+"any?via=a%26b&via=c+d&f=x;y&&=&q", "")
	if want := fmt.Sprint(map[string]any{"": []any{""}, "f": []any{"x;y"}, "q": []any{""}, "via": []any{"a&b", "c d"}}); got.member("query") != want {
		t.Errorf("query %s, want %s", got.member("query"), want)
	}
}

func TestStateWithEmptyKey(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	for _, tail := range []string{"", "/"} {
		for _, method := range []string{"GET", "PUT"} {
			for _, version := range []string{"v3", "r0"} {
				got := g.raw(method, "/_matrix/client/"+version+"/rooms/!r/state/m.room.name"+tail, "")
				if want := fmt.Sprint(map[string]any{"roomId": "!r", "eventType": "m.room.name"}); got.Status != 200 || got.member("params") != want {
					t.Errorf("%s %q: %d %s", method, tail, got.Status, got.Body)
				}
			}
		}
	}
}

func TestMethods(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	got := g.raw("PUT", v3+"any", "{}")
	wantError(t, "PUT", got, 405, merr.Unrecognized)
	if allow := got.Header.Get("Allow"); allow != "DELETE, GET, HEAD, OPTIONS, POST" {
		t.Errorf("Allow: %q", allow)
	}
	got = g.raw("HEAD", v3+"any", "")
	if got.Status != 200 || got.Body != "" || got.Header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: %+v", got)
	}
	wantError(t, "BREW", g.raw("BREW", v3+"any", ""), 405, merr.Unrecognized)
}

func TestHeadersOnEverything(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"GET", v3 + "any", 200},
		{"OPTIONS", v3 + "any", 204},
		{"OPTIONS", v3 + "user", 204},
		{"OPTIONS", "/_matrix/nowhere", 204},
		{"GET", v3 + "user", 401},
		{"GET", "/_matrix/nowhere", 404},
		{"PUT", v3 + "any", 405},
		{"GET", v3 + "limited", 429},
		{"GET", v3 + "fails", 500},
		{"GET", v3 + "panic", 500},
		{"GET", v3 + "directory/room/%ff", 400},
	} {
		got := g.raw(tc.method, tc.path, "")
		if got.Status != tc.status {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.path, got.Status, tc.status)
		}
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":  "*",
			"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
			"Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
			"Cache-Control":                "no-store",
			"X-Content-Type-Options":       "nosniff",
			"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
			"Referrer-Policy":              "no-referrer",
		} {
			if got.Header.Get(name) != want {
				t.Errorf("%s %s: %s is %q", tc.method, tc.path, name, got.Header.Get(name))
			}
		}
		if tc.status != 204 && (got.Header.Get("Content-Type") != "application/json" || got.Header.Get("X-Request-Id") == "") {
			t.Errorf("%s %s: %v", tc.method, tc.path, got.Header)
		}
	}
	got := g.raw("GET", v3+"status", "")
	if got.Status != 401 || got.Body != `{"a":1}` || got.Header.Get("Cache-Control") != "max-age=60" || got.Header.Get("X-Lower") != "1" {
		t.Errorf("a Response: %+v", got)
	}
}

func TestTokens(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	cases := []struct {
		path, header string
		status       int
		code         merr.Code
		user         string
	}{
		{v3 + "user", "", 401, merr.MissingToken, ""},
		{v3 + "user", "Authorization: Basic YTpi", 401, merr.MissingToken, ""},
		{v3 + "user", "Authorization: Bearer", 401, merr.MissingToken, ""},
		{v3 + "user?access_token=", "", 401, merr.MissingToken, ""},
		{v3 + "user", as("wrong"), 401, merr.UnknownToken, ""},
		{v3 + "user", as("alice"), 200, "", "@alice:x"},
		{v3 + "user", "authorization: bearer  alice", 200, "", "@alice:x"},
		{v3 + "user?access_token=alice", "", 200, "", "@alice:x"},
		{v3 + "user?access_token=wrong", as("alice"), 200, "", "@alice:x"},
		{v3 + "header_only?access_token=alice", "", 401, merr.MissingToken, ""},
		{v3 + "header_only", as("alice"), 200, "", "@alice:x"},
		{v3 + "any", as("wrong"), 200, "", ""},
		{v3 + "any", as("alice"), 200, "", ""},
		{v3 + "optional", "", 200, "", ""},
		{v3 + "optional", as("alice"), 200, "", "@alice:x"},
		{v3 + "optional", as("guest"), 200, "", "@guest:x"},
		{v3 + "optional", as("wrong"), 401, merr.UnknownToken, ""},
		{v3 + "user", as("guest"), 403, merr.GuestAccessForbidden, ""},
		{v3 + "guests", as("guest"), 200, "", "@guest:x"},
		{"/_synapse/admin/v1/thing", "", 401, merr.MissingToken, ""},
		{"/_synapse/admin/v1/thing", as("alice"), 403, merr.Forbidden, ""},
		{"/_synapse/admin/v1/thing", as("admin"), 200, "", "@admin:x"},
		{v3 + "user?user_id=%40puppet:x&device_id=D", as("bridge"), 200, "", "@puppet:x"},
		{v3 + "user", as("broken"), 500, merr.Unknown, ""},
		{v3 + "user", as("nobody"), 500, merr.Unknown, ""},
	}
	for _, tc := range cases {
		got := g.raw("GET", tc.path, "", tc.header)
		if tc.header == "" {
			got = g.raw("GET", tc.path, "")
		}
		if got.Status != tc.status || got.code() != string(tc.code) || got.Status == 200 && got.member("user") != tc.user {
			t.Errorf("%s %q: %d %s, want %d %s %s", tc.path, tc.header, got.Status, got.Body, tc.status, tc.code, tc.user)
		}
		if strings.Contains(got.Body, "secret detail") || strings.Contains(got.Body, "access_token") {
			t.Errorf("%s %q: leaks: %s", tc.path, tc.header, got.Body)
		}
	}
	if got := g.raw("GET", v3+"user", "", as("wrong")); got.member("soft_logout") != "true" {
		t.Errorf("soft_logout is lost: %s", got.Body)
	}
	g.raw("GET", v3+"user?user_id=%40puppet:x&device_id=D", "", as("bridge"), "User-Agent: ua")
	want := Credentials{Token: "bridge", ActAs: "@puppet:x", ActAsDevice: "D", Addr: netip.MustParseAddr("127.0.0.1"), UserAgent: "ua"}
	if c := g.auth.last(); c != want {
		t.Errorf("credentials %+v", c)
	}
}

func TestBodies(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	padding := strings.Repeat("x", DefaultMaxBody)
	cases := []struct {
		name, path, body string
		status           int
		code             merr.Code
	}{
		{"object", "any", `{"a":[1,"é\u0000"]}`, 200, ""},
		{"white space around", "any", " \n{} ", 200, ""},
		{"empty", "any", "", 200, ""},
		{"cut off", "any", `{"a":`, 400, merr.NotJSON},
		{"no JSON", "any", "hello", 400, merr.NotJSON},
		{"white space only", "any", " ", 400, merr.NotJSON},
		{"two values", "any", "{}{}", 400, merr.NotJSON},
		{"bad UTF-8", "any", "{\"a\":\"\xff\"}", 400, merr.NotJSON},
		{"lone surrogate", "any", `{"a":"\ud800"}`, 400, merr.NotJSON},
		{"gzip", "any", "\x1f\x8b\x08\x00", 400, merr.NotJSON},
		{"array", "any", "[]", 400, merr.BadJSON},
		{"string", "any", `"x"`, 400, merr.BadJSON},
		{"null", "any", "null", 400, merr.BadJSON},
		{"twice", "any", `{"a":{"b":1,"b":2}}`, 400, merr.BadJSON},
		{"as deep as allowed", "any", nested(maxDepth), 200, ""},
		{"too deep", "any", nested(maxDepth + 1), 400, merr.BadJSON},
		{"much too deep", "any", strings.Repeat("[", 100_000), 400, merr.BadJSON},
		{"brackets in a string", "any", `{"a":"` + strings.Repeat(`[{\"`, 200) + `"}`, 200, ""},
		{"as large as allowed", "any", `{"a":"` + padding[8:] + `"}`, 200, ""},
		{"too large", "any", `{"a":"` + padding[7:] + `"}`, 413, merr.TooLarge},
		{"within the route's limit", "small", `{"a":1234}`, 200, ""},
		{"beyond the route's limit", "small", `{"a":12345}`, 413, merr.TooLarge},
		{"raw", "raw", "[[[ not json", 200, ""},
	}
	for _, tc := range cases {
		for _, chunked := range []bool{false, true} {
			method := "POST"
			if tc.path == "raw" {
				method = "PUT"
			}
			var got reply
			if chunked && tc.body != "" {
				got = g.chunked(method, v3+tc.path, tc.body)
			} else {
				got = g.raw(method, v3+tc.path, tc.body)
			}
			if got.Status != tc.status || got.code() != string(tc.code) {
				t.Errorf("%s (chunked %v): %d %.200s, want %d %s", tc.name, chunked, got.Status, got.Body, tc.status, tc.code)
			}
			if got.Status == 200 && got.member("body") != tc.body {
				t.Errorf("%s: the handler saw %.100q", tc.name, got.member("body"))
			}
		}
	}
	if got := g.raw("POST", v3+"any", `{"a":{"b":1,"b":2}}`); !strings.Contains(got.Body, "a.b") {
		t.Errorf("the duplicate is not named: %s", got.Body)
	}
	if got := g.raw("POST", v3+"any", ""); got.member("nil_body") != "true" {
		t.Errorf("an empty body is not nil: %s", got.Body)
	}
	if got := g.raw("DELETE", v3+"any", "nope"); got.code() != "M_NOT_JSON" {
		t.Errorf("DELETE: %s", got.Body)
	}
	if got := g.raw("GET", v3+"any", "nope"); got.Status != 200 || got.member("nil_body") != "true" {
		t.Errorf("GET with a body: %d %s", got.Status, got.Body)
	}
}

func (g *rig) chunked(method, target, body string) reply {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n", method, target)
	fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	return g.read(conn, method)
}

// TestNoBodyIsReadBeforeItsSenderMayCall: whoever has no right to send gets the
// answer although the body never comes.
func TestNoBodyIsReadBeforeItsSenderMayCall(t *testing.T) {
	g := newRig(t, []Route{
		route("POST", v3+"user", echo, user),
		streamRoute("/_matrix/media/v3/upload", func(r *Request, w http.ResponseWriter, _ *http.Request) {
			r.WriteError(w, merr.New(http.StatusUnauthorized, merr.MissingToken, "Not so"))
		}),
	}, rigOptions{server: func(s *http.Server) { s.ReadTimeout = time.Hour }})
	var conns []net.Conn
	for _, path := range []string{v3 + "user", "/_matrix/media/v3/upload"} {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n", path)
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		wantError(t, "no token", g.read(conn, "POST"), 401, merr.MissingToken)
	}
}

func TestSlowBodyIsGivenUp(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{server: func(s *http.Server) { s.ReadTimeout = 50 * time.Millisecond }})
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %sany HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{", v3)
	wantError(t, "a body that stops", g.read(conn, "POST"), 408, merr.Unknown)
}

func TestBodyCutOff(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %sany HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n", v3)
	wantError(t, "malformed chunks", g.read(conn, "POST"), 400, merr.Unknown)
}

func TestErrorsAndPanics(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	for _, path := range []string{"panic", "fails", "no_status", "bad_status", "chan"} {
		got := g.raw("GET", v3+path, "")
		wantError(t, path, got, 500, merr.Unknown)
		if got.member("error") != "Internal server error" {
			t.Errorf("%s tells: %s", path, got.Body)
		}
	}
	logs := g.logs.String()
	for _, want := range []string{"boom with detail", "http_test.go", "disk on fire"} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if n := counted(t, g.metrics.panics); n != 1 {
		t.Errorf("%v panics counted, want 1", n)
	}
	if got := g.raw("GET", v3+"nil", ""); got.Status != 200 || got.Body != "{}" {
		t.Errorf("nil: %d %s", got.Status, got.Body)
	}
	if got := g.raw("GET", v3+"bad_text", ""); got.Status != 200 || got.Body != `"a�"` {
		t.Errorf("bad text: %d %s", got.Status, got.Body)
	}
	got := g.raw("GET", v3+"limited", "")
	wantError(t, "limited", got, 429, merr.LimitExceeded)
	if got.Header.Get("Retry-After") != "2" || got.member("retry_after_ms") != "1501" {
		t.Errorf("retry: %q %s", got.Header.Get("Retry-After"), got.Body)
	}
}

func TestLogsHoldNoSecrets(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	g.raw("GET", v3+"user?access_token=canary1&q=canary2", "")
	g.raw("GET", v3+"user?q=canary3", "", as("canary4"))
	g.raw("POST", v3+"any", `{"password":"canary5"}`)
	g.raw("POST", v3+"any", `{"password":"canary6"`)
	g.raw("GET", v3+"directory/room/canary7", "")
	g.raw("GET", "/_matrix/canary8?access_token=canary9", "")
	g.raw("CANARY", v3+"any", "")
	g.raw("GET", v3+"user?access_token=alice&user_id=canary10", "")
	logs := g.logs.String()
	if strings.Contains(strings.ToLower(logs), "canary") {
		t.Errorf("a secret or a client's text is in the log:\n%s", logs)
	}
	for _, want := range []string{
		"route=" + v3 + "directory/room/{roomAlias}", "status=401", "status=400", "route=unmatched", "user=@alice:x", "addr=127.0.0.1", "bytes=",
	} {
		if !strings.Contains(logs, want) {
			t.Errorf("the log lacks %q:\n%s", want, logs)
		}
	}
}

// What is in order is a debug line; what failed or took long is not, but for polls,
// which wait.
func TestLogLevels(t *testing.T) {
	var g *rig
	slow := func(path string, hold Hold) Route {
		rt := route("GET", v3+path, func(*Request) (any, error) {
			g.clock.Advance(slowRequest)
			return nil, nil
		})
		rt.Hold = hold
		return rt
	}
	g = newRig(t, append(basicRoutes(), slow("slow", HoldShort), slow("poll", HoldLong)), rigOptions{})
	for path, want := range map[string]string{"nil": "DEBUG", "fails": "INFO", "limited": "INFO", "slow": "INFO", "poll": "DEBUG"} {
		g.raw("GET", v3+path, "")
		line := ""
		for l := range strings.Lines(g.logs.String()) {
			if strings.Contains(l, "msg=request ") && strings.Contains(l, "route="+v3+path+" ") {
				line = l
			}
		}
		if !strings.Contains(line, "level="+want+" ") {
			t.Errorf("%s is not logged as %s: %q", path, want, line)
		}
	}
}

func TestMetrics(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	g.raw("GET", "/_matrix/client/r0/directory/room/a", "")
	g.raw("GET", v3+"directory/room/b", "")
	g.raw("GET", v3+"directory/room/%ff", "")
	g.raw("NONSENSE", "/_matrix/x1", "")
	g.raw("GET", "/_matrix/x2", "")
	template := v3 + "directory/room/{roomAlias}"
	for _, tc := range []struct {
		labels []string
		want   float64
	}{
		{[]string{"GET", template, "200"}, 2},
		{[]string{"GET", template, "400"}, 1},
		{[]string{"", unmatched, "404"}, 2},
	} {
		if got := counted(t, g.metrics.requests.WithLabelValues(tc.labels...)); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.labels, got, tc.want)
		}
	}
	if n := g.series("hubbub_api_requests_total"); n != 3 {
		t.Errorf("%d series, want 3", n)
	}
	if n := g.series("hubbub_api_in_flight"); n != 3 {
		t.Errorf("in flight: %d series", n)
	}
	for hold := range HoldOwn {
		if n := g.inFlight.node[hold].Load(); n != 0 {
			t.Errorf("%d requests of hold %d are still in flight", n, hold)
		}
	}
}

func TestRateLimits(t *testing.T) {
	limits := ratelimit.Defaults()
	limits[ratelimit.Send] = ratelimit.Limit{PerSecond: 1, Burst: 2}
	limits[ratelimit.Login] = ratelimit.Limit{PerSecond: 0.5, Burst: 1}
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	g := newRig(t, []Route{
		route("GET", v3+"send", echo, user, func(r *Route) { r.Rate = RateSend }),
		route("GET", v3+"login", echo, func(r *Route) { r.Auth, r.Rate = AuthOptional, RateLogin }),
	}, rigOptions{limits: limits, proxies: trusted})
	send := func(token string) int { return g.raw("GET", v3+"send", "", as(token)).Status }
	if a, b, c := send("alice"), send("alice"), send("alice"); a != 200 || b != 200 || c != 429 {
		t.Errorf("three sends: %d %d %d", a, b, c)
	}
	if got := send("bob"); got != 200 {
		t.Errorf("another user: %d", got)
	}
	for range 5 {
		if got := send("bridge"); got != 200 {
			t.Errorf("an unlimited caller: %d", got)
		}
	}
	got := g.raw("GET", v3+"send", "", as("alice"))
	wantError(t, "limited", got, 429, merr.LimitExceeded)
	if got.Header.Get("Retry-After") != "1" || got.member("retry_after_ms") != "1000" {
		t.Errorf("retry: %v %s", got.Header, got.Body)
	}
	g.clock.Advance(time.Second)
	if a, b := send("alice"), send("alice"); a != 200 || b != 429 {
		t.Errorf("a second later: %d %d", a, b)
	}

	login := func(addr, token string) int {
		return g.raw("GET", v3+"login", "", "X-Forwarded-For: "+addr, as(token)).Status
	}
	// A login counts for its address, whoever sends it.
	if a, b, c := login("192.0.2.1", "alice"), login("192.0.2.1", "bob"), login("192.0.2.2", "bob"); a != 200 || b != 429 || c != 200 {
		t.Errorf("logins: %d %d %d", a, b, c)
	}
	if a, b, c := login("2001:db8::1", "bob"), login("2001:db8::2", "bob"), login("2001:db8:0:1::1", "bob"); a != 200 || b != 429 || c != 200 {
		t.Errorf("logins from one /64 and the next: %d %d %d", a, b, c)
	}
}

func TestClientAddress(t *testing.T) {
	d := &Dispatcher{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	cases := []struct {
		name, remote string
		forwarded    []string
		want         string
		trusted      bool
	}{
		{"no proxy", "192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1", false},
		{"proxy", "10.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1", true},
		{"mapped proxy", "[::ffff:10.0.0.1]:5", []string{"198.51.100.1"}, "198.51.100.1", true},
		{"invented left part", "10.0.0.1:5", []string{"10.9.9.9, 203.0.113.9, 198.51.100.1"}, "198.51.100.1", true},
		{"two proxies", "10.0.0.1:5", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1", true},
		{"several lines", "10.0.0.1:5", []string{"203.0.113.9", "198.51.100.1", "10.0.0.2,10.0.0.3"}, "198.51.100.1", true},
		{"only proxies", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3", true},
		{"no header", "10.0.0.1:5", nil, "10.0.0.1", true},
		{"rubbish", "10.0.0.1:5", []string{"198.51.100.1, unknown"}, "10.0.0.1", true},
		{"rubbish behind", "10.0.0.1:5", []string{"198.51.100.1, '; DROP, 10.0.0.2"}, "10.0.0.2", true},
		{"with ports", "10.0.0.1:5", []string{"198.51.100.1:443"}, "198.51.100.1", true},
		{"IPv6", "[fd00::1]:5", []string{"2001:db8::1"}, "2001:db8::1", true},
		{"IPv6 with port", "[fd00::1]:5", []string{"[2001:db8::1]:443"}, "2001:db8::1", true},
		{"IPv6 in brackets", "[fd00::1]:5", []string{"[2001:db8::1]"}, "2001:db8::1", true},
		{"zone", "[fe80::1%eth0]:5", nil, "fe80::1", false},
		{"empty", "10.0.0.1:5", []string{""}, "10.0.0.1", true},
		{"endless", "10.0.0.1:5", []string{"192.0.2.9" + strings.Repeat(",10.0.0.2", 100)}, "10.0.0.2", true},
		{"socket", "@", []string{"198.51.100.1"}, "invalid IP", false},
	}
	for _, tc := range cases {
		hr := &http.Request{RemoteAddr: tc.remote, Header: http.Header{"X-Forwarded-For": tc.forwarded}}
		if addr, trusted := d.clientAddr(hr); addr.String() != tc.want || trusted != tc.trusted {
			t.Errorf("%s: %v %v, want %v %v", tc.name, addr, trusted, tc.want, tc.trusted)
		}
	}
}

func TestRequestID(t *testing.T) {
	trusted := newRig(t, basicRoutes(), rigOptions{proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	stranger := newRig(t, basicRoutes(), rigOptions{})
	if got := trusted.raw("GET", v3+"any", "", "X-Request-Id: abc-1"); got.Header.Get("X-Request-Id") != "abc-1" || got.member("id") != "abc-1" {
		t.Errorf("a proxy's ID: %v %s", got.Header, got.Body)
	}
	for _, id := range []string{"a b", "a\"b", strings.Repeat("a", 65), "é"} {
		if got := trusted.raw("GET", v3+"any", "", "X-Request-Id: "+id); got.member("id") == id {
			t.Errorf("the ID %q was taken", id)
		}
	}
	a, b := stranger.raw("GET", v3+"any", "", "X-Request-Id: abc"), stranger.raw("GET", v3+"any", "")
	if a.member("id") == "abc" || a.member("id") == "" || a.member("id") == b.member("id") {
		t.Errorf("IDs %q and %q", a.member("id"), b.member("id"))
	}
}

func streamRoute(path string, stream func(*Request, http.ResponseWriter, *http.Request), edit ...func(*Route)) Route {
	r := route("POST", path, nil, edit...)
	r.Stream = stream
	return r
}

func TestStreams(t *testing.T) {
	g := newRig(t, []Route{
		streamRoute("/_matrix/media/v3/upload", func(r *Request, w http.ResponseWriter, hr *http.Request) {
			n, err := io.Copy(io.Discard, hr.Body)
			if err != nil {
				r.WriteError(w, fmt.Errorf("upload: %w", err))
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprintf(w, "%s %s %d", r.Caller.User, r.Param("x"), n)
		}, user, func(r *Route) { r.MaxBody = 100 }),
		streamRoute("/_matrix/media/v3/early", func(*Request, http.ResponseWriter, *http.Request) { panic("early") }),
		streamRoute("/_matrix/media/v3/late", func(_ *Request, w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			panic("late")
		}),
		streamRoute("/_hubbub/v1/hijack", func(_ *Request, w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			conn.Close()
		}, func(r *Route) { r.Hold = HoldOwn }),
	}, rigOptions{})
	const upload = "/_matrix/media/v3/upload"
	if got := g.raw("POST", upload, "not json"); got.code() != "M_MISSING_TOKEN" {
		t.Errorf("without a token: %s", got.Body)
	}
	got := g.raw("POST", "/_matrix/media/r0/upload", "not json", as("alice"))
	if got.Body != "@alice:x  8" || got.Header.Get("Content-Type") != "text/plain" || got.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("upload: %+v", got)
	}
	wantError(t, "too large", g.raw("POST", upload, strings.Repeat("x", 101), as("alice")), 413, merr.TooLarge)
	wantError(t, "early panic", g.raw("POST", "/_matrix/media/v3/early", ""), 500, merr.Unknown)

	res, err := http.Post(g.url+"/_matrix/media/v3/late", "", nil)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("an answer that a panic cut off looks complete")
	}
	if got := g.raw("POST", "/_hubbub/v1/hijack", ""); got.Status != 101 {
		t.Errorf("hijack: %+v", got)
	}
	if n := counted(t, g.metrics.panics); n != 2 {
		t.Errorf("%v panics counted, want 2", n)
	}
	if n := counted(t, g.metrics.requests.WithLabelValues("POST", upload, "200")); n != 1 {
		t.Errorf("%v uploads counted", n)
	}
}

func TestServerLimits(t *testing.T) {
	s := NewHTTPServer(http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= MaxLongPoll || s.IdleTimeout <= 0 || s.MaxHeaderBytes != 64<<10 ||
		s.HTTP2 == nil || s.HTTP2.MaxConcurrentStreams <= 0 || s.HTTP2.MaxConcurrentStreams > 1000 {
		t.Errorf("a limit is missing: %+v", s)
	}
	g := newRig(t, basicRoutes(), rigOptions{})
	got := g.raw("GET", v3+"any", "", "X-Long: "+strings.Repeat("a", 80<<10))
	if got.Status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("80 KB of headers: %d", got.Status)
	}
}

// TestNoHTTP2InClearText: neither by its preface nor by an upgrade. Frames in clear
// text have escaped the time limits of servers in Go.
func TestNoHTTP2InClearText(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	if raw, _ := io.ReadAll(conn); !bytes.HasPrefix(raw, []byte("HTTP/1.1 ")) {
		t.Errorf("the preface is answered by %q", raw)
	}
	got := g.raw("GET", v3+"any", "", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
	if got.Status == http.StatusSwitchingProtocols {
		t.Errorf("upgraded: %+v", got)
	}
}

// TestOneRequestIsOne: where two readers of HTTP could differ in where a request ends,
// it is refused and the connection closed, or it is the last one of its connection, so
// that nothing is smuggled past a proxy.
func TestOneRequestIsOne(t *testing.T) {
	g := newRig(t, basicRoutes(), rigOptions{})
	const second = "GET /_matrix/client/v3/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, head := range map[string]string{
		"two lengths":            "Content-Length: 0\r\nContent-Length: 5\r\n",
		"a list of lengths":      "Content-Length: 0, 5\r\n",
		"a signed length":        "Content-Length: +0\r\n",
		"a negative length":      "Content-Length: -1\r\n",
		"a length in hex":        "Content-Length: 0x0\r\n",
		"unknown coding":         "Transfer-Encoding: xchunked\r\n",
		"two codings":            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"coding with a tab":      "Transfer-Encoding:\vchunked\r\n",
		"space before the colon": "Content-Length : 0\r\n",
		"NUL":                    "X: a\x00b\r\n",
		"both, long":             "Content-Length: 3\r\nTransfer-Encoding: chunked, identity\r\n",
	} {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST "+v3+"any HTTP/1.1\r\nHost: x\r\n"+head+"\r\n"+second); err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(conn)
		_ = conn.Close()
		if n := bytes.Count(raw, []byte("HTTP/1.1 ")); n != 1 || !bytes.HasPrefix(raw, []byte("HTTP/1.1 400")) && !bytes.HasPrefix(raw, []byte("HTTP/1.1 501")) {
			t.Errorf("%s: %d answers: %.200q", name, n, raw)
		}
	}
}

func TestOwns(t *testing.T) {
	for path, want := range map[string]bool{
		"/_matrix": true, "/_matrix/": true, "/_matrix/client/versions": true, "/_hubbub/v1/ws": true, "/_synapse/x": true,
		"/.well-known/matrix/client": true, "/": false, "": false, "/index.html": false, "/_matrixx": false, "//_matrix/": false,
		"/.well-known/acme-challenge/x": false, "/_MATRIX/": false,
	} {
		if Owns(path) != want {
			t.Errorf("Owns(%q) is %v", path, !want)
		}
	}
}
