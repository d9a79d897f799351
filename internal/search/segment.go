package search

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// A segment is what some hundred messages of a room say. All its rows are made of its
// entries and of nothing else, so that one which changes is made again and the rows that
// differ are written, and no segment has to know what others have:
//
//   - one row of the positions, by which the segment of an event is found;
//   - one of the entries;
//   - rows of postings: terms are spread over buckets by their hash, and those of a bucket
//     share a row;
//   - rows of words: each pair of neighbouring letters of a word puts it into a bucket, so
//     that any part of the word finds it there.
//
// The name of a segment has its highest position first: in each bucket rows are in
// order of the newest message.
//
// Rejected: a row for each term, or for each word that is new to a room (700 messages have
// 3,400 different words); merging segments (it writes everything again, and there are only
// some 170 for 100,000 messages).

// The kinds of rows of a segment, the first byte of their sort. A bucket follows for the
// last two, then the name.
const (
	rowPositions = 'i'
	rowEntries   = 'd'
	rowPostings  = 't'
	rowWords     = 'w'
)

// buckets is how many rows of each kind a segment has. Twice as many would let a search
// read half as much of each, and a message leave twice as many rows.
const buckets = 128

// segmentID names a segment.
func segmentID(highest ids.Seq, version uint64) string {
	return tables.SeqSort(highest) + tables.SeqSort(ids.Seq(version))
}

func segmentSort(kind byte, id string) string { return string([]byte{kind}) + id }

func bucketSort(kind byte, bucket uint8, id string) string { return string([]byte{kind, bucket}) + id }

// highest is the highest position in the segment that a row of a bucket belongs to.
func highest(sort string) ids.Seq { return tables.SortSeq(sort[:min(len(sort), 2+8)]) }

// bucketOf spreads strings: FNV-1a.
func bucketOf(s string) uint8 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return uint8((h ^ h>>16) % buckets)
}

// eachGram calls fn with the parts by which a term is found though it is not what
// somebody looks for: pairs of letters of a word, the first letter of a pair of letters of
// scripts without spaces.
func eachGram(term string, fn func(string)) {
	switch textindex.KindOf(term) {
	case textindex.Word:
		for rest := term; ; {
			pair := pairOf(rest)
			_, first := utf8.DecodeRuneInString(rest)
			if len(pair) == first {
				return
			}
			fn(pair)
			rest = rest[first:]
		}
	case textindex.Unspaced:
		_, first := utf8.DecodeRuneInString(term)
		fn(term[:first])
	}
}

// gram is the part that leads to the terms which a needle is a part of.
func (n *needle) gram() string {
	if textindex.KindOf(n.term) == textindex.Unspaced {
		return n.term
	}
	return pairOf(n.term)
}

// segmentRows returns the rows of a segment by their sort.
func segmentRows(id string, entries []entry) map[string][]byte {
	rows := make(map[string][]byte)
	if len(entries) == 0 {
		return rows
	}
	rows[segmentSort(rowPositions, id)] = encodePositions(entries)
	rows[segmentSort(rowEntries, id)] = encodeEntries(entries)
	byTerm := make(map[string][]posting)
	for i := len(entries) - 1; i >= 0; i-- {
		for _, t := range entries[i].terms {
			byTerm[t] = append(byTerm[t], entries[i].posting())
		}
	}
	var postings, words [buckets][]byte
	top := tables.SortSeq(id[:8])
	for _, term := range slices.Sorted(maps.Keys(byTerm)) {
		b := bucketOf(term)
		postings[b] = appendTerm(postings[b], term, byTerm[term], top)
		var in [buckets]bool
		eachGram(term, func(gram string) {
			if b := bucketOf(gram); !in[b] {
				in[b] = true
				if len(words[b]) > 0 {
					words[b] = append(words[b], 0)
				}
				words[b] = append(words[b], term...)
			}
		})
	}
	for b := range uint8(buckets) {
		if len(postings[b]) > 0 {
			rows[bucketSort(rowPostings, b, id)] = postings[b]
		}
		if len(words[b]) > 0 {
			rows[bucketSort(rowWords, b, id)] = words[b]
		}
	}
	return rows
}

// appendTerm appends the postings of a term, the newest first, none above top.
func appendTerm(b []byte, term string, list []posting, top ids.Seq) []byte {
	packed := make([]byte, 0, 8+4*len(list))
	last := posting{seq: top}
	for _, p := range list {
		packed = appendPosting(packed, p, last)
		last = p
	}
	b = binary.AppendUvarint(b, uint64(len(term)))
	b = append(b, term...)
	b = binary.AppendUvarint(b, uint64(len(packed)))
	return append(b, packed...)
}

