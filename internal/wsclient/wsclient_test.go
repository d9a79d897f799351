package wsclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that a working client ends at once.
const patience = 20 * time.Second

// server hands each connection to the test, which plays the server's part with
// an independent implementation.
type server struct {
	url   string
	conns chan *conn
}

type conn struct {
	*websocket.Conn
	tb  testing.TB
	ctx context.Context
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{conns: make(chan *conn, 10)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wire.Path {
			http.NotFound(w, r)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			return
		}
		s.conns <- &conn{c, tb, ctx}
		<-ctx.Done()
	}))
	tb.Cleanup(func() {
		cancel()
		h.CloseClientConnections()
		h.Close()
	})
	s.url = h.URL
	return s
}

func (c *conn) hear() map[string]any {
	c.tb.Helper()
	_, b, err := c.Read(c.ctx)
	if err != nil {
		c.tb.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		c.tb.Fatalf("%s: %v", b, err)
	}
	return m
}

func (c *conn) say(m string) {
	c.tb.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, []byte(m)); err != nil {
		c.tb.Fatal(err)
	}
}

// welcome takes the next connection's hello and answers it.
func (s *server) welcome(tb testing.TB, after ...string) (*conn, map[string]any) {
	tb.Helper()
	select {
	case c := <-s.conns:
		hello := c.hear()
		c.say(`{"op":"hello","user_id":"@a:x","device_id":"D","heartbeat_ms":30000,"max_message_bytes":131072}`)
		for _, m := range after {
			c.say(m)
		}
		return c, hello
	case <-time.After(patience):
		tb.Fatal("nobody connected")
		return nil, nil
	}
}

// start dials, with the server's part played meanwhile.
func start(tb testing.TB, s *server, opts Options, after ...string) (*Client, *conn, map[string]any) {
	tb.Helper()
	type dialled struct {
		c   *Client
		err error
	}
	ch := make(chan dialled, 1)
	go func() {
		c, err := Dial(context.Background(), s.url, opts)
		ch <- dialled{c, err}
	}()
	conn, hello := s.welcome(tb, after...)
	d := <-ch
	if d.err != nil {
		tb.Fatal(d.err)
	}
	tb.Cleanup(func() {
		_ = conn.CloseNow()
		_ = d.c.Close()
	})
	return d.c, conn, hello
}

func TestHello(t *testing.T) {
	s := newServer(t)
	c, _, hello := start(t, s, Options{
		Token: "t", Sync: true, Since: "s1", Marks: map[string]string{"1": "a"},
		Filter: []byte(`{"room":{}}`), FullState: true, SetPresence: "offline",
	})
	want := `{"access_token":"t","filter":{"room":{}},"full_state":true,"marks":{"1":"a"},"op":"hello","set_presence":"offline","since":"s1","sync":true}`
	if got, _ := json.Marshal(hello); string(got) != want {
		t.Errorf("hello: %s", got)
	}
	if h := c.Hello(); h.UserID != "@a:x" || h.DeviceID != "D" || h.HeartbeatMS != 30000 || h.MaxMessageBytes != 131072 {
		t.Errorf("%+v", h)
	}
}

