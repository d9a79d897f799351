package bench

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// checker proves what a run delivered: each acknowledged message reached each
// member exactly once, all members of a room saw one order, and nothing came
// that was not sent.
//
// Steps: a ledger notes each attempt to send and its outcome. A room's log is
// the order of the first member that saw each event; every other member only has
// a place in it and is compared as frames come, so that a delivery costs no
// memory. At the end finish compares the logs with the ledgers, the places with
// the logs, and the logs with the history that the server tells.
//
// Where the server says that it skipped (a limited timeline, which it may for a
// slow reader), the member's place is lost; it is found again at the first event
// that the log has. Skipped events are counted, they are no fault.
//
// It does no I/O. frame may run for different members at once; a member's calls
// come one after another. finish comes when all of them are over.
type checker struct {
	tallies [tallyShards]tally

	mu struct {
		sync.Mutex
		rooms   map[ids.RoomID]*roomLog
		ledgers []*ledger
		members []*member
		faults  map[string]int
		texts   []string
	}
}

// tallyShards spread the counters over cache lines: members share them by
// number.
const tallyShards = 16

// maxFaultTexts bounds how many faults are described; the rest is counted.
const maxFaultTexts = 20

// phase tells messages of different parts of a run apart. Those of phase 0 are
// not measured.
type phase uint8

const (
	phaseWarm phase = iota
	phaseFirst
	phaseSecond
	phaseThird
	phaseFourth
	phaseFifth
	phases
)

// tally counts deliveries.
type tally struct {
	delivered atomic.Int64
	latency   [phases]Histogram
}

func newChecker() *checker {
	c := &checker{}
	c.mu.rooms = make(map[ids.RoomID]*roomLog)
	c.mu.faults = make(map[string]int)
	return c
}

// fault notes a broken promise.
func (c *checker) fault(kind, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.faults[kind]++
	if len(c.mu.texts) < maxFaultTexts {
		c.mu.texts = append(c.mu.texts, kind+": "+fmt.Sprintf(format, args...))
	}
}

// faults returns the number of faults by kind, and descriptions of the first.
func (c *checker) faults() (map[string]int, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.mu.faults), slices.Clone(c.mu.texts)
}

// delivered is how many deliveries were counted so far.
func (c *checker) delivered() int64 {
	var n int64
	for i := range c.tallies {
		n += c.tallies[i].delivered.Load()
	}
	return n
}

// latency returns the time from when messages of a phase were due to each of
// their deliveries.
func (c *checker) latency(p phase) *Histogram {
	h := new(Histogram)
	for i := range c.tallies {
		h.Add(&c.tallies[i].latency[p])
	}
	return h
}

// skipped is how many deliveries limited timelines left out.
func (c *checker) skipped() int64 {
	var n int64
	for _, m := range c.members() {
		n += m.skipped.Load()
	}
	return n
}

func (c *checker) members() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.members)
}

func (c *checker) rooms() []*roomLog {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.mu.rooms))
}

// entry is one message in the order of its room.
type entry struct {
	received
}

// roomLog is the order of a room's messages as the first that saw each.
type roomLog struct {
	id ids.RoomID
	mu struct {
		sync.Mutex
		order []entry // grows only; what was handed out does not change
		place map[ids.EventID]int
	}
}

// room adds a room.
func (c *checker) room(id ids.RoomID) *roomLog {
	r := &roomLog{id: id}
	r.mu.place = make(map[ids.EventID]int)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.rooms[id] = r
	return r
}

func (r *roomLog) snapshot() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.order
}

// find returns the place of an event, -1 if it has none.
func (r *roomLog) find(id ids.EventID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.mu.place[id]; ok {
		return at
	}
	return -1
}

// extend puts an event at the end, if the end is at a place, and returns the
// order. Of two members that come at once one finds the other's event there.
func (r *roomLog) extend(at int, e received) []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.mu.place[e.id]; len(r.mu.order) == at && !twice {
		r.mu.order = append(r.mu.order, entry{e})
		r.mu.place[e.id] = at
	}
	return r.mu.order
}

// outcome is what is known of an attempt to send.
type outcome uint8

const (
	outcomeUnknown outcome = iota // no answer, or one that leaves it open
	outcomeAcked
	outcomeRefused
)

// attempt is one message that a sender tried to send.
type attempt struct {
	room      *roomLog
	id        ids.EventID
	outcome   outcome
	delivered bool
}

// ledger is what one sender tried.
type ledger struct {
	sender int
	mu     struct {
		sync.Mutex
		attempts []attempt
	}
}

func (c *checker) ledger() *ledger {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &ledger{sender: len(c.mu.ledgers)}
	c.mu.ledgers = append(c.mu.ledgers, l)
	return l
}

// begin notes an attempt and returns its number.
func (l *ledger) begin(r *roomLog) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.attempts = append(l.mu.attempts, attempt{room: r})
	return len(l.mu.attempts) - 1
}

// end notes the outcome of an attempt; id is that of an acknowledged one.
func (l *ledger) end(number int, o outcome, id ids.EventID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.mu.attempts[number]
	a.outcome, a.id = o, id
}

// count returns how many attempts had an outcome.
func (c *checker) count(o outcome) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, l := range c.mu.ledgers {
		l.mu.Lock()
		for i := range l.mu.attempts {
			if l.mu.attempts[i].outcome == o {
				n++
			}
		}
		l.mu.Unlock()
	}
	return n
}

// last is the event of the last attempt, "" if it was not acknowledged.
func (l *ledger) last() ids.EventID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.attempts[len(l.mu.attempts)-1].id
}

// used are the rooms that something was sent to.
func (c *checker) used() map[ids.RoomID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := make(map[ids.RoomID]bool)
	for _, l := range c.mu.ledgers {
		l.mu.Lock()
		for i := range l.mu.attempts {
			used[l.mu.attempts[i].room.id] = true
		}
		l.mu.Unlock()
	}
	return used
}

// since is the time on the clock of the run.
type since func() int64

// sinceStart returns a clock that counts nanoseconds from now on.
func sinceStart() since {
	start := time.Now()
	return func() int64 { return int64(time.Since(start)) }
}
