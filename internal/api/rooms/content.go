package rooms

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// body returns the request's body as the content of an event.
func body(r *api.Request) ([]byte, error) {
	if len(r.Body) == 0 {
		return nil, merr.New(http.StatusBadRequest, merr.NotJSON, "The body has to be a JSON object")
	}
	return canonical(r.Body)
}

// canonical brings the content of an event into the form that events have.
func canonical(raw []byte) ([]byte, error) {
	c, err := event.CanonicalObject(nil, raw)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, event.ErrTooLarge):
		return nil, merr.TooLargeErr("The content is too large").Because(err)
	case errors.Is(err, event.ErrNotJSON):
		return nil, merr.New(http.StatusBadRequest, merr.NotJSON, "The content is not JSON").Because(err)
	case errors.Is(err, event.ErrBadJSON):
		return nil, merr.BadJSONErr("The content may hold no such JSON: %s", reason(err)).Because(err)
	}
	return nil, fmt.Errorf("canonical content: %w", err)
}

// reason is the part of a canonicalization error that says what was wrong.
func reason(err error) string {
	_, why, _ := strings.Cut(err.Error(), ": ")
	return why
}

// canonicalOrNil is canonical for a member that may be absent or null.
func canonicalOrNil(raw jsontext.Value) ([]byte, error) {
	if len(raw) == 0 || raw.Kind() == 'n' {
		return nil, nil
	}
	return canonical(raw)
}

// checkType checks an event type that a client chose.
func checkType(eventType string) error {
	switch {
	case eventType == "":
		return merr.InvalidParamErr("The event type is empty")
	case len(eventType) > event.MaxFieldSize:
		return merr.TooLargeErr("The event type is longer than %d bytes", event.MaxFieldSize)
	case strings.IndexByte(eventType, 0) >= 0:
		return merr.InvalidParamErr("An event type may not hold NUL")
	}
	return nil
}

// checkState checks a state event that a client wants to set: what the rules of
// the room do not look at, since they judge what is there and not what makes
// sense.
func checkState(eventType, stateKey string, content []byte) error {
	if err := checkType(eventType); err != nil {
		return err
	}
	if len(stateKey) > event.MaxFieldSize {
		return merr.TooLargeErr("The state key is longer than %d bytes", event.MaxFieldSize)
	}
	switch eventType {
	case event.TypeCreate:
		// No power suffices for it, so it is not a matter of rights.
		return merr.New(http.StatusBadRequest, merr.BadState, "A room is created once")
	case event.TypeRedaction:
		// Clients would apply it, whoever sent it.
		return merr.ForbiddenErr("A redaction is no state")
	case event.TypePowerLevels:
		if _, err := event.ParsePowerLevels(content); err != nil {
			return merr.BadJSONErr("Not valid power levels: %v", err)
		}
	}
	return nil
}
