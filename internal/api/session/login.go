package session

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

func wrongPassword() error { return merr.ForbiddenErr("Wrong user name or password") }

// The types of login.
const (
	typePassword = "m.login.password"
	typeToken    = "m.login.token"
)

// loginFlows: spec client-server §GET /login.
func (m *Module) loginFlows(*api.Request) (any, error) {
	flows := []any{
		map[string]any{"type": typePassword},
		map[string]any{"type": typeToken, "get_login_token": true},
	}
	if len(m.Providers) > 0 {
		flows = append(flows, map[string]any{"type": "m.login.sso", "identity_providers": m.Providers})
	}
	if m.JWT != nil {
		flows = append(flows, map[string]any{"type": typeJWT})
	}
	if len(m.Services.All()) > 0 {
		flows = append(flows, map[string]any{"type": typeService})
	}
	return map[string]any{"flows": flows}, nil
}

type loginRequest struct {
	Type         string         `json:"type"`
	Password     *string        `json:"password"`
	Token        *string        `json:"token"`
	DeviceID     ids.DeviceID   `json:"device_id"`
	DisplayName  string         `json:"initial_device_display_name"`
	RefreshToken bool           `json:"refresh_token"`
	Identifier   jsontext.Value `json:"identifier"`
}

// login: spec client-server §POST /login.
func (m *Module) login(r *api.Request) (any, error) {
	var req loginRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if err := checkDevice(req.DeviceID, req.DisplayName); err != nil {
		return nil, err
	}
	switch req.Type {
	case "":
		return nil, api.Missing("type")
	case typePassword:
		return m.passwordLogin(r, &req)
	case typeToken:
		return m.tokenLogin(r, &req)
	case typeService:
		return m.serviceLogin(r, &req)
	case typeJWT, typeOldJWT:
		return m.jwtLogin(r, &req)
	}
	return nil, errLoginType()
}

func (m *Module) passwordLogin(r *api.Request, req *loginRequest) (any, error) {
	if req.Password == nil {
		return nil, api.Missing("password")
	}
	id, err := auth.ParseIdentifier(jsontext.Value(r.Body), m.Server)
	if err != nil {
		return nil, err
	}
	answer, err := m.logIn(r, id, req)
	if errors.Is(err, account.ErrPasswordChanged) {
		// Maybe its hash alone: another login brought that up to date.
		answer, err = m.logIn(r, id, req)
	}
	return answer, err
}

// logIn checks the password and starts the session.
func (m *Module) logIn(r *api.Request, id auth.Identifier, req *loginRequest) (any, error) {
	user, hash, err := m.checkPassword(r.Context, id, *req.Password)
	if err != nil {
		return nil, err
	}
	if hash == "" {
		return nil, wrongPassword()
	}
	newHash := ""
	if m.Hasher.NeedsRehash(hash) {
		if newHash, err = m.Hasher.Hash(r.Context, *req.Password); err != nil {
			return nil, err
		}
	}
	return m.begin(r, req, user, func(cmd *account.Login) { cmd.Proof, cmd.PasswordHash = hash, newHash })
}

// begin starts a session of a user who has proved who they are. with completes the
// command.
func (m *Module) begin(r *api.Request, req *loginRequest, user ids.UserID, with func(*account.Login)) (any, error) {
	s, t := m.start(r, user, req.DeviceID, req.DisplayName, req.RefreshToken)
	cmd := account.NewLogin(user, s, "")
	with(cmd)
	if _, err := m.Router.Do(r.Context, cmd); err != nil {
		return nil, err
	}
	if req.DeviceID != "" {
		m.revoke(cmd.User, []ids.DeviceID{s.Device}) // if the device was there, its tokens have ended
	}
	return m.answer(cmd.User, s, t), nil
}

var _ auth.PasswordVerifier = (*Module)(nil)

// VerifyPassword implements auth.PasswordVerifier.
func (m *Module) VerifyPassword(ctx context.Context, id auth.Identifier, password string) (ids.UserID, bool, error) {
	user, hash, err := m.checkPassword(ctx, id, password)
	return user, hash != "", err
}

// checkPassword returns the hash that the password was found right against, "" if
// it is wrong. Wrong guesses are limited for each account, whether it exists or
// not.
func (m *Module) checkPassword(ctx context.Context, id auth.Identifier, password string) (ids.UserID, string, error) {
	key := string(id.User) + id.Email
	if ok, wait := m.Limiter.Allow(ratelimit.LoginAccount, key, m.Clock.Now()); !ok {
		return "", "", merr.LimitedErr(wait)
	}
	if id.User == "" {
		var err error
		if id.User, err = m.Accounts.ContactOwner(ctx, account.MediumEmail, id.Email); err != nil {
			return "", "", err
		}
	}
	var acc *account.Account
	if id.User != "" {
		var err error
		if acc, err = m.Accounts.Account(ctx, id.User); err != nil {
			return "", "", err
		}
	}
	if acc == nil || acc.PasswordHash == "" {
		if err := m.Hasher.VerifyMissing(ctx, password); err != nil {
			return "", "", err
		}
		if acc != nil && acc.Deactivated {
			return "", "", merr.New(http.StatusForbidden, merr.UserDeactivated, "This account has been deactivated")
		}
		return "", "", nil
	}
	ok, err := m.Hasher.Verify(ctx, password, acc.PasswordHash)
	if err != nil || !ok {
		return "", "", err
	}
	m.Limiter.Refund(ratelimit.LoginAccount, key)
	return id.User, acc.PasswordHash, nil
}

// logout: spec client-server §POST /logout.
func (m *Module) logout(r *api.Request) (any, error) {
	return api.Empty, m.end(r.Context, account.NewEndDevices(r.Caller.User, r.Caller.Device))
}

// logoutAll: spec client-server §POST /logout/all.
func (m *Module) logoutAll(r *api.Request) (any, error) {
	return api.Empty, m.end(r.Context, account.NewEndAll(r.Caller.User, ""))
}

// refresh: spec client-server §POST /refresh.
func (m *Module) refresh(r *api.Request) (any, error) {
	var req struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.RefreshToken == "" {
		return nil, api.Missing("refresh_token")
	}
	kind, local, err := auth.Parse(req.RefreshToken)
	if err != nil || kind != auth.Refresh {
		return nil, account.ErrUnknownToken(false)
	}
	user := ids.NewUserID(local, m.Server)
	s, t := m.start(r, user, "", "", true)
	out, err := partition.Do[account.Refreshed](r.Context, m.Router, account.NewRefresh(user, auth.Hash(req.RefreshToken), s))
	if err != nil {
		return nil, err
	}
	if out.Replayed {
		m.Log.Warn("a refresh token was used again; its session has ended", "user", user, "device", out.Device)
		m.revoke(user, []ids.DeviceID{out.Device})
		return nil, account.ErrUnknownToken(true)
	}
	return map[string]any{
		"access_token": t.access, "refresh_token": t.refresh, "expires_in_ms": accessLifetime.Milliseconds(),
	}, nil
}

// whoami: spec client-server §GET /account/whoami.
func (m *Module) whoami(r *api.Request) (any, error) {
	a := map[string]any{"user_id": r.Caller.User, "is_guest": r.Caller.Guest}
	if r.Caller.Device != "" {
		a["device_id"] = r.Caller.Device
	}
	return a, nil
}
