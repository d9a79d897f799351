package api

import "bytes"

// pieceSize is the least length of a piece of a long list in bytes, but for the last: a
// few hundred make the members of a room of 100,000, and none takes long to clear, copy
// or send.
const pieceSize = 64 << 10

// Pieces is a long JSON value as a body, in parts that are sent one behind the other:
// see LongList.
type Pieces [][]byte

// size is the length of all pieces in bytes.
func (p Pieces) size() (n int) {
	for _, b := range p {
		n += len(b)
	}
	return n
}

// LongList writes a JSON array or object of any length.
//
// One stretch of memory of tens of megabytes would be cleared and copied in steps that
// nothing interrupts, for tens of milliseconds; and since the garbage collector waits for
// them, so would everybody else.
type LongList struct {
	pieces Pieces
	b      []byte
	some   bool
}

// NewLongList begins a list with all that stands before its first element.
func NewLongList(open string) *LongList { return &LongList{b: []byte(open)} }

// Add adds an element, which fn appends to its argument.
func (l *LongList) Add(fn func(b []byte) []byte) {
	if len(l.b) >= pieceSize {
		l.pieces = append(l.pieces, l.b)
		l.b = make([]byte, 0, cap(l.b))
	}
	if l.some {
		l.b = append(l.b, ',')
	}
	l.b, l.some = fn(l.b), true
}

// End ends the list with all that stands behind its last element.
func (l *LongList) End(end string) Pieces {
	return append(l.pieces, append(l.b, end...))
}

// joined returns the first piece of a value with all others.
func (p Pieces) joined(first []byte) []byte {
	if len(p) == 0 {
		return first
	}
	return bytes.Join(append(Pieces{first}, p...), nil)
}
