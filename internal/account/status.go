package account

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// SetStatus locks or suspends an account, or takes that back. Its tokens stay
// valid, so that nobody has to log in again afterwards. M_NOT_FOUND if there is no
// such account or it is deactivated; M_FORBIDDEN for administrators, who could
// otherwise shut each other out. spec: client-server §Account moderation.
type SetStatus struct {
	command
	// Locked and Suspended are what it becomes; nil leaves it.
	Locked, Suspended *bool
}

// NewSetStatus returns the command.
func NewSetStatus(user ids.UserID, locked, suspended *bool) *SetStatus {
	return &SetStatus{command{user}, locked, suspended}
}

var _ partition.Command = (*SetStatus)(nil)

// Name implements partition.Command.
func (c *SetStatus) Name() string { return "set_account_status" }

// Prepare implements partition.Command.
func (c *SetStatus) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).account())
}

// Apply implements partition.Command.
func (c *SetStatus) Apply(tx *partition.Tx) (any, error) {
	k := c.in(tx).account()
	a := get[Account](tx, k)
	if err := a.Moderated(); err != nil {
		return nil, err
	}
	changed := *a
	if c.Locked != nil {
		changed.Locked = *c.Locked
	}
	if c.Suspended != nil {
		changed.Suspended = *c.Suspended
	}
	put(tx, k, &changed)
	return nil, nil
}

// Moderated returns the error for an account whose status is not an
// administrator's to see or change, nil for all others.
func (a *Account) Moderated() error {
	switch {
	case a == nil || a.Deactivated:
		return merr.NotFoundErr("No such user")
	case a.Admin:
		return merr.ForbiddenErr("The user is an administrator")
	}
	return nil
}
