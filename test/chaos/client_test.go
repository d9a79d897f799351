package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
	"github.com/hubbub-chat/hubbub/test/history"
)

const (
	api      = "/_matrix/client/v3"
	password = "a password for tests"
	// retryPause is how long a client that got no answer waits.
	retryPause = 50 * time.Millisecond
)

// answer is what a request came to; status is 0 if no answer came.
type answer struct {
	status int
	body   []byte
}

func (a answer) ok() bool { return a.status == http.StatusOK }

// unknown: the request may or may not have been carried out.
func (a answer) unknown() bool { return a.status == 0 || a.status >= 500 }

func (a answer) str(name string) string {
	var m map[string]any
	if json.Unmarshal(a.body, &m) != nil {
		return ""
	}
	s, _ := m[name].(string)
	return s
}

// client is one device with its access token. It talks to another node each time, or,
// over sockets, now and then.
type client struct {
	load        *load
	user, name  string
	token       string
	http        *http.Client
	rng         *rand.Rand
	overSockets bool
	ws          *wsclient.Client
}

func (l *load) client(user, name, token string) *client {
	seed := l.clients.Add(1)
	return &client{
		load: l, user: user, name: name, token: token, http: &http.Client{Transport: &http.Transport{}},
		rng: rand.New(rand.NewPCG(l.seed, seed)),
	}
}

// id names the device among all.
func (c *client) id() string { return c.user + "/" + c.name }

func (c *client) close() {
	c.hangUp()
	c.http.CloseIdleConnections()
}

func (c *client) hangUp() {
	if c.ws != nil {
		_ = c.ws.Close()
		c.ws = nil
	}
}

// call makes one request at a node that a load balancer would choose.
func (c *client) call(ctx context.Context, method, target string, body any) answer {
	return c.callAt(ctx, c.load.fleet.pick(c.rng), method, target, body)
}

func (c *client) callAt(ctx context.Context, n *node, method, target string, body any) answer {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			panic(err) // the bodies are ours
		}
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, c.load.callLimit)
	defer cancel()
	begin := time.Now()
	var a answer
	if c.overSockets {
		a = c.callSocket(ctx, n, method, target, raw)
	} else {
		a = c.callHTTP(ctx, n, method, target, raw)
	}
	if whole.Err() == nil && !strings.Contains(target, "/sync?") { // a long poll waits as it should
		c.load.phase.Load().note(a, time.Since(begin))
	}
	if a.status != 0 && !a.ok() && a.status != http.StatusServiceUnavailable {
		c.load.rec.Note("C0 %s %s of %s at %s was answered %d %s", method, target, c.id(), n.name, a.status, a.body)
	}
	return a
}

func (c *client) callHTTP(ctx context.Context, n *node, method, target string, body []byte) answer {
	req, err := http.NewRequestWithContext(ctx, method, n.url()+target, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}
	}
	return answer{res.StatusCode, b}
}

func (c *client) callSocket(ctx context.Context, n *node, method, target string, body []byte) answer {
	if c.ws != nil && c.rng.IntN(20) == 0 {
		c.hangUp()
	}
	if c.ws == nil {
		ws, err := wsclient.Dial(ctx, n.url(), wsclient.Options{Token: c.token})
		if err != nil {
			return answer{}
		}
		c.ws = ws
	}
	res, err := c.ws.Call(ctx, method, target, body)
	if err != nil {
		c.hangUp()
		return answer{}
	}
	return answer{res.Status, res.Body}
}

// insist repeats a request that may be repeated until there is a definite answer.
func (c *client) insist(ctx context.Context, method, target string, body any) answer {
	for {
		a := c.call(ctx, method, target, body)
		if !a.unknown() || !pause(ctx) {
			return a
		}
	}
}

// pause waits before a request is repeated, and reports whether it should be.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retryPause):
		return true
	}
}

// finish notes the answer to an operation.
func (c *client) finish(op *history.Op, a answer) {
	op.Status = a.status
	switch {
	case a.unknown():
		return
	case !a.ok():
		op.Outcome, op.Return = history.Fail, c.load.rec.Now()
	default:
		id := a.str("event_id")
		if op.Outcome != history.OK {
			op.Outcome, op.Return, op.EventID = history.OK, c.load.rec.Now(), id
		}
		op.Answers = append(op.Answers, id)
	}
}

// path joins escaped segments.
func path(segments ...string) string {
	var b strings.Builder
	b.WriteString(api)
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}
