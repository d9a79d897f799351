package feed

import (
	"context"
	"errors"
	"sync"

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
// A goroutine runs while there is something to send: it builds the response from
// where the session stands, as /sync does, hands it to the sink, and looks again.
// A sink that is full stops it until Drained.
type session struct {
	hub  *Hub
	sink Sink
	req  Request

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu struct {
		sync.Mutex
		running bool
		dirty   bool
		full    bool // the sink refused a frame; wait for Drained
		closed  bool
		view    *view
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
		User: o.User, Device: o.Device, Filter: f, FullState: o.FullState,
	}}
	if o.Since != "" {
		p, err := ParsePosition(o.Since, h.opts.Count)
		if err != nil {
			return nil, err
		}
		for part, pos := range o.Marks {
			if err := p.AddMark(part, pos); err != nil {
				return nil, err
			}
		}
		s.req.Since = &p
	}
	s.ctx, s.cancel = context.WithCancel(h.ctx)
	v, err := h.acquire(ctx, o.User)
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.attach(v)
	s.wake()
	return s, nil
}

func (s *session) attach(v *view) {
	s.mu.Lock()
	s.mu.view = v
	s.mu.Unlock()
	v.mu.Lock()
	v.mu.sessions[s] = struct{}{}
	v.mu.Unlock()
}

func (s *session) detach() {
	s.mu.Lock()
	v := s.mu.view
	s.mu.view = nil
	s.mu.Unlock()
	if v == nil {
		return
	}
	v.mu.Lock()
	delete(v.mu.sessions, s)
	v.mu.Unlock()
	s.hub.release(v)
}

// wake makes the session look for news. It does not block.
func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.dirty = true
	s.startLocked()
}

func (s *session) startLocked() {
	if s.mu.running || s.mu.full || s.mu.closed || !s.mu.dirty {
		return
	}
	s.mu.running = true
	s.done.Go(s.run)
}

// Drained implements Session.
func (s *session) Drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.full = false
	s.startLocked()
}

// Ack implements Session. Nothing waits for an acknowledgement yet but what the
// client says by its next since.
func (s *session) Ack(context.Context, string) error { return nil }

// Close implements Session.
func (s *session) Close() {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.cancel()
	s.done.Wait()
	s.detach()
}

// next takes the note that something changed; false ends the goroutine.
func (s *session) next() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.dirty || s.mu.full || s.mu.closed {
		s.mu.running = false
		return false
	}
	s.mu.dirty = false
	return true
}

func (s *session) run() {
	for s.next() {
		if err := s.push(); err != nil {
			s.fail(err)
			s.mu.Lock()
			s.mu.closed, s.mu.running = true, false
			s.mu.Unlock()
			return
		}
	}
}

func (s *session) fail(err error) {
	switch {
	case s.ctx.Err() != nil:
		s.sink.Close(closeGoingAway, "going away")
	case errors.Is(err, ErrUnknownPosition):
		s.sink.Close(closeUnknownPosition, "unknown position")
	default:
		s.hub.opts.Log.Error("push sync", "user", s.req.User, "error", merr.From(err))
		s.sink.Close(closeInternal, "internal error")
	}
}

// push sends what has happened since the last frame, if anything.
func (s *session) push() error {
	s.mu.Lock()
	v := s.mu.view
	s.mu.Unlock()
	r, err := s.hub.build(s.ctx, v, &s.req)
	if errors.Is(err, errStale) {
		s.detach()
		if v, err = s.hub.acquire(s.ctx, s.req.User); err != nil {
			return err
		}
		s.attach(v)
		r, err = s.hub.build(s.ctx, v, &s.req)
	}
	if err != nil {
		return err
	}
	if r.empty && s.req.Since != nil && !s.req.FullState {
		s.req.Since = &r.next
		return nil
	}
	b := append(make([]byte, 0, len(r.join)+1024), `{"op":"sync","next_batch":"`...)
	b = append(append(b, r.next.Token()...), '"')
	b = append(r.appendBody(b), '}')
	if !s.sink.Send(b) {
		s.mu.Lock()
		s.mu.full, s.mu.dirty = true, true
		s.mu.Unlock()
		return nil
	}
	s.req.Since, s.req.FullState = &r.next, false
	return nil
}
