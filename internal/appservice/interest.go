package appservice

import (
	"context"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// maxKnownRooms bounds the rooms of one partition of which it is remembered
// whether a service is interested; beyond it all are forgotten, which costs a
// look at each that is in use. It is about 10 MB.
const maxKnownRooms = 50_000

// interest is what is remembered of a room: why a service is interested, if it is.
// spec: application-service §Registration, namespaces.
//
// One member who is the service's is enough, so one is remembered, the witness. While
// the witness is in the room nothing has to be looked at, whoever comes and goes;
// when they leave, another is looked for. A room without a witness gets one by
// the join event of one. So the cost of an event is a look into a map, and that
// of a room is one walk through its members at a time.
type interest struct {
	// named: the room or one of its aliases is in a namespace.
	named   bool
	witness ids.UserID
}

func (in interest) any() bool { return in.named || in.witness != "" }

// known are the rooms of one partition that a service's line has come across.
type known struct {
	svc   *Service
	rooms *room.Reader

	mu struct {
		sync.Mutex
		of map[ids.RoomID]interest
		// quiet are rooms without interest that are not in of; see now.
		quiet map[ids.RoomID]struct{}
	}
}

func (k *known) get(id ids.RoomID) (interest, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	in, ok := k.mu.of[id]
	return in, ok
}

func (k *known) set(id ids.RoomID, in interest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.of == nil || len(k.mu.of) >= maxKnownRooms {
		k.mu.of = make(map[ids.RoomID]interest)
	}
	k.mu.of[id] = in
	delete(k.mu.quiet, id)
}

func (k *known) forget(id ids.RoomID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.mu.of, id)
	delete(k.mu.quiet, id)
}

func (k *known) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.of, k.mu.quiet = nil, nil
}

// at returns the interest in a room after the event at position s.
func (k *known) at(ctx context.Context, id ids.RoomID, s ids.Seq) (interest, error) {
	if in, ok := k.get(id); ok {
		return in, nil
	}
	in, err := k.look(ctx, id, s)
	if err != nil {
		return interest{}, err
	}
	k.set(id, in)
	return in, nil
}

// look reads why a service is interested in a room. Of the aliases it reads those
// there are now: there is no telling which there were.
func (k *known) look(ctx context.Context, id ids.RoomID, s ids.Seq) (in interest, err error) {
	in.named = k.svc.HasRoom(id)
	if !in.named && len(k.svc.aliases) > 0 {
		list, err := k.rooms.Aliases(ctx, id)
		if err != nil {
			return in, err
		}
		for _, a := range list {
			in.named = in.named || k.svc.HasAlias(a)
		}
	}
	in.witness, err = k.rooms.SomeMember(ctx, id, s, k.svc.HasUser)
	return in, err
}

// event reports whether a service is interested in an event, and notes what the
// event changes. Events come in the order of their room.
func (k *known) event(ctx context.Context, e *room.Stored) (bool, error) {
	if e.Type != event.TypeMember || e.StateKey == nil {
		in, err := k.at(ctx, e.RoomID, e.Seq)
		// Who creates a room is not in it yet.
		return in.any() || e.Type == event.TypeCreate && k.svc.HasUser(e.Sender), err
	}
	before, err := k.at(ctx, e.RoomID, e.Seq)
	if err != nil {
		return false, err
	}
	target := ids.UserID(*e.StateKey)
	joined := e.Member().Membership == event.Join
	switch {
	case before.witness == target && !joined:
		// Their leaving is told; whether what follows is depends on the others.
		after := before
		if after.witness, err = k.rooms.SomeMember(ctx, e.RoomID, e.Seq, k.svc.HasUser); err != nil {
			return false, err
		}
		k.set(e.RoomID, after)
	case before.witness == "" && k.svc.HasUser(target):
		if joined {
			before.witness = target
			k.set(e.RoomID, before)
		}
		return true, nil
	}
	return before.any() || k.svc.HasUser(target), nil
}
