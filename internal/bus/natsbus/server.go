package natsbus

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// routeUser is the name of all nodes to each other; the password counts.
const routeUser = "node"

// serve starts the embedded server, and waits for a moment until it is connected to
// one of the others.
func (b *Bus) serve(ctx context.Context) error {
	host, portText, err := net.SplitHostPort(b.opts.Listen)
	if err != nil {
		return fmt.Errorf("natsbus: listen address: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("natsbus: listen address: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	opts := &server.Options{
		// Without a port for clients NATS does not start that for nodes; nobody knows
		// the password of this one, which ends with the process.
		Host: "127.0.0.1", Port: server.RANDOM_PORT, Username: routeUser, Password: b.clientPassword,
		ServerName: b.opts.Node, NoSigs: true, MaxPayload: maxPayload,
		PingInterval: pingEvery, MaxPingsOut: maxPings,
		Cluster: server.ClusterOpts{
			Name: "hubbub-" + b.opts.Deployment, Host: host, Port: port, Advertise: b.opts.Advertise,
			Username: routeUser, Password: b.opts.Secret, PingInterval: pingEvery, MaxPingsOut: maxPings,
			// One connection: with several, a request may overtake the news of who
			// waits for its answer, and the answer finds nobody.
			PoolSize: -1,
		},
	}
	if b.opts.TLS != nil {
		opts.Cluster.TLSConfig, opts.Cluster.TLSTimeout = b.opts.TLS, connectTimeout.Seconds()
	}
	for _, addr := range b.opts.Join {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: addr, User: url.UserPassword(routeUser, b.opts.Secret)})
	}
	if b.server, err = server.NewServer(opts); err != nil {
		return fmt.Errorf("natsbus: start the embedded server: %w", err)
	}
	l := &logger{log: b.opts.Log}
	b.server.SetLoggerV2(l, false, false, false)
	b.server.Start()
	if !b.server.ReadyForConnections(readyTimeout) || b.server.ClusterAddr() == nil {
		return fmt.Errorf("natsbus: the embedded server does not answer at %s: another process may use the address", b.opts.Listen)
	}
	return b.join(ctx, l)
}

// join waits for the first of the others. None is fine: this may be the first node.
func (b *Bus) join(ctx context.Context, l *logger) error {
	if len(b.opts.Join) == 0 {
		return nil
	}
	patience := joinTimeout
	if b.anyReachable(ctx) {
		patience = refuseTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.server.NumRoutes() == 0 {
		if why := l.refusal.Load(); why != nil {
			return fmt.Errorf("%w: %s. All nodes of a deployment have the same store, the same cluster.secret and the same certificates' authority", ErrRefused, *why)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.opts.Log.Warn("no other node answers; going on alone", "join", b.opts.Join)
			return nil
		}
	}
	return nil
}

// anyReachable reports whether something answers at the address of another node: then
// it says, sooner or later, whether this one may join. Who speaks no TLS is answered at
// once, or not at all by one that does.
func (b *Bus) anyReachable(ctx context.Context) bool {
	d := net.Dialer{Timeout: joinTimeout}
	for _, addr := range b.opts.Join {
		if addr == b.Addr() || addr == b.opts.Advertise || addr == b.opts.Listen {
			continue
		}
		if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
			answers := b.opts.TLS != nil
			if !answers {
				_ = c.SetReadDeadline(time.Now().Add(answerTimeout)) // it is open
				n, _ := c.Read(make([]byte, 1))
				answers = n > 0
			}
			_ = c.Close() // nothing was said
			return answers
		}
	}
	return false
}

// logger is where the embedded server writes. NATS tells by log lines only that it
// was refused.
type logger struct {
	log     *slog.Logger
	refusal atomic.Pointer[string]
}

var _ server.Logger = (*logger)(nil)

func (l *logger) note(text string) {
	for _, sign := range []string{"Authorization Violation", "authentication error", "cluster name", "Cluster Name", "TLS route handshake error"} {
		if strings.Contains(text, sign) {
			l.refusal.Store(&text)
		}
	}
}

// Noticef implements server.Logger. It is quieter here: the nodes of NATS are not
// the operator's.
func (l *logger) Noticef(format string, v ...any) { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }

// Warnf implements server.Logger.
func (l *logger) Warnf(format string, v ...any) { l.log.Debug("nats: " + fmt.Sprintf(format, v...)) }

// Fatalf implements server.Logger.
func (l *logger) Fatalf(format string, v ...any) { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }

// Errorf implements server.Logger.
func (l *logger) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.note(text)
	l.log.Warn("nats: " + text)
}

// Debugf implements server.Logger.
func (l *logger) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l *logger) Tracef(string, ...any) {}
