package bench

import "github.com/hubbub-chat/hubbub/internal/ids"

// history is a room's messages of the run, oldest first, as the server tells
// them afterwards.
type history []received

// finish draws the balance. histories has the rooms whose history was read; of a
// room without one, the order that its members saw is taken. Rooms without
// members need one.
func (c *checker) finish(histories map[ids.RoomID]history) {
	for _, r := range c.rooms() {
		if h, ok := histories[r.id]; ok {
			c.compareHistory(r, h)
		}
	}
	for _, m := range c.members() {
		m.finish()
	}
	for _, r := range c.rooms() {
		c.compareSent(r)
	}
	c.mu.Lock()
	ledgers := c.mu.ledgers
	c.mu.Unlock()
	for _, l := range ledgers {
		for n, a := range l.mu.attempts {
			if a.outcome == outcomeAcked && !a.delivered {
				c.fault("lost", "room %s: message %d of sender %d was acknowledged as %s and is not there", a.room.id, n, l.sender, a.id)
			}
		}
	}
}

// compareHistory checks that what members saw is the beginning of the history,
// and takes the rest over: nobody may have seen it without a gap.
func (c *checker) compareHistory(r *roomLog, h history) {
	order := r.snapshot()
	for i, e := range order {
		if i >= len(h) {
			c.fault("history", "room %s: %s was delivered, the history ends before it", r.id, e.id)
			return
		}
		if h[i].id != e.id {
			c.fault("history", "room %s: number %d is %s in the history, members saw %s", r.id, i, h[i].id, e.id)
			return
		}
	}
	for i := len(order); i < len(h); i++ {
		if len(r.extend(i, h[i])) == i {
			c.fault("history", "room %s: the history has %s twice", r.id, h[i].id)
			return
		}
	}
}

// finish checks that a member has seen its room to the end.
func (m *member) finish() {
	m.recover()
	if len(m.runs) > 0 && len(m.runs[0]) > 0 {
		m.c.fault("order", "room %s, member %s: got %s, which nobody else knows", m.log.id, m.name, m.runs[0][0].id)
		return
	}
	order := m.log.snapshot()
	missing := len(order) - m.at
	switch {
	case missing <= 0 || m.gone.Load():
	case len(m.runs) > 0: // its last word was a limited timeline without events
		m.skipped.Add(int64(missing))
	default:
		m.c.fault("missed", "room %s, member %s: the last %d events, from %s on", m.log.id, m.name, missing, order[m.at].id)
	}
}

// compareSent checks a room's order against what was sent to it.
func (c *checker) compareSent(r *roomLog) {
	c.mu.Lock()
	ledgers := c.mu.ledgers
	c.mu.Unlock()
	for _, e := range r.snapshot() {
		if e.sender >= len(ledgers) || e.number >= len(ledgers[e.sender].mu.attempts) {
			c.fault("not sent", "room %s: %s says it is message %d of sender %d", r.id, e.id, e.number, e.sender)
			continue
		}
		a := &ledgers[e.sender].mu.attempts[e.number]
		switch {
		case a.room != r:
			c.fault("wrong room", "%s was sent to %s and is in %s", e.id, a.room.id, r.id)
		case a.delivered:
			c.fault("doubled", "room %s: message %d of sender %d is there twice, again as %s", r.id, e.number, e.sender, e.id)
		case a.outcome == outcomeRefused:
			c.fault("refused", "room %s: message %d of sender %d was refused and is there as %s", r.id, e.number, e.sender, e.id)
		case a.outcome == outcomeAcked && a.id != e.id:
			c.fault("renamed", "room %s: message %d of sender %d was acknowledged as %s and is there as %s", r.id, e.number, e.sender, a.id, e.id)
		}
		a.delivered = true
	}
}
