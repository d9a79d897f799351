package room

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// EffectDevices tells rooms that the devices or keys of a member changed. The
// payload is a DevicesChange in JSON whose rooms are all of one partition.
//
// A room keeps one row for each member, the last change: what a device that was
// away for long has to be told is bounded by the members, not by the time.
const EffectDevices = "devices"

// DevicesChange is a change of a user's devices or keys.
type DevicesChange struct {
	User  ids.UserID   `json:"user"`
	Rooms []ids.RoomID `json:"rooms"`
}

// maxDevicesRooms bounds the rooms of one effect: each takes four rows.
const maxDevicesRooms = 256

// TellDevices sends the change to all rooms listed.
func TellDevices(tx *partition.Tx, user ids.UserID, rooms []ids.RoomID) error {
	byPartition := make(map[ids.Partition][]ids.RoomID)
	var order []ids.Partition // as the rooms come: a command does the same each time
	for _, r := range rooms {
		p := ids.PartitionOf(string(r), tx.Count())
		if byPartition[p] == nil {
			order = append(order, p)
		}
		byPartition[p] = append(byPartition[p], r)
	}
	for _, p := range order {
		list := byPartition[p]
		for len(list) > 0 {
			n := min(len(list), maxDevicesRooms)
			payload, err := json.Marshal(&DevicesChange{user, list[:n]})
			if err != nil {
				return fmt.Errorf("encode change of devices: %w", err)
			}
			tx.Effect(string(list[0]), EffectDevices, payload)
			list = list[n:]
		}
	}
	return nil
}

type devicesEffects struct{}

var _ partition.EffectHandler = devicesEffects{}

func decodeDevices(e partition.Effect) (*DevicesChange, error) {
	c := &DevicesChange{}
	if err := json.Unmarshal(e.Payload, c); err != nil {
		return nil, fmt.Errorf("decode change of devices: %w", err)
	}
	return c, nil
}

func (p Place) deviceList(u ids.UserID) storage.Key { return p.key(tables.DeviceList, string(u)) }

