package event

import "slices"

// DefaultVersion is the version of rooms whose creator names none, unless the
// deployment has another.
const DefaultVersion = "12"

// Version is a room version as the list of what distinguishes it from the
// others. The zero Version is no version. Older ones are there for tools and
// suites that ask for them; each rule of theirs that a client can see is kept,
// but for these, which were dropped for good reasons: power levels are integers
// in all versions, m.room.aliases takes the level of any state, and event IDs
// have the form of version 4. spec: rooms.
type Version struct {
	// ID is what m.room.create holds as room_version.
	ID string
	// KeepsAliases: redaction keeps the aliases of m.room.aliases (up to 5).
	KeepsAliases bool
	// Knocking: there are knocks, and the join rule for them (7).
	Knocking bool
	// Restricted: there is the join rule restricted, whose allow is kept by
	// redaction (8).
	Restricted bool
	// KeepsAuthoriser: redaction keeps who vouched for a restricted join (9).
	KeepsAuthoriser bool
	// KnockRestricted: there is the join rule knock_restricted (10).
	KnockRestricted bool
	// CreatorInContent: the create event names the creator in its content
	// (up to 10); later its sender is the creator.
	CreatorInContent bool
	// RedactsInContent: m.room.redaction has redacts in its content (11), not at
	// the top level.
	RedactsInContent bool
	// UpdatedRedaction: the redaction algorithm of version 11.
	UpdatedRedaction bool
	// RoomIDFromCreate: the room ID is the create event's ID with another sigil,
	// the create event's PDU has no room_id, and it is not an auth event (12).
	RoomIDFromCreate bool
	// CreatorPower: creators have infinite power, content.additional_creators
	// are creators too, and power levels may not list them (12).
	CreatorPower bool
}

// Lookup returns a supported room version.
func Lookup(id string) (Version, bool) {
	n := slices.Index(Supported(), id) + 1
	if n == 0 {
		return Version{}, false
	}
	return Version{
		ID:               id,
		KeepsAliases:     n <= 5,
		Knocking:         n >= 7,
		Restricted:       n >= 8,
		KeepsAuthoriser:  n >= 9,
		KnockRestricted:  n >= 10,
		CreatorInContent: n <= 10,
		RedactsInContent: n >= 11,
		UpdatedRedaction: n >= 11,
		RoomIDFromCreate: n >= 12,
		CreatorPower:     n >= 12,
	}, true
}

// Default returns the version DefaultVersion.
func Default() Version {
	v, _ := Lookup(DefaultVersion)
	return v
}

// Supported lists the IDs of all versions, oldest first. All are stable.
// spec: client-server §m.room_versions capability.
func Supported() []string {
	return []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}
}
