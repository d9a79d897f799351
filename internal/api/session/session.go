// Package session serves who a client is: login, registration, tokens, devices,
// passwords. It also proves access tokens for all other routes (Authenticator).
// spec: client-server §Client Authentication, §Device Management.
package session

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

const (
	// accessLifetime is how long an access token lasts whose client can refresh
	// it. Others never expire.
	accessLifetime = time.Hour
	// deviceIDLength is the length of a device ID that the server makes.
	deviceIDLength = 10
	// maxDeviceID and maxDisplayName bound what clients choose, in bytes.
	maxDeviceID    = 255
	maxDisplayName = 256
)

// Limiter bounds guesses per account.
type Limiter interface {
	Allow(class ratelimit.Class, key string, now time.Time) (ok bool, retryAfter time.Duration)
	// Refund takes back an Allow: the guess was right.
	Refund(class ratelimit.Class, key string)
}

var _ Limiter = (*ratelimit.Limiter)(nil)

// Revoked is told which devices of a user have lost their tokens.
type Revoked func(user ids.UserID, devices []ids.DeviceID)

// Deps are what the module stands on.
type Deps struct {
	Server string // the server name
	Mode   config.RegistrationMode
	// Guests lets anyone in as a guest.
	Guests bool
	// Contacts proves e-mail addresses. NeedEmail: who registers has to.
	Contacts  *contact.Service
	NeedEmail bool
	// Providers are where people can sign in from.
	Providers []sso.Shown
	// JWT checks tokens of others, nil for none. JWTCreates: it makes accounts.
	JWT        *auth.JWT
	JWTCreates bool
	Router     partition.Router
	Accounts   *account.Reader
	Services   *appservice.Registry
	Hasher     *auth.Hasher
	Policy     *auth.Policy
	Secrets    *auth.Secrets
	// Shared is nil if there is no shared secret for registration.
	Shared  *auth.SharedSecret
	Limiter Limiter
	Clock   clock.Clock
	Log     *slog.Logger
	Tokens  *Authenticator
	Revoked Revoked
}

// Module holds the handlers.
type Module struct {
	Deps
	uia *auth.UIA
}

// New returns the module.
func New(d Deps) *Module {
	m := &Module{Deps: d}
	m.uia = auth.NewUIA(d.Secrets, d.Clock, map[auth.StageType]auth.Stage{
		auth.StageDummy:             auth.NewDummyStage(),
		auth.StagePassword:          auth.NewPasswordStage(d.Server, m),
		auth.StageRegistrationToken: auth.NewRegistrationTokenStage(m),
		auth.StageEmail:             auth.NewEmailStage(m),
		auth.StageSSO:               auth.NewSSOStage(m),
		auth.StageJWT:               auth.NewJWTStage(m),
	})
	return m
}

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v3 = "/_matrix/client/v3"
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []api.Route{
		{Method: get, Path: v3 + "/login", Op: "getLoginFlows", Auth: api.AuthNone, Rate: api.RateNone, Handle: m.loginFlows},
		{Method: post, Path: v3 + "/login", Op: "login", Auth: api.AuthService, Rate: api.RateLogin, Handle: m.login},
		{
			Method: post, Path: "/_matrix/client/v1/login/get_token", Op: "generateLoginToken",
			Also: []string{"/_matrix/client/unstable/org.matrix.msc3882/login/get_token"},
			Auth: api.AuthUser, Rate: api.RateLogin, Handle: m.loginToken,
		},
		{Method: post, Path: v3 + "/logout", Op: "logout", Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: m.logout},
		{Method: post, Path: v3 + "/logout/all", Op: "logout_all", Auth: api.AuthUser, Rate: api.RateNone, Handle: m.logoutAll},
		{Method: post, Path: v3 + "/refresh", Op: "refresh", Auth: api.AuthNone, Rate: api.RateWrite, Handle: m.refresh},
		{Method: post, Path: v3 + "/register", Op: "register", Auth: api.AuthService, Rate: api.RateRegister, Handle: m.register},
		{Method: get, Path: v3 + "/register/available", Op: "checkUsernameAvailability", Auth: api.AuthNone, Rate: api.RateRegister, Handle: m.available},
		{Method: get, Path: "/_matrix/client/v1/register/m.login.registration_token/validity", Op: "registrationTokenValidity", Auth: api.AuthNone, Rate: api.RateRegister, Handle: m.tokenValidity},
		{Method: get, Path: v3 + "/account/whoami", Op: "getTokenOwner", Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: m.whoami},
		{Method: post, Path: v3 + "/account/password", Op: "changePassword", Auth: api.AuthOptional, Rate: api.RateLogin, Handle: m.changePassword},
		{Method: post, Path: v3 + "/account/deactivate", Op: "deactivateAccount", Auth: api.AuthUser, Rate: api.RateLogin, Handle: m.deactivate},
		{Method: get, Path: v3 + "/devices", Op: "getDevices", Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: m.devices},
		{Method: get, Path: v3 + "/devices/{deviceId}", Op: "getDevice", Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: m.device},
		{Method: put, Path: v3 + "/devices/{deviceId}", Op: "updateDevice", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.updateDevice},
		{Method: del, Path: v3 + "/devices/{deviceId}", Op: "deleteDevice", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.deleteDevice},
		{Method: post, Path: v3 + "/delete_devices", Op: "deleteDevices", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.deleteDevices},
		{Method: get, Path: "/_synapse/admin/v1/register", Auth: api.AuthNone, Rate: api.RateRegister, Handle: m.nonce},
		{Method: post, Path: "/_synapse/admin/v1/register", Auth: api.AuthNone, Rate: api.RateRegister, Handle: m.sharedRegister},
	}
}

