package event

import "github.com/hubbub-chat/hubbub/internal/ids"

// Level names one of the single levels of m.room.power_levels.
type Level uint8

// The levels, with what they are where the content does not say.
const (
	LevelUsersDefault  Level = iota // 0
	LevelEventsDefault              // 0
	LevelStateDefault               // 50
	LevelBan                        // 50
	LevelRedact                     // 50
	LevelKick                       // 50
	LevelInvite                     // 0

	// NumLevels is the number of levels.
	NumLevels int = iota
)

// DefaultNotificationLevel is required to notify with a key, such as "room",
// that the content does not list. spec: client-server §m.room.power_levels.
const DefaultNotificationLevel = 50

// Name returns the name of the level in the content.
func (l Level) Name() string {
	switch l {
	case LevelUsersDefault:
		return "users_default"
	case LevelEventsDefault:
		return "events_default"
	case LevelStateDefault:
		return "state_default"
	case LevelBan:
		return "ban"
	case LevelRedact:
		return "redact"
	case LevelKick:
		return "kick"
	}
	return "invite"
}

// Default returns the level where the content, or the event, is absent.
// spec: client-server §m.room.power_levels.
func (l Level) Default() int64 {
	switch l {
	case LevelStateDefault, LevelBan, LevelRedact, LevelKick:
		return 50
	}
	return 0
}

// PowerLevels is the content of m.room.power_levels. A nil *PowerLevels is that
// of a room without the event.
type PowerLevels struct {
	// Users, Events and Notifications are nil if absent or empty.
	Users         map[ids.UserID]int64
	Events        map[string]int64
	Notifications map[string]int64

	levels  [NumLevels]int64
	present [NumLevels]bool
}

// Level returns a level, its default if the content does not have it.
func (p *PowerLevels) Level(l Level) int64 {
	if p == nil || !p.present[l] {
		return l.Default()
	}
	return p.levels[l]
}

// Has reports whether the content has the level.
func (p *PowerLevels) Has(l Level) bool { return p != nil && p.present[l] }

// User returns a user's level. Creators of rooms of version 12 have another,
// which is not in this event.
func (p *PowerLevels) User(user ids.UserID) int64 {
	if p != nil {
		if level, ok := p.Users[user]; ok {
			return level
		}
	}
	return p.Level(LevelUsersDefault)
}

// Send returns the level required to send an event of a type.
func (p *PowerLevels) Send(eventType string, isState bool) int64 {
	if p != nil {
		if level, ok := p.Events[eventType]; ok {
			return level
		}
	}
	if isState {
		return p.Level(LevelStateDefault)
	}
	return p.Level(LevelEventsDefault)
}

// Notification returns the level required to notify with a key.
func (p *PowerLevels) Notification(key string) int64 {
	if p != nil {
		if level, ok := p.Notifications[key]; ok {
			return level
		}
	}
	return DefaultNotificationLevel
}

// PowerLevels returns the content of an m.room.power_levels. It is shared: read
// only. The error is that of ParsePowerLevels.
func (e *Event) PowerLevels() (*PowerLevels, error) { return memoise(e, ParsePowerLevels) }

// ParsePowerLevels reads the content of an m.room.power_levels as strictly as
// room versions from 10 on do: every level is an integer, every user a user ID.
// The error is a *FieldError. Members that the specification does not name may
// be anything. spec: rooms/v10 §Authorisation rules, 9.1 to 9.3.
func ParsePowerLevels(content []byte) (*PowerLevels, error) {
	p := &PowerLevels{}
	w := walk(content)
	for w.next() {
		name := string(w.key)
		var ok bool
		switch name {
		case "events":
			if p.Events, ok = parseLevels[string](w.value); !ok {
				return nil, &FieldError{name, "an object of integers"}
			}
		case "notifications":
			if p.Notifications, ok = parseLevels[string](w.value); !ok {
				return nil, &FieldError{name, "an object of integers"}
			}
		case "users":
			if p.Users, ok = parseLevels[ids.UserID](w.value); !ok {
				return nil, &FieldError{name, "an object of integers"}
			}
			for user := range p.Users {
				if _, err := ids.ParseUserID(string(user)); err != nil {
					return nil, &FieldError{name, "an object whose keys are user IDs"}
				}
			}
		default:
			if err := p.setLevel(name, w.value); err != nil {
				return nil, err
			}
		}
	}
	if !w.closed {
		return nil, &FieldError{"content", "an object"}
	}
	return p, nil
}

func (p *PowerLevels) setLevel(name string, raw []byte) error {
	for l := range Level(NumLevels) {
		if l.Name() != name {
			continue
		}
		n, ok := Int(raw)
		if !ok {
			return &FieldError{name, "an integer"}
		}
		p.levels[l], p.present[l] = n, true
	}
	return nil
}

func parseLevels[K ~string](raw []byte) (levels map[K]int64, ok bool) {
	w := walk(raw)
	for w.next() {
		n, ok := Int(w.value)
		if !ok {
			return nil, false
		}
		if levels == nil {
			levels = make(map[K]int64)
		}
		levels[K(w.key)] = n
	}
	return levels, w.closed
}
