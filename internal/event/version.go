package event

// DefaultVersion is the version of rooms whose creator names none.
const DefaultVersion = "12"

// Version is a room version as the list of what distinguishes it from the
// others that are supported. The zero Version is no version. spec: rooms.
type Version struct {
	// ID is what m.room.create holds as room_version.
	ID string
	// CreatorInContent: the create event names the creator in its content
	// (version 10); later its sender is the creator.
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
	switch id {
	case "10":
		return Version{ID: "10", CreatorInContent: true}, true
	case "11":
		return Version{ID: "11", RedactsInContent: true, UpdatedRedaction: true}, true
	case "12":
		return Version{
			ID: "12", RedactsInContent: true, UpdatedRedaction: true,
			RoomIDFromCreate: true, CreatorPower: true,
		}, true
	}
	return Version{}, false
}

// Default returns the version DefaultVersion.
func Default() Version {
	v, _ := Lookup(DefaultVersion)
	return v
}

// Supported lists the IDs of all versions, oldest first. All are stable.
// spec: client-server §m.room_versions capability.
func Supported() []string { return []string{"10", "11", "12"} }
