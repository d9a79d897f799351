package api

import (
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// RoomID returns a path parameter that is a room ID: 400 M_INVALID_PARAM if it is
// none.
func (r *Request) RoomID(name string) (ids.RoomID, error) {
	return parsed(name, r.Param(name), ids.ParseRoomID)
}

// EventID returns a path parameter that is an event ID: 400 M_INVALID_PARAM if it
// is none.
func (r *Request) EventID(name string) (ids.EventID, error) {
	return parsed(name, r.Param(name), ids.ParseEventID)
}

// UserID returns a path parameter that is a user ID: 400 M_INVALID_PARAM if it is
// none.
func (r *Request) UserID(name string) (ids.UserID, error) {
	return parsed(name, r.Param(name), ids.ParseUserID)
}

// RoomAlias returns a path parameter that is a room alias: 400 M_INVALID_PARAM if
// it is none.
func (r *Request) RoomAlias(name string) (ids.RoomAlias, error) {
	return parsed(name, r.Param(name), ids.ParseRoomAlias)
}

// LocalUser is UserID for a user of a server: 400 M_INVALID_PARAM for one of
// another.
func (r *Request) LocalUser(name, server string) (ids.UserID, error) {
	user, err := r.UserID(name)
	if err == nil && user.Server() != server {
		return "", merr.InvalidParamErr("The user does not belong to this server")
	}
	return user, err
}

// Self returns a path parameter that has to be the caller's own user ID: 403
// M_FORBIDDEN if it is another.
func (r *Request) Self(name string) (ids.UserID, error) {
	user, err := r.UserID(name)
	if err != nil {
		return "", err
	}
	if user != r.Caller.User {
		return "", merr.ForbiddenErr("You may do this for yourself only")
	}
	return user, nil
}

// Token returns the token that was sent as the access token, "" for none: for
// routes without authorization that take tokens of another kind.
func (r *Request) Token() string { return r.token }

func parsed[T ~string](name, value string, parse func(string) (T, error)) (T, error) {
	id, err := parse(value)
	if err != nil {
		return "", merr.InvalidParamErr("The parameter %s is not valid", name).Because(err)
	}
	return id, nil
}

// QueryInt returns an integer query parameter cut to the range low to high, or
// otherwise if it is absent; 400 M_INVALID_PARAM if it is no integer.
func (r *Request) QueryInt(name string, otherwise, low, high int64) (int64, error) {
	text := r.Query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, merr.InvalidParamErr("The parameter %s is not an integer", name).Because(err)
	}
	return min(max(n, low), high), nil
}

// QueryBool returns a query parameter that is "true" or "false", false if it is
// absent; 400 M_INVALID_PARAM for other values.
func (r *Request) QueryBool(name string) (bool, error) {
	switch r.Query.Get(name) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, merr.InvalidParamErr("The parameter %s is neither true nor false", name)
}

// QueryEnum returns a query parameter that is one of allowed, the first of them if it is
// absent; 400 M_INVALID_PARAM for other values.
func (r *Request) QueryEnum(name string, allowed ...string) (string, error) {
	value := r.Query.Get(name)
	if value == "" && len(allowed) > 0 {
		return allowed[0], nil
	}
	if !slices.Contains(allowed, value) {
		return "", merr.InvalidParamErr("The parameter %s has an unknown value", name)
	}
	return value, nil
}
