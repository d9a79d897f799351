// Package gateway is the WebSocket transport of docs/websocket.md: it carries
// calls to the API and the feed's sync frames to clients. It knows frames,
// sockets and their limits; it does not know rooms, nor what a call means.
//
// A socket is a session. What a session must never do is hold memory while
// nothing happens, or let a slow client cost anyone else anything. Hence:
//
//   - One goroutine per session at most, which waits in a read without a buffer, and
//     none for a session that has been quiet, or has just said hello: it waits in a
//     poller that all share (package idleread). What arrives is handled on one of a
//     few goroutines that are used again (see workers), and the session waits on a
//     fresh one: no idle session keeps a stack that JSON or the API grew.
//   - No goroutine for writing. Frames are queued in the session, and one of a
//     few shards writes all that is ready in one non-blocking system call (see
//     shard). Only a socket whose kernel buffer is full gets a goroutine, until
//     it has drained.
//   - No timer per session: a wheel visits each session every few seconds for
//     pings, dead peers and the re-check of its token. Deadlines of the
//     connection (which live in the runtime's poller) serve the short cases.
//
// Every method of Gateway may be called from any goroutine. The methods of
// session that run on its reading goroutine say so.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/idleread"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// API is what the gateway needs of the API.
type API interface {
	// Call runs one call as if it had come by HTTP. It honours the context.
	Call(ctx context.Context, call api.Call) api.CallResult
}

// Auth is what the gateway needs to know whose a token is.
type Auth interface {
	api.Authenticator
	// Look reads what Authenticate will be asked of next, all at once.
	Look(ctx context.Context, list []api.Credentials)
}

// Feed is what the gateway needs of the feed.
type Feed interface {
	// Open starts a session that sends to the sink, which may happen before Open
	// returns. feed.ErrUnknownPosition, or a merr for what else the client did.
	Open(ctx context.Context, open feed.Open, sink feed.Sink) (feed.Session, error)
}

// DefaultMaxSockets bounds the sockets of a node where the configuration does
// not. It is a guard against running out of memory, not a target.
const DefaultMaxSockets = 100_000

// DefaultDrainSpread is how long Shutdown takes to close all sockets, so that
// their clients do not come to the next node in one instant.
const DefaultDrainSpread = 5 * time.Second

// Config is what a Gateway needs.
type Config struct {
	API API
	// Auth resolves access tokens. An error that is a merr with status 401 or 403
	// says that the token is no good; any other says nothing about it.
	Auth     Auth
	Feed     Feed
	Log      *slog.Logger
	Registry prometheus.Registerer // nil: no metrics are exported

	// PublicBaseURL is the server's public address; its origin may connect.
	PublicBaseURL string
	// AllowedOrigins are further origins ("https://app.example.org"), or "*".
	AllowedOrigins []string
	// MaxSockets bounds the sockets of this node; 0 is DefaultMaxSockets.
	MaxSockets int
	// DrainSpread is how long Shutdown spreads its closes; 0 is
	// DefaultDrainSpread.
	DrainSpread time.Duration

	// Recheck is how often the token of each socket is looked at again; 0 is 4 s.
	Recheck time.Duration
	// Withdrawn says why this node has left its work to others: its sockets are told to
	// go there, and it takes no new ones. nil stands for a node that never does.
	Withdrawn func() error

	times times // zero fields take the values of defaultTimes
}

// Gateway serves the sockets of one node. Shutdown must be called to stop its
// goroutines.
type Gateway struct {
	cfg      Config
	times    times
	metrics  *metrics
	origins  []string
	start    time.Time
	hub      hub
	shards   []*shard
	turn     atomic.Uint64 // deals sessions to the shards
	pool     idleread.Pool
	poller   *idleread.Poller // nil where there is none
	lists    sync.Pool        // *frameList
	arriving sync.Pool        // *arriving
	bufs     sync.Pool        // *blockBuffer
	asked    sync.Pool        // *credentialsList

	ctx    context.Context // of sign-ins and acknowledgements; ends when Shutdown gives up waiting
	cancel context.CancelFunc
	// sessions counts open sessions with all their goroutines; background counts
	// the shards and the wheel.
	sessions   sync.WaitGroup
	background sync.WaitGroup
	workers    *workers
	stop       chan struct{}
	stopOnce   sync.Once
}

