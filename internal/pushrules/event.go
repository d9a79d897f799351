package pushrules

import (
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Fields are the members of an event that conditions can look at.
type Fields struct {
	ID             ids.EventID
	Room           ids.RoomID
	Sender         ids.UserID
	Type           string
	StateKey       *string // nil for an event that is not state
	OriginServerTS int64   // milliseconds since 1970
	Content        []byte  // canonical JSON
	// Thread is the root of the thread that the event is in, "" for none.
	Thread ids.EventID
}

// Event is the view of one event that programs evaluate. Make one for each event
// and use it for all members of the room: what a condition looks at is parsed and
// lower-cased for the first one that needs it, and once. It must not be used by two
// goroutines at the same time.
type Event struct {
	fields Fields

	known [numSlots]property
	done  [numSlots]bool
	// more holds the properties that were found and have no slot.
	more map[string]*property
}

// NewEvent returns the view of an event. The content is not copied and must not
// change while the view is in use.
func NewEvent(f Fields) *Event { return &Event{fields: f} }

// property is the value at one path of an event. A nil property is absent.
type property struct {
	// value is nil for JSON null; string, bool, float64, []any or map[string]any.
	value   any
	present bool

	// lower is the string in lower case, once lowered is set.
	lower   string
	lowered bool
	// set holds the elements of a long array, so that looking for each of thousands
	// of members in a list of thousands of mentions stays linear.
	set map[any]struct{}
}

// setThreshold is the length from which an array is worth a set.
const setThreshold = 16

// text returns the value in lower case, and false if it is not a string.
func (p *property) text() (string, bool) {
	if p == nil {
		return "", false
	}
	if !p.lowered {
		if s, ok := p.value.(string); ok {
			p.lower, p.lowered = strings.ToLower(s), true
		}
	}
	return p.lower, p.lowered
}

// is reports whether the value is v, a scalar.
func (p *property) is(v any) bool {
	return p != nil && p.present && p.value == v
}

// contains reports whether the value is an array with the element v, a scalar.
func (p *property) contains(v any) bool {
	if p == nil {
		return false
	}
	list, ok := p.value.([]any)
	if !ok {
		return false
	}
	if p.set == nil && len(list) >= setThreshold {
		p.set = make(map[any]struct{}, len(list))
		for _, e := range list {
			switch e.(type) {
			case []any, map[string]any: // not comparable
			default:
				p.set[e] = struct{}{}
			}
		}
	}
	if p.set != nil {
		_, ok := p.set[v]
		return ok
	}
	for _, e := range list {
		if e == v {
			return true
		}
	}
	return false
}

// slot numbers the properties that predefined rules look at, so that finding one
// again costs an array index.
type slot int8

const (
	slotOther slot = iota - 1
	slotType
	slotSender
	slotRoom
	slotStateKey
	slotBody
	slotMsgtype
	slotMembership
	slotMentions
	slotMentionedUsers
	slotMentionsRoom
	slotRelType
	numSlots
)

// The paths of the slots.
const (
	pathType           = "type"
	pathSender         = "sender"
	pathRoom           = "room_id"
	pathStateKey       = "state_key"
	pathBody           = "content.body"
	pathMsgtype        = "content.msgtype"
	pathMembership     = "content.membership"
	pathMentions       = `content.m\.mentions`
	pathMentionedUsers = `content.m\.mentions.user_ids`
	pathMentionsRoom   = `content.m\.mentions.room`
	pathRelType        = `content.m\.relates_to.rel_type`
)

func slotOf(path string) slot {
	switch path {
	case pathType:
		return slotType
	case pathSender:
		return slotSender
	case pathRoom:
		return slotRoom
	case pathStateKey:
		return slotStateKey
	case pathBody:
		return slotBody
	case pathMsgtype:
		return slotMsgtype
	case pathMembership:
		return slotMembership
	case pathMentions:
		return slotMentions
	case pathMentionedUsers:
		return slotMentionedUsers
	case pathMentionsRoom:
		return slotMentionsRoom
	case pathRelType:
		return slotRelType
	}
	return slotOther
}

// path is a compiled dot-separated path.
type path struct {
	key   string
	names []string
	slot  slot
}

// compilePath splits a path at its dots. A backslash makes a dot or a backslash
// that follows it literal, and stands for itself before anything else.
// spec: appendices §Dot-separated property paths.
func compilePath(key string) path {
	p := path{key: key, slot: slotOf(key)}
	var name strings.Builder
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '.':
			p.names = append(p.names, name.String())
			name.Reset()
		case c == '\\' && i+1 < len(key) && (key[i+1] == '.' || key[i+1] == '\\'):
			i++
			name.WriteByte(key[i])
		default:
			name.WriteByte(c)
		}
	}
	p.names = append(p.names, name.String())
	return p
}

// The paths that rules look at without naming them, compiled once.
var bodyPath, mentionsPath = compilePath(pathBody), compilePath(pathMentions)

// get returns the property at a path. It may be nil if there is none, but not for a path
// that has a slot.
func (e *Event) get(p *path) *property {
	if p.slot != slotOther {
		prop := &e.known[p.slot]
		if !e.done[p.slot] {
			e.done[p.slot] = true
			prop.value, prop.present = e.lookup(p.names)
		}
		return prop
	}
	if prop, ok := e.more[p.key]; ok {
		return prop
	}
	value, present := e.lookup(p.names)
	if !present {
		return nil
	}
	if e.more == nil {
		e.more = make(map[string]*property)
	}
	prop := &property{value: value, present: true}
	e.more[p.key] = prop
	return prop
}

func (e *Event) lookup(names []string) (value any, present bool) {
	if len(names) > 1 {
		if names[0] != "content" {
			return nil, false
		}
		raw := e.fields.Content
		for _, name := range names[1:] {
			var ok bool
			if raw, ok = event.Field(raw, name); !ok {
				return nil, false
			}
		}
		return parse(raw)
	}
	switch names[0] {
	case "type":
		return e.fields.Type, true
	case "sender":
		return string(e.fields.Sender), true
	case "room_id":
		return string(e.fields.Room), true
	case "event_id":
		return string(e.fields.ID), true
	case "origin_server_ts":
		return float64(e.fields.OriginServerTS), true
	case "state_key":
		if e.fields.StateKey == nil {
			return nil, false
		}
		return *e.fields.StateKey, true
	}
	return nil, false
}

// parse returns the value of canonical JSON. What is not JSON is as good as absent: one
// bad stored event must not stop anything.
func parse(raw []byte) (value any, ok bool) {
	if s, ok := event.String(raw); ok {
		return s, true
	}
	return value, json.Unmarshal(raw, &value) == nil
}
