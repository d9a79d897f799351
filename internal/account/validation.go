package account

import (
	"context"
	"crypto/subtle"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Validation is the proof, under way or done, that whoever knows a secret can read
// what is sent to an address. Nothing in the row lets a reader of the store use it.
type Validation struct {
	// Purpose is what it is good for.
	Purpose string `json:"purpose"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
	// User is who began it, "" for somebody without a token.
	User ids.UserID `json:"user,omitempty"`
	// Secret is the hash of the client's secret, Token that of what was sent, ""
	// once it came back: it is used once.
	Secret string `json:"secret"`
	Token  string `json:"token,omitempty"`
	// Attempt is the last send_attempt, Tries how many wrong tokens came.
	Attempt int64 `json:"attempt"`
	Tries   int   `json:"tries,omitzero"`
	// NextLink is where the browser may go afterwards, "" for nowhere.
	NextLink string `json:"next_link,omitempty"`
	// ExpiresTS and ValidatedTS are in ms since 1970; ValidatedTS is 0 before.
	ExpiresTS   int64 `json:"expires_ts"`
	ValidatedTS int64 `json:"validated_ts,omitzero"`
	// Used: what it was for was done.
	Used bool `json:"used,omitzero"`
}

const (
	// maxTokenTries is how many wrong tokens end a validation.
	maxTokenTries = 5
	// dueSweep is how many validations that have ended go with each new one: more
	// than one, so that they become fewer.
	dueSweep = 8
)

func validationKey(sid string, count int) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(sid, count), Table: tables.Validation, Entity: sid}
}

func validationDue(sid string, expires int64, count int) storage.Key {
	sort := tables.SeqSort(ids.Seq(expires)) + sid
	return storage.Key{Partition: ids.PartitionOf(sid, count), Table: tables.ValidationDue, Sort: sort}
}

// validationOf is what commands on one validation share.
type validationOf struct {
	SID string
}

// Partition implements partition.Command.
func (c validationOf) Partition(count int) ids.Partition { return ids.PartitionOf(c.SID, count) }

// BeginValidation begins a validation or begins it anew. The result is a bool: the
// token is to be sent. It is not if the attempt is no new one. spec: identity
// service §POST /validate/email/requestToken, send_attempt.
type BeginValidation struct {
	validationOf
	New Validation

	ended []storage.Entry
}

// NewBeginValidation returns the command.
func NewBeginValidation(sid string, v Validation) *BeginValidation {
	return &BeginValidation{validationOf: validationOf{sid}, New: v}
}

var _ partition.Command = (*BeginValidation)(nil)

// Name implements partition.Command.
func (c *BeginValidation) Name() string { return "begin_validation" }

// Prepare implements partition.Command.
func (c *BeginValidation) Prepare(ctx context.Context, p *partition.Prep) error {
	due, err := p.Store().Scan(ctx, storage.Range{Partition: p.Partition(), Table: tables.ValidationDue, Limit: dueSweep})
	if err != nil {
		return wrap("scan validations", err)
	}
	c.ended = due
	keys := []storage.Key{validationKey(c.SID, p.Count())}
	for _, e := range due {
		keys = append(keys, validationKey(e.Sort[8:], p.Count()))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *BeginValidation) Apply(tx *partition.Tx) (any, error) {
	c.sweep(tx)
	k := validationKey(c.SID, tx.Count())
	old := get[Validation](tx, k)
	if old != nil && tx.Now < old.ExpiresTS && !old.Used && c.New.Attempt <= old.Attempt {
		return false, nil
	}
	if old != nil {
		tx.Delete(validationDue(c.SID, old.ExpiresTS, tx.Count()))
	}
	n := c.New
	put(tx, k, &n)
	tx.Put(validationDue(c.SID, n.ExpiresTS, tx.Count()), []byte{}, nil)
	return true, nil
}

// sweep removes validations that have ended. One that was begun anew meanwhile has
// another time.
func (c *BeginValidation) sweep(tx *partition.Tx) {
	for _, e := range c.ended {
		sid, expires := e.Sort[8:], int64(tables.SortSeq(e.Sort[:8]))
		if tx.Now < expires {
			return
		}
		tx.Delete(validationDue(sid, expires, tx.Count()))
		if v := get[Validation](tx, validationKey(sid, tx.Count())); v != nil && v.ExpiresTS == expires {
			tx.Delete(validationKey(sid, tx.Count()))
		}
	}
}

// ConfirmValidation brings back what was sent to the address. The result is the
// *Validation as it is then. M_THREEPID_AUTH_FAILED, as status 403, for a wrong or
// used token and an unknown or ended session: what is wrong is not said.
type ConfirmValidation struct {
	validationOf
	// Token and Secret are hashes. Secret is "" where the token alone proves
	// enough: in the link that was sent.
	Token, Secret string
}

// NewConfirmValidation returns the command.
func NewConfirmValidation(sid, token, secret string) *ConfirmValidation {
	return &ConfirmValidation{validationOf{sid}, token, secret}
}

var _ partition.Command = (*ConfirmValidation)(nil)

// Name implements partition.Command.
func (c *ConfirmValidation) Name() string { return "confirm_validation" }

// Prepare implements partition.Command.
func (c *ConfirmValidation) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, validationKey(c.SID, p.Count()))
}

func errValidation() error {
	return merr.New(http.StatusForbidden, merr.ThreePIDAuthFailed, "The address was not validated, or that is too long ago")
}

func sameHash(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Apply implements partition.Command.
func (c *ConfirmValidation) Apply(tx *partition.Tx) (any, error) {
	k := validationKey(c.SID, tx.Count())
	v := get[Validation](tx, k)
	if v == nil || tx.Now >= v.ExpiresTS || v.Token == "" || c.Secret != "" && !sameHash(c.Secret, v.Secret) {
		return nil, errValidation()
	}
	n := *v
	if !sameHash(c.Token, v.Token) {
		if n.Tries++; n.Tries >= maxTokenTries {
			n.Token = ""
		}
		put(tx, k, &n)
		return (*Validation)(nil), nil // the count has to stay: an error would undo it
	}
	n.Token, n.ValidatedTS = "", tx.Now
	put(tx, k, &n)
	return &n, nil
}

// UseValidation does, or with Return takes back, what a validation is used for:
// once. The result is the *Validation. M_THREEPID_AUTH_FAILED if it may not be used.
type UseValidation struct {
	validationOf
	Purpose string
	// User is who uses it, "" for somebody without a token.
	User ids.UserID
	// Secret is the hash of the client's secret, "" if it was checked before.
	Secret string
	Return bool
}

// NewUseValidation returns the command.
func NewUseValidation(sid, purpose string, user ids.UserID, secret string) *UseValidation {
	return &UseValidation{validationOf: validationOf{sid}, Purpose: purpose, User: user, Secret: secret}
}

var _ partition.Command = (*UseValidation)(nil)

// Name implements partition.Command.
func (c *UseValidation) Name() string { return "use_validation" }

// Prepare implements partition.Command.
func (c *UseValidation) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, validationKey(c.SID, p.Count()))
}

// Apply implements partition.Command.
func (c *UseValidation) Apply(tx *partition.Tx) (any, error) {
	k := validationKey(c.SID, tx.Count())
	v := get[Validation](tx, k)
	if !v.fits(c.Purpose, c.User, tx.Now) || v.Used != c.Return || c.Secret != "" && !sameHash(c.Secret, v.Secret) {
		return nil, errValidation()
	}
	n := *v
	n.Used = !c.Return
	put(tx, k, &n)
	return &n, nil
}

// fits reports whether an address was validated for a purpose, and can be used
// now, in ms since 1970.
func (v *Validation) fits(purpose string, user ids.UserID, now int64) bool {
	return v != nil && v.ValidatedTS != 0 && now < v.ExpiresTS && v.Purpose == purpose && v.User == user
}

// Validated reports whether a validation could be used now, in ms since 1970.
// secret is a hash. It does not use it up.
func (r *Reader) Validated(ctx context.Context, sid, secret, purpose string, user ids.UserID, now int64) (bool, error) {
	v, err := one[Validation](ctx, r, validationKey(sid, r.count))
	if err != nil {
		return false, err
	}
	return v.fits(purpose, user, now) && !v.Used && sameHash(secret, v.Secret), nil
}

// Validation returns the validation of a session.
func (r *Reader) Validation(ctx context.Context, sid string) (*Validation, error) {
	return one[Validation](ctx, r, validationKey(sid, r.count))
}
