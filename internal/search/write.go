package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Row is a row of the index that Write sets or, without a Value, removes.
type Row struct {
	Table storage.Table
	Room  ids.RoomID
	Sort  string
	Value []byte
}

// Head is the head of a room's index as it is expected to be, nothing if there is none.
type Head struct {
	Room  ids.RoomID
	Value []byte
}

// Write changes rows of the index of one partition. It emits no record: nobody
// follows the index. The result is false, and nothing is written, if a room's index has
// changed since it was read.
type Write struct {
	P ids.Partition
	// Epoch, if not 0, is the owner's on whose behalf the rows change: what a
	// follower knows from memory is out of date when its owner is.
	Epoch ids.Epoch
	Heads []Head
	Rows  []Row
}

var _ partition.Command = (*Write)(nil)

// Tables are the rows that commands of the package pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{tables.SearchRecent: {}}
}

// Name implements partition.Command.
func (c *Write) Name() string { return "write_index" }

// Partition implements partition.Command.
func (c *Write) Partition(int) ids.Partition { return c.P }

// Prepare implements partition.Command.
func (c *Write) Prepare(ctx context.Context, p *partition.Prep) error {
	keys := make([]storage.Key, len(c.Heads))
	for i, h := range c.Heads {
		keys[i] = key(tables.SearchRecent, c.P, h.Room, "")
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Write) Apply(tx *partition.Tx) (any, error) {
	if c.Epoch != 0 && c.Epoch != tx.Epoch() {
		return nil, partition.ErrOtherEpoch
	}
	for _, h := range c.Heads {
		if !bytes.Equal(tx.Get(key(tables.SearchRecent, c.P, h.Room, "")).Value, h.Value) {
			return false, nil
		}
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		k := key(r.Table, c.P, r.Room, r.Sort)
		switch {
		case !isIndex(r.Table):
			return nil, fmt.Errorf("search: table %d: %w", r.Table, storage.ErrInvalid)
		case r.Value == nil:
			tx.Delete(k)
		case r.Table == tables.SearchRecent && r.Sort == "":
			tx.Put(k, r.Value, nil)
		default:
			tx.PutNew(k, r.Value)
		}
	}
	return true, nil
}

func isIndex(t storage.Table) bool {
	switch t {
	case tables.SearchRecent, tables.SearchSegment, tables.SearchTerm, tables.SearchWord, tables.SearchDoc:
		return true
	}
	return false
}

// errOvertaken: somebody else changed the index of a room meanwhile.
var errOvertaken = errors.New("search: the index has changed meanwhile")

// maxTries is how often something is done again since it was overtaken. Only a purge
// and the follower of a partition are ever in each other's way.
const maxTries = 8

// untilDone calls fn until it is not overtaken. again is true but for the first time.
func untilDone(fn func(again bool) error) (err error) {
	for i := range maxTries {
		if err = fn(i > 0); !errors.Is(err, errOvertaken) {
			return err
		}
	}
	return err
}

func wrap(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}
