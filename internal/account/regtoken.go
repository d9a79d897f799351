package account

import (
	"context"
	"fmt"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// RegToken is a token that permits registration. It has a partition of its own,
// so that its uses are counted by one writer.
type RegToken struct {
	// UsesAllowed is how many accounts it is good for, 0 for any number.
	UsesAllowed int `json:"uses_allowed,omitzero"`
	Completed   int `json:"completed"`
	// ExpiresTS is in ms since 1970, 0 for never.
	ExpiresTS int64 `json:"expires_ts,omitzero"`
	// Admin makes the account a server administrator: the sign-up link of a new
	// server.
	Admin bool `json:"admin,omitzero"`
}

func (t *RegToken) valid(now int64) bool {
	return t != nil && (t.UsesAllowed == 0 || t.Completed < t.UsesAllowed) && (t.ExpiresTS == 0 || now < t.ExpiresTS)
}

func regTokenKey(token string, count int) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(token, count), Table: tables.RegToken, Entity: token}
}

// regTokenEntry is the token's place in the list of its partition.
func regTokenEntry(token string, count int) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(token, count), Table: tables.RegTokenList, Sort: token}
}

// RegTokenUse says what a UseRegToken does.
type RegTokenUse uint8

// The uses of a registration token.
const (
	// CreateRegToken writes it; an existing one is M_INVALID_PARAM.
	CreateRegToken RegTokenUse = iota + 1
	// ConsumeRegToken counts a use; the result is the *RegToken as it was.
	// M_FORBIDDEN if it is not valid.
	ConsumeRegToken
	// ReturnRegToken takes a use back: the registration failed after all.
	ReturnRegToken
	// DeleteRegToken removes it; the result is the *RegToken as it was.
	DeleteRegToken
	// UpdateRegToken changes how often and how long it may be used, to what New
	// says; the result is the *RegToken as it is then.
	UpdateRegToken
)

// UseRegToken changes a registration token.
type UseRegToken struct {
	Token string
	Use   RegTokenUse
	// New is what CreateRegToken writes. UpdateRegToken takes UsesAllowed and
	// ExpiresTS from it.
	New RegToken
}

var _ partition.Command = (*UseRegToken)(nil)

// Name implements partition.Command.
func (c *UseRegToken) Name() string { return "use_registration_token" }

// Partition implements partition.Command.
func (c *UseRegToken) Partition(count int) ids.Partition { return ids.PartitionOf(c.Token, count) }

// Prepare implements partition.Command.
func (c *UseRegToken) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, regTokenKey(c.Token, p.Count()))
}

// Apply implements partition.Command.
func (c *UseRegToken) Apply(tx *partition.Tx) (any, error) {
	k := regTokenKey(c.Token, tx.Count())
	t := get[RegToken](tx, k)
	switch c.Use {
	case CreateRegToken:
		if t != nil {
			return nil, merr.InvalidParamErr("The registration token exists already")
		}
		n := c.New
		put(tx, k, &n)
		tx.Put(regTokenEntry(c.Token, tx.Count()), []byte{}, nil)
		return &n, nil
	case ConsumeRegToken:
		if !t.valid(tx.Now) {
			return nil, merr.New(http.StatusForbidden, merr.Forbidden, "The registration token is not valid")
		}
		n := *t
		n.Completed++
		put(tx, k, &n)
		return t, nil
	case ReturnRegToken:
		if t != nil && t.Completed > 0 {
			n := *t
			n.Completed--
			put(tx, k, &n)
		}
		return t, nil
	case DeleteRegToken:
		if t == nil {
			return nil, merr.NotFoundErr("No such registration token")
		}
		tx.Delete(k)
		tx.Delete(regTokenEntry(c.Token, tx.Count()))
		return t, nil
	case UpdateRegToken:
		if t == nil {
			return nil, merr.NotFoundErr("No such registration token")
		}
		n := *t
		n.UsesAllowed, n.ExpiresTS = c.New.UsesAllowed, c.New.ExpiresTS
		put(tx, k, &n)
		return &n, nil
	}
	return nil, fmt.Errorf("registration token: unknown use %d", c.Use)
}

// RegTokenValid reports whether a registration token could be used now, in ms
// since 1970.
func (r *Reader) RegTokenValid(ctx context.Context, token string, now int64) (bool, error) {
	t, err := one[RegToken](ctx, r, regTokenKey(token, r.count))
	return t.valid(now), err
}

// RegTokenInfo is a registration token with its name.
type RegTokenInfo struct {
	Token string
	RegToken
}

// Valid reports whether the token could be used now, in ms since 1970.
func (t *RegToken) Valid(now int64) bool { return t.valid(now) }

// RegToken returns a registration token.
func (r *Reader) RegToken(ctx context.Context, token string) (*RegToken, error) {
	return one[RegToken](ctx, r, regTokenKey(token, r.count))
}

// regTokensPage is how many registration tokens one read takes.
const regTokensPage = 1000

// RegTokens lists the registration tokens of one partition behind a token ("" to
// begin), in order. There are no more when it returns none and no next.
func (r *Reader) RegTokens(ctx context.Context, p ids.Partition, after string) (list []RegTokenInfo, next string, err error) {
	from := ""
	if after != "" {
		from = after + "\x00"
	}
	rows, err := r.st.Scan(ctx, storage.Range{Partition: p, Table: tables.RegTokenList, From: from, Limit: regTokensPage})
	if err != nil || len(rows) == 0 {
		return nil, "", wrap("scan registration tokens", err)
	}
	for _, row := range rows {
		t, err := r.RegToken(ctx, row.Sort)
		if err != nil {
			return nil, "", err
		}
		if t != nil { // else deleted meanwhile
			list = append(list, RegTokenInfo{row.Sort, *t})
		}
	}
	return list, rows[len(rows)-1].Sort, nil
}
