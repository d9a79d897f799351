package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// postTimeout bounds one request, dialTimeout its connection.
	postTimeout = 20 * time.Second
	dialTimeout = 5 * time.Second
	// idleTimeout is how long a connection is kept for the next notification.
	idleTimeout = 90 * time.Second
	// maxReply bounds the answer of a gateway, which is a list of a few keys.
	maxReply = 64 << 10
	// maxRetryAfter is the longest that a gateway can ask to be left alone for.
	maxRetryAfter = time.Hour

	formatEventIDOnly = "event_id_only"

	prioHigh = "high"
	prioLow  = "low"
)

// pusherData is what the server looks at of a pusher's data.
type pusherData struct {
	URL    string `json:"url"`
	Format string `json:"format"`
	// Auth is the secret of a browser's subscription. spec: MSC4174.
	Auth string `json:"auth"`
	// EventsOnly: the number alone is never told, for browsers that want something to be
	// shown each time. Gateways for browsers know it by this name.
	EventsOnly bool `json:"events_only"`
}

func dataOf(p *account.Pusher) pusherData {
	var d pusherData
	_ = json.Unmarshal(p.Data, &d) // it was checked when it was set
	return d
}

// message is the body of a request to a gateway.
// spec: push-gateway §POST /_matrix/push/v1/notify.
type message struct {
	Notification notification `json:"notification"`
	// ack is what a pusher's app has to say before it is sent anything else.
	ack string
	// ts is the time of the event, in ms since 1970.
	ts int64
}

type notification struct {
	Content           json.RawMessage `json:"content,omitempty"`
	Counts            counts          `json:"counts"`
	Devices           []device        `json:"devices"`
	EventID           ids.EventID     `json:"event_id,omitempty"`
	Prio              string          `json:"prio,omitempty"`
	RoomAlias         string          `json:"room_alias,omitempty"`
	RoomID            ids.RoomID      `json:"room_id,omitempty"`
	RoomName          string          `json:"room_name,omitempty"`
	Sender            ids.UserID      `json:"sender,omitempty"`
	SenderDisplayName string          `json:"sender_display_name,omitempty"`
	Type              string          `json:"type,omitempty"`
	UserIsTarget      bool            `json:"user_is_target,omitempty"`
}

type counts struct {
	Unread int `json:"unread"`
}

type device struct {
	AppID   string                     `json:"app_id"`
	Data    map[string]json.RawMessage `json:"data"`
	PushKey string                     `json:"pushkey"`
	// PushKeyTS is in seconds since 1970.
	PushKeyTS int64          `json:"pushkey_ts"`
	Tweaks    map[string]any `json:"tweaks"`
}

// newMessage begins a message to a pusher. The data goes along, but for the URL.
func newMessage(pu *account.Pusher, unread int) *message {
	data := map[string]json.RawMessage{}
	_ = json.Unmarshal(pu.Data, &data) // it was checked when it was set
	delete(data, "url")
	return &message{Notification: notification{
		Counts: counts{unread},
		Devices: []device{{
			AppID: pu.AppID, Data: data, PushKey: pu.PushKey, PushKeyTS: pu.SetTS / 1000, Tweaks: map[string]any{},
		}},
	}}
}

// describe tells of an event what the pusher's format asks for.
func (d *sender) describe(ctx context.Context, m *message, user ids.UserID, pu *account.Pusher, n *account.Notification, e *room.Stored) error {
	out := &m.Notification
	m.ts = n.TS
	out.EventID, out.RoomID, out.Prio = e.ID, e.RoomID, prioLow
	// Nobody but the client can tell what is in an encrypted event.
	if n.Highlight || n.Sound != "" || e.Type == event.TypeEncrypted {
		out.Prio = prioHigh
	}
	if dataOf(pu).Format == formatEventIDOnly {
		return nil
	}
	if n.Highlight {
		out.Devices[0].Tweaks["highlight"] = true
	}
	if n.Sound != "" {
		out.Devices[0].Tweaks["sound"] = n.Sound
	}
	out.Content, out.Type, out.Sender = json.RawMessage(e.Content), e.Type, e.Sender
	out.UserIsTarget = e.Is(event.TypeMember, string(user))
	state, err := d.svc.rooms.StateEvents(ctx, e.RoomID,
		room.StateKey{Type: event.TypeMember, Key: string(e.Sender)},
		room.StateKey{Type: event.TypeName}, room.StateKey{Type: event.TypeCanonicalAlias}, room.StateKey{Type: event.TypeEncryption})
	if err != nil {
		return err
	}
	if pu.Kind == KindWebPush && (state[3] != nil || e.Type == event.TypeEncrypted) {
		out.Content = nil // what is said in an encrypted room is not the server's to tell
	}
	if state[0] != nil {
		out.SenderDisplayName = state[0].Member().DisplayName
	}
	out.RoomName = text(state[1], "name")
	out.RoomAlias = text(state[2], "alias")
	return nil
}

