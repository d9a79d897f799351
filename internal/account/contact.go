package account

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Contact is an address at which a user can be reached, and who they are known by.
// spec: client-server §Adding Account Administrative Contact Information.
//
// That an address belongs to one user is decided in a partition of its own, by the
// ContactOwner row, which is written first (ClaimContact) and counts only together
// with the user's row. A claim that nothing came of, because the process died
// between the two, is free again after claimLife; so nothing has to be undone.
type Contact struct {
	Medium  string `json:"medium"`
	Address string `json:"address"`
	// ValidatedTS and AddedTS are in ms since 1970.
	ValidatedTS int64 `json:"validated_at"`
	AddedTS     int64 `json:"added_at"`
}

const (
	// MediumEmail is the medium of e-mail addresses.
	MediumEmail = "email"
	// MediumSignOn begins the medium of those who sign in with an account elsewhere:
	// the provider's ID follows. The address is who they are there.
	MediumSignOn = "sso/"
)

const (
	// maxContacts bounds the addresses of one user.
	maxContacts = 20
	// claimLife is longer than any request that adds an address takes.
	claimLife = 5 * time.Minute
)

// contactOwner says whose an address is.
type contactOwner struct {
	User ids.UserID `json:"user"`
	// ClaimedTS is in ms since 1970.
	ClaimedTS int64 `json:"claimed_ts"`
}

func contactTables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.Contact:      {Decode: decoder[Contact]},
		tables.ContactOwner: {Decode: decoder[contactOwner]},
		tables.Validation:   {Decode: decoder[Validation]},
	}
}

func (p Place) contact(medium, address string) storage.Key {
	return p.key(tables.Contact, partition.JoinSort(medium, address))
}

