package account

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// A push key is known to a deployment by a row of its own, which lists the users
// who have a pusher with it: whoever takes the key over from others, as the next
// owner of a phone does, must end theirs without looking through all users.

// Effects between users and push keys. The payload is a pushKeyChange in JSON.
const (
	// EffectPushKey tells the row of a key of a user's pusher.
	EffectPushKey = "push_key"
	// EffectPusherTaken tells a user that another took the key.
	EffectPusherTaken = "pusher_taken"
)

// maxKeyUsers bounds the users who share a key by append. The pusher of whoever
// came first is ended.
const maxKeyUsers = 100

type pushKeyChange struct {
	User    ids.UserID `json:"user"`
	AppID   string     `json:"app_id"`
	PushKey string     `json:"pushkey"`
	// Add: the user has a pusher with the key, and Alone from now on. Otherwise
	// the user has none.
	Add   bool  `json:"add,omitzero"`
	Alone bool  `json:"alone,omitzero"`
	TS    int64 `json:"ts,omitzero"`
}

// pushKey is the PushKey row.
type pushKey struct {
	Users []ids.UserID `json:"users"`
}

func (c *pushKeyChange) row(p ids.Partition) storage.Key {
	pu := Pusher{AppID: c.AppID, PushKey: c.PushKey}
	return storage.Key{Partition: p, Table: tables.PushKey, Entity: pu.keyEntity()}
}

func tellKey(tx *partition.Tx, user ids.UserID, p *Pusher, c pushKeyChange) {
	c.User, c.AppID, c.PushKey = user, p.AppID, p.PushKey
	tx.Effect(p.keyEntity(), EffectPushKey, encode(&c))
}

func decodePushKey(e partition.Effect) (*pushKeyChange, error) {
	c := &pushKeyChange{}
	if err := json.Unmarshal(e.Payload, c); err != nil {
		return nil, fmt.Errorf("decode push key change: %w", err)
	}
	return c, nil
}

type pushKeyEffects struct{}

var _ partition.EffectHandler = pushKeyEffects{}

// Prepare implements partition.EffectHandler.
func (pushKeyEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodePushKey(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	return p.Pin(ctx, c.row(p.Partition()))
}

// Apply implements partition.EffectHandler.
func (pushKeyEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodePushKey(e)
	if err != nil {
		return err
	}
	k := c.row(tx.Partition())
	var next pushKey
	if old := get[pushKey](tx, k); old != nil {
		next.Users = slices.DeleteFunc(slices.Clone(old.Users), func(u ids.UserID) bool { return u == c.User })
	}
	if c.Add {
		gone := max(0, len(next.Users)+1-maxKeyUsers)
		if c.Alone {
			gone = len(next.Users)
		}
		for _, u := range next.Users[:gone] {
			taken := *c
			taken.User = u
			tx.Effect(string(u), EffectPusherTaken, encode(&taken))
		}
		next.Users = append(next.Users[gone:], c.User)
	}
	if len(next.Users) == 0 {
		tx.Delete(k)
		return nil
	}
	put(tx, k, &next)
	return nil
}

type pusherTakenEffects struct{}

var _ partition.EffectHandler = pusherTakenEffects{}

// Prepare implements partition.EffectHandler.
func (pusherTakenEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodePushKey(e)
	if err != nil {
		return nil
	}
	return p.Pin(ctx, Place{p.Partition(), c.User}.push())
}

// Apply implements partition.EffectHandler. A pusher that was set after the other
// took the key stays: what the key's row then hears ends the other's.
func (pusherTakenEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodePushKey(e)
	if err != nil {
		return err
	}
	p := Place{tx.Partition(), c.User}
	s := pushState(tx, p)
	i := s.index(c.AppID, c.PushKey)
	if i < 0 || s.Pushers[i].SetTS > c.TS {
		return nil
	}
	tx.DeletePrefix(p.queue(s.Pushers[i].ID(), ""))
	s.Pushers = slices.Delete(s.Pushers, i, i+1)
	put(tx, p.push(), &s)
	return nil
}
