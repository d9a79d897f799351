package appservice

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// QueryUser asks the services in whose namespaces an unknown user is whether they
// make them. It reports whether one did: then the user is there now. 408 if a
// service that might have did not answer. spec: application-service §Querying.
func (c *Client) QueryUser(ctx context.Context, u ids.UserID) (bool, error) {
	if c == nil {
		return false, nil
	}
	path := "/users/" + segment(string(u))
	return c.query(ctx, path, func(s *Service) bool { return s.HasUser(u) })
}

// QueryAlias asks the services in whose namespaces an unknown alias is whether
// they make the room, as QueryUser does for users.
func (c *Client) QueryAlias(ctx context.Context, a ids.RoomAlias) (bool, error) {
	if c == nil {
		return false, nil
	}
	path := "/rooms/" + segment(string(a))
	return c.query(ctx, path, func(s *Service) bool { return s.HasAlias(a) })
}

func (c *Client) query(ctx context.Context, path string, mayKnow func(*Service) bool) (bool, error) {
	var failed error
	for _, s := range c.services.All() {
		if s.URL == "" || !mayKnow(s) {
			continue
		}
		r, err := c.ask(ctx, s, path)
		if err != nil {
			failed = err
			continue
		}
		if r.ok() {
			return true, nil
		}
	}
	if failed != nil {
		return false, merr.New(http.StatusRequestTimeout, merr.Unknown, "The application service that may know this did not answer").Because(failed)
	}
	return false, nil
}

// askTries is how often a service that cannot be reached is asked.
const askTries = 2

// ask asks a question for which somebody waits.
func (c *Client) ask(ctx context.Context, s *Service, path string) (r reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	for range askTries {
		r, err = c.do(ctx, s, http.MethodGet, "/_matrix/app/v1"+path, path, nil)
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return r, err
}
