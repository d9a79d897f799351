package session

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// typeService is the type of login and registration of application services.
// spec: application-service §Server admin style permissions.
const typeService = "m.login.application_service"

// codeUnknownDevice: a service acts as a device that its user does not have.
// spec: application-service §Identity assertion.
const codeUnknownDevice merr.Code = "M_UNKNOWN_DEVICE"

// ServiceAuthenticator proves the tokens of application services, and leaves all
// others to the authenticator of users. Nothing is remembered: what there is to
// look up is one row or two.
type ServiceAuthenticator struct {
	users    api.Authenticator
	services *appservice.Registry
	accounts *account.Reader
}

var _ api.Authenticator = (*ServiceAuthenticator)(nil)

// NewServiceAuthenticator returns an authenticator before that of users.
func NewServiceAuthenticator(users api.Authenticator, services *appservice.Registry, accounts *account.Reader) *ServiceAuthenticator {
	return &ServiceAuthenticator{users, services, accounts}
}

// Authenticate implements api.Authenticator. spec: application-service §Identity
// assertion.
func (a *ServiceAuthenticator) Authenticate(ctx context.Context, c api.Credentials) (api.Caller, error) {
	s := a.services.ByToken(c.Token)
	if c.Token == "" {
		s = a.services.ByID(c.AppService)
	}
	if s == nil {
		return a.users.Authenticate(ctx, c)
	}
	user := s.Sender
	if c.ActAs != "" {
		user = c.ActAs
	}
	if !s.HasUser(user) {
		return api.Caller{}, merr.ForbiddenErr("The user is in no namespace of the application service")
	}
	acc, err := a.accounts.Account(ctx, user)
	if err != nil {
		return api.Caller{}, err
	}
	switch {
	case acc == nil:
		return api.Caller{}, merr.ForbiddenErr("The application service has not registered this user")
	case acc.Deactivated:
		return api.Caller{}, merr.New(http.StatusForbidden, merr.UserDeactivated, "This account has been deactivated")
	case acc.Locked && !c.Locked:
		return api.Caller{}, merr.New(http.StatusUnauthorized, merr.UserLocked, "This account has been locked").With("soft_logout", true)
	}
	if c.ActAsDevice != "" {
		d, err := a.accounts.Device(ctx, user, c.ActAsDevice)
		if err != nil {
			return api.Caller{}, err
		}
		if d == nil {
			return api.Caller{}, merr.New(http.StatusBadRequest, codeUnknownDevice, "The user has no such device")
		}
	}
	return api.Caller{
		User: user, Device: c.ActAsDevice, Admin: acc.Admin, Guest: acc.Guest,
		Suspended: acc.Suspended, AppService: s.ID, Unlimited: !s.RateLimited || user == s.Sender,
	}, nil
}

func errReserved() error {
	return merr.New(http.StatusBadRequest, merr.Exclusive, "The name is reserved for an application service")
}

// service returns the application service that calls: 401 if it is none.
func (m *Module) service(r *api.Request) (*appservice.Service, error) {
	s := m.Services.ByID(r.Caller.AppService)
	switch {
	case s != nil:
		return s, nil
	case r.HasToken():
		return nil, account.ErrUnknownToken(false)
	}
	return nil, merr.New(http.StatusUnauthorized, merr.MissingToken, "Missing the token of an application service")
}

// registerService makes a user of an application service, without a password.
func (m *Module) registerService(r *api.Request, req *registerRequest) (any, error) {
	s, err := m.service(r)
	if err != nil {
		return nil, err
	}
	if req.Username == nil || *req.Username == "" {
		return nil, api.Missing("username")
	}
	user, err := appservice.ParseLocalpart(*req.Username, m.Server)
	if err != nil {
		return nil, merr.New(http.StatusBadRequest, merr.InvalidUsername, "The user name cannot be part of a user ID").Because(err)
	}
	if !s.HasUser(user) || m.Services.ReservedUser(user, s) {
		return nil, merr.New(http.StatusBadRequest, merr.Exclusive, "The user is in no namespace of the application service, or reserved for another")
	}
	if err := checkDevice(req.DeviceID, req.DisplayName); err != nil {
		return nil, err
	}
	if err := m.mustBeNew(r.Context, user); err != nil {
		return nil, err
	}
	if s.Devices && !req.InhibitLogin {
		return nil, errNoLogin(s)
	}
	return m.makeAccount(r, user, account.Account{}, req, nil)
}

// errNoLogin tells a service that makes its devices by itself that it gets no
// tokens.
func errNoLogin(s *appservice.Service) error {
	return merr.New(http.StatusBadRequest, merr.Code(s.LoginCode), "The application service makes devices with PUT /devices and needs no login; register with inhibit_login")
}

// serviceLogin logs a user of an application service in.
func (m *Module) serviceLogin(r *api.Request, req *loginRequest) (any, error) {
	s, err := m.service(r)
	if err != nil {
		return nil, err
	}
	if s.Devices {
		return nil, errNoLogin(s)
	}
	user, err := m.serviceUser(r)
	if err != nil {
		return nil, err
	}
	if !s.HasUser(user) {
		return nil, merr.New(http.StatusForbidden, merr.Exclusive, "The user is in no namespace of the application service")
	}
	return m.begin(r, req, user, func(*account.Login) {})
}

// serviceUser returns whom a login is for: a localpart or a user ID, as it is
// written, since names from elsewhere have capital letters too.
func (m *Module) serviceUser(r *api.Request) (ids.UserID, error) {
	var req struct {
		Identifier *struct {
			Type string  `json:"type"`
			User *string `json:"user"`
		} `json:"identifier"`
		User *string `json:"user"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return "", err
	}
	name := req.User
	if id := req.Identifier; id != nil {
		if id.Type != "m.id.user" {
			return "", merr.New(http.StatusBadRequest, merr.Unrecognized, "Unknown type of identifier")
		}
		name = id.User
	}
	if name == nil || *name == "" {
		return "", api.Missing("identifier")
	}
	parse := func() (ids.UserID, error) { return appservice.ParseLocalpart(*name, m.Server) }
	if (*name)[0] == '@' {
		parse = func() (ids.UserID, error) { return ids.ParseUserID(*name) }
	}
	user, err := parse()
	if err != nil {
		return "", merr.InvalidParamErr("The user is no user ID").Because(err)
	}
	return user, nil
}

// makeDevice makes a device that no token belongs to, for a service to act as.
// spec: client-server §PUT /devices/{deviceId}, 201.
func (m *Module) makeDevice(r *api.Request, id ids.DeviceID, name string) (any, error) {
	cmd := account.NewLogin(r.Caller.User, account.Session{Device: id, DisplayName: name, IP: r.Addr.String(), UserAgent: r.UserAgent}, "")
	if _, err := m.Router.Do(r.Context, cmd); err != nil {
		return nil, err
	}
	return &api.Response{Status: http.StatusCreated, Body: api.Empty}, nil
}
