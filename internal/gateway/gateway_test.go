package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// patience bounds waits that a working server ends at once.
const patience = 20 * time.Second

// peer is an independent client.
type peer struct {
	*websocket.Conn
	tb  testing.TB
	ctx context.Context
}

func dialWith(tb testing.TB, f *fixture, opts *websocket.DialOptions) *peer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	conn, _, err := websocket.Dial(ctx, f.url+wire.Path, opts)
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	conn.SetReadLimit(-1)
	p := &peer{Conn: conn, tb: tb, ctx: ctx}
	tb.Cleanup(func() {
		_ = conn.CloseNow()
		cancel()
	})
	return p
}

func dial(tb testing.TB, f *fixture) *peer {
	tb.Helper()
	return dialWith(tb, f, &websocket.DialOptions{
		Subprotocols: []string{wire.Subprotocol}, CompressionMode: websocket.CompressionContextTakeover,
	})
}

// signIn dials and says hello.
func signIn(tb testing.TB, f *fixture, token string, sync bool) *peer {
	tb.Helper()
	p := dial(tb, f)
	p.say(fmt.Sprintf(`{"op":"hello","access_token":%q,"sync":%t}`, token, sync))
	if m := p.hear(); m["op"] != "hello" {
		tb.Fatalf("got %v", m)
	}
	return p
}

func (p *peer) say(m string) {
	p.tb.Helper()
	if err := p.Write(p.ctx, websocket.MessageText, []byte(m)); err != nil {
		p.tb.Fatal(err)
	}
}

func (p *peer) hear() map[string]any {
	p.tb.Helper()
	_, b, err := p.Read(p.ctx)
	if err != nil {
		p.tb.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		p.tb.Fatalf("%s: %v", b, err)
	}
	return m
}

// closed reads until the server's close frame and returns its code.
func (p *peer) closed() int {
	p.tb.Helper()
	for {
		if _, _, err := p.Read(p.ctx); err != nil {
			if code := websocket.CloseStatus(err); code != -1 {
				return int(code)
			}
			p.tb.Fatal(err)
		}
	}
}

func (p *peer) expectClose(code int) {
	p.tb.Helper()
	if got := p.closed(); got != code {
		p.tb.Fatalf("closed with %d, want %d", got, code)
	}
}

func TestHello(t *testing.T) {
	f := serve(t, Config{})
	p := dial(t, f)
	if p.Subprotocol() != wire.Subprotocol {
		t.Errorf("subprotocol %q", p.Subprotocol())
	}
	p.say(`{"op":"hello","access_token":"@a:x/D","sync":true,"since":"s1","marks":{"12":"90a"},
		"filter":{"room":{}},"full_state":true,"set_presence":"unavailable","unknown":[1]}`)
	m := p.hear()
	if m["op"] != "hello" || m["user_id"] != "@a:x" || m["device_id"] != "D" ||
		m["heartbeat_ms"] != 30000.0 || m["max_message_bytes"] != 131072.0 {
		t.Errorf("hello: %v", m)
	}
	s := <-f.feed.opened
	o := s.open
	if o.User != "@a:x" || o.Device != "D" || o.Since != "s1" || o.Marks["12"] != "90a" ||
		o.Filter != `{"room":{}}` || !o.FullState || o.SetPresence != "unavailable" {
		t.Errorf("open: %+v", o)
	}
	s.sink.Send([]byte(`{"op":"sync","n":1}`))
	if m := p.hear(); m["op"] != "sync" || m["n"] != 1.0 {
		t.Errorf("sync: %v", m)
	}
	p.say(`{"op":"ack","since":"s2"}`)
	if got := <-f.feed.acks; got != "s2" {
		t.Errorf("ack %q", got)
	}
	p.say(`{"op":"ping"}`)
	if m := p.hear(); m["op"] != "pong" {
		t.Errorf("pong: %v", m)
	}
}

