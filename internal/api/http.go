package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// writeTimeout is the time that a client has to take an answer. A large initial
	// sync is 10 MB.
	writeTimeout = 30 * time.Second
	// drainTimeout is how long the rest of an unread body may take when the answer
	// is known already. net/http reads it before it answers, because a client that
	// still sends may not see an answer; a slow one shall not keep its connection
	// with that.
	drainTimeout = 2 * time.Second
	// firstBodyBuffer is what is allocated before a body's bytes have come:
	// Content-Length is a promise of the sender.
	firstBodyBuffer = 16 << 10
)

// Handler returns a handler that serves what the dispatcher Owns, and everything else
// by rest. http.ServeMux must not stand before it: it redirects paths that are
// valid here.
func (d *Dispatcher) Handler(rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Owns(escapedPath(r)) {
			d.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// escapedPath returns the path as it was sent. URL.EscapedPath alone would decode
// and encode again a path with bytes that should have been escaped, and lose
// which slashes were.
func escapedPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.EscapedPath()
}

// ServeHTTP answers any path; unknown ones are M_UNRECOGNIZED.
func (d *Dispatcher) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	if hr.Method == http.MethodOptions {
		setHeaders(w.Header())
		// A preflight asks about the transport, not about a route, and never has a
		// token. spec: client-server §Web Browser Clients.
		w.WriteHeader(http.StatusNoContent)
		return
	}
	addr, trusted := d.clientAddr(hr)
	r := &Request{
		Context: hr.Context(), Method: hr.Method, Path: escapedPath(hr), rawQuery: hr.URL.RawQuery,
		Addr: addr, UserAgent: hr.UserAgent(), Host: hr.Host,
		ID: d.requestID(hr, trusted), token: bearer(hr.Header),
	}
	if r.Method == http.MethodHead {
		// net/http leaves the body of the answer away.
		r.Method = http.MethodGet
	}
	start := d.returned(r, d.clock.Now())
	t := &overHTTP{d: d, w: recorder{ResponseWriter: w}, r: hr}
	defer func() {
		if v := recover(); v != nil {
			d.finish(r, t.w.status, t.w.bytes, d.clock.Now().Sub(start), slog.LevelInfo)
			panic(v)
		}
	}()
	ans := d.serve(r, t)
	if ans.parked != nil {
		err := d.park(r, t, ans.parked, start)
		if err == nil {
			return
		}
		ans = d.failure(r, err)
	}
	size := ans.bytes
	if !ans.written {
		if t.w.status != 0 {
			// A stream panicked after its first byte: only a broken connection tells
			// the client that the rest is missing.
			panic(http.ErrAbortHandler)
		}
		size = int64(ans.size())
		t.write(r, ans)
	}
	d.finish(r, ans.status, size, d.clock.Now().Sub(start), slog.LevelInfo)
}

// commonHeaders are what every answer has, errors included, under canonical names.
// All answers share the values, which nobody changes.
// spec: client-server §Web Browser Clients.
var commonHeaders = http.Header{
	"Access-Control-Allow-Origin":   {"*"},
	"Access-Control-Allow-Methods":  {"GET, POST, PUT, DELETE, OPTIONS"},
	"Access-Control-Allow-Headers":  {"X-Requested-With, Content-Type, Authorization"},
	"Access-Control-Expose-Headers": {"Retry-After, X-Request-Id"},
	"Access-Control-Max-Age":        {"86400"},
	"Cache-Control":                 {"no-store"},
	"Content-Security-Policy":       {"default-src 'none'; frame-ancestors 'none'"},
	"Referrer-Policy":               {"no-referrer"},
	"X-Content-Type-Options":        {"nosniff"},
	"X-Frame-Options":               {"DENY"},
}

// begin sets the headers that every answer has.
func (t *overHTTP) begin(r *Request) http.Header {
	h := t.w.Header()
	setHeaders(h)
	h.Set("X-Request-Id", r.ID)
	return h
}

// setHeaders sets the common headers. Handlers and streams may replace them: Set
// makes a new value, and Add copies, since the values have no room.
func setHeaders(h http.Header) { maps.Copy(h, commonHeaders) }

// requestID returns the ID that a trusted proxy gave, or a new one.
func (d *Dispatcher) requestID(hr *http.Request, trusted bool) string {
	const longest = 64
	id := hr.Header.Get("X-Request-Id")
	if !trusted || id == "" || len(id) > longest {
		return d.ids.next()
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
			return d.ids.next()
		}
	}
	return id
}

