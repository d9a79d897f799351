package feed

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// maxPlainMembers is the size up to which all members of an unencrypted room are
// listed when the user comes into it. Clients need the keys of those in encrypted
// rooms; in a large room without encryption the list would be all that the
// response is about.
const maxPlainMembers = 200

// changesSharing reports whether a record of a room changes who shares it, or what
// is known of their devices.
func changesSharing(r *partition.Record) bool {
	switch r.Kind {
	case partition.RecordDevices:
		return true
	case partition.RecordEvent:
		s, ok := r.Obj.(*room.Stored)
		return !ok || s.StateKey != nil && (s.Type == event.TypeMember || s.Type == event.TypeEncryption)
	default:
		return false
	}
}

// deviceDiff works out whose devices a client has to look at again.
//
// Steps: the changes of each room that the user shares, between what the client
// knew and now, give those whose keys changed, those who came, and those who
// went. A room the user came into gives all its members; one the user left has
// all its members gone. Of those gone, whoever shares any room still is not. So the cost
// follows what changed, save for the last step, which asks each room of the user
// about each of those gone.
//
// Listing someone in changed too often costs a client one query; in left too
// often, it loses track of their devices. Hence the last step looks at the rooms
// as they are now, and who shares one later is listed in changed then.
type deviceDiff struct {
	s             *syncer
	changed, gone map[ids.UserID]struct{}
}

