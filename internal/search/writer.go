package search

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// writer gathers what changes in the index of a partition. It is used by one
// goroutine.
//
// Steps: note which events are to be indexed; flush: read the heads of their rooms, find
// what the index has of each event and what it should have, bring that in line in the
// part of the index where the event is, and write the rows that differ.
//
// Invariant: an event has an entry in one place, a block or a segment, and what is
// written rests on nothing that has changed since it was read: every write names the head
// it follows, and replaces it.
type writer struct {
	x     *Index
	p     ids.Partition
	epoch ids.Epoch
	// fresh: the index has nothing yet of an event above it that came from memory.
	fresh ids.Seq

	todo map[ids.RoomID]*indexing
	list []*indexing // in the order of their first event

	rows  []Row
	heads []Head
	bytes int
}

// indexing is what changes in one room.
type indexing struct {
	room ids.RoomID
	// events are to be indexed anew. Of those that the index has nothing of and
	// that were in memory the event is given.
	events map[ids.Seq]*room.Stored
	order  []ids.Seq
	// edits are those that are to be remembered, with what they edit.
	edits map[ids.Seq]ids.Seq
	state
}

// state is the index of a room as far as it was read, and what changes in it.
type state struct {
	row  []byte // the head's
	head head
	// added are new entries; cost is about what rows they will take, in bytes.
	added part
	cost  int
	// blocks are those of the room, the head's first, nil until they are read.
	blocks []*part
	// segments are those that were read.
	segments []*part
	// less are the old postings that go, by term; gone the events whose they are.
	less map[string][]ids.Seq
	gone []ids.Seq
}

// part is entries that stand in one row.
type part struct {
	// name is the sort of a block, "" for the head; the name of a segment.
	name    string
	entries []entry
	was     []entry // before they were changed
	changed bool
}

func (pt *part) find(s ids.Seq) int {
	return slices.IndexFunc(pt.entries, func(e entry) bool { return e.seq == s })
}

// set replaces the entry at i, or removes it.
func (pt *part) set(i int, e *entry) {
	if !pt.changed {
		pt.was, pt.changed = slices.Clone(pt.entries), true
	}
	if e.empty() {
		pt.entries = slices.Delete(pt.entries, i, i+1)
		return
	}
	pt.entries[i] = *e
}

func (x *Index) newWriter(p ids.Partition) *writer {
	w := &writer{x: x, p: p}
	w.reset()
	return w
}

func (w *writer) reset() {
	w.todo, w.list = make(map[ids.RoomID]*indexing), nil
	w.rows, w.heads, w.bytes = nil, nil, 0
}

// in returns what changes in a room.
func (w *writer) in(id ids.RoomID) *indexing {
	in := w.todo[id]
	if in == nil {
		in = &indexing{room: id, events: make(map[ids.Seq]*room.Stored), edits: make(map[ids.Seq]ids.Seq)}
		w.todo[id] = in
		w.list = append(w.list, in)
	}
	return in
}

// add remembers that an event is to be indexed anew. e is nil if it is to be read.
func (w *writer) add(id ids.RoomID, s ids.Seq, e *room.Stored) {
	in := w.in(id)
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
		if indexed(target) {
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
		w.add(s.RoomID, s.Seq, nil)
		w.in(s.RoomID).edits[s.Seq] = of.Seq
		w.add(s.RoomID, of.Seq, nil)
	}
	return nil
}

// indexed reports whether events of the kind can be in the index. Most that are redacted
// are not: they are reactions.
func indexed(s *room.Stored) bool {
	return s.StateKey == nil && s.Type == event.TypeMessage || s.Is(event.TypeName, "") || s.Is(event.TypeTopic, "")
}

// flush indexes what was noted and writes it.
func (w *writer) flush(ctx context.Context) error {
	defer w.reset()
	if err := w.load(ctx, w.list...); err != nil {
		return err
	}
	for _, in := range w.list {
		encrypted, err := w.x.rooms.StateEvent(ctx, in.room, event.TypeEncryption, "")
		if err != nil {
			return wrap("read encryption", err)
		}
		for i, s := range in.order {
			if err := w.index(ctx, in, s, encrypted != nil); err != nil {
				return err
			}
			if in.cost < maxWriteBytes || i == len(in.order)-1 {
				continue
			}
			if err := w.settle(ctx, in); err != nil {
				return err
			}
			if err := w.commit(ctx); err != nil {
				return err
			}
			if err := w.load(ctx, in); err != nil {
				return err
			}
		}
		if err := w.settle(ctx, in); err != nil {
			return err
		}
		if w.bytes >= maxWriteBytes {
			if err := w.commit(ctx); err != nil {
				return err
			}
		}
	}
	return w.commit(ctx)
}