func TestMessagesThatClose(t *testing.T) {
	for name, c := range map[string]struct {
		hello bool
		say   []string
		code  int
	}{
		"not JSON":                 {true, []string{`{"op":`}, wire.CloseMalformed},
		"not an object":            {true, []string{`[]`}, wire.CloseMalformed},
		"null":                     {true, []string{`null`}, wire.CloseMalformed},
		"duplicate member":         {true, []string{`{"op":"ping","op":"ping"}`}, wire.CloseMalformed},
		"wrong type":               {true, []string{`{"op":7}`}, wire.CloseMalformed},
		"trailing bytes":           {true, []string{`{"op":"ping"}{}`}, wire.CloseMalformed},
		"unknown op":               {true, []string{`{"op":"dance"}`}, wire.CloseMalformed},
		"empty message":            {true, []string{``}, wire.CloseMalformed},
		"before hello":             {false, []string{`{"op":"ping"}`}, wire.CloseMalformed},
		"second hello":             {true, []string{`{"op":"hello","access_token":"@a:x/D"}`}, wire.CloseMalformed},
		"unknown token":            {false, []string{`{"op":"hello","access_token":"nonsense"}`}, wire.CloseUnauthorized},
		"sync without token":       {false, []string{`{"op":"hello","sync":true}`}, wire.CloseUnauthorized},
		"locked":                   {false, []string{`{"op":"hello","access_token":"locked"}`}, wire.CloseForbidden},
		"auth fails inside":        {false, []string{`{"op":"hello","access_token":"down"}`}, wire.CloseInternal},
		"unknown position":         {false, []string{`{"op":"hello","access_token":"@a:x/D","sync":true,"since":"unknown"}`}, wire.CloseUnknownPos},
		"bad filter":               {false, []string{`{"op":"hello","access_token":"@a:x/D","sync":true,"since":"badfilter"}`}, wire.CloseMalformed},
		"filter of a wrong type":   {false, []string{`{"op":"hello","access_token":"@a:x/D","sync":true,"filter":[]}`}, wire.CloseMalformed},
		"feed fails":               {false, []string{`{"op":"hello","access_token":"@a:x/D","sync":true,"since":"broken"}`}, wire.CloseInternal},
		"req without id":           {true, []string{`{"op":"req","method":"GET","path":"/x"}`}, wire.CloseMalformed},
		"req with negative id":     {true, []string{`{"op":"req","id":-1,"method":"GET","path":"/x"}`}, wire.CloseMalformed},
		"req with too high id":     {true, []string{`{"op":"req","id":9007199254740992,"method":"GET","path":"/x"}`}, wire.CloseMalformed},
		"req without path":         {true, []string{`{"op":"req","id":1,"method":"GET"}`}, wire.CloseMalformed},
		"req with an open id":      {true, []string{`{"op":"req","id":1,"method":"GET","path":"/block"}`, `{"op":"req","id":1,"method":"GET","path":"/x"}`}, wire.CloseMalformed},
		"cancel without id":        {true, []string{`{"op":"cancel"}`}, wire.CloseMalformed},
		"ack without sync":         {true, []string{`{"op":"ack","since":"s1"}`}, wire.CloseMalformed},
		"auth without token":       {true, []string{`{"op":"auth"}`}, wire.CloseUnauthorized},
		"auth with a bad token":    {true, []string{`{"op":"auth","access_token":"nonsense"}`}, wire.CloseUnauthorized},
		"auth of another user":     {true, []string{`{"op":"auth","access_token":"@b:x/D"}`}, wire.CloseUnauthorized},
		"auth of another device":   {true, []string{`{"op":"auth","access_token":"@a:x/E"}`}, wire.CloseUnauthorized},
		"auth starting sync twice": {true, []string{`{"op":"auth","access_token":"@a:x/D","sync":true}`, `{"op":"auth","access_token":"@a:x/D","sync":true}`}, wire.CloseMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, Config{})
			f.auth.revoke("locked", merr.New(http.StatusUnauthorized, merr.UserLocked, "locked"))
			f.auth.revoke("down", errors.New("the store is down"))
			var p *peer
			if c.hello {
				p = signIn(t, f, "@a:x/D", false)
			} else {
				p = dial(t, f)
			}
			for _, m := range c.say {
				p.say(m)
			}
			p.expectClose(c.code)
		})
	}
}

