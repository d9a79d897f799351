package api

import (
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// ErrLocked is the answer to the holder of a locked account. The tokens stay
// valid, so clients keep what they have and wait. spec: client-server §Account
// locking.
func ErrLocked() error {
	return merr.New(http.StatusUnauthorized, merr.UserLocked, "This account has been locked").With("soft_logout", true)
}

// ErrSuspended is the answer to what a suspended user may not do. spec:
// client-server §Account suspension.
func ErrSuspended() error {
	return merr.New(http.StatusForbidden, merr.UserSuspended, "You cannot perform this action while suspended")
}

// allowsLocked reports whether a locked user may call the route: only what ends
// their sessions.
func (rt *Route) allowsLocked() bool { return rt.Op == "logout" || rt.Op == "logout_all" }

// allowsSuspended reports whether a suspended user may make the request. What
// others would receive, and entering rooms, is refused by the rate class that such
// routes are in, so that a new route is refused without anyone thinking of it.
func (r *Request) allowsSuspended() bool {
	switch r.Route.Op {
	case "redactEvent":
		return true // of their own events; the handler knows whose it is
	case "sendToDevice":
		return true // verification of the user's devices goes this way
	case "sendMessage":
		return r.Param("eventType") == event.TypeRedaction
	case "delete3pidFromAccount", "setTyping":
		return false
	}
	return r.Route.Rate != RateSend && r.Route.Rate != RateJoin
}
