package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

// bell is a long poll that waits until it is rung.
type bell struct {
	mu struct {
		sync.Mutex
		wake   func()
		value  any
		closed bool
		calls  int
	}
	rung chan struct{}
}

var _ Waiting = (*bell)(nil)

func (b *bell) Wake(f func()) {
	b.mu.Lock()
	b.mu.wake = f
	rung := b.mu.value != nil
	b.mu.Unlock()
	if rung {
		f()
	}
}

func (b *bell) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closed = true
}

func (b *bell) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.closed
}

// ring makes the poll return a value.
func (b *bell) ring(value any) {
	b.mu.Lock()
	b.mu.value = value
	wake := b.mu.wake
	b.mu.Unlock()
	close(b.rung)
	if wake != nil {
		wake()
	}
}

// wake has the handler called, though there is nothing.
func (b *bell) wake() {
	b.mu.Lock()
	wake := b.mu.wake
	b.mu.Unlock()
	wake()
}

// belfry has a route whose requests are bells.
type belfry struct {
	*rig
	bells chan *bell
}

const bellPath = v3 + "bell"

// newBelfry serves bells, in parked connections or on goroutines.
func newBelfry(t *testing.T, o rigOptions) *belfry {
	t.Helper()
	f := &belfry{bells: make(chan *bell, 100)}
	f.rig = newRig(t, []Route{
		route("GET", bellPath, f.handle, func(r *Route) { r.Auth, r.Hold, r.Rate = AuthUser, HoldLong, RateSync }),
		route("GET", v3+"echo", echo),
	}, o)
	if o.parks && !f.lot.Parks(f.lot.ConnContext(t.Context(), new(net.TCPConn))) {
		skip.Test(t, "nothing can be parked on this system")
	}
	return f
}

func (f *belfry) handle(r *Request) (any, error) {
	b, ok := r.Left().(*bell)
	if !ok {
		b = &bell{rung: make(chan struct{})}
		f.bells <- b
	}
	var tired <-chan time.Time
	if r.Patience() > 0 {
		tired = time.After(r.Patience())
	}
	b.mu.Lock()
	b.mu.calls++
	b.mu.Unlock()
	select {
	case <-b.rung:
		b.mu.Lock()
		defer b.mu.Unlock()
		if err, ok := b.mu.value.(error); ok {
			return nil, err
		}
		return b.mu.value, nil
	case <-tired:
		return b, nil
	case <-r.Context.Done():
		return nil, r.Context.Err()
	}
}

// awaitParked waits until so many connections wait without a goroutine.
func (f *belfry) awaitParked(n int) {
	f.t.Helper()
	eventually(f.t, func() bool { return f.lot.Waiting() == n })
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to pass")
		}
	}
}

// free reports whether no request has a place any more.
func (f *belfry) free() bool {
	if f.inFlight.node[HoldLong].Load() != 0 || f.lot.Waiting() != 0 {
		return false
	}
	f.polls.mu.Lock()
	defer f.polls.mu.Unlock()
	for i := range f.inFlight.shards {
		s := &f.inFlight.shards[i]
		s.mu.Lock()
		n := len(s.mu.held)
		s.mu.Unlock()
		if n != 0 {
			return false
		}
	}
	return len(f.polls.mu.byUser) == 0
}

// line is a connection of a client.
type line struct {
	t  testing.TB
	c  net.Conn
	in *bufio.Reader
	// last: the server said that it closes the connection.
	last bool
}

func (f *belfry) dial() *line {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	return &line{t: f.t, c: c, in: bufio.NewReader(c)}
}

// ask is the text of a request.
func ask(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: test\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func (l *line) say(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.c, text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) hear() reply {
	l.t.Helper()
	res, err := http.ReadResponse(l.in, nil)
	if err != nil {
		l.t.Fatalf("read the answer: %v", err)
	}
	defer res.Body.Close()
	l.last = res.Close
	got, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatalf("read the answer's body: %v", err)
	}
	return reply{Status: res.StatusCode, Header: res.Header, Body: string(got)}
}

