// Package merr is the one error type that reaches clients: an HTTP status, a
// Matrix error code, a public text, and a private cause for the log.
//
// Domain packages return it where the specification names the error; the API
// layer writes it and logs the cause. It can cross nodes as JSON (the cause
// stays behind).
package merr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Code is a Matrix error code. spec: client-server §Standard error response.
type Code string

// The error codes in use.
const (
	Forbidden              Code = "M_FORBIDDEN"
	UnknownToken           Code = "M_UNKNOWN_TOKEN"
	MissingToken           Code = "M_MISSING_TOKEN"
	UserLocked             Code = "M_USER_LOCKED"
	UserSuspended          Code = "M_USER_SUSPENDED"
	BadJSON                Code = "M_BAD_JSON"
	NotJSON                Code = "M_NOT_JSON"
	NotFound               Code = "M_NOT_FOUND"
	LimitExceeded          Code = "M_LIMIT_EXCEEDED"
	Unrecognized           Code = "M_UNRECOGNIZED"
	Unknown                Code = "M_UNKNOWN"
	UserDeactivated        Code = "M_USER_DEACTIVATED"
	UserInUse              Code = "M_USER_IN_USE"
	InvalidUsername        Code = "M_INVALID_USERNAME"
	RoomInUse              Code = "M_ROOM_IN_USE"
	InvalidRoomState       Code = "M_INVALID_ROOM_STATE"
	UnsupportedRoomVersion Code = "M_UNSUPPORTED_ROOM_VERSION"
	BadState               Code = "M_BAD_STATE"
	MissingParam           Code = "M_MISSING_PARAM"
	InvalidParam           Code = "M_INVALID_PARAM"
	TooLarge               Code = "M_TOO_LARGE"
	Exclusive              Code = "M_EXCLUSIVE"
	WeakPassword           Code = "M_WEAK_PASSWORD"
	BadAlias               Code = "M_BAD_ALIAS"
	DuplicateAnnotation    Code = "M_DUPLICATE_ANNOTATION"
	GuestAccessForbidden   Code = "M_GUEST_ACCESS_FORBIDDEN"
	InviteBlocked          Code = "M_INVITE_BLOCKED"
	CannotOverwriteMedia   Code = "M_CANNOT_OVERWRITE_MEDIA"
	NotYetUploaded         Code = "M_NOT_YET_UPLOADED"
	WrongRoomKeysVersion   Code = "M_WRONG_ROOM_KEYS_VERSION"
	UnableToAuthoriseJoin  Code = "M_UNABLE_TO_AUTHORISE_JOIN"
	CannotLeaveNoticeRoom  Code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	ResourceLimitExceeded  Code = "M_RESOURCE_LIMIT_EXCEEDED"
	ThreePIDInUse          Code = "M_THREEPID_IN_USE"
	ThreePIDNotFound       Code = "M_THREEPID_NOT_FOUND"
	ThreePIDAuthFailed     Code = "M_THREEPID_AUTH_FAILED"
	ThreePIDNotSupported   Code = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
	UnknownPos             Code = "M_UNKNOWN_POS"
	ProfileTooLarge        Code = "M_PROFILE_TOO_LARGE"
	KeyTooLarge            Code = "M_KEY_TOO_LARGE"
	InvalidSignature       Code = "M_INVALID_SIGNATURE"
	ExpiredActivation      Code = "M_EXPIRED_ACTIVATION_TOKEN"
	UnknownActivation      Code = "M_UNKNOWN_ACTIVATION_TOKEN"
)

// Error is an answer to a client. Status is an HTTP status; Extra are further
// members of the JSON body (soft_logout, retry_after_ms, …).
type Error struct {
	Status int
	Code   Code
	Msg    string
	Extra  map[string]any
	// RetryAfter is sent as a Retry-After header and as retry_after_ms if not 0.
	RetryAfter time.Duration

	cause error
}

