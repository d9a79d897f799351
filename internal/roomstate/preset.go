package roomstate

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// The presets of a new room. spec: client-server §POST /createRoom.
const (
	PresetPrivate        = "private_chat"
	PresetTrustedPrivate = "trusted_private_chat"
	PresetPublic         = "public_chat"
)

// The powers in the first m.room.power_levels of a room.
const (
	adminPower = 100
	// tombstonePower is above every level the defaults hand out, so that only
	// creators replace a room of version 12. spec: POST /createRoom, step 3.
	tombstonePower = 150
)

// PresetOptions is what a request to create a room says about its first state.
type PresetOptions struct {
	Version event.Version
	Creator ids.UserID
	// Invite are the users to invite, who share the creator's power in a
	// trusted private chat.
	Invite []ids.UserID
	// CreationContent and PowerLevels are canonical objects, or nil: the
	// creation_content and the power_level_content_override of the request.
	CreationContent []byte
	PowerLevels     []byte
}

// Initial holds the contents of the first state events of a room, canonical
// JSON, in the order they are sent. The creator's join comes after Create.
type Initial struct {
	Create            []byte
	PowerLevels       []byte
	JoinRules         []byte
	HistoryVisibility []byte
	GuestAccess       []byte
}

// Omit takes out what a state event that is sent after the first ones says in its
// place: join rules, history visibility or guest access.
func (in *Initial) Omit(d *Draft) {
	if *d.StateKey != "" {
		return
	}
	switch d.Type {
	case event.TypeJoinRules:
		in.JoinRules = nil
	case event.TypeHistoryVisibility:
		in.HistoryVisibility = nil
	case event.TypeGuestAccess:
		in.GuestAccess = nil
	}
}

// DefaultPreset returns the preset of a request that names none.
func DefaultPreset(public bool) string {
	if public {
		return PresetPublic
	}
	return PresetPrivate
}

// Preset returns the first state of a room. The error is a *merr.Error: 400
// M_INVALID_PARAM for an unknown preset, M_BAD_JSON for a creation_content and
// M_INVALID_ROOM_STATE for a power_level_content_override that the room
// version cannot have. spec: client-server §POST /createRoom.
func Preset(name string, o PresetOptions) (Initial, error) {
	in := Initial{
		JoinRules:         []byte(`{"join_rule":"invite"}`),
		HistoryVisibility: []byte(`{"history_visibility":"shared"}`),
		GuestAccess:       []byte(`{"guest_access":"can_join"}`),
	}
	trusted := false
	switch name {
	case PresetPrivate:
	case PresetTrustedPrivate:
		trusted = true
	case PresetPublic:
		in.JoinRules = []byte(`{"join_rule":"public"}`)
		in.GuestAccess = []byte(`{"guest_access":"forbidden"}`)
	default:
		return Initial{}, merr.InvalidParamErr("Unknown preset")
	}
	var err error
	if in.Create, err = createContent(o, trusted); err != nil {
		return Initial{}, err
	}
	if in.PowerLevels, err = powerLevelsContent(o, trusted, name == PresetPublic, in.Create); err != nil {
		return Initial{}, err
	}
	return in, nil
}

// createContent adds to the creation_content what the server decides.
func createContent(o PresetOptions, trusted bool) ([]byte, error) {
	content := orEmpty(o.CreationContent)
	content = event.SetString(content, "room_version", o.Version.ID)
	content = event.DropField(nil, content, "creator") // the server's to say
	if o.Version.CreatorInContent {
		content = event.SetString(content, "creator", string(o.Creator))
	}
	if !o.Version.CreatorPower {
		return content, nil
	}
	given := event.ParseCreate(content)
	if given.BadCreators {
		return nil, merr.BadJSONErr("additional_creators is not a list of user IDs")
	}
	creators := given.AdditionalCreators
	if trusted {
		creators = slices.Concat(creators, o.Invite)
	}
	var unique []ids.UserID
	for _, user := range creators {
		if user != o.Creator && !slices.Contains(unique, user) {
			unique = append(unique, user)
		}
	}
	if len(unique) == 0 {
		return event.DropField(nil, content, "additional_creators"), nil
	}
	return event.SetField(nil, content, "additional_creators", appendUsers(nil, unique)), nil
}

func appendUsers(dst []byte, users []ids.UserID) []byte {
	dst = append(dst, '[')
	for i, user := range users {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = event.AppendString(dst, user)
	}
	return append(dst, ']')
}

// powerLevelsContent makes the first power levels: defaults, the users the
// preset trusts, and the members of the override in place of those.
func powerLevelsContent(o PresetOptions, trusted, public bool, create []byte) ([]byte, error) {
	invite, tombstone := 0, adminPower
	if public {
		invite = 50
	}
	if o.Version.CreatorPower {
		tombstone = tombstonePower
	}
	content := []byte(`{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,` +
		`"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,` +
		`"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":` + strconv.Itoa(tombstone) +
		`},"events_default":0,"invite":` + strconv.Itoa(invite) +
		`,"kick":50,"redact":50,"state_default":50,"users":{},"users_default":0}`)
	if !o.Version.CreatorPower {
		admins := []byte(`{}`)
		list := []ids.UserID{o.Creator}
		if trusted {
			list = append(list, o.Invite...)
		}
		for _, user := range list {
			admins = event.SetField(nil, admins, string(user), strconv.AppendInt(nil, adminPower, 10))
		}
		content = event.SetField(nil, content, "users", admins)
	}
	for name, value := range event.Members(orEmpty(o.PowerLevels)) {
		content = event.SetField(nil, content, name, value)
	}
	levels, err := event.ParsePowerLevels(content)
	if err != nil {
		return nil, invalidState(err.Error())
	}
	if !o.Version.CreatorPower {
		return content, nil
	}
	creators := append(event.ParseCreate(create).AdditionalCreators, o.Creator)
	for _, user := range creators {
		if _, listed := levels.Users[user]; listed {
			return nil, invalidState("the power of a creator cannot be set")
		}
	}
	return guardTombstone(content, levels), nil
}

// guardTombstone keeps m.room.tombstone above state_default where an override
// replaced the events or the default without naming it.
func guardTombstone(content []byte, levels *event.PowerLevels) []byte {
	floor := min(max(tombstonePower, levels.Level(event.LevelStateDefault)+1), event.MaxInt)
	level, named := levels.Events[event.TypeTombstone]
	if named && (level != tombstonePower || level >= floor) {
		return content // the client's own choice, or high enough
	}
	events, _ := event.Field(content, "events")
	events = event.SetField(nil, orEmpty(events), event.TypeTombstone, strconv.AppendInt(nil, floor, 10))
	return event.SetField(nil, content, "events", events)
}

func orEmpty(object []byte) []byte {
	if object == nil {
		return []byte(`{}`)
	}
	return object
}

func invalidState(why string) *merr.Error {
	return merr.New(http.StatusBadRequest, merr.InvalidRoomState, "Invalid power levels: %s", why)
}
