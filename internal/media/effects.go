package media

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// The effects of media. The payload of each is a Change in JSON.
const (
	// EffectPut writes the row of a media ID, in its partition.
	EffectPut = "media_put"
	// EffectUse keeps the list and the totals of the user, in the user's partition.
	EffectUse = "media_use"
	// EffectDrop takes a reference from content, in the partition of its hash.
	EffectDrop = "media_drop"
)

// Change is a change of media: it came, or it is Gone.
type Change struct {
	ID    ID    `json:"id"`
	Media Media `json:"media"`
	Gone  bool  `json:"gone,omitzero"`
}

// Effects are the handlers of the effects of media.
func Effects() map[string]partition.EffectHandler {
	return map[string]partition.EffectHandler{EffectPut: putEffects{}, EffectUse: useEffects{}, EffectDrop: dropEffects{}}
}

func decodeChange(e partition.Effect) (*Change, error) {
	c := &Change{}
	if err := json.Unmarshal(e.Payload, c); err != nil {
		return nil, fmt.Errorf("decode change of media: %w", err)
	}
	return c, nil
}

type putEffects struct{}

// Prepare implements partition.EffectHandler.
func (putEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	return p.Pin(ctx, keys(p.Count()).media(c.ID), wide(p.Partition(), tables.MediaUse, ""))
}

// Apply implements partition.EffectHandler.
func (putEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return err
	}
	key := keys(tx.Count()).media(c.ID)
	old := get[Media](tx, key)
	if c.Media.Hash == "" {
		put(tx, key, &c.Media)
		tx.Put(dueKey(tx.Partition(), c.Media.DueTS, dueMedia, string(c.ID)), []byte{}, nil)
		return nil
	}
	if c.Media.Claim != "" {
		// What was reserved may have been given up, or filled by another upload after
		// this one had lost its claim: then nothing refers to the content from here.
		if old == nil || old.Hash != "" || old.Claim != c.Media.Claim {
			c.Gone = true
			tx.Effect(c.Media.Hash, EffectDrop, encode(c))
			return nil
		}
		tx.Delete(dueKey(tx.Partition(), old.DueTS, dueMedia, string(c.ID)))
		tx.Effect(string(c.Media.User), EffectUse, encode(c))
	}
	m := c.Media
	m.Claim = ""
	put(tx, key, &m)
	tx.Put(wide(tx.Partition(), tables.MediaTime, timeSort(m.CreatedTS)+string(c.ID)), []byte{}, nil)
	if m.DueTS != 0 {
		tx.Put(dueKey(tx.Partition(), m.DueTS, dueMedia, string(c.ID)), []byte{}, nil)
	}
	count(tx, wide(tx.Partition(), tables.MediaUse, ""), func(u *Use) { u.Media++; u.Bytes += m.Size })
	return nil
}

type useEffects struct{}

// Prepare implements partition.EffectHandler.
func (useEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	return p.Pin(ctx, keys(p.Count()).use(c.Media.User))
}

// Apply implements partition.EffectHandler.
func (useEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return err
	}
	k, m := keys(tx.Count()), c.Media
	count(tx, k.use(m.User), func(u *Use) {
		u.Pending = slices.DeleteFunc(slices.Clone(u.Pending), func(p Pending) bool { return p.ID == c.ID })
		row := k.userMedia(m.User, m.CreatedTS, c.ID)
		switch {
		case m.Hash == "": // it was reserved only
		case c.Gone:
			u.Media--
			u.Bytes -= m.Size
			tx.Delete(row)
		default:
			u.Media++
			u.Bytes += m.Size
			tx.Put(row, []byte{}, nil)
		}
	})
	return nil
}

type dropEffects struct{}

// Prepare implements partition.EffectHandler.
func (dropEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	k := keys(p.Count())
	return p.Pin(ctx, k.content(c.Media.Hash), k.ref(c.ID, c.Media), wide(p.Partition(), tables.MediaUse, ""))
}

// Apply implements partition.EffectHandler. Bytes that nothing refers to are due
// at once.
func (dropEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodeChange(e)
	if err != nil {
		return err
	}
	k := keys(tx.Count())
	ref, key := k.ref(c.ID, c.Media), k.content(c.Media.Hash)
	old := get[Content](tx, key)
	if old == nil || tx.Get(ref).Value == nil {
		return fmt.Errorf("media %s does not refer to %s", c.ID, c.Media.Hash)
	}
	tx.Delete(ref)
	next := *old
	next.Refs--
	if next.Refs > 0 {
		put(tx, key, &next)
		return nil
	}
	tx.Put(dueKey(tx.Partition(), tx.Now, dueBytes, old.Key), []byte{}, nil)
	count(tx, wide(tx.Partition(), tables.MediaUse, ""), func(u *Use) { u.Contents--; u.Stored -= old.Size })
	if old.Quarantined == nil {
		tx.Delete(key)
		return nil
	}
	// Kept, so that the same content cannot come back.
	next.Key = ""
	put(tx, key, &next)
	return nil
}
