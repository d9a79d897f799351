package feed

import (
	"context"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

const (
	// maxUnread bounds the events behind a receipt that are counted, of the main
	// timeline and of all threads. Beyond it the number stands still, which no badge
	// shows anyway.
	maxUnread = 1000
	// maxThreads bounds the threads of a room that are counted one by one. Events
	// of more than these count for the room as a whole.
	maxThreads = 500
)

// tally is a number of notifications.
type tally struct{ notify, highlight int }

func (t *tally) add(o tally) { t.notify, t.highlight = t.notify+o.notify, t.highlight+o.highlight }

// counts are a user's unread notifications in a room. They are not stored: they
// follow from the receipts, the events behind them and the push rules, and are
// carried on from sync to sync while the view lives.
//
// The events of a thread are counted apart, behind a receipt of their own. What is
// told is the sum, or each of them, as the client asks. spec: client-server
// §Receiving notifications, §Threaded read receipts.
type counts struct {
	// fresh: read and the threads rest on the user's present receipts.
	fresh bool
	// read is how far the main timeline is read.
	read, upTo ids.Seq
	seen       int
	main       tally
	// threads has those with something behind the last receipt that counts for all
	// threads; inThreads is the sum, of those too that are not in it.
	threads   map[ids.EventID]*threadCount
	inThreads tally
	// told is the JSON of the threads, "" until it is needed.
	told string
	// push is what the rules ask about the room; nil if it has to be read.
	push *pushContext
	// gen moves when fresh or push is taken back.
	gen uint64
}

type threadCount struct {
	read ids.Seq
	tally
}

// forgetRead makes the receipt be read again.
func (c *counts) forgetRead() { c.fresh, c.gen = false, c.gen+1 }

// forgetPush makes what the push rules ask be read again.
func (c *counts) forgetPush() { c.push, c.gen = nil, c.gen+1 }

// forgetAll makes everything be counted again.
func (c *counts) forgetAll() { *c = counts{push: c.push, gen: c.gen + 1} }

// cover reports whether they rest on all that happened in the room up to a position.
func (c *counts) cover(upTo ids.Seq) bool { return c.fresh && c.upTo >= upTo }

// total is what is unread, in the main timeline or a thread.
func (c *counts) total() tally {
	t := c.main
	t.add(c.inThreads)
	return t
}

// clone returns a copy that shares nothing that changes.
func (c *counts) clone() counts {
	out := *c
	if c.threads != nil {
		out.threads = make(map[ids.EventID]*threadCount, len(c.threads))
		for root, t := range c.threads {
			copied := *t
			out.threads[root] = &copied
		}
	}
	return out
}

// thread returns the count of a thread, nil if there are too many.
func (c *counts) thread(root ids.EventID) *threadCount {
	t := c.threads[root]
	if t == nil && len(c.threads) < maxThreads {
		if c.threads == nil {
			c.threads = make(map[ids.EventID]*threadCount)
		}
		t = &threadCount{}
		c.threads[root] = t
	}
	return t
}

// count takes an event into account that lies behind all that were before. It does
// so for any event that is not state: who sends something has read what was
// before it. spec: client-server §Marking notifications as read.
func (c *counts) count(s *room.Stored, own bool, n tally) {
	if s.Thread == "" {
		switch {
		case own:
			c.main, c.read, c.seen = tally{}, s.Seq, 0
		case c.seen < maxUnread:
			c.main.add(n)
		}
		c.seen++
		return
	}
	t := c.thread(s.Thread)
	switch {
	case t == nil:
		c.inThreads.add(n)
	case own:
		c.inThreads.add(tally{-t.notify, -t.highlight})
		t.tally, t.read, c.told = tally{}, s.Seq, ""
	case s.Seq > t.read && n.notify > 0:
		t.add(n)
		c.inThreads.add(n)
		c.told = ""
	}
}

// badge is what a client is told of counts.
type badge struct {
	tally
	// threads is the JSON of unread_thread_notifications, "" if it is left out.
	threads string
}

// badge returns the counts as a client is told that asks for those of threads, or
// does not.
func (c *counts) badge(threads bool) badge {
	if !threads {
		return badge{tally: c.total()}
	}
	b := badge{tally: c.main}
	if c.inThreads.notify > 0 {
		if c.told == "" {
			c.told = c.threadsJSON()
		}
		b.threads = c.told
	}
	return b
}

func (c *counts) threadsJSON() string {
	roots := make([]ids.EventID, 0, len(c.threads))
	for root, t := range c.threads {
		if t.notify > 0 {
			roots = append(roots, root)
		}
	}
	slices.Sort(roots) // so that equal counts are equal text
	b := []byte{'{'}
	for i, root := range roots {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(event.AppendString(b, root), ':')
		b = appendTally(b, c.threads[root].tally)
	}
	return string(append(b, '}'))
}

func appendTally(b []byte, t tally) []byte {
	b = strconv.AppendInt(append(b, `{"highlight_count":`...), int64(t.highlight), 10)
	b = strconv.AppendInt(append(b, `,"notification_count":`...), int64(t.notify), 10)
	return append(b, '}')
}

// appendBadge appends the members of a room's section about its counts.
func appendBadge(b []byte, n badge) []byte {
	b = appendTally(append(b, `,"unread_notifications":`...), n.tally)
	if n.threads != "" {
		b = append(append(b, `,"unread_thread_notifications":`...), n.threads...)
	}
	return b
}

// unread brings the counts of a joined room up to a position, and returns what a
// client is told of them.
func (v *view) unread(ctx context.Context, r *roomState, upTo ids.Seq, threads bool) (badge, error) {
	v.mu.Lock()
	c := counts{}
	// The user may have left and come back since r was taken from the view: what is kept
	// of one stay says nothing of another.
	ofStay := func(ur *userRoom) bool { return ur != nil && ur.joined == r.joined }
	if ur := v.roomLocked(r.id); ofStay(ur) {
		if ur.counts.fresh && ur.counts.upTo >= upTo {
			defer v.mu.Unlock()
			return ur.counts.badge(threads), nil
		}
		c = ur.counts.clone()
	}
	program := v.mu.program
	v.mu.Unlock()
	if err := v.counter(program).recount(ctx, r.id, r.joined, &c, upTo); err != nil {
		return badge{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	told := c.badge(threads)
	// Keep what came meanwhile: a receipt, or counts that are further on.
	if ur := v.roomLocked(r.id); ofStay(ur) && ur.counts.gen == c.gen && (!ur.counts.fresh || ur.counts.upTo <= c.upTo) {
		ur.counts = c
	}
	return told, nil
}

// counter counts what one user has not read.
type counter struct {
	rooms  *room.Reader
	person *Person
	// push reads what push rules ask about a room.
	push func(ctx context.Context, id ids.RoomID) (*pushContext, error)
}

func (v *view) counter(program *pushrules.Program) *counter {
	v.mu.Lock()
	ignored := v.mu.ignored // replaced, never changed; and then all is counted anew
	v.mu.Unlock()
	return &counter{v.hub.rooms, &Person{v.user, program, ignored}, v.pushContext}
}

// recount brings counts up to a position.
func (k *counter) recount(ctx context.Context, id ids.RoomID, joined ids.Seq, c *counts, upTo ids.Seq) error {
	threads := true // whether the events of threads are still to be counted
	if !c.fresh {
		marks, err := k.rooms.ReadMarks(ctx, id, k.person.user)
		if err != nil {
			return err
		}
		// What was sent before is no news to who has just joined.
		read := max(marks.Main, joined)
		if read > c.read || c.upTo == 0 || c.upTo > upTo {
			c.main, c.read, c.upTo, c.seen = tally{}, read, read, 0
		}
		if err := k.countThreads(ctx, id, c, max(marks.All, joined), upTo); err != nil {
			return err
		}
		c.fresh, threads = true, false
	}
	if c.upTo < upTo {
		events, err := k.rooms.Timeline(ctx, id, room.Page{After: c.upTo, UpTo: upTo, Limit: maxUnread, Newest: true})
		if err != nil {
			return err
		}
		events = slices.DeleteFunc(events, func(s *room.Stored) bool { return s.Thread != "" && !threads })
		if err := k.count(ctx, id, c, events); err != nil {
			return err
		}
	}
	c.upTo = max(c.upTo, upTo) // beyond the bound nothing is counted, which is known
	return nil
}

// countThreads counts the threads of a room anew, behind the position up to which
// all of them are read.
func (k *counter) countThreads(ctx context.Context, id ids.RoomID, c *counts, read, upTo ids.Seq) error {
	c.threads, c.inThreads, c.told = nil, tally{}, ""
	list, err := k.rooms.ThreadEvents(ctx, id, read, upTo, maxUnread)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, e := range list {
		c.thread(e.Root)
	}
	reads, err := k.rooms.ReadThreads(ctx, id, k.person.user, slices.Collect(maps.Keys(c.threads)))
	if err != nil {
		return err
	}
	for root, t := range c.threads {
		t.read = reads[root]
	}
	var at []ids.Seq
	for _, e := range list {
		if t := c.threads[e.Root]; t == nil || e.Seq > t.read {
			at = append(at, e.Seq)
		}
	}
	events, err := k.rooms.AtAll(ctx, id, at...)
	if err != nil {
		return err
	}
	return k.count(ctx, id, c, slices.DeleteFunc(events, func(s *room.Stored) bool { return s == nil || s.Thread == "" }))
}

// count counts events, the newest of which is first.
func (k *counter) count(ctx context.Context, id ids.RoomID, c *counts, events []*room.Stored) (err error) {
	if len(events) > 0 && c.push == nil {
		if c.push, err = k.push(ctx, id); err != nil {
			return err
		}
	}
	infos := make(map[ids.UserID]*pushrules.RoomInfo)
	for _, s := range slices.Backward(events) {
		own := s.Sender == k.person.user && s.StateKey == nil
		if own || s.RedactedBy != nil || k.person.ignores(s.Sender) {
			c.count(s, own, tally{})
			continue
		}
		info := infos[s.Sender]
		if info == nil {
			info = c.push.room.info(s.Sender)
			infos[s.Sender] = info
		}
		c.count(s, false, notifications(k.person.program.Evaluate(newPushEvent(s), info, c.push.member)))
	}
	return nil
}

// notifications is how much an event counts that has an outcome, if ok.
func notifications(out *pushrules.Outcome, ok bool) (t tally) {
	if ok && out.Notify {
		t.notify = 1
		if out.Highlight {
			t.highlight = 1
		}
	}
	return t
}

// pushContext is what push rules ask about a room, for one user.
type pushContext struct {
	room   *roomPush
	member pushrules.Member
}

// roomPush is what push rules ask about a room, whoever asks. The views of its
// members share it. It does not change.
type roomPush struct {
	members int
	powers  roomstate.Powers
	levels  map[string]int64
}

func (v *view) pushContext(ctx context.Context, id ids.RoomID) (*pushContext, error) {
	shared, err := v.hub.shardOf(string(id)).roomPush(ctx, id)
	if err != nil {
		return nil, err
	}
	return v.hub.pushContext(ctx, id, v.user, shared)
}

func (h *Hub) pushContext(ctx context.Context, id ids.RoomID, user ids.UserID, shared *roomPush) (*pushContext, error) {
	p := &pushContext{room: shared}
	m, err := h.rooms.StateEvent(ctx, id, event.TypeMember, string(user))
	if err != nil {
		return nil, err
	}
	if m != nil {
		p.member = pushrules.NewMember(m.Member().DisplayName)
	}
	if h.opts.Rules.Threads() {
		p.member.Threads, err = h.accounts.SubscribedThreads(ctx, user, id)
	}
	return p, err
}

// roomPush returns what the audience of a room shares, reading it if need be.
func (s *shard) roomPush(ctx context.Context, id ids.RoomID) (*roomPush, error) {
	s.mu.Lock()
	a := s.mu.rooms[id]
	var gen uint64
	if a != nil {
		if a.push != nil {
			defer s.mu.Unlock()
			return a.push, nil
		}
		gen = a.gen
	}
	s.mu.Unlock()
	p, err := s.hub.readRoomPush(ctx, id)
	if err != nil || a == nil {
		return p, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.gen == gen {
		a.push = p
	}
	return p, nil
}

func (h *Hub) readRoomPush(ctx context.Context, id ids.RoomID) (*roomPush, error) {
	p := &roomPush{}
	head, err := h.rooms.Head(ctx, id)
	if err != nil || head == nil {
		return p, err
	}
	p.members = head.Joined
	state, err := h.rooms.StateEvents(ctx, id, room.StateKey{Type: event.TypeCreate}, room.StateKey{Type: event.TypePowerLevels})
	if err != nil {
		return p, err
	}
	create, powers := state[0].Bare(), state[1].Bare()
	p.powers = roomstate.NewPowers(head.Version, create, powers)
	if powers != nil {
		if levels, err := powers.PowerLevels(); err == nil {
			p.levels = levels.Notifications
		}
	}
	return p, nil
}

// forgetPush makes what push rules ask be read again.
func (a *audience) forgetPush() { a.push, a.gen = nil, a.gen+1 }

// changesPush reports whether a record, whose live form is l, may change what push
// rules ask about its room.
func changesPush(r *partition.Record, l *live) bool {
	return r.Kind == partition.RecordEvent && l == nil
}

// info is what push rules ask about an event of a sender.
func (p *roomPush) info(sender ids.UserID) *pushrules.RoomInfo {
	power := p.powers.Of(sender)
	info := &pushrules.RoomInfo{Members: p.members, SenderPower: int64(power), NotificationPower: p.levels}
	if power == roomstate.Infinite {
		info.SenderPower = math.MaxInt64
	}
	return info
}

func newPushEvent(s *room.Stored) *pushrules.Event {
	return pushrules.NewEvent(pushrules.Fields{
		ID: s.ID, Room: s.RoomID, Sender: s.Sender, Type: s.Type, StateKey: s.StateKey,
		OriginServerTS: s.OriginServerTS, Content: s.Content, Thread: s.Thread,
	})
}
