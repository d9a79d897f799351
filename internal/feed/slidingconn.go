package feed

import (
	"crypto/rand"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// maxConns is how many connections a device may have: clients use three, for the
	// list of rooms, encryption and notifications. Beyond it, the one that was used
	// least recently ends.
	maxConns = 8
	// maxSlidingConns bounds the connections of a node.
	maxSlidingConns = 50_000
	// maxSentRooms bounds the rooms of which a connection knows what was sent. Beyond
	// it, those that the client does not look at are forgotten, and told afresh.
	maxSentRooms = 10_000
	// maxStates bounds the kinds of required_state that a connection remembers.
	maxStates = 100
	// idleConn is how long a connection waits for the next request: an app in the
	// background for this long begins anew.
	idleConn = 30 * time.Minute
)

// sentRoom is what a connection was told of a room. It does not change.
type sentRoom struct {
	membership event.Membership
	// joined begins the stay that the client knows, upTo is how far.
	joined, upTo ids.Seq
	// limit is how many of the last events the client has at least.
	limit int
	// state is the required_state that the client has.
	state *required
	bump  int64
	tally tally
	// direct: it was told that the room is a direct chat.
	direct bool
	// watched: the client looks at it. If not, dataAt is how far it knows the
	// account data.
	watched bool
	dataAt  ids.Seq
}

// sentExtensions are the extensions of a response, by what they were about; "" is
// off.
type sentExtensions struct {
	data, receipts, typing, e2ee, threads string
}

// slidingStep is what a response adds to what a client was told. A room that is nil is
// forgotten.
type slidingStep struct {
	at    Position
	moved bool // at is no longer that of the base
	rooms map[ids.RoomID]*sentRoom
	// renewed are the rooms that were told afresh, so that what was sent lazily of
	// them before does not count.
	renewed []ids.RoomID
	lazy    []lazyMember
	ext     sentExtensions
}

// slidingConn is a connection. It keeps two positions: base is what the client has if
// it had all but the last response, and the step what this added. A request with the
// position of the last response adds the step to the base; one with that of the
// response before (it was lost, or the client wants something else) drops it. There
// are no others, so memory does not grow with the positions that were given out.
type slidingConn struct {
	key connKey
	// active and used are guarded by sliding.mu.
	active int
	used   time.Time

	// mu is held while a response is built.
	mu struct {
		sync.Mutex
		nonce  string
		serial uint64
		baseID string
		nextID string
		base   slidingBase
		next   *slidingStep
		states map[string]*required
		turn   uint64
		over   chan struct{} // closed when the next request comes
	}
}

type slidingBase struct {
	at    *sparse // nil before the first response
	rooms map[ids.RoomID]*sentRoom
	lazy  lazyMembers
	ext   sentExtensions
}

type deviceKey struct {
	user   ids.UserID
	device ids.DeviceID
}

type connKey struct {
	deviceKey
	name string
}

// slidingTurn is one request on a connection.
type slidingTurn struct {
	conn *slidingConn
	n    uint64
	over <-chan struct{}
}

// sliding holds the connections of a node.
type sliding struct {
	mu struct {
		sync.Mutex
		devices map[deviceKey]map[string]*slidingConn
		count   int
	}
}

func (s *sliding) init() { s.mu.devices = make(map[deviceKey]map[string]*slidingConn) }

// enter begins a request: with a new connection if it has no position, and else on
// the one that gave the position out.
func (s *sliding) enter(req *SlidingRequest, now time.Time) (*slidingTurn, error) {
	key := connKey{deviceKey{req.User, req.Device}, req.Conn}
	c, replaced := s.take(key, req.Pos == "", now)
	if replaced != nil {
		replaced.interrupt()
	}
	if c == nil {
		return nil, fmt.Errorf("no connection: %w", ErrUnknownPosition)
	}
	t, err := c.enter(req.Pos)
	if err != nil {
		s.leave(c, now)
	}
	return t, err
}

// take returns a connection for a request that begins: a new one if fresh, and the one
// that this replaces.
func (s *sliding) take(key connKey, fresh bool, now time.Time) (c, replaced *slidingConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.mu.devices[key.deviceKey][key.name]
	if fresh {
		replaced = c
		if c != nil {
			s.dropLocked(c)
		}
		c = s.addLocked(key)
	}
	if c != nil {
		c.active++
		c.used = now
	}
	return c, replaced
}