// New starts a gateway.
func New(cfg Config) *Gateway {
	if cfg.MaxSockets == 0 {
		cfg.MaxSockets = DefaultMaxSockets
	}
	if cfg.DrainSpread == 0 {
		cfg.DrainSpread = DefaultDrainSpread
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Recheck > 0 {
		cfg.times.recheck = cfg.Recheck
	}
	poller, err := idleread.NewPoller()
	if err != nil {
		cfg.Log.Warn("sockets wait on a goroutine each", slog.Any("error", err))
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		cfg:     cfg,
		times:   cfg.times.withDefaults(),
		metrics: newMetrics(cfg.Registry, poller),
		poller:  poller,
		start:   time.Now(),
		ctx:     ctx, cancel: cancel,
		workers: newWorkers(),
		stop:    make(chan struct{}),
	}
	for _, o := range append([]string{cfg.PublicBaseURL}, cfg.AllowedOrigins...) {
		if o == "*" {
			g.origins = append(g.origins, o)
		} else if u, err := url.Parse(o); err == nil && u.Host != "" {
			g.origins = append(g.origins, strings.ToLower(u.Scheme+"://"+u.Host))
		}
	}
	g.hub.init(cfg.MaxSockets)
	for range runtime.GOMAXPROCS(0) {
		g.shards = append(g.shards, newShard(g))
	}
	for _, sh := range g.shards {
		g.background.Go(sh.run)
	}
	g.background.Go(g.wheel)
	if cfg.Withdrawn != nil {
		g.background.Go(g.moveAway)
	}
	return g
}

// now is the time since the gateway started, in nanoseconds: monotonic, and one
// word in a session.
func (g *Gateway) now() int64 { return int64(time.Since(g.start)) }

// Routes returns the gateway's row of the route table.
func (g *Gateway) Routes() []api.Route {
	return []api.Route{{
		Method: http.MethodGet,
		Path:   wire.Path,
		Auth:   api.AuthNone,
		Rate:   api.RateNone, // the sockets of a node and of a user are counted here
		Hold:   api.HoldOwn,
		Stream: g.upgrade,
	}}
}

// fullRetry is when a client that found no room may try again.
const fullRetry = 5 * time.Second

// upgradeTimeout bounds the writing of the handshake's answer, which fits in an
// empty socket buffer.
const upgradeTimeout = 5 * time.Second

// upgrade turns an HTTP request into a session. The session starts on a fresh
// goroutine, so that the handler's stack and net/http's buffers are freed.
func (g *Gateway) upgrade(req *api.Request, w http.ResponseWriter, r *http.Request) {
	if e := g.refuse(r); e != nil {
		if e.Status == http.StatusUpgradeRequired {
			w.Header().Set("Upgrade", "websocket")
		}
		writeError(w, e)
		return
	}
	up := ws.HTTPUpgrader{
		Timeout:  upgradeTimeout,
		Protocol: func(p string) bool { return p == wire.Subprotocol },
	}
	conn, rw, _, err := up.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return
	}
	var early []byte
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ = rw.Reader.Peek(n)
		early = slices.Clone(early)
	}
	g.serve(conn, early, req.Addr, req.UserAgent)
}

// serve starts a session over a connection whose handshake is done. early are
// bytes that came with the handshake.
func (g *Gateway) serve(conn net.Conn, early []byte, addr netip.Addr, userAgent string) {
	s := newSession(g, conn, addr, userAgent)
	if g.hub.add(s, func() { g.sessions.Add(1) }) {
		go s.run(early)
		return
	}
	// The last place went between refuse and here, or Shutdown began. An empty
	// socket buffer takes these bytes.
	payload := wire.ClosePayload(wire.CloseUnavailable, "no room")
	_ = conn.SetDeadline(time.Now().Add(upgradeTimeout))
	_, _ = conn.Write(append(wire.AppendHeader(nil, wire.OpClose, len(payload), nil), payload...))
	_ = conn.Close()
}

// refuse says why a request must not be upgraded, nil if it may.
func (g *Gateway) refuse(r *http.Request) *merr.Error {
	if !g.originAllowed(r) {
		return merr.ForbiddenErr("Origin not allowed")
	}
	if r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return merr.New(http.StatusUpgradeRequired, merr.Unrecognized, "Expected a WebSocket upgrade")
	}
	if !offered(r) {
		return merr.InvalidParamErr("Subprotocol %s was not offered", wire.Subprotocol)
	}
	if g.withdrawn() {
		return merr.UnavailableErr(fullRetry, "This part of the server is cut off, others serve")
	}
	if g.hub.full() {
		return merr.UnavailableErr(fullRetry, "Too many sockets, or shutting down")
	}
	return nil
}

func offered(r *http.Request) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(p) == wire.Subprotocol {
				return true
			}
		}
	}
	return false
}

