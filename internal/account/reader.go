package account

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Reader shows committed users. It checks nobody's rights. Its methods are safe
// for concurrent use. What does not exist is nil.
type Reader struct {
	st    storage.Store
	count int
	// damaged hears of rows that cannot be read and are left out; nil to refuse.
	damaged func(storage.Key, error)
}

// NewReader reads users from a store with count partitions, strictly: see Tolerant.
func NewReader(st storage.Store, count int) *Reader { return &Reader{st: st, count: count} }

// Place returns where a user's rows are.
func (r *Reader) Place(user ids.UserID) Place { return PlaceOf(user, r.count) }

func one[T any](ctx context.Context, r *Reader, k storage.Key) (*T, error) {
	row, err := r.row(ctx, k)
	if err != nil {
		return nil, err
	}
	return decoded[T](k, row)
}

// maybe is one for rows that optional decodes.
func maybe[T any](ctx context.Context, r *Reader, k storage.Key) (*T, error) {
	row, err := r.row(ctx, k)
	if err != nil {
		return nil, err
	}
	return optional[T](r, k, row)
}

// decoded is a row that was read, nil if there is none.
func decoded[T any](k storage.Key, row []byte) (*T, error) {
	if row == nil {
		return nil, nil
	}
	v := new(T)
	if err := decode(row, v); err != nil {
		return nil, errDamaged(fmt.Errorf("row of table %d: %w", k.Table, err))
	}
	return v, nil
}

// row reads one row. A name that is too long for a key names nothing.
func (r *Reader) row(ctx context.Context, k storage.Key) ([]byte, error) {
	if k.Check() != nil {
		return nil, nil
	}
	rows, err := r.st.Get(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("read table %d: %w", k.Table, err)
	}
	return rows[0], nil
}

// scan reads a stretch of one of the user's tables to its end.
func (r *Reader) scan(ctx context.Context, p Place, t storage.Table, from, to string, fn func(storage.Entry) error) error {
	err := storage.Each(ctx, r.st, storage.Range{
		Partition: p.Partition, Table: t, Entity: string(p.User), From: from, To: to, Limit: storage.MaxScan,
	}, func(row storage.Entry) (more bool, err error) { return true, fn(row) })
	if err != nil {
		return fmt.Errorf("scan table %d: %w", t, err)
	}
	return nil
}

// Account returns a user's account.
func (r *Reader) Account(ctx context.Context, user ids.UserID) (*Account, error) {
	return one[Account](ctx, r, r.Place(user).account())
}

// Token returns the token with a hash.
func (r *Reader) Token(ctx context.Context, user ids.UserID, hash string) (*Token, error) {
	return one[Token](ctx, r, r.Place(user).token(hash))
}

// TokenName names a token: its hash, and the user whom it would be of.
type TokenName struct {
	User ids.UserID
	Hash string
}

// TokenAndAccount is what there is of a token: nil for what there is not.
type TokenAndAccount struct {
	Token   *Token
	Account *Account
	// Err says that the rows are damaged.
	Err error
}

