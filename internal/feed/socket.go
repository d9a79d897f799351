package feed

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Close codes that the feed uses. docs/websocket.md §Close codes.
const (
	closeUnknownPosition = 4409
	closeInternal        = 4500
	closeGoingAway       = 4503
)

// session is one socket in the feed.
//
// It has two ways to send. Behind, a goroutine builds the response from where
// the session stands, as /sync does, and looks again until nothing has changed
// meanwhile. Then the session is live: the shards hand it the frames of plain
// events as they come, without building anything. Whatever is not plain, and a
// sink that is full, makes it fall behind again.
//
// Invariant: there is one position up to which everything was handed to the sink.
// It moves with each frame, on both ways. While the session is live it is mu.at, which
// only the shards move; else it is req.Since, which only the goroutine moves.
type session struct {
	hub  *Hub
	sink Sink
	req  Request
	done sync.WaitGroup
	// away ends the presence that the socket stands for.
	away func()

	mu struct {
		sync.Mutex
		running bool
		live    bool
		dirty   bool
		full    bool // the sink refused a frame; wait for Drained
		closed  bool
		// cancel ends what the goroutine does; nil without one.
		cancel context.CancelFunc
		at     *sparse
		view   *view
		// unacked are the positions of the to-device messages that were sent and
		// not acknowledged, maxToDevice at most.
		unacked []ids.Seq
		// lazy are the member events that the sink took, nil before the first.
		lazy lazyMembers
	}
}

var _ Session = (*session)(nil)

// Open begins to send frames to a sink. Errors are ErrUnknownPosition or those of
// the filter.
func (h *Hub) Open(ctx context.Context, o Open, sink Sink) (Session, error) {
	f, err := h.LoadFilter(ctx, o.User, o.Filter)
	if err != nil {
		return nil, err
	}
	s := &session{hub: h, sink: sink, req: Request{
		User: o.User, Device: o.Device, Filter: f, FullState: o.FullState, Pushed: true,
	}}
	if o.Since != "" {
		p, err := h.parse(o.Since)
		if err != nil {
			return nil, err
		}
		for part, pos := range o.Marks {
			if err := p.AddMark(part, pos); err != nil {
				return nil, err
			}
		}
		s.req.Since = &p
		h.acknowledged(ctx, o.User, o.Device, &p)
	}
	v, err := h.acquire(ctx, o.User)
	if err != nil {
		return nil, err
	}
	s.away = h.presence.begin(o.User, o.Device, Presence(o.SetPresence))
	s.attach(v)
	s.wake()
	return s, nil
}

func (s *session) attach(v *view) {
	s.mu.Lock()
	s.mu.view = v
	s.mu.Unlock()
	v.mu.Lock()
	v.mu.sessions = append(v.mu.sessions, s)
	v.mu.Unlock()
}

func (s *session) detach() {
	s.mu.Lock()
	v := s.mu.view
	s.mu.view, s.mu.live = nil, false
	s.mu.Unlock()
	if v == nil {
		return
	}
	v.mu.Lock()
	for i, o := range v.mu.sessions {
		if o == s {
			last := len(v.mu.sessions) - 1
			v.mu.sessions[i], v.mu.sessions[last] = v.mu.sessions[last], nil
			v.mu.sessions = v.mu.sessions[:last]
			break
		}
	}
	v.mu.Unlock()
	s.hub.release(v)
}

// wake makes the session look for news. It does not block.
func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeLocked()
}

func (s *session) wakeLocked() {
	s.mu.dirty, s.mu.live = true, false
	s.startLocked()
}

func (s *session) startLocked() {
	if s.mu.running || s.mu.full || s.mu.closed || !s.mu.dirty {
		return
	}
	s.mu.running = true
	s.done.Go(s.run)
}

// offerLocked gives a frame to the sink. The lock is held around it, because
// Drained may come before the refusal has been noted.
func (s *session) offerLocked(frame []byte) bool { return s.offerTailLocked(frame, nil) }

// offerTailLocked is offerLocked for a frame in two parts.
func (s *session) offerTailLocked(head, tail []byte) bool {
	if s.sink.SendTail(head, tail) {
		return true
	}
	s.mu.full, s.mu.dirty, s.mu.live = true, true, false
	return false
}

// offer gives the frame with a response to the sink, and notes what the client has
// by it. An acknowledgement of to-device messages cannot come before the note.
func (s *session) offer(frame []byte, r *result) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.offerLocked(frame) {
		return false
	}
	if s.mu.lazy == nil && len(r.lazy) > 0 {
		s.mu.lazy = make(lazyMembers)
	}
	s.mu.lazy.add(r.lazy)
	s.mu.unacked = append(s.mu.unacked, r.e2ee.sent...)
	return true
}

