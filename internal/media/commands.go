package media

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

var (
	_ partition.Command = (*Plan)(nil)
	_ partition.Command = (*Attach)(nil)
	_ partition.Command = (*SetQuarantine)(nil)
	_ partition.Command = (*Reserve)(nil)
	_ partition.Command = (*Claim)(nil)
	_ partition.Command = (*Remove)(nil)
	_ partition.Command = (*Forget)(nil)
	_ partition.Command = (*KeepPreview)(nil)
)

func errQuarantined() error {
	return merr.ForbiddenErr("This content may not be shared on this server")
}

func errNotFound() error { return merr.NotFoundErr("There is no such media") }

// Plan says that bytes are about to be stored under Key, and to be removed at DueTS
// unless an Attach takes them before. It runs in the partition of the hash.
// M_FORBIDDEN if the content is quarantined.
type Plan struct {
	Hash, Key string
	DueTS     int64
}

// Name implements partition.Command.
func (c *Plan) Name() string { return "media_plan" }

// Partition implements partition.Command.
func (c *Plan) Partition(count int) ids.Partition { return ids.PartitionOf(c.Hash, count) }

// Prepare implements partition.Command.
func (c *Plan) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, keys(p.Count()).content(c.Hash))
}

// Apply implements partition.Command.
func (c *Plan) Apply(tx *partition.Tx) (any, error) {
	if old := get[Content](tx, keys(tx.Count()).content(c.Hash)); old != nil && old.Quarantined != nil {
		return nil, errQuarantined()
	}
	tx.Put(dueKey(tx.Partition(), c.DueTS, dueBytes, c.Key), []byte{}, nil)
	return nil, nil
}

// Attach makes content show under a media ID. It runs in the partition of the hash;
// the result is an Attached. The media's row and the user's list follow by effects.
type Attach struct {
	ID    ID
	Media Media
	// Key and PlanTS are those of the Plan whose bytes are stored now; Key is "" for
	// content that was stored before.
	Key    string
	PlanTS int64
}

// Attached says what became of an Attach.
type Attached struct {
	// Gone: the content was not stored after all; it has to be, under a new plan.
	Gone bool
	// Shared: the content was there; the bytes under Key are not needed.
	Shared    bool
	CreatedTS int64
}

// Name implements partition.Command.
func (c *Attach) Name() string { return "media_attach" }

// Partition implements partition.Command.
func (c *Attach) Partition(count int) ids.Partition { return ids.PartitionOf(c.Media.Hash, count) }

// media is the row as it will be written, without its time.
func (c *Attach) media() Media {
	m := c.Media
	m.Ref = m.Claim
	return m
}

// Prepare implements partition.Command.
func (c *Attach) Prepare(ctx context.Context, p *partition.Prep) error {
	k := keys(p.Count())
	return p.Pin(ctx, k.content(c.Media.Hash), k.ref(c.ID, c.media()), wide(p.Partition(), tables.MediaUse, ""))
}

// Apply implements partition.Command.
func (c *Attach) Apply(tx *partition.Tx) (any, error) {
	k := keys(tx.Count())
	old := get[Content](tx, k.content(c.Media.Hash))
	next := Content{Key: c.Key, Size: c.Media.Size}
	switch {
	case old != nil && old.Quarantined != nil:
		return nil, errQuarantined()
	case old != nil:
		next = *old
	case c.Key == "":
		return Attached{Gone: true}, nil
	default:
		tx.Delete(dueKey(tx.Partition(), c.PlanTS, dueBytes, c.Key))
		count(tx, wide(tx.Partition(), tables.MediaUse, ""), func(u *Use) { u.Contents++; u.Stored += next.Size })
	}
	next.Refs++
	put(tx, k.content(c.Media.Hash), &next)
	m := c.media()
	m.CreatedTS = tx.Now
	tx.Put(k.ref(c.ID, m), []byte{}, nil)
	change := Change{ID: c.ID, Media: m}
	tx.Effect(string(c.ID), EffectPut, encode(&change))
	if m.User != "" && m.Claim == "" { // else it follows if the claim still holds
		tx.Effect(string(m.User), EffectUse, encode(&change))
	}
	return Attached{Shared: old != nil && c.Key != "", CreatedTS: tx.Now}, nil
}

