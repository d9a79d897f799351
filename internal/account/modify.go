package account

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Modify changes what administrators may change of an account. M_NOT_FOUND if
// there is none.
type Modify struct {
	command
	// Admin and Unlimited are what it becomes; nil leaves it.
	Admin, Unlimited *bool
	// Reactivate makes a deactivated account usable again, with this password hash.
	Reactivate string
}

// NewModify returns the command.
func NewModify(user ids.UserID) *Modify { return &Modify{command: command{user}} }

var _ partition.Command = (*Modify)(nil)

// Name implements partition.Command.
func (c *Modify) Name() string { return "modify_account" }

// Prepare implements partition.Command.
func (c *Modify) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).account(), c.at(p).profile(FieldDisplayName))
}

// Apply implements partition.Command.
func (c *Modify) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	k := p.account()
	a := get[Account](tx, k)
	if a == nil {
		return nil, merr.NotFoundErr("No such user")
	}
	changed := *a
	if c.Admin != nil {
		changed.Admin = *c.Admin
	}
	if c.Unlimited != nil {
		changed.Unlimited = *c.Unlimited
	}
	if c.Reactivate != "" {
		// Who is back can be found again.
		if err := tellNames(tx, c.User, nil, terms(c.User, tx.Get(p.profile(FieldDisplayName)).Value)); err != nil {
			return nil, err
		}
		changed.Deactivated, changed.PasswordHash = false, c.Reactivate
	}
	put(tx, k, &changed)
	return nil, nil
}
