package account

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Limits of key backups.
const (
	// maxBackups bounds the versions of a user's backup. Clients delete the old
	// one when they make a new one.
	maxBackups = 20
	// MaxAuthData bounds the auth_data of a backup as JSON: a public key and
	// signatures.
	MaxAuthData = 32 << 10
	// MaxBackupKeyBytes bounds the data of one key as JSON, which takes less
	// than one KiB.
	MaxBackupKeyBytes = 16 << 10
	// MaxBackupKeys bounds the keys of one request.
	MaxBackupKeys = 5000
	// maxSessionID bounds the ID of a session in bytes; it becomes part of a key.
	maxSessionID = 255
)

// BackupVersion is one version of a user's key backup. spec: client-server
// §Server-side key backups.
type BackupVersion struct {
	Version   uint64         `json:"version"`
	Algorithm string         `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	// Count is the number of keys, ETag moves with each change of a key.
	Count int    `json:"count"`
	ETag  uint64 `json:"etag"`
}

// backups are all versions there are, oldest first.
type backups struct {
	// Last is the last version ever made: numbers are not used again.
	Last     uint64          `json:"last"`
	Versions []BackupVersion `json:"versions,omitempty"`
}

// BackupKey is a key in a backup.
type BackupKey struct {
	FirstMessageIndex int64          `json:"first_message_index"`
	ForwardedCount    int64          `json:"forwarded_count"`
	IsVerified        bool           `json:"is_verified"`
	SessionData       jsontext.Value `json:"session_data"`
}

// replaces reports whether a key is better than the one there is. spec:
// client-server §Backup algorithm, when a key replaces another.
func (k *BackupKey) replaces(old *BackupKey) bool {
	switch {
	case old == nil:
		return true
	case k.IsVerified != old.IsVerified:
		return k.IsVerified
	case k.FirstMessageIndex != old.FirstMessageIndex:
		return k.FirstMessageIndex < old.FirstMessageIndex
	}
	return k.ForwardedCount < old.ForwardedCount
}

func (p Place) backup() storage.Key { return p.key(tables.Backup, "") }

// backupSort begins the sort keys of a backup's keys: all, those of a room, or,
// with both names, one.
func backupSort(version uint64, r ids.RoomID, session string) string {
	sort := numberSort(version)
	if r != "" {
		sort += partition.JoinSort(string(r), session)
	}
	return sort
}

func (b *backups) find(version uint64) int {
	if b == nil {
		return -1
	}
	return slices.IndexFunc(b.Versions, func(v BackupVersion) bool { return v.Version == version })
}

// clone returns a copy to change, of nil an empty one.
func (b *backups) clone() *backups {
	if b == nil {
		return &backups{}
	}
	return &backups{b.Last, slices.Clone(b.Versions)}
}

// ParseBackupVersion reads a version; one that was never given out is 0.
func ParseBackupVersion(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0
	}
	return n
}

func errNoBackup() error { return merr.NotFoundErr("There is no such backup") }

// EditBackup makes, changes or deletes a version. The result is the version as a
// uint64. spec: client-server §Server-side key backups.
type EditBackup struct {
	command
	// Version is 0 to make a new one.
	Version   uint64
	Algorithm string
	AuthData  jsontext.Value
	Delete    bool
}

// NewCreateBackup returns the command to make a version; it becomes the current one.
func NewCreateBackup(user ids.UserID, algorithm string, authData jsontext.Value) *EditBackup {
	return &EditBackup{command: command{user}, Algorithm: algorithm, AuthData: authData}
}

// NewUpdateBackup returns the command to change the auth_data of a version.
// M_NOT_FOUND if there is none, M_INVALID_PARAM if its algorithm is another.
func NewUpdateBackup(user ids.UserID, version uint64, algorithm string, authData jsontext.Value) *EditBackup {
	return &EditBackup{command: command{user}, Version: version, Algorithm: algorithm, AuthData: authData}
}

// NewDeleteBackup returns the command to delete a version with its keys. One that
// was deleted before is fine; M_NOT_FOUND if there never was one.
func NewDeleteBackup(user ids.UserID, version uint64) *EditBackup {
	return &EditBackup{command: command{user}, Version: version, Delete: true}
}

var _ partition.Command = (*EditBackup)(nil)

// Name implements partition.Command.
func (c *EditBackup) Name() string { return "edit_backup" }

// Prepare implements partition.Command.
func (c *EditBackup) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).backup())
}

// Apply implements partition.Command.
func (c *EditBackup) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	next := get[backups](tx, p.backup()).clone()
	i := next.find(c.Version)
	switch {
	case c.Delete:
		if c.Version == 0 || c.Version > next.Last {
			return nil, errNoBackup()
		}
		if i < 0 {
			return c.Version, nil
		}
		next.Versions = slices.Delete(next.Versions, i, i+1)
		tx.DeletePrefix(p.key(tables.BackupKey, backupSort(c.Version, "", "")))
	case c.Version == 0:
		if len(next.Versions) >= maxBackups {
			return nil, merr.InvalidParamErr("There are %d backups; delete one", maxBackups)
		}
		next.Last++
		next.Versions = append(next.Versions, BackupVersion{Version: next.Last, Algorithm: c.Algorithm, AuthData: c.AuthData})
		put(tx, p.backup(), next)
		return next.Last, nil
	case i < 0:
		return nil, errNoBackup()
	case next.Versions[i].Algorithm != c.Algorithm:
		return nil, merr.InvalidParamErr("A backup keeps its algorithm")
	default:
		next.Versions[i].AuthData = c.AuthData
	}
	put(tx, p.backup(), next)
	return c.Version, nil
}

// BackupKeys are keys by room and session.
type BackupKeys map[ids.RoomID]map[string]*BackupKey

// EditBackupKeys stores or deletes keys of a backup. The result is an
// EditedBackup. M_NOT_FOUND if there is no such version; keys can be stored in the
// current one alone, else M_WRONG_ROOM_KEYS_VERSION.
type EditBackupKeys struct {
	command
	Version uint64
	// Put are keys to store; where a better one is there, it stays.
	Put BackupKeys
	// Delete: keys are deleted, all of them, those of Room, or that of Session;
	// MaxBackupKeys at a time.
	Delete  bool
	Room    ids.RoomID
	Session string

	found []storage.Key // to delete
}

// EditedBackup is a backup as it is after a change.
type EditedBackup struct {
	BackupVersion
	// More: not all keys are deleted yet.
	More bool
}

// NewPutBackupKeys returns the command to store keys.
func NewPutBackupKeys(user ids.UserID, version uint64, keys BackupKeys) *EditBackupKeys {
	return &EditBackupKeys{command: command{user}, Version: version, Put: keys}
}

// NewDeleteBackupKeys returns the command to delete keys: all if r is "", all of
// a room if session is "".
func NewDeleteBackupKeys(user ids.UserID, version uint64, r ids.RoomID, session string) *EditBackupKeys {
	return &EditBackupKeys{command: command{user}, Version: version, Delete: true, Room: r, Session: session}
}

var _ partition.Command = (*EditBackupKeys)(nil)

// Name implements partition.Command.
func (c *EditBackupKeys) Name() string { return "edit_backup_keys" }

// Prepare implements partition.Command.
func (c *EditBackupKeys) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	keys := []storage.Key{pl.backup()}
	if c.Delete {
		if err := c.find(ctx, p); err != nil {
			return err
		}
		keys = append(keys, c.found...)
	}
	for r, sessions := range c.Put {
		for session := range sessions {
			if len(session) > maxSessionID || strings.IndexByte(session, 0) >= 0 {
				return merr.InvalidParamErr("A session ID is longer than %d bytes, or holds NUL", maxSessionID)
			}
			keys = append(keys, pl.key(tables.BackupKey, backupSort(c.Version, r, session)))
		}
	}
	return p.Pin(ctx, keys...)
}

// find lists the keys to delete. Those that are stored meanwhile came after.
func (c *EditBackupKeys) find(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	from, to := c.stretch()
	if len(from) > storage.MaxSort {
		return merr.InvalidParamErr("The name of a session is too long")
	}
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: pl.Partition, Table: tables.BackupKey, Entity: string(c.User), From: from, To: to, Limit: MaxBackupKeys,
	})
	if err != nil {
		return wrap("find keys to delete", err)
	}
	c.found = make([]storage.Key, len(rows))
	for i, row := range rows {
		c.found[i] = pl.key(tables.BackupKey, row.Sort)
	}
	return nil
}

// stretch is the range of the keys to delete.
func (c *EditBackupKeys) stretch() (from, to string) {
	from = backupSort(c.Version, c.Room, c.Session)
	if c.Session != "" {
		return from, from + "\x00"
	}
	return from, partition.PrefixEnd(from)
}

// Apply implements partition.Command.
func (c *EditBackupKeys) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	next := get[backups](tx, p.backup()).clone()
	i := next.find(c.Version)
	if i < 0 {
		return nil, errNoBackup()
	}
	v := &next.Versions[i]
	changed := false
	if c.Delete {
		for _, k := range c.found {
			if tx.Get(k).Value != nil {
				tx.Delete(k)
				v.Count--
				changed = true
			}
		}
	} else {
		if current := next.Versions[len(next.Versions)-1].Version; current != c.Version {
			return nil, merr.New(http.StatusForbidden, merr.WrongRoomKeysVersion, "This is not the current backup").
				With("current_version", strconv.FormatUint(current, 10))
		}
		changed = c.put(tx, p, v)
	}
	if changed {
		v.ETag++
		put(tx, p.backup(), next)
	}
	return EditedBackup{*v, len(c.found) == MaxBackupKeys}, nil
}

func (c *EditBackupKeys) put(tx *partition.Tx, p Place, v *BackupVersion) (changed bool) {
	for r, sessions := range c.Put {
		for session, key := range sessions {
			k := p.key(tables.BackupKey, backupSort(c.Version, r, session))
			old := get[BackupKey](tx, k)
			if !key.replaces(old) {
				continue
			}
			if old == nil {
				v.Count++
			}
			put(tx, k, key)
			changed = true
		}
	}
	return changed
}

// endBackups removes all backups of a user.
func endBackups(tx *partition.Tx, p Place) {
	tx.Delete(p.backup())
	tx.DeletePrefix(p.key(tables.BackupKey, ""))
}

// Backup returns a version of a user's backup, the current one for 0; nil if there
// is none.
func (r *Reader) Backup(ctx context.Context, user ids.UserID, version uint64) (*BackupVersion, error) {
	all, err := one[backups](ctx, r, r.Place(user).backup())
	if err != nil || all == nil || len(all.Versions) == 0 {
		return nil, err
	}
	if version == 0 {
		return &all.Versions[len(all.Versions)-1], nil
	}
	if i := all.find(version); i >= 0 {
		return &all.Versions[i], nil
	}
	return nil, nil
}

// BackupKeys calls fn with the keys of a version in order of room and session, as
// they are stored: all, those of a room, or, with both names, one.
func (r *Reader) BackupKeys(ctx context.Context, user ids.UserID, version uint64, room ids.RoomID, session string, fn func(ids.RoomID, string, jsontext.Value)) error {
	from, to := (&EditBackupKeys{Version: version, Room: room, Session: session}).stretch()
	if len(from) > storage.MaxSort {
		return nil // no key has such a name
	}
	prefix := numberSort(version)
	return r.scan(ctx, r.Place(user), tables.BackupKey, from, to, func(e storage.Entry) error {
		id, name, ok := strings.Cut(strings.TrimPrefix(e.Sort, prefix), "\x00")
		if !ok {
			return fmt.Errorf("key of a backup %q: %w", e.Sort, errRow)
		}
		fn(ids.RoomID(id), name, e.Value)
		return nil
	})
}
