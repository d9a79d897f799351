package feed

import (
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// live is one record on its way to the sessions that are up to date. Its frames
// are made once and shared: a room's message is written out once, and what stands
// behind it, the unread counts, once for each that differs. A large room has nearly as
// many of those as members, who looked at different times.
//
// A live belongs to the shard's goroutine, which makes it.
type live struct {
	p       ids.Partition
	rec     *partition.Record
	stored  *room.Stored  // of an event, else nil
	receipt *room.Receipt // of a receipt, else nil
	// push is the event as push rules see it, info the room and the sender as
	// infoOf tells.
	push   *pushrules.Event
	info   *pushrules.RoomInfo
	infoOf *roomPush
	head   []byte // the frame up to the unread counts
	json   []byte // of an event, as others in the room see it; a part of head
	tails  []countedTail
}

// countedTail is the rest of a frame, from the unread counts on.
type countedTail struct {
	badge badge
	tail  []byte
}

const (
	// maxTails bounds the tails of one record that are kept for sharing: the rest
	// are made for one receiver each, which costs less than a longer search.
	maxTails = 16
	// tailSize is the length of a tail, without threads, in bytes.
	tailSize = 80
)

// newLive returns nil for records that take the long way, by a response that is
// built for each session: state, which changes what else a client has to know.
func newLive(p ids.Partition, rec *partition.Record) *live {
	l := &live{p: p, rec: rec}
	switch o := rec.Obj.(type) {
	case *room.Stored:
		if o.StateKey != nil {
			return nil
		}
		l.stored = o
	case *room.Receipt:
		if o.Type != room.ReceiptRead {
			return nil
		}
		l.receipt = o
	default:
		return nil
	}
	return l
}

// open begins a frame of the second kind. docs/websocket.md §Sync.
func (l *live) open() []byte {
	b := append(make([]byte, 0, 1024), `{"op":"sync","mark":`...)
	b = appendMark(b, l.p, l.rec.Seq)
	b = append(b, `,"rooms":{"join":{`...)
	b = event.AppendString(b, l.rec.Entity)
	return append(b, ':')
}

const (
	timelineBegin = `{"timeline":{"events":[`
	timelineEnd   = `],"limited":false}`
)

func (l *live) appendTimeline(b []byte, v room.Viewer) []byte {
	b = append(b, timelineBegin...)
	b = l.stored.AppendClient(b, v)
	return append(b, timelineEnd...)
}

// begin writes the frame up to the unread counts, as whoever else is in the room gets
// it. Whoever has a seat there is in it.
func (l *live) begin() {
	if l.head == nil {
		b := l.open()
		from := len(b) + len(timelineBegin)
		l.head = l.appendTimeline(b, room.Viewer{Membership: event.Join})
		l.json = l.head[from : len(l.head)-len(timelineEnd)]
	}
}

// event returns the JSON of an event.
func (l *live) event() []byte {
	l.begin()
	return l.json
}

// frame returns the frame with an event for a user with these counts, in two parts.
func (l *live) frame(n badge) (head, tail []byte) {
	l.begin()
	for i := range l.tails {
		if t := &l.tails[i]; t.badge == n {
			return l.head, t.tail
		}
	}
	b := append(appendBadge(make([]byte, 0, tailSize+len(n.threads)), n), `}}}}`...)
	if len(l.tails) < maxTails {
		l.tails = append(l.tails, countedTail{n, b})
	}
	return l.head, b
}

// ownFrame returns the frame with an event for a device of its sender.
func (l *live) ownFrame(n badge, v room.Viewer) []byte {
	b := l.appendTimeline(l.open(), v)
	return append(appendBadge(b, n), `}}}}`...)
}

// receiptFrame returns the frame with a receipt.
func (l *live) receiptFrame() []byte {
	if l.head == nil {
		b := append(l.open(), `{"ephemeral":{"events":[`...)
		b = appendReceipts(b, []*room.Receipt{l.receipt})
		l.head = append(b, `]}}}}}`...)
	}
	return l.head
}

// offerLocked hands a record to the sessions of a view that are up to date; the
// others, and those that need more than the record itself, are woken to build a
// response. before is what happened in the room before it. v.mu is held.
func (v *view) offerLocked(l *live, ur *userRoom, before ids.Seq) {
	ignored := v.ignoresLocked(l.sender())
	counted := v.carryLocked(l, ur, before, ignored)
	for _, s := range v.mu.sessions {
		s.record(l, ur, before, ignored, counted)
	}
}

// carryLocked carries the counts of a room on by a record, if they cover all before it.
// It reports whether they are known of an event.
func (v *view) carryLocked(l *live, ur *userRoom, before ids.Seq, ignored bool) bool {
	switch {
	case !ur.counts.cover(before):
		return false
	case l.stored != nil:
		return v.countLiveLocked(l, ur, ignored)
	default:
		ur.counts.upTo = max(ur.counts.upTo, l.rec.Seq)
		return false
	}
}

func (l *live) sender() ids.UserID {
	if l.stored != nil {
		return l.stored.Sender
	}
	return l.receipt.User
}

// countLiveLocked carries the unread counts of a room on by an event. It reports
// whether they are known: they are from the first response on that has the room.
func (v *view) countLiveLocked(l *live, ur *userRoom, ignored bool) bool {
	c := &ur.counts
	if !c.fresh || c.push == nil {
		return false
	}
	if c.upTo >= l.rec.Seq {
		return true
	}
	own, n := l.stored.Sender == v.user, tally{}
	if !own && !ignored && (c.seen < maxUnread || l.stored.Thread != "") {
		if l.push == nil {
			l.push = newPushEvent(l.stored)
		}
		if l.infoOf != c.push.room {
			l.info, l.infoOf = c.push.room.info(l.stored.Sender), c.push.room
		}
		n = notifications(v.mu.program.Evaluate(l.push, l.info, c.push.member))
	}
	c.count(l.stored, own, n)
	c.upTo = l.rec.Seq
	return true
}

// record takes a record of a room. A session that is live is handed its frame, if that
// is all there is to say; one whose response is being built looks at it afterwards;
// another is woken.
func (s *session) record(l *live, ur *userRoom, before ids.Seq, ignored, counted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.held == nil:
	case l.stored != nil && l.stored.Type == event.TypeRedaction:
		s.wakeLocked() // what it takes away may be among what is held back
		return
	default:
		s.holdLocked(heldNews{p: l.p, rec: l.rec, before: before})
		return
	}
	s.recordLocked(l, &ur.counts, ignored, counted)
}

