package room

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// A room lists the members who are to be told of what happens though they are not
// connected, so that the cost of an event follows their number and not that of all
// members. A user's partition adds rows when the user gets a first pusher, and when
// a user with one joins. Rows of users who have left, or have no pusher any more,
// are removed by whoever comes across them, with Unwatch.

// EffectWatch tells a room of a user who watches it. The payload is a watchRoom in
// JSON.
const EffectWatch = "watch"

type watchRoom struct {
	Room ids.RoomID `json:"room"`
	User ids.UserID `json:"user"`
	Gen  uint64     `json:"gen"`
}

func (p Place) watch(u ids.UserID) storage.Key { return p.key(tables.RoomWatch, string(u)) }

// Watch makes a room list a user as watching. gen grows when the user begins anew.
func Watch(tx *partition.Tx, r ids.RoomID, user ids.UserID, gen uint64) error {
	payload, err := json.Marshal(&watchRoom{r, user, gen})
	if err != nil {
		return fmt.Errorf("encode watch: %w", err)
	}
	tx.Effect(string(r), EffectWatch, payload)
	return nil
}

type watchEffects struct{}

var _ partition.EffectHandler = watchEffects{}

func decodeWatch(e partition.Effect) (*watchRoom, error) {
	w := &watchRoom{}
	if err := json.Unmarshal(e.Payload, w); err != nil {
		return nil, fmt.Errorf("decode watch: %w", err)
	}
	return w, nil
}

// Prepare implements partition.EffectHandler.
func (watchEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	w, err := decodeWatch(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	return p.Pin(ctx, Place{p.Partition(), w.Room}.head())
}

// Apply implements partition.EffectHandler.
func (watchEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	w, err := decodeWatch(e)
	if err == nil {
		view{tx, Place{tx.Partition(), w.Room}}.addWatch(w.User, w.Gen)
	}
	return err
}

// addWatch lists a user as watching, unless the room was deleted. The head is pinned.
func (v view) addWatch(u ids.UserID, gen uint64) {
	if v.head() != nil {
		v.tx.Put(v.p.watch(u), binary.AppendUvarint(nil, gen), nil)
		v.tx.Emit(partition.Record{Kind: partition.RecordWatch, Entity: string(v.p.Room), Data: []byte(u)})
	}
}

// AddWatch is Watch for whoever knows the user's gen, as a command.
type AddWatch struct {
	Room ids.RoomID
	User ids.UserID
	Gen  uint64
}

var _ partition.Command = (*AddWatch)(nil)

// Name implements partition.Command.
func (*AddWatch) Name() string { return "watch" }

// Partition implements partition.Command.
func (c *AddWatch) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *AddWatch) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, Place{p.Partition(), c.Room}.head())
}

// Apply implements partition.Command.
func (c *AddWatch) Apply(tx *partition.Tx) (any, error) {
	view{tx, Place{tx.Partition(), c.Room}}.addWatch(c.User, c.Gen)
	return nil, nil
}

// Unwatch removes users who watch a room in vain from its list.
type Unwatch struct {
	Room ids.RoomID
	// Users are to be removed if they are not in the room, or if they have not begun
	// to watch anew since Gen.
	Users []Unwatched
}

// Unwatched is a user who need not be listed. Gen is 0 if only membership counts.
type Unwatched struct {
	User ids.UserID
	Gen  uint64
}

var _ partition.Command = (*Unwatch)(nil)

// Name implements partition.Command.
func (*Unwatch) Name() string { return "unwatch" }

// Partition implements partition.Command.
func (c *Unwatch) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Unwatch) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	keys := make([]storage.Key, 0, 2*len(c.Users))
	for _, u := range c.Users {
		keys = append(keys, pl.watch(u.User), pl.state(event.TypeMember, string(u.User)))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Unwatch) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	for _, u := range c.Users {
		k := v.p.watch(u.User)
		row := tx.Get(k).Value
		gen, _ := binary.Uvarint(row)
		if row != nil && (roomstate.Membership(v, u.User) != event.Join || u.Gen != 0 && gen <= u.Gen) {
			tx.Delete(k)
		}
	}
	return nil, nil
}

// Watching is a user whom a room lists as watching.
type Watching struct {
	User ids.UserID
	Gen  uint64
}

// Watchers lists the users who watch a room behind one of them ("" to begin), in
// order, at most limit.
func (r *Reader) Watchers(ctx context.Context, room ids.RoomID, after ids.UserID, limit int) ([]Watching, error) {
	p := r.Place(room)
	from := ""
	if after != "" {
		from = string(after) + "\x00"
	}
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.RoomWatch, Entity: string(room), From: from, Limit: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("scan watchers: %w", err)
	}
	out := make([]Watching, len(rows))
	for i, row := range rows {
		out[i].User = ids.UserID(row.Sort)
		out[i].Gen, _ = binary.Uvarint(row.Value)
	}
	return out, nil
}
