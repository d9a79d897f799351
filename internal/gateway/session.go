package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/idleread"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// The rate limit of frames from a client, as the interval that each takes and
// the burst that may be saved up. Faster than any person, slower than a loop.
const (
	messageInterval = int64(time.Second) / 200
	messageBurst    = 400 * messageInterval
)

var _ feed.Sink = (*session)(nil)

// session is one socket.
//
// Its life: run (which waits for hello) → wait and work in turn, on one goroutine
// at a time, the reading goroutine → finish, started by whoever calls close
// first. finish does all that must happen at the end, in order, and is the last
// to go. The struct is allocated for every socket: its size counts (TestSessionSize).
type session struct {
	g         *Gateway
	shard     *shard
	addr      netip.Addr
	userAgent unique.Handle[string] // one of a few that clients have
	reading
	links

	// Times of Gateway.now.
	born  int64
	heard atomic.Int64 // the last byte from the client
	wrote atomic.Int64 // the last write

	mu struct {
		sync.Mutex
		identity
		work
		outbox
		ending
	}
}

// reading is the state of the reading goroutine.
type reading struct {
	in      idleread.Reader
	rate    int64 // when the rate limit's bucket will be full again, of Gateway.now
	helloed bool
	discard bool // the stream has no known position any more: its bytes are skipped
	// arriving is nil between two messages.
	arriving *arriving
}

// arriving is what a session needs while messages arrive.
type arriving struct {
	dec wire.Decoder
	// next is the call that came last, which was not begun yet.
	next func()
}

// links are a session's places in the hub.
type links struct {
	slot         uint8
	index        int32
	older, newer *session
}

// identity is who a session is. The user is "" before the sign-in.
type identity struct {
	caller api.Caller
	feed   feed.Session // nil without sync
}

// work is what a session is doing for its client.
type work struct {
	calls    []openCall
	cancelOp context.CancelFunc // of the sign-in under way
	ack      *ackLoop
}

// ending is how far the end has come.
type ending struct {
	closing    bool
	sealed     bool // the close frame was queued: nothing may follow
	deaf       bool // the peer's close frame could not be recognised any more
	broken     bool // nothing can be written any more
	readerGone bool
	event      chan struct{} // made by finish: something it waits for happened
}

func newSession(g *Gateway, conn net.Conn, addr netip.Addr, userAgent string) *session {
	now := g.now()
	s := &session{
		g: g, addr: addr, userAgent: unique.Make(userAgent), born: now,
		shard: g.shards[g.turn.Add(1)%uint64(len(g.shards))],
	}
	s.heard.Store(now)
	s.wrote.Store(now - int64(g.times.flushMax)) // so that the answer to hello goes out at once
	s.in.Init(conn)
	return s
}

// run is the first thing a session does, on a goroutine of its own.
func (s *session) run(early []byte) {
	s.g.metrics.sockets.Inc()
	if tcp, ok := s.in.Conn().(*net.TCPConn); ok {
		// Pings find dead peers; the kernel's timer would only cost.
		_ = tcp.SetKeepAlive(false)
	}
	_ = s.in.Conn().SetReadDeadline(time.Now().Add(s.g.times.hello))
	if len(early) == 0 {
		go s.wait()
		return
	}
	buf := s.g.pool.Get()
	s.work(buf, copy(buf[:], early), nil)
}

// wait waits for bytes with a shallow stack and no buffer.
func (s *session) wait() {
	buf, n, err := s.in.Next(&s.g.pool)
	s.g.workers.do(func() { s.work(buf, n, err) })
}

