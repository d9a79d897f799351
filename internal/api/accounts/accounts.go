// Package accounts serves what belongs to an account beside its sessions: contact
// addresses, OpenID, and what administrators may see and do of it. spec:
// client-server §Account moderation, §OpenID, §Adding Account Administrative
// Contact Information, §Server Administration.
package accounts

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Prover asks who calls for proof that they are the owner of the account.
type Prover interface {
	// Prove returns nil if the request is authenticated for an operation, else
	// what to answer. a is the member "auth" of the body.
	Prove(r *api.Request, operation string, a jsontext.Value) error
}

// Deps are what the module stands on.
type Deps struct {
	Server   string // the server name
	Router   partition.Router
	Accounts *account.Reader
	Clock    clock.Clock
	Prover   Prover
	Contacts *contact.Service
	// Changed is told that what a user may do has changed.
	Changed func(user ids.UserID)
}

// Module holds the handlers.
type Module struct {
	Deps
}

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

const (
	v3             = "/_matrix/client/v3"
	get, post, put = http.MethodGet, http.MethodPost, http.MethodPut
)

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const suspend, lock = "/_matrix/client/v1/admin/suspend/{userId}", "/_matrix/client/v1/admin/lock/{userId}"
	return append(m.contactRoutes(), []api.Route{
		{Method: get, Path: v3 + "/admin/whois/{userId}", Op: "getWhoIs", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.whois},
		{Method: get, Path: suspend, Op: "getAdminSuspendUser", Auth: api.AuthAdmin, Rate: api.RateRead, Handle: m.suspended},
		{Method: put, Path: suspend, Op: "setAdminSuspendUser", Auth: api.AuthAdmin, Rate: api.RateWrite, Handle: m.suspend},
		{Method: get, Path: lock, Op: "getAdminLockUser", Auth: api.AuthAdmin, Rate: api.RateRead, Handle: m.locked},
		{Method: put, Path: lock, Op: "setAdminLockUser", Auth: api.AuthAdmin, Rate: api.RateWrite, Handle: m.lock},
		{Method: post, Path: v3 + "/user/{userId}/openid/request_token", Op: "requestOpenIdToken", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.openID},
		{Method: get, Path: "/_matrix/federation/v1/openid/userinfo", Auth: api.AuthNone, Rate: api.RateRead, Handle: m.userInfo},
	}...)
}
