package room

import (
	"context"
	"sort"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Access says what one user may read of one room. spec: client-server §Room
// history visibility. It is a snapshot: make a new one for each request.
type Access struct {
	// Head is the room's head, never nil.
	Head *Head
	// Membership is the user's current one.
	Membership event.Membership
	// Member is the user's current member event, nil if there is none.
	Member *Stored

	// Erasures are the users whose events the user gets redacted, nil for none.
	Erasures *Erasures

	user ids.UserID
	// members are the user's member events and visibility the
	// m.room.history_visibility events, oldest first.
	members    []*Stored
	visibility []*Stored
	// unread: the room says who may see its history, and that cannot be read.
	unread bool
}

// Access reads what a user may see of a room. It is nil if there is no room.
func (r *Reader) Access(ctx context.Context, room ids.RoomID, user ids.UserID) (*Access, error) {
	head, err := r.Head(ctx, room)
	if err != nil || head == nil {
		return nil, err
	}
	p := r.Place(room)
	now, lost, err := r.getOrLose(ctx, room, []storage.Key{p.state(event.TypeMember, string(user)), p.state(event.TypeHistoryVisibility, "")})
	if err != nil {
		return nil, err
	}
	a := &Access{Head: head, user: user, Member: now[0]}
	_, a.unread = lost[1]
	if now[0] != nil {
		a.Membership = now[0].Member().Membership
	}
	if a.members, err = r.history(ctx, now[0]); err != nil {
		return nil, err
	}
	if a.visibility, err = r.history(ctx, now[1]); err != nil {
		return nil, err
	}
	a.Erasures, err = r.erasures(ctx, head, a.joinedBy)
	return a, err
}

// maxHistory bounds how far back a piece of state is followed. What is older is
// judged strictly: a user who changed their name more often than this counts as
// no member before, and the room as showing its past to members alone. So it is too
// where something in between cannot be read.
const maxHistory = 1000

// history returns a state event and all it replaced, oldest first.
func (r *Reader) history(ctx context.Context, s *Stored) ([]*Stored, error) {
	var out []*Stored
	for s != nil && len(out) < maxHistory {
		out = append(out, s)
		if s.Replaces == 0 {
			break
		}
		var err error
		if s, err = r.Replaced(ctx, s); err != nil {
			return nil, err
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out, nil
}

// last returns the last event of a history at or before a position, nil if none.
func last(history []*Stored, s ids.Seq) *Stored {
	i := sort.Search(len(history), func(i int) bool { return history[i].Seq > s })
	if i == 0 {
		return nil
	}
	return history[i-1]
}

// MembershipAt is the user's membership after the event at a position.
func (a *Access) MembershipAt(s ids.Seq) event.Membership {
	if m := last(a.members, s); m != nil {
		return m.Member().Membership
	}
	return event.NoMembership
}

func (a *Access) visibilityAt(s ids.Seq) event.HistoryVisibility {
	if v := last(a.visibility, s); v != nil {
		return v.HistoryVisibility()
	}
	if a.unread || len(a.visibility) > 0 && a.visibility[0].Replaces != 0 {
		return event.VisibilityJoined // there is more than was read
	}
	return event.VisibilityShared
}

// MaySee reports whether the user may see an event of the room.
func (a *Access) MaySee(s *Stored) bool {
	if s.Is(event.TypeMember, string(a.user)) {
		// One's own joins, invites, kicks and bans are no secret.
		return true
	}
	if s.Is(event.TypeHistoryVisibility, "") && a.allowed(s.Seq, a.visibilityAt(s.Seq-1)) {
		return true // the more permissive of before and after
	}
	return a.allowed(s.Seq, a.visibilityAt(s.Seq))
}

func (a *Access) allowed(s ids.Seq, v event.HistoryVisibility) bool {
	m := a.MembershipAt(s)
	if m == event.Join {
		return true
	}
	switch v {
	case event.VisibilityWorldReadable:
		return true
	case event.VisibilityShared:
		return a.joinsAfter(s)
	case event.VisibilityInvited:
		return m == event.Invite
	default:
		return false
	}
}

// joinsAfter reports whether the user joined after a position.
func (a *Access) joinsAfter(s ids.Seq) bool {
	for i := len(a.members) - 1; i >= 0 && a.members[i].Seq > s; i-- {
		if a.members[i].Member().Membership == event.Join {
			return true
		}
	}
	return false
}

// WasJoined reports whether the user is or ever was in the room.
func (a *Access) WasJoined() bool { return a.joinsAfter(0) }

// WorldReadable reports whether anyone may read the room now.
func (a *Access) WorldReadable() bool {
	return a.visibilityAt(a.Head.Last) == event.VisibilityWorldReadable
}

// Until returns the last position whose state the user may see: the end of the
// room for those in it, or in a room that anyone may read; the end of their stay
// for those who were. The error is M_FORBIDDEN for all others.
func (a *Access) Until() (ids.Seq, error) {
	if a.Membership == event.Join || a.WorldReadable() {
		return a.Head.Last, nil
	}
	if left := a.Left(); left != 0 {
		return left, nil
	}
	return 0, merr.ForbiddenErr("You are not in this room")
}

// Left returns the position of the event that ended the user's last stay in the
// room, 0 if there is none.
func (a *Access) Left() ids.Seq {
	for i := len(a.members) - 1; i > 0; i-- {
		if a.members[i-1].Member().Membership == event.Join && a.members[i].Member().Membership != event.Join {
			return a.members[i].Seq
		}
	}
	return 0
}
