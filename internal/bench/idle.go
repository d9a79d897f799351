package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// portsPerAddress is how many connections leave one loopback address: fewer
// than the ephemeral ports that Linux has.
const portsPerAddress = 20_000

func (a *idleArgs) scenarios() ([]scenario, error) {
	switch {
	case a.Sessions < 1 || a.Dialers < 1 || a.Members < 0 || a.Settle < 0:
		return nil, errors.New("--sessions and --dialers must be positive, --members and --settle not negative")
	case a.Members > 0 && a.Sessions%a.Members != 0:
		return nil, fmt.Errorf("--sessions must be a multiple of the %d --members of a room", a.Members)
	}
	name := "idle"
	if a.Transport == "poll" {
		name = "idle-poll"
	}
	return one(name, a.run), nil
}

// run makes the users, starts the server anew, if it is a child, so that its
// memory has nothing but what sessions need, and opens the sessions.
func (a *idleArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	r.Parameters = map[string]any{"sessions": a.Sessions, "members": a.Members, "dialers": a.Dialers, "transport": a.Transport, "settle": a.Settle.String()}
	users, err := a.users(ctx, e, srv)
	if err != nil {
		return err
	}
	if srv.child != nil {
		if err := srv.restart(ctx); err != nil {
			return err
		}
	}
	// A short wait here and a long one below err on the side of too much memory
	// for each session.
	if err := sleep(ctx, a.Settle/5); err != nil {
		return err
	}
	before := takeSample(ctx, srv)
	if before.noRSS != nil {
		return before.noRSS
	}
	s := a.clients()
	defer s.close()
	e.progress("connecting %d sessions", a.Sessions)
	if err := s.open(ctx, srv, users, a.Dialers); err != nil {
		return err
	}
	connected := takeSample(ctx, srv)
	e.progress("settling for %v", a.Settle)
	if err := sleep(ctx, a.Settle); err != nil {
		return err
	}
	after := takeSample(ctx, srv)
	if e.Profile != "" {
		e.fetchProfile(ctx, srv, r.Scenario+".heap", "heap")
	}
	n, errs := s.lost()
	r.Errors = errs
	a.figures(r, before, connected, after)
	if n > 0 {
		return fmt.Errorf("%d of %d sessions were lost: %v", n, a.Sessions, r.Errors)
	}
	return after.noRSS
}

// idleClients wait for something to happen, and nothing does.
type idleClients interface {
	// open connects a client for each user, and returns when each has had its first
	// response.
	open(ctx context.Context, srv *server, users []user, dialers int) error
	// lost is how many failed, and of what.
	lost() (int64, map[string]int64)
	close()
}

func (a *idleArgs) clients() idleClients {
	f := &failures{errs: new(errorCount)}
	if a.Transport == "poll" {
		return &idlePolls{failures: f}
	}
	return &idleSessions{failures: f}
}

// failures are clients that were lost.
type failures struct {
	errs  *errorCount
	ended atomic.Int64
}

func (f *failures) lost() (int64, map[string]int64) { return f.ended.Load(), f.errs.all() }

func (f *failures) add(err error) {
	f.ended.Add(1)
	f.errs.add(errorKind(err))
}

// users are in rooms of their own.
func (a *idleArgs) users(ctx context.Context, e *env, srv *server) ([]user, error) {
	c := newCaller(srv.url)
	defer c.http.CloseIdleConnections()
	e.progress("%d users", a.Sessions)
	users, err := c.register(ctx, e.runName(), a.Sessions)
	if err != nil || a.Members == 0 {
		return users, err
	}
	e.progress("%d rooms", a.Sessions/a.Members)
	_, err = c.createRooms(ctx, users, a.Members)
	return users, err
}

func (a *idleArgs) figures(r *Result, before, connected, after sample) {
	n := float64(a.Sessions)
	const kib, mib = 1 << 10, 1 << 20
	limit := goalIdleSessionRSS
	if a.Transport == "poll" {
		limit = goalIdlePollRSS
	}
	grown := float64(after.rss - before.rss)
	r.add("RSS per session", grown/kib/n, "KiB").atMost(a.Sessions == goalIdleSessions, float64(limit))
	if cached, ok := after.metrics["hubbub_store_cache_bytes"]; ok {
		// What was read of the accounts to open their sessions, and makes room for what is
		// read next: it is bounded, and not the sessions'.
		cached -= before.metrics["hubbub_store_cache_bytes"]
		r.add("RSS per session without the store's cache", (grown-cached)/kib/n, "KiB")
		r.add("store's cache grew by", cached/mib, "MiB")
	}
	r.add("RSS before", float64(before.rss)/mib, "MiB")
	r.add("RSS when connected", float64(connected.rss)/mib, "MiB")
	r.add("RSS after", float64(after.rss)/mib, "MiB")
	for _, m := range []struct{ name, metric string }{
		{"Go heap in use per session", "go_memstats_heap_inuse_bytes"},
		{"Go heap objects per session", "go_memstats_heap_alloc_bytes"},
		{"Go stacks per session", "go_memstats_stack_inuse_bytes"},
	} {
		if after.metrics != nil {
			r.add(m.name, (after.metrics[m.metric]-before.metrics[m.metric])/kib/n, "KiB")
		}
	}
	if after.metrics != nil {
		r.add("goroutines per session", (after.metrics["go_goroutines"]-before.metrics["go_goroutines"])/n, "")
	}
	opening := between(before, connected)
	r.add("sessions opened", n/opening.elapsed.Seconds(), "/s")
	r.add("server CPU per opening", opening.cpuEach(int64(a.Sessions)), "µs")
	idle := between(connected, after)
	r.add("server CPU while idle", idle.cores(idle.cpu), "cores")
}

// idleSessions are sockets that wait.
type idleSessions struct {
	*failures
	clients []*wsclient.Client
	dialer  wsclient.Dialer
	closing atomic.Bool
}

var _ idleClients = (*idleSessions)(nil)

// open implements idleClients.
func (s *idleSessions) open(ctx context.Context, srv *server, users []user, dialers int) error {
	s.clients = make([]*wsclient.Client, len(users))
	return parallel(ctx, len(users), dialers, func(ctx context.Context, i int) error {
		ready := make(chan struct{}, 1)
		c, err := s.dialer.Dial(ctx, srv.url, wsclient.Options{
			Token: users[i].token, Sync: true, NoPosition: true,
			NetDial: dialFrom(i / portsPerAddress),
			OnFrame: func([]byte) {
				select {
				case ready <- struct{}{}:
				default:
				}
			},
			OnDisconnect: func(err error) {
				if !s.closing.Load() {
					s.add(err)
				}
			},
		})
		if err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
		s.clients[i] = c
		select {
		case <-ready:
			return nil
		case <-c.Done():
			return fmt.Errorf("session %d: %w", i, c.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// dialFrom dials from the nth loopback address, nil for the usual one.
func dialFrom(n int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if n == 0 {
		return nil
	}
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n))}}
	return d.DialContext
}

func (s *idleSessions) close() {
	s.closing.Store(true)
	_ = parallel(context.Background(), len(s.clients), dialWorkers, func(_ context.Context, i int) error {
		if s.clients[i] != nil {
			_ = s.clients[i].Close()
		}
		return nil
	})
}
