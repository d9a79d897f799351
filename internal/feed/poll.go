package feed

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Waiting is a sync request under way, which begins with Begin. A user of many waits with
// each on a goroutine for a while only (Answer), and then has a function called when
// there is something to go on for (Wake): a request that waits holds little by itself.
//
// It belongs to one goroutine at a time.
type Waiting struct {
	hub *Hub
	req *Request
	// present is where the request counts as presence, see presence.begin.
	present *presentDevice
	timer   *time.Timer
	poll    *poll
	stale   int
	// view is nil before the first response is built, and after Close.
	view *view
	// session is nil for a request that does not wait.
	session *session
	// keys are what the last response that was built says of keys; settled: it was,
	// said nothing, and what comes is waited for.
	keys    e2ee
	settled bool
}

// poll is what makes a session of a request that waits.
//
// Nearly always a request waits at the end of all that its client could be told, and
// what comes is a message. Then the shards hand it over as they do to a socket that is
// live, and the response is written from what they brought: nothing is read, and nobody
// looks at the rest of the rooms. What is not plain, and what has no position in a log,
// ends that: a response is built.
type poll struct {
	// ready has a place: something came, or has to be looked at.
	ready chan struct{}
	// over: the time to wait is up. It is set before ready is.
	over atomic.Bool
	// news are the records that came, in order; the session's lock guards them.
	news []pollNews

	mu struct {
		sync.Mutex
		wake func() // nil while a goroutine waits
	}
}

// pollNews is one record as its client is told of it.
type pollNews struct {
	*live
	// event is the client's JSON of an event, badge the counts of its room with it.
	event []byte
	badge badge
}

// ring says that there is something. It does not block.
func (p *poll) ring() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
	p.call()
}

// timeUp says that the time is over.
func (p *poll) timeUp() {
	p.over.Store(true)
	p.ring()
}

// call has who waits without a goroutine go on.
func (p *poll) call() {
	p.mu.Lock()
	wake := p.mu.wake
	p.mu.wake = nil
	p.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// Wake has a function called once, when Answer has something to go on for: at once, if
// that came already. It must not block, and is called with locks of the feed held.
func (w *Waiting) Wake(f func()) {
	w.poll.mu.Lock()
	w.poll.mu.wake = f
	w.poll.mu.Unlock()
	if w.session == nil || len(w.poll.ready) > 0 || w.poll.over.Load() || !w.session.isLive() {
		w.poll.call()
	}
}

// join makes a request that can wait part of the feed, until leave.
func (v *view) join(req *Request, p *poll) *session {
	s := &session{hub: v.hub, req: *req, poll: p}
	s.mu.view = v
	v.add(s)
	return s
}

// leave takes it out again.
func (v *view) leave(s *session) {
	v.remove(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.live, s.mu.closed = false, true
}

// again begins to hold back what comes while a response is built, and returns the
// version of the view from which on.
func (s *session) again() uint64 {
	s.mu.Lock()
	s.mu.dirty, s.mu.live, s.mu.at = false, false, nil
	select {
	case <-s.poll.ready: // of the last wait
	default:
	}
	s.mu.Unlock()
	return s.hold(s.mu.view)
}

// settle makes ready to wait behind a response that says nothing, which was built since
// a version of the view.
func (w *Waiting) settle(version uint64, r *result) {
	next := r.next // a copy: a position must not keep its whole response in memory
	w.session.req.Since, w.req.Since = &next, nil
	w.keys, w.settled = r.e2ee, true
	w.session.settle(w.view, version)
}

// await waits for something to go on for. It gives up after a patience that is not 0,
// and reports false.
func (w *Waiting) await(ctx context.Context, patience time.Duration) (bool, error) {
	if w.poll.over.Load() || !w.session.isLive() {
		return true, nil
	}
	var tired <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		tired = t.C
	}
	select {
	case <-w.poll.ready:
	case <-tired:
		return false, nil
	case <-ctx.Done():
		return true, ctx.Err()
	}
	return true, nil
}

// news returns the response that was waited for, nil if it has to be built, and where the
// client stands then.
func (w *Waiting) news() (body jsontext.Value, at *Position) {
	s := w.session
	s.mu.Lock()
	defer s.mu.Unlock()
	w.settled = false
	if s.mu.at == nil {
		return nil, s.req.Since
	}
	at = s.mu.at.position(s.hub.opts.Count)
	if len(s.poll.news) > 0 || s.mu.live && s.poll.over.Load() {
		body = s.bodyLocked(at, &w.keys)
	}
	s.mu.live = false
	return body, at
}

// isLive reports whether what comes is handed over.
func (s *session) isLive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.live
}

// takeLocked takes a record for a request that waits. More events than one response may
// have are left to the next.
func (s *session) takeLocked(l *live, c *counts) {
	n := pollNews{live: l}
	switch {
	case l.stored == nil:
	case len(s.poll.news) >= s.req.Filter.Room.Timeline.limit():
		s.wakeLocked()
		return
	case l.stored.Sender == s.req.User:
		n.event, n.badge = l.stored.AppendClient(nil, room.Viewer{User: s.req.User, Device: s.req.Device, Membership: event.Join}), s.badge(c)
	default:
		n.event, n.badge = l.event(), s.badge(c)
	}
	s.poll.news = append(s.poll.news, n)
	s.mu.at.set(l.p, l.rec.Seq)
	s.poll.ring()
}

// bodyLocked writes the response that brings the news. The keys are those of the last
// response that was built: a change of them would have ended the wait.
func (s *session) bodyLocked(at *Position, keys *e2ee) []byte {
	r := result{next: *at, e2ee: *keys}
	left := s.poll.news
	slices.SortStableFunc(left, func(a, b pollNews) int { return cmp.Compare(a.rec.Entity, b.rec.Entity) })
	for len(left) > 0 {
		of := left[0].rec.Entity
		n := 1
		for n < len(left) && left[n].rec.Entity == of {
			n++
		}
		addRoom(&r.join, ids.RoomID(of), s.section(left[:n]))
		left = left[n:]
	}
	s.poll.news = nil
	return r.json()
}

// section writes the section of the room that the news are of.
func (s *session) section(news []pollNews) []byte {
	var events []byte
	var receipts []*room.Receipt
	var counted *badge
	var start ids.Seq
	for i := range news {
		n := &news[i]
		if n.receipt != nil {
			receipts = append(receipts, n.receipt)
			start = cmp.Or(start, n.rec.Seq)
			continue
		}
		if counted == nil {
			start = n.rec.Seq - 1
		}
		events, counted = appendList(events, n.event), &n.badge
	}
	b := append(make([]byte, 0, len(events)+512), `{"timeline":{"events":[`...)
	b = append(append(b, events...), `],"limited":false,"prev_batch":"`...)
	b = append(append(b, PageToken(start)...), `"},`...)
	b = append(event.AppendString(b, cmp.Or(s.req.StateAfter, "state")), `:{"events":[]},"ephemeral":{"events":[`...)
	if len(receipts) > 0 {
		b = appendReceipts(b, receipts)
	}
	b = append(b, `]},"account_data":{"events":[]}`...)
	if counted != nil {
		b = appendBadge(b, *counted)
	}
	return append(b, '}')
}
