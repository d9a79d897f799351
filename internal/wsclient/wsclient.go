// Package wsclient is a Go client of the WebSocket transport, written from
// docs/websocket.md. Tests and the bench tool use it; it holds tens of thousands
// of connections in one process: one goroutine each, no buffer while idle.
//
// It keeps the position (since and marks) that a reconnect needs, but no rooms:
// frames are given to the callback as they came.
//
// A Client's methods may be called from any goroutine. Callbacks run on its
// reading goroutine, one at a time; from within them Call, Ping and Close would
// wait for what that very goroutine has to read, and must not be called.
package wsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gobwas/ws"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/idleread"
)

// ErrDisconnected: the connection went away before the answer came. A call may
// or may not have been carried out.
var ErrDisconnected = errors.New("wsclient: disconnected")

// ErrClosed: the client was closed by its owner.
var ErrClosed = errors.New("wsclient: closed")

// CloseError is a close by the server.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("wsclient: closed by the server: %d %s", e.Code, e.Reason)
}

// Temporary reports whether the code asks for a reconnect with the same token.
// docs/websocket.md §Close codes.
func (e *CloseError) Temporary() bool { return e.Code >= wire.CloseTimeout && e.Code < 5000 }

// Options say what a client wants.
type Options struct {
	// Token is the access token, "" for a socket of unauthenticated calls.
	Token string
	// Sync asks for sync frames; Since, Marks, Filter (a filter ID or an object, as
	// JSON), FullState and SetPresence are its parameters.
	Sync        bool
	Since       string
	Marks       map[string]string
	Filter      jsontext.Value
	FullState   bool
	SetPresence string

	// OnFrame takes each sync frame. The bytes are valid until it returns. The
	// position moves when it has returned.
	OnFrame func(frame []byte)
	// OnReset is called when the server did not know the position any more and the
	// client starts again without: what was synced so far is void.
	OnReset func()
	// OnDisconnect is called for each connection that ended, with the reason.
	OnDisconnect func(err error)

	// NoPosition saves the parsing of frames: Position stays what it was.
	NoPosition bool
	// Reconnect makes the client resume, with the waits that the protocol asks for,
	// until Close or a final close code.
	Reconnect bool

	// Header are further headers of the handshake (Origin, User-Agent).
	Header http.Header
	// NetDial replaces the dialling of TCP connections, for example to bind to
	// one of many local addresses.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	TLS     *tls.Config
}

// Dialer shares buffers among its clients. Its zero value is ready; use one for
// many clients.
type Dialer struct {
	pool idleread.Pool
	bufs sync.Pool // *[]byte, for writing
}

// Client is one socket, or with Reconnect a succession of them.
type Client struct {
	d    *Dialer
	url  string
	opts *Options

	cancel context.CancelFunc
	done   chan struct{}

	mu struct {
		sync.Mutex
		link    *link // nil while disconnected
		hello   Hello
		since   string
		marks   map[string]string
		nextID  uint64
		pending map[uint64]chan Result
		pings   []chan struct{}
		auths   []chan struct{}
		closed  bool
		err     error
	}
}

// Hello is the server's answer to hello.
type Hello struct {
	UserID          string `json:"user_id"`
	DeviceID        string `json:"device_id"`
	HeartbeatMS     int64  `json:"heartbeat_ms"`
	MaxMessageBytes int    `json:"max_message_bytes"`
}

// Result is the answer to a call.
type Result struct {
	Status int
	Body   []byte
}

// Dial connects with a Dialer of its own.
func Dial(ctx context.Context, baseURL string, opts Options) (*Client, error) {
	return new(Dialer).Dial(ctx, baseURL, opts)
}

// Dial connects to the server at baseURL ("http://host:port", "https://…", "ws…")
// and returns when the server has answered hello; ctx bounds only that.
func (d *Dialer) Dial(ctx context.Context, baseURL string, opts Options) (*Client, error) {
	url := strings.TrimSuffix(baseURL, "/") + wire.Path
	if rest, ok := strings.CutPrefix(url, "http"); ok {
		url = "ws" + rest
	}
	c := &Client{d: d, url: url, opts: &opts, done: make(chan struct{})}
	c.mu.since, c.mu.marks = opts.Since, maps.Clone(opts.Marks)
	l, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.setLink(l)
	go c.run(life, l)
	return c, nil
}

type helloMessage struct {
	Op          string            `json:"op"`
	AccessToken string            `json:"access_token,omitempty"`
	Sync        bool              `json:"sync,omitzero"`
	Since       string            `json:"since,omitempty"`
	Marks       map[string]string `json:"marks,omitempty"`
	Filter      jsontext.Value    `json:"filter,omitempty"`
	FullState   bool              `json:"full_state,omitzero"`
	SetPresence string            `json:"set_presence,omitempty"`
}