// Drained implements Session.
func (s *session) Drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.full = false
	s.startLocked()
}

// Ack implements Session. It makes room for more to-device messages.
func (s *session) Ack(ctx context.Context, since string) error {
	p, err := s.hub.parse(since)
	if err != nil {
		return err
	}
	if err := s.hub.acknowledge(ctx, s.req.User, s.req.Device, &p); err != nil {
		return err
	}
	if s.forgetAcked(p.inbox(s.hub.homeOf(s.req.User))) {
		s.wake()
	}
	return nil
}

// forgetAcked takes the messages up to a position from those that wait. It reports
// whether there had been no room for more.
func (s *session) forgetAcked(upTo ids.Seq) (wasFull bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasFull = len(s.mu.unacked) >= maxToDevice
	s.mu.unacked = slices.DeleteFunc(s.mu.unacked, func(m ids.Seq) bool { return m <= upTo })
	return wasFull && len(s.mu.unacked) < maxToDevice
}

// Close implements Session.
func (s *session) Close() {
	s.mu.Lock()
	s.mu.closed, s.mu.live = true, false
	if s.mu.cancel != nil {
		s.mu.cancel()
	}
	s.mu.Unlock()
	s.done.Wait()
	s.away()
	s.detach()
}

// next takes the note that something changed; false ends the goroutine.
func (s *session) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.dirty || s.mu.full || s.mu.closed {
		s.mu.running, s.mu.cancel = false, nil
		return false
	}
	s.mu.dirty = false
	return true
}

// run works until nothing is left to do. Its context is its own: an idle session
// holds none.
func (s *session) run() {
	ctx, cancel := context.WithCancel(s.hub.ctx)
	defer cancel()
	s.mu.Lock()
	s.mu.cancel = cancel // a Close before this is seen by next
	s.mu.Unlock()
	for s.next() {
		if err := s.push(ctx); err != nil {
			s.fail(ctx, err)
			s.mu.Lock()
			s.mu.closed, s.mu.running, s.mu.cancel = true, false, nil
			s.mu.Unlock()
			return
		}
	}
}

func (s *session) fail(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		s.sink.Close(closeGoingAway, "going away")
	case errors.Is(err, ErrUnknownPosition):
		s.sink.Close(closeUnknownPosition, "unknown position")
	case merr.From(err).Status == http.StatusServiceUnavailable:
		// The store is away, or a partition moves: elsewhere, or later, it goes on.
		s.hub.opts.Log.Warn("push sync", "user", s.req.User, "error", err)
		s.sink.Close(closeGoingAway, "try again")
	default:
		s.hub.opts.Log.Error("push sync", "user", s.req.User, "error", merr.From(err))
		s.sink.Close(closeInternal, "internal error")
	}
}

// push sends what has happened since the last frame, if anything, and makes the
// session live if nothing happened in the meantime.
func (s *session) push(ctx context.Context) error {
	for stale := 0; ; stale++ {
		s.mu.Lock()
		if s.mu.at != nil {
			s.req.Since, s.mu.at = s.mu.at.position(s.hub.opts.Count), nil
		}
		v := s.mu.view
		s.req.Unacked = len(s.mu.unacked)
		s.mu.Unlock()
		version := v.version()
		r, err := s.hub.build(ctx, v, &s.req, s)
		switch {
		case err == nil:
			s.hand(v, version, r)
			return nil
		case !errors.Is(err, errStale) || stale == maxStale:
			return err
		}
		s.detach()
		if v, err = s.hub.acquire(ctx, s.req.User); err != nil {
			return err
		}
		s.attach(v)
	}
}

// hand gives a response to the sink, unless it says nothing.
func (s *session) hand(v *view, version uint64, r *result) {
	if !r.empty || s.req.Since == nil || s.req.FullState {
		b := append(make([]byte, 0, len(r.join)+1024), `{"op":"sync","next_batch":"`...)
		b = append(append(b, r.next.Token()...), '"')
		b = append(r.appendBody(b), '}')
		if !s.offer(b, r) {
			return
		}
	}
	next := r.next // a copy: a position must not keep its whole response in memory
	s.req.Since, s.req.FullState, s.req.bound = &next, false, unbound
	s.settle(v, version)
}

// settle makes the session live if its view has not changed since a version.
func (s *session) settle(v *view, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	// An acknowledgement may have made room since the response was begun.
	held := s.req.Since.inbox(v.home) < s.req.Since.At[v.home] && len(s.mu.unacked) < maxToDevice
	s.mu.live = v.mu.version == version && !v.mu.stale && !s.mu.dirty && !s.mu.closed && !held
	if !s.mu.live {
		s.mu.dirty = true
		return
	}
	s.req.Since, s.mu.at = nil, newSparse(s.req.Since)
}