// work handles what came, reads on while a message is under way, and goes back
// to waiting. It runs on the reading goroutine, which then makes the last of the calls
// that came: mostly there is one, and nobody has to be woken for it.
func (s *session) work(buf *idleread.Buffer, n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.begin()
			s.panicked(v)
			s.ended(errPanicked)
		}
	}()
	deadline := false
	quiet := s.mayBeQuiet()
	s.arriving = s.g.arrive()
	for err == nil {
		s.heard.Store(s.g.now())
		if err = s.take(buf[:n]); err != nil || s.discard || s.arriving.dec.Idle() {
			break
		}
		s.begin()
		if !deadline && s.helloed {
			deadline = true
			_ = s.in.Conn().SetReadDeadline(time.Now().Add(s.g.times.message))
		}
		n, err = s.in.More(buf)
	}
	s.g.pool.Put(buf)
	call := s.arrived(err)
	if err != nil {
		s.ended(err)
	} else {
		if deadline {
			_ = s.in.Conn().SetReadDeadline(time.Time{})
		}
		s.rest(quiet)
	}
	if call != nil {
		call()
	}
}

// arrived ends what began with arrive, and returns the call that was not begun, nil if
// there is none. What stands within a message, after an error, is not used again.
func (s *session) arrived(err error) (call func()) {
	a := s.arriving
	s.arriving = nil
	call, a.next = a.next, nil
	if err == nil && !s.discard {
		s.g.arriving.Put(a)
	}
	return call
}

// arrive takes what is needed for bytes that arrive between two messages.
func (g *Gateway) arrive() *arriving {
	if a, ok := g.arriving.Get().(*arriving); ok {
		return a
	}
	return &arriving{dec: wire.Decoder{Masked: true, Max: wire.MaxMessage}}
}

// begin makes the call that came last on a goroutine of its own: the reading one has
// something else to do.
func (s *session) begin() {
	if a := s.arriving; a != nil && a.next != nil {
		s.g.workers.do(a.next)
		a.next = nil
	}
}

// mayBeQuiet tells, before what came is taken, whether nothing may follow it for long:
// who was quiet for long before, and what comes is a pong mostly, will be again; and who
// says hello may have no more to say. Otherwise a node that many come to at once would
// have a goroutine for each, and the runtime keeps its record of a goroutine for ever.
func (s *session) mayBeQuiet() bool {
	return !s.helloed || s.g.now()-s.heard.Load() >= int64(s.g.times.park)
}

// rest ends the reading goroutine until more comes.
func (s *session) rest(quiet bool) {
	if quiet && s.helloed && !s.discard && s.g.poller.Park(&s.in, s) {
		return
	}
	go s.wait()
}

var _ idleread.Waiter = (*session)(nil)

// Ready implements idleread.Waiter: the parked session has something to read.
func (s *session) Ready() { s.g.workers.do(s.resume) }

// resume reads what a parked session was woken for.
func (s *session) resume() {
	buf, n, err := s.in.Try(&s.g.pool)
	if buf == nil && err == nil {
		s.rest(true)
		return
	}
	s.work(buf, n, err)
}

// hangUp closes the connection. A session that waits on a goroutine is told of it by
// its read, a parked one here.
func (s *session) hangUp() {
	_ = s.in.Conn().Close()
	if s.g.poller.Take(&s.in) {
		s.ended(net.ErrClosed)
	}
}

var (
	errPeerClosed = errors.New("gateway: the peer closed")
	errPanicked   = errors.New("gateway: panic")
)

// take decodes the next bytes.
func (s *session) take(b []byte) error {
	if s.discard {
		return nil
	}
	dec := &s.arriving.dec
	err := dec.Feed(b, s)
	for ; dec.Fragments > 0; dec.Fragments-- {
		s.charge()
	}
	var v *wire.Violation
	if errors.As(err, &v) {
		s.discard = true
		s.mu.Lock()
		s.mu.deaf = true
		s.mu.Unlock()
		s.close(v.Code, v.Reason)
		return nil
	}
	return err
}

// charge takes one frame from the rate limit and closes the socket if that is
// too much.
func (s *session) charge() bool {
	now := s.g.now()
	s.rate = max(s.rate, now) + messageInterval
	if s.rate-now <= messageBurst {
		return true
	}
	s.close(wire.CloseTooMany, "too many messages")
	return false
}

