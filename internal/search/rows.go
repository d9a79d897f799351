package search

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// What rows hold is part of the on-disk format.

func key(t storage.Table, p ids.Partition, r ids.RoomID, sort string) storage.Key {
	return storage.Key{Partition: p, Table: t, Entity: string(r), Sort: sort}
}

const (
	// maxSpan bounds how far apart the postings of one row are. Whoever looks for
	// what is below a position need not look further above it for rows.
	maxSpan = 4096
	// maxPacked bounds the postings of a row.
	maxPacked = 512
)

func postingSort(term string, s ids.Seq) string { return partition.JoinSort(term, tables.SeqSort(s)) }

// posting is what the index says of a term in an event.
type posting struct {
	seq ids.Seq
	ts  int64
	// edit is the position of the edit whose text was indexed, 0 for the event's own.
	edit ids.Seq
}

// packPostings calls fn with rows for postings of one term, in any order: the
// position each stands under, which is its highest, and its value.
func packPostings(list []posting, fn func(ids.Seq, []byte)) {
	slices.SortFunc(list, func(a, b posting) int { return cmp.Compare(b.seq, a.seq) })
	for len(list) > 0 {
		first, last := list[0], posting{seq: list[0].seq}
		value := make([]byte, 0, 8+4*min(len(list), maxPacked))
		n := 0
		for _, p := range list {
			if n == maxPacked || first.seq-p.seq >= maxSpan {
				break
			}
			value = binary.AppendUvarint(value, uint64(last.seq-p.seq))
			value = binary.AppendVarint(value, p.ts-last.ts)
			edit := p.edit
			if edit != 0 {
				edit -= p.seq
			}
			value = binary.AppendUvarint(value, uint64(edit))
			last = p
			n++
		}
		fn(first.seq, value)
		list = list[n:]
	}
}

// appendPostings decodes a row, the newest first.
func appendPostings(list []posting, e *storage.Entry) []posting {
	p := posting{seq: tables.SortSeq(e.Sort)}
	for row := e.Value; len(row) > 0; {
		down, a := binary.Uvarint(row)
		if a <= 0 {
			break
		}
		ts, b := binary.Varint(row[a:])
		if b <= 0 {
			break
		}
		edit, c := binary.Uvarint(row[a+b:])
		if c <= 0 {
			break
		}
		row = row[a+b+c:]
		p.seq -= ids.Seq(down)
		p.ts += ts
		if p.edit = ids.Seq(edit); edit != 0 {
			p.edit += p.seq
		}
		list = append(list, p)
	}
	return list
}

// The words of a room. A row (ending, NUL, word) leads from an ending, or the whole
// word, to the word. Where many words are new at once, one row lists those that
// have two neighbouring letters behind their beginning: NUL, the letters, NUL, and a
// hash of the list, so that a list is never lost to another.

// minGroup is how many new words with the same two letters share a row. Rows of
// fewer are better found one by one.
const minGroup = 4

func groupPrefix(pair string) string { return "\x00" + pair + "\x00" }

func groupRow(pair string, words []string) (sort string, value []byte) {
	value = []byte(strings.Join(words, "\x00"))
	sum := sha256.Sum256(value)
	return groupPrefix(pair) + string(sum[:8]), value
}

// pairOf returns the first two letters of an ending.
func pairOf(ending string) string {
	_, a := utf8.DecodeRuneInString(ending)
	_, b := utf8.DecodeRuneInString(ending[a:])
	return ending[:a+b]
}

// putWords makes new words of a room be found by their parts.
func putWords(words []string, put func(sort string, value []byte)) {
	slices.Sort(words)
	byPair := make(map[string][]string)
	for _, word := range words {
		put(partition.JoinSort(word, word), []byte{})
		textindex.Endings(word, func(ending string) {
			pair := pairOf(ending)
			if list := byPair[pair]; len(list) == 0 || list[len(list)-1] != word {
				byPair[pair] = append(list, word)
			}
		})
	}
	for pair, list := range byPair {
		if len(list) >= minGroup {
			put(groupRow(pair, list))
			continue
		}
		for _, word := range list {
			textindex.Endings(word, func(ending string) {
				if pairOf(ending) == pair {
					put(partition.JoinSort(ending, word), []byte{})
				}
			})
		}
	}
}

// The kinds of SearchDoc rows, their first byte.
const (
	docTerms = 't' // an event: the edit used, and the terms, separated by NUL
	docEdit  = 'e' // an edit: the position of what it edits
)

// doc is a SearchDoc row.
type doc struct {
	of    ids.Seq // of an edit
	edit  ids.Seq
	terms []string
}

func (d *doc) encode() []byte {
	if d.of != 0 {
		return binary.AppendUvarint([]byte{docEdit}, uint64(d.of))
	}
	n := 1 + binary.MaxVarintLen64
	for _, t := range d.terms {
		n += len(t) + 1
	}
	b := binary.AppendUvarint(append(make([]byte, 0, n), docTerms), uint64(d.edit))
	for i, t := range d.terms {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, t...)
	}
	return b
}

func decodeDoc(row []byte) doc {
	if len(row) < 2 {
		return doc{}
	}
	v, n := binary.Uvarint(row[1:])
	if n <= 0 {
		return doc{}
	}
	if row[0] == docEdit {
		return doc{of: ids.Seq(v)}
	}
	d := doc{edit: ids.Seq(v)}
	if rest := string(row[1+n:]); rest != "" {
		d.terms = strings.Split(rest, "\x00")
	}
	return d
}