// load reads the heads of rooms.
func (w *writer) load(ctx context.Context, list ...*indexing) error {
	if len(list) == 0 {
		return nil
	}
	keys := make([]storage.Key, len(list))
	for i, in := range list {
		keys[i] = key(tables.SearchRecent, w.p, in.room, "")
	}
	rows, err := w.x.store.Get(ctx, keys...)
	if err != nil {
		return wrap("read index", err)
	}
	for i, in := range list {
		in.state = state{row: rows[i], head: decodeHead(rows[i]), less: make(map[string][]ids.Seq)}
		if rows[i] != nil {
			continue
		}
		if in.head.old, err = w.hasOld(ctx, in.room); err != nil {
			return err
		}
	}
	return nil
}

// commit writes what has changed.
func (w *writer) commit(ctx context.Context) error {
	if len(w.rows) == 0 {
		return nil
	}
	ok, err := partition.Do[bool](ctx, w.x.router, &Write{P: w.p, Epoch: w.epoch, Heads: w.heads, Rows: w.rows})
	w.rows, w.heads, w.bytes = nil, nil, 0
	if err == nil && !ok {
		err = errOvertaken
	}
	return wrap("write index", err)
}

// index brings what the index has of an event in line with its text.
func (w *writer) index(ctx context.Context, in *indexing, s ids.Seq, encrypted bool) error {
	if e := in.events[s]; e != nil {
		if !encrypted {
			text, _ := textOf(e, nil)
			in.insert(&entry{seq: s, ts: e.OriginServerTS, terms: textindex.Terms(text, maxTerms)})
		}
		return nil
	}
	pt, at, err := w.find(ctx, in, s)
	if err != nil {
		return err
	}
	var old entry
	switch {
	case pt != nil:
		old = pt.entries[at]
	case in.head.old:
		if old, err = w.oldEntry(ctx, in.room, s); err != nil {
			return err
		}
	}
	now, err := w.wanted(ctx, in, s, old.of, encrypted)
	if err != nil || now.says(&old) {
		return err
	}
	if pt != nil {
		pt.set(at, &now)
	} else {
		in.takeOld(&old)
		in.insert(&now)
	}
	if old.of != 0 && now.of == 0 { // what it edited has its earlier text again
		return w.index(ctx, in, old.of, encrypted)
	}
	return nil
}

// wanted returns what the index is to have of an event. of is what it has of an edit.
func (w *writer) wanted(ctx context.Context, in *indexing, s, of ids.Seq, encrypted bool) (entry, error) {
	now := entry{seq: s}
	e, err := w.x.rooms.At(ctx, in.room, s)
	if err != nil || e == nil || e.RedactedBy != nil {
		return now, wrap("read event", err)
	}
	now.ts = e.OriginServerTS
	if now.of = cmp.Or(in.edits[s], of); now.of != 0 || encrypted {
		return now, nil
	}
	edit, err := w.x.latestEdit(ctx, e)
	if err != nil {
		return now, err
	}
	if edit != nil {
		now.edit = edit.Seq
	}
	text, _ := textOf(e, edit)
	now.terms = textindex.Terms(text, maxTerms)
	if len(now.terms) == 0 {
		now.edit = 0 // the index has nothing of it
	}
	return now, nil
}

// insert adds an entry of an event that has none.
func (in *indexing) insert(e *entry) {
	if e.empty() {
		return
	}
	in.added.entries = append(in.added.entries, *e)
	in.head.high = max(in.head.high, e.seq)
	for _, t := range e.terms {
		in.cost += len(t) * len(t) // about what it takes to find any part of it
	}
}

// takeOld notes that old rows are to lose an event.
func (in *indexing) takeOld(e *entry) {
	if e.empty() {
		return
	}
	in.gone = append(in.gone, e.seq)
	for _, t := range e.terms {
		in.less[t] = append(in.less[t], e.seq)
	}
}

