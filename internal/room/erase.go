package room

import (
	"context"
	"fmt"
	"sort"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Erase hides what a user has sent to a room from those who come into it later:
// they are served redacted copies. Nothing of the room changes, so its chain of
// hashes stays whole. spec: client-server §POST /account/deactivate, erase.
type Erase struct {
	Room ids.RoomID
	User ids.UserID
}

var _ partition.Command = (*Erase)(nil)

// Name implements partition.Command.
func (c *Erase) Name() string { return "erase" }

// Partition implements partition.Command.
func (c *Erase) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

func (p Place) erased(user ids.UserID) storage.Key { return p.key(tables.Erased, string(user)) }

// Prepare implements partition.Command.
func (c *Erase) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	return p.Pin(ctx, pl.head(), pl.erased(c.User))
}

// Apply implements partition.Command. The first time counts.
func (c *Erase) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	head := v.head()
	if head == nil {
		return nil, errUnknownRoom()
	}
	if tx.Get(v.p.erased(c.User)).Value != nil {
		return nil, nil
	}
	next := *head
	next.Erased++
	tx.Put(v.p.erased(c.User), []byte(tables.SeqSort(head.Last)), nil)
	tx.Put(v.p.head(), next.encode(), &next)
	return nil, nil
}

// Erasures say whose events a viewer of a room gets redacted. The zero value, and
// nil, hide nothing.
type Erasures struct {
	version event.Version
	// until is up to where the events of a user are hidden.
	until map[ids.UserID]ids.Seq
}

// erasures reads what is hidden from a user whose joins are known: everything of
// those who were erased before the user first came.
func (r *Reader) erasures(ctx context.Context, head *Head, joined func(upTo ids.Seq) bool) (*Erasures, error) {
	if head.Erased == 0 {
		return nil, nil
	}
	e := &Erasures{version: head.Version, until: make(map[ids.UserID]ids.Seq)}
	err := storage.Each(ctx, r.st, storage.Range{
		Partition: r.Place(head.RoomID).Partition, Table: tables.Erased, Entity: string(head.RoomID), Limit: storage.MaxScan,
	}, func(row storage.Entry) (more bool, err error) {
		if at := tables.SortSeq(string(row.Value)); !joined(at) {
			e.until[ids.UserID(row.Sort)] = at
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan erased users: %w", err)
	}
	return e, nil
}

// Hides reports whether a message is one of those that the viewer gets redacted.
func (e *Erasures) Hides(s *Stored) bool {
	return e != nil && s.Seq <= e.until[s.Sender] && (s.StateKey == nil || s.Type == event.TypeMember)
}

// shown returns the event, or the copy of it that the viewer gets. What the user
// set for all, like the name of the room, stays: the room would fall apart.
func (e *Erasures) shown(s *Stored) *Stored {
	if !e.Hides(s) {
		return s
	}
	r, err := newStored(event.Redact(e.version, s.Full()), s.Seq)
	if err != nil {
		// What was stored once can be stored less.
		panic(fmt.Errorf("redact %s: %w", s.ID, err))
	}
	return r
}

// joinedBy reports whether the user had joined the room at or before a position.
func (a *Access) joinedBy(s ids.Seq) bool {
	i := sort.Search(len(a.members), func(i int) bool { return a.members[i].Seq > s })
	for _, m := range a.members[:i] {
		if m.Member().Membership == event.Join {
			return true
		}
	}
	return false
}
