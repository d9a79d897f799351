package search

import (
	"context"
	"fmt"
	"slices"

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
	P    ids.Partition
	Rows []Row
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
	x    *Index
	p    ids.Partition
	todo map[ids.RoomID][]ids.Seq // events to index anew
	list []ids.RoomID             // the keys of todo, in order

	rows  []Row
	bytes int
	// docs and words are the rows of SearchDoc and, by term, of SearchWord as the
	// rows above leave them.
	docs  map[place]doc
	words map[wordOf]bool
}

type place struct {
	room ids.RoomID
	seq  ids.Seq
}

type wordOf struct {
	room ids.RoomID
	term string
}

func (x *Index) newWriter(p ids.Partition) *writer {
	w := &writer{x: x, p: p}
	w.reset()
	return w
}

func (w *writer) reset() {
	w.todo, w.list, w.rows, w.bytes = make(map[ids.RoomID][]ids.Seq), nil, nil, 0
	w.docs, w.words = make(map[place]doc), make(map[wordOf]bool)
}

func (w *writer) add(id ids.RoomID, s ids.Seq) {
	if w.todo[id] == nil {
		w.list = append(w.list, id)
	}
	if !slices.Contains(w.todo[id], s) {
		w.todo[id] = append(w.todo[id], s)
	}
}

func (w *writer) put(t storage.Table, id ids.RoomID, sort string, value []byte) {
	w.rows = append(w.rows, Row{t, id, sort, value})
	w.bytes += len(id) + len(sort) + len(value)
}

// note remembers which events are to be indexed anew because of an event.
func (w *writer) note(ctx context.Context, s *room.Stored) error {
	switch {
	case s.Is(event.TypeName, ""), s.Is(event.TypeTopic, ""):
		w.add(s.RoomID, s.Seq)
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
			w.add(s.RoomID, d.of)
		} else {
			w.add(s.RoomID, target.Seq)
		}
	case s.Type == event.TypeMessage:
		rel, ok := event.RelationOf(s.Content)
		if !ok || rel.Type != event.RelReplace {
			w.add(s.RoomID, s.Seq)
			return nil
		}
		of, err := w.x.rooms.Event(ctx, s.RoomID, rel.Parent)
		if err != nil || of == nil {
			return wrap("find edited event", err)
		}
		w.setDoc(s.RoomID, s.Seq, doc{of: of.Seq})
		w.add(s.RoomID, of.Seq)
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
				w.add(id, at[i])
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
	for _, id := range w.list {
		encrypted, err := w.x.rooms.StateEvent(ctx, id, event.TypeEncryption, "")
		if err != nil {
			return wrap("read encryption", err)
		}
		for _, s := range w.todo[id] {
			if err := w.index(ctx, id, s, encrypted != nil); err != nil {
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

func (w *writer) commit(ctx context.Context) error {
	if len(w.rows) == 0 {
		return nil
	}
	_, err := w.x.router.Do(ctx, &Write{P: w.p, Rows: w.rows})
	w.rows, w.bytes = nil, 0
	return wrap("write index", err)
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
func (w *writer) index(ctx context.Context, id ids.RoomID, s ids.Seq, encrypted bool) error {
	old, err := w.doc(ctx, id, s)
	if err != nil {
		return err
	}
	if old.of != 0 {
		return w.indexEdit(ctx, id, s)
	}
	now, ts, err := w.read(ctx, id, s, encrypted)
	if err != nil {
		return err
	}
	if now.edit == old.edit && slices.Equal(now.terms, old.terms) {
		return nil
	}
	p := posting{seq: s, ts: ts, edit: now.edit}
	value := p.encode()
	was := make(map[string]bool, len(old.terms))
	for _, term := range old.terms {
		was[term] = true
	}
	var fresh []string
	for _, term := range now.terms {
		w.put(tables.SearchTerm, id, postingSort(term, s), value)
		if !was[term] {
			fresh = append(fresh, term)
		}
		delete(was, term)
	}
	if err := w.addWords(ctx, id, fresh); err != nil {
		return err
	}
	for _, term := range old.terms {
		if was[term] {
			w.put(tables.SearchTerm, id, postingSort(term, s), nil)
			if err := w.dropWord(ctx, id, term, s); err != nil {
				return err
			}
		}
	}
	w.setDoc(id, s, now)
	return nil
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

// addWords makes terms that are new in the room be found by their parts.
func (w *writer) addWords(ctx context.Context, id ids.RoomID, terms []string) error {
	var ask []string
	var keys []storage.Key
	for _, term := range terms {
		there, known := w.words[wordOf{id, term}]
		switch {
		case !known:
			ask = append(ask, term)
			keys = append(keys, key(tables.SearchWord, w.p, id, partition.JoinSort(term, term)))
		case !there:
			w.putWord(id, term, []byte{})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := w.x.store.Get(ctx, keys...)
	if err != nil {
		return wrap("read words", err)
	}
	for i, term := range ask {
		w.words[wordOf{id, term}] = true
		if rows[i] == nil {
			w.putWord(id, term, []byte{})
		}
	}
	return nil
}

func (w *writer) putWord(id ids.RoomID, term string, value []byte) {
	w.words[wordOf{id, term}] = value != nil
	for _, ending := range textindex.Endings(term) {
		w.put(tables.SearchWord, id, partition.JoinSort(ending, term), value)
	}
}

// dropWord takes a term out of the words of the room if no other event has it.
func (w *writer) dropWord(ctx context.Context, id ids.RoomID, term string, s ids.Seq) error {
	if w.words[wordOf{id, term}] {
		return nil // an event of this write may have it, and one word too many does no harm
	}
	from := partition.JoinSort(term, "")
	rows, err := w.x.store.Scan(ctx, storage.Range{
		Partition: w.p, Table: tables.SearchTerm, Entity: string(id), From: from, To: partition.PrefixEnd(from), Limit: 2,
	})
	if err != nil {
		return wrap("read index", err)
	}
	for i := range rows {
		if tables.SortSeq(rows[i].Sort) != s {
			return nil
		}
	}
	w.putWord(id, term, nil)
	return nil
}
