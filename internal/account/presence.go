package account

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Presence is what is kept of a user's presence: what they said. Whether they are
// there is known in memory only.
type Presence struct {
	Status string `json:"status,omitempty"`
	// TS is when it was said, in ms since 1970; what is said later has a greater one,
	// whatever clocks say.
	TS int64 `json:"ts"`
}

// SetPresence keeps what a user says about being there, if it is new. Its result is
// the *Presence that is kept then.
type SetPresence struct {
	command
	Status string
}

// NewSetPresence returns the command.
func NewSetPresence(user ids.UserID, status string) *SetPresence {
	return &SetPresence{command{user}, status}
}

var _ partition.Command = (*SetPresence)(nil)

// Name implements partition.Command.
func (c *SetPresence) Name() string { return "set_presence" }

// Prepare implements partition.Command.
func (c *SetPresence) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).key(tables.Presence, ""))
}

// Apply implements partition.Command.
func (c *SetPresence) Apply(tx *partition.Tx) (any, error) {
	k := c.in(tx).key(tables.Presence, "")
	old := get[Presence](tx, k)
	if old != nil && old.Status == c.Status {
		return old, nil
	}
	said := &Presence{Status: c.Status, TS: tx.Now}
	if old != nil {
		said.TS = max(said.TS, old.TS+1)
	}
	put(tx, k, said)
	return said, nil
}

// Presence returns what a user last said about being there, nil if nothing.
func (r *Reader) Presence(ctx context.Context, user ids.UserID) (*Presence, error) {
	return one[Presence](ctx, r, r.Place(user).key(tables.Presence, ""))
}
