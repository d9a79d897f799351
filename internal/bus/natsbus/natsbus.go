// Package natsbus is the bus between the nodes of a deployment, over NATS: a server
// embedded in each node, which form a cluster from a list of peers, or servers
// outside.
//
// What stays in the process does not go through NATS: publishers and subscribers of
// one node meet in a membus, values as they are, and NATS carries messages to the
// other nodes only. So a node pays for encoding once for each message, and nothing
// for receiving its own.
//
// Requests and answers larger than what NATS carries go in parts; a published message
// that is too large is refused with ErrTooLarge, which its subscribers, who number
// what they get, notice as a gap. NATS drops what a slow connection cannot take, as
// the contract of package bus allows; a request whose parts are lost ends with its
// deadline. Deadlines travel as the time that is left, so that clocks need not agree.
//
// All that a deployment says is under a prefix of its own, so that two can share the
// servers, and an embedded server lets in only nodes of the same deployment.
//
// Rejected: one connection of NATS for all, local subscribers too (each would decode
// what its own node encoded); JetStream (the log of the partitions is the durable
// one, and a second log would be a second truth).
package natsbus

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrTooLarge: a message cannot be carried.
	ErrTooLarge = errors.New("natsbus: message is too large")
	// ErrBusy: a node has as many requests as it takes.
	ErrBusy = errors.New("natsbus: too many requests")
	// ErrRefused: another node did not let this one into the cluster.
	ErrRefused = errors.New("natsbus: refused by another node")
)

// Limits.
const (
	// maxPayload is the largest message that embedded servers carry: a batch of a
	// partition with the bodies of its events is rarely above 1 MiB.
	maxPayload = 8 << 20
	// maxPart is the largest part of a request: below what NATS servers carry by
	// default, 1 MiB, with room for its head.
	maxPart = 512 << 10
	// maxMessage bounds a request or an answer of several parts, and maxAssembly what
	// waits for further parts.
	maxMessage  = 64 << 20
	maxAssembly = 128 << 20
	// assemblyAge is how long parts wait for the rest of their message.
	assemblyAge = 30 * time.Second
	// maxRunning bounds the requests of other nodes that a node works on.
	maxRunning = 16384
	// pendingMessages and pendingBytes bound what waits in the client of NATS for one
	// subscription: what takes it from there only queues it.
	pendingMessages = 65536
	pendingBytes    = 64 << 20
	// pingEvery and maxPings end a route to a node that is silent.
	pingEvery = 2 * time.Second
	maxPings  = 2
	// readyTimeout is how long an embedded server may take to start, and joinTimeout
	// how long the nodes of the list have to answer before this one begins alone.
	readyTimeout = 10 * time.Second
	joinTimeout  = 3 * time.Second
	// refuseTimeout is how long a node that is there has to let this one in or not.
	refuseTimeout = 20 * time.Second
	// answerTimeout is how long the first word of a node takes.
	answerTimeout = time.Second
	// linger is how long the end of a handler takes to be known on all servers.
	linger = 2 * time.Second
	// connectTimeout is how long an outside server may take to answer.
	connectTimeout = 5 * time.Second
)

// Options configure a Bus.
type Options struct {
	// Deployment names the deployment: letters and digits. Nodes of another one are
	// not let in.
	Deployment string
	// Node names this process.
	Node string
	// URL is that of outside servers, with commas between; "" embeds a server.
	URL string
	// Listen is where the embedded server answers the other nodes, host:port. Port 0
	// takes a free one.
	Listen string
	// Advertise is the address, host:port, at which other nodes reach it, if that is
	// not Listen.
	Advertise string
	// Join are the addresses, host:port, of other nodes, and may hold this one's.
	Join []string
	// Secret is the password of the nodes for each other.
	Secret string
	// TLS, if not nil, encrypts what nodes say to each other. It holds a certificate
	// and the authorities for both sides.
	TLS *tls.Config
	Log *slog.Logger
}

// Bus implements bus.Bus.
type Bus struct {
	opts   Options
	local  *membus.Bus
	server *server.Server // nil if the servers are outside
	conn   *nats.Conn
	prefix string
	// clientPassword lets this process into its embedded server.
	clientPassword string
	inbox          string
	nextID         atomic.Uint64
	// running has a place for each request of another node.
	running chan struct{}
	workers workers
	// ctx ends when the bus is closed.
	ctx    context.Context
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		closed bool
		// remote are the subscriptions of NATS by subject, each shared by all local
		// subscribers.
		remote map[string]*remote
		calls  map[string]*call
	}
}

// remote feeds what other nodes publish to the local subscribers of a subject.
type remote struct {
	sub  *nats.Subscription
	uses int
}

var _ bus.Bus = (*Bus)(nil)