func TestBinaryIsRefused(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", false)
	if err := p.Write(p.ctx, websocket.MessageBinary, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	p.expectClose(wire.CloseMalformed)
}

func TestUnknownPositionInAck(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", true)
	<-f.feed.opened
	p.say(`{"op":"ping"}`) // the sync has started when this is answered
	p.hear()
	p.say(`{"op":"ack","since":"unknown"}`)
	p.expectClose(wire.CloseUnknownPos)
}

// A client that acknowledges without a pause has the whole time for each: the fake feed
// takes one when the test takes it.
func TestEachAckHasItsTime(t *testing.T) {
	f := serve(t, Config{})
	f.feed.acks = make(chan string)
	p := signIn(t, f, "@a:x/D", true)
	<-f.feed.opened
	var before time.Time
	p.say(`{"op":"ack","since":"s0"}`)
	for i := 1; i < 5; i++ {
		until := <-f.feed.ackTimes
		if !until.After(before) {
			t.Errorf("the time of %d ends at %v, that of the one before at %v", i, until, before)
		}
		before = until
		p.say(fmt.Sprintf(`{"op":"ack","since":"s%d"}`, i))
		p.say(`{"op":"ping"}`) // when this is answered, the one before it waits
		p.hear()
		<-f.feed.acks
	}
	<-f.feed.acks
}

func TestCalls(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", false)
	p.say(`{"op":"req","id":7,"method":"PUT","path":"/_matrix/x%2Fy?a=b","body":{"n":[1, 2]}}`)
	m := p.hear()
	if m["op"] != "res" || m["id"] != 7.0 || m["status"] != 200.0 {
		t.Fatalf("%v", m)
	}
	body := m["body"].(map[string]any)
	for name, want := range map[string]string{
		"method": "PUT", "target": "/_matrix/x%2Fy?a=b", "body": `{"n":[1, 2]}`,
		"user": "@a:x", "device": "D", "addr": "127.0.0.1",
	} {
		if body[name] != want {
			t.Errorf("%s: got %v, want %s", name, body[name], want)
		}
	}
	p.say(`{"op":"req","id":9007199254740991,"method":"GET","path":"/missing"}`)
	m = p.hear()
	if m["status"] != 404.0 || m["id"] != 9007199254740991.0 || m["body"].(map[string]any)["errcode"] != "M_UNRECOGNIZED" {
		t.Errorf("%v", m)
	}
	p.say(`{"op":"req","id":1,"method":"GET","path":"/panic"}`)
	if m = p.hear(); m["status"] != 500.0 {
		t.Errorf("%v", m)
	}
	if n := value(t, f.metrics.panics); n != 1 {
		t.Errorf("%v panics counted", n)
	}
}

func TestOpenCallsAreBounded(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", false)
	for i := range maxCalls {
		p.say(fmt.Sprintf(`{"op":"req","id":%d,"method":"GET","path":"/block"}`, i))
	}
	p.say(`{"op":"req","id":100,"method":"GET","path":"/x"}`)
	if m := p.hear(); m["id"] != 100.0 || m["status"] != 429.0 {
		t.Fatalf("%v", m)
	}
	p.say(`{"op":"cancel","id":3}`)
	<-f.api.cancelled
	if m := p.hear(); m["id"] != 3.0 {
		t.Fatalf("%v", m)
	}
	p.say(`{"op":"req","id":100,"method":"GET","path":"/x"}`)
	if m := p.hear(); m["id"] != 100.0 || m["status"] != 200.0 {
		t.Fatalf("%v", m)
	}
	close(f.api.block)
	for range maxCalls - 1 {
		if m := p.hear(); m["status"] != 200.0 {
			t.Fatalf("%v", m)
		}
	}
}

func TestCallsEndWithTheSocket(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", false)
	p.say(`{"op":"req","id":1,"method":"GET","path":"/block"}`)
	p.say(`{"op":"ping"}`)
	p.hear()
	_ = p.CloseNow()
	<-f.api.cancelled
}

func TestSignInLater(t *testing.T) {
	f := serve(t, Config{})
	p := dial(t, f)
	p.say(`{"op":"hello"}`)
	if m := p.hear(); m["op"] != "hello" || m["user_id"] != nil {
		t.Fatalf("%v", m)
	}
	p.say(`{"op":"req","id":1,"method":"GET","path":"/x"}`)
	if m := p.hear(); m["body"].(map[string]any)["user"] != "" {
		t.Fatalf("%v", m)
	}
	p.say(`{"op":"auth","access_token":"@a:x/D","sync":true,"filter":"3"}`)
	if m := p.hear(); m["op"] != "auth" {
		t.Fatalf("%v", m)
	}
	if s := <-f.feed.opened; s.open.User != "@a:x" || s.open.Filter != "3" {
		t.Fatalf("%+v", s.open)
	}
	p.say(`{"op":"req","id":1,"method":"GET","path":"/x"}`)
	if m := p.hear(); m["body"].(map[string]any)["user"] != "@a:x" {
		t.Fatalf("%v", m)
	}
}

func TestOrigin(t *testing.T) {
	f := serve(t, Config{PublicBaseURL: "https://chat.example.org/", AllowedOrigins: []string{"https://app.example.org"}})
	for origin, ok := range map[string]bool{
		"":                                 true,
		f.url:                              true,
		"https://chat.example.org":         true,
		"https://APP.example.org":          true,
		"http://app.example.org":           false,
		"https://evil.example":             false,
		"null":                             false,
		"https://app.example.org.evil.org": false,
	} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		conn, res, err := websocket.Dial(t.Context(), f.url+wire.Path, &websocket.DialOptions{
			Subprotocols: []string{wire.Subprotocol}, HTTPHeader: h,
		})
		if ok != (err == nil) || !ok && res.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %v", origin, err)
		}
		if conn != nil {
			_ = conn.CloseNow()
		}
	}
}

