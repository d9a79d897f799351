package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// answer is the outcome of a request, ready to be written.
type answer struct {
	status int
	header http.Header
	// body is all of it, or the first piece of a long one and more the others.
	body []byte
	more Pieces
	// written: a stream route has written it already; bytes is how much.
	written bool
	bytes   int64
	// parked: there is no answer yet, and a place for the connection until there is.
	parked *parking.Place
}

// size is the length of the whole body in bytes.
func (a *answer) size() int { return len(a.body) + a.more.size() }

// success encodes what a handler returned.
func (d *Dispatcher) success(r *Request, value any) answer {
	ans := answer{status: http.StatusOK}
	switch response := value.(type) {
	case Response:
		ans.status, ans.header, value = response.Status, response.Header, response.Body
	case *Response:
		ans.status, ans.header, value = response.Status, response.Header, response.Body
	}
	if ans.status == 0 {
		ans.status = http.StatusOK
	}
	if ans.status < http.StatusOK || ans.status > 599 {
		return d.failure(r, fmt.Errorf("the handler answered with status %d", ans.status))
	}
	switch v := value.(type) {
	case nil:
		ans.body = Empty
	case jsontext.Value:
		ans.body = v
		if len(v) == 0 {
			ans.body = Empty
		}
	case Pieces: // a LongList makes one at least
		ans.body, ans.more = v[0], v[1:]
	default:
		// Stored text that is not UTF-8 is mended in the answer: one bad item must not
		// turn the whole answer into an error.
		body, err := json.Marshal(value, jsontext.AllowInvalidUTF8(true))
		if err != nil {
			return d.failure(r, err)
		}
		ans.body = body
	}
	return ans
}

// failure logs the cause of a server error and encodes the error for the client.
func (d *Dispatcher) failure(r *Request, err error) answer {
	e := toClient(r, err)
	if e.Status >= http.StatusInternalServerError && (e.Unwrap() != nil || e.Status == http.StatusInternalServerError) {
		d.log.LogAttrs(r.Context, slog.LevelError, "request failed",
			slog.String("request_id", r.ID), slog.String("method", r.Method), slog.String("route", r.template()),
			slog.String("user", string(r.Caller.User)), slog.Int("status", e.Status), slog.Any("error", e))
	}
	return errorAnswer(e)
}

// toClient maps err to the error that the client sees.
func toClient(r *Request, err error) *merr.Error {
	if r.Context.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		// The client is gone, the node is stopping, or it took too long: nobody is
		// told why, and the client may repeat it.
		r.gone = errors.Is(r.Context.Err(), context.Canceled)
		return merr.UnavailableErr(timeoutRetry, "The request was given up")
	}
	var known *merr.Error
	if errors.As(err, &known) {
		if known.Status < http.StatusBadRequest || known.Status > 599 {
			return merr.From(fmt.Errorf("error without a proper status: %v", known))
		}
		return known
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return merr.TooLargeErr("The body is larger than %d bytes", tooLarge.Limit)
	}
	return merr.From(err)
}

func errorAnswer(e *merr.Error) answer {
	if e.RetryAfter > 0 {
		// Both forms are rounded up: a client that comes back a millisecond early is
		// refused again.
		c := *e
		c.RetryAfter = (e.RetryAfter + time.Millisecond - 1).Truncate(time.Millisecond)
		e = &c
	}
	body, err := e.MarshalJSON()
	if err != nil {
		// Only a value in Extra that is no JSON can do this.
		body = []byte(`{"errcode":"M_UNKNOWN","error":"Internal server error"}`)
	}
	ans := answer{status: e.Status, body: body}
	if e.RetryAfter > 0 {
		seconds := int64((e.RetryAfter + time.Second - 1) / time.Second)
		ans.header = http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}}
	}
	return ans
}
