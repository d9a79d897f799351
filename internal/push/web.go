package push

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/push/webpush"
)

// For a pusher of kind KindWebPush the server is its own gateway: it tells the push
// service of the browser. What it says is encrypted for the browser; the service learns
// when, how urgent, and of which topic it is, which is a number that only means that
// one message replaces another. spec: MSC4174, RFC 8030.

const (
	// KindWebPush is the kind of pusher that is a subscription of a browser. spec:
	// MSC4174, unstable prefix.
	KindWebPush = "org.matrix.msc4174.webpush"
	// maxWebPayload is how much a browser is told at once; services take at least 4 KB
	// with what encryption adds.
	maxWebPayload = 3000
	// topicBytes make a topic of 32 letters. spec: RFC 8030 §5.4.
	topicBytes = 24
)

// Served reports whether there are pushers of a kind.
func Served(kind string) bool { return kind == KindHTTP || kind == KindWebPush }

// webPayload is what a browser is told: the members of a notification side by side, as
// gateways for browsers have always told it. small leaves out all but what it is about.
func webPayload(m *message, small bool) ([]byte, error) {
	n := &m.Notification
	if m.ack != "" {
		return json.Marshal(map[string]string{"app_id": n.Devices[0].AppID, "ack_token": m.ack})
	}
	out := map[string]any{}
	if !small {
		var more map[string]any
		_ = json.Unmarshal(n.Devices[0].Data["default_payload"], &more) // what is no object adds nothing
		maps.Copy(out, more)
		raw, err := json.Marshal(n)
		if err != nil {
			return nil, fmt.Errorf("encode push: %w", err)
		}
		var members map[string]any
		if err := json.Unmarshal(raw, &members); err != nil {
			return nil, fmt.Errorf("encode push: %w", err)
		}
		delete(members, "devices")
		delete(members, "counts")
		maps.Copy(out, members)
	} else if n.EventID != "" {
		out["room_id"], out["event_id"], out["prio"] = n.RoomID, n.EventID, n.Prio
	}
	out["unread"] = n.Counts.Unread
	return json.Marshal(out)
}

// fitting is the payload, without the text if it is too long, or as small as can be.
func fitting(m *message) ([]byte, error) {
	p, err := webPayload(m, false)
	if err != nil || len(p) <= maxWebPayload {
		return p, err
	}
	short := *m
	short.Notification.Content = nil
	if p, err = webPayload(&short, false); err != nil || len(p) <= maxWebPayload {
		return p, err
	}
	return webPayload(m, true)
}

// postWeb sends a message to a browser.
func (d *sender) postWeb(ctx context.Context, target *url.URL, pu *account.Pusher, m *message) reply {
	payload, err := fitting(m)
	if err != nil {
		return reply{verdict: verdictRefused, err: err}
	}
	r := d.postPayload(ctx, target, pu, m, payload)
	if r.status != http.StatusRequestEntityTooLarge {
		return r
	}
	small, err := webPayload(m, true)
	if err != nil || len(small) >= len(payload) {
		return r
	}
	return d.postPayload(ctx, target, pu, m, small)
}

func (d *sender) postPayload(ctx context.Context, target *url.URL, pu *account.Pusher, m *message, payload []byte) reply {
	req, cancel, err := d.webRequest(ctx, target, pu, m, payload)
	if err != nil {
		return reply{verdict: verdictRefused, err: err}
	}
	defer cancel()
	resp, err := d.client.Do(req)
	if err != nil {
		var why *url.Error
		if errors.As(err, &why) {
			err = why.Err // its text has the address, which is a secret of the browser
		}
		return reply{verdict: verdictLater, err: err}
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply)) // so that the connection is kept
	return judgeWebReply(resp.StatusCode, resp.Header)
}

func (d *sender) webRequest(ctx context.Context, target *url.URL, pu *account.Pusher, m *message, payload []byte) (*http.Request, context.CancelFunc, error) {
	data := dataOf(pu)
	key := d.svc.opts.WebKey
	if key == nil {
		return nil, nil, errors.New("push: no key for push services")
	}
	sub, err := webpush.NewSubscription(pu.PushKey, data.Auth)
	if err != nil {
		return nil, nil, err
	}
	body, err := sub.Encrypt(payload)
	if err != nil {
		return nil, nil, err
	}
	now := d.svc.opts.Clock.Now()
	proof, err := key.Authorization(originOf(target), d.svc.opts.Contact, now)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, errors.New("push: not the address of a push service")
	}
	h := req.Header
	h.Set("Authorization", proof)
	h.Set("Content-Encoding", "aes128gcm")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("TTL", strconv.Itoa(int(m.life(now)/time.Second)))
	h.Set("Urgency", m.urgency())
	h.Set("Topic", m.topic(data.Auth))
	h.Set("User-Agent", "hubbub")
	return req, cancel, nil
}

// originOf is the origin of a URL, without the port that goes without saying.
func originOf(u *url.URL) string {
	host := u.Host
	if u.Scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + strings.ToLower(host)
}

// life is how long the message is worth to be delivered.
func (m *message) life(now time.Time) time.Duration {
	switch {
	case m.ack != "":
		return account.AckLife
	case m.ts == 0:
		return maxAge
	}
	return max(0, maxAge-max(0, now.Sub(time.UnixMilli(m.ts))))
}

// urgency: spec RFC 8030 §5.3, where a chat message is of the urgency normal.
func (m *message) urgency() string {
	switch {
	case m.ack != "" || m.Notification.Prio == prioHigh:
		return "high"
	case m.Notification.EventID != "":
		return "normal"
	}
	return "low"
}

// topic is the same for what replaces each other: of a room the newest is delivered, and
// the newest number. Nobody can tell from it which room it is.
func (m *message) topic(secret string) string {
	h := hmac.New(sha256.New, []byte(secret))
	about := "badge"
	switch {
	case m.ack != "":
		about = "ack"
	case m.Notification.RoomID != "":
		about = string(m.Notification.RoomID)
	}
	_, _ = h.Write([]byte("topic " + about)) // never fails
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:topicBytes])
}

// judgeWebReply: spec RFC 8030 §5, §7.3; MSC4174 for 403, by which a service says that the
// subscription is not ours.
func judgeWebReply(status int, h http.Header) reply {
	r := reply{status: status, err: fmt.Errorf("status %d", status)}
	switch {
	case status >= 200 && status < 300:
		r.verdict, r.err = verdictSent, nil
	case status == http.StatusNotFound || status == http.StatusGone || status == http.StatusForbidden:
		r.verdict = verdictGone
	case isRefusal(status):
		r.verdict = verdictRefused
	default:
		r.verdict, r.wait = verdictLater, retryAfter(h)
	}
	return r
}