func TestUpgradeRefusals(t *testing.T) {
	f := serve(t, Config{MaxSockets: 1})
	get := func(h http.Header) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+wire.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = h
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	if res := get(http.Header{}); res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Upgrade") != "websocket" {
		t.Errorf("plain GET: %d", res.StatusCode)
	}
	upgrade := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}
	if res := get(upgrade); res.StatusCode != http.StatusBadRequest {
		t.Errorf("no subprotocol: %d", res.StatusCode)
	}
	upgrade.Set("Sec-WebSocket-Protocol", "chat, "+wire.Subprotocol)
	if res := get(upgrade); res.StatusCode != http.StatusBadRequest {
		t.Errorf("no key: %d", res.StatusCode)
	}
	signIn(t, f, "@a:x/D", false)
	if res := get(upgrade); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("full node: %d", res.StatusCode)
	}
}

func TestSocketsOfAUserAreBounded(t *testing.T) {
	f := serve(t, Config{})
	first := signIn(t, f, "@a:x/D", false)
	second := signIn(t, f, "@a:x/D", false)
	other := signIn(t, f, "@b:x/D", false)
	for range maxUserSockets - 1 {
		signIn(t, f, "@a:x/D", false)
	}
	first.expectClose(wire.CloseTooMany)
	for _, p := range []*peer{second, other} {
		p.say(`{"op":"ping"}`)
		p.hear()
	}
}

func TestCloseDeviceAndUser(t *testing.T) {
	f := serve(t, Config{})
	d := signIn(t, f, "@a:x/D", true)
	e := signIn(t, f, "@a:x/E", true)
	b := signIn(t, f, "@b:x/D", true)
	f.CloseDevice("@a:x", "D", wire.CloseUnauthorized)
	d.expectClose(wire.CloseUnauthorized)
	e.say(`{"op":"ping"}`)
	e.hear()
	f.CloseUser("@a:x", wire.CloseForbidden)
	e.expectClose(wire.CloseForbidden)
	b.say(`{"op":"ping"}`)
	b.hear()
}

// A hint that never came: the wheel finds the revoked token.
func TestRevokedTokenIsFound(t *testing.T) {
	f := serve(t, Config{times: times{recheck: 200 * time.Millisecond}})
	p := signIn(t, f, "@a:x/D", true)
	kept := signIn(t, f, "@b:x/D", true)
	renewed := signIn(t, f, "@c:x/D", true)
	renewed.say(`{"op":"auth","access_token":"@c:x/D#2"}`)
	renewed.hear()
	f.auth.revoke("@b:x/D", errors.New("the store is down")) // says nothing about the token
	f.auth.revoke("@c:x/D", merr.New(http.StatusUnauthorized, merr.UnknownToken, "old"))
	f.auth.revoke("@a:x/D", merr.New(http.StatusUnauthorized, merr.UnknownToken, "revoked"))
	p.expectClose(wire.CloseUnauthorized)
	for _, p := range []*peer{kept, renewed} {
		p.say(`{"op":"ping"}`)
		p.hear()
	}
}

// A look-up of the old token that ends after the token was replaced says nothing.
func TestRecheckRacesWithAuth(t *testing.T) {
	f := serve(t, Config{times: times{recheck: 100 * time.Millisecond}})
	p := signIn(t, f, "@a:x/D", false)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	f.auth.mu.Lock()
	f.auth.mu.hook = func(token string) {
		if token == "@a:x/D" {
			asked <- struct{}{}
			<-release
		}
	}
	f.auth.mu.Unlock()
	<-asked
	p.say(`{"op":"auth","access_token":"@a:x/D#2"}`)
	p.hear()
	f.auth.revoke("@a:x/D", merr.New(http.StatusUnauthorized, merr.UnknownToken, "old"))
	close(release)
	f.auth.mu.Lock()
	f.auth.mu.hook = func(string) { asked <- struct{}{} }
	f.auth.mu.Unlock()
	<-asked // the round after
	p.say(`{"op":"ping"}`)
	if m := p.hear(); m["op"] != "pong" {
		t.Fatalf("%v", m)
	}
}

