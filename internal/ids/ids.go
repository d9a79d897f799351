// Package ids holds the identifiers that cross package boundaries, each with a
// type of its own so that a room can never be passed where a user is wanted,
// and the function that maps an identifier to its partition.
//
// It does no I/O and keeps no state.
package ids

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the longest user ID, room ID, alias or event ID in bytes.
// spec: appendices §Common Namespace Format.
const MaxLength = 255

type (
	// UserID is a full Matrix user ID: "@localpart:server".
	UserID string
	// RoomID is a room's ID: "!opaque" (room version 12) or "!opaque:server".
	RoomID string
	// RoomAlias is a room's alias: "#localpart:server".
	RoomAlias string
	// EventID is an event's ID: "$" and the URL-safe base64 of 32 bytes, its reference hash and,
	// in most, its position.
	EventID string
	// DeviceID names one device of one user. It is opaque.
	DeviceID string
	// NodeID names one running process of a deployment. It is new at each start.
	NodeID string

	// Partition is the number of a unit of ownership, order and sharding.
	Partition uint16
	// Seq is a position in the log of one partition. The first entry has 1;
	// 0 is the position before every entry.
	Seq uint64
	// Epoch numbers the successive owners of a partition. A higher epoch fences
	// every lower one.
	Epoch uint64
)

// ErrInvalid is wrapped by every parse error of this package.
var ErrInvalid = errors.New("invalid identifier")

// MaxPartitions bounds the number of partitions of a deployment: the number is
// part of every sync token, which has to fit in a URL.
const MaxPartitions = 1024

// PartitionOf returns the partition, of count, that owns an entity (a room ID,
// a user ID or an alias). count is a power of two. The mapping is part of the
// on-disk format: FNV-1a over the bytes, then the finalizer of MurmurHash3, so
// that the low bits are well mixed.
func PartitionOf(entity string, count int) Partition {
	h := uint64(14695981039346656037)
	for i := range len(entity) {
		h ^= uint64(entity[i])
		h *= 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return Partition(h & uint64(count-1))
}

// Localpart returns the part between the sigil and the first colon.
func (u UserID) Localpart() string { return localpart(string(u)) }

// Server returns the part after the first colon, "" if there is none.
func (u UserID) Server() string { return server(string(u)) }

// Localpart returns the part between the sigil and the first colon.
func (a RoomAlias) Localpart() string { return localpart(string(a)) }

// Server returns the part after the first colon, "" if there is none.
func (a RoomAlias) Server() string { return server(string(a)) }

func localpart(s string) string {
	local, _, _ := strings.Cut(s, ":")
	if local == "" {
		return ""
	}
	return local[1:]
}

func server(s string) string {
	_, server, _ := strings.Cut(s, ":")
	return server
}

// NewUserID builds a user ID from a localpart and a server name that the
// caller knows to be valid.
func NewUserID(local, server string) UserID { return UserID("@" + local + ":" + server) }

// ParseUserID checks the form of a user ID as it may occur in events: historical
// localparts included, but valid UTF-8 without NUL and no longer than MaxLength.
// spec: appendices §User Identifiers.
func ParseUserID(s string) (UserID, error) {
	if err := check(s, '@', true); err != nil {
		return "", fmt.Errorf("user ID: %w", err)
	}
	return UserID(s), nil
}

// ParseLocalpart checks a localpart that is about to be registered: a-z, 0-9 and
// the characters ._=-/+ only. full is its user ID, whose length is checked.
// spec: appendices §User Identifiers.
func ParseLocalpart(local, server string) (UserID, error) {
	if local == "" {
		return "", fmt.Errorf("user ID: empty localpart: %w", ErrInvalid)
	}
	for _, c := range []byte(local) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("._=-/+", c) >= 0:
		default:
			return "", fmt.Errorf("user ID: %q may not be part of a localpart: %w", c, ErrInvalid)
		}
	}
	full := NewUserID(local, server)
	if len(full) > MaxLength {
		return "", fmt.Errorf("user ID: longer than %d bytes: %w", MaxLength, ErrInvalid)
	}
	return full, nil
}

// ParseRoomID checks the form of a room ID, with or without a server part.
// spec: appendices §Room IDs; rooms/v12 §Room IDs as hashes.
func ParseRoomID(s string) (RoomID, error) {
	if err := check(s, '!', false); err != nil {
		return "", fmt.Errorf("room ID: %w", err)
	}
	return RoomID(s), nil
}

// ParseRoomAlias checks the form of a room alias. spec: appendices §Room Aliases.
func ParseRoomAlias(s string) (RoomAlias, error) {
	if err := check(s, '#', true); err != nil {
		return "", fmt.Errorf("room alias: %w", err)
	}
	return RoomAlias(s), nil
}

// ParseEventID checks the form of an event ID. spec: appendices §Event IDs.
func ParseEventID(s string) (EventID, error) {
	if err := check(s, '$', false); err != nil {
		return "", fmt.Errorf("event ID: %w", err)
	}
	return EventID(s), nil
}

func check(s string, sigil byte, wantServer bool) error {
	switch {
	case len(s) < 2 || s[0] != sigil:
		return fmt.Errorf("want %q and a name: %w", sigil, ErrInvalid)
	case len(s) > MaxLength:
		return fmt.Errorf("longer than %d bytes: %w", MaxLength, ErrInvalid)
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("not clean UTF-8: %w", ErrInvalid)
	case wantServer && !serverName(server(s)):
		return fmt.Errorf("no server name: %w", ErrInvalid)
	}
	return nil
}

// serverName reports whether s is made of what host names, addresses and ports
// are written with. spec: appendices §Server Name.
func serverName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(".-:[]", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