// An answer to a request that was parked is that of one that was not, in every form, and
// its connection goes on as it would have.
func TestParkedAnswersAreTheSame(t *testing.T) {
	forms := map[string]string{
		"1.1":            ask(bellPath+"?a=%20b", as("alice"), "User-Agent: x", "Accept-Encoding: gzip"),
		"closing":        ask(bellPath, as("alice"), "Connection: close"),
		"1.0":            "GET " + bellPath + " HTTP/1.0\r\n" + as("alice") + "\r\n\r\n",
		"1.0 keep-alive": "GET " + bellPath + " HTTP/1.0\r\nConnection: keep-alive\r\n" + as("alice") + "\r\n\r\n",
		"absolute":       "GET http://test" + bellPath + " HTTP/1.1\r\nHost: other\r\n" + as("alice") + "\r\n\r\n",
		"token in query": ask(bellPath + "?access_token=alice"),
	}
	answers := map[string]any{
		"value":  jsontext.Value(`{"next_batch":"s1"}`),
		"pieces": Pieces{[]byte(`{"a":`), []byte(`"` + strings.Repeat("x", 100_000) + `"`), []byte(`}`)},
		"header": Response{Status: 202, Header: http.Header{"X-Thing": {"a", "b"}}, Body: jsontext.Value(`{}`)},
		"error":  errors.New("broken"),
		"empty":  Empty,
	}
	plain, parks := newBelfry(t, rigOptions{}), newBelfry(t, rigOptions{parks: true})
	for form, text := range forms {
		for kind, value := range answers {
			var got [2]reply
			var reused [2]bool
			for i, f := range []*belfry{plain, parks} {
				l := f.dial()
				l.say(text)
				b := <-f.bells
				if i == 1 {
					f.awaitParked(1)
				}
				f.clock.Advance(time.Second)
				b.ring(value)
				got[i] = l.hear()
				for _, name := range []string{"Date", "X-Request-Id"} {
					if len(got[i].Header[name]) != 1 {
						t.Errorf("%s: no %s", form, name)
					}
					got[i].Header.Del(name)
				}
				if !l.last {
					_, err := io.WriteString(l.c, ask(v3+"echo?n=1"))
					next := reply{}
					if reused[i] = err == nil; reused[i] {
						next = l.hear()
					}
					if next.Status != 200 || !strings.Contains(next.Body, `"n":["1"]`) {
						t.Errorf("%s, %s: afterwards %+v", form, kind, next)
					}
				} else if b, err := l.in.ReadByte(); err != io.EOF {
					t.Errorf("%s, %s: not closed: %v %v", form, kind, b, err)
				}
			}
			if !reflect.DeepEqual(got[0], got[1]) || reused[0] != reused[1] {
				t.Errorf("%s, %s: %+v and %+v, connection goes on %v", form, kind, got[0], got[1], reused)
			}
		}
	}
	eventually(t, parks.free)
	for _, f := range []*belfry{plain, parks} {
		c, err := f.metrics.latency.GetMetricWithLabelValues("GET", bellPath)
		if err != nil {
			t.Fatal(err)
		}
		if n, sum := observed(t, c.(prometheus.Histogram)); n != uint64(len(forms)*len(answers)) || sum != float64(n) {
			t.Errorf("%d requests took %v s", n, sum)
		}
	}
}

// A connection is parked again and again, and tells its requests apart from those that
// are sent ahead.
func TestParkedSentAhead(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	l := f.dial()
	poll, other := ask(bellPath, as("alice")), func(n int) string { return ask(fmt.Sprint(v3, "echo?n=", n)) }
	l.say(poll + other(1)) // in one piece
	for i := range 5 {
		b := <-f.bells
		f.awaitParked(1)
		if i > 0 {
			l.say(other(1)[:20])
			time.Sleep(5 * time.Millisecond) // it comes while the request is parked
			l.say(other(1)[20:])
		}
		l.say(poll)
		if i%2 == 1 {
			b.wake() // for nothing: the handler waits again
			eventually(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.mu.calls == 2 })
		}
		b.ring(jsontext.Value(fmt.Sprintf(`{"i":%d}`, i)))
		if got := l.hear(); got.Body != fmt.Sprintf(`{"i":%d}`, i) {
			t.Fatalf("poll %d: %+v", i, got)
		}
		if got := l.hear(); !strings.Contains(got.Body, `"n":["1"]`) {
			t.Fatalf("request behind poll %d: %+v", i, got)
		}
	}
	(<-f.bells).ring(Empty)
	l.hear()
	eventually(t, f.free)
}

