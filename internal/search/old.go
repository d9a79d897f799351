package search

import (
	"cmp"
	"context"
	"crypto/sha256"
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

// What earlier versions wrote, and nothing adds to any more: a row of postings for each
// term (SearchTerm), rows that lead from parts of words to them (SearchWord), and one
// for each event that has its terms (SearchDoc). They are found, and taken out when
// their events change, whose new text goes where all others do.

const (
	// maxSpan bounds how far apart the postings of one row are. Whoever looks for
	// what is below a position need not look further above it for rows.
	maxSpan = 4096
	// maxPacked bounds the postings of a row.
	maxPacked = 512
	// postingsPage is how many rows of postings of a term are read at once.
	postingsPage = 64
	// groupPage is how many lists of words are read at once, maxGroupPages how often:
	// what so busy a room has more of is not found by a part that is not its
	// beginning.
	groupPage     = 256
	maxGroupPages = 16
)

func postingSort(term string, s ids.Seq) string { return partition.JoinSort(term, tables.SeqSort(s)) }

// packPostings calls fn with rows for postings of one term, in any order: the
// position each stands under, which is its highest, and its value.
func packPostings(list []posting, fn func(ids.Seq, []byte)) {
	slices.SortFunc(list, func(a, b posting) int { return cmp.Compare(b.seq, a.seq) })
	for len(list) > 0 {
		first, last := list[0], posting{seq: list[0].seq}
		var value []byte
		n := 0
		for _, p := range list {
			if n == maxPacked || first.seq-p.seq >= maxSpan {
				break
			}
			value = appendPosting(value, p, last)
			last = p
			n++
		}
		fn(first.seq, value)
		list = list[n:]
	}
}

// appendPostings decodes a row, the newest first.
func appendPostings(list []posting, e *storage.Entry) []posting {
	return appendPacked(list, tables.SortSeq(e.Sort), e.Value)
}

// The words of a room. A row (ending, NUL, word) leads from an ending, or the whole
// word, to the word. Where many words were new at once, one row lists those that
// have two neighbouring letters behind their beginning: NUL, the letters, NUL, and a
// hash of the list.

func groupPrefix(pair string) string { return "\x00" + pair + "\x00" }

func groupRow(pair string, words []string) (sort string, value []byte) {
	value = []byte(strings.Join(words, "\x00"))
	sum := sha256.Sum256(value)
	return groupPrefix(pair) + string(sum[:8]), value
}

// The kinds of SearchDoc rows, their first byte.
const (
	docTerms = 't' // an event: the edit used, and the terms, separated by NUL
	docEdit  = 'e' // an edit: the position of what it edits
)

// decodeDoc decodes a SearchDoc row.
func decodeDoc(s ids.Seq, row []byte) entry {
	e := entry{seq: s}
	if len(row) < 2 {
		return e
	}
	v, n := binary.Uvarint(row[1:])
	if n <= 0 {
		return e
	}
	if row[0] == docEdit {
		e.of = ids.Seq(v)
		return e
	}
	e.edit = ids.Seq(v)
	if rest := string(row[1+n:]); rest != "" {
		e.terms = strings.Split(rest, "\x00")
	}
	return e
}

// oldEntry returns what old rows have of an event.
func (w *writer) oldEntry(ctx context.Context, id ids.RoomID, s ids.Seq) (entry, error) {
	rows, err := w.x.store.Get(ctx, key(tables.SearchDoc, w.p, id, tables.SeqSort(s)))
	if err != nil {
		return entry{}, wrap("read index", err)
	}
	return decodeDoc(s, rows[0]), nil
}

// hasOld reports whether a room has old rows.
func (w *writer) hasOld(ctx context.Context, id ids.RoomID) (bool, error) {
	rows, err := w.x.store.Scan(ctx, storage.Range{Partition: w.p, Table: tables.SearchDoc, Entity: string(id), Limit: 1})
	return len(rows) > 0, wrap("read index", err)
}

// takeOut removes old postings from their rows, and words that nothing has any more.
// less are the positions that go, by term.
func (w *writer) takeOut(ctx context.Context, id ids.RoomID, less map[string][]ids.Seq) error {
	gone := make(map[string][]string) // words, by the pairs of letters in them
	for _, term := range slices.Sorted(maps.Keys(less)) {
		list := less[term]
		slices.Sort(list)
		if err := w.takePostings(ctx, id, term, list); err != nil {
			return err
		}
		has, err := w.hasOthers(ctx, id, term, list)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		w.put(tables.SearchWord, id, partition.JoinSort(term, term), nil)
		textindex.Endings(term, func(ending string) {
			w.put(tables.SearchWord, id, partition.JoinSort(ending, term), nil)
			if pair := pairOf(ending); !slices.Contains(gone[pair], term) {
				gone[pair] = append(gone[pair], term)
			}
		})
	}
	for _, pair := range slices.Sorted(maps.Keys(gone)) {
		if err := w.ungroup(ctx, id, pair, gone[pair]); err != nil {
			return err
		}
	}
	return nil
}

// takePostings removes postings, in order, from the rows of a term.
func (w *writer) takePostings(ctx context.Context, id ids.RoomID, term string, list []ids.Seq) error {
	left := len(list)
	return wrap("read index", storage.Pages(ctx, w.x.store, storage.Range{
		Partition: w.p, Table: tables.SearchTerm, Entity: string(id),
		From: postingSort(term, list[0]), To: postingSort(term, list[len(list)-1]+maxSpan), Limit: postingsPage,
	}, func(rows []storage.Entry) (bool, error) {
		for i := range rows {
			all := appendPostings(nil, &rows[i])
			n := len(all)
			all = slices.DeleteFunc(all, func(p posting) bool {
				_, found := slices.BinarySearch(list, p.seq)
				return found
			})
			if len(all) == n {
				continue
			}
			left -= n - len(all)
			w.put(tables.SearchTerm, id, rows[i].Sort, nil)
			packPostings(all, func(s ids.Seq, value []byte) { w.put(tables.SearchTerm, id, postingSort(term, s), value) })
		}
		return left > 0, nil
	}))
}

// hasOthers reports whether old rows have a term in other events than some.
func (w *writer) hasOthers(ctx context.Context, id ids.RoomID, term string, but []ids.Seq) (bool, error) {
	from := partition.JoinSort(term, "")
	rows, err := w.x.store.Scan(ctx, storage.Range{
		Partition: w.p, Table: tables.SearchTerm, Entity: string(id), From: from, To: partition.PrefixEnd(from),
		Limit: min(len(but)+1, storage.MaxScan),
	})
	if err != nil {
		return false, wrap("read index", err)
	}
	for i := range rows {
		for _, p := range appendPostings(nil, &rows[i]) {
			if _, found := slices.BinarySearch(but, p.seq); !found {
				return true, nil
			}
		}
	}
	return len(rows) == storage.MaxScan, nil
}

// ungroup removes words from the rows that list words with a pair of letters.
func (w *writer) ungroup(ctx context.Context, id ids.RoomID, pair string, words []string) error {
	from := groupPrefix(pair)
	return wrap("read words", storage.Pages(ctx, w.x.store, storage.Range{
		Partition: w.p, Table: tables.SearchWord, Entity: string(id), From: from, To: partition.PrefixEnd(from), Limit: postingsPage,
	}, func(rows []storage.Entry) (bool, error) {
		for i := range rows {
			list := strings.Split(string(rows[i].Value), "\x00")
			n := len(list)
			list = slices.DeleteFunc(list, func(word string) bool { return slices.Contains(words, word) })
			if len(list) == n {
				continue
			}
			w.put(tables.SearchWord, id, rows[i].Sort, nil)
			if len(list) > 0 {
				sort, value := groupRow(pair, list)
				w.put(tables.SearchWord, id, sort, value)
			}
		}
		return true, nil
	}))
}

// trimOld removes the old rows of events up to a position that are gone.
func (w *writer) trimOld(ctx context.Context, id ids.RoomID, upTo ids.Seq) error {
	return wrap("read index", storage.Pages(ctx, w.x.store, storage.Range{
		Partition: w.p, Table: tables.SearchDoc, Entity: string(id), To: tables.SeqSort(upTo + 1), Limit: timelinePage,
	}, func(rows []storage.Entry) (bool, error) {
		at := make([]ids.Seq, len(rows))
		for i := range rows {
			at[i] = tables.SortSeq(rows[i].Sort)
		}
		return true, w.trimEvents(ctx, id, at)
	}))
}

// oldTerms returns the terms in a room's old rows that a word can stand for.
func (x *Index) oldTerms(ctx context.Context, s *source, n *needle) ([]string, error) {
	from, to, limit := n.term, partition.PrefixEnd(n.term), maxWords
	if n.whole {
		from, limit = partition.JoinSort(n.term, ""), 1
		to = partition.PrefixEnd(from)
	}
	rows, err := x.store.Scan(ctx, storage.Range{
		Partition: s.p, Table: tables.SearchWord, Entity: string(s.room), From: from, To: to, Limit: limit,
	})
	if err != nil {
		return nil, wrap("search words", err)
	}
	var out []string
	for i := range rows {
		if _, term, ok := strings.Cut(rows[i].Sort, "\x00"); ok && !slices.Contains(out, term) {
			out = append(out, term)
		}
	}
	if limit == maxWords && len(rows) < limit && textindex.KindOf(n.term) == textindex.Word {
		return x.oldGrouped(ctx, s, n.term, out)
	}
	return out, nil
}

// oldGrouped appends the terms that have a word behind their beginning and are listed
// together with others.
func (x *Index) oldGrouped(ctx context.Context, s *source, w string, out []string) ([]string, error) {
	from := groupPrefix(pairOf(w))
	to := partition.PrefixEnd(from)
	for range maxGroupPages {
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchWord, Entity: string(s.room), From: from, To: to, Limit: groupPage,
		})
		if err != nil {
			return nil, wrap("search words", err)
		}
		for i := range rows {
			for term := range strings.SplitSeq(string(rows[i].Value), "\x00") {
				if strings.LastIndex(term, w) > 0 && !slices.Contains(out, term) {
					if out = append(out, term); len(out) == maxWords {
						return out, nil
					}
				}
			}
		}
		if len(rows) < groupPage {
			break
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
	return out, nil
}

// fillOld appends the next candidates of old rows, and returns from which position on
// none is missing.
func (x *Index) fillOld(ctx context.Context, s *source) (complete ids.Seq, err error) {
	for _, term := range s.terms {
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchTerm, Entity: string(s.room),
			From: partition.JoinSort(term, ""), To: postingSort(term, s.below), Limit: postingsPage, Reverse: true,
		})
		if err != nil {
			return 0, wrap("search", err)
		}
		for i := range rows {
			s.buffer = appendPostings(s.buffer, &rows[i])
		}
		if len(rows) == postingsPage {
			complete = max(complete, tables.SortSeq(rows[len(rows)-1].Sort))
		}
	}
	s.below, s.oldDone = complete, complete == 0
	return complete, nil
}