// SetQuarantine hides content, or shows it again if By is "". It runs in the
// partition of the hash.
type SetQuarantine struct {
	Hash string
	By   ids.UserID
}

// Name implements partition.Command.
func (c *SetQuarantine) Name() string { return "media_quarantine" }

// Partition implements partition.Command.
func (c *SetQuarantine) Partition(count int) ids.Partition { return ids.PartitionOf(c.Hash, count) }

// Prepare implements partition.Command.
func (c *SetQuarantine) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, keys(p.Count()).content(c.Hash))
}

// Apply implements partition.Command.
func (c *SetQuarantine) Apply(tx *partition.Tx) (any, error) {
	key := keys(tx.Count()).content(c.Hash)
	old := get[Content](tx, key)
	if old == nil {
		return nil, errNotFound()
	}
	next := *old
	next.Quarantined = nil
	if c.By != "" {
		next.Quarantined = &Quarantine{c.By, tx.Now}
	} else if next.Refs == 0 {
		tx.Delete(key)
		return nil, nil
	}
	put(tx, key, &next)
	return nil, nil
}

// Reserve makes a media ID whose content comes later. It runs in the partition of
// the user. M_LIMIT_EXCEEDED if too many of theirs are waiting already.
type Reserve struct {
	ID    ID
	User  ids.UserID
	DueTS int64
}

// Name implements partition.Command.
func (c *Reserve) Name() string { return "media_reserve" }

// Partition implements partition.Command.
func (c *Reserve) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.User), count) }

// Prepare implements partition.Command.
func (c *Reserve) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, keys(p.Count()).use(c.User))
}

// Apply implements partition.Command.
func (c *Reserve) Apply(tx *partition.Tx) (any, error) {
	key := keys(tx.Count()).use(c.User)
	var pending []Pending
	if old := get[Use](tx, key); old != nil {
		pending = slices.DeleteFunc(slices.Clone(old.Pending), func(p Pending) bool { return p.DueTS <= tx.Now })
	}
	if len(pending) >= MaxPending {
		first := slices.MinFunc(pending, func(a, b Pending) int { return int(a.DueTS - b.DueTS) })
		return nil, merr.LimitedErr(time.Duration(first.DueTS-tx.Now) * time.Millisecond)
	}
	count(tx, key, func(u *Use) { u.Pending = append(pending, Pending{c.ID, c.DueTS}) })
	tx.Effect(string(c.ID), EffectPut, encode(&Change{ID: c.ID, Media: Media{User: c.User, CreatedTS: tx.Now, DueTS: c.DueTS}}))
	return nil, nil
}

// Claim lets one upload fill a reserved ID; Release gives that up. It runs in the
// partition of the ID.
type Claim struct {
	ID      ID
	User    ids.UserID
	Claim   string
	Release bool
}

// Name implements partition.Command.
func (c *Claim) Name() string { return "media_claim" }

// Partition implements partition.Command.
func (c *Claim) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.ID), count) }

// Prepare implements partition.Command.
func (c *Claim) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, keys(p.Count()).media(c.ID))
}

// Apply implements partition.Command.
// spec: client-server §PUT /_matrix/media/v3/upload/{serverName}/{mediaId}.
func (c *Claim) Apply(tx *partition.Tx) (any, error) {
	key := keys(tx.Count()).media(c.ID)
	m := get[Media](tx, key)
	if c.Release {
		if m != nil && m.Hash == "" && m.Claim == c.Claim {
			next := *m
			next.Claim, next.ClaimTS = "", 0
			put(tx, key, &next)
		}
		return nil, nil
	}
	switch {
	case m == nil:
		return nil, errNotFound()
	case m.User != c.User:
		return nil, merr.ForbiddenErr("Another user has reserved this media ID")
	case m.Hash != "", m.Claim != "" && m.ClaimTS > tx.Now:
		return nil, merr.New(http.StatusConflict, merr.CannotOverwriteMedia, "This media ID has its content already")
	case m.DueTS <= tx.Now:
		return nil, merr.NotFoundErr("The time to upload this media is over")
	}
	next := *m
	next.Claim, next.ClaimTS = c.Claim, tx.Now+claimTTL.Milliseconds()
	put(tx, key, &next)
	return nil, nil
}

