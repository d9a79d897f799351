package feed

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Sliding sync: the client says which of its rooms it looks at, by lists that are
// sorted by activity and by name, and is told of these alone. spec: MSC4186.
//
// It is the same engine as that of /sync: a cut, the changes of the user behind the
// position of the client, and a section for each room that has something to tell. What
// differs is that a client stands elsewhere in each room, since it is told of a room
// only while it looks at it. So a connection keeps for each room what was sent
// (sentRoom), and a section begins there. It lives in memory on the node: a client
// whose connection is gone (M_UNKNOWN_POS) begins anew, which costs little here.

// Limits of sliding sync.
const (
	// MaxSlidingLists bounds the lists of a request. spec: MSC4186, lists.
	MaxSlidingLists = 100
	// MaxSubscriptions bounds the rooms that a request names.
	MaxSubscriptions = 1000
	// MaxStatePatterns bounds required_state of one list or subscription: each
	// pattern is tried with each change of state.
	MaxStatePatterns = 500
	// MaxConnID bounds the name of a connection in bytes.
	MaxConnID = 255
	// noMessages is the Inbox of positions here, before all messages: should a client
	// go on from one with /sync, it has acknowledged nothing by that.
	noMessages ids.Seq = 1
	// maxThreadChanges bounds the subscriptions to threads in a response.
	maxThreadChanges = 100
)

// SlidingRequest is a request of sliding sync.
type SlidingRequest struct {
	User   ids.UserID
	Device ids.DeviceID
	// Conn names the connection among those of the device.
	Conn string
	// Pos is that of the last response, "" to begin.
	Pos           string
	Timeout       time.Duration
	SetPresence   Presence
	Lists         []SlidingList
	Subscriptions map[ids.RoomID]*RoomConfig
	Extensions    SlidingExtensions
	// Stable: members have the names of /v4/sync instead of the unstable ones.
	Stable bool

	// bound is what the response has to cover.
	bound bound
}

// RoomConfig says what is sent of a room.
type RoomConfig struct {
	// Limit bounds the timeline.
	Limit int
	State RequiredState
}

// SlidingList is a window on the rooms of the user.
type SlidingList struct {
	Name string
	RoomConfig
	// Ranges are the first and the last index of stretches of the list; nil is all.
	Ranges  [][2]int
	Filters SlidingFilters
}

// in reports whether an index is in the window.
func (l *SlidingList) in(i int) bool {
	return l.Ranges == nil || slices.ContainsFunc(l.Ranges, func(r [2]int) bool { return r[0] <= i && i <= r[1] })
}

// SlidingFilters select the rooms of a list; nil asks for nothing. In the types of
// rooms "" stands for no type. spec: MSC4186, SlidingRoomFilter.
type SlidingFilters struct {
	Direct, Encrypted, Invited *bool
	Spaces                     []ids.RoomID
	Types, NotTypes            []string
	Tags, NotTags              []string
}

// Scope says which rooms an extension is about: those in lists, and those that are
// named. nil is all.
type Scope struct {
	Enabled bool
	Lists   []string
	Rooms   []ids.RoomID
}

// SlidingExtensions are what is asked for beside rooms.
type SlidingExtensions struct {
	ToDevice struct {
		Enabled bool
		// Since is what the device has had, which is forgotten then.
		Since string
		Limit int
	}
	E2EE                          bool
	AccountData, Receipts, Typing Scope
	Threads                       struct {
		Enabled bool
		Limit   int
	}
}

// Slide answers a request of sliding sync with the JSON of the response. It waits
// until there is something to tell or the time is over; the first of a connection
// does not. The error is ErrUnknownPosition if the connection is gone.
func (h *Hub) Slide(ctx context.Context, req *SlidingRequest) (jsontext.Value, error) {
	present := h.presence.begin(req.User, req.Device, req.SetPresence)
	defer h.presence.end(&present)
	if err := h.ackSliding(ctx, req); err != nil {
		return nil, err
	}
	t, err := h.sliding.enter(req, h.opts.Clock.Now())
	if err != nil {
		return nil, err
	}
	defer func() { h.sliding.leave(t.conn, h.opts.Clock.Now()) }()
	deadline := make(chan struct{}) // closed, not sent to: a second view sees it too
	timer := time.AfterFunc(req.Timeout, func() { close(deadline) })
	defer timer.Stop()
	for stale := 0; ; {
		v, err := h.acquire(ctx, req.User)
		if err != nil {
			return nil, err
		}
		body, err := h.slideOn(ctx, v, t, req, deadline)
		h.release(v)
		if !errors.Is(err, errStale) || stale == maxStale {
			return body, err
		}
		stale++
	}
}