// originAllowed guards against other sites' pages. Tokens are never ambient
// (no cookie), so this is a second line; a request without an Origin does not come
// from a browser.
func (g *Gateway) originAllowed(r *http.Request) bool {
	origin := strings.ToLower(r.Header.Get("Origin"))
	if origin == "" {
		return true
	}
	if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	return slices.Contains(g.origins, origin) || slices.Contains(g.origins, "*")
}

func writeError(w http.ResponseWriter, e *merr.Error) {
	body, err := e.MarshalJSON()
	if err != nil {
		body = []byte(`{"errcode":"M_UNKNOWN","error":"Internal server error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(e.RetryAfter/time.Second)))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body)
}

// CloseDevice closes the sockets of one device with a close code, for example
// when its tokens were revoked.
func (g *Gateway) CloseDevice(user ids.UserID, device ids.DeviceID, code int) {
	for _, s := range g.hub.ofUser(user) {
		if s.device() == device {
			s.close(code, "signed out")
		}
	}
}

// CloseUser closes all sockets of a user with a close code.
func (g *Gateway) CloseUser(user ids.UserID, code int) {
	for _, s := range g.hub.ofUser(user) {
		s.close(code, "signed out")
	}
}

// RecheckUser looks the tokens of all sockets of a user up again: what the user
// may do has changed. It closes those whose user may do nothing any more.
func (g *Gateway) RecheckUser(user ids.UserID) { g.recheck(g.hub.ofUser(user)) }

// Sockets is the number of open sockets.
func (g *Gateway) Sockets() int { return g.hub.count() }

func (g *Gateway) withdrawn() bool { return g.cfg.Withdrawn != nil && g.cfg.Withdrawn() != nil }

// moveAway sends sockets elsewhere whenever the node has withdrawn.
func (g *Gateway) moveAway() {
	tick := time.NewTicker(g.times.recheck / wheelSlots)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-g.stop:
			return
		}
		if g.withdrawn() {
			g.closeSpread(g.ctx, g.hub.all(), g.withdrawn)
		}
	}
}

// Drain refuses new sockets and closes all others with 4503, spread over the configured
// time or until ctx ends. The node still serves; Shutdown has to follow.
func (g *Gateway) Drain(ctx context.Context) {
	g.closeSpread(ctx, g.hub.shut(), func() bool { return true })
}

// Shutdown refuses new sockets, closes all others with 4503 spread over the
// configured time, and waits until every goroutine has ended.
// When ctx ends first the rest is cut off, and ctx's error is returned.
func (g *Gateway) Shutdown(ctx context.Context) error {
	all := g.hub.shut()
	g.closeSpread(ctx, all, func() bool { return true })
	done := make(chan struct{})
	go func() {
		g.sessions.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		g.cancel()
		for _, s := range all {
			s.cut()
		}
		<-done
	}
	g.cancel()
	g.stopOnce.Do(func() {
		close(g.stop)
		g.workers.close()
		g.poller.Close()
	})
	g.background.Wait()
	return err
}

// closeSpread closes sessions over the configured time, as long as that is wanted.
func (g *Gateway) closeSpread(ctx context.Context, all []*session, wanted func() bool) {
	begin := time.Now()
	for i, s := range all {
		due := time.Duration(float64(g.cfg.DrainSpread) * float64(i) / float64(len(all)))
		if wait := due - time.Since(begin); wait > time.Millisecond {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		if !wanted() {
			return
		}
		s.close(wire.CloseUnavailable, "the node is going away")
	}
}

// closeCode maps an error of Authenticate or of the feed to a close code.
func closeCode(err error) (int, string) {
	if errors.Is(err, feed.ErrUnknownPosition) {
		return wire.CloseUnknownPos, "unknown position"
	}
	var e *merr.Error
	if !errors.As(err, &e) {
		return wire.CloseInternal, "internal error"
	}
	switch {
	case e.Code == merr.UserLocked, e.Code == merr.UserDeactivated:
		return wire.CloseForbidden, string(e.Code)
	case e.Status == http.StatusUnauthorized:
		return wire.CloseUnauthorized, string(e.Code)
	case e.Status == http.StatusForbidden:
		return wire.CloseForbidden, string(e.Code)
	case e.Status == http.StatusTooManyRequests:
		return wire.CloseTooMany, string(e.Code)
	case e.Status >= 400 && e.Status < 500:
		return wire.CloseMalformed, string(e.Code)
	case e.Status == http.StatusServiceUnavailable:
		return wire.CloseUnavailable, e.Msg
	default:
		return wire.CloseInternal, "internal error"
	}
}