// New returns an error with a public text.
func New(status int, code Code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Error gives the code, the text and the cause, for logs.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%d %s: %s: %v", e.Status, e.Code, e.Msg, e.cause)
	}
	return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Msg)
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.cause }

// Because returns a copy of e with a private cause, which is logged and never sent.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// With returns a copy of e with one more member in its JSON body.
func (e *Error) With(name string, value any) *Error {
	c := *e
	c.Extra = make(map[string]any, len(e.Extra)+1)
	for k, v := range e.Extra {
		c.Extra[k] = v
	}
	c.Extra[name] = value
	return &c
}

// MarshalJSON gives the standard error response. Without a Code there is neither
// errcode nor error, as in the 401 that begins user-interactive authentication.
func (e *Error) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(e.Extra)+3)
	for k, v := range e.Extra {
		m[k] = v
	}
	if e.Code != "" {
		m["errcode"] = e.Code
		m["error"] = e.Msg
	}
	if e.RetryAfter > 0 {
		m["retry_after_ms"] = e.RetryAfter.Milliseconds()
	}
	return json.Marshal(m)
}

// binary is all of an Error but its cause.
type binary struct {
	Status     int
	Code       Code
	Msg        string
	Extra      map[string]any
	RetryAfter time.Duration
}

// MarshalBinary gives the Error without its cause, for another node.
func (e *Error) MarshalBinary() ([]byte, error) {
	return json.Marshal(binary{e.Status, e.Code, e.Msg, e.Extra, e.RetryAfter})
}

// UnmarshalBinary reads what MarshalBinary gave.
func (e *Error) UnmarshalBinary(b []byte) error {
	var in binary
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*e = Error{Status: in.Status, Code: in.Code, Msg: in.Msg, Extra: in.Extra, RetryAfter: in.RetryAfter}
	return nil
}

// From returns the Error in err's chain. Any other error becomes a 500 with a
// text that tells nothing, and err as the cause.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(http.StatusInternalServerError, Unknown, "Internal server error").Because(err)
}

// Is reports whether err is an Error with the code.
func Is(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// The errors that many places return.

// ForbiddenErr is a 403 M_FORBIDDEN.
func ForbiddenErr(format string, args ...any) *Error {
	return New(http.StatusForbidden, Forbidden, format, args...)
}

// NotFoundErr is a 404 M_NOT_FOUND.
func NotFoundErr(format string, args ...any) *Error {
	return New(http.StatusNotFound, NotFound, format, args...)
}

// BadJSONErr is a 400 M_BAD_JSON: well-formed JSON of the wrong shape.
func BadJSONErr(format string, args ...any) *Error {
	return New(http.StatusBadRequest, BadJSON, format, args...)
}

// InvalidParamErr is a 400 M_INVALID_PARAM.
func InvalidParamErr(format string, args ...any) *Error {
	return New(http.StatusBadRequest, InvalidParam, format, args...)
}

// MissingParamErr is a 400 M_MISSING_PARAM.
func MissingParamErr(format string, args ...any) *Error {
	return New(http.StatusBadRequest, MissingParam, format, args...)
}

// TooLargeErr is a 413 M_TOO_LARGE.
func TooLargeErr(format string, args ...any) *Error {
	return New(http.StatusRequestEntityTooLarge, TooLarge, format, args...)
}

// UnavailableErr is a 503 that asks the client to come back after retry.
func UnavailableErr(retry time.Duration, format string, args ...any) *Error {
	e := New(http.StatusServiceUnavailable, Unknown, format, args...)
	e.RetryAfter = retry
	return e
}

// LimitedErr is a 429 M_LIMIT_EXCEEDED. spec: client-server §Rate limiting.
func LimitedErr(retry time.Duration) *Error {
	e := New(http.StatusTooManyRequests, LimitExceeded, "Too many requests")
	e.RetryAfter = retry
	return e
}
