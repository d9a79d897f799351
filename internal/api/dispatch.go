package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

const (
	// MaxLongPoll is the longest that a handler of a HoldLong route may wait for
	// something to happen. Clients ask for 30 s; proxies cut idle requests at a
	// minute or two.
	MaxLongPoll = 2 * time.Minute
	// shortTimeout ends the context of ordinary requests: clients have given up
	// by then, and the work would only add to an overload.
	shortTimeout = 30 * time.Second
	// longGrace is the time that a long poll has for its answer after its wait.
	longGrace = shortTimeout
	// transferTimeout bounds uploads and downloads: 100 MB at 30 KB/s.
	transferTimeout = time.Hour
	// timeoutRetry is when to repeat a request that the server gave up.
	timeoutRetry = time.Second
	// pollRetry is when to repeat a long poll that was ended.
	pollRetry = time.Second
)

// Credentials are what a request says about who sends it.
type Credentials struct {
	// Token is the access token, or "" for one that was proven before: then User,
	// TokenHash and AppService are those of its Caller.
	Token      string
	User       ids.UserID
	TokenHash  string
	AppService string
	// ActAs and ActAsDevice are the user_id and device_id query parameters, which
	// count only for application services.
	// spec: application-service §Identity assertion.
	ActAs       ids.UserID
	ActAsDevice ids.DeviceID
	Addr        netip.Addr
	UserAgent   string
	// Locked lets the holder of a locked account pass.
	Locked bool
}

// Authenticator finds out who sends a request.
type Authenticator interface {
	// Authenticate returns the caller, or an error for the client: 401
	// M_UNKNOWN_TOKEN with soft_logout where it applies, M_USER_LOCKED, ….
	// Other errors become a 500.
	Authenticate(ctx context.Context, c Credentials) (Caller, error)
}

// RateLimiter bounds what callers do. *ratelimit.Limiter is one.
type RateLimiter interface {
	// Allow takes one action of class for key, or says when to come back.
	Allow(class ratelimit.Class, key string, now time.Time) (ok bool, retryAfter time.Duration)
}

var _ RateLimiter = (*ratelimit.Limiter)(nil)

// Options are what a Dispatcher stands on. All but Service, TrustedProxies and Lot are
// needed.
type Options struct {
	Auth    Authenticator
	Limiter RateLimiter
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Service returns the ID of the application service whose token it is, "" if it
	// is nobody's. nil if there are no application services.
	Service func(token string) string
	// TrustedProxies may set X-Forwarded-For and X-Request-Id.
	TrustedProxies []netip.Prefix
	// Lot is where connections wait whose long polls have nothing to say; nil if each
	// waits on a goroutine.
	Lot *parking.Lot
}

// Dispatcher takes requests of every transport through the same steps:
//
//  1. the route of method and path (404, 405; 400 for bad escapes);
//  2. a place among the requests in flight on this node (503);
//  3. the access token (401), guest and administrator rights (403);
//  4. a place among the caller's requests in flight, and the rate limit (429);
//  5. the body: its size (413), that it is JSON (400 M_NOT_JSON), a plain object
//     (400 M_BAD_JSON);
//  6. the handler, then its answer or error.
//
// The order is such that each step costs more than the one before, and that
// nothing of the body is read for a caller who may not send it.
//
// A panic in any of the steps is counted, logged and answered with a 500. A
// Dispatcher is safe for concurrent use and owns no goroutine.
type Dispatcher struct {
	auth    Authenticator
	limiter RateLimiter
	clock   clock.Clock
	log     *slog.Logger
	service func(token string) string
	proxies []netip.Prefix
	lot     *parking.Lot
	// parkAfter is how long a poll waits on a goroutine first.
	parkAfter time.Duration

	router   router
	inFlight *inFlight
	polls    *polls
	metrics  *metrics
	ids      requestIDs
}

// endpoint is a Route prepared for serving.
type endpoint struct {
	Route
	metrics endpointMetrics
}

