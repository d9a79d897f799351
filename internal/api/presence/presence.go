// Package presence serves who is there. spec: client-server §Presence. What the
// feed tells of it in a sync is the feed's.
package presence

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// maxStatus bounds a status message in bytes: it goes to everyone, each time.
const maxStatus = 1024

// Feed knows who is there.
type Feed interface {
	SetPresence(u ids.UserID, device ids.DeviceID, state feed.Presence, said *account.Presence)
	PresenceOf(ctx context.Context, u ids.UserID) (feed.PresenceState, error)
}

var _ Feed = (*feed.Hub)(nil)

// Deps are what the module stands on.
type Deps struct {
	Feed     Feed
	Router   partition.Router
	Accounts *account.Reader
	Clock    clock.Clock
	// Enabled: it is told who is there.
	Enabled bool
}

// Module holds the handlers.
type Module struct{ Deps }

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const path = "/_matrix/client/v3/presence/{userId}/status"
	return []api.Route{
		{Method: http.MethodGet, Path: path, Op: "getPresence", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.get},
		{Method: http.MethodPut, Path: path, Op: "setPresence", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.put},
	}
}

// get: spec client-server §GET /presence/{userId}/status.
func (m *Module) get(r *api.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	shared, err := m.shared(r.Context, r.Caller.User, user)
	if err != nil {
		return nil, err
	}
	if !shared {
		return nil, merr.ForbiddenErr("You share no room with this user")
	}
	st, err := m.Feed.PresenceOf(r.Context, user)
	if err != nil {
		return nil, err
	}
	return jsontext.Value(st.AppendContent(nil, m.Clock.Now())), nil
}

// shared reports whether two users share a room.
func (m *Module) shared(ctx context.Context, a, b ids.UserID) (bool, error) {
	if a == b {
		return true, nil
	}
	own, err := m.Accounts.Joined(ctx, a)
	if err != nil {
		return false, err
	}
	in := make(map[ids.RoomID]bool, len(own))
	for _, r := range own {
		in[r] = true
	}
	theirs, err := m.Accounts.Joined(ctx, b)
	if err != nil {
		return false, err
	}
	for _, r := range theirs {
		if in[r] {
			return true, nil
		}
	}
	return false, nil
}

// put: spec client-server §PUT /presence/{userId}/status. Where presence is
// switched off it is accepted, since clients would complain of a refusal.
func (m *Module) put(r *api.Request) (any, error) {
	user, err := r.Self("userId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Presence *feed.Presence `json:"presence"`
		Status   *string        `json:"status_msg"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Presence == nil {
		return nil, api.Missing("presence")
	}
	switch *req.Presence {
	case feed.Online, feed.Unavailable, feed.Offline:
	default:
		return nil, merr.InvalidParamErr("Unknown presence")
	}
	if req.Status != nil && len(*req.Status) > maxStatus {
		return nil, merr.TooLargeErr("The status message is longer than %d bytes", maxStatus)
	}
	if !m.Enabled {
		return api.Empty, nil
	}
	var said *account.Presence
	if req.Status != nil {
		said, err = partition.Do[*account.Presence](r.Context, m.Router, account.NewSetPresence(user, *req.Status))
		if err != nil {
			return nil, err
		}
	}
	m.Feed.SetPresence(user, r.Caller.Device, *req.Presence, said)
	return api.Empty, nil
}
