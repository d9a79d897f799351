package chaos

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

const (
	password = "a password for tests"
	// retryPause is how long a client that got no answer waits.
	retryPause = 50 * time.Millisecond
)

// client is one device. It talks to another node each time, or, over sockets, now and
// then.
type client struct {
	*caller.Device
	load *load
	rng  *rand.Rand
	// measures: it goes where a load balancer sends it and nowhere else.
	measures bool
}

func (l *load) client(user, name, token string) *client {
	return &client{caller.New(user, name, token), l, rand.New(rand.NewPCG(l.seed, l.clients.Add(1))), false}
}

// id names the device among all.
func (c *client) id() string { return c.User + "/" + c.Name }

// call makes one request at a node that a load balancer would choose.
func (c *client) call(ctx context.Context, method, target string, body any) caller.Answer {
	n := c.load.fleet.pick(c.rng)
	if c.measures {
		n = c.load.fleet.choose(c.rng)
	}
	return c.callAt(ctx, n, method, target, body)
}

func (c *client) callAt(ctx context.Context, n *node, method, target string, body any) caller.Answer {
	if c.OverSockets && c.rng.IntN(20) == 0 {
		c.HangUp()
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, c.load.callLimit)
	defer cancel()
	begin := time.Now()
	a := c.Do(ctx, n.url(), method, target, body)
	if whole.Err() == nil && !strings.Contains(target, "/sync?") { // a long poll waits as it should
		c.load.phase.Load().note(a, time.Since(begin))
	}
	if a.Status != 0 && !a.OK() && a.Status != http.StatusServiceUnavailable {
		c.load.rec.Note("C0 %s %s of %s at %s was answered %d %s", method, target, c.id(), n.name, a.Status, a.Body)
	}
	return a
}

// insist repeats a request that may be repeated until there is a definite answer.
func (c *client) insist(ctx context.Context, method, target string, body any) caller.Answer {
	for {
		a := c.call(ctx, method, target, body)
		if !a.Unknown() || !pause(ctx) {
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
func (c *client) finish(op *history.Op, a caller.Answer) { a.Finish(c.load.rec, op) }
