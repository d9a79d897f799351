// Package tables numbers the tables of the store. The numbers are part of the
// on-disk format: they are never reused.
package tables

import (
	"encoding/binary"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Tables of a partition itself; the entity is "".
const (
	// Log holds the committed batches: sort is the batch's last Seq.
	Log storage.Table = 1
	// Outbox holds effects on their way: sort is destination, Seq, index.
	Outbox storage.Table = 2
	// Cursor holds the last effect applied from each origin partition.
	Cursor storage.Table = 3
	// Directory lists the partition's public rooms: sort is the room ID.
	Directory storage.Table = 4
	// Rooms lists the partition's rooms: sort is the room ID.
	Rooms storage.Table = 5
	// Users lists the partition's users: sort is the user ID.
	Users storage.Table = 6
	// Report holds what users reported: sort is the Seq.
	Report storage.Table = 10
	// DirectoryOrder lists the partition's public rooms, the largest first: the
	// entity is a list (all, or those of a type), sort the number of members from
	// above and the room ID.
	DirectoryOrder storage.Table = 11
	// DirectoryTerm finds public rooms by the words that describe them: sort is
	// term, NUL, room ID, NUL, where it stands.
	DirectoryTerm storage.Table = 12
	// UserTerm finds users by their names: the entity is the first letter of a
	// term, sort is term, NUL, user ID.
	UserTerm storage.Table = 13
)

// Tables of the partition's consumers; the entity is "".
const (
	// ConsumerCursor holds how far each consumer of the log has come: sort is its
	// name.
	ConsumerCursor storage.Table = 8
)

// RoomWatch lists the users who are to be told of what happens in a room though
// they are not connected; the entity is the room ID, sort the user ID.
const RoomWatch storage.Table = 9

// Tables of a room; the entity is the room ID, for Alias the alias.
const (
	// RoomHead is one row: the end of the room's hash chain, and counts.
	RoomHead storage.Table = 16
	// Timeline holds the events: sort is the Seq.
	Timeline storage.Table = 17
	// EventIndex leads from an event ID that does not hold its Seq to that: of create
	// events, and of those that older versions wrote.
	EventIndex storage.Table = 18
	// State holds the current state: sort is type, NUL, state key.
	State storage.Table = 19
	// StateLog lists the state events in order: sort is the Seq.
	StateLog storage.Table = 20
	// Txn leads from device and transaction ID to the event ID.
	Txn storage.Table = 21
	// Receipt holds the receipts: sort is type, thread and user.
	Receipt storage.Table = 22
	// ReceiptLog lists the receipts in order of change: sort is the Seq.
	ReceiptLog storage.Table = 23
	// Alias leads from an alias to its room.
	Alias storage.Table = 24
	// RoomAlias lists a room's aliases.
	RoomAlias storage.Table = 25
	// Relation lists the events that relate to an event: sort is the parent's Seq,
	// the kind of relation, the child's Seq.
	Relation storage.Table = 26
	// TxnIndex stands for all Txn rows of one device; it is in memory only.
	TxnIndex storage.Table = 30
	// DeviceList holds, by member, the position of the last change of their
	// devices or keys.
	DeviceList storage.Table = 27
	// DeviceListLog lists these changes in order: sort is the Seq.
	DeviceListLog storage.Table = 28
	// RelationCount counts the relations to an event: sort is its Seq.
	RelationCount storage.Table = 31
	// Annotation tells equal annotations: sort is the parent's Seq, then a hash.
	Annotation storage.Table = 32
	// ThreadLog lists the threads by their latest reply: sort is its Seq.
	ThreadLog storage.Table = 33
	// ThreadMember counts a user's replies in a thread: sort is the root's Seq,
	// then the user.
	ThreadMember storage.Table = 34
	// ThreadEvent lists the events in threads: sort is the Seq.
	ThreadEvent storage.Table = 35
	// MemberTerm finds the members of a room by their names: sort is term, NUL,
	// user ID.
	MemberTerm storage.Table = 36
	// SearchTerm, SearchWord and SearchDoc are of the search index of earlier versions, which
	// is still read: by term, the events in whose text it stands: sort is term, NUL, the
	// highest Seq of those in the row.
	SearchTerm storage.Table = 37
	// SearchWord leads from any ending of a term of the room to the term: sort is
	// ending, NUL, term; or NUL, two letters, NUL, hash, for several terms.
	SearchWord storage.Table = 38
	// SearchDoc holds what these rows have of an event: sort is its Seq.
	SearchDoc storage.Table = 39
	// SearchRecent holds what the search index has of what was said lately: the newest, and
	// what is known of all, in the head, whose sort is "", the rest in blocks, whose sort is
	// a number.
	SearchRecent storage.Table = 40
	// SearchSegment holds what it has of the rest: sort is the kind of row, for most kinds
	// a bucket, and the name of the segment, which begins with its highest Seq.
	SearchSegment storage.Table = 41
)

// Tables of a user; the entity is the user ID.
const (
	// Account is one row: password hash, flags.
	Account storage.Table = 64
	// Profile holds the profile fields.
	Profile storage.Table = 65
	// Device holds the devices.
	Device storage.Table = 66
	// Token holds access and refresh tokens: sort is the token's hash.
	Token storage.Table = 67
	// Membership holds the rooms of the user: sort is the room ID.
	Membership storage.Table = 68
	// Stream lists what changed for the user: sort is the Seq.
	Stream storage.Table = 69
	// AccountData holds account data: sort is room ID (or ""), NUL, type.
	AccountData storage.Table = 70
	// Filter holds sync filters: sort is the filter ID.
	Filter storage.Table = 71
	// Inbox holds to-device messages: sort is device, NUL, Seq.
	Inbox storage.Table = 72
	// UserTxn is Txn for requests that are not about a room.
	UserTxn storage.Table = 73
	// RegToken holds a registration token; the entity is the token.
	RegToken storage.Table = 74
	// DeviceKeys holds the identity keys of devices.
	DeviceKeys storage.Table = 75
	// OneTimeKey holds one-time keys in the order of their upload: sort is
	// device, NUL, algorithm, NUL, number.
	OneTimeKey storage.Table = 76
	// OneTimeKeyID leads from device, NUL, key ID to what was uploaded under it,
	// also when it has been claimed.
	OneTimeKeyID storage.Table = 77
	// ClaimedKey lists the IDs of a device's claimed keys in order.
	ClaimedKey storage.Table = 78
	// KeyState is one row for each device: counts and fallback keys.
	KeyState storage.Table = 79
	// CrossSigning is one row: the user's cross-signing keys.
	CrossSigning storage.Table = 80
	// DeviceListState is one row: what the announcement of new keys rests on.
	DeviceListState storage.Table = 81
	// KeySignature holds the signatures that the user made of keys: sort is the
	// owner of the key, NUL, key ID.
	KeySignature storage.Table = 82
	// Backup is one row: the versions of the user's key backup.
	Backup storage.Table = 83
	// BackupKey holds the keys of backups: sort is version, room, session.
	BackupKey storage.Table = 84
	// ThreadSubscription holds the threads that the user subscribed to, and lists
	// these subscriptions in order of change.
	ThreadSubscription storage.Table = 85
	// Contact holds the contact addresses of the user: sort is medium, NUL, address.
	Contact storage.Table = 90
	// ShortToken holds tokens that last minutes, for one login or for OpenID: sort
	// is the token's hash.
	ShortToken storage.Table = 91
	// Delayed is one row: an event to be sent later; the entity is its delay ID.
	Delayed storage.Table = 96
	// DelayedOf is one row: the IDs of the user's delayed events.
	DelayedOf storage.Table = 97
	// Dehydrated is one row: the user's dehydrated device.
	Dehydrated storage.Table = 98
	// Presence is one row: what the user last said about being there.
	Presence storage.Table = 99
)

// Tables of jobs that run in the background; the entity is "".
const (
	// DelayedDue lists the partition's delayed events by when they are due: sort
	// is the time in ms since 1970, 8 bytes, and the delay ID.
	DelayedDue storage.Table = 116
	// PurgeJob holds what is being removed: sort is the job's ID.
	PurgeJob storage.Table = 117
	// BlockedRoom lists the rooms that nobody may enter: sort is the room ID.
	BlockedRoom storage.Table = 118
)

// Tables of what has no user or room of its own.
const (
	// ContactOwner is one row: whose a contact address is; the entity is a hash of
	// medium and address.
	ContactOwner storage.Table = 112
	// Validation is one row: the proof of a contact address under way; the entity
	// is its session ID.
	Validation storage.Table = 113
	// Farewell lists the partition's users whose accounts ended and who are still
	// to be taken out of their rooms: the entity is "", sort is the user ID.
	Farewell storage.Table = 93
	// ValidationDue lists the partition's validations by when they end: the entity
	// is "", sort is the time in ms since 1970, 8 bytes, and the session ID.
	ValidationDue storage.Table = 114
	// Erased lists the users whose events are hidden from those who came into a
	// room later: the entity is the room ID, sort is the user ID.
	Erased storage.Table = 95
	// RegTokenList lists the partition's registration tokens: the entity is "",
	// sort is the token.
	RegTokenList storage.Table = 115
)

// Tables of an application service; the entity is its ID.
const (
	// NetworkRoom lists the rooms of the service's directories: sort is network,
	// NUL, room ID.
	NetworkRoom storage.Table = 108
	// Outgoing is one row of each partition: the transaction that the service was
	// last sent of what happened there.
	Outgoing storage.Table = 109
	// ServiceRoster lists the services that follow the log; the entity is "", sort
	// the service's ID.
	ServiceRoster storage.Table = 110
)

// Tables of media; the entity is what each says.
const (
	// Media holds one row for each media ID, which is the entity.
	Media storage.Table = 100
	// Content holds one row for each content that is stored; the entity is its hash.
	Content storage.Table = 101
	// ContentRef lists the media that show a content: the entity is its hash, sort
	// the media ID; for one that was reserved NUL and the upload's claim follow.
	ContentRef storage.Table = 102
	// MediaTime lists the partition's media in order of their creation; the entity
	// is "".
	MediaTime storage.Table = 103
	// MediaDue lists what is to be removed from the partition or from where the
	// bytes are, in order of the time; the entity is "".
	MediaDue storage.Table = 104
	// UserMedia lists the media of a user, who is the entity, in order of their
	// creation.
	UserMedia storage.Table = 105
	// MediaUse is one row of totals: of a user, or of the partition for "".
	MediaUse storage.Table = 106
	// Preview holds previews of URLs: the entity is "", sort the URL's hash.
	Preview storage.Table = 107
)

// Tables of push; the entity is as said.
const (
	// Push is one row for each user, who is the entity: pushers, and what is
	// counted.
	Push storage.Table = 86
	// Notification holds a user's notifications: sort is time, partition of the
	// room, Seq.
	Notification storage.Table = 87
	// PushQueue holds what a partition's users have to be sent; the entity is "",
	// sort is user, pusher, and that of the notification.
	PushQueue storage.Table = 88
	// PushKey is one row for each push key of an app, a hash of which is the
	// entity: the users who have a pusher with it.
	PushKey storage.Table = 89
)

// SeqSort encodes a Seq so that its order is the order of the sort keys.
func SeqSort(s ids.Seq) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(s))
	return string(b[:])
}

// SortSeq decodes what SeqSort encoded, from the end of a sort key. It gives 0
// for a key that is too short.
func SortSeq(sort string) ids.Seq {
	if len(sort) < 8 {
		return 0
	}
	return ids.Seq(binary.BigEndian.Uint64([]byte(sort[len(sort)-8:])))
}
