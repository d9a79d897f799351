package rooms

import (
	"context"
	"math"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// errNotIn answers whoever may not read a room. It does not tell a room that is
// none of the caller's business from one that does not exist.
func errNotIn() error { return merr.ForbiddenErr("You are not in this room") }

// reading is one request's look at a room.
type reading struct {
	id     ids.RoomID
	access *room.Access
	// until is the last position of which the caller may see the state.
	until  ids.Seq
	caller api.Caller
	// bundled are the aggregations of the events that are written.
	bundled room.Aggregations
}

// read opens the room of the request: 403 M_FORBIDDEN for those who may read
// nothing of it.
func (m *Module) read(r *api.Request) (*reading, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	a, err := m.access(r.Context, id, r.Caller.User)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, errNotIn()
	}
	until, err := a.Until()
	if err != nil {
		return nil, err
	}
	return &reading{id: id, access: a, until: until, caller: r.Caller}, nil
}

// access is Reader.Access, but nil too for a room that the user has forgotten and
// that not everyone may read. spec: client-server §Leaving rooms: forgotten
// rooms have no history for the user.
func (m *Module) access(ctx context.Context, id ids.RoomID, user ids.UserID) (*room.Access, error) {
	a, err := m.Rooms.Access(ctx, id, user)
	if err != nil || a == nil || a.Membership == event.Join || a.WorldReadable() {
		return a, err
	}
	own, err := m.Accounts.Membership(ctx, user, id)
	if err != nil || own != nil && own.Forgotten {
		return nil, err
	}
	return a, nil
}

// look is read for a request about one event of the room: it takes no right to read
// the room, only to see the event. access is nil for those who may read nothing.
func (m *Module) look(r *api.Request) (*reading, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	a, err := m.access(r.Context, id, r.Caller.User)
	if err != nil {
		return nil, err
	}
	return &reading{id: id, access: a, until: math.MaxInt64, caller: r.Caller}, nil
}

// mustBeIn is 403 M_FORBIDDEN for users who are not in the room. Commands ask
// again; this keeps what else a handler would tell from strangers.
func (m *Module) mustBeIn(ctx context.Context, id ids.RoomID, user ids.UserID) error {
	s, err := m.Rooms.StateEvent(ctx, id, event.TypeMember, string(user))
	if err != nil {
		return err
	}
	if s == nil || s.Member().Membership != event.Join {
		return errNotIn()
	}
	return nil
}

// appendEvent appends an event as the caller gets it. spec: client-server
// §ClientEvent.
func (v *reading) appendEvent(b []byte, s *room.Stored) []byte {
	m := v.access.MembershipAt(s.Seq)
	if m == event.NoMembership {
		m = event.Leave
	}
	return s.AppendClient(b, room.Viewer{
		User: v.caller.User, Device: v.caller.Device, RoomID: true, Membership: m, Relations: v.bundled[s.Seq],
		Erasures: v.access.Erasures,
	})
}

// appendEvents appends a JSON array of events.
func (v *reading) appendEvents(b []byte, list []*room.Stored) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = v.appendEvent(b, s)
	}
	return append(b, ']')
}

// mayPublish reports whether a user may change how a room is found: its aliases
// and its place in the directory. It is the same publicity as the canonical
// alias, so it takes the same power.
func (m *Module) mayPublish(ctx context.Context, h *room.Head, user ids.UserID) (ok bool, err error) {
	err = m.Rooms.Ask(ctx, h.RoomID, func(st roomstate.View) {
		ok = roomstate.CanSend(h.Version, user, event.TypeCanonicalAlias, true, st)
	})
	return ok, err
}
