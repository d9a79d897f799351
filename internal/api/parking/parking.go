// Package parking lets connections of an http.Server wait without a goroutine.
//
// A request that waits for something to happen costs net/http a goroutine, whose stack
// its handlers made deep, a second one that reads, two buffers, and the request with all
// that hangs on it: some 50 KiB, and most requests that wait do nothing else. A handler
// that finds nothing to say takes its connection from the server (Hijack) and leaves it
// here, with the text of the request. When something is there to be said the connection
// goes back to the server through a listener, with that text in front of what the client
// sends: the server reads the request again and has it handled, as it does any other. So
// how an answer is written, what a client sends ahead, deadlines, and what becomes of the
// connection afterwards, stay the server's. A parked request has one end, which is that
// it is served again; also if its client went away, or the node stops.
//
// A worker that writes answers by itself was the other design: it would have been a
// second HTTP server, with its own notion of each of these things.
//
// Only TCP connections of HTTP/1 can be parked, and only where there is a Poller.
//
// One goroutine of the Lot does everything that is done with a parked connection.
package parking

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/idleread"
)

// Guest is what a handler leaves with a connection, to go on from.
type Guest interface {
	// Abandon gives it up: its request is not served again.
	Abandon()
}

// Lot keeps connections. It is a listener of the http.Server that they come from, which
// also needs its ConnContext. Its methods may be called by any goroutine.
type Lot struct {
	poller *idleread.Poller // nil where there is none: nothing is parked
	pool   idleread.Pool
	accept chan net.Conn
	// signal has a place if the queue is not empty.
	signal  chan struct{}
	closing sync.Once
	closed  chan struct{}
	done    chan struct{}

	mu struct {
		sync.Mutex
		places map[*Place]struct{}
		// queue are the places to be looked at, each once.
		queue []*Place
		// empty is made by Drain, and closed when there are no places any more.
		empty chan struct{}
	}
}

var _ net.Listener = (*Lot)(nil)

// NewLot makes a Lot. Close ends it.
func NewLot() (*Lot, error) {
	poller, err := idleread.NewPoller()
	if err != nil {
		return nil, fmt.Errorf("park connections: %w", err)
	}
	l := &Lot{
		poller: poller, accept: make(chan net.Conn), signal: make(chan struct{}, 1),
		closed: make(chan struct{}), done: make(chan struct{}),
	}
	l.mu.places = make(map[*Place]struct{})
	go l.run()
	return l, nil
}

// Place is kept for a connection that is about to be parked, and is its own afterwards.
type Place struct {
	lot *Lot

	// Guarded by the Lot.
	conn          *Conn // nil before Park
	guest         Guest
	queued, woken bool
	// ready: there is something to read.
	ready bool

	// Of the Lot's goroutine. armed: the connection was given to the poller; left: it
	// went back.
	armed, left bool
}

var _ idleread.Waiter = (*Place)(nil)

// Reserve keeps a place for the connection that a request, whose context it is, came by.
// It returns nil if that cannot be parked, or the Lot is about to be empty. Park or Cancel
// follows.
func (l *Lot) Reserve(ctx context.Context) *Place {
	if !l.Parks(ctx) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.empty != nil {
		return nil
	}
	p := &Place{lot: l}
	l.mu.places[p] = struct{}{}
	return p
}

// Parks reports whether the connection of a request can be parked.
func (l *Lot) Parks(ctx context.Context) bool {
	return l != nil && l.poller != nil && ctx.Value(connKey{}) != nil
}

// Waiting is how many connections are parked.
func (l *Lot) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.places)
}

// Cancel gives back a place that is not used.
func (p *Place) Cancel() {
	p.lot.mu.Lock()
	defer p.lot.mu.Unlock()
	p.lot.leaveLocked(p)
}

// Park leaves the connection that a handler took from the server until Wake, which may
// have been called before, or until the client goes away. unread is the text of the
// request, and what the client sent behind it.
func (p *Place) Park(conn net.Conn, unread []byte, guest Guest) {
	c := p.lot.own(conn)
	// Behind what the server had read may be what it had not yet, of the last time.
	c.unread, c.place, c.gone = append(unread, c.unread...), p, false
	c.parked = time.Now()
	p.lot.mu.Lock()
	p.conn, p.guest = c, guest
	_, kept := p.lot.mu.places[p]
	p.lot.queueLocked(p)
	p.lot.mu.Unlock()
	if !kept { // closed meanwhile: nobody looks any more
		_ = c.Close()
	}
}

