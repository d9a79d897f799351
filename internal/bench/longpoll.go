package bench

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
)

func (a *longpollArgs) scenarios() ([]scenario, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.Rate <= 0 {
		return nil, errors.New("--rate must be positive")
	}
	return one("longpoll", a.run), nil
}

// run looks for saturation, then sends at a rate, while every member polls.
func (a *longpollArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	s := a.shape()
	s.overWS = a.Transport == "ws"
	s.parameters(r)
	delete(r.Parameters, "receivers")
	r.Parameters["rate"] = a.Rate
	l, err := newLoad(ctx, e, srv, s)
	defer l.close()
	if err != nil {
		return err
	}
	p, err := l.startPollers(ctx)
	defer p.stop()
	if err != nil {
		return err
	}
	l.receivers = a.Members // drain waits for them
	before := p.answers.Load()
	w, err := l.saturate(ctx, r, deliverWindow)
	if err != nil {
		return err
	}
	p.figures(r, "saturated: ", before, &w)
	before = p.answers.Load()
	if w, err = l.atRate(ctx, r, a.Rate); err != nil {
		return err
	}
	p.figures(r, "at rate: ", before, &w)
	if err := l.drain(ctx); err != nil {
		return err
	}
	p.stop()
	return l.finish(ctx, r)
}

// figures tells what polls add to what l.figures does.
func (p *pollers) figures(r *Result, prefix string, before int64, w *window) {
	r.add(prefix+"server CPU per send", w.cpuEach(w.acked), "µs")
	r.add(prefix+"polls answered, warm-up included", float64(p.answers.Load()-before), "")
}

// pollers are members that poll.
type pollers struct {
	l       *load
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	answers atomic.Int64
}

// startPollers makes each user poll and waits until everyone has had the initial
// response.
func (l *load) startPollers(ctx context.Context) (*pollers, error) {
	polling, cancel := context.WithCancel(ctx)
	p := &pollers{l: l, cancel: cancel}
	n := len(l.rooms) * l.members
	l.env.progress("%d pollers", n)
	return p, parallel(ctx, n, dialWorkers, func(ctx context.Context, i int) error {
		at := i % len(l.rooms)
		u := l.rooms[at].users[i/len(l.rooms)]
		m := l.check.member(u.id, l.logs[at])
		c, err := newHTTPConn(l.srv.url, u.token)
		if err != nil {
			return err
		}
		since, err := p.poll(ctx, c, m, "", "0")
		if err != nil {
			c.close()
			return err
		}
		p.wg.Go(func() { p.run(polling, c, m, since) })
		return nil
	})
}

// poll makes one request and takes its answer in.
func (p *pollers) poll(ctx context.Context, c *httpConn, m *member, since, timeout string) (next string, err error) {
	q := url.Values{"timeout": {timeout}}
	if since != "" {
		q.Set("since", since)
	}
	status, answer, err := c.do(ctx, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil)
	if err != nil {
		return since, err
	}
	if status != 200 {
		return since, statusError(statusText(status, answer))
	}
	p.answers.Add(1)
	m.take(answer, p.l.now())
	return nextBatch(answer), nil
}

// run polls until the context ends. After an error it goes on from where it was.
func (p *pollers) run(ctx context.Context, c *httpConn, m *member, since string) {
	defer c.close()
	for ctx.Err() == nil {
		next, err := p.poll(ctx, c, m, since, "30000")
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.l.errs.add("sync: " + errorKind(err))
			_ = sleep(ctx, errorPause)
		}
		since = next
	}
}

func (p *pollers) stop() {
	p.cancel()
	p.wg.Wait()
}

// statusError is an answer other than 200.
type statusError string

var _ error = statusError("")

// Error is the status with its code.
func (e statusError) Error() string { return string(e) }