func TestHelloRefused(t *testing.T) {
	s := newServer(t)
	go func() {
		c := <-s.conns
		_, _, _ = c.Read(c.ctx)
		_ = c.Conn.Close(4401, "M_UNKNOWN_TOKEN")
	}()
	_, err := Dial(t.Context(), s.url, Options{Token: "t"})
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != 4401 || ce.Reason != "M_UNKNOWN_TOKEN" || ce.Temporary() {
		t.Fatal(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	s := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c := <-s.conns
		_, _, _ = c.Read(c.ctx)
		cancel() // and never answer
	}()
	if _, err := Dial(ctx, s.url, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestPosition(t *testing.T) {
	for name, c := range map[string]struct {
		frames []string
		since  string
		marks  map[string]string
	}{
		"none":                 {[]string{`{"op":"sync","rooms":{}}`}, "s0", map[string]string{"9": "z"}},
		"marks add up":         {[]string{`{"op":"sync","mark":["1","a"]}`, `{"op":"sync","x":[{"mark":["7","7"]}],"mark":["2","b"]}`, `{"op":"sync","mark":["1","c"]}`}, "s0", map[string]string{"9": "z", "1": "c", "2": "b"}},
		"next_batch empties":   {[]string{`{"op":"sync","mark":["1","a"]}`, `{"op":"sync","rooms":{"next_batch":"no"},"next_batch":"s1"}`}, "s1", nil},
		"marks after":          {[]string{`{"op":"sync","next_batch":"s1"}`, `{"op":"sync","mark":["1","a"]}`}, "s1", map[string]string{"1": "a"}},
		"op need not be first": {[]string{`{"next_batch":"s2","op":"sync"}`}, "s2", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			seen := make(chan string, 10)
			cl, conn, _ := start(t, s, Options{
				Sync: true, Since: "s0", Marks: map[string]string{"9": "z"},
				OnFrame: func(b []byte) { seen <- string(b) },
			}, c.frames...)
			go conn.Read(conn.ctx)
			for _, want := range c.frames {
				if got := <-seen; got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
			// The position moves after the callback: one more message comes after that.
			_ = conn.Conn.Close(4500, "")
			<-cl.Done()
			since, marks := cl.Position()
			if since != c.since || !maps.Equal(marks, c.marks) {
				t.Fatalf("%q %v", since, marks)
			}
		})
	}
}

func TestReconnectResumes(t *testing.T) {
	s := newServer(t)
	var resets int
	lost := make(chan error, 10)
	_, first, _ := start(t, s, Options{
		Token: "t", Sync: true, Reconnect: true,
		OnReset:      func() { resets++ },
		OnDisconnect: func(err error) { lost <- err },
	}, `{"op":"sync","next_batch":"s1"}`, `{"op":"sync","mark":["1","a"]}`)
	first.say(`{"op":"sync","mark":["2","b"]}`)
	_ = first.Conn.Close(4500, "")
	second, hello := s.welcome(t)
	if hello["since"] != "s1" || fmt.Sprint(hello["marks"]) != "map[1:a 2:b]" || hello["access_token"] != "t" {
		t.Fatalf("%v", hello)
	}
	_ = second.Conn.Close(4409, "")
	third, hello := s.welcome(t)
	if hello["since"] != nil || hello["marks"] != nil || resets != 1 {
		t.Fatalf("%v, %d resets", hello, resets)
	}
	_ = third.Conn.Close(4403, "")
	for _, code := range []int{4500, 4409, 4403} {
		var ce *CloseError
		if err := <-lost; !errors.As(err, &ce) || ce.Code != code {
			t.Fatalf("%v, want %d", err, code)
		}
	}
}

func TestFinalCodeEnds(t *testing.T) {
	s := newServer(t)
	c, conn, _ := start(t, s, Options{Reconnect: true})
	_ = conn.Conn.Close(4401, "")
	<-c.Done()
	var ce *CloseError
	if !errors.As(c.Err(), &ce) || ce.Code != 4401 {
		t.Fatal(c.Err())
	}
}

func TestCallsInAnyOrder(t *testing.T) {
	s := newServer(t)
	c, conn, _ := start(t, s, Options{})
	go func() {
		a, b := conn.hear(), conn.hear()
		for _, m := range []map[string]any{b, a} {
			conn.say(fmt.Sprintf(`{"op":"res","id":%v,"status":201,"body":{"path":%q,"body":%v}}`, m["id"], m["path"], m["body"] != nil))
		}
		_, _, _ = conn.Read(conn.ctx)
	}()
	results := make(chan error, 2)
	for _, path := range []string{"/a?x=%2F", "/b"} {
		go func() {
			var body []byte
			if path == "/b" {
				body = []byte(`{"n":1}`)
			}
			r, err := c.Call(t.Context(), "GET", path, body)
			if want := fmt.Sprintf(`{"path":%q,"body":%v}`, path, body != nil); err == nil && (r.Status != 201 || string(r.Body) != want) {
				err = fmt.Errorf("got %d %s, want %s", r.Status, r.Body, want)
			}
			results <- err
		}()
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestCallGivenUp(t *testing.T) {
	s := newServer(t)
	c, conn, _ := start(t, s, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Call(ctx, "GET", "/x", nil)
		done <- err
	}()
	req := conn.hear()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if m := conn.hear(); m["op"] != "cancel" || m["id"] != req["id"] {
		t.Fatalf("%v", m)
	}
	conn.say(fmt.Sprintf(`{"op":"res","id":%v,"status":200}`, req["id"])) // too late, and harmless
	go func() {
		conn.hear()
		conn.say(`{"op":"pong"}`)
		conn.hear()
		conn.say(`{"op":"auth"}`)
		_, _, _ = conn.Read(conn.ctx)
	}()
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(t.Context(), "t2"); err != nil {
		t.Fatal(err)
	}
}

func TestDisconnectFailsWhatWaits(t *testing.T) {
	s := newServer(t)
	c, conn, _ := start(t, s, Options{})
	go func() {
		conn.hear()
		conn.hear()
		_ = conn.CloseNow()
	}()
	done := make(chan error, 2)
	go func() { done <- c.Ping(t.Context()) }()
	go func() {
		_, err := c.Call(t.Context(), "GET", "/x", nil)
		done <- err
	}()
	for range 2 {
		if err := <-done; !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
	}
	<-c.Done()
	if _, err := c.Call(t.Context(), "GET", "/x", nil); !errors.Is(err, ErrDisconnected) {
		t.Error(err)
	}
}

func TestPingsOfTheServerAreAnswered(t *testing.T) {
	s := newServer(t)
	_, conn, _ := start(t, s, Options{})
	go conn.Read(conn.ctx)
	if err := conn.Conn.Ping(conn.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCloseAndAbort(t *testing.T) {
	s := newServer(t)
	c, conn, _ := start(t, s, Options{})
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	if _, _, err := conn.Read(conn.ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Fatal(err)
	}
	if err := <-closed; err != nil || !errors.Is(c.Err(), ErrClosed) {
		t.Fatal(err, c.Err())
	}
	c, conn, _ = start(t, s, Options{Reconnect: true})
	c.Abort()
	if _, _, err := conn.Read(conn.ctx); err == nil {
		t.Fatal("still there")
	}
	s.welcome(t)
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		err     error
		attempt int
		max     time.Duration
	}{
		{errors.New("reset"), 0, time.Second},
		{errors.New("reset"), 3, 8 * time.Second},
		{errors.New("reset"), 100, time.Minute},
		{&CloseError{Code: 4503}, 0, 5 * time.Second},
		{&CloseError{Code: 4429}, 0, time.Minute},
	} {
		var most time.Duration
		for range 1000 {
			most = max(most, backoff(c.err, c.attempt))
		}
		if most > c.max || most < c.max/2 {
			t.Errorf("%v, attempt %d: up to %v, want up to %v", c.err, c.attempt, most, c.max)
		}
	}
}