// connect dials, says hello and waits for the answer.
func (c *Client) connect(ctx context.Context) (*link, error) {
	dialer := ws.Dialer{Protocols: []string{wire.Subprotocol}, NetDial: c.opts.NetDial, TLSConfig: c.opts.TLS}
	if c.opts.Header != nil {
		dialer.Header = ws.HandshakeHeaderHTTP(c.opts.Header)
	}
	conn, early, hs, err := dialer.Dial(ctx, c.url)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.url, err)
	}
	l := &link{c: c, conn: conn}
	l.dec.Max = maxFrame
	l.in.Init(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if hs.Protocol != wire.Subprotocol {
		_ = conn.Close()
		return nil, errors.New("wsclient: the server did not select the subprotocol")
	}
	since, marks := c.Position()
	c.mu.Lock()
	token := c.opts.Token
	c.mu.Unlock()
	hello, err := json.Marshal(helloMessage{
		Op: "hello", AccessToken: token, Sync: c.opts.Sync, Since: since, Marks: marks,
		Filter: c.opts.Filter, FullState: c.opts.FullState, SetPresence: c.opts.SetPresence,
	})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	err = l.send(wire.OpText, hello)
	if early != nil {
		if n := early.Buffered(); n > 0 && err == nil {
			b, _ := early.Peek(n)
			err = l.dec.Feed(b, l)
		}
		ws.PutReader(early)
	}
	for err == nil && !l.ready {
		err = l.readSome()
	}
	if !l.ready {
		_ = conn.Close()
		if cerr := ctx.Err(); cerr != nil {
			err = cerr
		}
		return nil, fmt.Errorf("say hello: %w", err)
	}
	l.ended = err // by what followed hello in the same bytes, perhaps a close
	return l, nil
}

// run reads until the end, reconnecting if that was asked for.
func (c *Client) run(ctx context.Context, l *link) {
	defer close(c.done)
	for attempt := 0; ; {
		err := l.readAll()
		_ = l.conn.Close()
		c.lost(err)
		if c.opts.OnDisconnect != nil {
			c.opts.OnDisconnect(err)
		}
		if !c.opts.Reconnect {
			return
		}
		for l = nil; l == nil; attempt++ {
			if ctx.Err() != nil || !c.mayRetry(err) || !sleep(ctx, backoff(err, attempt)) {
				return
			}
			l, err = c.connect(ctx)
		}
		c.setLink(l)
		attempt = 0
	}
}

// mayRetry says whether a reconnect makes sense after err, and forgets a position
// that the server does not know.
func (c *Client) mayRetry(err error) bool {
	var ce *CloseError
	if !errors.As(err, &ce) {
		return true
	}
	if ce.Code == wire.CloseUnknownPos {
		c.mu.Lock()
		c.mu.since, c.mu.marks = "", nil
		c.mu.Unlock()
		if c.opts.OnReset != nil {
			c.opts.OnReset()
		}
	}
	return ce.Temporary()
}

// The waits before a reconnect. docs/websocket.md §Close codes.
const (
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	goneSpread   = 5 * time.Second
	tooManyWait  = time.Minute
)

func backoff(err error, attempt int) time.Duration {
	var ce *CloseError
	if errors.As(err, &ce) && attempt == 0 {
		switch ce.Code {
		case wire.CloseUnavailable:
			return rand.N(goneSpread)
		case wire.CloseTooMany:
			return tooManyWait
		}
	}
	limit := min(firstBackoff<<min(attempt, 6), maxBackoff)
	return rand.N(limit)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (c *Client) setLink(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.link = l
	if c.mu.closed {
		_ = l.conn.Close()
	}
}

// lost fails everything that waits for an answer.
func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.link, c.mu.err = nil, err
	if c.mu.closed {
		c.mu.err = ErrClosed
	}
	for _, ch := range c.mu.pending {
		close(ch)
	}
	for _, ch := range append(c.mu.pings, c.mu.auths...) {
		close(ch)
	}
	c.mu.pending, c.mu.pings, c.mu.auths = nil, nil, nil
}

// Hello returns the server's last answer to hello.
func (c *Client) Hello() Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.hello
}

// Position returns what a later Dial needs as Since and Marks to go on from here.
func (c *Client) Position() (since string, marks map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.since, maps.Clone(c.mu.marks)
}

// Done is closed when the client has ended for good.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the last connection ended: a *CloseError, a network error, or
// ErrClosed.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// closeWait is how long Close waits for the server's close frame.
const closeWait = 2 * time.Second

// Close ends the client and waits for its goroutine.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.mu.link
	c.mu.closed = true
	c.mu.Unlock()
	c.cancel()
	if l != nil {
		_ = l.send(wire.OpClose, wire.ClosePayload(wire.CloseNormal, ""))
		_ = l.conn.SetReadDeadline(time.Now().Add(closeWait))
	}
	<-c.done
	return nil
}

// Abort cuts the connection without a word, as a lost network would. With
// Reconnect the client then comes back.
func (c *Client) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.link != nil {
		if tcp, ok := c.mu.link.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.mu.link.conn.Close()
	}
}