// The answer to a logout comes before the close that it causes.
func TestLogoutIsAnswered(t *testing.T) {
	f := serve(t, Config{})
	f.api.onLogout = func(c api.Call) {
		f.CloseDevice(c.Caller.User, c.Caller.Device, wire.CloseUnauthorized)
		time.Sleep(50 * time.Millisecond) // the wrong order gets its chance
	}
	p := signIn(t, f, "@a:x/D", true)
	p.say(`{"op":"req","id":1,"method":"POST","path":"/logout","body":{}}`)
	if m := p.hear(); m["id"] != 1.0 || m["status"] != 200.0 {
		t.Fatalf("%v", m)
	}
	p.expectClose(wire.CloseUnauthorized)
}

func TestPeerCloses(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", true)
	<-f.feed.opened
	if err := p.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Fatal(err) // coder/websocket checks that the code is echoed
	}
	eventually(t, func() bool { return f.Sockets() == 0 && len(f.feed.all()) == 0 })
	if n := value(t, f.metrics.closes.WithLabelValues("1000")); n != 1 {
		t.Errorf("%v closes counted", n)
	}
}

// eventually polls; the condition becomes true in a working server.
func eventually(tb testing.TB, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("it did not happen")
		}
	}
}

func TestShutdown(t *testing.T) {
	f := serve(t, Config{DrainSpread: 50 * time.Millisecond})
	var peers []*peer
	for i := range 20 {
		peers = append(peers, signIn(t, f, fmt.Sprintf("@u%d:x/D", i), true))
	}
	peers[0].say(`{"op":"req","id":1,"method":"GET","path":"/block"}`) // held, then given up
	done := make(chan error)
	f.Drain(t.Context()) // which does not wait for calls
	go func() { done <- f.Shutdown(t.Context()) }()
	for _, p := range peers {
		p.expectClose(wire.CloseUnavailable)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, res, err := websocket.Dial(t.Context(), f.url+wire.Path, &websocket.DialOptions{
		Subprotocols: []string{wire.Subprotocol},
	}); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("upgrade after the shutdown: %v", err)
	}
}

// A peer that never answers the close frame cannot hold a shutdown.
func TestShutdownIsBounded(t *testing.T) {
	f := serve(t, Config{times: times{closing: time.Hour}})
	p := signIn(t, f, "@a:x/D", true) // coder answers a close only while reading
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	_ = p.CloseNow()
}

// Closing while hello is under way gives the feed's Open up.
func TestCloseDuringHello(t *testing.T) {
	f := serve(t, Config{})
	p := dial(t, f)
	p.say(`{"op":"hello","access_token":"@a:x/D","sync":true,"since":"slow"}`)
	p.hear()
	f.CloseUser("@a:x", wire.CloseUnauthorized)
	p.expectClose(wire.CloseUnauthorized)
	eventually(t, func() bool { return f.Sockets() == 0 })
}

// Over TLS neither readiness nor a non-blocking write is to be had.
func TestTLS(t *testing.T) {
	f := serve(t, Config{})
	stream := f.Routes()[0].Stream
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream(&api.Request{}, w, r)
	}))
	defer srv.Close()
	frames := make(chan string, 1000)
	c, err := wsclient.Dial(t.Context(), srv.URL, wsclient.Options{
		Token: "@a:x/D", Sync: true, NoPosition: true,
		TLS:     srv.Client().Transport.(*http.Transport).TLSClientConfig,
		OnFrame: func(b []byte) { frames <- string(b) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := <-f.feed.opened
	for i := range 200 {
		want := fmt.Sprintf(`{"op":"sync","n":%d,"pad":"%0*d"}`, i, i*100, 0)
		if !s.sink.Send([]byte(want)) {
			t.Fatalf("frame %d was refused", i)
		}
		if got := <-frames; got != want {
			t.Fatalf("got %.60s, want %.60s", got, want)
		}
	}
	if r, err := c.Call(t.Context(), "POST", "/large", []byte(`"`+strings.Repeat("x", 100<<10)+`"`)); err != nil || len(r.Body) != 1<<20+2 {
		t.Fatalf("%v, %d bytes", err, len(r.Body))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.Sockets() == 0 })
}

func TestSinkCloses(t *testing.T) {
	f := serve(t, Config{})
	p := signIn(t, f, "@a:x/D", true)
	s := <-f.feed.opened
	s.sink.Close(wire.CloseUnknownPos, "compacted")
	s.sink.Close(wire.CloseInternal, "the second does not count")
	p.expectClose(wire.CloseUnknownPos)
	eventually(t, func() bool { return len(f.feed.all()) == 0 })
	if s.sink.Send([]byte("{}")) {
		t.Error("a closed sink took a frame")
	}
}

var (
	_ Feed              = (*fakeFeed)(nil)
	_ API               = (*fakeAPI)(nil)
	_ api.Authenticator = (*fakeAuth)(nil)
	_ feed.Session      = (*fakeSession)(nil)
)