// Remove removes media. It runs in the partition of the ID; the result is a Removed.
// M_NOT_FOUND if there is none.
type Remove struct {
	ID ID
	// DueTS, if not 0, is the time at which it was due: it stays if that changed, or
	// if it is just being filled.
	DueTS int64
}

// Removed is what a Remove removed; Hash is "" for nothing, or what had no content.
type Removed struct {
	Hash string
	Size int64
}

// Name implements partition.Command.
func (c *Remove) Name() string { return "media_remove" }

// Partition implements partition.Command.
func (c *Remove) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.ID), count) }

// Prepare implements partition.Command.
func (c *Remove) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, keys(p.Count()).media(c.ID), wide(p.Partition(), tables.MediaUse, ""))
}

// Apply implements partition.Command.
func (c *Remove) Apply(tx *partition.Tx) (any, error) {
	key := keys(tx.Count()).media(c.ID)
	m := get[Media](tx, key)
	switch {
	case c.DueTS != 0 && (m == nil || m.DueTS != c.DueTS):
		tx.Delete(dueKey(tx.Partition(), c.DueTS, dueMedia, string(c.ID)))
		return Removed{}, nil
	case m == nil:
		return nil, errNotFound()
	case c.DueTS != 0 && m.Hash == "" && m.ClaimTS > tx.Now:
		return Removed{}, nil
	}
	tx.Delete(key)
	if m.DueTS != 0 {
		tx.Delete(dueKey(tx.Partition(), m.DueTS, dueMedia, string(c.ID)))
	}
	change := Change{ID: c.ID, Media: *m, Gone: true}
	if m.Hash != "" {
		tx.Delete(wide(tx.Partition(), tables.MediaTime, timeSort(m.CreatedTS)+string(c.ID)))
		count(tx, wide(tx.Partition(), tables.MediaUse, ""), func(u *Use) { u.Media--; u.Bytes -= m.Size })
		tx.Effect(m.Hash, EffectDrop, encode(&change))
	}
	if m.User != "" {
		tx.Effect(string(m.User), EffectUse, encode(&change))
	}
	return Removed{m.Hash, m.Size}, nil
}

// Forget deletes MediaDue rows whose bytes are gone, and previews.
type Forget struct {
	At ids.Partition
	// Sorts are those of the MediaDue rows, Previews the hashes of the URLs.
	Sorts, Previews []string
}

// Name implements partition.Command.
func (c *Forget) Name() string { return "media_forget" }

// Partition implements partition.Command.
func (c *Forget) Partition(int) ids.Partition { return c.At }

// Prepare implements partition.Command.
func (c *Forget) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *Forget) Apply(tx *partition.Tx) (any, error) {
	for _, sort := range c.Sorts {
		tx.Delete(wide(c.At, tables.MediaDue, sort))
	}
	for _, hash := range c.Previews {
		tx.Delete(wide(c.At, tables.Preview, hash))
	}
	return nil, nil
}

// KeepPreview stores what a preview says, in the partition of the URL's hash.
type KeepPreview struct {
	Hash string
	Row  PreviewRow
}

// Name implements partition.Command.
func (c *KeepPreview) Name() string { return "media_keep_preview" }

// Partition implements partition.Command.
func (c *KeepPreview) Partition(count int) ids.Partition { return ids.PartitionOf(c.Hash, count) }

// Prepare implements partition.Command.
func (c *KeepPreview) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command. A row that is put anew before it is due
// leaves the time of the old one behind, which removes it early: it is a cache.
func (c *KeepPreview) Apply(tx *partition.Tx) (any, error) {
	tx.Put(wide(tx.Partition(), tables.Preview, c.Hash), encode(&c.Row), nil)
	tx.Put(dueKey(tx.Partition(), c.Row.DueTS, duePreview, c.Hash), []byte{}, nil)
	return nil, nil
}