// More is sent ahead than the server reads at once.
func TestParkedMuchSentAhead(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	l := f.dial()
	l.say(ask(bellPath, as("alice")))
	b := <-f.bells
	f.awaitParked(1)
	const n = 1000
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(l.c, strings.Repeat(ask(v3+"echo", "X: "+strings.Repeat("x", 200)), n))
		sent <- err
	}()
	time.Sleep(10 * time.Millisecond)
	b.ring(Empty)
	for range n + 1 {
		if got := l.hear(); got.Status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A client that goes away ends its poll.
func TestParkedClientGoesAway(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	for range 2 {
		l := f.dial()
		l.say(ask(bellPath, as("alice")))
		b := <-f.bells
		f.awaitParked(1)
		_ = l.c.Close()
		eventually(t, f.free)
		eventually(t, b.isClosed)
	}
	eventually(t, func() bool { return counted(t, f.metrics.requests.WithLabelValues("GET", bellPath, "499")) == 2 })
}

// A poll whose client goes away at the moment it is answered ends once.
func TestParkedEndsOnce(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	var wg sync.WaitGroup
	for i := range 200 {
		l := f.dial()
		l.say(ask(bellPath, as(strings.Split("alice bob", " ")[i%2])))
		b := <-f.bells
		wg.Go(func() { _ = l.c.Close() })
		wg.Go(func() { b.ring(Empty) })
		if i%3 == 0 {
			wg.Go(func() { f.EndPolls("@alice:x", nil) })
		}
		if i%10 == 0 {
			eventually(t, f.free)
		}
	}
	wg.Wait()
	eventually(t, f.free)
}

// The caller is proven again, in any case; who lost the right to wait gets nothing.
func TestParkedAuthorisation(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	poll := func(token string) (*line, *bell) {
		l := f.dial()
		l.say(ask(bellPath, as(token)))
		b := <-f.bells
		f.awaitParked(1)
		return l, b
	}
	l, b := poll("alice")
	f.EndPolls("@alice:x", []ids.DeviceID{"other"})
	f.EndPolls("@bob:x", nil)
	time.Sleep(5 * time.Millisecond)
	if b.isClosed() {
		t.Error("another device's end")
	}
	f.EndPolls("@alice:x", []ids.DeviceID{"A"})
	if got := l.hear(); got.Status != 503 || got.Header.Get("Retry-After") == "" {
		t.Errorf("still welcome: %+v", got)
	}
	l, b = poll("alice")
	f.auth.revoke("alice")
	f.EndPolls("@alice:x", nil)
	wantError(t, "revoked", l.hear(), 401, "M_UNKNOWN_TOKEN")
	if !b.isClosed() {
		t.Error("goes on")
	}
	l, b = poll("bob")
	f.auth.revoke("bob") // on another node, of which no one told
	b.ring(jsontext.Value(`{"secret":1}`))
	wantError(t, "revoked elsewhere", l.hear(), 401, "M_UNKNOWN_TOKEN")
	eventually(t, f.free)
}

// What waits parked counts among what is in flight, and its rate once.
func TestParkedLimits(t *testing.T) {
	caps := defaultCaps()
	caps[HoldLong].perUser = 2
	limits := ratelimit.Defaults()
	limits[RateSync] = ratelimit.Limit{PerSecond: 0.001, Burst: 3}
	f := newBelfry(t, rigOptions{parks: true, caps: &caps, limits: limits})
	var bells []*bell
	var lines []*line
	for range 2 {
		l := f.dial()
		l.say(ask(bellPath, as("alice")))
		bells, lines = append(bells, <-f.bells), append(lines, l)
	}
	f.awaitParked(2)
	if n := f.inFlight.node[HoldLong].Load(); n != 2 {
		t.Errorf("%d in flight", n)
	}
	third := f.dial()
	third.say(ask(bellPath, as("alice")))
	wantError(t, "one too many", third.hear(), 429, "M_LIMIT_EXCEEDED")
	for i, l := range lines {
		bells[i].ring(Empty)
		if got := l.hear(); got.Status != 200 {
			t.Errorf("%+v", got)
		}
	}
	third.say(ask(bellPath, as("alice")))
	(<-f.bells).ring(Empty)
	if got := third.hear(); got.Status != 200 {
		t.Errorf("the third: %+v", got)
	}
	third.say(ask(bellPath, as("alice")))
	wantError(t, "the fourth", third.hear(), 429, "M_LIMIT_EXCEEDED")
}

// Draining answers everyone, also those who are about to be parked, and parks nobody
// afterwards.
func TestParkedDrain(t *testing.T) {
	node, stop := context.WithCancel(t.Context())
	f := newBelfry(t, rigOptions{parks: true, server: func(s *http.Server) {
		s.BaseContext = func(net.Listener) context.Context { return node }
	}})
	var lines []*line
	for i := range 25 {
		l := f.dial()
		l.say(ask(bellPath, as("alice")))
		lines = append(lines, l)
		<-f.bells
		if i == 20 {
			f.awaitParked(21)
		}
	}
	stop()
	if err := f.lot.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		wantError(t, "drained", l.hear(), 503, "M_UNKNOWN")
	}
	eventually(t, f.free)
	l := f.dial()
	l.say(ask(bellPath, as("alice")))
	wantError(t, "afterwards", l.hear(), 503, "M_UNKNOWN")
}

// A lot that drains while the node goes on has polls wait on goroutines.
func TestDrainedLotParksNothing(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	if err := f.lot.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := f.dial()
	l.say(ask(bellPath, as("alice")))
	(<-f.bells).ring(Empty)
	if got := l.hear(); got.Status != 200 || f.lot.Waiting() != 0 {
		t.Errorf("%+v, %d parked", got, f.lot.Waiting())
	}
}

