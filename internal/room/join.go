package room

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// storedView shows the committed state of a room to the pure rules, reading what
// they ask for. A failed read is kept in err and looks like absent state.
type storedView struct {
	ctx  context.Context
	r    *Reader
	room ids.RoomID
	err  error
}

func (v *storedView) State(eventType, stateKey string) *event.Event {
	s, err := v.r.StateEvent(v.ctx, v.room, eventType, stateKey)
	if err != nil {
		v.err = err
	}
	return s.Bare()
}

// Ask runs a question of the pure rules against a room's committed state. The
// answer may be overtaken; commands check for themselves. Somebody decides by it, so
// that it is an error if something cannot be read.
func (r *Reader) Ask(ctx context.Context, room ids.RoomID, question func(roomstate.View)) error {
	v := &storedView{ctx: ctx, r: r.Strict(), room: room}
	question(v)
	return v.err
}

// JoinAuthoriser returns the member in whose name a user may join a restricted
// room, "" if the room's rule does not ask for one or the user is invited or in
// the room. M_FORBIDDEN if the user is in none of the rooms it allows.
// spec: client-server §Restricted rooms.
func (r *Reader) JoinAuthoriser(ctx context.Context, room ids.RoomID, user ids.UserID) (ids.UserID, error) {
	r = r.Strict()
	head, err := r.Head(ctx, room)
	if err != nil || head == nil {
		return "", err
	}
	v := &storedView{ctx: ctx, r: r, room: room}
	rule, allow := roomstate.JoinRule(v)
	m := roomstate.Membership(v, user)
	if v.err != nil {
		return "", v.err
	}
	if rule != event.JoinRuleRestricted && rule != event.JoinRuleKnockRestricted || m == event.Join || m == event.Invite {
		return "", nil
	}
	inAllowed, err := r.InAny(ctx, user, allow)
	if err != nil {
		return "", err
	}
	if !inAllowed {
		return "", merr.ForbiddenErr("You are in none of the rooms whose members may join this room")
	}
	for _, candidate := range authorisers(head, v) {
		if roomstate.CanInvite(head.Version, candidate, v) {
			return candidate, v.err
		}
	}
	return "", merr.New(http.StatusBadRequest, merr.UnableToAuthoriseJoin, "Nobody who may invite is in the room")
}

// maxAllowed bounds the rooms of a join rule that are looked at. An event has room
// for some hundred.
const maxAllowed = 1000

// InAny reports whether a user is in one of the rooms.
func (r *Reader) InAny(ctx context.Context, user ids.UserID, rooms []ids.RoomID) (bool, error) {
	for _, id := range rooms[:min(len(rooms), maxAllowed)] {
		if _, err := ids.ParseRoomID(string(id)); err != nil {
			continue // anything can stand in a join rule
		}
		s, err := r.StateEvent(ctx, id, event.TypeMember, string(user))
		if err != nil {
			return false, err
		}
		if s != nil && s.Member().Membership == event.Join {
			return true, nil
		}
	}
	return false, nil
}

// authorisers lists those who are likely to have the power to invite.
func authorisers(head *Head, v *storedView) []ids.UserID {
	out := roomstate.PowersOf(head.Version, v).Creators()
	if pl := v.State(event.TypePowerLevels, ""); pl != nil {
		if levels, err := pl.PowerLevels(); err == nil {
			for u := range levels.Users {
				out = append(out, u)
			}
			if levels.User("") >= levels.Level(event.LevelInvite) {
				out = append(out, v.anyMember())
			}
		}
	}
	return out
}

// anyMember returns a member who is in the room, "" if there is none.
func (v *storedView) anyMember() ids.UserID {
	var found ids.UserID
	err := v.r.WalkState(v.ctx, v.room, event.TypeMember, func(s *Stored) bool {
		if s.Member().Membership == event.Join {
			found = ids.UserID(*s.StateKey)
		}
		return found == ""
	})
	if err != nil {
		v.err = err
	}
	return found
}
