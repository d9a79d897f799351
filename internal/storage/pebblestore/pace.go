package pebblestore

import (
	"strings"
	"sync/atomic"
	"time"
)

const (
	// paceStep is how many bytes of a table are written at a time, and pacePause the
	// pause behind them. To merge is to compute: of two processors one would be busy
	// with nothing else for a quarter of a second, in slices of the 10 ms after which Go
	// interrupts a goroutine, and a message passes through several goroutines that each
	// wait for such a slice to end. A step takes a third of a millisecond to
	// compute, and then it is the turn of the others.
	paceStep  = 32 << 10
	pacePause = time.Millisecond
	// paceMemTables is how many memtables, that which takes commits included, are
	// written out at this pace. With more, and with twice the sublevels for which
	// a merge begins (up to there the pauses shrink), there are no pauses: what commits
	// would wait for next is a stall.
	paceMemTables = 2
)

// pacer slows down the writing of tables in the background while nobody waits
// for it.
type pacer struct {
	// load tells how many memtables there are and how many sublevels the topmost
	// level has. It is not called before the store is open.
	load  func() (memTables, sublevels int)
	sleep func(time.Duration)
	off   atomic.Bool // the store closes, and waits for the tables
}

// pause returns how long to wait behind each step of a table that begins now.
func (p *pacer) pause() time.Duration {
	memTables, sublevels := p.load()
	if memTables > paceMemTables {
		return 0
	}
	over := min(max(0, sublevels-l0Compaction), l0Compaction)
	return pacePause * time.Duration(l0Compaction-over) / l0Compaction
}

// isTable says whether a file of Pebble's is a table of rows.
func isTable(base string) bool { return strings.HasSuffix(base, ".sst") }

// pace is how one file is written; as fast as can be if it is nil.
type pace struct {
	*pacer
	length time.Duration // of a pause
	left   int           // bytes until the next one
}

// begin returns the pace of a table.
func (p *pacer) begin() *pace {
	return &pace{pacer: p, length: p.pause(), left: paceStep}
}

// wrote waits when a step is full.
func (p *pace) wrote(n int) {
	if p == nil || p.length == 0 {
		return
	}
	if p.left -= n; p.left > 0 || p.off.Load() {
		return
	}
	p.left = paceStep
	p.sleep(p.length)
}
