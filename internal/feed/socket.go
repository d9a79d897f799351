package feed

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Close codes that the feed uses. docs/websocket.md §Close codes.
const (
	closeUnknownPosition = 4409
	closeInternal        = 4500
	closeGoingAway       = 4503
)

// session is one socket in the feed, or a request that waits (poll).
//
// It has two ways to send. Behind, a goroutine builds the response from where
// the session stands, as /sync does, while what comes meanwhile is held back, and looks
// again until all of that is plain. Then the session is live: the shards hand it the
// frames of plain events as they come, without building anything. Whatever is not plain,
// and a sink that is full, makes it fall behind again.
//
// Invariant: there is one position up to which everything was handed to the sink.
// It moves with each frame, on both ways. While the session is live it is mu.at, which
// only the shards move; else it is req.Since, which only the goroutine moves.
type session struct {
	hub  *Hub
	sink Sink
	req  Request
	done sync.WaitGroup
	// present is where the socket counts as presence, see presence.begin.
	present *presentDevice
	// poll is nil for a socket. A request that waits has no sink.
	poll *poll

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
		// held is what has come since the response under way was begun; nil if there is
		// none, or if something came that only another response can tell.
		held *held
		view *view
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
	s.present = h.presence.begin(o.User, o.Device, Presence(o.SetPresence))
	s.attach(v)
	s.wake()
	return s, nil
}

func (s *session) attach(v *view) {
	s.mu.Lock()
	s.mu.view = v
	s.mu.Unlock()
	v.add(s)
}

func (s *session) detach() {
	s.mu.Lock()
	v := s.mu.view
	s.mu.view, s.mu.live = nil, false
	s.mu.Unlock()
	if v == nil {
		return
	}
	v.remove(s)
	s.hub.release(v)
}

// add makes the view tell a session of what happens, until remove.
func (v *view) add(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.sessions = append(v.mu.sessions, s)
}

func (v *view) remove(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, o := range v.mu.sessions {
		if o == s {
			last := len(v.mu.sessions) - 1
			v.mu.sessions[i], v.mu.sessions[last] = v.mu.sessions[last], nil
			v.mu.sessions = v.mu.sessions[:last]
			return
		}
	}
}

// wake makes the session look for news. It does not block.
func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeLocked()
}

func (s *session) wakeLocked() {
	s.mu.dirty, s.mu.live, s.mu.held = true, false, nil
	s.startLocked()
}

func (s *session) startLocked() {
	if s.mu.running || s.mu.full || s.mu.closed || !s.mu.dirty {
		return
	}
	if s.poll != nil {
		s.poll.ring()
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
	s.mu.full, s.mu.dirty, s.mu.live, s.mu.held = true, true, false, nil
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
	s.hub.presence.end(&s.present)
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
			s.mu.closed, s.mu.running, s.mu.cancel, s.mu.held = true, false, nil, nil
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
		s.req.Unacked = int32(len(s.mu.unacked))
		s.mu.Unlock()
		version := s.hold(v)
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

// held is what has come for a session whose response is being built. Without it a
// session whose rooms are busier than its responses are quick would build one after the
// other.
type held struct{ news []heldNews }

// heldNews is one change of the view: a record of a room, before which another one
// happened there; or a frame that has no position, nil if it is not for this client.
type heldNews struct {
	p      ids.Partition
	rec    *partition.Record
	before ids.Seq
	frame  []byte
}

// maxHeld bounds what is held back for one session; with more, another response tells it
// in fewer bytes.
const maxHeld = 64

// hold begins to hold back what comes, and returns the version of the view from which
// on.
func (s *session) hold(v *view) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.held = nil
	if !s.mu.dirty {
		s.mu.held = &held{}
	}
	return v.mu.version
}

// holdLocked holds back a change.
func (s *session) holdLocked(n heldNews) {
	if h := s.mu.held; len(h.news) < maxHeld {
		h.news = append(h.news, n)
	} else {
		s.wakeLocked()
	}
}

// settle makes the session live if all that has changed in its view since a version was
// held back, and goes on with that.
func (s *session) settle(v *view, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.mu.held
	s.mu.held = nil
	// An acknowledgement may have made room since the response was begun.
	waits := s.req.Since.inbox(v.home) < s.req.Since.At[v.home] && len(s.mu.unacked) < maxToDevice
	s.mu.live = h != nil && v.mu.version == version+uint64(len(h.news)) && !v.mu.stale && !s.mu.dirty && !s.mu.closed && !waits
	if !s.mu.live {
		s.mu.dirty = true
		return
	}
	told := s.req.Since
	s.req.Since, s.mu.at = nil, newSparse(told)
	for i := range h.news {
		switch n := &h.news[i]; {
		case n.rec == nil && n.frame != nil:
			s.offerLocked(n.frame)
		case n.rec != nil && n.rec.Seq > told.At[n.p]: // else the response has it
			s.goOnLocked(v, n)
		}
		if !s.mu.live {
			return
		}
	}
}

// goOnLocked takes a record that was held back. The view's lock is held too.
func (s *session) goOnLocked(v *view, n *heldNews) {
	l, ur := newLive(n.p, n.rec), v.roomLocked(ids.RoomID(n.rec.Entity))
	if l == nil || ur == nil || ur.left > ur.roomSeq {
		s.wakeLocked()
		return
	}
	ignored := v.ignoresLocked(l.sender())
	s.recordLocked(l, &ur.counts, ignored, v.carryLocked(l, ur, n.before, ignored))
}