// TokensAndAccounts returns the tokens of a list and the accounts that they would be of,
// all read together: each request of a client that was not seen lately asks for both, and
// each open socket again and again.
func (r *Reader) TokensAndAccounts(ctx context.Context, list ...TokenName) ([]TokenAndAccount, error) {
	keys := make([]storage.Key, 0, 2*len(list))
	out := make([]TokenAndAccount, len(list))
	at := make([]int, 0, len(list))
	for i, n := range list {
		token, account := r.Place(n.User).token(n.Hash), r.Place(n.User).account()
		if token.Check() == nil && account.Check() == nil {
			keys, at = append(keys, token, account), append(at, i)
		}
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	for j, i := range at {
		t := &out[i]
		if t.Token, t.Err = decoded[Token](keys[2*j], rows[2*j]); t.Err == nil {
			t.Account, t.Err = decoded[Account](keys[2*j+1], rows[2*j+1])
		}
	}
	return out, nil
}

// Device returns a device.
func (r *Reader) Device(ctx context.Context, user ids.UserID, d ids.DeviceID) (*Device, error) {
	return one[Device](ctx, r, r.Place(user).device(d))
}

// DeviceInfo is a device with its ID.
type DeviceInfo struct {
	ID ids.DeviceID
	Device
}

// Devices lists a user's devices in order of their IDs.
func (r *Reader) Devices(ctx context.Context, user ids.UserID) ([]DeviceInfo, error) {
	var out []DeviceInfo
	err := r.scan(ctx, r.Place(user), tables.Device, "", "", func(e storage.Entry) error {
		d := DeviceInfo{ID: ids.DeviceID(e.Sort)}
		ok, err := listed(r, r.Place(user), tables.Device, e, &d.Device)
		if ok {
			out = append(out, d)
		}
		return err
	})
	return out, err
}

// Profile returns a user's profile fields, JSON values by name; nil if there is
// no such user.
func (r *Reader) Profile(ctx context.Context, user ids.UserID) (map[string]jsontext.Value, error) {
	a, err := r.Account(ctx, user)
	if err != nil || a == nil {
		return nil, err
	}
	out := make(map[string]jsontext.Value)
	err = r.scan(ctx, r.Place(user), tables.Profile, "", "", func(e storage.Entry) error {
		if !isJSON(e.Value) {
			return r.unreadable(r.Place(user).profile(e.Sort), errRow)
		}
		out[e.Sort] = e.Value
		return nil
	})
	return out, err
}

// ProfileField returns one profile field as JSON, nil if there is none.
func (r *Reader) ProfileField(ctx context.Context, user ids.UserID, field string) (jsontext.Value, error) {
	k := r.Place(user).profile(field)
	row, err := r.row(ctx, k)
	if row != nil && !isJSON(row) {
		return nil, r.unreadable(k, errRow)
	}
	return row, err
}

// Names is what a user is called.
type Names struct {
	User ids.UserID
	// DisplayName and AvatarURL are "" where there is none.
	DisplayName, AvatarURL string
}

// usersPage is how many users one read of Users takes.
const usersPage = 1000

// Users lists the users of one partition behind a user ID ("" to begin), in
// order, with their names. There are no more when it returns none.
func (r *Reader) Users(ctx context.Context, p ids.Partition, after ids.UserID) ([]Names, error) {
	from := ""
	if after != "" {
		from = string(after) + "\x00"
	}
	rows, err := r.st.Scan(ctx, storage.Range{Partition: p, Table: tables.Users, From: from, Limit: usersPage})
	if err != nil || len(rows) == 0 {
		return nil, wrap("scan users", err)
	}
	out := make([]Names, len(rows))
	keys := make([]storage.Key, 0, 2*len(rows))
	for i, row := range rows {
		out[i].User = ids.UserID(row.Sort)
		place := Place{p, out[i].User}
		keys = append(keys, place.profile(FieldDisplayName), place.profile(FieldAvatarURL))
	}
	values, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, wrap("read names", err)
	}
	for i := range out {
		out[i].DisplayName, out[i].AvatarURL = text(values[2*i]), text(values[2*i+1])
	}
	return out, nil
}

// Names returns what a user is called, nil if there is no such user.
func (r *Reader) Names(ctx context.Context, user ids.UserID) (*Names, error) {
	p := r.Place(user)
	rows, err := r.st.Get(ctx, p.account(), p.profile(FieldDisplayName), p.profile(FieldAvatarURL))
	if err != nil || rows[0] == nil {
		return nil, wrap("read names", err)
	}
	return &Names{User: user, DisplayName: text(rows[1]), AvatarURL: text(rows[2])}, nil
}

