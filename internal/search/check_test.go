package search

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// entries returns the rows of a table of a room.
func (w *world) entries(id ids.RoomID, t storage.Table) []storage.Entry {
	w.t.Helper()
	rows, err := w.store.Scan(w.ctx, storage.Range{Partition: w.rooms.Place(id).Partition, Table: t, Entity: string(id), Limit: storage.MaxScan})
	if err != nil {
		w.t.Fatal(err)
	}
	return rows
}

// check compares the index of a room with the texts that its events have, and what is
// found by words and parts of them with what looking at each text finds.
func (w *world) check(id ids.RoomID, texts map[ids.EventID]string) {
	w.t.Helper()
	want := make(map[ids.Seq][]string)
	words := map[string]bool{"nowhere": true}
	for ev, text := range texts {
		e, err := w.rooms.Event(w.ctx, id, ev)
		if err != nil || e == nil {
			w.t.Fatalf("event %s: %v, %v", ev, e, err)
		}
		if terms := textindex.Terms(text, maxTerms); len(terms) > 0 {
			want[e.Seq] = terms
		}
		for _, word := range textindex.Words(text) {
			half := []rune(word)[:(len([]rune(word))+1)/2]
			words[word], words[string(half)], words[word[len(string(half)):]] = true, true, true
		}
	}
	got := make(map[ids.Seq][]string)
	for _, e := range append(w.checkNew(id), w.checkOld(id)...) {
		if _, twice := got[e.seq]; twice {
			w.t.Errorf("%d is there twice", e.seq)
		}
		if e.of == 0 {
			got[e.seq] = e.terms
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		w.t.Errorf("the index has %v, want %v", got, want)
	}
	delete(words, "")
	for _, word := range slices.Sorted(maps.Keys(words))[:min(len(words), 40)] {
		n := 0
		for _, text := range texts {
			if _, ok := match(text, []string{word}); ok {
				n++
			}
		}
		if found := len(w.find(word, id)); found != n {
			w.t.Errorf("%d events found by %q, want %d", found, word, n)
		}
	}
}

// checkNew returns the entries of blocks and segments, and looks whether the head tells
// what there is and the rows of segments are those of their entries.
func (w *world) checkNew(id ids.RoomID) (list []entry) {
	w.t.Helper()
	var h head
	blocks := 0
	for _, r := range w.entries(id, tables.SearchRecent) {
		if r.Sort == "" {
			h = decodeHead(r.Value)
			list = append(list, decodeEntries(h.entries)...)
			continue
		}
		blocks += len(r.Value)
		list = append(list, decodeEntries(r.Value)...)
	}
	have, want := make(map[string][]byte), make(map[string][]byte)
	segments := 0
	for _, r := range w.entries(id, tables.SearchSegment) {
		have[r.Sort] = r.Value
		if r.Sort[0] == rowEntries {
			segments++
			entries := decodeEntries(r.Value)
			list = append(list, entries...)
			maps.Copy(want, segmentRows(r.Sort[1:], entries))
		}
	}
	if blocks != h.blocks || segments != h.segments {
		w.t.Errorf("%d segments and blocks of %d bytes, the head says %d and %d", segments, blocks, h.segments, h.blocks)
	}
	if !maps.EqualFunc(have, want, slices.Equal) {
		w.t.Errorf("%d rows of segments are not the %d of their entries", len(have), len(want))
	}
	for _, e := range list {
		if e.seq > h.high {
			w.t.Errorf("%d is above %d", e.seq, h.high)
		}
	}
	return list
}

// checkOld returns the entries of old rows, and looks whether postings and words are
// those of the entries.
func (w *world) checkOld(id ids.RoomID) (list []entry) {
	w.t.Helper()
	have, want := make(map[string]bool), make(map[string]bool)
	for _, r := range w.entries(id, tables.SearchDoc) {
		e := decodeDoc(tables.SortSeq(r.Sort), r.Value)
		list = append(list, e)
		for _, term := range e.terms {
			want["posting "+postingSort(term, e.seq)] = true
			want["word "+partition.JoinSort(term, term)] = true
			textindex.Endings(term, func(ending string) { want["word "+partition.JoinSort(ending, term)] = true })
		}
	}
	for _, r := range w.entries(id, tables.SearchTerm) {
		term, _, _ := strings.Cut(r.Sort, "\x00")
		for _, p := range appendPostings(nil, &r) {
			have["posting "+postingSort(term, p.seq)] = true
		}
	}
	for _, r := range w.entries(id, tables.SearchWord) {
		group, ok := strings.CutPrefix(r.Sort, "\x00")
		if !ok {
			have["word "+r.Sort] = true
			continue
		}
		pair, _, _ := strings.Cut(group, "\x00")
		for term := range strings.SplitSeq(string(r.Value), "\x00") {
			textindex.Endings(term, func(ending string) {
				if strings.HasPrefix(ending, pair) {
					have["word "+partition.JoinSort(ending, term)] = true
				}
			})
		}
	}
	if !maps.Equal(have, want) {
		w.t.Errorf("old rows %q, want %q", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)))
	}
	return list
}

// writeOld indexes events of a room as earlier versions did.
func (w *world) writeOld(id ids.RoomID, texts map[ids.EventID]string) {
	w.t.Helper()
	c := &Write{P: w.rooms.Place(id).Partition}
	put := func(t storage.Table, sort string, value []byte) { c.Rows = append(c.Rows, Row{t, id, sort, value}) }
	postings := make(map[string][]posting)
	for ev, text := range texts {
		e, err := w.rooms.Event(w.ctx, id, ev)
		if err != nil {
			w.t.Fatal(err)
		}
		terms := textindex.Terms(text, maxTerms)
		value := append(binary.AppendUvarint([]byte{docTerms}, 0), strings.Join(terms, "\x00")...)
		put(tables.SearchDoc, tables.SeqSort(e.Seq), value)
		for _, term := range terms {
			postings[term] = append(postings[term], posting{seq: e.Seq, ts: e.OriginServerTS})
		}
	}
	for term, list := range postings {
		packPostings(list, func(s ids.Seq, value []byte) { put(tables.SearchTerm, postingSort(term, s), value) })
	}
	putOldWords(slices.Collect(maps.Keys(postings)), func(sort string, value []byte) { put(tables.SearchWord, sort, value) })
	w.do(c)
}

// putOldWords makes new words of a room be found by their parts as earlier versions did.
func putOldWords(words []string, put func(sort string, value []byte)) {
	const minGroup = 4
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