// Wake sends the connection back to the server. It does not block, and may be called
// more than once.
func (p *Place) Wake() {
	p.lot.mu.Lock()
	defer p.lot.mu.Unlock()
	p.woken = true
	p.lot.queueLocked(p)
}

// Ready implements idleread.Waiter.
func (p *Place) Ready() {
	p.lot.mu.Lock()
	defer p.lot.mu.Unlock()
	p.ready = true
	p.lot.queueLocked(p)
}

// queueLocked has a place looked at, if its connection is there.
func (l *Lot) queueLocked(p *Place) {
	if p.conn == nil || p.queued {
		return
	}
	p.queued = true
	l.mu.queue = append(l.mu.queue, p)
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// leaveLocked takes a place out, and returns the guest if it was there.
func (l *Lot) leaveLocked(p *Place) Guest {
	guest := p.guest
	p.guest = nil
	delete(l.mu.places, p)
	if l.mu.empty != nil && len(l.mu.places) == 0 {
		select {
		case <-l.mu.empty:
		default:
			close(l.mu.empty)
		}
	}
	return guest
}

// Drain sends all connections back, and parks no more. It returns when their requests
// are being served, or the context ends.
func (l *Lot) Drain(ctx context.Context) error {
	l.mu.Lock()
	if l.mu.empty == nil {
		l.mu.empty = make(chan struct{})
		if len(l.mu.places) == 0 {
			close(l.mu.empty)
		}
	}
	empty := l.mu.empty
	for p := range l.mu.places {
		p.woken = true
		l.queueLocked(p)
	}
	l.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-l.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run looks at the places that something happened to.
func (l *Lot) run() {
	defer close(l.done)
	defer l.abandon()
	for {
		select {
		case <-l.signal:
		case <-l.closed:
			return
		}
		l.mu.Lock()
		queue := l.mu.queue
		l.mu.queue = nil
		l.mu.Unlock()
		for _, p := range queue {
			l.look(p)
		}
	}
}

func (l *Lot) look(p *Place) {
	l.mu.Lock()
	woken, ready := p.woken, p.ready
	p.queued, p.ready = false, false
	l.mu.Unlock()
	switch {
	case p.left:
	case woken:
		l.poller.Take(&p.conn.reader)
		l.sendBack(p)
	case ready:
		l.hear(p)
	case !p.armed:
		l.listen(p)
	}
}

// maxUnread is from how many bytes that wait for the server on nothing more is read.
const maxUnread = 24 << 10

// listen has the poller tell when the client sends something, or goes away. If it cannot,
// the connection waits all the same, and an answer that nobody takes is no harm.
func (l *Lot) listen(p *Place) {
	p.armed = true
	if len(p.conn.unread) < maxUnread {
		l.poller.Park(&p.conn.reader, p)
	}
}

// hear reads what a client sent. What it sent ahead is kept for the server, and nothing
// more is read: net/http does not notice either that a client goes away behind that.
func (l *Lot) hear(p *Place) {
	c := p.conn
	buf, n, err := c.reader.Try(&l.pool)
	switch {
	case err != nil:
		c.gone = true
		l.sendBack(p)
	case buf == nil:
		l.listen(p)
	default:
		c.unread = append(c.unread, buf[:n]...)
		l.pool.Put(buf)
	}
}

// sendBack has the server serve the connection again.
func (l *Lot) sendBack(p *Place) {
	p.left = true
	select {
	case l.accept <- p.conn:
	case <-l.closed:
		_ = p.conn.Close()
	}
}

// Accept implements net.Listener.
func (l *Lot) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *Lot) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "parked" }
func (addr) String() string  { return "parked" }

// Close ends the Lot; connections that are still there are cut. It may be called more
// than once.
func (l *Lot) Close() error {
	l.closing.Do(func() { close(l.closed) })
	<-l.done
	return nil
}

// abandon cuts what is left.
func (l *Lot) abandon() {
	l.mu.Lock()
	var left []*Conn
	for p := range l.mu.places {
		if p.conn != nil && !p.left { // else Park or the server has it, and sees to it
			left = append(left, p.conn)
		}
	}
	l.mu.places = make(map[*Place]struct{})
	l.mu.Unlock()
	for _, c := range left {
		l.poller.Take(&c.reader)
		_ = c.Close()
	}
	l.poller.Close()
}