// Prepare implements partition.EffectHandler.
func (devicesEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodeDevices(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	keys := make([]storage.Key, 0, 3*len(c.Rooms))
	for _, r := range c.Rooms {
		pl := Place{p.Partition(), r}
		keys = append(keys, pl.head(), pl.state(event.TypeMember, string(c.User)), pl.deviceList(c.User))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.EffectHandler. Who has left meanwhile is no longer
// any business of the room.
func (devicesEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodeDevices(e)
	if err != nil {
		return err
	}
	for _, r := range c.Rooms {
		v := view{tx, Place{tx.Partition(), r}}
		head, member := v.head(), v.stored(event.TypeMember, string(c.User))
		if head == nil || member == nil || member.Member().Membership != event.Join {
			continue
		}
		if old := tx.Get(v.p.deviceList(c.User)).Value; old != nil {
			tx.Delete(v.p.key(tables.DeviceListLog, string(old)))
		}
		s := tx.Emit(partition.Record{Kind: partition.RecordDevices, Entity: string(r), Data: []byte(c.User)})
		tx.Put(v.p.deviceList(c.User), []byte(tables.SeqSort(s)), nil)
		tx.PutNew(v.p.key(tables.DeviceListLog, tables.SeqSort(s)), []byte(c.User))
		next := *head
		next.LastDevices = s
		tx.Put(v.p.head(), next.encode(), &next)
	}
	return nil
}

// logPage is how many rows of a log one read takes.
const logPage = 1000

// walkLog calls fn with the rows of a room's log above after and up to upTo.
func (r *Reader) walkLog(ctx context.Context, room ids.RoomID, t storage.Table, after, upTo ids.Seq, fn func([]storage.Entry) error) error {
	if upTo <= after {
		return nil
	}
	p := r.Place(room)
	err := storage.Pages(ctx, r.st, storage.Range{
		Partition: p.Partition, Table: t, Entity: string(room),
		From: tables.SeqSort(after + 1), To: tables.SeqSort(upTo + 1), Limit: logPage,
	}, func(rows []storage.Entry) (bool, error) { return true, fn(rows) })
	if err != nil {
		return fmt.Errorf("read log of table %d: %w", t, err)
	}
	return nil
}

// DeviceChanges returns the members whose devices or keys last changed above
// after and up to upTo.
func (r *Reader) DeviceChanges(ctx context.Context, room ids.RoomID, after, upTo ids.Seq) ([]ids.UserID, error) {
	var out []ids.UserID
	err := r.walkLog(ctx, room, tables.DeviceListLog, after, upTo, func(rows []storage.Entry) error {
		for _, row := range rows {
			out = append(out, ids.UserID(row.Value))
		}
		return nil
	})
	return out, err
}

// Sharing is what changed in a room about who shares it.
type Sharing struct {
	// Joined came into the room, Gone left it or were banned, each at some time
	// of the stretch: who came and left is in both.
	Joined, Gone []ids.UserID
	// Encrypted: the room was made an encrypted one, or how it is was changed.
	Encrypted bool
}

// SharingChanges returns who came and went above after and up to upTo.
func (r *Reader) SharingChanges(ctx context.Context, room ids.RoomID, after, upTo ids.Seq) (Sharing, error) {
	var out Sharing
	members, encryption := partition.JoinSort(event.TypeMember, ""), stateSort(event.TypeEncryption, "")
	p := r.Place(room)
	err := r.walkLog(ctx, room, tables.StateLog, after, upTo, func(rows []storage.Entry) error {
		var keys []storage.Key
		for _, row := range rows {
			switch {
			case strings.HasPrefix(string(row.Value), members):
				keys = append(keys, p.timeline(tables.SortSeq(row.Sort)))
			case string(row.Value) == encryption:
				out.Encrypted = true
			}
		}
		if len(keys) == 0 {
			return nil
		}
		list, err := r.get(ctx, room, keys)
		for _, s := range list {
			out.add(s)
		}
		return err
	})
	return out, err
}

func (c *Sharing) add(s *Stored) {
	if s == nil || s.StateKey == nil {
		return // purged
	}
	before := event.NoMembership
	if s.PrevContent != nil {
		before = event.ParseMember(s.PrevContent).Membership
	}
	now, user := s.Member().Membership, ids.UserID(*s.StateKey)
	switch {
	case now == event.Join && before != event.Join:
		c.Joined = append(c.Joined, user)
	case now != event.Join && before == event.Join:
		c.Gone = append(c.Gone, user)
	}
}

// Members returns who was in a room after the event at position s.
func (r *Reader) Members(ctx context.Context, room ids.RoomID, s ids.Seq) ([]ids.UserID, error) {
	list, err := r.StateUpTo(ctx, room, s, StateOptions{Type: event.TypeMember})
	if err != nil {
		return nil, err
	}
	out := make([]ids.UserID, 0, len(list))
	for _, e := range list {
		if e.Member().Membership == event.Join {
			out = append(out, ids.UserID(*e.StateKey))
		}
	}
	return out, nil
}

// JoinedOf returns those of users who are in a room now. It reads a row for each
// of them, or the list of members if that is shorter.
func (r *Reader) JoinedOf(ctx context.Context, room ids.RoomID, head *Head, users map[ids.UserID]struct{}) ([]ids.UserID, error) {
	var out []ids.UserID
	add := func(e *Stored) bool {
		if e == nil || e.Member().Membership != event.Join {
			return true
		}
		if _, ok := users[ids.UserID(*e.StateKey)]; ok {
			out = append(out, ids.UserID(*e.StateKey))
		}
		return true
	}
	if head.Joined < len(users) {
		err := r.WalkState(ctx, room, event.TypeMember, add)
		return out, err
	}
	keys := make([]StateKey, 0, len(users))
	for u := range users {
		keys = append(keys, StateKey{event.TypeMember, string(u)})
	}
	list, err := r.StateEvents(ctx, room, keys...)
	for _, e := range list {
		add(e)
	}
	return out, err
}
