package bench

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// member is one reader of a room, and its place in the room's order. A user of
// the load generator is a member of one room.
type member struct {
	c     *checker
	name  ids.UserID
	log   *roomLog
	key   []byte // the room's name as a member of a JSON object
	tally *tally
	begun bool // the initial response has come

	order []entry // what is known of the room's order
	at    int     // the place of the next event
	// runs are the events since the place was lost, by gap.
	runs [][]received

	skipped atomic.Int64
	gone    atomic.Bool // its connection ended early: it need not see the end
}

func (c *checker) member(name ids.UserID, r *roomLog) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &member{c: c, name: name, log: r, key: []byte(`"` + string(r.id) + `":`), tally: &c.tallies[len(c.mu.members)%tallyShards]}
	c.mu.members = append(c.mu.members, m)
	return m
}

// take takes a sync frame or a /sync response in, received at a time of the run's
// clock.
func (m *member) take(b []byte, now int64) {
	if m.begun && m.takeExpected(b, now) {
		return
	}
	u, err := parseUpdate(b)
	if err != nil {
		m.c.fault("malformed", "room %s, member %s: %v", m.log.id, m.name, err)
		return
	}
	for room, r := range u.Rooms.Join {
		events := ours(r.Timeline.Events)
		if room != m.log.id {
			if len(events) > 0 {
				m.c.fault("wrong room", "member %s of %s got %s of %s", m.name, m.log.id, events[0].id, room)
			}
			continue
		}
		m.takeEvents(events, r.Timeline.Limited && m.begun, now)
	}
	m.begun = true
}

// takeExpected takes a frame in if its events are the next ones of the room's
// order, which is so for everyone but the first to see them. Nothing is parsed:
// it looks for event IDs only.
func (m *member) takeExpected(frame []byte, now int64) bool {
	b := frame
	if len(m.runs) > 0 || bytes.Contains(b, []byte(limitedTrue)) {
		return false
	}
	at := m.at
	for {
		var id []byte
		if id, b = nextEventID(b); id == nil {
			break
		}
		if at == len(m.order) {
			m.order = m.log.snapshot()
		}
		if at == len(m.order) || string(id) != string(m.order[at].id) {
			return false
		}
		at++
	}
	if at > m.at && !bytes.Contains(frame, m.key) {
		return false
	}
	for i := m.at; i < at; i++ {
		m.count(&m.order[i].received, now)
	}
	m.at = at
	return true
}

func (m *member) count(e *received, now int64) {
	m.tally.delivered.Add(1)
	if e.phase != phaseWarm {
		m.tally.latency[e.phase].Record(time.Duration(now - e.due))
	}
}

// takeEvents takes the messages of one timeline in.
func (m *member) takeEvents(events []received, limited bool, now int64) {
	for i := range events {
		m.count(&events[i], now)
	}
	if limited {
		m.runs = append(m.runs, nil)
	}
	if len(m.runs) == 0 {
		m.follow(events)
		return
	}
	last := len(m.runs) - 1
	m.runs[last] = append(m.runs[last], events...)
	m.recover()
}

// recover finds the place again after gaps, as far as the room's log reaches.
func (m *member) recover() {
	for len(m.runs) > 0 {
		run := m.runs[0]
		if len(run) == 0 {
			if len(m.runs) == 1 {
				return
			}
			m.runs = m.runs[1:]
			continue
		}
		at := m.log.find(run[0].id)
		if at < 0 {
			return
		}
		if at < m.at {
			m.c.fault("repeated", "room %s, member %s: %s again after a gap", m.log.id, m.name, run[0].id)
		} else {
			m.skipped.Add(int64(at - m.at))
		}
		m.at, m.runs = at, m.runs[1:]
		m.follow(run)
	}
}

// follow compares events, which come without a gap, with the room's order.
func (m *member) follow(events []received) {
	for _, e := range events {
		if m.at >= len(m.order) {
			m.order = m.log.snapshot()
		}
		if m.at == len(m.order) {
			m.order = m.log.extend(m.at, e)
		}
		if m.at < len(m.order) && m.order[m.at].id == e.id {
			m.at++
			continue
		}
		m.disorder(e)
	}
}

// disorder describes an event that is not the next one, and goes on behind it.
func (m *member) disorder(e received) {
	switch at := m.log.find(e.id); {
	case at < 0:
		m.c.fault("order", "room %s, member %s: got %s where others have %s", m.log.id, m.name, e.id, m.order[m.at].id)
	case at < m.at:
		m.c.fault("repeated", "room %s, member %s: got %s (number %d of the room) again, or out of order, at number %d", m.log.id, m.name, e.id, at, m.at)
	default:
		m.c.fault("missed", "room %s, member %s: %d events before %s, the first is %s", m.log.id, m.name, at-m.at, e.id, m.order[m.at].id)
		m.at = at + 1
	}
}
