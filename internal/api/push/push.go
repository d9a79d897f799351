// Package push serves where a user's notifications are sent, and the list of them.
// spec: client-server §Push Notifications.
//
// Handlers keep no state; they run on the goroutine of their request.
package push

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Lister begins to keep the list of notifications of a user who has none.
// *push.Service is one.
type Lister interface {
	List(ctx context.Context, user ids.UserID) error
}

// Deps are what the module stands on.
type Deps struct {
	Router   partition.Router
	Accounts *account.Reader
	Rooms    *room.Reader
	Lister   Lister
	// PlainHTTP allows gateways without TLS. Whether they can be reached is another
	// question.
	PlainHTTP bool
}

// Module holds the handlers.
type Module struct{ Deps }

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v3 = "/_matrix/client/v3"
	return []api.Route{
		{Method: http.MethodGet, Path: v3 + "/pushers", Op: "getPushers", Auth: api.AuthUser, Rate: api.RateNone, Handle: m.pushers},
		{Method: http.MethodPost, Path: v3 + "/pushers/set", Op: "postPusher", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.setPusher},
		{
			Method: http.MethodPost, Path: "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack",
			Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.ackPusher,
		},
		{Method: http.MethodGet, Path: v3 + "/notifications", Op: "getNotifications", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.notifications},
	}
}
