package room

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// MaxImport is how many events one Import appends. Each looks through what those
// before it wrote; and with all that is said of a member it stays far below what one
// command may write.
const MaxImport = 128

// Import appends events that were sent elsewhere, all or none of them: each is
// authorized, linked and stored as Send does it, with a time of its own. Events that
// relate to others are not for it: they name events by IDs which those have not here.
// The error is that of the first event that was refused, wrapped by an ImportError.
type Import struct {
	Room   ids.RoomID
	Drafts []roomstate.Draft
}

var _ partition.Command = (*Import)(nil)

// ImportError says which event of an Import, by its place in it, was refused.
type ImportError struct {
	At    int
	Cause error
}

var _ error = (*ImportError)(nil)

// Error implements error.
func (e *ImportError) Error() string { return fmt.Sprintf("event %d: %v", e.At, e.Cause) }

// Unwrap returns why.
func (e *ImportError) Unwrap() error { return e.Cause }

// Name implements partition.Command.
func (c *Import) Name() string { return "import" }

// Partition implements partition.Command.
func (c *Import) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command. A row that several events need is pinned once.
func (c *Import) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	keys := []storage.Key{pl.head()}
	have := make(map[string]bool)
	need := func(eventType, stateKey string) {
		if sort := stateSort(eventType, stateKey); !have[sort] {
			have[sort] = true
			keys = append(keys, pl.key(tables.State, sort))
		}
	}
	var scratch [10]roomstate.StateKey
	for _, d := range c.Drafts {
		for _, k := range roomstate.AppendAuthKeys(scratch[:0], d) {
			need(k.Type, k.Key)
		}
		if d.StateKey != nil {
			need(d.Type, *d.StateKey)
		}
		if d.Type == event.TypeMember {
			for _, t := range strippedTypes {
				need(t, "")
			}
		}
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Import) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	for i, d := range c.Drafts {
		if _, err := appendEvent(v, d, Txn{}); err != nil {
			return nil, &ImportError{i, err}
		}
	}
	return nil, nil
}