func (s *sliding) addLocked(key connKey) *slidingConn {
	if s.mu.count >= maxSlidingConns {
		for _, conns := range s.mu.devices {
			if c := oldest(conns); c != nil && c.active == 0 {
				s.dropLocked(c)
				break
			}
		}
	}
	if conns := s.mu.devices[key.deviceKey]; len(conns) >= maxConns {
		s.dropLocked(oldest(conns))
	}
	conns := s.mu.devices[key.deviceKey]
	if conns == nil {
		conns = make(map[string]*slidingConn)
		s.mu.devices[key.deviceKey] = conns
	}
	c := &slidingConn{key: key}
	c.mu.nonce = rand.Text()[:10]
	c.mu.base.rooms, c.mu.base.lazy = make(map[ids.RoomID]*sentRoom), make(lazyMembers)
	c.mu.states = make(map[string]*required)
	c.mu.over = make(chan struct{})
	conns[key.name] = c
	s.mu.count++
	return c
}

func oldest(conns map[string]*slidingConn) (found *slidingConn) {
	for _, c := range conns {
		if found == nil || c.used.Before(found.used) {
			found = c
		}
	}
	return found
}

func (s *sliding) dropLocked(c *slidingConn) {
	conns := s.mu.devices[c.key.deviceKey]
	if conns[c.key.name] != c {
		return
	}
	delete(conns, c.key.name)
	s.mu.count--
	if len(conns) == 0 {
		delete(s.mu.devices, c.key.deviceKey)
	}
}

// leave ends a request.
func (s *sliding) leave(c *slidingConn, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.active--
	c.used = now
}

// expire forgets the connections that nobody has used for a while.
func (s *sliding) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conns := range s.mu.devices {
		for _, c := range conns {
			if c.active == 0 && now.Sub(c.used) > idleConn {
				s.dropLocked(c)
			}
		}
	}
}

// enter begins a request at a position, and ends the one before.
func (c *slidingConn) enter(pos string) (*slidingTurn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case pos == c.mu.nextID && c.mu.next != nil:
		c.promoteLocked()
	case pos == c.mu.baseID:
		c.mu.next = nil
	default:
		return nil, fmt.Errorf("position of another response: %w", ErrUnknownPosition)
	}
	c.interruptLocked()
	return &slidingTurn{c, c.mu.turn, c.mu.over}, nil
}

// interrupt ends the request that waits, if there is one.
func (c *slidingConn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interruptLocked()
}

func (c *slidingConn) interruptLocked() {
	c.mu.turn++
	close(c.mu.over)
	c.mu.over = make(chan struct{})
}

// promoteLocked takes the last response for received.
func (c *slidingConn) promoteLocked() {
	base, step := &c.mu.base, c.mu.next
	renewed := make(map[ids.RoomID]bool, len(step.renewed))
	for _, id := range step.renewed {
		renewed[id] = true
	}
	if len(renewed) > 0 {
		maps.DeleteFunc(base.lazy, func(k lazyKey, _ ids.Seq) bool { return renewed[k.room] })
	}
	base.lazy.add(step.lazy)
	for id, s := range step.rooms {
		if s == nil {
			delete(base.rooms, id)
		} else {
			base.rooms[id] = s
		}
	}
	if len(base.rooms) > maxSentRooms {
		maps.DeleteFunc(base.rooms, func(_ ids.RoomID, s *sentRoom) bool { return !s.watched })
	}
	base.at, base.ext = newSparse(&step.at), step.ext
	c.mu.baseID, c.mu.next = c.mu.nextID, nil
}

// beginLocked returns a step from the base.
func (c *slidingConn) beginLocked(count int) *slidingStep {
	step := &slidingStep{rooms: make(map[ids.RoomID]*sentRoom), ext: c.mu.base.ext}
	if c.mu.base.at == nil {
		step.at = NewPosition(count)
		return step
	}
	step.at, step.moved = *c.mu.base.at.position(count), true
	return step
}

// commitLocked makes a step the last response, and returns its position.
func (c *slidingConn) commitLocked(step *slidingStep) string {
	c.mu.serial++
	var b strings.Builder
	b.WriteString(slidingPrefix)
	b.WriteString(strconv.FormatUint(c.mu.serial, 10))
	b.WriteByte('.')
	b.WriteString(c.mu.nonce)
	b.WriteString(slidingSeparator)
	b.WriteString(step.at.Token())
	c.mu.next, c.mu.nextID = step, b.String()
	return c.mu.nextID
}

// internLocked returns a required_state that the connection remembers in place of an
// equal one: rooms share it.
func (c *slidingConn) internLocked(q *required) *required {
	if old := c.mu.states[q.key]; old != nil {
		return old
	}
	if len(c.mu.states) >= maxStates {
		clear(c.mu.states)
	}
	c.mu.states[q.key] = q
	return q
}

// slidingLazy is what a connection has of members. What the step brings does not
// count: a step that goes on has brought nothing.
type slidingLazy struct{ c *slidingConn }

var _ lazyMemory = slidingLazy{}

func (l slidingLazy) member(k lazyKey) ids.Seq { return l.c.mu.base.lazy[k] }
