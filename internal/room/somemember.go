package room

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// SomeMember returns a user that match accepts and who was in a room after the
// event at position s, "" if there was none. It asks match about the members, in
// order, until one is found.
func (r *Reader) SomeMember(ctx context.Context, room ids.RoomID, s ids.Seq, match func(ids.UserID) bool) (found ids.UserID, err error) {
	var failed error
	err = r.WalkState(ctx, room, event.TypeMember, func(e *Stored) bool {
		user := ids.UserID(*e.StateKey)
		if !match(user) {
			return true
		}
		var then *Stored
		if then, failed = r.asOf(ctx, e, s); failed != nil {
			return false
		}
		if then != nil && then.Member().Membership == event.Join {
			found = user
		}
		return found == ""
	})
	if failed != nil {
		err = failed
	}
	return found, err
}