func wrap(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// text reads a JSON string; whatever else is stored is "".
func text(row []byte) string {
	var s string
	if row == nil || decode(row, &s) != nil {
		return ""
	}
	return s
}

// Membership returns one room of a user's list.
func (r *Reader) Membership(ctx context.Context, user ids.UserID, room ids.RoomID) (*Membership, error) {
	return maybe[Membership](ctx, r, r.Place(user).membership(room))
}

// Memberships lists a user's rooms, those left and forgotten too.
func (r *Reader) Memberships(ctx context.Context, user ids.UserID) ([]*Membership, error) {
	var out []*Membership
	err := r.scan(ctx, r.Place(user), tables.Membership, "", "", func(e storage.Entry) error {
		m := &Membership{}
		ok, err := listed(r, r.Place(user), tables.Membership, e, m)
		if ok {
			out = append(out, m)
		}
		return err
	})
	return out, err
}

// Joined lists the rooms a user is in.
func (r *Reader) Joined(ctx context.Context, user ids.UserID) ([]ids.RoomID, error) {
	all, err := r.Memberships(ctx, user)
	if err != nil {
		return nil, err
	}
	out := []ids.RoomID{}
	for _, m := range all {
		if m.Membership == event.Join {
			out = append(out, m.Room)
		}
	}
	return out, nil
}

// Data returns account data; room is "" for that of the user.
func (r *Reader) Data(ctx context.Context, user ids.UserID, room ids.RoomID, typ string) (*Data, error) {
	d, err := maybe[Data](ctx, r, r.Place(user).data(room, typ))
	if d != nil {
		d.Room, d.Type = room, typ
	}
	return d, err
}

// GlobalData returns account data of the user, in one read: of each type that is asked
// for, nil where there is none.
func (r *Reader) GlobalData(ctx context.Context, user ids.UserID, types ...string) ([]*Data, error) {
	keys := make([]storage.Key, len(types))
	for i, typ := range types {
		keys[i] = r.Place(user).data("", typ)
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, wrap("read account data", err)
	}
	out := make([]*Data, len(types))
	for i, typ := range types {
		if out[i], err = optional[Data](r, keys[i], rows[i]); err != nil {
			return nil, err
		}
		if out[i] != nil {
			out[i].Type = typ
		}
	}
	return out, nil
}

// AllData returns all account data of the user (room "") or of one room.
func (r *Reader) AllData(ctx context.Context, user ids.UserID, room ids.RoomID) ([]*Data, error) {
	prefix := partition.JoinSort(string(room), "")
	return r.dataRange(ctx, user, prefix, partition.PrefixEnd(prefix))
}

// EveryData returns all account data of the user and of all rooms, in one read.
func (r *Reader) EveryData(ctx context.Context, user ids.UserID) ([]*Data, error) {
	return r.dataRange(ctx, user, "", "")
}

func (r *Reader) dataRange(ctx context.Context, user ids.UserID, from, to string) ([]*Data, error) {
	var out []*Data
	err := r.scan(ctx, r.Place(user), tables.AccountData, from, to, func(e storage.Entry) error {
		d := &Data{}
		room, typ, _ := strings.Cut(e.Sort, "\x00")
		d.Room, d.Type = ids.RoomID(room), typ
		ok, err := listed(r, r.Place(user), tables.AccountData, e, d)
		if ok {
			out = append(out, d)
		}
		return err
	})
	return out, err
}

// Filter returns a stored filter.
func (r *Reader) Filter(ctx context.Context, user ids.UserID, id string) (jsontext.Value, error) {
	return r.row(ctx, r.Place(user).key(tables.Filter, id))
}

// Changes returns what changed for a user above after and up to upTo.
func (r *Reader) Changes(ctx context.Context, user ids.UserID, after, upTo ids.Seq) ([]*Change, error) {
	if upTo <= after {
		return nil, nil
	}
	var out []*Change
	err := r.scan(ctx, r.Place(user), tables.Stream, tables.SeqSort(after+1), tables.SeqSort(upTo+1), func(e storage.Entry) error {
		c, err := DecodeChange(tables.SortSeq(e.Sort), e.Value)
		if err != nil {
			return r.unreadable(r.Place(user).key(tables.Stream, e.Sort), err)
		}
		out = append(out, c)
		return nil
	})
	return out, err
}