func (s *session) recordLocked(l *live, c *counts, ignored, counted bool) {
	switch {
	case !s.mu.live || len(s.req.Filter.EventFields) > 0 || s.req.Filter.Room.Timeline.Related():
		s.wakeLocked()
	case ignored || l.stored != nil && !s.wantsEvent(l.stored) || l.receipt != nil && !s.wantsReceipt(l):
		s.mu.at.set(l.p, l.rec.Seq)
	case l.receipt != nil && !c.fresh:
		s.wakeLocked() // no response looked yet whether the user is still in the room
	case l.stored != nil && (!counted || !s.knowsLocked(l.stored)):
		s.wakeLocked()
	case s.poll != nil:
		s.takeLocked(l, c)
	case l.receipt != nil:
		s.sendLocked(l, l.receiptFrame(), nil)
	case l.stored.Sender == s.req.User:
		s.sendLocked(l, l.ownFrame(s.badge(c), room.Viewer{User: s.req.User, Device: s.req.Device, Membership: event.Join}), nil)
	default:
		head, tail := l.frame(s.badge(c))
		s.sendLocked(l, head, tail)
	}
}

// badge is what the session's client is told of counts. The view's lock is held.
func (s *session) badge(c *counts) badge {
	return c.badge(s.req.Filter.Room.Timeline.ThreadNotifications)
}

// sendLocked hands a live session the frame of a record, in two parts.
func (s *session) sendLocked(l *live, head, tail []byte) {
	if s.offerTailLocked(head, tail) {
		s.mu.at.set(l.p, l.rec.Seq)
	}
}

// typing takes a frame that tells who types in a room.
func (s *session) typing(r ids.RoomID, frame []byte) {
	f := &s.req.Filter.Room
	s.hint(frame, f.Room(r) && f.Ephemeral.Room(r) && f.Ephemeral.Type("m.typing"))
}

// hint takes a frame that has no position, if it passes the filter.
func (s *session) hint(frame []byte, passes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.poll != nil && passes:
		s.wakeLocked() // its client's position says which notices it had
	case s.mu.held != nil:
		if !passes {
			frame = nil
		}
		s.holdLocked(heldNews{frame: frame})
	case !s.mu.live:
		s.wakeLocked()
	case passes:
		s.offerLocked(frame)
	}
}

// knowsLocked reports whether the client has the member event of a sender, or does
// not wait for it. The view's lock is held too.
func (s *session) knowsLocked(e *room.Stored) bool {
	f := &s.req.Filter.Room.State
	if !f.LazyLoad {
		return true
	}
	has := s.mu.lazy
	if s.poll != nil {
		if f.Redundant {
			return false
		}
		has = s.mu.view.lazyOfLocked(s.req.Device)
	}
	return has[lazyKey{e.RoomID, e.Sender}] != 0
}

// wantsEvent reports whether the session's filter lets an event pass.
func (s *session) wantsEvent(e *room.Stored) bool {
	f := &s.req.Filter.Room
	return f.Room(e.RoomID) && f.Timeline.Room(e.RoomID) && f.Timeline.Event(e)
}

func (s *session) wantsReceipt(l *live) bool {
	f := &s.req.Filter.Room
	r := ids.RoomID(l.rec.Entity)
	return f.Room(r) && f.Ephemeral.Room(r) && f.Ephemeral.Type("m.receipt")
}