// New builds a dispatcher for the whole table. It fails, naming the route, if one
// is ambiguous, says not how it is authorized and limited, or has not exactly one
// of Handle and Stream.
func New(routes []Route, o Options) (*Dispatcher, error) {
	if o.Auth == nil || o.Limiter == nil || o.Clock == nil || o.Log == nil || o.Metrics == nil {
		return nil, errors.New("api: Options lack a part")
	}
	d := &Dispatcher{
		auth: o.Auth, limiter: o.Limiter, clock: o.Clock, log: o.Log,
		service: o.Service, proxies: slices.Clone(o.TrustedProxies),
		lot: o.Lot, parkAfter: parkAfter,
		ids: newRequestIDs(),
	}
	d.inFlight = newInFlight(defaultCaps(), d.ids.jitter)
	d.polls = newPolls()
	var err error
	if d.metrics, err = newMetrics(o.Metrics, d.inFlight, d.lot); err != nil {
		return nil, fmt.Errorf("api: register metrics: %w", err)
	}
	endpoints := make([]*endpoint, len(routes))
	for i := range routes {
		if err := routes[i].Check(); err != nil {
			return nil, fmt.Errorf("api: route %s %s: %w", routes[i].Method, routes[i].Path, err)
		}
		endpoints[i] = &endpoint{Route: routes[i]}
		if routes[i].Stream != nil && routes[i].Hold == HoldShort {
			endpoints[i].Hold = HoldTransfer
		}
		if routes[i].MaxBody == 0 {
			endpoints[i].MaxBody = DefaultMaxBody
		}
	}
	for _, alias := range []bool{false, true} {
		for _, ep := range endpoints {
			for _, template := range ep.templates(alias) {
				if err := d.router.add(ep.Method, template, ep, alias); err != nil {
					return nil, fmt.Errorf("api: route %s %s: %w", ep.Method, template, err)
				}
			}
		}
	}
	return d, nil
}

// Check reports what is missing or contradictory in a route.
func (rt *Route) Check() error {
	switch rt.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		return errors.New("the method is not GET, POST, PUT or DELETE")
	}
	for _, template := range append([]string{rt.Path}, rt.Also...) {
		if !Owns(template) {
			return fmt.Errorf("%q is outside the prefixes that are dispatched", template)
		}
	}
	switch {
	case rt.Auth < AuthNone || rt.Auth > AuthAdmin:
		return errors.New("no Auth: say who may call it")
	case rt.Rate == "":
		return errors.New("no Rate: say which limit it is under")
	case !slices.Contains(rateClasses(), rt.Rate):
		return fmt.Errorf("unknown rate class %q", rt.Rate)
	case (rt.Handle == nil) == (rt.Stream == nil):
		return errors.New("not exactly one of Handle and Stream")
	case rt.MaxBody < 0, rt.Hold > HoldOwn:
		return errors.New("MaxBody or Hold is out of range")
	}
	return nil
}

func rateClasses() []RateClass {
	return []RateClass{RateNone, RateLogin, RateRegister, RateSend, RateJoin, RateRead, RateWrite, RateSync, RateMedia, RatePreview}
}

func (rt *Route) templates(old bool) []string {
	named := append([]string{rt.Path}, rt.Also...)
	if !old {
		return named
	}
	var older []string
	for _, template := range named {
		older = append(older, aliases(template)...)
	}
	return older
}

// transport is the part of a request's way that differs between HTTP and calls.
type transport interface {
	// identify sets r.Caller.
	identify(r *Request) error
	// identifyService sets r.Caller if the token is an application service's.
	identifyService(r *Request)
	// body reads the whole body, of at most limit bytes.
	body(limit int64) ([]byte, error)
	// stream runs a Stream route. It is called only if streams is true.
	stream(r *Request) answer
	streams() bool
	// parks reports whether the request can wait without a goroutine; reserve keeps a
	// place for that, nil if there is none.
	parks() bool
	reserve() *parking.Place
}

// serve takes r through all steps. r.Context, Method, Path, rawQuery, Addr,
// UserAgent and ID are set; the rest is set here.
func (d *Dispatcher) serve(r *Request, t transport) (ans answer) {
	defer func() {
		if v := recover(); v != nil {
			ans = d.panicked(r, t, v)
		}
	}()
	defer func() {
		if ans.parked == nil {
			d.endStay(&r.stay)
		}
	}()
	r.d = d
	if allow, err := d.route(r, t); err != nil {
		ans = d.failure(r, err)
		if allow != "" {
			ans.header = http.Header{"Allow": {allow}}
		}
		return ans
	}
	ep := r.endpoint
	if limit := ep.timeout(); limit > 0 {
		ctx, cancel := context.WithDeadline(r.Context, r.stay.begin(limit))
		defer cancel()
		r.Context = ctx
	}
	if err := d.enter(r, t); err != nil {
		return d.failure(r, err)
	}
	if ep.Stream != nil {
		return t.stream(r)
	}
	if err := d.readBody(r, t); err != nil {
		return d.failure(r, err)
	}
	value, err := d.handle(r, t)
	if err != nil {
		return d.failure(r, err)
	}
	if place, ok := value.(*parking.Place); ok {
		return answer{parked: place}
	}
	return d.success(r, value)
}