// deviceLists returns whose devices changed, or came to be shared, and with whom
// no room is shared any more. spec: client-server §Tracking the device list for a
// user.
func (s *syncer) deviceLists(ctx context.Context, changes []*account.Change, moved map[ids.RoomID]*account.Change) (changed, left []ids.UserID, err error) {
	d := &deviceDiff{s: s, changed: make(map[ids.UserID]struct{}), gone: make(map[ids.UserID]struct{})}
	was := make(map[ids.RoomID]bool) // of the rooms that moved, those the client knew the user in
	for _, c := range changes {
		switch c.Kind {
		case account.ChangeDevices:
			d.changed[c.User] = struct{}{}
		case account.ChangeMembership:
			if _, seen := was[c.Room]; !seen {
				was[c.Room] = c.Prev == event.Join
			}
		}
	}
	if err := d.rooms(ctx, moved, was); err != nil {
		return nil, nil, err
	}
	for id, c := range moved {
		if c.Membership != event.Join && was[id] {
			if err := d.leftRoom(ctx, id, c.RoomSeq); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := d.resolve(ctx); err != nil {
		return nil, nil, err
	}
	return sortedKeys(d.changed), sortedKeys(d.gone), nil
}

// rooms looks at the rooms that the user is in.
func (d *deviceDiff) rooms(ctx context.Context, moved map[ids.RoomID]*account.Change, was map[ids.RoomID]bool) error {
	var cold []*roomState
	for i := range d.s.rooms {
		r := &d.s.rooms[i]
		if r.membership != event.Join {
			continue
		}
		a, upTo := d.s.since.At[r.p], d.s.next.At[r.p]
		entered := false
		if c := moved[r.id]; c != nil {
			entered = c.Prev != event.Join
		}
		if entered {
			if err := d.enteredRoom(ctx, r, upTo); err != nil {
				return err
			}
		}
		switch {
		case entered && !was[r.id]:
			// Who came and went before is not the client's business.
		case entered || r.shared > a:
			if err := d.changes(ctx, r.id, a, upTo); err != nil {
				return err
			}
		case r.since > a && upTo > a:
			cold = append(cold, r)
		}
	}
	return d.cold(ctx, cold)
}

// cold looks at rooms of which the view does not know what changed.
func (d *deviceDiff) cold(ctx context.Context, rooms []*roomState) error {
	if len(rooms) == 0 {
		return nil
	}
	list := make([]ids.RoomID, len(rooms))
	for i, r := range rooms {
		list[i] = r.id
	}
	heads, err := d.s.h.rooms.Heads(ctx, list...)
	if err != nil {
		return err
	}
	for i, r := range rooms {
		a := d.s.since.At[r.p]
		if h := heads[i]; h != nil && max(h.Last, h.LastDevices) > a {
			if err := d.changes(ctx, r.id, a, d.s.next.At[r.p]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *deviceDiff) add(set map[ids.UserID]struct{}, users []ids.UserID) {
	for _, u := range users {
		if u != d.s.v.user {
			set[u] = struct{}{}
		}
	}
}

// changes takes the changes of a room in a stretch.
func (d *deviceDiff) changes(ctx context.Context, id ids.RoomID, after, upTo ids.Seq) error {
	rd := d.s.h.rooms
	devices, err := rd.DeviceChanges(ctx, id, after, upTo)
	if err != nil {
		return err
	}
	d.add(d.changed, devices)
	sharing, err := rd.SharingChanges(ctx, id, after, upTo)
	if err != nil {
		return err
	}
	d.add(d.changed, sharing.Joined)
	d.add(d.gone, sharing.Gone)
	if sharing.Encrypted {
		return d.members(ctx, d.changed, id, upTo)
	}
	return nil
}

func (d *deviceDiff) members(ctx context.Context, set map[ids.UserID]struct{}, id ids.RoomID, at ids.Seq) error {
	list, err := d.s.h.rooms.Members(ctx, id, at)
	d.add(set, list)
	return err
}

// matters reports whether the members of a room are listed as a whole.
func (d *deviceDiff) matters(ctx context.Context, id ids.RoomID) (bool, error) {
	rd := d.s.h.rooms
	head, err := rd.Head(ctx, id)
	if err != nil || head == nil || head.Joined <= maxPlainMembers {
		return head != nil, err
	}
	e, err := rd.StateEvent(ctx, id, event.TypeEncryption, "")
	return e != nil, err
}

func (d *deviceDiff) enteredRoom(ctx context.Context, r *roomState, upTo ids.Seq) error {
	yes, err := d.matters(ctx, r.id)
	if err != nil || !yes {
		return err
	}
	return d.members(ctx, d.changed, r.id, upTo)
}

// leftRoom takes a room that the user left, by the event at position at.
func (d *deviceDiff) leftRoom(ctx context.Context, id ids.RoomID, at ids.Seq) error {
	sharing, err := d.s.h.rooms.SharingChanges(ctx, id, d.s.since.At[d.s.h.shardOf(string(id)).p], at)
	if err != nil {
		return err
	}
	d.add(d.gone, sharing.Gone)
	yes, err := d.matters(ctx, id)
	if err != nil || !yes {
		return err
	}
	return d.members(ctx, d.gone, id, at)
}

// joined are the rooms that the user is in.
func (s *syncer) joined() []ids.RoomID {
	rooms := s.rooms
	if s.partial {
		rooms = s.v.snapshot(nil, nil).rooms
	}
	var list []ids.RoomID
	for i := range rooms {
		if rooms[i].membership == event.Join {
			list = append(list, rooms[i].id)
		}
	}
	return list
}

// resolve leaves in gone those who share no room any more, and in changed nobody of
// these.
func (d *deviceDiff) resolve(ctx context.Context) error {
	if len(d.gone) == 0 {
		return nil
	}
	list := d.s.joined()
	heads, err := d.s.h.rooms.Heads(ctx, list...)
	if err != nil {
		return err
	}
	for i, id := range list {
		if heads[i] == nil || len(d.gone) == 0 {
			continue
		}
		still, err := d.s.h.rooms.JoinedOf(ctx, id, heads[i], d.gone)
		if err != nil {
			return err
		}
		for _, u := range still {
			delete(d.gone, u)
		}
	}
	for u := range d.gone {
		delete(d.changed, u)
	}
	return nil
}

// DeviceLists returns whose devices a client has to look at again that was at a
// position, and with whom it shares no room any more: up to now. The error is
// ErrUnknownPosition for a position that is ahead of the log.
// spec: client-server §GET /keys/changes.
func (h *Hub) DeviceLists(ctx context.Context, user ids.UserID, since *Position) (changed, left []ids.UserID, err error) {
	for range maxStale + 1 {
		if changed, left, err = h.deviceLists(ctx, user, since); !errors.Is(err, errStale) {
			break
		}
	}
	return changed, left, err
}

func (h *Hub) deviceLists(ctx context.Context, user ids.UserID, since *Position) (changed, left []ids.UserID, err error) {
	v, err := h.acquire(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	defer h.release(v)
	s := &syncer{h: h, v: v, req: &Request{User: user, Since: since}, since: *since}
	if err := s.cut(ctx); err != nil {
		return nil, nil, err
	}
	list, err := h.accounts.Changes(ctx, user, s.since.At[v.home], s.next.At[v.home])
	if err != nil {
		return nil, nil, err
	}
	return s.deviceLists(ctx, list, s.fold(list))
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
