package media

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Media is what a media ID names.
type Media struct {
	ID ID `json:"-"`
	// User is who uploaded it, "" for pictures of previews.
	User ids.UserID `json:"user,omitempty"`
	// Type is the content type it is served with, Name its file name or "".
	Type string `json:"type,omitempty"`
	Name string `json:"name,omitempty"`
	// Hash names the content, "" while it is awaited. Size is in bytes.
	Hash string `json:"hash,omitempty"`
	Size int64  `json:"size,omitzero"`
	// CreatedTS and DueTS are in ms since 1970; at DueTS, unless it is 0, the media
	// is removed.
	CreatedTS int64 `json:"created_ts"`
	DueTS     int64 `json:"due_ts,omitzero"`
	// Claim names the upload that is filling a reserved ID, until ClaimTS.
	Claim   string `json:"claim,omitempty"`
	ClaimTS int64  `json:"claim_ts,omitzero"`
	// Ref tells the uploads to one reserved ID apart in the references to a content:
	// it is the claim of the upload that filled it, "" for an ID of its own.
	Ref string `json:"ref,omitempty"`

	// Quarantined says that nobody is shown its content. It stands with the content.
	Quarantined *Quarantine `json:"-"`
}

// Content is what media with the same bytes share. The entity is the hash.
type Content struct {
	// Key is where the bytes are in the blob store, "" if nothing refers to them:
	// the row is kept only because it is quarantined.
	Key  string `json:"key,omitempty"`
	Size int64  `json:"size"`
	// Refs is how many media show it.
	Refs        int         `json:"refs"`
	Quarantined *Quarantine `json:"quarantined,omitempty"`
}

// Quarantine says who hid content and when, in ms since 1970.
type Quarantine struct {
	By ids.UserID `json:"by"`
	TS int64      `json:"ts"`
}

// Use are totals: of a user, or of a partition.
type Use struct {
	// Media and Bytes count what was uploaded, as if nothing was shared.
	Media int   `json:"media,omitzero"`
	Bytes int64 `json:"bytes,omitzero"`
	// Contents and Stored count what is in the blob store, thumbnails aside. Of a
	// partition only.
	Contents int   `json:"contents,omitzero"`
	Stored   int64 `json:"stored,omitzero"`
	// Pending are the user's reserved IDs.
	Pending []Pending `json:"pending,omitempty"`
}

// Pending is a reserved ID, and when it is given up, in ms since 1970.
type Pending struct {
	ID    ID    `json:"id"`
	DueTS int64 `json:"due_ts"`
}

// PreviewRow is a preview that is kept.
type PreviewRow struct {
	// Data is what is answered, a JSON object; nil if there was nothing to show.
	Data jsontext.Value `json:"data,omitempty"`
	// DueTS is when it is fetched anew, in ms since 1970.
	DueTS int64 `json:"due_ts"`
}

// keys builds the keys of a deployment with that many partitions.
type keys int

func (n keys) row(t storage.Table, entity, sort string) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(entity, int(n)), Table: t, Entity: entity, Sort: sort}
}

func (n keys) media(id ID) storage.Key         { return n.row(tables.Media, string(id), "") }
func (n keys) content(hash string) storage.Key { return n.row(tables.Content, hash, "") }

// ref is the reference of one upload: two to the same ID may both be under way when the
// claim of the first has ended, and one of them is taken back.
func (n keys) ref(id ID, m Media) storage.Key {
	sort := string(id)
	if m.Ref != "" {
		sort += "\x00" + m.Ref
	}
	return n.row(tables.ContentRef, m.Hash, sort)
}

func (n keys) use(u ids.UserID) storage.Key { return n.row(tables.MediaUse, string(u), "") }

func (n keys) userMedia(u ids.UserID, created int64, id ID) storage.Key {
	return n.row(tables.UserMedia, string(u), timeSort(created)+string(id))
}

// wide is a row of a partition itself.
func wide(p ids.Partition, t storage.Table, sort string) storage.Key {
	return storage.Key{Partition: p, Table: t, Sort: sort}
}

// What a MediaDue row is about; it stands between its time and its name.
const (
	dueMedia   = "m"
	dueBytes   = "b"
	duePreview = "p"
)

func dueKey(p ids.Partition, ts int64, kind, name string) storage.Key {
	return wide(p, tables.MediaDue, timeSort(ts)+kind+name)
}

// timeSort encodes a time so that its order is that of the sort keys.
func timeSort(ts int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(ts)))
}

// timeSize is the length of what timeSort returns.
const timeSize = 8

func sortTime(sort string) int64 {
	if len(sort) < timeSize {
		return 0
	}
	return int64(binary.BigEndian.Uint64([]byte(sort[:timeSize])))
}

// blobKey is where new bytes of a content go: a key of its own each time.
func blobKey(hash string) string {
	return hash[:2] + "/" + hash[2:4] + "/" + hash + "." + string(NewID())
}

// blobKeyLen is the length of what blobKey returns.
const blobKeyLen = 2 + 1 + 2 + 1 + 64 + 1 + 26

func hashText(sum []byte) string { return hex.EncodeToString(sum) }

// Tables are the rows of media that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.Media:      {Decode: decoder[Media]},
		tables.Content:    {Decode: decoder[Content]},
		tables.ContentRef: {},
		tables.MediaUse:   {Keep: true, Decode: decoder[Use]},
	}
}

func decoder[T any](_ storage.Key, row []byte) (any, error) {
	v := new(T)
	return v, json.Unmarshal(row, v)
}

func encode(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		// The types of this package always marshal; anything else is a bug, which the
		// owner turns into a failed command.
		panic(fmt.Errorf("encode %T: %w", v, err))
	}
	return b
}

func put(tx *partition.Tx, k storage.Key, v any) { tx.Put(k, encode(v), v) }

// get returns a pinned row's decoded form, nil if there is no row.
func get[T any](tx *partition.Tx, k storage.Key) *T {
	v, _ := tx.Get(k).Obj.(*T)
	return v
}

// one reads a row, nil if there is none.
func one[T any](ctx context.Context, st storage.Store, k storage.Key) (*T, error) {
	rows, err := st.Get(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("read table %d: %w", k.Table, err)
	}
	if rows[0] == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(rows[0], v); err != nil {
		return nil, fmt.Errorf("row of table %d: %w", k.Table, err)
	}
	return v, nil
}

// count changes the totals of a pinned MediaUse row.
func count(tx *partition.Tx, k storage.Key, change func(*Use)) {
	var u Use
	if old := get[Use](tx, k); old != nil {
		u = *old
	}
	change(&u)
	put(tx, k, &u)
}