// A lot that is closed cuts what waits, and leaves nothing behind.
func TestClosedLotCutsWhatWaits(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	l := f.dial()
	l.say(ask(bellPath, as("alice")))
	b := <-f.bells
	f.awaitParked(1)
	_ = f.lot.Close()
	if _, err := l.in.ReadByte(); err == nil {
		t.Error("not cut")
	}
	eventually(t, f.free)
	if !b.isClosed() {
		t.Error("goes on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.lot.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// What is not parked waits as it did: requests with long heads or bodies, and HEAD.
func TestNotParked(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	for name, text := range map[string]string{
		"long head": ask(bellPath, as("alice"), "X: "+strings.Repeat("x", maxParkedHead)),
		"body":      "GET " + bellPath + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + as("alice") + "\r\n\r\n{}",
		"chunks":    "GET " + bellPath + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + as("alice") + "\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	} {
		l := f.dial()
		l.say(text)
		b := <-f.bells
		time.Sleep(5 * time.Millisecond)
		if n := f.lot.Waiting(); n != 0 {
			t.Errorf("%s: %d parked", name, n)
		}
		b.ring(Empty)
		if got := l.hear(); got.Status != 200 || got.Body != "{}" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	eventually(t, f.free)
}

// A client that reads slowly gets all of an answer, by the server's own deadlines.
func TestParkedSlowReader(t *testing.T) {
	f := newBelfry(t, rigOptions{parks: true})
	l := f.dial()
	if err := l.c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	l.say(ask(bellPath, as("alice")))
	b := <-f.bells
	f.awaitParked(1)
	body := `"` + strings.Repeat("x", 8<<20) + `"`
	b.ring(jsontext.Value(body))
	time.Sleep(20 * time.Millisecond)
	if got := l.hear(); got.Body != body {
		t.Errorf("%d bytes of %d", len(got.Body), len(body))
	}
	// And one that reads nothing, by the end of its connection.
	l.say(ask(bellPath, as("alice")))
	b = <-f.bells
	f.awaitParked(1)
	b.ring(jsontext.Value(body))
	time.Sleep(5 * time.Millisecond)
	_ = l.c.Close()
	eventually(t, f.free)
}

// The address behind a proxy, the request's ID, and who asks are those of the request.
func TestParkedRequestIsTheSame(t *testing.T) {
	seen := make(chan Request, 2)
	f := newRig(t, []Route{route("GET", v3+"wait/{room}", func(r *Request) (any, error) {
		c := *r
		c.Context, c.Route, c.endpoint, c.d, c.stay, c.patience = nil, nil, nil, nil, stay{}, 0
		c.paramsBuf, c.params = [maxParams]param{}, append([]param(nil), r.params...)
		seen <- c
		if r.Left() != nil {
			return Empty, nil
		}
		b := &bell{rung: make(chan struct{})}
		b.mu.value = Empty
		return b, nil
	}, func(r *Route) { r.Auth, r.Hold = AuthUser, HoldLong })}, rigOptions{
		parks: true, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	if !f.lot.Parks(f.lot.ConnContext(t.Context(), new(net.TCPConn))) {
		skip.Test(t, "nothing can be parked on this system")
	}
	res := f.raw("GET", v3+"wait/a%2Fb?user_id=%40x:y&x=1&x=2", "", as("bridge"), "X-Forwarded-For: 1.2.3.4, 5.6.7.8", "X-Request-Id: mine", "User-Agent: me")
	first, again := <-seen, <-seen
	if res.Status != 200 || res.Header.Get("X-Request-Id") != "mine" {
		t.Errorf("%+v", res)
	}
	if !reflect.DeepEqual(first, again) || again.ID != "mine" || again.Addr.String() != "5.6.7.8" || again.Caller.User != "@x:y" {
		t.Errorf("%+v\nand then\n%+v", first, again)
	}
}

// FuzzAppendHead: the text of a request that is kept is read as the request was.
func FuzzAppendHead(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\nX: c\r\n\r\n")
	f.Add("GET http://u@h/a%2Fb?c#d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	f.Add("GET /x HTTP/1.1\r\nHost: a\r\nA:  b \t\r\n c\r\nPragma: no-cache\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil || r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			return
		}
		head := appendHead(nil, r)
		if len(head) > headSize(r) {
			t.Errorf("%d bytes, not %d", len(head), headSize(r))
		}
		again, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(head) + "GET / HTTP/1.1\r\n\r\n")))
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if r.Method != again.Method || r.RequestURI != again.RequestURI || r.Proto != again.Proto || r.Host != again.Host ||
			r.Close != again.Close || again.ContentLength != 0 || !maps.EqualFunc(r.Header, again.Header, func(a, b []string) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%q became %q: %+v, %+v", text, head, r, again)
		}
	})
}

// observed returns how many observations a histogram has, and their sum.
func observed(t testing.TB, h prometheus.Histogram) (uint64, float64) {
	t.Helper()
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
}
