package account

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// The profile fields that member events repeat.
const (
	FieldDisplayName = "displayname"
	FieldAvatarURL   = "avatar_url"
)

// MaxProfileBytes is the size that a profile as JSON has to stay below. spec:
// client-server §PUT /profile/{userId}/{keyName}.
const MaxProfileBytes = 64 << 10

// fieldBytes is what a field adds to the profile as JSON: quotes, colon and comma
// beside the name and the value.
func fieldBytes(field string, value []byte) int { return len(field) + len(value) + 4 }

// SetProfile sets a profile field; a nil Value removes it. The value is JSON.
// M_PROFILE_TOO_LARGE if the profile would reach MaxProfileBytes.
type SetProfile struct {
	command
	Field string
	Value jsontext.Value
}

// NewSetProfile returns the command.
func NewSetProfile(user ids.UserID, field string, value jsontext.Value) *SetProfile {
	return &SetProfile{command{user}, field, value}
}

var _ partition.Command = (*SetProfile)(nil)

// Name implements partition.Command.
func (c *SetProfile) Name() string { return "set_profile" }

// Prepare implements partition.Command.
func (c *SetProfile) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).account(), c.at(p).profile(c.Field))
}

// Apply implements partition.Command.
func (c *SetProfile) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	k := p.profile(c.Field)
	a := get[Account](tx, p.account())
	if a == nil {
		return nil, merr.NotFoundErr("No such user")
	}
	changed := *a
	old := tx.Get(k).Value
	if old != nil {
		changed.ProfileBytes -= fieldBytes(c.Field, old)
	}
	if c.Value == nil {
		if old != nil {
			tx.Delete(k)
			put(tx, p.account(), &changed)
		}
		return nil, c.tell(tx, old)
	}
	if string(old) == string(c.Value) {
		return nil, nil
	}
	changed.ProfileBytes += fieldBytes(c.Field, c.Value)
	if changed.ProfileBytes+1 >= MaxProfileBytes { // two braces, and no comma after the last field
		return nil, merr.New(http.StatusBadRequest, merr.ProfileTooLarge, "A profile has to stay below %d bytes", MaxProfileBytes)
	}
	tx.Put(k, c.Value, nil)
	put(tx, p.account(), &changed)
	return nil, c.tell(tx, old)
}

// tell tells the index of users of a new display name.
func (c *SetProfile) tell(tx *partition.Tx, old []byte) error {
	if c.Field != FieldDisplayName {
		return nil
	}
	return tellNames(tx, c.User, terms(c.User, old), terms(c.User, c.Value))
}