// find returns where the entry of an event is, nil if it has none but in old rows.
func (w *writer) find(ctx context.Context, in *indexing, s ids.Seq) (*part, int, error) {
	if i := in.added.find(s); i >= 0 {
		return &in.added, i, nil
	}
	if s > in.head.high {
		return nil, 0, nil
	}
	if err := w.loadBlocks(ctx, in); err != nil {
		return nil, 0, err
	}
	for _, list := range [][]*part{in.blocks, in.segments} {
		for _, pt := range list {
			if i := pt.find(s); i >= 0 {
				return pt, i, nil
			}
		}
	}
	if in.head.segments == 0 {
		return nil, 0, nil
	}
	pt, err := w.segmentOf(ctx, in, s)
	if pt == nil || err != nil {
		return nil, 0, err
	}
	in.segments = append(in.segments, pt)
	return pt, pt.find(s), nil
}

// loadBlocks reads the blocks of a room, the head's first, if that was not done.
func (w *writer) loadBlocks(ctx context.Context, in *indexing) error {
	if in.blocks != nil {
		return nil
	}
	list := []*part{{entries: decodeEntries(in.head.entries)}}
	if in.head.blocks > 0 {
		rows, err := w.x.store.Scan(ctx, storage.Range{
			Partition: w.p, Table: tables.SearchRecent, Entity: string(in.room), From: firstBlock, Limit: storage.MaxScan,
		})
		if err != nil {
			return wrap("read blocks", err)
		}
		for i := range rows {
			list = append(list, &part{name: rows[i].Sort, entries: decodeEntries(rows[i].Value)})
		}
	}
	in.blocks = list
	return nil
}

// segmentOf returns the segment that has an event, nil if none has.
func (w *writer) segmentOf(ctx context.Context, in *indexing, s ids.Seq) (*part, error) {
	var out *part
	err := w.eachSegment(ctx, in.room, s, func(name string, positions []ids.Seq) (bool, error) {
		if _, has := slices.BinarySearch(positions, s); !has || slices.ContainsFunc(in.segments, func(pt *part) bool { return pt.name == name }) {
			return true, nil
		}
		rows, err := w.x.store.Get(ctx, key(tables.SearchSegment, w.p, in.room, segmentSort(rowEntries, name)))
		if err != nil {
			return false, wrap("read segment", err)
		}
		out = &part{name: name, entries: decodeEntries(rows[0])}
		return out.find(s) < 0, nil
	})
	if out != nil && out.find(s) < 0 {
		out = nil
	}
	return out, err
}

// eachSegment calls fn with the name and the positions of segments that reach a position
// or above, until it returns false.
func (w *writer) eachSegment(ctx context.Context, id ids.RoomID, s ids.Seq, fn func(string, []ids.Seq) (bool, error)) error {
	return wrap("read segments", storage.Each(ctx, w.x.store, storage.Range{
		Partition: w.p, Table: tables.SearchSegment, Entity: string(id),
		From: segmentSort(rowPositions, tables.SeqSort(s)), To: segmentSort(rowPositions+1, ""), Limit: segmentsPage,
	}, func(row storage.Entry) (more bool, err error) { return fn(row.Sort[1:], decodePositions(row.Value)) }))
}

// settle makes rows of what has changed in a room.
func (w *writer) settle(ctx context.Context, in *indexing) error {
	if !in.changed() {
		return nil
	}
	in.head.version++
	w.heads = append(w.heads, Head{in.room, in.row})
	if err := w.settleOld(ctx, in); err != nil {
		return err
	}
	for _, pt := range in.segments {
		if pt.changed {
			w.putSegment(in, pt)
		}
	}
	for i, pt := range in.blocks {
		switch {
		case !pt.changed:
		case i == 0:
			in.head.entries = encodeEntries(pt.entries)
		default:
			w.putBlock(in, pt)
		}
	}
	if err := w.settleAdded(ctx, in); err != nil {
		return err
	}
	var row []byte
	if !in.head.unused() {
		row = in.head.encode()
	}
	if row != nil || in.row != nil {
		w.put(tables.SearchRecent, in.room, "", row)
	}
	return nil
}