func (h *Hub) slideOn(ctx context.Context, v *view, t *slidingTurn, req *SlidingRequest, deadline <-chan struct{}) (jsontext.Value, error) {
	// What was looked at and had nothing to tell is not looked at again: the step
	// goes on with each change.
	var step *slidingStep
	for timeUp := req.Timeout <= 0 || req.Pos == ""; ; {
		changed := v.watch()
		var body jsontext.Value
		var err error
		if step, body, err = h.slideOnce(ctx, v, t, req, step, timeUp); body != nil || err != nil {
			return body, err
		}
		select {
		case <-changed:
		case <-deadline:
			timeUp = true
		case <-t.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// slideOnce builds the response up to now. It is nil if there is nothing to tell, and
// must says that this is not said.
func (h *Hub) slideOnce(ctx context.Context, v *view, t *slidingTurn, req *SlidingRequest, step *slidingStep, must bool) (*slidingStep, jsontext.Value, error) {
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.turn != t.n {
		// The client has asked again, so nobody reads this. spec: MSC4186
		// §Connections, one request at a time.
		return nil, jsontext.Value(`{"pos":` + string(event.AppendString(nil, req.Pos)) + `}`), nil
	}
	if step == nil {
		step = c.beginLocked(h.opts.Count)
	}
	b := &slide{
		syncer: &syncer{h: h, v: v, lazy: slidingLazy{c}, req: &Request{User: req.User, Device: req.Device, Filter: &h.everything, StateAfter: "required_state", bound: &req.bound}},
		ask:    req, conn: c, step: step, first: !step.moved,
	}
	if err := b.build(ctx); err != nil {
		return nil, nil, err
	}
	if b.empty() && !must {
		return step, nil, nil
	}
	pos := c.commitLocked(step)
	return step, b.json(pos), nil
}

// slide builds one response.
type slide struct {
	*syncer
	ask  *SlidingRequest
	conn *slidingConn
	step *slidingStep
	// first: the connection has been told nothing.
	first bool
	moved map[ids.RoomID]*account.Change
	// wanted are the rooms that the client looks at, in the order in which they are
	// told; byRoom are the same.
	wanted []*wanted
	byRoom map[ids.RoomID]*wanted
	counts []int // of the lists
	// direct are the rooms of m.direct, nil until they are needed.
	direct map[ids.RoomID]bool
	// typers are the rooms in which it changed who types.
	typers map[ids.RoomID]bool
	// begins are the extensions that the client has nothing of.
	begins struct{ data, receipts, typing, e2ee, threads bool }
	parts  slidingParts
}

// slidingParts are the parts of the response, members of objects joined by commas.
type slidingParts struct {
	rooms, data, receipts, typing []byte
	threads                       jsontext.Value
	inbox                         ids.Seq
}

// build makes the response from where the step stands to now.
func (b *slide) build(ctx context.Context) error {
	b.since = b.step.at
	if !b.first {
		since := b.since
		b.req.Since = &since
		b.known = b.since.Node == b.h.node
	}
	if err := b.cut(ctx); err != nil {
		return err
	}
	changes, err := b.changes(ctx)
	if err != nil {
		return err
	}
	b.moved = b.fold(changes)
	b.beginExtensions()
	if err := b.readSlidingData(ctx, changes); err != nil {
		return err
	}
	if err := b.pick(ctx); err != nil {
		return err
	}
	if err := b.addSlidingRooms(ctx, changes); err != nil {
		return err
	}
	if err := b.addExtensions(ctx, changes); err != nil {
		return err
	}
	b.closeWindows()
	b.step.at, b.step.moved = b.next, true
	b.step.at.Inbox = noMessages
	return nil
}

// empty reports whether there is nothing to tell.
func (b *slide) empty() bool {
	p := &b.parts
	return len(p.rooms)+len(p.data)+len(p.receipts)+len(p.typing)+len(p.threads)+len(b.out.accountData) == 0 && b.out.e2ee.empty()
}

// json writes the response.
func (b *slide) json(pos string) []byte {
	out := event.AppendString(append(make([]byte, 0, len(b.parts.rooms)+1024), `{"pos":`...), pos)
	out = append(out, `,"lists":{`...)
	for i := range b.ask.Lists {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(event.AppendString(out, b.ask.Lists[i].Name), `:{"count":`...)
		out = append(strconv.AppendInt(out, int64(b.counts[i]), 10), '}')
	}
	out = append(append(out, `},"rooms":{`...), b.parts.rooms...)
	out = append(out, `},"extensions":{`...)
	return append(b.appendExtensions(out), `}}`...)
}

// stateOf is what the client was sent of a room, nil if nothing.
func (b *slide) stateOf(id ids.RoomID) *sentRoom {
	if s, ok := b.step.rooms[id]; ok {
		return s
	}
	return b.conn.mu.base.rooms[id]
}

// closeWindows notes which rooms the client no longer looks at, so that what it
// misses of their account data is told when it does again.
func (b *slide) closeWindows() {
	for id, s := range b.conn.mu.base.rooms {
		if _, ok := b.step.rooms[id]; !ok {
			b.closeWindow(id, s)
		}
	}
	for _, id := range slices.Collect(maps.Keys(b.step.rooms)) {
		b.closeWindow(id, b.step.rooms[id])
	}
}

func (b *slide) closeWindow(id ids.RoomID, s *sentRoom) {
	if s == nil || !s.watched || b.byRoom[id] != nil {
		return
	}
	left := *s
	left.watched, left.dataAt = false, b.since.At[b.v.home]
	b.step.rooms[id] = &left
}
