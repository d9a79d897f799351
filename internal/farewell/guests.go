package farewell

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// GuestsName is the name of the consumer Guests.
const GuestsName = "guests"

// Guests is the consumer that makes guests leave a room that was closed to them.
// spec: client-server §Guest Access, server behaviour. It may be called by several
// goroutines.
type Guests struct {
	Router   partition.Router
	Accounts *account.Reader
	Rooms    *room.Reader
}

var _ consumer.Handler = Guests{}

// Handle implements consumer.Handler.
func (g Guests) Handle(ctx context.Context, b consumer.Batch) error {
	for i := range b.Records {
		s, err := g.Rooms.Record(ctx, &b.Records[i])
		if err != nil {
			return err
		}
		if s == nil || !s.Is(event.TypeGuestAccess, "") || allows(s) {
			continue
		}
		if err := g.room(ctx, ids.RoomID(b.Records[i].Entity)); err != nil {
			return err
		}
	}
	return nil
}

// Missed implements consumer.Handler. Guests of rooms whose change was missed stay
// until the next; they cannot come back once they leave.
func (g Guests) Missed(context.Context, ids.Partition, ids.Seq, ids.Seq) error { return nil }

func allows(s *room.Stored) bool {
	access, _ := event.StringField(s.Content, "guest_access")
	return access == "can_join"
}

// room takes the guests out of a room, unless it was opened again.
func (g Guests) room(ctx context.Context, in ids.RoomID) error {
	now, err := g.Rooms.StateEvent(ctx, in, event.TypeGuestAccess, "")
	if err != nil || now == nil || allows(now) {
		return err
	}
	var members []ids.UserID
	err = g.Rooms.WalkState(ctx, in, event.TypeMember, func(s *room.Stored) bool {
		if m := s.Member().Membership; m == event.Join || m == event.Invite {
			members = append(members, ids.UserID(*s.StateKey))
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, user := range members {
		a, err := g.Accounts.Account(ctx, user)
		if err != nil {
			return err
		}
		if a == nil || !a.Guest {
			continue
		}
		if err := leave(ctx, g.Router, in, user); err != nil {
			return err
		}
	}
	return nil
}
