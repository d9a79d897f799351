package torture

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

const api = "/_matrix/client/v3"

// callLimit bounds one request: longer than any pause of a busy machine.
const callLimit = 30 * time.Second

// answer is what a request came to. status is 0 if no answer came.
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

// device is one client with its access token.
type device struct {
	run         *run
	user, name  string // full user ID, device ID
	token       string
	http        *http.Client
	rng         *rand.Rand
	ws          *wsclient.Client // nil while disconnected, or if it speaks HTTP
	overSockets bool
}

func (r *run) newDevice(user, name, token string, seed uint64) *device {
	return &device{
		run: r, user: user, name: name, token: token,
		http: &http.Client{Transport: &http.Transport{}},
		rng:  rand.New(rand.NewPCG(r.seed, seed)),
	}
}

func (d *device) close() {
	d.hangUp()
	d.http.CloseIdleConnections()
}

func (d *device) hangUp() {
	if d.ws != nil {
		_ = d.ws.Close()
		d.ws = nil
	}
}

// call makes one request.
func (d *device) call(ctx context.Context, method, path string, body any) answer {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			panic(err) // the bodies are ours
		}
	}
	var a answer
	if d.overSockets {
		a = d.callSocket(ctx, method, path, raw)
	} else {
		a = d.callHTTP(ctx, method, path, raw)
	}
	if a.status >= 500 && a.status != http.StatusServiceUnavailable {
		d.run.rec.Note("C0 %s %s was answered %d %s", method, path, a.status, a.body)
	}
	return a
}

func (d *device) callHTTP(ctx context.Context, method, path string, body []byte) answer {
	req, err := http.NewRequestWithContext(ctx, method, d.run.srv.url()+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	res, err := d.http.Do(req)
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}
	}
	return answer{res.StatusCode, b}
}

func (d *device) callSocket(ctx context.Context, method, path string, body []byte) answer {
	if d.ws == nil {
		c, err := wsclient.Dial(ctx, d.run.srv.url(), wsclient.Options{Token: d.token})
		if err != nil {
			return answer{}
		}
		d.ws = c
	}
	res, err := d.ws.Call(ctx, method, path, body)
	if err != nil {
		d.hangUp()
		return answer{}
	}
	return answer{res.Status, res.Body}
}

// once runs an operation that is not repeated.
func (d *device) once(op *history.Op, method, path string, body any) answer {
	a := d.call(d.run.ctx, method, path, body)
	d.finish(op, a)
	if a.unknown() {
		d.run.srv.awaitUp(d.run.ctx)
	}
	return a
}

// insist runs an operation that has a transaction ID: it is repeated until there
// is a definite answer. Now and then the client hangs up before the answer.
func (d *device) insist(op *history.Op, method, path string, body any) answer {
	unsure := false
	for {
		ctx, cancel := d.run.ctx, context.CancelFunc(func() {})
		if d.rng.IntN(12) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(d.rng.IntN(5000))*time.Microsecond)
		}
		a := d.call(ctx, method, path, body)
		cancel()
		switch {
		case d.run.ctx.Err() != nil:
			return a
		case !a.unknown():
			if unsure && !a.ok() {
				// Whether the first attempt took place is not known.
				op.Status = a.status
				return a
			}
			d.finish(op, a)
			return a
		}
		unsure = true
		d.run.srv.awaitUp(d.run.ctx)
	}
}

func (d *device) finish(op *history.Op, a answer) {
	op.Status = a.status
	switch {
	case a.unknown():
		return
	case !a.ok():
		op.Outcome, op.Return = history.Fail, d.run.rec.Now()
	default:
		id := a.str("event_id")
		if op.Outcome != history.OK {
			op.Outcome, op.Return, op.EventID = history.OK, d.run.rec.Now(), id
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
