package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Call is a request that does not come by HTTP: from a WebSocket or from within
// the process.
type Call struct {
	Method string
	// Target is a path with an optional query, escaped exactly as in HTTP.
	Target string
	// Body is a JSON object or empty. The handler may keep it, so it must not be
	// reused by the caller.
	Body []byte
	// Caller is who calls, authenticated by whoever makes the call; the zero value
	// is anonymous. Tokens in Target are ignored.
	Caller    Caller
	Addr      netip.Addr
	UserAgent string
}

// CallResult is the answer to a Call. Body is JSON and may be shared: it must not be
// changed. retry_after_ms stands in the body of a 429 or 503.
type CallResult struct {
	Status int
	Body   []byte
}

// Call serves one request in process, under the same checks and limits as HTTP. It
// returns when the handler does; ctx cancels it. Routes that stream are not
// reachable: 404 M_UNRECOGNIZED. It may be called from any goroutine.
func (d *Dispatcher) Call(ctx context.Context, c Call) CallResult {
	start := d.clock.Now()
	path, query, _ := strings.Cut(c.Target, "?")
	r := &Request{
		Context: ctx, Method: c.Method, Path: path, rawQuery: query,
		Caller: c.Caller, Addr: c.Addr, UserAgent: c.UserAgent, ID: d.ids.next(),
	}
	ans := d.serve(r, inProcess{sent: c.Body})
	d.finish(r, ans.status, int64(ans.size()), d.clock.Now().Sub(start), slog.LevelDebug)
	return CallResult{Status: ans.status, Body: ans.more.joined(ans.body)}
}

// inProcess is the transport of calls.
type inProcess struct{ sent []byte }

var _ transport = inProcess{}

func (inProcess) identify(*Request) error  { return nil }
func (inProcess) identifyService(*Request) {}

func (t inProcess) body(limit int64) ([]byte, error) {
	if int64(len(t.sent)) > limit {
		return nil, merr.TooLargeErr("The body is larger than %d bytes", limit)
	}
	return t.sent, nil
}

func (inProcess) stream(*Request) answer  { panic("api: a call reached a stream route") }
func (inProcess) streams() bool           { return false }
func (inProcess) parks() bool             { return false }
func (inProcess) reserve() *parking.Place { return nil }

// statusClientGone is counted for requests whose client did not wait for the
// answer: usual for polls, and not a failure of the server's.
const statusClientGone = 499

// slowRequest is from when on a request that succeeded is worth a line by itself: a
// hundred times what one usually takes.
const slowRequest = time.Second

// finish counts and logs a request. What went well and quickly is told by the
// metrics: a line for each was a fifteenth of what a send cost, and hid the others.
func (d *Dispatcher) finish(r *Request, status int, size int64, took time.Duration, level slog.Level) {
	if r.gone {
		status = statusClientGone
	}
	d.metrics.observe(r, status, took)
	if status < http.StatusBadRequest && (took < slowRequest || r.waits()) {
		level = slog.LevelDebug
	}
	if !d.log.Enabled(r.Context, level) {
		return
	}
	// Neither the path nor the query: they hold IDs, search terms and, from old
	// clients, access tokens.
	d.log.LogAttrs(r.Context, level, "request",
		slog.String("request_id", r.ID), slog.String("method", r.loggedMethod()), slog.String("route", r.template()),
		slog.Int("status", status), slog.Int64("bytes", size), slog.Duration("took", took),
		slog.String("user", string(r.Caller.User)), slog.String("addr", r.Addr.String()))
}

// waits reports whether the request may be slow because nothing happened.
func (r *Request) waits() bool { return r.endpoint != nil && r.endpoint.Hold == HoldLong }

// loggedMethod is the method if it is one of ours: else it is the client's text.
func (r *Request) loggedMethod() string {
	if r.Route == nil {
		return ""
	}
	return r.Method
}
