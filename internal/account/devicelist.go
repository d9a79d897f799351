package account

import (
	"context"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// deviceListState is what the announcement of new keys rests on.
type deviceListState struct {
	// Joins counts the rooms ever joined, so that a command that tells all
	// rooms notices one that it did not find.
	Joins uint64 `json:"joins,omitempty"`
	// Seq is the Stream row of the last change, 0 if there never was one.
	Seq ids.Seq `json:"seq,omitempty"`
	// TS is when that was, in ms since 1970.
	TS int64 `json:"ts,omitempty"`
}

// joinWindow is by how much the clocks of two nodes may differ without a change of
// keys being missed that happens while a join is under way. Beyond some hours, keys that
// have not changed for long would be asked for once more by everyone in the room.
const joinWindow = 3 * time.Hour

func (p Place) deviceList() storage.Key { return p.key(tables.DeviceListState, "") }

// announcement tells everyone who shares a room with a user that the user's
// devices or keys changed: the rooms by effects, the user's own devices by the
// Stream. It is a part of commands.
//
// The rooms are listed in Prepare, and a join may be under way. One that the list
// of rooms learns of between Prepare and Apply is noticed by the count of joins.
// One that is committed in the room and has not arrived here yet is told when it
// does (membershipEffects). So a member that saw the user come, and asked for
// the keys at once, is told of what they missed.
type announcement struct {
	rooms []ids.RoomID
	joins uint64
}

// prepare finds the rooms.
func (a *announcement) prepare(ctx context.Context, p *partition.Prep, pl Place) error {
	r := NewReader(p.Store(), p.Count()).Tolerant(nil)       // one room that cannot be told keeps nobody from changing keys
	st, err := one[deviceListState](ctx, r, pl.deviceList()) // before the list of rooms
	if err != nil {
		return err
	}
	a.joins = 0
	if st != nil {
		a.joins = st.Joins
	}
	if a.rooms, err = r.Joined(ctx, pl.User); err != nil {
		return err
	}
	return p.Pin(ctx, pl.deviceList())
}

// apply tells all. partition.ErrRetry if there is a room that prepare did not see.
func (a *announcement) apply(tx *partition.Tx, p Place) error {
	if st := get[deviceListState](tx, p.deviceList()); st.joins() != a.joins {
		return partition.ErrRetry
	}
	changedOwn(tx, p)
	return room.TellDevices(tx, p.User, a.rooms)
}

func (s *deviceListState) joins() uint64 {
	if s == nil {
		return 0
	}
	return s.Joins
}

// changedOwn tells the user's own devices.
func changedOwn(tx *partition.Tx, p Place) {
	var next deviceListState
	if st := get[deviceListState](tx, p.deviceList()); st != nil {
		next = *st
	}
	if next.Seq != 0 {
		tx.Delete(p.stream(next.Seq))
	}
	next.Seq, next.TS = emit(tx, p, Change{Kind: ChangeDevices, User: p.User}), tx.Now
	put(tx, p.deviceList(), &next)
}

// joinedRoom notes that the user has come into a room, by an event of that time. If
// the user's keys may have changed since, it tells the room's members.
func joinedRoom(tx *partition.Tx, p Place, r ids.RoomID, ts int64) error {
	var next deviceListState
	if st := get[deviceListState](tx, p.deviceList()); st != nil {
		next = *st
	}
	next.Joins++
	put(tx, p.deviceList(), &next)
	if next.Seq == 0 || next.TS < ts-joinWindow.Milliseconds() {
		return nil
	}
	return room.TellDevices(tx, p.User, []ids.RoomID{r})
}
