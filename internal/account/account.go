// Package account holds users as they are stored: accounts, devices and their
// tokens, profiles, account data, filters, and the list of a user's rooms. All of
// a user's rows are in the user's home partition. There are the commands that
// change them, run by the partition's owner, and the Reader that shows them.
//
// Invariants: everything that a sync of the user shows and that is not an event
// of a room has a row in the user's Stream, which names what changed; a Stream
// row of account data is the last change of that data, while all changes of
// membership are kept. A token's row exists as long as its device's row names it.
package account

import (
	"errors"
	"fmt"
	"maps"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Account is a user's account.
type Account struct {
	// PasswordHash is a PHC string, "" if there is no password to log in with.
	PasswordHash string `json:"password_hash,omitempty"`
	// CreatedTS is in ms since 1970.
	CreatedTS   int64 `json:"created_ts"`
	Admin       bool  `json:"admin,omitzero"`
	Guest       bool  `json:"guest,omitzero"`
	Deactivated bool  `json:"deactivated,omitzero"`
	Locked      bool  `json:"locked,omitzero"`
	// Suspended users may read, and do what keeps their account in order.
	Suspended bool `json:"suspended,omitzero"`
	// Unlimited exempts the user from rate limits.
	Unlimited bool `json:"unlimited,omitzero"`
	// Logins counts the sessions ever begun, so that a command that ends all
	// devices notices one that it did not find.
	Logins uint64 `json:"logins,omitzero"`
	// Contacts counts the addresses ever added, for a command that ends them all.
	Contacts uint64 `json:"contacts,omitzero"`
	// ProfileBytes is what the profile takes, so that its bound is kept without
	// reading all of it.
	ProfileBytes int `json:"profile_bytes,omitzero"`
}

// Device is one session of a user. spec: client-server §Device Management.
type Device struct {
	DisplayName string `json:"display_name,omitempty"`
	LastSeenIP  string `json:"last_seen_ip,omitempty"`
	// LastSeenTS is in ms since 1970.
	LastSeenTS int64  `json:"last_seen_ts,omitzero"`
	UserAgent  string `json:"user_agent,omitempty"`
	// Tokens are the hashes of the device's tokens.
	Tokens []string `json:"tokens,omitempty"`
	// Spent is the hash of the refresh token used last: who shows it again,
	// after its successor was used, has stolen it or was stolen from.
	Spent string `json:"spent,omitempty"`
	// Dehydrated: nobody is logged in on it; its messages wait for whoever can
	// bring it back to life.
	Dehydrated bool `json:"dehydrated,omitzero"`
}

// Token is an access or refresh token, stored under its hash.
type Token struct {
	Device ids.DeviceID `json:"device"`
	// Refresh tells a refresh token from an access token.
	Refresh bool `json:"refresh,omitzero"`
	// ExpiresTS is in ms since 1970, 0 for never.
	ExpiresTS int64 `json:"expires_ts,omitzero"`
	// Replaces are the hashes of the tokens that end when this one is first used.
	Replaces []string `json:"replaces,omitempty"`
	// Pair is the hash of the token issued together with this one.
	Pair string `json:"pair,omitempty"`
	// Issued are the tokens a refresh token was exchanged for.
	Issued []string `json:"issued,omitempty"`
}

// Membership is one room in the user's list of rooms.
type Membership struct {
	Room       ids.RoomID       `json:"room"`
	Membership event.Membership `json:"membership"`
	// Prev is the membership before, as this list had it.
	Prev event.Membership `json:"prev,omitempty"`
	// RoomSeq is the position of the member event in the room's partition,
	// Seq that of this change in the user's.
	RoomSeq ids.Seq `json:"room_seq"`
	Seq     ids.Seq `json:"seq"`
	// Joined is the position of the member event that began the present stay,
	// before any change of name; 0 if the user is not in the room.
	Joined  ids.Seq     `json:"joined,omitzero"`
	EventID ids.EventID `json:"event_id"`
	Sender  ids.UserID  `json:"sender"`
	Direct  bool        `json:"direct,omitzero"`
	// Stripped is the stripped state of an invite or a knock, a JSON array.
	Stripped  jsontext.Value `json:"stripped,omitempty"`
	Forgotten bool           `json:"forgotten,omitzero"`
}

// ChangeKind says what a row of the Stream is about.
type ChangeKind string

// The kinds of changes. They are part of the on-disk format.
const (
	ChangeMembership  ChangeKind = "m"
	ChangeAccountData ChangeKind = "a"
	// ChangeSessions: tokens or devices ended. Feeds and caches look at it; a
	// sync shows nothing of it.
	ChangeSessions ChangeKind = "s"
	// ChangeDevices: the devices or keys of User, as the owner of the stream may
	// see them, changed where no room tells of it.
	ChangeDevices ChangeKind = "d"
	// ChangeKeyCounts: the one-time or fallback keys of a device changed.
	ChangeKeyCounts ChangeKind = "k"
	// ChangeToDevice: devices were sent a message. It is in the log only: the
	// inbox says the rest.
	ChangeToDevice ChangeKind = "t"
	// ChangeFarewell: the account ended, and there is more to be done about it. It
	// is in the log only.
	ChangeFarewell ChangeKind = "f"
	// ChangeThread: a subscription to a thread changed. It is in the log only.
	ChangeThread ChangeKind = "h"
)

// Change is a row of a user's Stream.
type Change struct {
	Kind ChangeKind `json:"k"`
	// Seq is the position; it is the row's key.
	Seq ids.Seq `json:"-"`
	// Room is that of a membership or of room account data.
	Room ids.RoomID `json:"r,omitempty"`
	// Type is the type of account data.
	Type string `json:"t,omitempty"`
	// Membership, Prev, RoomSeq and Joined are those of the Membership row.
	Membership event.Membership `json:"m,omitempty"`
	Prev       event.Membership `json:"p,omitempty"`
	RoomSeq    ids.Seq          `json:"q,omitzero"`
	Joined     ids.Seq          `json:"j,omitzero"`
	// Devices are the devices that ended, or whose keys or inbox changed.
	Devices []ids.DeviceID `json:"d,omitempty"`
	// User is whose devices changed.
	User ids.UserID `json:"u,omitempty"`
}

// DecodeChange reads a Stream row, or the Data of a RecordUser.
func DecodeChange(s ids.Seq, row []byte) (*Change, error) {
	c := &Change{}
	if err := decode(row, c); err != nil {
		return nil, fmt.Errorf("stream row: %w", err)
	}
	c.Seq = s
	return c, nil
}

// Place locates the rows of a user.
type Place struct {
	Partition ids.Partition
	User      ids.UserID
}

// PlaceOf returns the place of a user in a deployment of count partitions.
func PlaceOf(user ids.UserID, count int) Place {
	return Place{ids.PartitionOf(string(user), count), user}
}

func (p Place) key(t storage.Table, sort string) storage.Key {
	return storage.Key{Partition: p.Partition, Table: t, Entity: string(p.User), Sort: sort}
}

func (p Place) account() storage.Key                { return p.key(tables.Account, "") }
func (p Place) device(d ids.DeviceID) storage.Key   { return p.key(tables.Device, string(d)) }
func (p Place) token(hash string) storage.Key       { return p.key(tables.Token, hash) }
func (p Place) membership(r ids.RoomID) storage.Key { return p.key(tables.Membership, string(r)) }
func (p Place) profile(field string) storage.Key    { return p.key(tables.Profile, field) }
func (p Place) stream(s ids.Seq) storage.Key        { return p.key(tables.Stream, tables.SeqSort(s)) }

func (p Place) data(r ids.RoomID, t string) storage.Key {
	return p.key(tables.AccountData, partition.JoinSort(string(r), t))
}

// Tables are the rows of users that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	all := map[storage.Table]partition.TableSpec{
		tables.Account:     {Keep: true, Decode: decoder[Account]},
		tables.Device:      {Keep: true, Decode: decoder[Device]},
		tables.Token:       {Decode: decoder[Token]},
		tables.Membership:  {Decode: mendable[Membership]},
		tables.AccountData: {Decode: mendable[Data]},
		tables.Profile:     {},
		tables.UserTxn:     {},
		tables.RegToken:    {Decode: decoder[RegToken]},
		tables.ShortToken:  {Decode: decoder[ShortToken]},
		tables.Dehydrated:  {Decode: decoder[Dehydrated]},
		tables.Presence:    {Decode: decoder[Presence]},

		tables.ThreadSubscription: {Decode: decoder[ThreadSubscription]},
	}
	maps.Copy(all, keyTables())
	maps.Copy(all, contactTables())
	maps.Copy(all, pushTables())
	return all
}

