package session

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

type registerRequest struct {
	Auth         jsontext.Value `json:"auth"`
	Username     *string        `json:"username"`
	Password     *string        `json:"password"`
	DeviceID     ids.DeviceID   `json:"device_id"`
	DisplayName  string         `json:"initial_device_display_name"`
	InhibitLogin bool           `json:"inhibit_login"`
	RefreshToken bool           `json:"refresh_token"`
	Type         string         `json:"type"`
	// GuestToken is the access token of a guest who wants to stay.
	GuestToken string `json:"guest_access_token"`
	// profileName is the first display name, "" for the name of the user.
	profileName string
}

// register: spec client-server §POST /register.
func (m *Module) register(r *api.Request) (any, error) {
	switch kind := r.Query.Get("kind"); kind {
	case "", "user":
	case "guest":
		return m.registerGuest(r)
	default:
		return nil, merr.InvalidParamErr("Unknown kind of account")
	}
	var req registerRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Type == typeService {
		return m.registerService(r, &req)
	}
	if m.Mode == config.RegistrationClosed {
		return nil, merr.ForbiddenErr("Registration is closed")
	}
	user, err := m.wanted(r, &req)
	if err != nil {
		return nil, err
	}
	if req.Password != nil {
		if err := m.Policy.Check(*req.Password, user.Localpart()); err != nil {
			return nil, err
		}
	}
	if err := checkDevice(req.DeviceID, req.DisplayName); err != nil {
		return nil, err
	}
	done, err := m.uia.Check(r.Context, auth.UIARequest{
		Operation: opRegister, Auth: req.Auth, Flows: m.registerFlows(),
	})
	if err != nil {
		return nil, err
	}
	if req.Password == nil {
		return nil, api.Missing("password")
	}
	token, _ := done.Proof(auth.StageRegistrationToken)
	sid, _ := done.Proof(auth.StageEmail)
	return m.create(r, user, &req, token, sid)
}

// registerFlows are the ways to an account. An address comes before a token, since
// a token alone may be enough.
func (m *Module) registerFlows() []auth.Flow {
	plain, email := auth.Flow{auth.StageDummy}, auth.Flow{auth.StageEmail}
	if m.Mode == config.RegistrationToken {
		plain, email = auth.Flow{auth.StageRegistrationToken}, auth.Flow{auth.StageEmail, auth.StageRegistrationToken}
	}
	switch {
	case !m.Contacts.Enabled():
		return []auth.Flow{plain}
	case m.NeedEmail:
		return []auth.Flow{email}
	}
	return []auth.Flow{plain, email}
}

// newUser returns the user ID for a wanted name, or one of our choice.
func (m *Module) newUser(ctx context.Context, name *string) (ids.UserID, error) {
	if name == nil || *name == "" {
		return ids.NewUserID("user-"+strings.ToLower(string(newDeviceID())), m.Server), nil
	}
	user, err := ids.ParseLocalpart(strings.ToLower(*name), m.Server)
	if err != nil {
		return "", merr.New(http.StatusBadRequest, merr.InvalidUsername,
			"A user name has small letters, digits and ._=-/+ only, and not too many").Because(err)
	}
	if m.Reserved(user) {
		return "", errReserved()
	}
	return user, m.mustBeNew(ctx, user)
}

// Reserved reports whether nobody may register a name: it is an application
// service's, or the server's own.
func (m *Module) Reserved(user ids.UserID) bool {
	return m.Services.ReservedUser(user, nil) || user == account.NoticesUser(m.Server)
}

// mustBeNew is M_USER_IN_USE for a user that exists.
func (m *Module) mustBeNew(ctx context.Context, user ids.UserID) error {
	acc, err := m.Accounts.Account(ctx, user)
	if err == nil && acc != nil {
		err = merr.New(http.StatusBadRequest, merr.UserInUse, "The user name is taken")
	}
	return err
}

// create makes the account. A registration token and a validated address are
// used up before, by their own partitions, and given back if that was for nothing.
func (m *Module) create(r *api.Request, user ids.UserID, req *registerRequest, token, sid string) (any, error) {
	hash, err := m.Hasher.Hash(r.Context, *req.Password)
	if err != nil {
		return nil, err
	}
	a := account.Account{PasswordHash: hash}
	if token != "" {
		used, err := partition.Do[*account.RegToken](r.Context, m.Router, &account.UseRegToken{Token: token, Use: account.ConsumeRegToken})
		if err != nil {
			return nil, err
		}
		a.Admin = used.Admin
	}
	out, err := m.createWith(r, user, a, req, sid)
	if err != nil && token != "" && definite(err) {
		_, back := m.Router.Do(r.Context, &account.UseRegToken{Token: token, Use: account.ReturnRegToken})
		if back != nil {
			m.Log.Warn("give a registration token back", "error", back)
		}
	}
	return out, err
}

