package room

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Reader shows committed rooms. It checks nobody's rights; Access does. Its
// methods are safe for concurrent use. What does not exist is nil.
type Reader struct {
	st    storage.Store
	count int
	// expiry is nil if all events are shown.
	expiry *expiry
	// damaged hears of rows that cannot be read and are left out; nil to refuse.
	damaged func(storage.Key, error)
}

// NewReader reads rooms from a store with count partitions, strictly: see Tolerant.
func NewReader(st storage.Store, count int) *Reader { return &Reader{st: st, count: count} }

// Count is the number of partitions.
func (r *Reader) Count() int { return r.count }

// Place returns where a room's rows are.
func (r *Reader) Place(room ids.RoomID) Place { return PlaceOf(room, r.count) }

// Head returns a room's head, nil if there is no such room.
func (r *Reader) Head(ctx context.Context, room ids.RoomID) (*Head, error) {
	heads, err := r.Heads(ctx, room)
	if err != nil {
		return nil, err
	}
	return heads[0], nil
}

// Heads returns the heads of several rooms, in one read.
func (r *Reader) Heads(ctx context.Context, rooms ...ids.RoomID) ([]*Head, error) {
	keys := make([]storage.Key, len(rooms))
	for i, room := range rooms {
		keys[i] = r.Place(room).head()
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read room heads: %w", err)
	}
	out := make([]*Head, len(rooms))
	for i, row := range rows {
		if row == nil {
			continue
		}
		if out[i], err = decodeHead(rooms[i], row); err != nil {
			if err = r.unreadable(keys[i], err); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// StateEvent returns the current state event of a type and key.
func (r *Reader) StateEvent(ctx context.Context, room ids.RoomID, eventType, stateKey string) (*Stored, error) {
	list, err := r.StateEvents(ctx, room, StateKey{eventType, stateKey})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// StateKey names a piece of state.
type StateKey struct{ Type, Key string }

// StateEvents returns several pieces of the current state, in one read.
func (r *Reader) StateEvents(ctx context.Context, room ids.RoomID, keys ...StateKey) ([]*Stored, error) {
	p := r.Place(room)
	ks := make([]storage.Key, len(keys))
	for i, k := range keys {
		ks[i] = p.state(k.Type, k.Key)
	}
	return r.get(ctx, room, ks)
}

// At returns the event at a position.
func (r *Reader) At(ctx context.Context, room ids.RoomID, s ids.Seq) (*Stored, error) {
	list, err := r.get(ctx, room, []storage.Key{r.Place(room).timeline(s)})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// MayHide reports whether an event that is in memory may have expired, which the room's
// head tells.
func (r *Reader) MayHide(e *Stored) bool { return r.expiry != nil && r.expiry.aged(e) }

// Record returns the event of a record of the log, nil if it is another kind of
// record, or the event was purged or has expired. A record that came from memory carries it.
func (r *Reader) Record(ctx context.Context, rec *partition.Record) (*Stored, error) {
	if rec.Kind != partition.RecordEvent {
		return nil, nil
	}
	if e, ok := rec.Obj.(*Stored); ok {
		if !r.MayHide(e) {
			return e, nil
		}
		list := []*Stored{e} // it stood in memory for long: a consumer is behind
		err := r.hide(ctx, e.RoomID, list)
		return list[0], err
	}
	return r.At(ctx, ids.RoomID(rec.Entity), rec.Seq)
}

func (r *Reader) get(ctx context.Context, room ids.RoomID, keys []storage.Key) ([]*Stored, error) {
	out, _, err := r.getOrLose(ctx, room, keys)
	return out, err
}

// getOrLose is get; lost has those that are there and were left out, nil for none.
func (r *Reader) getOrLose(ctx context.Context, room ids.RoomID, keys []storage.Key) (out []*Stored, lost map[int]struct{}, err error) {
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, nil, fmt.Errorf("read events: %w", err)
	}
	out = make([]*Stored, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		if out[i], err = r.decode(ctx, keys[i], row); err != nil {
			return nil, nil, err
		}
		if out[i] == nil {
			if lost == nil {
				lost = make(map[int]struct{})
			}
			lost[i] = struct{}{}
		}
	}
	return out, lost, r.hide(ctx, room, out)
}

// Event returns an event of a room by its ID.
func (r *Reader) Event(ctx context.Context, room ids.RoomID, id ids.EventID) (*Stored, error) {
	p := r.Place(room)
	index, ok := p.eventIndex(id)
	if !ok {
		return nil, nil
	}
	at := p.timeline(event.Position(id))
	rows, err := r.st.Get(ctx, at, index)
	if err != nil {
		return nil, fmt.Errorf("find event: %w", err)
	}
	if rows[1] == nil {
		return r.placed(ctx, at, rows[0], id)
	}
	s, err := r.At(ctx, room, tables.SortSeq(string(rows[1])))
	if err != nil || s == nil || s.ID == id {
		return s, err
	}
	return nil, r.unreadable(index, fmt.Errorf("event index: it leads to another event: %w", errRow))
}

// placed is the event of an ID that leads to a row by itself, nil if it does not.
func (r *Reader) placed(ctx context.Context, at storage.Key, row []byte, id ids.EventID) (*Stored, error) {
	if row == nil {
		return nil, nil
	}
	s, err := r.decode(ctx, at, row)
	if err != nil || s == nil || s.ID != id {
		return nil, err
	}
	list := []*Stored{s}
	err = r.hide(ctx, s.RoomID, list)
	return list[0], err
}

// Page names a stretch of a room's timeline: positions above After and up to, and
// including, UpTo.
type Page struct {
	After, UpTo ids.Seq
	Limit       int
	// Newest yields the last events of the stretch, newest first.
	Newest bool
}

// Timeline returns a stretch of a room's events.
func (r *Reader) Timeline(ctx context.Context, room ids.RoomID, pg Page) ([]*Stored, error) {
	if r.expiry != nil {
		return r.unexpired(ctx, room, pg)
	}
	return r.timeline(ctx, room, pg)
}

// damagedPages bounds how many times a stretch is read on for what was left out of it.
const damagedPages = 50

// timeline is Timeline with what has expired. What is left out makes it read on, since
// a short page says that there is no more.
func (r *Reader) timeline(ctx context.Context, room ids.RoomID, pg Page) ([]*Stored, error) {
	p := r.Place(room)
	var out []*Stored
	want := pg.Limit
	for range damagedPages {
		if pg.UpTo <= pg.After {
			break
		}
		rows, err := r.st.Scan(ctx, storage.Range{
			Partition: p.Partition, Table: tables.Timeline, Entity: string(room),
			From: tables.SeqSort(pg.After + 1), To: tables.SeqSort(pg.UpTo + 1), Limit: pg.Limit, Reverse: pg.Newest,
		})
		if err != nil {
			return nil, fmt.Errorf("read timeline: %w", err)
		}
		if out == nil {
			out = make([]*Stored, 0, len(rows))
		}
		for _, row := range rows {
			s, err := r.decode(ctx, p.key(tables.Timeline, row.Sort), row.Value)
			if err != nil {
				return nil, err
			}
			if s != nil {
				out = append(out, s)
			}
		}
		if len(rows) < pg.Limit || len(out) >= want {
			break
		}
		pg.Limit = want - len(out)
		if last := tables.SortSeq(rows[len(rows)-1].Sort); pg.Newest {
			pg.UpTo = last - 1
		} else {
			pg.After = last
		}
	}
	return out, nil
}

// statePage is how many state rows one read of a whole state takes.
const statePage = 1000

// WalkState calls fn with the current state events of a room whose type is
// eventType, or all if that is "", in order of type and key. fn returns false to
// end the walk.
func (r *Reader) WalkState(ctx context.Context, room ids.RoomID, eventType string, fn func(*Stored) bool) error {
	from, to := "", ""
	if eventType != "" {
		from = partition.JoinSort(eventType, "")
		to = partition.PrefixEnd(from)
	}
	return r.walk(ctx, room, from, to, fn)
}

func (r *Reader) walk(ctx context.Context, room ids.RoomID, from, to string, fn func(*Stored) bool) error {
	p := r.Place(room)
	err := storage.Pages(ctx, r.st, storage.Range{
		Partition: p.Partition, Table: tables.State, Entity: string(room), From: from, To: to, Limit: statePage,
	}, func(rows []storage.Entry) (more bool, err error) {
		for _, row := range rows {
			s, err := r.decode(ctx, p.key(tables.State, row.Sort), row.Value)
			if err != nil {
				return false, err
			}
			if s != nil && !fn(s) {
				return false, nil
			}
		}
		// Who reads a hundred thousand members computes for a good while. Whoever has
		// little to do in the meantime goes first.
		runtime.Gosched()
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	return nil
}

// StateUpTo returns the state of a room after the event at position s: all of
// it, or that of one type. Members may be left out.
func (r *Reader) StateUpTo(ctx context.Context, room ids.RoomID, s ids.Seq, o StateOptions) ([]*Stored, error) {
	var out []*Stored
	err := r.WalkStateUpTo(ctx, room, s, o, func(e *Stored) { out = append(out, e) })
	return out, err
}

// WalkStateUpTo is StateUpTo that calls fn with each event, and so holds few of them.
func (r *Reader) WalkStateUpTo(ctx context.Context, room ids.RoomID, s ids.Seq, o StateOptions, fn func(*Stored)) error {
	var failed error
	each := func(e *Stored) bool {
		if e, failed = r.asOf(ctx, e, s); e != nil {
			fn(e)
		}
		return failed == nil
	}
	var err error
	switch {
	case o.Type != "":
		err = r.WalkState(ctx, room, o.Type, each)
	case o.NoMembers:
		// The members of a large room lie in one stretch, which is stepped over.
		members := partition.JoinSort(event.TypeMember, "")
		if err = r.walk(ctx, room, "", members, each); err == nil && failed == nil {
			err = r.walk(ctx, room, partition.PrefixEnd(members), "", each)
		}
	default:
		err = r.WalkState(ctx, room, "", each)
	}
	return errors.Join(err, failed)
}

// StateOptions selects state.
type StateOptions struct {
	// Type selects one event type, "" all.
	Type string
	// NoMembers leaves m.room.member out.
	NoMembers bool
}

// asOf returns what e was after position s: e or what it replaced, nil if there
// was nothing.
func (r *Reader) asOf(ctx context.Context, e *Stored, s ids.Seq) (*Stored, error) {
	for e != nil && e.Seq > s {
		if e.Replaces == 0 {
			return nil, nil
		}
		var err error
		if e, err = r.Replaced(ctx, e); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// StateEventUpTo is StateEvent after the event at position s.
func (r *Reader) StateEventUpTo(ctx context.Context, room ids.RoomID, k StateKey, s ids.Seq) (*Stored, error) {
	list, err := r.StateEventsAt(ctx, room, StateAt{k, s})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// StateAt names a piece of state after the event at a position.
type StateAt struct {
	StateKey
	UpTo ids.Seq
}

// StateEventsAt returns several pieces of state, in one read if they have not changed
// since. Those that there were not are left out.
func (r *Reader) StateEventsAt(ctx context.Context, room ids.RoomID, at ...StateAt) ([]*Stored, error) {
	if len(at) == 0 {
		return nil, nil
	}
	keys := make([]StateKey, len(at))
	for i := range at {
		keys[i] = at[i].StateKey
	}
	list, err := r.StateEvents(ctx, room, keys...)
	if err != nil {
		return nil, err
	}
	out := list[:0]
	for i, e := range list {
		if e, err = r.asOf(ctx, e, at[i].UpTo); err != nil {
			return nil, err
		}
		if e != nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// StateChanges returns the state as of position upTo of what changed above
// position after, at most limit changes; more reports that there were more, in
// which case the caller reads the whole state instead.
func (r *Reader) StateChanges(ctx context.Context, room ids.RoomID, after, upTo ids.Seq, limit int) (changed []*Stored, more bool, err error) {
	if upTo <= after {
		return nil, false, nil
	}
	p := r.Place(room)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.StateLog, Entity: string(room),
		From: tables.SeqSort(after + 1), To: tables.SeqSort(upTo + 1), Limit: limit + 1,
	})
	if err != nil {
		return nil, false, fmt.Errorf("read state changes: %w", err)
	}
	if len(rows) > limit {
		return nil, true, nil
	}
	last := make(map[string]int, len(rows))
	for i, row := range rows {
		last[string(row.Value)] = i
	}
	keys := make([]storage.Key, 0, len(last))
	for i, row := range rows {
		if last[string(row.Value)] == i {
			keys = append(keys, p.timeline(tables.SortSeq(row.Sort)))
		}
	}
	list, err := r.get(ctx, room, keys)
	if err != nil {
		return nil, false, err
	}
	out := list[:0]
	for _, s := range list {
		if s != nil {
			out = append(out, s)
		}
	}
	return out, false, nil
}
