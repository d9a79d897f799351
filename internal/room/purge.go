package room

import (
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// trimPage is how many events one Trim looks at: some ten thousand rows at
	// most, which the owner writes in a few milliseconds.
	trimPage = 200
	// dropPage is how many rows of a table one Drop removes.
	dropPage = 1000
)

// roomTables are the tables whose entity is a room ID, those to come among them.
func roomTables() []storage.Table {
	list := []storage.Table{tables.Erased, tables.RoomWatch}
	for t := tables.RoomHead; t < tables.Account; t++ {
		list = append(list, t)
	}
	return list
}

// Trim removes the history of a room from its beginning, a page at a time: the
// events that are no state, with what the indexes hold of them. State events stay:
// what the room is rests on them, and each names the one it replaced. The last
// event of the room stays too, since the next one is linked to it.
//
// The head notes how far the history is cut and which event stood there. So the
// chain is provable from there on (Check), and what a user may read ends there.
type Trim struct {
	Room ids.RoomID
	// UpTo is the last position that is removed.
	UpTo ids.Seq
	// Before, if not 0, ends it at the first event that is not older, in ms since
	// 1970.
	Before int64

	page  []*Stored
	after ids.Seq // where the page began
	// damaged are the positions in the page of what cannot be read, and is no state.
	damaged []ids.Seq
}

// Trimmed is the result of a Trim.
type Trimmed struct {
	// Removed counts the events that are gone.
	Removed int
	// Done: there is nothing more to remove.
	Done bool
}

var _ partition.Command = (*Trim)(nil)

// Name implements partition.Command.
func (c *Trim) Name() string { return "trim_room" }

// Partition implements partition.Command.
func (c *Trim) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Trim) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	if err := p.Pin(ctx, pl.head()); err != nil {
		return err
	}
	r := NewReader(p.Store(), p.Count())
	head, err := r.Head(ctx, c.Room)
	if err != nil || head == nil {
		return err
	}
	c.after = head.Purged
	upTo := min(c.UpTo, head.Last-1)
	// What cannot be read is removed with the rest: it may hold what is to go.
	var damaged []ids.Seq
	all := r.leavingOut(func(k storage.Key, _ error) { damaged = append(damaged, tables.SortSeq(k.Sort)) })
	if c.page, err = all.Timeline(ctx, c.Room, Page{After: c.after, UpTo: upTo, Limit: trimPage}); err != nil {
		return err
	}
	if c.damaged, err = r.unlistedState(ctx, pl, damaged); err != nil {
		return err
	}
	// What relates to an event may change until it goes: its thread, by a reply.
	counts := make([]storage.Key, 0, len(c.page)+len(c.damaged))
	for _, s := range c.page {
		counts = append(counts, pl.relationCount(s.Seq))
	}
	for _, s := range c.damaged {
		counts = append(counts, pl.relationCount(s))
	}
	return p.Pin(ctx, counts...)
}

// Apply implements partition.Command.
func (c *Trim) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	head := v.head()
	if head == nil {
		return nil, errUnknownRoom()
	}
	if head.Purged != c.after {
		return nil, partition.ErrRetry
	}
	out := Trimmed{Done: len(c.page) < trimPage}
	next := *head
	for _, s := range c.page {
		if c.Before != 0 && s.OriginServerTS >= c.Before {
			out.Done = true
			break
		}
		next.Purged, next.PurgedEvent = s.Seq, s.ID
		if s.StateKey == nil {
			if index, ok := v.p.indexOf(s); ok {
				tx.Delete(index)
			}
			v.forget(s.Seq)
			out.Removed++
		}
	}
	for _, at := range c.damaged {
		if at <= next.Purged {
			v.forget(at) // its place in the index, which nobody knows any more, leads nowhere
			out.Removed++
		}
	}
	if next.Purged != head.Purged {
		tx.Put(v.p.head(), next.encode(), &next)
		tx.Emit(partition.Record{Kind: partition.RecordTrimmed, Entity: string(c.Room), Data: []byte(tables.SeqSort(next.Purged))})
	}
	return out, nil
}

// forget removes the rows of the event at a position, whose RelationCount is pinned.
func (v view) forget(s ids.Seq) {
	if c, _ := v.tx.Get(v.p.relationCount(s)).Obj.(*relCount); c != nil && c.latest != 0 {
		v.tx.Delete(v.p.key(tables.ThreadLog, tables.SeqSort(c.latest)))
	}
	v.tx.Delete(v.p.timeline(s))
	at := tables.SeqSort(s)
	v.tx.Delete(v.p.key(tables.ThreadEvent, at))
	v.tx.Delete(v.p.relationCount(s))
	for _, t := range []storage.Table{tables.Relation, tables.Annotation, tables.ThreadMember} {
		v.tx.DeletePrefix(v.p.key(t, at))
	}
}

// Drop removes a room, a page of rows at a time: first the head, so that no other
// command finds the room any more, and at last its place in the list of rooms. The
// result is whether all is gone. What is kept of it elsewhere, in the lists of
// users and under its aliases, has to be removed before.
type Drop struct {
	Room ids.RoomID
	// Last is the end of the room when that was done: ErrWentOn if something
	// happened since, as somebody may have come in. 0 drops it as it is.
	Last ids.Seq

	from, to storage.Key // rows to remove; to is the last of them
	found    bool
}

// ErrWentOn: a room that was to be dropped is not as it was looked at.
var ErrWentOn = errors.New("room: it went on")

var _ partition.Command = (*Drop)(nil)

// Name implements partition.Command.
func (c *Drop) Name() string { return "drop_room" }

// Partition implements partition.Command.
func (c *Drop) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Drop) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	if err := p.Pin(ctx, pl.head()); err != nil {
		return err
	}
	c.found = false
	for _, t := range roomTables() {
		rows, err := p.Store().Scan(ctx, storage.Range{Partition: pl.Partition, Table: t, Entity: string(c.Room), Limit: dropPage})
		if err != nil {
			return fmt.Errorf("find rows of a room: %w", err)
		}
		if len(rows) > 0 {
			c.from, c.to, c.found = pl.key(t, rows[0].Sort), pl.key(t, rows[len(rows)-1].Sort), true
			return nil
		}
	}
	return nil
}

// Apply implements partition.Command.
func (c *Drop) Apply(tx *partition.Tx) (any, error) {
	pl := Place{tx.Partition(), c.Room}
	if head := (view{tx, pl}).head(); head != nil && c.Last != 0 && head.Last != c.Last {
		return nil, ErrWentOn
	}
	tx.Delete(pl.head())
	tx.Delete(directoryKey(pl))
	if c.found {
		tx.DeleteRange(c.from, c.to.Sort+"\x00")
		return false, nil
	}
	tx.Delete(storage.Key{Partition: pl.Partition, Table: tables.Rooms, Sort: string(c.Room)})
	return true, nil
}
