package session

import (
	"context"
	"crypto/rand"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// What administrators do with the sessions and passwords of others.

// HashPassword checks a password for a user by the server's policy, and hashes it.
func (m *Module) HashPassword(ctx context.Context, user ids.UserID, password string) (string, error) {
	if err := m.Policy.Check(password, user.Localpart()); err != nil {
		return "", err
	}
	return m.Hasher.Hash(ctx, password)
}

// SetPassword gives a user a new password, and logs them out if wanted.
func (m *Module) SetPassword(ctx context.Context, user ids.UserID, password string, logout bool) error {
	hash, err := m.HashPassword(ctx, user, password)
	if err != nil {
		return err
	}
	cmd := account.NewEndDevices(user)
	if logout {
		cmd = account.NewEndAll(user, "")
	}
	cmd.PasswordHash = hash
	return m.end(ctx, cmd)
}

// Deactivate ends an account: its sessions, its keys, its stays in rooms. With erase
// what it leaves behind is hidden too.
func (m *Module) Deactivate(r *api.Request, user ids.UserID, erase bool) error {
	cmd := account.NewEndAll(user, "")
	cmd.Deactivate, cmd.Erase = true, erase
	// Whether the client waits or not: a user has no token to ask again with.
	return m.end(context.WithoutCancel(r.Context), cmd)
}

// EndDevices logs devices out.
func (m *Module) EndDevices(ctx context.Context, user ids.UserID, devices ...ids.DeviceID) error {
	return m.end(ctx, account.NewEndDevices(user, devices...))
}

// LoginAs begins a session as another user, for an administrator, until a time in
// ms since 1970 or without end if that is 0. It returns the access token.
func (m *Module) LoginAs(r *api.Request, user ids.UserID, until int64) (string, error) {
	if until != 0 && until <= m.Clock.Now().UnixMilli() {
		return "", merr.InvalidParamErr("valid_until_ms is in the past")
	}
	s, t := m.start(r, user, ids.DeviceID("admin-"+rand.Text()[:deviceIDLength]), "An administrator", false)
	s.AccessExpiresTS = until
	if _, err := m.Router.Do(r.Context, account.NewLogin(user, s, "")); err != nil {
		return "", err
	}
	return t.access, nil
}

// NewUser checks the name of a user that is to be made: 400 M_INVALID_USERNAME or
// M_USER_IN_USE.
func (m *Module) NewUser(ctx context.Context, name string) (ids.UserID, error) {
	if name == "" {
		return "", merr.New(http.StatusBadRequest, merr.InvalidUsername, "The user name is empty")
	}
	return m.newUser(ctx, &name)
}
