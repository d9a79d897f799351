// Package api is the transport-independent heart of the Client-Server API: the
// table of routes, the request and response that handlers see, and the
// dispatcher that checks authorization, limits and input before a handler runs.
//
// The same routes serve HTTP and the WebSocket: a handler never sees a socket,
// unless its route is a stream (media). One package per module of the
// specification holds the handlers and exports its Routes. A route states how it
// is authorized and which rate class it belongs to; there is no default for
// either, so that a route which forgets them does not start.
//
// Handlers run on the goroutine of their request and may be called concurrently.
package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

// Auth says who may call a route.
type Auth uint8

// The kinds of authorization. The zero value is invalid on purpose.
const (
	// AuthNone: anyone; a token is not looked at.
	AuthNone Auth = iota + 1
	// AuthService: as AuthNone, but the token of an application service is known:
	// Caller.AppService is set, and no user. For what makes accounts and sessions.
	AuthService
	// AuthOptional: anyone; a token that is sent must be valid.
	AuthOptional
	// AuthUser: a valid access token of a user.
	AuthUser
	// AuthAdmin: a valid access token of a server administrator.
	AuthAdmin
)

// RateClass names a group of routes that share a limit per caller. Without a
// caller, the limit is per address.
type RateClass = ratelimit.Class

// The rate classes. config.Limits has a section for each. Guesses are limited
// per account too; the handlers that check a secret do that with
// ratelimit.LoginAccount.
const (
	// RateNone: not limited: cheap reads, and what a client must always be able
	// to do (log out).
	RateNone RateClass = ratelimit.None
	// RateLogin: attempts to prove an identity, always per address.
	RateLogin RateClass = ratelimit.Login
	// RateRegister: new accounts and availability checks, always per address.
	RateRegister RateClass = ratelimit.Registration
	// RateSend: what makes others receive something, per user.
	RateSend RateClass = ratelimit.Send
	// RateJoin: membership changes and room creation, per user.
	RateJoin RateClass = ratelimit.Join
	// RateRead: reads that cost more than a look-up, per user.
	RateRead RateClass = ratelimit.Read
	// RateWrite: writes that only the caller sees, per user.
	RateWrite RateClass = ratelimit.Write
	// RateSync: the sync family, per user.
	RateSync RateClass = ratelimit.Sync
	// RateMedia: downloads and thumbnails, per user.
	RateMedia RateClass = ratelimit.Media
	// RatePreview: previews of URLs, per user.
	RatePreview RateClass = ratelimit.Preview
)

// Hold says how long a route keeps its place among the requests in flight, and
// so which limits and deadline it is under.
type Hold uint8

// The kinds of hold.
const (
	// HoldShort: answered as soon as the work is done. For a Stream it stands
	// for HoldTransfer.
	HoldShort Hold = iota
	// HoldLong: may wait for something to happen, MaxLongPoll at most.
	HoldLong
	// HoldTransfer: lasts as long as its bytes need.
	HoldTransfer
	// HoldOwn: bounds itself in number and time: sockets.
	HoldOwn
)

// Route is one row of the table of routes.
type Route struct {
	Method string
	// Path is a template of the current specification:
	// "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}". A last
	// segment "{name...}" takes the rest of the path. A template that ends in
	// "/" answers with and without that slash. What is under
	// /_matrix/client/v3/ also answers under r0, and what is under
	// /_matrix/media/v3/ under r0 and v1, unless another route has that path.
	Path string
	// Also are further templates that this route answers: unstable names, and
	// forms that lack a last segment. A parameter that the matched template does
	// not have is "".
	Also []string
	// Op is the operation ID of the specification, or "" for our own.
	Op string
	// Auth and Rate are never left out.
	Auth Auth
	Rate RateClass
	// MaxBody is the most bytes of body; 0 stands for DefaultMaxBody.
	MaxBody int64
	// RawBody: the body may be anything; it is not looked at before Handle runs.
	RawBody bool
	// Hold says how long the route may take. spec: client-server §Syncing.
	Hold Hold
	// HeaderTokenOnly refuses access tokens in the query string, which end in the
	// logs of proxies. spec: client-server §Client authentication (deprecated
	// since v1.11; authenticated media never had it).
	HeaderTokenOnly bool
	// Guest allows guest accounts. spec: client-server §Guest Access.
	Guest bool
	// Handle answers the request. Exactly one of Handle and Stream is set.
	Handle Handler
	// Stream handles raw HTTP: media, sockets. It is not reachable over the
	// WebSocket. Authorization and rate limits are applied before it runs.
	// An error that comes before the first byte is written with
	// Request.WriteError. The CORS headers and the safe defaults of the others
	// are already set; the body is limited to MaxBody.
	Stream func(*Request, http.ResponseWriter, *http.Request)
}

// Handler answers one request. The value is sent as JSON with status 200, unless
// it is a Response: a jsontext.Value is sent as it is, nil stands for {}. An error
// goes through merr.From. A Waiting is not sent: see there.
type Handler func(*Request) (any, error)

// Request is what a handler sees of a request, whatever transport it came by.
type Request struct {
	// Context ends when the client is gone, or at the server's deadline.
	Context context.Context
	Method  string
	// Path is the path as the client sent it, still escaped.
	Path string
	// Query has the decoded parameters without access_token. nil if there are
	// none; reading from nil is fine.
	Query url.Values
	// Body is the whole body, nil if it is empty, for GET and for streams. It is
	// valid UTF-8 and well-formed JSON, an object without duplicate members, for
	// every route but those with RawBody. It may be kept and must not be changed.
	Body []byte

	// Caller is who proved to call; its User is "" without a token.
	Caller Caller
	// Addr is the client's address, taken from X-Forwarded-For only behind a
	// trusted proxy.
	Addr      netip.Addr
	UserAgent string
	// Host is the authority the client asked for; never use it to build links.
	Host string
	// Route is the row of the table that matched.
	Route *Route
	// ID is the request's ID for logs.
	ID string

	params    []param
	paramsBuf [maxParams]param
	endpoint  *endpoint
	d         *Dispatcher
	token     string
	rawQuery  string
	// gone: the client gave the request up.
	gone bool
	// patience is what Patience tells.
	patience time.Duration
	stay     stay
}

// Caller is an authenticated caller.
type Caller struct {
	User   ids.UserID
	Device ids.DeviceID
	// TokenHash identifies the access token in use (never the token).
	TokenHash string
	// AppService is the ID of the application service whose token was used.
	AppService string
	Admin      bool
	Guest      bool
	// Suspended: see Request.allowsSuspended.
	Suspended bool
	// Unlimited exempts the caller from rate limits.
	// spec: application-service §Registration, rate_limited.
	Unlimited bool
}

type param struct{ name, value string }

// HasToken reports whether the client sent an access token, whatever it is worth.
func (r *Request) HasToken() bool { return r.token != "" }

// Param returns a path parameter, decoded exactly once. "" if the route has none
// of that name.
func (r *Request) Param(name string) string {
	for _, p := range r.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// Response is an answer that is more than a JSON value with status 200.
type Response struct {
	// Status 0 stands for 200.
	Status int
	Header http.Header
	// Body is a JSON value: a jsontext.Value and Pieces are sent as they are, other
	// values are marshalled.
	Body any
}

// Empty is the answer {}.
var Empty = jsontext.Value("{}")