// ended is the last thing the reading goroutine does.
func (s *session) ended(err error) {
	switch {
	case errors.Is(err, errPeerClosed), errors.Is(err, errPanicked): // it is closing already
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.close(wire.CloseTimeout, "timeout")
	default:
		s.close(wire.CloseAbnormal, "")
	}
	s.mu.Lock()
	s.mu.readerGone = true
	s.signalLocked()
	s.mu.Unlock()
}

func (s *session) panicked(v any) {
	s.g.metrics.panics.Inc()
	s.g.cfg.Log.Error("panic in a socket", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	s.close(wire.CloseInternal, "internal error")
}

// Close ends the session with a close code. It never blocks; the first code
// counts.
func (s *session) Close(code int, reason string) { s.close(code, reason) }

func (s *session) close(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return
	}
	s.mu.closing = true
	if s.mu.cancelOp != nil {
		s.mu.cancelOp()
	}
	if s.mu.room != nil {
		close(s.mu.room)
		s.mu.room = nil
	}
	s.mu.event = make(chan struct{}, 1)
	go s.finish(code, reason)
}

// cut ends the connection at once, for a Shutdown that ran out of time.
func (s *session) cut() { s.hangUp() }

// signalLocked wakes finish.
func (s *session) signalLocked() {
	if s.mu.event == nil {
		return
	}
	select {
	case s.mu.event <- struct{}{}:
	default:
	}
}

// await waits until ok (called with the lock held) or until limit has passed;
// limit 0 means without end.
func (s *session) await(limit time.Duration, ok func() bool) {
	var expired <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		expired = t.C
	}
	for {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.mu.event:
		case <-expired:
			return
		}
	}
}

// finish takes the session apart: leaves the feed, lets open calls answer, sends
// the close frame, waits for the peer's, and only then closes the connection, so that
// the kernel does not answer unread bytes with a reset that destroys the close
// frame.
func (s *session) finish(code int, reason string) {
	defer s.g.sessions.Done()
	s.mu.Lock()
	sess, user := s.mu.feed, s.mu.caller.User
	s.mu.feed = nil
	s.mu.Unlock()
	s.g.hub.signOut(s, user)
	if sess != nil {
		sess.Close()
	}
	if code != wire.CloseAbnormal {
		s.await(s.g.times.callGrace, func() bool { return len(s.mu.calls) == 0 || s.mu.broken || s.mu.readerGone })
		s.mu.Lock()
		s.pushLocked(wire.Frame{Op: wire.OpClose, Own: true, Payload: wire.ClosePayload(code, reason)})
		s.mu.sealed = true
		s.mu.Unlock()
		s.await(s.g.times.closing, func() bool { return s.mu.flush == flushIdle || s.mu.broken })
		s.endWriting()
		s.await(s.g.times.closing, func() bool { return s.mu.readerGone || s.mu.broken })
	}
	s.mu.Lock()
	if tcp, ok := s.in.Conn().(*net.TCPConn); ok && s.mu.broken {
		// What the peer never took must not linger in the kernel.
		_ = tcp.SetLinger(0)
	}
	s.breakLocked()
	for _, c := range s.mu.calls {
		c.cancel()
	}
	s.mu.Unlock()
	s.hangUp()
	s.await(0, func() bool {
		return s.mu.readerGone && s.mu.flush != flushBlocked && len(s.mu.calls) == 0 && s.mu.ack == nil
	})
	s.g.hub.remove(s)
	s.g.metrics.sockets.Dec()
	s.g.metrics.closed(code)
}

// endWriting tells a peer whose frames are not read any more that nothing follows,
// so that it hangs up soon.
func (s *session) endWriting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tcp, ok := s.in.Conn().(*net.TCPConn); ok && s.mu.deaf {
		_ = tcp.CloseWrite()
	}
}

func (s *session) device() ids.DeviceID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.caller.Device
}