// enter finds the caller and takes the places that the request needs, those that it
// does not have from before it was parked.
func (d *Dispatcher) enter(r *Request, t transport) error {
	ep := r.endpoint
	if !r.stay.onNode {
		if err := d.inFlight.enter(ep.Hold, ep.Rate); err != nil {
			return err
		}
		r.stay.onNode, r.stay.hold = true, ep.Hold
	}
	if err := d.authorize(r, t); err != nil || r.stay.ofHolder {
		return err
	}
	r.stay.holder = holderOf(r)
	if err := d.inFlight.enterHolder(ep.Hold, r.stay.holder); err != nil {
		return err
	}
	r.stay.ofHolder = true
	return d.limit(r)
}

// route finds the endpoint and decodes the path and query. allow is the Allow
// header for a known path with another method.
func (d *Dispatcher) route(r *Request, t transport) (allow string, err error) {
	s := search{method: r.Method}
	if !d.router.find(&s, r.Path) {
		if s.nAllowed > 0 {
			return s.allow(), merr.New(http.StatusMethodNotAllowed, merr.Unrecognized, "Method not allowed")
		}
		return "", errUnrecognized
	}
	ep := s.found.endpoint
	if ep.Stream != nil && !t.streams() {
		return "", errUnrecognized
	}
	r.endpoint, r.Route = ep, &ep.Route
	if err := s.bind(r); err != nil {
		return "", err
	}
	r.Query, err = parseQuery(r.rawQuery)
	if tokens, ok := r.Query["access_token"]; ok {
		if r.token == "" && !ep.HeaderTokenOnly {
			r.token = tokens[0]
		}
		delete(r.Query, "access_token")
	}
	return "", err
}

var errUnrecognized = merr.New(http.StatusNotFound, merr.Unrecognized, "Unrecognized request")

func (ep *endpoint) timeout() time.Duration {
	switch ep.Hold {
	case HoldLong:
		return MaxLongPoll + longGrace
	case HoldTransfer:
		return transferTimeout
	case HoldOwn:
		return 0
	}
	return shortTimeout
}

// authorize finds the caller and checks that they may call the route.
func (d *Dispatcher) authorize(r *Request, t transport) error {
	rt := r.Route
	if rt.Auth == AuthNone || rt.Auth == AuthService {
		// Whoever it is has to look like a stranger, on every transport.
		r.Caller = Caller{}
		if rt.Auth == AuthService {
			t.identifyService(r)
		}
		return nil
	}
	if err := t.identify(r); err != nil {
		return err
	}
	switch {
	case rt.Auth == AuthOptional:
		return nil
	case r.Caller.User == "":
		return merr.New(http.StatusUnauthorized, merr.MissingToken, "Missing access token")
	case r.Caller.Guest && !rt.Guest:
		return merr.New(http.StatusForbidden, merr.GuestAccessForbidden, "Guests may not do this")
	case rt.Auth == AuthAdmin && !r.Caller.Admin:
		return merr.ForbiddenErr("Only a server administrator may do this")
	case r.Caller.Suspended && !r.allowsSuspended():
		return ErrSuspended()
	}
	return nil
}

// limit applies the rate limit of the route. Classes that guard identities count
// per address: their callers are nobody yet, or want to be somebody else.
func (d *Dispatcher) limit(r *Request) error {
	class := r.Route.Rate
	if class == RateNone || r.Caller.Unlimited {
		return nil
	}
	key := string(r.Caller.User)
	if key == "" || class == RateLogin || class == RateRegister {
		key = addressKey(r.Addr).String()
	}
	if ok, retry := d.limiter.Allow(class, key, d.clock.Now()); !ok {
		return merr.LimitedErr(retry)
	}
	return nil
}

// addressKey is the part of an address that one subscriber has to themselves: a
// whole /64 of IPv6.
func addressKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	prefix, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return prefix.Addr()
}

// panicked answers for a panic. It runs on the goroutine that panicked.
func (d *Dispatcher) panicked(r *Request, t transport, v any) answer {
	if v == http.ErrAbortHandler && t.streams() {
		// A stream gave its connection up on purpose; net/http knows.
		panic(v)
	}
	d.metrics.panics.Inc()
	d.log.LogAttrs(r.Context, slog.LevelError, "panic in a request",
		slog.String("request_id", r.ID), slog.String("method", r.Method), slog.String("route", r.template()),
		slog.String("user", string(r.Caller.User)), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	return errorAnswer(merr.New(http.StatusInternalServerError, merr.Unknown, "Internal server error"))
}

func (r *Request) template() string {
	if r.Route == nil {
		return unmatched
	}
	return r.Route.Path
}