var errRow = errors.New("account: malformed row")

func decoder[T any](_ storage.Key, row []byte) (any, error) {
	v := new(T)
	if err := decode(row, v); err != nil {
		return nil, errDamaged(err)
	}
	return v, nil
}

// decode reads a row. Its error says nothing of what is in it.
func decode(row []byte, v any) error {
	if json.Unmarshal(row, v) != nil {
		return errRow
	}
	return nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		// The types of this package always marshal; anything else is a bug,
		// which the owner turns into a failed command.
		panic(fmt.Errorf("encode %T: %w", v, err))
	}
	return b
}

// put writes a row with its decoded form.
func put(tx *partition.Tx, k storage.Key, v any) { tx.Put(k, encode(v), v) }

// get returns a pinned row's decoded form, nil if there is no row.
func get[T any](tx *partition.Tx, k storage.Key) *T {
	v, _ := tx.Get(k).Obj.(*T)
	return v
}

// emit appends a change to the user's stream.
func emit(tx *partition.Tx, p Place, c Change) ids.Seq {
	c.Seq = tx.NextSeq()
	row := encode(&c)
	tx.Put(p.stream(c.Seq), row, nil)
	return tx.Emit(partition.Record{Kind: partition.RecordUser, Entity: string(p.User), Data: row, Obj: &c})
}

// command is what all commands on a user share.
type command struct {
	User ids.UserID
}

// Partition implements partition.Command.
func (c command) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.User), count) }

func (c command) at(p *partition.Prep) Place { return Place{p.Partition(), c.User} }
func (c command) in(tx *partition.Tx) Place  { return Place{tx.Partition(), c.User} }
