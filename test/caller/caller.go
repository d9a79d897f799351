// Package caller is a client under load: one device with its access token, which talks to
// a server over HTTP or calls of a WebSocket, loses answers, and tells an answer that says
// no from none at all. The tests that kill servers share it.
package caller

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
	"github.com/hubbub-chat/hubbub/test/history"
)

// API is the prefix of what devices ask for.
const API = "/_matrix/client/v3"

// Path joins segments behind the prefix, each escaped.
func Path(segments ...string) string {
	var b strings.Builder
	b.WriteString(API)
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// Answer is what a request came to; Status is 0 if no answer came.
type Answer struct {
	Status int
	Body   []byte
}

// OK reports whether it was carried out.
func (a Answer) OK() bool { return a.Status == http.StatusOK }

// Unknown reports whether the request may or may not have been carried out.
func (a Answer) Unknown() bool { return a.Status == 0 || a.Status >= 500 }

// String is a member of the body, "" if it is not there or no string.
func (a Answer) String(name string) string {
	var m map[string]any
	if json.Unmarshal(a.Body, &m) != nil {
		return ""
	}
	s, _ := m[name].(string)
	return s
}

// Finish notes in an operation how it was answered.
func (a Answer) Finish(rec *history.Recorder, op *history.Op) {
	op.Status = a.Status
	switch {
	case a.Unknown():
	case !a.OK():
		op.Outcome, op.Return = history.Fail, rec.Now()
	default:
		id := a.String("event_id")
		if op.Outcome != history.OK {
			op.Outcome, op.Return, op.EventID = history.OK, rec.Now(), id
		}
		op.Answers = append(op.Answers, id)
	}
}

// Device makes requests, one at a time.
type Device struct {
	User, Name  string // full user ID, device ID
	Token       string
	OverSockets bool

	http *http.Client
	ws   *wsclient.Client // nil while disconnected
}

// New returns a device that has not said anything yet.
func New(user, name, token string) *Device {
	return &Device{User: user, Name: name, Token: token, http: &http.Client{Transport: &http.Transport{}}}
}

// Close drops its connections.
func (d *Device) Close() {
	d.HangUp()
	d.http.CloseIdleConnections()
}

// HangUp drops its socket.
func (d *Device) HangUp() {
	if d.ws != nil {
		_ = d.ws.Close()
		d.ws = nil
	}
}

// Do makes one request of the server at an address.
func (d *Device) Do(ctx context.Context, at, method, target string, body any) Answer {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			panic(err) // the bodies are ours
		}
	}
	if d.OverSockets {
		return d.callSocket(ctx, at, method, target, raw)
	}
	return d.callHTTP(ctx, at, method, target, raw)
}

func (d *Device) callHTTP(ctx context.Context, at, method, target string, body []byte) Answer {
	req, err := http.NewRequestWithContext(ctx, method, at+target, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	if d.Token != "" {
		req.Header.Set("Authorization", "Bearer "+d.Token)
	}
	res, err := d.http.Do(req)
	if err != nil {
		return Answer{}
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}
	}
	return Answer{res.StatusCode, b}
}

// callSocket connects to an address only if it is not connected to any.
func (d *Device) callSocket(ctx context.Context, at, method, target string, body []byte) Answer {
	if d.ws == nil {
		ws, err := wsclient.Dial(ctx, at, wsclient.Options{Token: d.Token})
		if err != nil {
			return Answer{}
		}
		d.ws = ws
	}
	res, err := d.ws.Call(ctx, method, target, body)
	if err != nil {
		d.HangUp()
		return Answer{}
	}
	return Answer{res.Status, res.Body}
}

// Walk pages through a room by get, and returns its events oldest first. A page that
// is no answer ends it: it is noted, with who asked.
func Walk(rec *history.Recorder, who, room, dir, limit string, get func(target string) Answer) []history.Event {
	var out []history.Event
	for from := ""; ; {
		target := Path("rooms", room, "messages") + "?limit=" + limit + "&dir=" + dir
		if from != "" {
			target += "&from=" + from
		}
		a := get(target)
		var p page
		if err := json.Unmarshal(a.Body, &p); err != nil || !a.OK() {
			rec.Note("C4 %s for %s was answered %d %s", target, who, a.Status, a.Body)
			return out
		}
		out = append(out, history.ParseEvents(p.Chunk)...)
		if p.End == "" || dir == "f" && len(p.Chunk) == 0 {
			break
		}
		from = p.End
	}
	if dir == "b" {
		slices.Reverse(out)
	}
	return out
}

// Fill reads, oldest first, what a limited timeline left out: back from a position to the
// event that was the last one known. Before it repeats a request that got no answer it
// calls wait. ok is false if the context ended, or if there was an answer that is noted.
func Fill(ctx context.Context, rec *history.Recorder, who, room, from, last string, get func(target string) Answer, wait func()) (out []history.Event, ok bool) {
	const limit = "100"
	for ctx.Err() == nil {
		q := url.Values{"dir": {"b"}, "limit": {limit}, "from": {from}}
		a := get(Path("rooms", room, "messages") + "?" + q.Encode())
		if a.Unknown() {
			wait()
			continue
		}
		var p page
		if err := json.Unmarshal(a.Body, &p); err != nil || !a.OK() {
			rec.Note("C5 %s: /messages from prev_batch was answered %d %s", who, a.Status, a.Body)
			return nil, false
		}
		for _, raw := range p.Chunk {
			e := history.ParseEvent(raw)
			if e.ID == last {
				slices.Reverse(out)
				return out, true
			}
			out = append(out, e)
		}
		if p.End == "" {
			slices.Reverse(out)
			return out, true
		}
		from = p.End
	}
	return nil, false
}

// page is an answer of /messages.
type page struct {
	Chunk []json.RawMessage `json:"chunk"`
	End   string            `json:"end"`
}
