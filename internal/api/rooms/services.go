package rooms

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// aliased returns what an alias leads to, nil if nowhere. Application services may
// make the room of an alias of theirs just now. spec: application-service §Querying.
func (m *Module) aliased(ctx context.Context, a ids.RoomAlias) (*room.AliasTarget, error) {
	t, err := m.Rooms.Alias(ctx, a)
	if err != nil || t != nil || a.Server() != m.Server {
		return t, err
	}
	if made, err := m.Asker.QueryAlias(ctx, a); err != nil || !made {
		return nil, err
	}
	return m.Rooms.Alias(ctx, a)
}

// account returns a user's account, nil if there is none. Application services may
// make a user of theirs just now.
func (m *Module) account(ctx context.Context, user ids.UserID) (*account.Account, error) {
	acc, err := m.Accounts.Account(ctx, user)
	if err != nil || acc != nil || user.Server() != m.Server {
		return acc, err
	}
	if made, err := m.Asker.QueryUser(ctx, user); err != nil || !made {
		return nil, err
	}
	return m.Accounts.Account(ctx, user)
}

// unmade reports whether a user is not there, but of an application service, which alone
// can make them. They are invited all the same: bridges say to no question that they have
// a user, and make those who are invited, to begin a conversation on the other side.
func (m *Module) unmade(ctx context.Context, user ids.UserID) (bool, error) {
	if user.Server() != m.Server || !m.Services.Owns(user) {
		return false, nil
	}
	acc, err := m.Accounts.Account(ctx, user)
	if err != nil || acc != nil {
		return false, err
	}
	if made, err := m.Asker.QueryUser(ctx, user); err == nil && made {
		acc, err = m.Accounts.Account(ctx, user)
		return acc == nil, err
	}
	return true, nil
}

// mayName is M_EXCLUSIVE for an alias that is not the caller's to make or delete:
// of an application service those outside its namespaces, of all others those in
// an exclusive one. spec: application-service §Server admin style permissions.
func (m *Module) mayName(c api.Caller, a ids.RoomAlias) error {
	s := m.Services.ByID(c.AppService)
	if s != nil && !s.HasAlias(a) || m.Services.ReservedAlias(a, s) {
		return merr.New(http.StatusBadRequest, merr.Exclusive, "The alias is reserved for an application service, or in no namespace of the one that asks")
	}
	return nil
}

// networkRooms lists the rooms that application services list: of one network, or
// of all.
func (m *Module) networkRooms(ctx context.Context, q *listQuery) ([]ids.RoomID, error) {
	if !q.allNetworks {
		return m.Networks.Rooms(ctx, q.network)
	}
	var out []ids.RoomID
	for _, s := range m.Services.All() {
		list, err := m.Networks.Rooms(ctx, appservice.Instance{Service: s.ID})
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}
