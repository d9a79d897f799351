package account

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Farewell is a row of the list of users whose accounts ended: what is still to be
// done about them is outside of their partition, and may take long. The row is
// written with the end of the account and removed when all is done, so that
// nothing is forgotten.
type Farewell struct {
	Erase bool `json:"erase,omitzero"`
}

func farewellKey(p ids.Partition, user ids.UserID) storage.Key {
	return storage.Key{Partition: p, Table: tables.Farewell, Sort: string(user)}
}

// endAccount removes what is in the user's partition, but the devices and the list
// of rooms, and asks for the rest. spec: client-server §POST /account/deactivate.
func (c *EndDevices) endAccount(tx *partition.Tx, p Place, a *Account) error {
	if err := tellNames(tx, c.User, terms(c.User, tx.Get(p.profile(FieldDisplayName)).Value), nil); err != nil {
		return err
	}
	a.PasswordHash, a.Deactivated, a.Locked, a.Suspended = "", true, false, false
	endIdentity(tx, p)
	endPush(tx, p)
	for _, t := range []storage.Table{tables.AccountData, tables.Filter, tables.ShortToken, tables.Presence, tables.ThreadSubscription} {
		tx.DeletePrefix(p.key(t, ""))
	}
	if c.Erase {
		tx.DeletePrefix(p.key(tables.Profile, ""))
		a.ProfileBytes = 0
	}
	for _, one := range c.contacts {
		tx.Delete(p.contact(one.Medium, one.Address))
		release(tx, c.User, one.Medium, one.Address)
	}
	tx.Put(farewellKey(p.Partition, c.User), encode(Farewell{Erase: c.Erase}), nil)
	change := &Change{Kind: ChangeFarewell, Seq: tx.NextSeq()}
	tx.Emit(partition.Record{Kind: partition.RecordUser, Entity: string(c.User), Data: encode(change), Obj: change})
	return nil
}

// EndFarewell says that all is done about a user whose account ended.
type EndFarewell struct{ command }

// NewEndFarewell returns the command.
func NewEndFarewell(user ids.UserID) *EndFarewell { return &EndFarewell{command{user}} }

var _ partition.Command = (*EndFarewell)(nil)

// Name implements partition.Command.
func (c *EndFarewell) Name() string { return "end_farewell" }

// Prepare implements partition.Command.
func (c *EndFarewell) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *EndFarewell) Apply(tx *partition.Tx) (any, error) {
	tx.Delete(farewellKey(tx.Partition(), c.User))
	return nil, nil
}

// Farewell returns what is still to be done about a user, nil if nothing is.
func (r *Reader) Farewell(ctx context.Context, user ids.UserID) (*Farewell, error) {
	return one[Farewell](ctx, r, farewellKey(r.Place(user).Partition, user))
}

// Farewells lists some users of a partition about whom something is still to be
// done; none when all is done.
func (r *Reader) Farewells(ctx context.Context, p ids.Partition) ([]ids.UserID, error) {
	rows, err := r.st.Scan(ctx, storage.Range{Partition: p, Table: tables.Farewell, Limit: usersPage})
	if err != nil {
		return nil, wrap("scan farewells", err)
	}
	out := make([]ids.UserID, len(rows))
	for i, row := range rows {
		out[i] = ids.UserID(row.Sort)
	}
	return out, nil
}