// bearer returns the token of the Authorization header, "" if there is none.
// spec: client-server §Using access tokens.
func bearer(h http.Header) string {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// overHTTP is the transport of HTTP requests.
type overHTTP struct {
	d *Dispatcher
	w recorder
	r *http.Request
	// drained: nothing more of the body can be read.
	drained bool
}

var _ transport = (*overHTTP)(nil)

func (t *overHTTP) streams() bool { return true }

func (t *overHTTP) identify(r *Request) error {
	if r.token == "" {
		return nil
	}
	device := r.Query.Get("device_id")
	if device == "" {
		// The name of the same before it was in the specification.
		device = r.Query.Get("org.matrix.msc3202.device_id")
	}
	caller, err := r.d.auth.Authenticate(r.Context, Credentials{
		Token: r.token,
		ActAs: ids.UserID(r.Query.Get("user_id")), ActAsDevice: ids.DeviceID(device),
		Addr: r.Addr, UserAgent: r.UserAgent, Locked: r.Route.allowsLocked(),
	})
	if err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	if caller.User == "" {
		return errors.New("authenticate: neither a caller nor an error")
	}
	r.Caller = caller
	return nil
}

func (t *overHTTP) identifyService(r *Request) {
	if r.token == "" || r.d.service == nil {
		return
	}
	if id := r.d.service(r.token); id != "" {
		// Accounts are made by the hundred when a bridge joins a room elsewhere.
		r.Caller = Caller{AppService: id, Unlimited: true}
	}
}

// body reads the body. The server's ReadTimeout bounds how long that may take.
func (t *overHTTP) body(limit int64) ([]byte, error) {
	if t.r.ContentLength > limit {
		return nil, merr.TooLargeErr("The body is larger than %d bytes", limit)
	}
	if t.r.ContentLength == 0 {
		return nil, nil
	}
	b, err := t.read(limit)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		t.drained = true
		return b, nil
	case errors.As(err, &tooLarge):
		return nil, fmt.Errorf("read body: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.drained = true
		return nil, merr.New(http.StatusRequestTimeout, merr.Unknown, "The body came too slowly").Because(err)
	}
	// The client went away, or its chunks are malformed.
	return nil, merr.New(http.StatusBadRequest, merr.Unknown, "The body could not be read").Because(err)
}

// read reads a body of at most limit bytes.
func (t *overHTTP) read(limit int64) ([]byte, error) {
	if n := t.r.ContentLength; n > 0 && n <= firstBodyBuffer {
		// What most requests have: no byte more is allocated than they bring.
		b := make([]byte, n)
		_, err := io.ReadFull(t.r.Body, b)
		return b, err
	}
	var buf bytes.Buffer
	if t.r.ContentLength > 0 {
		buf.Grow(firstBodyBuffer)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(t.w.ResponseWriter, t.r.Body, limit))
	return buf.Bytes(), err
}

// stream runs a stream route, with deadlines that suit its hold.
func (t *overHTTP) stream(r *Request) answer {
	t.begin(r)
	if r.Route.Hold == HoldTransfer {
		control := http.NewResponseController(t.w.ResponseWriter)
		until := time.Now().Add(transferTimeout)
		// Writers without deadlines are those of tests.
		_ = control.SetReadDeadline(until)
		_ = control.SetWriteDeadline(until)
	}
	hr := t.r.WithContext(r.Context)
	if hr.Body != nil {
		hr.Body = http.MaxBytesReader(t.w.ResponseWriter, hr.Body, r.Route.MaxBody)
	}
	r.Route.Stream(r, &t.w, hr)
	if t.w.status == 0 {
		t.w.status = http.StatusOK
	}
	return answer{status: t.w.status, written: true, bytes: t.w.bytes}
}

// write sends an answer. The time to take it counts from now, not from the
// beginning of a long poll.
func (t *overHTTP) write(r *Request, ans answer) {
	control := http.NewResponseController(t.w.ResponseWriter)
	// Writers without deadlines are those of tests.
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if !t.drained && t.r.ContentLength != 0 {
		_ = control.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	h := t.begin(r)
	h.Set("Content-Type", "application/json")
	for name, values := range ans.header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	h.Set("Content-Length", strconv.Itoa(ans.size()))
	t.w.WriteHeader(ans.status)
	// An error means that the client is gone: it will ask again.
	_, err := t.w.Write(ans.body)
	for _, piece := range ans.more {
		if err != nil {
			return
		}
		_, err = t.w.Write(piece)
	}
}

// WriteError answers a stream's request with an error, logged like that of any
// other handler. It is for use before the first byte of an answer.
func (r *Request) WriteError(w http.ResponseWriter, err error) {
	ans := r.d.failure(r, err)
	h := w.Header()
	for _, name := range []string{"Content-Disposition", "Content-Encoding", "Content-Range", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	for name, values := range ans.header {
		h[name] = values
	}
	h.Set("Content-Length", strconv.Itoa(len(ans.body)))
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTimeout))
	w.WriteHeader(ans.status)
	_, _ = w.Write(ans.body)
}

// recorder notes what a handler writes, for the log.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

var (
	_ http.Hijacker = (*recorder)(nil)
	_ http.Flusher  = (*recorder)(nil)
	_ io.ReaderFrom = (*recorder)(nil)
)

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom keeps sendfile for downloads.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

// Flush sends what is buffered.
func (w *recorder) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack hands the connection over to a socket.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return parking.Plain(conn), rw, nil
}

// Unwrap lets http.ResponseController reach the connection's deadlines.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
