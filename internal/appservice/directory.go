package appservice

import (
	"context"
	"fmt"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// maxNetwork bounds the name of a network in bytes: it is part of a key.
	maxNetwork = 255
	// MaxListed bounds the rooms of a directory that are read.
	MaxListed = 50_000
)

func listingKey(p ids.Partition, in Instance, r ids.RoomID) storage.Key {
	return storage.Key{Partition: p, Table: tables.NetworkRoom, Entity: in.Service, Sort: partition.JoinSort(in.Network, string(r))}
}

// ListRoom puts a room into a service's directory of a network, or takes it out.
// spec: client-server §PUT /directory/list/appservice/{networkId}/{roomId}.
type ListRoom struct {
	Instance Instance
	Room     ids.RoomID
	Listed   bool
}

var _ partition.Command = (*ListRoom)(nil)

// Name implements partition.Command.
func (c *ListRoom) Name() string { return "list_network_room" }

// Partition implements partition.Command.
func (c *ListRoom) Partition(count int) ids.Partition {
	return ids.PartitionOf(c.Instance.Service, count)
}

// Prepare implements partition.Command.
func (c *ListRoom) Prepare(context.Context, *partition.Prep) error {
	if len(c.Instance.Network) > maxNetwork || strings.IndexByte(c.Instance.Network, 0) >= 0 {
		return merr.InvalidParamErr("The name of the network is longer than %d bytes, or holds NUL", maxNetwork)
	}
	return nil
}

// Apply implements partition.Command.
func (c *ListRoom) Apply(tx *partition.Tx) (any, error) {
	k := listingKey(tx.Partition(), c.Instance, c.Room)
	if c.Listed {
		tx.Put(k, []byte{}, nil)
	} else {
		tx.Delete(k)
	}
	return nil, nil
}

// Directory shows the rooms that services list.
type Directory struct {
	st    storage.Store
	count int
}

// NewDirectory reads directories from a store with count partitions.
func NewDirectory(st storage.Store, count int) *Directory { return &Directory{st, count} }

// Rooms lists the rooms of a service's network, or those of all its networks if the
// network is "". There are at most MaxListed; a room may be in the list twice.
func (d *Directory) Rooms(ctx context.Context, in Instance) ([]ids.RoomID, error) {
	from, to := "", ""
	if in.Network != "" {
		from = partition.JoinSort(in.Network, "")
		to = partition.PrefixEnd(from)
	}
	var out []ids.RoomID
	err := storage.Pages(ctx, d.st, storage.Range{
		Partition: ids.PartitionOf(in.Service, d.count), Table: tables.NetworkRoom, Entity: in.Service,
		From: from, To: to, Limit: storage.MaxScan,
	}, func(rows []storage.Entry) (more bool, err error) {
		for _, row := range rows {
			_, id, _ := strings.Cut(row.Sort, "\x00")
			out = append(out, ids.RoomID(id))
		}
		return len(out) < MaxListed, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read directory of a network: %w", err)
	}
	return out, nil
}
