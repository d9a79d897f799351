package account

import (
	"cmp"
	"context"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// maxShortTokens bounds the short-lived tokens of one user; the one that ends
// first makes room for a new one.
const maxShortTokens = 20

// ShortToken is a token that lasts minutes, stored under its hash.
type ShortToken struct {
	Use ShortTokenUse `json:"use"`
	// ExpiresTS is in ms since 1970.
	ExpiresTS int64 `json:"expires_ts"`
}

// ShortTokenUse says what a short-lived token is good for. The values are part of
// the on-disk format.
type ShortTokenUse string

// The uses of short-lived tokens.
const (
	// UseLogin: one login, of whoever shows it. spec: client-server
	// §POST /login, m.login.token.
	UseLogin ShortTokenUse = "login"
	// UseOpenID: to tell a third party who the user is. spec: client-server §OpenID.
	UseOpenID ShortTokenUse = "openid"
	// UseConfirm: the user has signed in elsewhere for a session of user-interactive
	// authentication, whose ID the token is. spec: client-server §SSO during
	// User-Interactive Authentication.
	UseConfirm ShortTokenUse = "confirm"
	// UseSpent: nothing any more. It is a proof that somebody else issued, and that was
	// used; the row ends when the proof would.
	UseSpent ShortTokenUse = "spent"
)

func (p Place) shortToken(hash string) storage.Key { return p.key(tables.ShortToken, hash) }

// IssueShortToken stores a short-lived token.
type IssueShortToken struct {
	command
	Hash  string
	Token ShortToken

	drop []string
}

// NewIssueShortToken returns the command.
func NewIssueShortToken(user ids.UserID, hash string, t ShortToken) *IssueShortToken {
	return &IssueShortToken{command: command{user}, Hash: hash, Token: t}
}

var _ partition.Command = (*IssueShortToken)(nil)

// Name implements partition.Command.
func (c *IssueShortToken) Name() string { return "issue_short_token" }

// Prepare implements partition.Command. Which tokens go is not checked again by
// Apply: what is missed by one command is found by the next.
func (c *IssueShortToken) Prepare(ctx context.Context, p *partition.Prep) error {
	type held struct {
		hash    string
		expires int64
	}
	var all []held
	pl := c.at(p)
	err := NewReader(p.Store(), p.Count()).scan(ctx, pl, tables.ShortToken, "", "", func(e storage.Entry) error {
		t := ShortToken{}
		if err := decode(e.Value, &t); err != nil {
			return err
		}
		if t.Use != UseSpent { // or asking for other tokens would make it good again
			all = append(all, held{e.Sort, t.ExpiresTS})
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Compare(a.expires, b.expires) })
	c.drop = nil
	for _, t := range all[:max(0, len(all)-maxShortTokens+1)] {
		c.drop = append(c.drop, t.hash)
	}
	return p.Pin(ctx, pl.account())
}

// Apply implements partition.Command.
func (c *IssueShortToken) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	if err := get[Account](tx, p.account()).mayLogIn(); err != nil {
		return nil, err
	}
	for _, hash := range c.drop {
		tx.Delete(p.shortToken(hash))
	}
	t := c.Token
	put(tx, p.shortToken(c.Hash), &t)
	return nil, nil
}

// valid reports whether the token may be used so now, in ms since 1970.
func (t *ShortToken) valid(use ShortTokenUse, now int64) bool {
	return t != nil && t.Use == use && now < t.ExpiresTS
}

// spend uses a login token up. M_FORBIDDEN if it is not one, or has ended.
func spend(tx *partition.Tx, p Place, hash string) error {
	k := p.shortToken(hash)
	if !get[ShortToken](tx, k).valid(UseLogin, tx.Now) {
		return merr.ForbiddenErr("The login token is not valid, or was used")
	}
	tx.Delete(k)
	return nil
}

// Confirm uses up that a user has signed in elsewhere. The result is whether they
// had.
type Confirm struct {
	command
	Hash string
}

// NewConfirm returns the command.
func NewConfirm(user ids.UserID, hash string) *Confirm { return &Confirm{command{user}, hash} }

var _ partition.Command = (*Confirm)(nil)

// Name implements partition.Command.
func (c *Confirm) Name() string { return "confirm" }

// Prepare implements partition.Command.
func (c *Confirm) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).shortToken(c.Hash))
}

// Apply implements partition.Command.
func (c *Confirm) Apply(tx *partition.Tx) (any, error) {
	k := c.in(tx).shortToken(c.Hash)
	if !get[ShortToken](tx, k).valid(UseConfirm, tx.Now) {
		return false, nil
	}
	tx.Delete(k)
	return true, nil
}

// SpendProof uses up a proof that somebody else issued, under its hash. The result is
// whether it was not used before.
type SpendProof struct {
	command
	Hash string
	// ExpiresTS is when the proof is good no more, in ms since 1970.
	ExpiresTS int64

	// spent are the other proofs, by when they end.
	spent map[string]int64
}

// NewSpendProof returns the command.
func NewSpendProof(user ids.UserID, hash string, expires int64) *SpendProof {
	return &SpendProof{command: command{user}, Hash: hash, ExpiresTS: expires}
}

var _ partition.Command = (*SpendProof)(nil)

// Name implements partition.Command.
func (c *SpendProof) Name() string { return "spend_proof" }

// Prepare implements partition.Command. The others are looked at once: what has not
// ended goes with a later proof.
func (c *SpendProof) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	c.spent = make(map[string]int64)
	err := NewReader(p.Store(), p.Count()).scan(ctx, pl, tables.ShortToken, "", "", func(e storage.Entry) error {
		t := ShortToken{}
		if decode(e.Value, &t) == nil && t.Use == UseSpent && e.Sort != c.Hash {
			c.spent[e.Sort] = t.ExpiresTS
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.Pin(ctx, pl.shortToken(c.Hash))
}

// Apply implements partition.Command.
func (c *SpendProof) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	if get[ShortToken](tx, p.shortToken(c.Hash)).valid(UseSpent, tx.Now) {
		return false, nil
	}
	for hash, expires := range c.spent {
		if expires <= tx.Now {
			tx.Delete(p.shortToken(hash))
		}
	}
	put(tx, p.shortToken(c.Hash), &ShortToken{Use: UseSpent, ExpiresTS: c.ExpiresTS})
	return true, nil
}

// OpenID reports whether an OpenID token of a user is good now, in ms since 1970.
func (r *Reader) OpenID(ctx context.Context, user ids.UserID, hash string, now int64) (bool, error) {
	t, err := one[ShortToken](ctx, r, r.Place(user).shortToken(hash))
	if err != nil || !t.valid(UseOpenID, now) {
		return false, err
	}
	a, err := r.Account(ctx, user)
	return a != nil && !a.Deactivated && !a.Locked, err
}
