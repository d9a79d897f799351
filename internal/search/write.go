package search

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// Row is a row of the index that Write sets or, without a Value, removes.
type Row struct {
	Table storage.Table
	Room  ids.RoomID
	Sort  string
	Value []byte
}

// Write changes rows of the index of one partition. It emits no record: nobody
// follows the index.
type Write struct {
	P ids.Partition
	// Epoch, if not 0, is the owner's on whose behalf the rows change: what a
	// follower knows from memory is out of date when its owner is.
	Epoch ids.Epoch
	Rows  []Row
}

var _ partition.Command = (*Write)(nil)

// Name implements partition.Command.
func (c *Write) Name() string { return "write_index" }

// Partition implements partition.Command.
func (c *Write) Partition(int) ids.Partition { return c.P }

// Prepare implements partition.Command.
func (c *Write) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *Write) Apply(tx *partition.Tx) (any, error) {
	if c.Epoch != 0 && c.Epoch != tx.Epoch() {
		return nil, partition.ErrOtherEpoch
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		k := key(r.Table, c.P, r.Room, r.Sort)
		switch {
		case r.Table != tables.SearchTerm && r.Table != tables.SearchWord && r.Table != tables.SearchDoc:
			return nil, fmt.Errorf("search: table %d: %w", r.Table, storage.ErrInvalid)
		case r.Value == nil:
			tx.Delete(k)
		default:
			tx.PutNew(k, r.Value)
		}
	}
	return nil, nil
}

// writer gathers what changes in the index of a partition. It is used by one
// goroutine.
type writer struct {
	x     *Index
	p     ids.Partition
	epoch ids.Epoch
	// fresh: the index has nothing yet of an event above it that came from memory.
	fresh ids.Seq

	todo map[ids.RoomID]*indexing
	list []*indexing // in the order of their first event

	rows  []Row
	bytes int
	// docs are the rows of SearchDoc as the rows above leave them.
	docs map[place]doc
}

type place struct {
	room ids.RoomID
	seq  ids.Seq
}

// indexing is what changes in one room.
type indexing struct {
	room ids.RoomID
	// events are to be indexed anew. Of those that the index has nothing of and
	// that were in memory the event is given.
	events map[ids.Seq]*room.Stored
	order  []ids.Seq
	// more and less are the postings that come and go, by term.
	more map[string][]posting
	less map[string][]ids.Seq
	// learned are the words that the room has when what is written is.
	learned learned
}

func (x *Index) newWriter(p ids.Partition) *writer {
	w := &writer{x: x, p: p}
	w.reset()
	return w
}

func (w *writer) reset() {
	w.todo, w.list, w.rows, w.bytes = make(map[ids.RoomID]*indexing), nil, nil, 0
	w.docs = make(map[place]doc)
}

// add remembers that an event is to be indexed anew. e is nil if it is to be read.
func (w *writer) add(id ids.RoomID, s ids.Seq, e *room.Stored) {
	in := w.todo[id]
	if in == nil {
		in = &indexing{
			room: id, events: make(map[ids.Seq]*room.Stored), more: make(map[string][]posting), less: make(map[string][]ids.Seq),
		}
		w.todo[id] = in
		w.list = append(w.list, in)
	}
	before, there := in.events[s]
	if !there {
		in.order = append(in.order, s)
		before = e
	}
	if e == nil {
		before = nil
	}
	in.events[s] = before
}

func (w *writer) put(t storage.Table, id ids.RoomID, sort string, value []byte) {
	w.rows = append(w.rows, Row{t, id, sort, value})
	w.bytes += len(id) + len(sort) + len(value)
}

// note remembers which events are to be indexed anew because of an event, which
// was just sent or is read.
func (w *writer) note(ctx context.Context, s *room.Stored, sent bool) error {
	var own *room.Stored
	if sent && s.Seq > w.fresh {
		own = s
	}
	switch {
	case s.Is(event.TypeName, ""), s.Is(event.TypeTopic, ""):
		w.add(s.RoomID, s.Seq, own)
	case s.StateKey != nil:
	case s.Type == event.TypeRedaction:
		target, err := w.x.rooms.Event(ctx, s.RoomID, s.Redacts)
		if err != nil || target == nil {
			return wrap("find redacted event", err)
		}
		d, err := w.doc(ctx, s.RoomID, target.Seq)
		if err != nil {
			return err
		}
		if d.of != 0 {
			w.setDoc(s.RoomID, target.Seq, doc{})
			w.add(s.RoomID, d.of, nil)
		} else {
			w.add(s.RoomID, target.Seq, nil)
		}
	case s.Type == event.TypeMessage:
		rel, ok := event.RelationOf(s.Content)
		if !ok || rel.Type != event.RelReplace {
			w.add(s.RoomID, s.Seq, own)
			return nil
		}
		of, err := w.x.rooms.Event(ctx, s.RoomID, rel.Parent)
		if err != nil || of == nil {
			return wrap("find edited event", err)
		}
		w.setDoc(s.RoomID, s.Seq, doc{of: of.Seq})
		w.add(s.RoomID, of.Seq, nil)
	}
	return nil
}

