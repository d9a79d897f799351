package room

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// reindexPage is how many members one Reindex looks at.
const reindexPage = 500

// Reindex writes the rows of the indexes of a room that was made before there were
// any: a page of its members, and with the first page its place in the directory.
// The result is the member to go on behind, "" when it is done. What is right
// already stays.
type Reindex struct {
	Room  ids.RoomID
	After string

	members []string
	more    bool
}

var _ partition.Command = (*Reindex)(nil)

// Name implements partition.Command.
func (c *Reindex) Name() string { return "reindex_room" }

// Partition implements partition.Command.
func (c *Reindex) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Reindex) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	prefix := stateSort(event.TypeMember, "")
	from := prefix
	if c.After != "" {
		from = prefix + c.After + "\x00"
	}
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: pl.Partition, Table: tables.State, Entity: string(c.Room), From: from, To: partition.PrefixEnd(prefix), Limit: reindexPage,
	})
	if err != nil {
		return fmt.Errorf("read members: %w", err)
	}
	c.members, c.more = nil, len(rows) == reindexPage
	keys := []storage.Key{pl.head(), pl.state(event.TypeCreate, "")}
	for _, d := range &describing {
		keys = append(keys, pl.state(d.eventType, ""))
	}
	for i := range rows {
		c.members = append(c.members, rows[i].Sort[len(prefix):])
		keys = append(keys, pl.key(tables.State, rows[i].Sort))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Reindex) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	head := v.head()
	if head == nil {
		return "", nil // deleted meanwhile
	}
	for _, m := range c.members {
		if s := v.stored(event.TypeMember, m); s != nil {
			v.indexMember(nil, s)
		}
	}
	if c.After == "" && head.Public {
		v.list(head)
	}
	if !c.more {
		return "", nil
	}
	return c.members[len(c.members)-1], nil
}

// MarkIndexed notes that all rooms and users of a partition are in the indexes.
type MarkIndexed struct{ P ids.Partition }

var _ partition.Command = (*MarkIndexed)(nil)

// Name implements partition.Command.
func (c *MarkIndexed) Name() string { return "mark_indexed" }

// Partition implements partition.Command.
func (c *MarkIndexed) Partition(int) ids.Partition { return c.P }

// Prepare implements partition.Command.
func (c *MarkIndexed) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *MarkIndexed) Apply(tx *partition.Tx) (any, error) {
	tx.PutNew(IndexedKey(c.P), []byte{})
	return nil, nil
}

// IndexedKey is the row that MarkIndexed writes.
func IndexedKey(p ids.Partition) storage.Key {
	return storage.Key{Partition: p, Table: tables.IndexState, Sort: "directory"}
}
