package accounts

import (
	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// moderated returns the account whose status is asked for.
func (m *Module) moderated(r *api.Request) (*account.Account, error) {
	user, err := r.LocalUser("userId", m.Server)
	if err != nil {
		return nil, err
	}
	a, err := m.Accounts.Account(r.Context, user)
	if err != nil {
		return nil, err
	}
	return a, a.Moderated()
}

// suspended: spec client-server §GET /admin/suspend/{userId}.
func (m *Module) suspended(r *api.Request) (any, error) {
	a, err := m.moderated(r)
	if err != nil {
		return nil, err
	}
	return map[string]bool{"suspended": a.Suspended}, nil
}

// locked: spec client-server §GET /admin/lock/{userId}.
func (m *Module) locked(r *api.Request) (any, error) {
	a, err := m.moderated(r)
	if err != nil {
		return nil, err
	}
	return map[string]bool{"locked": a.Locked}, nil
}

// suspend: spec client-server §PUT /admin/suspend/{userId}.
func (m *Module) suspend(r *api.Request) (any, error) {
	var req struct {
		Suspended *bool `json:"suspended"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Suspended == nil {
		return nil, api.Missing("suspended")
	}
	return map[string]bool{"suspended": *req.Suspended}, m.setStatus(r, nil, req.Suspended)
}

// lock: spec client-server §PUT /admin/lock/{userId}.
func (m *Module) lock(r *api.Request) (any, error) {
	var req struct {
		Locked *bool `json:"locked"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Locked == nil {
		return nil, api.Missing("locked")
	}
	return map[string]bool{"locked": *req.Locked}, m.setStatus(r, req.Locked, nil)
}

func (m *Module) setStatus(r *api.Request, locked, suspended *bool) error {
	user, err := r.LocalUser("userId", m.Server)
	if err != nil {
		return err
	}
	if _, err := m.Router.Do(r.Context, account.NewSetStatus(user, locked, suspended)); err != nil {
		return err
	}
	m.Changed(user)
	return nil
}

type connection struct {
	IP        string `json:"ip"`
	LastSeen  int64  `json:"last_seen"`
	UserAgent string `json:"user_agent"`
}

// whois: spec client-server §GET /admin/whois/{userId}.
func (m *Module) whois(r *api.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	if user != r.Caller.User && !r.Caller.Admin {
		return nil, merr.ForbiddenErr("Only an administrator may look up others")
	}
	a, err := m.Accounts.Account(r.Context, user)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, merr.NotFoundErr("No such user")
	}
	list, err := m.Accounts.Devices(r.Context, user)
	if err != nil {
		return nil, err
	}
	devices := make(map[ids.DeviceID]any, len(list))
	for _, d := range list {
		seen := []connection{{IP: d.LastSeenIP, LastSeen: d.LastSeenTS, UserAgent: d.UserAgent}}
		devices[d.ID] = map[string]any{"sessions": []any{map[string]any{"connections": seen}}}
	}
	return map[string]any{"user_id": user, "devices": devices}, nil
}
