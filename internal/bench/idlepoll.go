package bench

import (
	"context"
	"fmt"
	"sync"
)

// idlePolls are clients that poll, each on a connection of its own: when a poll ends
// with nothing, the next one begins.
type idlePolls struct {
	*failures
	wg     sync.WaitGroup
	cancel context.CancelFunc
}

var _ idleClients = (*idlePolls)(nil)

// open implements idleClients.
func (p *idlePolls) open(ctx context.Context, srv *server, users []user, dialers int) error {
	polling, cancel := context.WithCancel(ctx)
	p.cancel = cancel
	return parallel(ctx, len(users), dialers, func(ctx context.Context, i int) error {
		c, err := newHTTPConn(srv.url, users[i].token)
		if err != nil {
			return err
		}
		c.via = dialFrom(i / portsPerAddress)
		since, err := idlePoll(ctx, c, "?timeout=0")
		if err != nil {
			c.close()
			return fmt.Errorf("session %d: %w", i, err)
		}
		p.wg.Go(func() { p.run(polling, c, since) })
		return nil
	})
}

// idlePoll makes one request and returns where the client stands after it.
func idlePoll(ctx context.Context, c *httpConn, query string) (since string, err error) {
	status, answer, err := c.do(ctx, "GET", "/_matrix/client/v3/sync"+query, nil)
	if err != nil {
		return "", err
	}
	if status != 200 {
		return "", statusError(statusText(status, answer))
	}
	return nextBatch(answer), nil
}

// run polls until the context ends, or a poll fails.
func (p *idlePolls) run(ctx context.Context, c *httpConn, since string) {
	defer c.close()
	for ctx.Err() == nil {
		next, err := idlePoll(ctx, c, "?timeout=30000&since="+since)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.add(err)
			return
		}
		since = next
	}
}

func (p *idlePolls) close() {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
}
