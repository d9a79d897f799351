package roomstate

import (
	"math"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Power is a power level: an integer within ±event.MaxInt, or Infinite.
type Power int64

// Infinite is the power of the creators of a room of version 12: more than any
// level an event can hold. Two creators have the same power.
const Infinite Power = math.MaxInt64

// legacyCreatorPower is what the creator of a room of version 10 or 11 has
// before there is an m.room.power_levels. spec: client-server §m.room.power_levels.
const legacyCreatorPower Power = 100

// Powers answers questions about power in one room. It is a value; it stays
// right as long as the room's create and power levels events are current.
type Powers struct {
	version event.Version
	create  *event.Event
	levels  *event.PowerLevels // nil: the room has none
	// broken: the levels cannot be read, which the rules make impossible. Then
	// only creators of version 12 have any power.
	broken bool
}

// PowersOf returns the powers of a room.
func PowersOf(v event.Version, st View) Powers {
	return NewPowers(v, st.State(event.TypeCreate, ""), st.State(event.TypePowerLevels, ""))
}

// NewPowers returns the powers of a room with a creation and power levels, nil if there
// are none.
func NewPowers(v event.Version, create, levels *event.Event) Powers {
	p := Powers{version: v, create: create}
	if levels != nil {
		var err error
		if p.levels, err = levels.PowerLevels(); err != nil {
			p.levels, p.broken = &event.PowerLevels{}, true
		}
	}
	return p
}

// Of returns a user's power, also of one who is not in the room.
// spec: rooms/v12 §Authorisation rules, notes; client-server §Permissions.
func (p Powers) Of(user ids.UserID) Power {
	creator := p.IsCreator(user)
	switch {
	case creator && p.version.CreatorPower:
		return Infinite
	case p.broken:
		return Power(-event.MaxInt)
	case creator && p.levels == nil:
		return legacyCreatorPower
	}
	return Power(p.levels.User(user))
}

// IsCreator reports whether the user is a creator of the room.
// spec: rooms/v10 4.3.1, rooms/v11 §Event format, rooms/v12 §Client considerations.
func (p Powers) IsCreator(user ids.UserID) bool {
	switch {
	case p.create == nil:
		return false
	case p.version.CreatorInContent:
		return user == p.create.Create().Creator
	case user == p.create.Sender:
		return true
	}
	return p.version.CreatorPower && slices.Contains(p.create.Create().AdditionalCreators, user)
}

// Creators returns all creators of the room, its maker first.
func (p Powers) Creators() []ids.UserID {
	switch {
	case p.create == nil:
		return nil
	case p.version.CreatorInContent:
		return []ids.UserID{p.create.Create().Creator}
	}
	creators := []ids.UserID{p.create.Sender}
	if p.version.CreatorPower {
		for _, user := range p.create.Create().AdditionalCreators {
			if !slices.Contains(creators, user) {
				creators = append(creators, user)
			}
		}
	}
	return creators
}

// RequiredFor returns the power it takes to send an event of a type.
func (p Powers) RequiredFor(eventType string, isState bool) Power {
	if p.broken {
		return Infinite
	}
	return Power(p.levels.Send(eventType, isState))
}

// Level returns the power an action takes: event.LevelBan, LevelKick,
// LevelInvite, LevelRedact.
func (p Powers) Level(l event.Level) Power {
	if p.broken {
		return Infinite
	}
	return Power(p.levels.Level(l))
}

// Notification returns the power it takes to notify with a key: "room" for @room.
func (p Powers) Notification(key string) Power {
	if p.broken {
		return Infinite
	}
	return Power(p.levels.Notification(key))
}

// PowerOf returns a user's power in a room.
func PowerOf(v event.Version, user ids.UserID, st View) Power { return PowersOf(v, st).Of(user) }

// RequiredFor returns the power it takes to send an event of a type in a room.
func RequiredFor(v event.Version, eventType string, isState bool, st View) Power {
	return PowersOf(v, st).RequiredFor(eventType, isState)
}

// CanSend reports whether a user is in the room and has the power to send
// events of a type. Single events may still be forbidden by their content.
func CanSend(v event.Version, user ids.UserID, eventType string, isState bool, st View) bool {
	p := PowersOf(v, st)
	return Membership(st, user) == event.Join && p.Of(user) >= p.RequiredFor(eventType, isState)
}

// CanInvite reports whether a user is in the room and may invite. It is also
// what a user needs whose name authorises a restricted join.
func CanInvite(v event.Version, user ids.UserID, st View) bool {
	return canDo(v, user, event.LevelInvite, st)
}

// CanKick reports whether a user is in the room and may kick the target.
// A target who is banned is unbanned by that, which takes the ban level too.
func CanKick(v event.Version, user, target ids.UserID, st View) bool {
	if Membership(st, target) == event.Ban && !canDo(v, user, event.LevelBan, st) {
		return false
	}
	return canDo(v, user, event.LevelKick, st) && outranks(v, user, target, st)
}

// CanBan reports whether a user is in the room and may ban the target.
func CanBan(v event.Version, user, target ids.UserID, st View) bool {
	return canDo(v, user, event.LevelBan, st) && outranks(v, user, target, st)
}

// CanNotify reports whether a user may notify with a key: "room" for @room.
// spec: client-server §Push rules, sender_notification_permission.
func CanNotify(v event.Version, user ids.UserID, key string, st View) bool {
	p := PowersOf(v, st)
	return p.Of(user) >= p.Notification(key)
}

func canDo(v event.Version, user ids.UserID, l event.Level, st View) bool {
	p := PowersOf(v, st)
	return Membership(st, user) == event.Join && p.Of(user) >= p.Level(l)
}

func outranks(v event.Version, user, target ids.UserID, st View) bool {
	p := PowersOf(v, st)
	return p.Of(user) > p.Of(target)
}

// CanRedact reports whether a user is in the room and may send redactions, and
// whether of events of others too.
func CanRedact(v event.Version, user ids.UserID, st View) (own, others bool) {
	own = CanSend(v, user, event.TypeRedaction, false, st)
	return own, own && canDo(v, user, event.LevelRedact, st)
}

// MayRedact reports whether a redaction by redactor takes effect on target: the
// authorization rules let it pass either way. Without federation "the domain
// of the sender matches" is no rule to keep: the sender has to be the same.
// Never redacted are the create event, which a room of version 10 would not
// survive, and m.room.encryption, whose loss would make clients send in the
// clear. spec: rooms/v12 §Handling redactions.
func MayRedact(v event.Version, redactor ids.UserID, target *event.Event, st View) bool {
	create := st.State(event.TypeCreate, "")
	switch {
	case create == nil || target.RoomID != create.RoomID:
		return false
	case target.Type == event.TypeCreate || target.Is(event.TypeEncryption, ""):
		return false
	case target.Sender == redactor:
		return true
	}
	p := PowersOf(v, st)
	return p.Of(redactor) >= p.Level(event.LevelRedact)
}
