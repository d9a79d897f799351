package session

import (
	"net/http"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// registerGuest makes an account for somebody who wants to look around. The server
// chooses the name and the device. spec: client-server §Guest Access.
func (m *Module) registerGuest(r *api.Request) (any, error) {
	if !m.Guests {
		return nil, merr.New(http.StatusForbidden, merr.GuestAccessForbidden, "Guests are not welcome here")
	}
	var req registerRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if err := checkDevice("", req.DisplayName); err != nil {
		return nil, err
	}
	user := ids.NewUserID("guest-"+strings.ToLower(string(newDeviceID())), m.Server)
	return m.makeAccount(r, user, account.Account{Guest: true}, &registerRequest{
		DisplayName: req.DisplayName, RefreshToken: req.RefreshToken,
	}, nil)
}

// wanted returns the user that a request wants to register: a new one, or the guest
// whose token it shows.
func (m *Module) wanted(r *api.Request, req *registerRequest) (ids.UserID, error) {
	if req.GuestToken == "" {
		return m.newUser(r.Context, req.Username)
	}
	caller, err := m.Tokens.Authenticate(r.Context, api.Credentials{Token: req.GuestToken, Addr: r.Addr, UserAgent: r.UserAgent})
	switch {
	case err != nil:
		return "", err
	case !caller.Guest:
		return "", merr.ForbiddenErr("The token is not a guest's")
	case req.Username == nil:
		return "", api.Missing("username")
	case !strings.EqualFold(*req.Username, caller.User.Localpart()):
		return "", merr.New(http.StatusBadRequest, merr.InvalidUsername, "A guest who stays keeps the name")
	}
	return caller.User, nil
}