// termPostings returns the postings of a term in a row of its bucket, encoded; nil if
// there are none.
func termPostings(row []byte, term string) []byte {
	for len(row) > 0 {
		name, rest, ok := cutBytes(row)
		if !ok {
			return nil
		}
		packed, rest, ok := cutBytes(rest)
		if !ok {
			return nil
		}
		if string(name) == term {
			return packed
		}
		row = rest
	}
	return nil
}

func cutBytes(b []byte) (head, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	return b[:v], b[v:], true
}

func encodePositions(entries []entry) []byte {
	var b []byte
	last := ids.Seq(0)
	for i := range entries {
		b = binary.AppendUvarint(b, uint64(entries[i].seq-last))
		last = entries[i].seq
	}
	return b
}

func decodePositions(b []byte) (list []ids.Seq) {
	for last := ids.Seq(0); ; {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return list
		}
		last += ids.Seq(v)
		list = append(list, last)
		b = b[n:]
	}
}

const (
	// segmentsPage is how many segments are read at once of a bucket.
	segmentsPage = 16
	// wordsPage is how many lists of words are read at once.
	wordsPage = 256
	// maxRows is how many segments are looked into for words: what a room said longer ago,
	// some millions of messages before, is found by words that were said again since.
	maxRows = 16 * wordsPage
)

// eachRow calls fn with the rows of a bucket of a room, those of the newest segments
// first, until it returns false, page rows at a time.
func (x *Index) eachRow(ctx context.Context, s *source, bucket string, page int, fn func(row []byte) bool) error {
	to := partition.PrefixEnd(bucket)
	for range maxRows / page {
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchSegment, Entity: string(s.room), From: bucket, To: to, Limit: page, Reverse: true,
		})
		if err != nil {
			return wrap("search segments", err)
		}
		for i := range rows {
			if !fn(rows[i].Value) {
				return nil
			}
		}
		if len(rows) < page {
			return nil
		}
		to = rows[len(rows)-1].Sort
	}
	return nil
}

// segmentTerms returns the terms in a room's segments that a word can stand for, none
// if there are none: the word itself, then words that begin with it.
func (x *Index) segmentTerms(ctx context.Context, s *source, n *needle) ([]string, error) {
	if n.whole {
		return x.wholeTerm(ctx, s, n)
	}
	var itself, begins, inside []string
	seen := make(map[string]bool)
	err := x.eachRow(ctx, s, bucketSort(rowWords, bucketOf(n.gram()), ""), wordsPage, func(row []byte) bool {
		if !bytes.Contains(row, n.raw) {
			return true
		}
		for term := range strings.SplitSeq(string(row), "\x00") {
			switch {
			case !n.matches(term) || seen[term]:
				continue
			case term == n.term:
				itself = []string{term}
			case strings.HasPrefix(term, n.term):
				begins = append(begins, term)
			default:
				inside = append(inside, term)
			}
			seen[term] = true
		}
		return true
	})
	out := slices.Concat(itself, begins, inside)
	return out[:min(len(out), maxWords)], err
}

// wholeTerm returns the term of a needle that is one, if the room's segments have it.
func (x *Index) wholeTerm(ctx context.Context, s *source, n *needle) (out []string, err error) {
	err = x.eachRow(ctx, s, bucketSort(rowPostings, bucketOf(n.term), ""), segmentsPage, func(row []byte) bool {
		if termPostings(row, n.term) != nil {
			out = []string{n.term}
		}
		return out == nil
	})
	return out, err
}

// fillSegments appends candidates of the next segments, and returns from which position on
// none is missing.
func (x *Index) fillSegments(ctx context.Context, s *source) (complete ids.Seq, err error) {
	under, more := s.under, ""
	for _, term := range s.words {
		bucket := bucketOf(term)
		from := bucketSort(rowPostings, bucket, "")
		to := partition.PrefixEnd(from)
		if under != "" {
			to = bucketSort(rowPostings, bucket, under)
		}
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchSegment, Entity: string(s.room),
			From: from, To: to, Limit: segmentsPage, Reverse: true,
		})
		if err != nil {
			return 0, wrap("search segments", err)
		}
		for i := range rows {
			s.buffer = appendPacked(s.buffer, highest(rows[i].Sort), termPostings(rows[i].Value, term))
		}
		if len(rows) == segmentsPage {
			last := rows[len(rows)-1].Sort
			more = max(more, last[2:])
			complete = max(complete, highest(last)+1)
		}
	}
	s.under, s.segmentsDone = more, more == ""
	return complete, nil
}
