// Package event holds Matrix events and what is true of them whatever the room:
// canonical JSON, the room versions, the form of a PDU, its hashes and its ID,
// redaction, and the parsed content of the events that rules and feeds read.
//
// Room versions 10, 11 and 12 exist. There is no federation, so an event
// carries no signatures.
//
// Invariants: an Event does not change once Seal or ParsePDU returned it, and
// its Content is canonical JSON. Such an Event may be shared by any number of
// goroutines. The package does no I/O, reads no clock and starts no goroutine.
package event

import (
	"errors"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Limits of an event. spec: client-server §Size limits.
const (
	// MaxEventSize bounds the canonical JSON of a PDU in bytes.
	MaxEventSize = 65536
	// MaxFieldSize bounds type, state_key, sender, room_id and event_id in bytes.
	MaxFieldSize = 255
	// MaxInt is the largest number canonical JSON allows; the smallest is -MaxInt.
	// spec: appendices §Canonical JSON.
	MaxInt = 1<<53 - 1
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrNotJSON: the text is not JSON at all. Clients see M_NOT_JSON.
	ErrNotJSON = errors.New("not JSON")
	// ErrBadJSON: well-formed JSON that events may not hold (a float, a number
	// out of range, a duplicate key, too deep, a lone surrogate, the wrong
	// shape). Clients see M_BAD_JSON.
	ErrBadJSON = errors.New("JSON not allowed in an event")
	// ErrTooLarge: the event or one of its fields is over its limit. Clients
	// see M_TOO_LARGE.
	ErrTooLarge = errors.New("event too large")
	// ErrHash: the event's ID is not that of its reference hash and position. It was altered.
	ErrHash = errors.New("event ID is not that of the reference hash")
	// ErrContentHash: the content is not what was hashed when the event was
	// made: it was redacted, or altered.
	ErrContentHash = errors.New("content hash does not match")
)

// The event types that rules, redaction and room creation know.
const (
	TypeCreate            = "m.room.create"
	TypeMember            = "m.room.member"
	TypePowerLevels       = "m.room.power_levels"
	TypeJoinRules         = "m.room.join_rules"
	TypeHistoryVisibility = "m.room.history_visibility"
	TypeGuestAccess       = "m.room.guest_access"
	TypeThirdPartyInvite  = "m.room.third_party_invite"
	TypeRedaction         = "m.room.redaction"
	TypeCanonicalAlias    = "m.room.canonical_alias"
	TypeEncryption        = "m.room.encryption"
	TypeName              = "m.room.name"
	TypeTopic             = "m.room.topic"
	TypeAvatar            = "m.room.avatar"
	TypeTombstone         = "m.room.tombstone"
	TypeServerACL         = "m.room.server_acl"
	TypeMessage           = "m.room.message"
	TypeEncrypted         = "m.room.encrypted"
)

// Event is one event of a room. spec: rooms/v12 §Event format.
//
// Fill the fields and call Seal to make a new event; use ParsePDU for a stored
// one. After that nothing may be modified, Content's bytes included.
type Event struct {
	ID     ids.EventID
	RoomID ids.RoomID // of the create event too, though its PDU leaves it out in version 12
	Type   string
	// StateKey is nil in message events.
	StateKey *string
	Sender   ids.UserID
	// OriginServerTS is in milliseconds since 1970.
	OriginServerTS int64
	// Content is a canonical JSON object.
	Content    []byte
	PrevEvents []ids.EventID
	AuthEvents []ids.EventID
	Depth      int64
	// ContentHash covers the event as it was before any redaction.
	ContentHash [32]byte
	// Redacts names the target of an m.room.redaction, wherever the room
	// version keeps it; "" if there is none.
	Redacts ids.EventID

	// parsed is the content as a Go value, set by the first reader that asks.
	parsed atomic.Pointer[parsed]
}

// IsState reports whether the event is a state event.
func (e *Event) IsState() bool { return e.StateKey != nil }

// Is reports whether the event is state of the type and key.
func (e *Event) Is(eventType, stateKey string) bool {
	return e.StateKey != nil && e.Type == eventType && *e.StateKey == stateKey
}
