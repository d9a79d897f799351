package search

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// What rows hold is part of the on-disk format.

// entry is what the index has of an event.
type entry struct {
	seq ids.Seq
	ts  int64
	// edit is the position of the edit whose text was indexed, 0 for the event's own.
	edit ids.Seq
	// of is, of an edit, the position of what it edits. It has no terms of its own; the
	// entry tells where it belonged when it is gone.
	of    ids.Seq
	terms []string
}

// empty reports whether the index need not have the entry.
func (e *entry) empty() bool { return e.of == 0 && len(e.terms) == 0 }

// says reports whether two entries of an event say the same.
func (e *entry) says(o *entry) bool {
	return e.of == o.of && e.edit == o.edit && slices.Equal(e.terms, o.terms)
}

func (e *entry) posting() posting { return posting{e.seq, e.ts, e.edit} }

func appendEntry(b []byte, e *entry) []byte {
	n := max(len(e.terms)-1, 0)
	for _, t := range e.terms {
		n += len(t)
	}
	b = binary.AppendUvarint(b, uint64(e.seq))
	b = binary.AppendVarint(b, e.ts)
	b = binary.AppendUvarint(b, uint64(e.edit))
	b = binary.AppendUvarint(b, uint64(e.of))
	b = binary.AppendUvarint(b, uint64(n))
	for i, t := range e.terms {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, t...)
	}
	return b
}

func encodeEntries(list []entry) []byte {
	var b []byte
	for i := range list {
		b = appendEntry(b, &list[i])
	}
	return b
}

// cutEntry decodes the first of encoded entries without its terms, which it returns
// as they stand there. What cannot be read ends the list.
func cutEntry(b []byte) (e entry, terms, rest []byte, ok bool) {
	var v [5]uint64
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(b); n <= 0 {
			return entry{}, nil, nil, false
		}
		b = b[n:]
	}
	if v[4] > uint64(len(b)) {
		return entry{}, nil, nil, false
	}
	ts := int64(v[1]>>1) ^ -int64(v[1]&1) // as binary.Varint does
	return entry{seq: ids.Seq(v[0]), ts: ts, edit: ids.Seq(v[2]), of: ids.Seq(v[3])}, b[:v[4]], b[v[4]:], true
}

func decodeEntries(b []byte) (list []entry) {
	for {
		e, terms, rest, ok := cutEntry(b)
		if !ok {
			return list
		}
		if len(terms) > 0 {
			e.terms = strings.Split(string(terms), "\x00")
		}
		list = append(list, e)
		b = rest
	}
}

// What a room said lately stands in rows of SearchRecent: the newest in the head, under "",
// the rest in blocks, each under the version of the head that it came with.
const (
	// fullBlock is the size of entries in the head from which on they become a block. With
	// each message of a quiet room the head is written anew, half of that on average; a
	// smaller one would make more blocks for a search to read.
	fullBlock = 2 << 10
	// maxRecent is the size of entries of a room from which on they become a segment. A
	// segment has much the same number of rows for a hundred messages and for a thousand;
	// on the other hand a search looks through all entries that are in none.
	maxRecent = 64 << 10
)

// head is the row that every change of a room's index replaces.
type head struct {
	// version is one more with each change. Names of blocks and segments have it.
	version uint64
	// blocks is the size of the entries in blocks, in bytes; 0 if there are none.
	blocks int
	// segments is how many there are.
	segments int
	// high is the highest position of which there was an entry.
	high ids.Seq
	// old: an earlier version of hubbub left rows of the room (old.go).
	old bool
	// entries are the newest, encoded.
	entries []byte
}

const headOld = 1 // a flag of the first byte

func (h *head) encode() []byte {
	b := make([]byte, 1, 32+len(h.entries))
	if h.old {
		b[0] = headOld
	}
	for _, v := range [...]uint64{h.version, uint64(h.blocks), uint64(h.segments), uint64(h.high)} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, h.entries...)
}

// decodeHead decodes a head. A room that has none may have rows of an earlier version.
func decodeHead(row []byte) head {
	if len(row) == 0 {
		return head{old: true}
	}
	h, b := head{old: row[0]&headOld != 0}, row[1:]
	var v [4]uint64
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(b); n <= 0 {
			return h
		}
		b = b[n:]
	}
	h.version, h.blocks, h.segments, h.high, h.entries = v[0], int(v[1]), int(v[2]), ids.Seq(v[3]), slices.Clip(b)
	return h
}

// unused reports whether a room without the head is the same.
func (h *head) unused() bool { return h.blocks == 0 && h.segments == 0 && len(h.entries) == 0 }

// firstBlock is behind the head.
const firstBlock = "\x00"

func blockSort(version uint64) string { return tables.SeqSort(ids.Seq(version)) }

// appendMatches appends the postings of encoded entries that have all the words. Most
// blocks do not have a word anywhere, so that is looked at first.
func appendMatches(list []posting, entries []byte, needles []needle) []posting {
	if !mayHave(entries, needles) {
		return list
	}
	for {
		e, terms, rest, ok := cutEntry(entries)
		if !ok {
			return list
		}
		entries = rest
		if mayHave(terms, needles) && haveAll(string(terms), needles) {
			list = append(list, e.posting())
		}
	}
}

func mayHave(b []byte, needles []needle) bool {
	for i := range needles {
		if !bytes.Contains(b, needles[i].raw) {
			return false
		}
	}
	return true
}

// haveAll reports whether each needle has one of some terms, which NUL separates.
func haveAll(terms string, needles []needle) bool {
	for i := range needles {
		if !needles[i].among(terms) {
			return false
		}
	}
	return true
}