// definite reports whether an error means that nothing was done.
func definite(err error) bool {
	return merr.Is(err, merr.UserInUse) || merr.Is(err, merr.ThreePIDInUse) || merr.Is(err, merr.ThreePIDAuthFailed)
}

func (m *Module) makeAccount(r *api.Request, user ids.UserID, a account.Account, req *registerRequest, contact *account.Contact) (any, error) {
	name := req.profileName
	if name == "" {
		name = user.Localpart()
	}
	if req.InhibitLogin {
		cmd := account.NewRegister(user, a, name, nil)
		cmd.Contact, cmd.Upgrade = contact, req.GuestToken != ""
		_, err := m.Router.Do(r.Context, cmd)
		return sessionAnswer{UserID: user, HomeServer: m.Server}, err
	}
	s, t := m.start(r, user, req.DeviceID, req.DisplayName, req.RefreshToken)
	cmd := account.NewRegister(user, a, name, &s)
	cmd.Contact, cmd.Upgrade = contact, req.GuestToken != ""
	if _, err := m.Router.Do(r.Context, cmd); err != nil {
		return nil, err
	}
	if cmd.Upgrade {
		m.Tokens.Forget(user) // the guest's token is a user's now
	}
	return m.answer(user, s, t), nil
}

var _ auth.RegistrationTokenVerifier = (*Module)(nil)

// ValidRegistrationToken implements auth.RegistrationTokenVerifier.
func (m *Module) ValidRegistrationToken(ctx context.Context, token string) (bool, error) {
	return m.Accounts.RegTokenValid(ctx, token, m.Clock.Now().UnixMilli())
}

// available: spec client-server §GET /register/available.
func (m *Module) available(r *api.Request) (any, error) {
	name := r.Query.Get("username")
	if name == "" {
		return nil, api.Missing("username")
	}
	if _, err := m.newUser(r.Context, &name); err != nil {
		return nil, err
	}
	return jsontext.Value(`{"available":true}`), nil
}

// tokenValidity: spec client-server §GET /register/m.login.registration_token/validity.
func (m *Module) tokenValidity(r *api.Request) (any, error) {
	token := r.Query.Get("token")
	if token == "" {
		return nil, api.Missing("token")
	}
	ok, err := m.ValidRegistrationToken(r.Context, token)
	return map[string]bool{"valid": ok}, err
}

// nonce: the form that common tools use to register with the shared secret.
func (m *Module) nonce(*api.Request) (any, error) {
	if m.Shared == nil {
		return nil, noSharedSecret()
	}
	return map[string]string{"nonce": m.Shared.Nonce()}, nil
}

func noSharedSecret() error {
	return merr.New(http.StatusBadRequest, merr.Unknown, "Shared-secret registration is not enabled")
}

func (m *Module) sharedRegister(r *api.Request) (any, error) {
	if m.Shared == nil {
		return nil, noSharedSecret()
	}
	var req struct {
		Nonce       string `json:"nonce"`
		Username    string `json:"username"`
		DisplayName string `json:"displayname"`
		Password    string `json:"password"`
		Admin       bool   `json:"admin"`
		UserType    string `json:"user_type"`
		MAC         string `json:"mac"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	err := m.Shared.Verify(auth.SharedSecretRequest{
		Nonce: req.Nonce, Username: req.Username, Password: req.Password,
		Admin: req.Admin, UserType: req.UserType, MAC: req.MAC,
	})
	if err != nil {
		return nil, err
	}
	switch {
	case req.Username == "":
		return nil, api.Missing("username")
	case req.Password == "":
		return nil, api.Missing("password")
	}
	if err := checkDevice("", req.DisplayName); err != nil {
		return nil, err
	}
	user, err := m.newUser(r.Context, &req.Username)
	if err != nil {
		return nil, err
	}
	hash, err := m.Hasher.Hash(r.Context, req.Password)
	if err != nil {
		return nil, err
	}
	return m.makeAccount(r, user, account.Account{PasswordHash: hash, Admin: req.Admin}, &registerRequest{profileName: req.DisplayName}, nil)
}