// tokens are a session's tokens in clear, as the client gets them.
type tokens struct {
	access, refresh string
}

// start makes the tokens of a new session, and what is stored of them.
func (m *Module) start(r *api.Request, user ids.UserID, device ids.DeviceID, name string, refresh bool) (account.Session, tokens) {
	t := tokens{access: auth.NewToken(auth.Access, user.Localpart())}
	s := account.Session{
		Device: device, DisplayName: name, Access: auth.Hash(t.access),
		IP: r.Addr.String(), UserAgent: r.UserAgent,
	}
	if refresh {
		t.refresh = auth.NewToken(auth.Refresh, user.Localpart())
		s.Refresh = auth.Hash(t.refresh)
		s.AccessExpiresTS = m.Clock.Now().Add(accessLifetime).UnixMilli()
	}
	if s.Device == "" {
		s.Device = newDeviceID()
	}
	return s, t
}

func newDeviceID() ids.DeviceID { return ids.DeviceID(rand.Text()[:deviceIDLength]) }

// sessionAnswer is the answer to login and registration. spec: client-server
// §POST /login.
type sessionAnswer struct {
	UserID       ids.UserID   `json:"user_id"`
	HomeServer   string       `json:"home_server"`
	AccessToken  string       `json:"access_token,omitempty"`
	RefreshToken string       `json:"refresh_token,omitempty"`
	ExpiresInMS  int64        `json:"expires_in_ms,omitzero"`
	DeviceID     ids.DeviceID `json:"device_id,omitempty"`
}

func (m *Module) answer(user ids.UserID, s account.Session, t tokens) sessionAnswer {
	a := sessionAnswer{
		UserID: user, HomeServer: m.Server, DeviceID: s.Device, AccessToken: t.access, RefreshToken: t.refresh,
	}
	if t.refresh != "" {
		a.ExpiresInMS = accessLifetime.Milliseconds()
	}
	return a
}

// end logs devices out and tells everyone who holds on to their tokens.
func (m *Module) end(ctx context.Context, cmd *account.EndDevices) error {
	ended, err := partition.Do[[]ids.DeviceID](ctx, m.Router, cmd)
	if err != nil {
		return err
	}
	m.revoke(cmd.User, ended)
	return nil
}

func (m *Module) revoke(user ids.UserID, devices []ids.DeviceID) {
	m.Tokens.Forget(user)
	if len(devices) > 0 {
		m.Revoked(user, devices)
	}
}

func checkDevice(id ids.DeviceID, name string) error {
	if len(id) > maxDeviceID {
		return merr.InvalidParamErr("The device ID is longer than %d bytes", maxDeviceID)
	}
	for _, c := range []byte(id) {
		if c < 0x20 {
			return merr.InvalidParamErr("The device ID has control characters")
		}
	}
	if len(name) > maxDisplayName {
		return merr.InvalidParamErr("The display name is longer than %d bytes", maxDisplayName)
	}
	return nil
}
