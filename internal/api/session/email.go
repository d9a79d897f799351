package session

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// The operations in which an address can be the proof.
const (
	opRegister = "POST /register"
	opPassword = "POST /account/password"
)

var _ auth.EmailVerifier = (*Module)(nil)

// ValidatedEmail implements auth.EmailVerifier.
func (m *Module) ValidatedEmail(ctx context.Context, operation, sid, secret string) (bool, error) {
	p := contact.Register
	if operation == opPassword {
		p = contact.Password
	}
	return m.Contacts.Validated(ctx, p, sid, secret, "")
}

// createWith makes an account with the address of a validation, if sid is not "".
func (m *Module) createWith(r *api.Request, user ids.UserID, a account.Account, req *registerRequest, sid string) (any, error) {
	if sid == "" {
		return m.makeAccount(r, user, a, req, nil)
	}
	v, err := m.Contacts.Use(r.Context, contact.Register, sid, "", "")
	if err != nil {
		return nil, err
	}
	c, err := m.Contacts.Claim(r.Context, v, user)
	if err != nil {
		return nil, err
	}
	out, err := m.makeAccount(r, user, a, req, &c)
	if err != nil && merr.Is(err, merr.UserInUse) {
		_, back := m.Router.Do(r.Context, &account.ReleaseContact{Medium: c.Medium, Address: c.Address, User: user})
		if back == nil {
			back = m.Contacts.Return(r.Context, contact.Register, sid, "")
		}
		if back != nil {
			m.Log.Warn("give an address back", "error", back)
		}
	}
	return out, err
}

// changePassword: spec client-server §POST /account/password. Who has no token
// proves to read the mail that comes to an address of the account.
func (m *Module) changePassword(r *api.Request) (any, error) {
	var req struct {
		authOnly
		NewPassword   *string `json:"new_password"`
		LogoutDevices *bool   `json:"logout_devices"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	user := r.Caller.User
	if user != "" && req.NewPassword != nil {
		// Before the proof, which may be good for one request: a password that is
		// refused does not cost it.
		if err := m.Policy.Check(*req.NewPassword, user.Localpart()); err != nil {
			return nil, err
		}
	}
	sid, err := m.passwordProof(r, req.authOnly)
	if err != nil {
		return nil, err
	}
	if sid != "" {
		if user, err = m.resetOf(r.Context, sid); err != nil {
			return nil, err
		}
	}
	if req.NewPassword == nil {
		return nil, api.Missing("new_password")
	}
	if err := m.Policy.Check(*req.NewPassword, user.Localpart()); err != nil {
		return nil, err
	}
	hash, err := m.Hasher.Hash(r.Context, *req.NewPassword)
	if err != nil {
		return nil, err
	}
	if sid != "" {
		// Only now: a password that is refused does not cost the link.
		if _, err := m.Contacts.Use(r.Context, contact.Password, sid, "", ""); err != nil {
			return nil, err
		}
	}
	cmd := account.NewEndDevices(user)
	if req.LogoutDevices == nil || *req.LogoutDevices {
		cmd = account.NewEndAll(user, r.Caller.Device)
	}
	cmd.PasswordHash = hash
	return api.Empty, m.end(r.Context, cmd)
}

// passwordProof authenticates a change of password. sid is the validation that was
// shown, "" if the caller gave the old password, or signed in again elsewhere: so who
// came without a password can give the account one.
func (m *Module) passwordProof(r *api.Request, a authOnly) (sid string, err error) {
	switch {
	case r.Caller.AppService != "":
		// spec: application-service §Identity assertion: all but account management.
		return "", merr.ForbiddenErr("An application service may not change passwords")
	case r.Caller.Guest:
		return "", merr.New(http.StatusForbidden, merr.GuestAccessForbidden, "Guests have no password")
	case r.Caller.User == "" && !m.Contacts.Enabled():
		return "", merr.New(http.StatusUnauthorized, merr.MissingToken, "Missing access token")
	case r.Caller.User != "":
		_, err = m.prove(r, opPassword, a.Auth)
		return "", err
	}
	done, err := m.uia.Check(r.Context, auth.UIARequest{
		Operation: opPassword, Auth: a.Auth, Flows: []auth.Flow{{auth.StageEmail}},
	})
	if err != nil {
		return "", err
	}
	sid, _ = done.Proof(auth.StageEmail)
	return sid, nil
}

// resetOf returns the account that a validated address belongs to.
func (m *Module) resetOf(ctx context.Context, sid string) (ids.UserID, error) {
	v, err := m.Accounts.Validation(ctx, sid)
	if err != nil {
		return "", err
	}
	if v == nil {
		return "", errNoAccount()
	}
	user, err := m.Accounts.ContactOwner(ctx, v.Medium, v.Address)
	if err == nil && user == "" {
		err = errNoAccount()
	}
	return user, err
}

func errNoAccount() error {
	return merr.New(http.StatusBadRequest, merr.ThreePIDNotFound, "No account has this address")
}