// changed reports whether anything is to be written.
func (st *state) changed() bool {
	is := func(pt *part) bool { return pt.changed }
	return len(st.added.entries) > 0 || len(st.gone) > 0 || slices.ContainsFunc(st.blocks, is) || slices.ContainsFunc(st.segments, is)
}

// settleOld takes events out of old rows.
func (w *writer) settleOld(ctx context.Context, in *indexing) error {
	for _, s := range in.gone {
		w.put(tables.SearchDoc, in.room, tables.SeqSort(s), nil)
	}
	return w.takeOut(ctx, in.room, in.less)
}

// putBlock makes the row of a block that has changed.
func (w *writer) putBlock(in *indexing, pt *part) {
	in.head.blocks -= len(encodeEntries(pt.was))
	var row []byte
	if len(pt.entries) > 0 {
		row = encodeEntries(pt.entries)
		in.head.blocks += len(row)
	}
	w.put(tables.SearchRecent, in.room, pt.name, row)
}

// putSegment makes those rows of a segment anew that are to be others.
func (w *writer) putSegment(in *indexing, pt *part) {
	was, now := segmentRows(pt.name, pt.was), segmentRows(pt.name, pt.entries)
	for sort, row := range now {
		if !bytes.Equal(was[sort], row) {
			w.put(tables.SearchSegment, in.room, sort, row)
		}
		delete(was, sort)
	}
	for sort := range was {
		w.put(tables.SearchSegment, in.room, sort, nil)
	}
	switch {
	case len(pt.was) == 0:
		in.head.segments++
	case len(pt.entries) == 0:
		in.head.segments--
	}
}

// settleAdded puts new entries into the head. When that is full it becomes a block, and
// when a room has many, all become a segment.
func (w *writer) settleAdded(ctx context.Context, in *indexing) error {
	if len(in.added.entries) == 0 {
		return nil
	}
	for i := range in.added.entries {
		in.head.entries = appendEntry(in.head.entries, &in.added.entries[i])
	}
	switch {
	case in.head.blocks+len(in.head.entries) >= w.x.bounds.recent:
		return w.fold(ctx, in)
	case len(in.head.entries) >= w.x.bounds.block:
		w.put(tables.SearchRecent, in.room, blockSort(in.head.version), in.head.entries)
		in.head.blocks += len(in.head.entries)
		in.head.entries = nil
	}
	return nil
}

// fold makes a segment of what is in the head and the blocks.
func (w *writer) fold(ctx context.Context, in *indexing) error {
	if err := w.loadBlocks(ctx, in); err != nil {
		return err
	}
	all := decodeEntries(in.head.entries)
	for _, pt := range in.blocks[1:] {
		all = append(all, pt.entries...)
		w.put(tables.SearchRecent, in.room, pt.name, nil)
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
	w.putSegment(in, &part{name: segmentID(all[len(all)-1].seq, in.head.version), entries: all})
	in.head.blocks, in.head.entries = 0, nil
	return nil
}

// trim takes out of the index the events of a room up to a position that are gone.
func (w *writer) trim(ctx context.Context, id ids.RoomID, upTo ids.Seq) error {
	in := &indexing{room: id}
	if err := w.load(ctx, in); err != nil {
		return err
	}
	if err := w.loadBlocks(ctx, in); err != nil {
		return err
	}
	for _, pt := range in.blocks {
		at := make([]ids.Seq, len(pt.entries))
		for i := range pt.entries {
			at[i] = pt.entries[i].seq
		}
		if err := w.trimEvents(ctx, id, upToIn(at, upTo)); err != nil {
			return err
		}
	}
	err := w.eachSegment(ctx, id, 0, func(_ string, positions []ids.Seq) (bool, error) {
		return true, w.trimEvents(ctx, id, upToIn(positions, upTo))
	})
	if err != nil || !in.head.old {
		return err
	}
	return w.trimOld(ctx, id, upTo)
}

func upToIn(at []ids.Seq, upTo ids.Seq) []ids.Seq {
	return slices.DeleteFunc(at, func(s ids.Seq) bool { return s > upTo })
}

// trimEvents takes those of some events out of the index that are gone.
func (w *writer) trimEvents(ctx context.Context, id ids.RoomID, at []ids.Seq) error {
	if len(at) == 0 {
		return nil
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
	return w.flush(ctx)
}
