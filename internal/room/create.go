package room

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Create makes a room with its first events in one batch: there is no room that
// is half there. The result is the ids.RoomID.
type Create struct {
	Version string
	// Room is the room ID, which Seal computes for versions that hash it.
	Room ids.RoomID
	// Drafts are the first events; the first is the create event. All carry
	// their time.
	Drafts []roomstate.Draft
	Public bool
}

var _ partition.Command = (*Create)(nil)

// Seal sets Room, for version 12 from the hash of the create event. opaque is
// the random room ID that older versions use. Errors are those of
// roomstate.Build.
func (c *Create) Seal(opaque ids.RoomID) error {
	v, ok := event.Lookup(c.Version)
	if !ok {
		return merr.New(http.StatusBadRequest, merr.UnsupportedRoomVersion, "Room version %q is not supported", c.Version)
	}
	h := roomstate.Head{Version: v}
	if !v.RoomIDFromCreate {
		h.RoomID = opaque
	}
	ev, err := roomstate.Build(&h, c.Drafts[0], 0, nothing{})
	if err != nil {
		return err
	}
	c.Room = ev.RoomID
	return nil
}

// nothing is the state of a room that does not exist yet.
type nothing struct{}

func (nothing) State(string, string) *event.Event { return nil }

// Name implements partition.Command.
func (c *Create) Name() string { return "create_room" }

// Partition implements partition.Command.
func (c *Create) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Create) Prepare(ctx context.Context, p *partition.Prep) error {
	p.Fresh(string(c.Room))
	return p.Pin(ctx, Place{p.Partition(), c.Room}.head())
}

// Apply implements partition.Command.
func (c *Create) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	if v.head() != nil {
		// The same creator made the same room in the same millisecond.
		return nil, merr.New(http.StatusBadRequest, merr.RoomInUse, "The room exists already")
	}
	version, ok := event.Lookup(c.Version)
	if !ok {
		return nil, merr.New(http.StatusBadRequest, merr.UnsupportedRoomVersion, "Room version %q is not supported", c.Version)
	}
	for i, d := range c.Drafts {
		head, at := v.head(), tx.NextSeq()
		if i == 0 {
			at = 0 // its ID names the room, which was not placed yet
			head = &Head{Head: roomstate.Head{Version: version}, Creator: d.Sender, Public: c.Public}
			if !version.RoomIDFromCreate {
				head.RoomID = c.Room
			}
		}
		ev, err := roomstate.Build(&head.Head, d, at, v)
		if err != nil {
			return nil, err
		}
		head.RoomID = c.Room
		if _, err := writeEvent(v, head, ev, Txn{}, ""); err != nil {
			return nil, err
		}
	}
	tx.Put(storage.Key{Partition: v.p.Partition, Table: tables.Rooms, Sort: string(c.Room)}, []byte{}, nil)
	if c.Public {
		tx.Put(directoryKey(v.p), []byte{}, nil)
	}
	return c.Room, nil
}

func directoryKey(p Place) storage.Key {
	return storage.Key{Partition: p.Partition, Table: tables.Directory, Sort: string(p.Room)}
}

// SetPublic lists a room in the directory, or not. Who may is asked by the
// rules for m.room.canonical_alias: it is the same publicity.
type SetPublic struct {
	Room   ids.RoomID
	Sender ids.UserID
	Public bool
	// Admin skips the check.
	Admin bool
}

var _ partition.Command = (*SetPublic)(nil)

// Name implements partition.Command.
func (c *SetPublic) Name() string { return "set_public" }

// Partition implements partition.Command.
func (c *SetPublic) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Room), count)
}

func (c *SetPublic) draft() roomstate.Draft {
	key := ""
	return roomstate.Draft{Type: event.TypeCanonicalAlias, StateKey: &key, Sender: c.Sender, Content: []byte("{}")}
}

// Prepare implements partition.Command.
func (c *SetPublic) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	keys := make([]storage.Key, 0, len(describing))
	for _, t := range describing {
		keys = append(keys, pl.state(t.eventType, ""))
	}
	if err := p.Pin(ctx, keys...); err != nil {
		return err
	}
	return pinDraft(ctx, p, pl, c.draft(), &Txn{})
}

// Apply implements partition.Command.
func (c *SetPublic) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	head := v.head()
	if head == nil {
		return nil, merr.NotFoundErr("Room not found")
	}
	if !c.Admin && !roomstate.CanSend(head.Version, c.Sender, event.TypeCanonicalAlias, true, v) {
		return nil, merr.ForbiddenErr("You may not publish this room")
	}
	if head.Public == c.Public {
		return nil, nil
	}
	next := *head
	next.Public = c.Public
	tx.Put(v.p.head(), next.encode(), &next)
	if c.Public {
		tx.Put(directoryKey(v.p), []byte{}, nil)
	} else {
		tx.Delete(directoryKey(v.p))
	}
	v.list(&next)
	return nil, nil
}