// text is a string in the content of an event, "" if there is none.
func text(e *room.Stored, field string) string {
	var content map[string]any
	if e == nil || json.Unmarshal(e.Content, &content) != nil {
		return ""
	}
	s, _ := content[field].(string)
	return s
}

// verdict is what came of a request.
type verdict string

const (
	verdictSent verdict = "sent"
	// verdictGone: the gateway knows the push key no more.
	verdictGone verdict = "rejected"
	// verdictRefused: the gateway will never take this notification.
	verdictRefused verdict = "refused"
	// verdictLater: try again.
	verdictLater verdict = "failed"
)

type reply struct {
	verdict verdict
	wait    time.Duration
	err     error
	// status is what a push service answered, 0 if it did not.
	status int
}

// deliver sends a message to where a pusher is.
func (d *sender) deliver(ctx context.Context, target *url.URL, pu *account.Pusher, m *message) reply {
	if pu.Kind == KindWebPush {
		return d.postWeb(ctx, target, pu, m)
	}
	return d.post(ctx, target, m)
}

// post sends a message to a gateway.
func (d *sender) post(ctx context.Context, target *url.URL, m *message) reply {
	body, err := json.Marshal(m)
	if err != nil {
		return reply{verdict: verdictRefused, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return reply{verdict: verdictRefused, err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "hubbub")
	resp, err := d.client.Do(req)
	if err != nil {
		return reply{verdict: verdictLater, err: err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return reply{verdict: verdictLater, err: err}
	}
	return judgeReply(resp.StatusCode, resp.Header, answer, m.Notification.Devices[0].PushKey)
}

func judgeReply(status int, h http.Header, answer []byte, key string) reply {
	switch {
	case status == http.StatusOK:
		var out struct {
			Rejected []string `json:"rejected"`
		}
		// An answer that cannot be read rejects nothing: the notification arrived.
		if json.Unmarshal(answer, &out) == nil && slices.Contains(out.Rejected, key) {
			return reply{verdict: verdictGone}
		}
		return reply{verdict: verdictSent}
	case isRefusal(status):
		return reply{verdict: verdictRefused, err: fmt.Errorf("status %d", status)}
	}
	return reply{verdict: verdictLater, wait: retryAfter(h), err: fmt.Errorf("status %d", status)}
}

// isRefusal reports whether the same again would be answered the same.
func isRefusal(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
}

// newClient connects to public addresses, and to the networks allowed; without TLS
// to these only.
func newClient(o *Options) *http.Client {
	forTLS, forPlain := controls(o.Allow)
	secure := &net.Dialer{Timeout: dialTimeout, Resolver: o.Resolver, Control: forTLS}
	plain := &net.Dialer{Timeout: dialTimeout, Resolver: o.Resolver, Control: forPlain}
	return &http.Client{
		Transport: &http.Transport{
			// No proxy, whatever the environment says: it would connect in our place.
			Proxy:                 nil,
			DialContext:           plain.DialContext,
			DialTLSContext:        dialTLS(secure),
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   maxPerGateway,
			MaxConnsPerHost:       maxPerGateway,
			IdleConnTimeout:       idleTimeout,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: postTimeout,
		},
		// A gateway that moved is set anew by its app.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type controlFunc func(network, address string, c syscall.RawConn) error

var errPlain = errors.New("push: a gateway without TLS, outside of the networks that are allowed")

func refuse(string, string, syscall.RawConn) error { return errPlain }

// dialTLS is what the transport does by itself when it has one dialer for both.
func dialTLS(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&tls.Dialer{NetDialer: d, Config: &tls.Config{NextProtos: []string{"h2", "http/1.1"}}}).DialContext(ctx, network, addr)
	}
}

// controls say where connections with and without TLS may go.
func controls(allow []netip.Prefix) (secure, plain controlFunc) {
	return control(ssrf.New(ssrf.WithAnyPort()).Safe, allow), control(refuse, allow)
}

// control lets connections to the networks listed pass, and leaves others to guard.
func control(guard controlFunc, allow []netip.Prefix) controlFunc {
	return func(network, address string, c syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err == nil {
			addr := at.Addr().Unmap()
			for _, prefix := range allow {
				if prefix.Contains(addr) {
					return nil
				}
			}
		}
		return guard(network, address, c)
	}
}