// noteTrimmed remembers the events up to a position that the index has and that are
// gone.
func (w *writer) noteTrimmed(ctx context.Context, id ids.RoomID, upTo ids.Seq) error {
	from := ""
	for {
		rows, err := w.x.store.Scan(ctx, storage.Range{
			Partition: w.p, Table: tables.SearchDoc, Entity: string(id), From: from, To: tables.SeqSort(upTo + 1), Limit: timelinePage,
		})
		if err != nil {
			return wrap("read index", err)
		}
		at := make([]ids.Seq, len(rows))
		for i := range rows {
			at[i] = tables.SortSeq(rows[i].Sort)
		}
		events, err := w.x.rooms.AtAll(ctx, id, at...)
		if err != nil {
			return wrap("read events", err)
		}
		for i, e := range events {
			if e == nil {
				w.add(id, at[i], nil)
			}
		}
		if len(rows) < timelinePage {
			return nil
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
}

func wrap(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// flush indexes what was noted and writes it.
func (w *writer) flush(ctx context.Context) error {
	for _, in := range w.list {
		encrypted, err := w.x.rooms.StateEvent(ctx, in.room, event.TypeEncryption, "")
		if err != nil {
			return wrap("read encryption", err)
		}
		for _, s := range in.order {
			if err := w.index(ctx, in, s, encrypted != nil); err != nil {
				return err
			}
			if w.bytes >= maxWriteBytes {
				if err := w.commit(ctx); err != nil {
					return err
				}
			}
		}
	}
	err := w.commit(ctx)
	w.reset()
	return err
}

// commit writes what has changed.
func (w *writer) commit(ctx context.Context) error {
	for _, in := range w.list {
		if err := w.takeOut(ctx, in); err != nil {
			return err
		}
		if err := w.putIn(ctx, in); err != nil {
			return err
		}
		clear(in.more)
		clear(in.less)
	}
	if len(w.rows) == 0 {
		return nil
	}
	_, err := w.x.router.Do(ctx, &Write{P: w.p, Epoch: w.epoch, Rows: w.rows})
	w.rows, w.bytes = nil, 0
	for _, in := range w.list {
		if err == nil && len(in.learned.words) > 0 {
			w.x.known.learn(in.room, in.learned)
		}
		in.learned = learned{}
	}
	return wrap("write index", err)
}

// putIn makes rows of the postings that come, and of words that are new.
func (w *writer) putIn(ctx context.Context, in *indexing) error {
	if len(in.more) == 0 {
		return nil
	}
	terms := slices.Sorted(maps.Keys(in.more))
	for _, term := range terms {
		packPostings(in.more[term], func(s ids.Seq, value []byte) {
			w.put(tables.SearchTerm, in.room, postingSort(term, s), value)
		})
	}
	fresh, learned, err := w.news(ctx, in.room, terms)
	if err != nil {
		return err
	}
	putWords(fresh, func(sort string, value []byte) { w.put(tables.SearchWord, in.room, sort, value) })
	in.learned = learned
	return nil
}

// news returns those of some words that a room lacks, and what is known of the room once
// it has them.
func (w *writer) news(ctx context.Context, id ids.RoomID, words []string) ([]string, learned, error) {
	unknown, holds, all, ok := w.x.known.unknown(id, words)
	if !ok {
		rows, err := w.x.store.Scan(ctx, storage.Range{Partition: w.p, Table: tables.SearchWord, Entity: string(id), Limit: 1})
		if err != nil {
			return nil, learned{}, wrap("read words", err)
		}
		if len(rows) == 0 {
			return words, learned{words: words, all: true}, nil
		}
		unknown = words
	}
	ask := unknown
	if all {
		ask = nil
	}
	fresh, last, err := w.missing(ctx, id, ask)
	switch {
	case err == nil && ok && last != holds:
		unknown = words
		fresh, last, err = w.missing(ctx, id, unknown)
	case all:
		fresh = unknown
	}
	return fresh, learned{removals: last, words: unknown}, err
}

// missing returns those of some words that a room does not have, and its last removals.
func (w *writer) missing(ctx context.Context, id ids.RoomID, words []string) ([]string, removals, error) {
	keys := make([]storage.Key, 1+len(words))
	keys[0] = key(tables.SearchWord, w.p, id, removalsSort)
	for i, word := range words {
		keys[1+i] = key(tables.SearchWord, w.p, id, partition.JoinSort(word, word))
	}
	rows, err := w.x.store.Get(ctx, keys...)
	if err != nil {
		return nil, "", wrap("read words", err)
	}
	var out []string
	for i, word := range words {
		if rows[1+i] == nil {
			out = append(out, word)
		}
	}
	return out, removals(rows[0]), nil
}

// takeOut removes the postings that go from their rows, and words that nothing has
// any more.
func (w *writer) takeOut(ctx context.Context, in *indexing) error {
	gone := make(map[string][]string) // words, by the pairs of letters in them
	removed := false
	for _, term := range slices.Sorted(maps.Keys(in.less)) {
		list := in.less[term]
		slices.Sort(list)
		if err := w.takePostings(ctx, in.room, term, list); err != nil {
			return err
		}
		if len(in.more[term]) > 0 {
			continue
		}
		has, err := w.hasOthers(ctx, in.room, term, list)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		removed = true
		w.put(tables.SearchWord, in.room, partition.JoinSort(term, term), nil)
		textindex.Endings(term, func(ending string) {
			w.put(tables.SearchWord, in.room, partition.JoinSort(ending, term), nil)
			if pair := pairOf(ending); !slices.Contains(gone[pair], term) {
				gone[pair] = append(gone[pair], term)
			}
		})
	}
	if removed {
		w.put(tables.SearchWord, in.room, removalsSort, []byte(newRemovals()))
	}
	for _, pair := range slices.Sorted(maps.Keys(gone)) {
		if err := w.ungroup(ctx, in.room, pair, gone[pair]); err != nil {
			return err
		}
	}
	return nil
}

// takePostings removes postings, in order, from the rows of a term.
func (w *writer) takePostings(ctx context.Context, id ids.RoomID, term string, list []ids.Seq) error {
	from, to := postingSort(term, list[0]), postingSort(term, list[len(list)-1]+maxSpan)
	for left := len(list); left > 0; {
		rows, err := w.x.store.Scan(ctx, storage.Range{
			Partition: w.p, Table: tables.SearchTerm, Entity: string(id), From: from, To: to, Limit: postingsPage,
		})
		if err != nil {
			return wrap("read index", err)
		}
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
		if len(rows) < postingsPage {
			return nil
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
	return nil
}

// hasOthers reports whether the index has a term in other events than some.
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
	to := partition.PrefixEnd(from)
	for {
		rows, err := w.x.store.Scan(ctx, storage.Range{
			Partition: w.p, Table: tables.SearchWord, Entity: string(id), From: from, To: to, Limit: postingsPage,
		})
		if err != nil {
			return wrap("read words", err)
		}
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
		if len(rows) < postingsPage {
			return nil
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
}

func (w *writer) doc(ctx context.Context, id ids.RoomID, s ids.Seq) (doc, error) {
	if d, ok := w.docs[place{id, s}]; ok {
		return d, nil
	}
	rows, err := w.x.store.Get(ctx, key(tables.SearchDoc, w.p, id, tables.SeqSort(s)))
	if err != nil {
		return doc{}, wrap("read index", err)
	}
	return decodeDoc(rows[0]), nil
}

func (w *writer) setDoc(id ids.RoomID, s ids.Seq, d doc) {
	var row []byte
	if d.of != 0 || len(d.terms) > 0 {
		row = d.encode()
	}
	w.docs[place{id, s}] = d
	w.put(tables.SearchDoc, id, tables.SeqSort(s), row)
}

// index brings what the index has of an event in line with its text.
func (w *writer) index(ctx context.Context, in *indexing, s ids.Seq, encrypted bool) error {
	if e := in.events[s]; e != nil {
		if encrypted {
			return nil
		}
		text, _ := textOf(e, nil)
		w.change(in, s, doc{}, doc{terms: textindex.Terms(text, maxTerms)}, e.OriginServerTS)
		return nil
	}
	old, err := w.doc(ctx, in.room, s)
	if err != nil {
		return err
	}
	if old.of != 0 {
		return w.indexEdit(ctx, in.room, s)
	}
	now, ts, err := w.read(ctx, in.room, s, encrypted)
	if err != nil {
		return err
	}
	w.change(in, s, old, now, ts)
	return nil
}

// change notes what comes and goes when what the index has of an event changes.
func (w *writer) change(in *indexing, s ids.Seq, old, now doc, ts int64) {
	if now.edit == old.edit && slices.Equal(now.terms, old.terms) {
		return
	}
	for _, term := range old.terms {
		in.less[term] = append(in.less[term], s)
	}
	for _, term := range now.terms {
		list := in.more[term]
		if len(list) == 0 {
			w.bytes += len(term) * len(term) // about what a new word takes
		}
		in.more[term] = append(list, posting{seq: s, ts: ts, edit: now.edit})
	}
	w.setDoc(in.room, s, now)
}

// indexEdit forgets an edit that is gone. It has no text of its own.
func (w *writer) indexEdit(ctx context.Context, id ids.RoomID, s ids.Seq) error {
	e, err := w.x.rooms.At(ctx, id, s)
	if err == nil && e == nil {
		w.setDoc(id, s, doc{})
	}
	return wrap("read edit", err)
}

// read returns what the index is to have of an event.
func (w *writer) read(ctx context.Context, id ids.RoomID, s ids.Seq, encrypted bool) (d doc, ts int64, err error) {
	e, err := w.x.rooms.At(ctx, id, s)
	if err != nil || e == nil || encrypted || e.RedactedBy != nil {
		return doc{}, 0, wrap("read event", err)
	}
	edit, err := w.x.latestEdit(ctx, e)
	if err != nil {
		return doc{}, 0, err
	}
	if edit != nil {
		d.edit = edit.Seq
	}
	text, _ := textOf(e, edit)
	d.terms = textindex.Terms(text, maxTerms)
	return d, e.OriginServerTS, nil
}
