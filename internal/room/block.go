package room

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Block keeps everyone out of a room, or lets them in again. The room need not
// exist. Who is in it stays.
type Block struct {
	Room ids.RoomID
	// By is the administrator who blocks it, "" to let people in again.
	By ids.UserID
}

var _ partition.Command = (*Block)(nil)

func blockKey(p ids.Partition, r ids.RoomID) storage.Key {
	return storage.Key{Partition: p, Table: tables.BlockedRoom, Sort: string(r)}
}

// Name implements partition.Command.
func (c *Block) Name() string { return "block_room" }

// Partition implements partition.Command.
func (c *Block) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Block) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *Block) Apply(tx *partition.Tx) (any, error) {
	k := blockKey(tx.Partition(), c.Room)
	if c.By == "" {
		tx.Delete(k)
	} else {
		tx.Put(k, []byte(c.By), nil)
	}
	return nil, nil
}

// Blocked returns who blocked a room, "" if nobody did.
func (r *Reader) Blocked(ctx context.Context, room ids.RoomID) (ids.UserID, error) {
	rows, err := r.st.Get(ctx, blockKey(r.Place(room).Partition, room))
	if err != nil {
		return "", fmt.Errorf("read blocked room: %w", err)
	}
	return ids.UserID(rows[0]), nil
}
