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

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Auth says who may call a route.
type Auth uint8

// The kinds of authorization. The zero value is invalid on purpose.
const (
	// AuthNone: anyone; a token is not looked at.
	AuthNone Auth = iota + 1
	// AuthOptional: anyone; a token that is sent must be valid.
	AuthOptional
	// AuthUser: a valid access token of a user.
	AuthUser
	// AuthAdmin: a valid access token of a server administrator.
	AuthAdmin
)

// RateClass names a group of routes that share a limit per caller.
type RateClass string

// The rate classes. config.Limits has a section for each.
const (
	// RateNone: not limited: cheap reads, and what a client must always be able
	// to do (log out).
	RateNone RateClass = "none"
	// RateLogin: attempts to prove an identity, per address and per account.
	RateLogin RateClass = "login"
	// RateRegister: new accounts and availability checks, per address.
	RateRegister RateClass = "registration"
	// RateSend: what makes others receive something, per user.
	RateSend RateClass = "send"
	// RateJoin: membership changes and room creation, per user.
	RateJoin RateClass = "join"
	// RateRead: reads that cost more than a look-up, per user.
	RateRead RateClass = "read"
	// RateWrite: writes that only the caller sees, per user.
	RateWrite RateClass = "write"
	// RateSync: the sync family, per user.
	RateSync RateClass = "sync"
)

// Route is one row of the table of routes.
type Route struct {
	Method string
	// Path is a template of the current specification:
	// "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}". A last
	// segment "{name...}" takes the rest of the path. Paths under v3 also answer
	// under r0 and v1 where OldPaths says so.
	Path string
	// Op is the operation ID of the specification, or "" for our own.
	Op   string
	Auth Auth
	Rate RateClass
	// MaxBody is the most bytes of body; 0 stands for DefaultMaxBody.
	MaxBody int64
	// Guest allows guest accounts. spec: client-server §Guest Access.
	Guest bool
	// Handle answers the request. Exactly one of Handle and Stream is set.
	Handle Handler
	// Stream handles raw HTTP: media, sockets. It is not reachable over the
	// WebSocket. Authorization and rate limits are applied before it runs.
	Stream func(*Request, http.ResponseWriter, *http.Request)
}

// Handler answers one request. The value is sent as JSON with status 200, unless
// it is a Response. An error goes through merr.From.
type Handler func(*Request) (any, error)

// Request is what a handler sees of a request, whatever transport it came by.
type Request struct {
	// Context ends when the client is gone, or at the server's deadline.
	Context context.Context
	Method  string
	// Path is the path as the client sent it, still escaped.
	Path  string
	Query url.Values
	// Body is the whole body, nil for streams. It is valid UTF-8 and well-formed
	// JSON, an object, for every route but those that say otherwise.
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

	params []param
}

// Caller is an authenticated caller.
type Caller struct {
	User   ids.UserID
	Device ids.DeviceID
	// TokenHash identifies the access token in use (never the token).
	TokenHash string
	Admin     bool
	Guest     bool
	// AppService is the ID of the application service whose token was used.
	AppService string
}

type param struct{ name, value string }

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
	Status int
	Header http.Header
	// Body is a JSON value: a jsontext.Value is sent as it is, other values are
	// marshalled.
	Body any
}

// Empty is the answer {}.
var Empty = jsontext.Value("{}")
