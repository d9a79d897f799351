// Package syncing serves GET /sync and sliding sync. spec: client-server §Syncing.
package syncing

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Feed is what syncing needs of the feed.
type Feed interface {
	LoadFilter(ctx context.Context, user ids.UserID, param string) (*feed.Filter, error)
	ParseSince(token string) (*feed.Position, error)
	Sync(ctx context.Context, r *feed.Request) (jsontext.Value, error)
	Begin(ctx context.Context, r *feed.Request) *feed.Waiting
	Slide(ctx context.Context, r *feed.SlidingRequest) (jsontext.Value, error)
}

// Routes are the routes of the module.
func Routes(f Feed) []api.Route {
	h := handler{f}
	return append(slidingRoutes(h), api.Route{
		Method: http.MethodGet, Path: "/_matrix/client/v3/sync", Op: "sync",
		Auth: api.AuthUser, Rate: api.RateSync, Hold: api.HoldLong, Guest: true, Handle: h.sync,
	})
}

type handler struct{ feed Feed }

// waiting is a sync request that was parked, or may be.
type waiting struct {
	*feed.Waiting
	req *feed.Request
}

var _ api.Waiting = (*waiting)(nil)

func (h handler) sync(r *api.Request) (any, error) {
	if w, ok := r.Left().(*waiting); ok {
		return h.answer(r, w)
	}
	req, err := h.read(r)
	if err != nil {
		return nil, err
	}
	return h.answer(r, &waiting{h.feed.Begin(r.Context, req), req})
}

// read reads the parameters of a sync request.
func (h handler) read(r *api.Request) (*feed.Request, error) {
	req := &feed.Request{User: r.Caller.User, Device: r.Caller.Device}
	var err error
	if req.Since, err = h.feed.ParseSince(r.Query.Get("since")); err != nil && !errors.Is(err, feed.ErrRestored) {
		return nil, err
	}
	if err != nil {
		req.Since = nil // everything, as for a client that is new: it cannot know what is gone
	}
	if req.Filter, err = h.feed.LoadFilter(r.Context, r.Caller.User, r.Query.Get("filter")); err != nil {
		return nil, err
	}
	if req.FullState, err = r.QueryBool("full_state"); err != nil {
		return nil, err
	}
	if req.StateAfter, err = stateAfter(r); err != nil {
		return nil, err
	}
	ms, err := r.QueryInt("timeout", 0, 0, api.MaxLongPoll.Milliseconds())
	if err != nil {
		return nil, err
	}
	presence, err := r.QueryEnum("set_presence", "online", "offline", "unavailable")
	if err != nil {
		return nil, err
	}
	req.SetPresence = feed.Presence(presence)
	req.Timeout = time.Duration(ms) * time.Millisecond
	return req, nil
}

// answer waits for the response with the patience of the request.
func (h handler) answer(r *api.Request, w *waiting) (any, error) {
	waits := false
	defer func() {
		if !waits {
			w.Close()
		}
	}()
	body, err := w.Answer(r.Context, r.Patience())
	if body == nil && err == nil {
		waits = true
		return w, nil
	}
	if errors.Is(err, feed.ErrRestored) {
		again := feed.Request{
			User: w.req.User, Device: w.req.Device, Filter: w.req.Filter, StateAfter: w.req.StateAfter, SetPresence: w.req.SetPresence,
		}
		body, err = h.feed.Sync(r.Context, &again)
	}
	if errors.Is(err, feed.ErrUnknownPosition) {
		return nil, merr.InvalidParamErr("Unknown since token").Because(err)
	}
	return body, err
}

// stateAfter is the member for the state after the timeline, "" if the client
// wants the state before it. spec: client-server §GET /sync, use_state_after; the
// unstable names are those of MSC4222.
func stateAfter(r *api.Request) (string, error) {
	for _, name := range []struct{ param, member string }{
		{"use_state_after", "state_after"},
		{"org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after"},
	} {
		if wanted, err := r.QueryBool(name.param); wanted || err != nil {
			return name.member, err
		}
	}
	return "", nil
}
