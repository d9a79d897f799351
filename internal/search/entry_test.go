package search

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

func drawEntry(t *rapid.T) entry {
	e := entry{seq: ids.Seq(rapid.Uint64().Draw(t, "seq")), ts: rapid.Int64().Draw(t, "ts")}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		e.of = ids.Seq(rapid.Uint64Min(1).Draw(t, "of"))
		return e
	case 1:
		e.edit = ids.Seq(rapid.Uint64().Draw(t, "edit"))
	}
	e.terms = rapid.SliceOfN(rapid.StringMatching("[a-zä東]{1,9}"), 1, 20).Draw(t, "terms")
	return e
}

// TestEntries: what was encoded is decoded, and an entry that is cut off ends the list.
func TestEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(drawEntry), 1, 10).Draw(t, "entries")
		b := encodeEntries(list)
		if got := decodeEntries(b); !reflect.DeepEqual(got, list) {
			t.Fatalf("got %v, want %v", got, list)
		}
		h := head{
			version: rapid.Uint64().Draw(t, "version"), blocks: rapid.IntRange(0, maxRecent).Draw(t, "blocks"), segments: 3,
			high: ids.Seq(rapid.Uint64().Draw(t, "high")), old: rapid.Bool().Draw(t, "old"), entries: b,
		}
		if got := decodeHead(h.encode()); !reflect.DeepEqual(got, h) {
			t.Fatalf("head %v, want %v", got, h)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if got := decodeEntries(b[:n]); len(got) >= len(list) || len(got) > 0 && !reflect.DeepEqual(got, list[:len(got)]) {
			t.Fatalf("of a part %v, want the first of %v", got, list)
		}
	})
}

// FuzzRows: no row makes a reader fail or go beyond it.
func FuzzRows(f *testing.F) {
	f.Add([]byte{}, "word")
	f.Add(encodeEntries([]entry{{seq: 7, ts: 1 << 40, terms: []string{"some", "word"}}, {seq: 9, of: 7}}), "word")
	f.Add(appendTerm(nil, "word", []posting{{seq: 9}, {seq: 7, ts: 5, edit: 8}}, 9), "word")
	f.Fuzz(func(_ *testing.T, b []byte, word string) {
		decodeHead(b)
		decodeEntries(b)
		decodePositions(b)
		decodeDoc(1, b)
		appendPacked(nil, 1, termPostings(b, word))
		appendMatches(nil, b, newNeedles([]string{word}))
		highest(string(b))
	})
}

// TestSegmentRows: each term of a segment leads to its events, and each part of a word to
// the word, as long as somebody may look for it.
func TestSegmentRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching("[a-c1-2äц東京ー🙂 ]{0,30}")
		var entries []entry
		want := make(map[string][]ids.Seq)
		for i := range rapid.IntRange(1, 8).Draw(t, "entries") {
			e := entry{seq: ids.Seq(10 + 3*i), ts: int64(i), terms: textindex.Terms(text.Draw(t, "text"), maxTerms)}
			entries = append(entries, e)
			for _, term := range e.terms {
				want[term] = append([]ids.Seq{e.seq}, want[term]...)
			}
		}
		id := segmentID(entries[len(entries)-1].seq, 5)
		rows := segmentRows(id, entries)
		for term, seqs := range want {
			sort := bucketSort(rowPostings, bucketOf(term), id)
			var got []ids.Seq
			for _, p := range appendPacked(nil, highest(sort), termPostings(rows[sort], term)) {
				got = append(got, p.seq)
			}
			if !slices.Equal(got, seqs) {
				t.Fatalf("%q is in %v, want %v", term, got, seqs)
			}
			for part := range partsOf(term) {
				n := newNeedle(part)
				list := string(rows[bucketSort(rowWords, bucketOf(n.gram()), id)])
				if n.whole || !n.matches(term) {
					continue
				}
				if !slices.Contains(strings.Split(list, "\x00"), term) {
					t.Fatalf("%q is not listed for %q", term, part)
				}
			}
		}
	})
}

// partsOf yields all parts of a text.
func partsOf(text string) func(func(string) bool) {
	letters := []rune(text)
	return func(yield func(string) bool) {
		for i := range letters {
			for j := i + 1; j <= len(letters); j++ {
				if !yield(string(letters[i:j])) {
					return
				}
			}
		}
	}
}

// TestSegmentIsSmall: however many different words are said, a segment has so many rows.
func TestSegmentIsSmall(t *testing.T) {
	var entries []entry
	for i := range 600 {
		entries = append(entries, entry{seq: ids.Seq(i + 1), terms: []string{fmt.Sprintf("number%d", i), fmt.Sprintf("%d東", i), "same"}})
	}
	if n := len(segmentRows(segmentID(600, 1), entries)); n > 2+2*buckets {
		t.Errorf("%d rows", n)
	}
}