// contactEntity is what an address is stored under: a hash, so that its length
// does not matter.
func contactEntity(medium, address string) string {
	sum := sha256.Sum256([]byte(medium + "\x00" + address))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func contactOwnerKey(medium, address string, count int) storage.Key {
	e := contactEntity(medium, address)
	return storage.Key{Partition: ids.PartitionOf(e, count), Table: tables.ContactOwner, Entity: e}
}

func errInUse() error {
	return merr.New(http.StatusBadRequest, merr.ThreePIDInUse, "The address belongs to another account")
}

// ClaimContact takes an address for a user, for AddContact or Register to follow.
// M_THREEPID_IN_USE if it is another's.
type ClaimContact struct {
	Medium, Address string
	User            ids.UserID

	owner ids.UserID // whom Prepare found
	held  bool       // the owner has the address in their list
}

var _ partition.Command = (*ClaimContact)(nil)

// Name implements partition.Command.
func (c *ClaimContact) Name() string { return "claim_contact" }

// Partition implements partition.Command.
func (c *ClaimContact) Partition(count int) ids.Partition {
	return ids.PartitionOf(contactEntity(c.Medium, c.Address), count)
}

// Prepare implements partition.Command.
func (c *ClaimContact) Prepare(ctx context.Context, p *partition.Prep) error {
	c.owner, c.held = "", false
	r := NewReader(p.Store(), p.Count())
	k := contactOwnerKey(c.Medium, c.Address, p.Count())
	o, err := one[contactOwner](ctx, r, k)
	if err != nil {
		return err
	}
	if o != nil {
		c.owner = o.User
		held, err := one[Contact](ctx, r, r.Place(o.User).contact(c.Medium, c.Address))
		if err != nil {
			return err
		}
		c.held = held != nil
	}
	return p.Pin(ctx, k)
}

// Apply implements partition.Command.
func (c *ClaimContact) Apply(tx *partition.Tx) (any, error) {
	k := contactOwnerKey(c.Medium, c.Address, tx.Count())
	if o := get[contactOwner](tx, k); o != nil && o.User != c.User {
		if o.User != c.owner {
			return nil, partition.ErrRetry
		}
		if c.held || tx.Now-o.ClaimedTS < claimLife.Milliseconds() {
			return nil, errInUse()
		}
	}
	put(tx, k, &contactOwner{User: c.User, ClaimedTS: tx.Now})
	return nil, nil
}

// EffectReleaseContact tells the partition of an address that a user has given it
// up. The payload is a released in JSON.
const EffectReleaseContact = "release_contact"

type released struct {
	Medium  string     `json:"medium"`
	Address string     `json:"address"`
	User    ids.UserID `json:"user"`
}

// release sends the effect.
func release(tx *partition.Tx, user ids.UserID, medium, address string) {
	tx.Effect(contactEntity(medium, address), EffectReleaseContact, encode(released{medium, address, user}))
}

type releaseEffects struct{}

var _ partition.EffectHandler = releaseEffects{}

func decodeReleased(e partition.Effect) (*released, error) {
	r := &released{}
	if err := json.Unmarshal(e.Payload, r); err != nil {
		return nil, fmt.Errorf("decode released contact: %w", err)
	}
	return r, nil
}

// Prepare implements partition.EffectHandler.
func (releaseEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	r, err := decodeReleased(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	return p.Pin(ctx, contactOwnerKey(r.Medium, r.Address, p.Count()))
}

// Apply implements partition.EffectHandler.
func (releaseEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	r, err := decodeReleased(e)
	if err != nil {
		return err
	}
	k := contactOwnerKey(r.Medium, r.Address, tx.Count())
	if o := get[contactOwner](tx, k); o != nil && o.User == r.User {
		tx.Delete(k)
	}
	return nil
}

// ReleaseContact gives a claim back that nothing came of. Where something did, by
// another request of the same user, it does nothing.
type ReleaseContact struct {
	Medium, Address string
	User            ids.UserID

	held bool
}

var _ partition.Command = (*ReleaseContact)(nil)

// Name implements partition.Command.
func (c *ReleaseContact) Name() string { return "release_contact" }

// Partition implements partition.Command.
func (c *ReleaseContact) Partition(count int) ids.Partition {
	return ids.PartitionOf(contactEntity(c.Medium, c.Address), count)
}

// Prepare implements partition.Command.
func (c *ReleaseContact) Prepare(ctx context.Context, p *partition.Prep) error {
	r := NewReader(p.Store(), p.Count())
	have, err := one[Contact](ctx, r, r.Place(c.User).contact(c.Medium, c.Address))
	if err != nil {
		return err
	}
	c.held = have != nil
	return p.Pin(ctx, contactOwnerKey(c.Medium, c.Address, p.Count()))
}

// Apply implements partition.Command.
func (c *ReleaseContact) Apply(tx *partition.Tx) (any, error) {
	k := contactOwnerKey(c.Medium, c.Address, tx.Count())
	if o := get[contactOwner](tx, k); o != nil && o.User == c.User && !c.held {
		tx.Delete(k)
	}
	return nil, nil
}

// AddContact adds an address that ClaimContact has taken.
type AddContact struct {
	command
	Contact Contact

	// have is how many addresses there were when the account had seen that many.
	have int
	seen uint64
}

// NewAddContact returns the command.
func NewAddContact(user ids.UserID, c Contact) *AddContact {
	return &AddContact{command: command{user}, Contact: c}
}

var _ partition.Command = (*AddContact)(nil)

// Name implements partition.Command.
func (c *AddContact) Name() string { return "add_contact" }

// Prepare implements partition.Command.
func (c *AddContact) Prepare(ctx context.Context, p *partition.Prep) error {
	r := NewReader(p.Store(), p.Count())
	a, err := r.Account(ctx, c.User) // before the list: what is added between the two is noticed
	if err != nil {
		return err
	}
	list, err := r.Contacts(ctx, c.User)
	if err != nil {
		return err
	}
	c.have, c.seen = len(list), a.contacts()
	return p.Pin(ctx, c.at(p).account(), c.at(p).contact(c.Contact.Medium, c.Contact.Address))
}

// contacts counts the addresses ever added.
func (a *Account) contacts() uint64 {
	if a == nil {
		return 0
	}
	return a.Contacts
}

// Apply implements partition.Command.
func (c *AddContact) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	a := get[Account](tx, p.account())
	if err := a.mayLogIn(); err != nil {
		return nil, err
	}
	if a.Contacts != c.seen {
		return nil, partition.ErrRetry
	}
	k := p.contact(c.Contact.Medium, c.Contact.Address)
	if get[Contact](tx, k) == nil && c.have >= maxContacts {
		return nil, merr.InvalidParamErr("An account may have %d addresses", maxContacts)
	}
	n := c.Contact
	n.AddedTS = tx.Now
	put(tx, k, &n)
	changed := *a
	changed.Contacts++
	put(tx, p.account(), &changed)
	return nil, nil
}

// RemoveContact removes an address of a user; that there is none is fine.
type RemoveContact struct {
	command
	Medium, Address string
}

// NewRemoveContact returns the command.
func NewRemoveContact(user ids.UserID, medium, address string) *RemoveContact {
	return &RemoveContact{command{user}, medium, address}
}

var _ partition.Command = (*RemoveContact)(nil)

// Name implements partition.Command.
func (c *RemoveContact) Name() string { return "remove_contact" }

// Prepare implements partition.Command.
func (c *RemoveContact) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).contact(c.Medium, c.Address))
}

// Apply implements partition.Command.
func (c *RemoveContact) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	k := p.contact(c.Medium, c.Address)
	if get[Contact](tx, k) == nil {
		return nil, nil
	}
	tx.Delete(k)
	release(tx, c.User, c.Medium, c.Address)
	return nil, nil
}

// Contacts lists a user's addresses.
func (r *Reader) Contacts(ctx context.Context, user ids.UserID) ([]Contact, error) {
	out := []Contact{}
	err := r.scan(ctx, r.Place(user), tables.Contact, "", "", func(e storage.Entry) error {
		c := Contact{}
		if err := decode(e.Value, &c); err != nil {
			return err
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

// ContactOwner returns whose an address is, "" for nobody's. Deactivated users
// have none.
func (r *Reader) ContactOwner(ctx context.Context, medium, address string) (ids.UserID, error) {
	if strings.Contains(address, "\x00") {
		return "", nil
	}
	o, err := one[contactOwner](ctx, r, contactOwnerKey(medium, address, r.count))
	if err != nil || o == nil {
		return "", err
	}
	c, err := one[Contact](ctx, r, r.Place(o.User).contact(medium, address))
	if err != nil || c == nil {
		return "", err
	}
	a, err := r.Account(ctx, o.User)
	if err != nil || a == nil || a.Deactivated {
		return "", err
	}
	return o.User, nil
}
