// Package farewell takes users whose accounts ended out of their rooms, and guests
// out of rooms that do not want them any more (Guests). It follows
// the logs of the partitions, so that a deactivation is answered at once and is
// completed whatever happens to the process.
//
// What is to be done stands in the user's Farewell row, which goes last; everything
// before may be done twice. A room that refuses, because its state changed
// meanwhile, is passed over; one that cannot be reached is asked again.
package farewell

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// Name is the name of the consumer.
const Name = "farewell"

// Handler is the consumer. It may be called by several goroutines.
type Handler struct {
	Router   partition.Router
	Accounts *account.Reader
}

var _ consumer.Handler = Handler{}

// Handle implements consumer.Handler.
func (h Handler) Handle(ctx context.Context, b consumer.Batch) error {
	for i := range b.Records {
		r := &b.Records[i]
		if r.Kind != partition.RecordUser || !isFarewell(r) {
			continue
		}
		if err := h.user(ctx, ids.UserID(r.Entity)); err != nil {
			return err
		}
	}
	return nil
}

func isFarewell(r *partition.Record) bool {
	c, ok := r.Obj.(*account.Change)
	if !ok {
		var err error
		if c, err = account.DecodeChange(r.Seq, r.Data); err != nil {
			return false
		}
	}
	return c.Kind == account.ChangeFarewell
}

// Missed implements consumer.Handler: the list says what the log no longer does.
func (h Handler) Missed(ctx context.Context, p ids.Partition, _, _ ids.Seq) error {
	for {
		users, err := h.Accounts.Farewells(ctx, p)
		if err != nil || len(users) == 0 {
			return err
		}
		for _, u := range users {
			if err := h.user(ctx, u); err != nil {
				return err
			}
		}
	}
}

// user does what is to be done about one user.
func (h Handler) user(ctx context.Context, user ids.UserID) error {
	f, err := h.Accounts.Farewell(ctx, user)
	if err != nil || f == nil {
		return err
	}
	list, err := h.Accounts.Memberships(ctx, user)
	if err != nil {
		return err
	}
	for _, in := range list {
		if f.Erase {
			if err := unlessRefused(h.Router.Do(ctx, &room.Erase{Room: in.Room, User: user})); err != nil {
				return err
			}
		}
		if in.Membership != event.Join && in.Membership != event.Invite && in.Membership != event.Knock {
			continue
		}
		if err := leave(ctx, h.Router, in.Room, user); err != nil {
			return err
		}
	}
	_, err = h.Router.Do(ctx, account.NewEndFarewell(user))
	return err
}

// unlessRefused passes an error on that asking again may cure.
func unlessRefused(_ any, err error) error {
	if err != nil && merr.From(err).Status >= http.StatusInternalServerError {
		return err
	}
	return nil
}

func leave(ctx context.Context, r partition.Router, from ids.RoomID, user ids.UserID) error {
	key := string(user)
	return unlessRefused(r.Do(ctx, &room.Send{Room: from, Draft: roomstate.Draft{
		Type: event.TypeMember, StateKey: &key, Sender: user, Content: []byte(`{"membership":"leave"}`),
	}}))
}
