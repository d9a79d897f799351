package account

import (
	"context"
	"net/http"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Refresh exchanges a refresh token for new tokens. The result is a Refreshed.
//
// The old tokens last until one of the new ones is used, so that a lost answer
// does not log the device out: the exchange can be repeated, which voids the
// tokens of the lost answer. A refresh token that comes back after its successor
// was used ends the whole session. spec: client-server §Refreshing access tokens.
type Refresh struct {
	command
	// Token is the hash of the refresh token.
	Token string
	// Session holds the new tokens; its device is found by Token.
	Session Session

	device ids.DeviceID // found by Prepare
}

// Refreshed is the result of Refresh.
type Refreshed struct {
	Device ids.DeviceID
	// Replayed: the token had been used up. The session has ended.
	Replayed bool
}

// NewRefresh returns the command.
func NewRefresh(user ids.UserID, token string, s Session) *Refresh {
	return &Refresh{command: command{user}, Token: token, Session: s}
}

var _ partition.Command = (*Refresh)(nil)

// ErrUnknownToken is the answer to a token that is not, or no longer, valid.
func ErrUnknownToken(softLogout bool) *merr.Error {
	e := merr.New(http.StatusUnauthorized, merr.UnknownToken, "The token is not valid")
	if softLogout {
		e = e.With("soft_logout", true)
	}
	return e
}

// Name implements partition.Command.
func (c *Refresh) Name() string { return "refresh" }

// Prepare implements partition.Command.
func (c *Refresh) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	t, err := NewReader(p.Store(), p.Count()).Token(ctx, c.User, c.Token)
	if err != nil {
		return err
	}
	if t == nil {
		return ErrUnknownToken(false)
	}
	c.device = t.Device
	return p.Pin(ctx, append(confirmKeys(pl, c.Token, t), pl.account())...)
}

// Apply implements partition.Command.
func (c *Refresh) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	if err := get[Account](tx, p.account()).mayLogIn(); err != nil {
		return nil, err
	}
	t, d := get[Token](tx, p.token(c.Token)), get[Device](tx, p.device(c.device))
	if t == nil || d == nil || !t.Refresh || t.Device != c.device {
		return nil, ErrUnknownToken(false)
	}
	if d.Spent == c.Token {
		endTokens(tx, p, c.device, d)
		return Refreshed{Device: c.device, Replayed: true}, nil
	}
	if t.ExpiresTS != 0 && t.ExpiresTS <= tx.Now {
		return nil, ErrUnknownToken(true)
	}
	// Its first use, like that of the access token issued with it, ends those
	// before it.
	t, d = confirm(tx, p, c.Token, t, d)
	next := *d
	next.Tokens = without(d.Tokens, t.Issued)
	for _, h := range t.Issued { // the tokens of an answer that got lost
		tx.Delete(p.token(h))
	}
	if len(t.Issued) > 0 {
		emit(tx, p, Change{Kind: ChangeSessions, Devices: []ids.DeviceID{c.device}})
	}
	s := c.Session
	s.Device = c.device
	issued := s.issue(tx, p, []string{c.Token, t.Pair})
	next.Tokens = append(next.Tokens, issued...)
	used := *t
	used.Issued = issued
	put(tx, p.token(c.Token), &used)
	put(tx, p.device(c.device), &next)
	return Refreshed{Device: c.device}, nil
}

// endTokens ends a device's tokens and keeps the device: a soft logout.
func endTokens(tx *partition.Tx, p Place, id ids.DeviceID, d *Device) {
	d.deleteTokens(tx, p)
	next := *d
	next.Tokens, next.Spent = nil, ""
	put(tx, p.device(id), &next)
	emit(tx, p, Change{Kind: ChangeSessions, Devices: []ids.DeviceID{id}})
}

// ConfirmToken ends the tokens that a token, now used for the first time,
// replaces. M_UNKNOWN_TOKEN if the token itself has ended meanwhile.
type ConfirmToken struct {
	command
	Token  string
	Device ids.DeviceID
	// Replaces is what the token's row said.
	Replaces []string
	Pair     string
}

// NewConfirmToken returns the command for a token whose row says Replaces.
func NewConfirmToken(user ids.UserID, hash string, t *Token) *ConfirmToken {
	return &ConfirmToken{command{user}, hash, t.Device, t.Replaces, t.Pair}
}

var _ partition.Command = (*ConfirmToken)(nil)

// Name implements partition.Command.
func (c *ConfirmToken) Name() string { return "confirm_token" }

// Prepare implements partition.Command.
func (c *ConfirmToken) Prepare(ctx context.Context, p *partition.Prep) error {
	t := &Token{Device: c.Device, Replaces: c.Replaces, Pair: c.Pair}
	return p.Pin(ctx, confirmKeys(c.at(p), c.Token, t)...)
}

// Apply implements partition.Command.
func (c *ConfirmToken) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	d := get[Device](tx, p.device(c.Device))
	t := get[Token](tx, p.token(c.Token))
	if d == nil || t == nil || t.Device != c.Device {
		return nil, ErrUnknownToken(false)
	}
	confirm(tx, p, c.Token, t, d)
	return nil, nil
}

// confirmKeys are the rows that confirm looks at.
func confirmKeys(p Place, hash string, t *Token) []storage.Key {
	keys := []storage.Key{p.device(t.Device), p.token(hash), p.token(t.Pair)}
	for _, h := range t.Replaces {
		keys = append(keys, p.token(h))
	}
	return keys
}

// confirm ends the tokens that a token replaces, if it is the first use of that
// token, and returns the token and its device as they are then.
func confirm(tx *partition.Tx, p Place, hash string, t *Token, d *Device) (*Token, *Device) {
	if len(t.Replaces) == 0 {
		return t, d
	}
	next := *d
	next.Tokens = without(d.Tokens, t.Replaces)
	if d.Spent != "" {
		tx.Delete(p.token(d.Spent))
	}
	for _, h := range t.Replaces {
		old := get[Token](tx, p.token(h))
		if old != nil && old.Refresh {
			next.Spent = h // kept, so that its use is noticed
			continue
		}
		tx.Delete(p.token(h))
	}
	for _, h := range []string{hash, t.Pair} {
		if k := get[Token](tx, p.token(h)); k != nil {
			kept := *k
			kept.Replaces = nil
			put(tx, p.token(h), &kept)
		}
	}
	put(tx, p.device(t.Device), &next)
	emit(tx, p, Change{Kind: ChangeSessions, Devices: []ids.DeviceID{t.Device}})
	return get[Token](tx, p.token(hash)), &next
}

// without returns a list less some hashes.
func without(list, less []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(h string) bool { return slices.Contains(less, h) })
}