// Open starts or connects to the servers.
func Open(ctx context.Context, opts Options) (*Bus, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{opts: opts, local: membus.New(), prefix: "hubbub." + opts.Deployment + ".", running: make(chan struct{}, maxRunning), workers: newWorkers()}
	b.clientPassword = rand.Text()
	b.inbox = b.prefix + "inbox." + nats.NewInbox()[len("_INBOX."):]
	b.mu.remote = make(map[string]*remote)
	b.mu.calls = make(map[string]*call)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if err := b.connect(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	sub, err := b.conn.Subscribe(b.inbox+".*", b.answered)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("natsbus: subscribe: %w", err), b.Close())
	}
	if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("natsbus: subscribe: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bus) connect(ctx context.Context) (err error) {
	options := []nats.Option{
		nats.Name("hubbub " + b.opts.Node), nats.NoEcho(), nats.MaxReconnects(-1), nats.Timeout(connectTimeout),
		// What cannot be sent fails: a message that waits for a connection is old
		// news when it gets one.
		nats.ReconnectBufSize(-1), nats.ReconnectWait(100 * time.Millisecond),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(maxPings),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.opts.Log.Warn("bus", "error", err)
		}),
	}
	url := b.opts.URL
	if url == "" {
		if err := b.serve(ctx); err != nil {
			return err
		}
		options = append(options, nats.InProcessServer(b.server), nats.UserInfo(routeUser, b.clientPassword))
	} else if b.opts.TLS != nil {
		options = append(options, nats.Secure(b.opts.TLS))
	}
	if b.conn, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("natsbus: connect to NATS: %w", err)
	}
	return nil
}

// Peers is how many other nodes an embedded server is connected to, and whether
// there is one.
func (b *Bus) Peers() (n int, embedded bool) {
	if b.server == nil {
		return 0, false
	}
	return b.server.NumRoutes(), true
}

// Addr is where the embedded server answers other nodes, "" without one.
func (b *Bus) Addr() string {
	if b.server == nil {
		return ""
	}
	return b.server.ClusterAddr().String()
}

// Publish implements bus.Bus.
func (b *Bus) Publish(subject string, p bus.Payload) error {
	if err := b.local.Publish(subject, p); err != nil {
		return err
	}
	data, err := p.MarshalBinary()
	if err != nil {
		return fmt.Errorf("natsbus: encode message: %w", err)
	}
	if int64(len(data)) > b.conn.MaxPayload() {
		return fmt.Errorf("%w: %d bytes, and NATS carries %d", ErrTooLarge, len(data), b.conn.MaxPayload())
	}
	if err := b.conn.Publish(b.prefix+subject, data); err != nil {
		return fmt.Errorf("natsbus: publish: %w", err)
	}
	return nil
}

// subscription is a local one that keeps the remote one in use.
type subscription struct {
	bus.Subscription
	close func()
}

func (s *subscription) Close() { s.close() }

// Subscribe implements bus.Bus. What is published on another node after it returned
// may still be missed, until that node's server knows of it.
func (b *Bus) Subscribe(subject string, fn func(bus.Payload)) (bus.Subscription, error) {
	sub, err := b.local.Subscribe(subject, fn)
	if err != nil {
		return nil, err
	}
	if err := b.follow(subject); err != nil {
		sub.Close()
		return nil, err
	}
	release := sync.OnceFunc(func() { b.unfollow(subject) })
	return &subscription{sub, func() {
		release()
		sub.Close()
	}}, nil
}

// follow subscribes to what other nodes publish, unless it is already.
func (b *Bus) follow(subject string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return bus.ErrClosed
	}
	r := b.mu.remote[subject]
	if r == nil {
		sub, err := b.conn.Subscribe(b.prefix+subject, func(m *nats.Msg) {
			_ = b.local.Publish(subject, bus.Raw(m.Data)) // closed: nobody wants it
		})
		if err != nil {
			return fmt.Errorf("natsbus: subscribe: %w", err)
		}
		if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
			return fmt.Errorf("natsbus: subscribe: %w", err)
		}
		r = &remote{sub: sub}
		b.mu.remote[subject] = r
	}
	r.uses++
	return nil
}

func (b *Bus) unfollow(subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.mu.remote[subject]
	if r == nil {
		return
	}
	if r.uses--; r.uses == 0 {
		delete(b.mu.remote, subject)
		_ = r.sub.Unsubscribe() // fails when the connection is closed
	}
}

// Flush returns when the servers have what was published and subscribed before.
func (b *Bus) Flush(ctx context.Context) error { return b.conn.FlushWithContext(ctx) }

// Close implements bus.Bus. Running requests of other nodes end with their context.
func (b *Bus) Close() error {
	b.mu.Lock()
	again := b.mu.closed
	b.mu.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	b.cancel()
	if b.conn != nil {
		_ = b.conn.FlushTimeout(time.Second) // what was said last; nobody waits for it
		b.conn.Close()
	}
	err := b.local.Close()
	for range maxRunning { // who took a place is done
		b.running <- struct{}{}
	}
	b.workers.all.Wait()
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	return err
}
