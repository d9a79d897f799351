package feed

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Limits of filters.
const (
	// DefaultTimeline is the timeline limit of a sync without one.
	DefaultTimeline = 10
	// MaxTimeline bounds the timeline limit of a filter.
	MaxTimeline = 100
	// maxFilterList bounds each list of a filter: it is walked for every event.
	maxFilterList = 1000
	// maxFilterRelTypes bounds related_by_rel_types: each is looked for in the store
	// for every event. There are four types that mean something.
	maxFilterRelTypes = 10
	// maxEventFields bounds event_fields: each may cost reading the content of
	// every event once.
	maxEventFields = 100
	// MaxFilter bounds a filter's JSON in bytes.
	MaxFilter = 64 << 10
)

// Filter is a sync filter. spec: client-server §Filtering.
type Filter struct {
	EventFields []string    `json:"event_fields,omitzero"`
	EventFormat string      `json:"event_format,omitzero"`
	Presence    EventFilter `json:"presence,omitzero"`
	AccountData EventFilter `json:"account_data,omitzero"`
	Room        RoomFilter  `json:"room,omitzero"`
}

// RoomFilter is the part of a filter about rooms.
type RoomFilter struct {
	Rooms        *[]ids.RoomID `json:"rooms,omitzero"`
	NotRooms     []ids.RoomID  `json:"not_rooms,omitzero"`
	IncludeLeave bool          `json:"include_leave,omitzero"`
	State        EventFilter   `json:"state,omitzero"`
	Timeline     EventFilter   `json:"timeline,omitzero"`
	Ephemeral    EventFilter   `json:"ephemeral,omitzero"`
	AccountData  EventFilter   `json:"account_data,omitzero"`
}

// EventFilter selects events; the members about rooms count for events of rooms
// only. A nil list lets all through, an empty one none.
type EventFilter struct {
	Limit               *int          `json:"limit,omitzero"`
	Types               *[]string     `json:"types,omitzero"`
	NotTypes            []string      `json:"not_types,omitzero"`
	Senders             *[]ids.UserID `json:"senders,omitzero"`
	NotSenders          []ids.UserID  `json:"not_senders,omitzero"`
	Rooms               *[]ids.RoomID `json:"rooms,omitzero"`
	NotRooms            []ids.RoomID  `json:"not_rooms,omitzero"`
	ContainsURL         *bool         `json:"contains_url,omitzero"`
	LazyLoad            bool          `json:"lazy_load_members,omitzero"`
	Redundant           bool          `json:"include_redundant_members,omitzero"`
	ThreadNotifications bool          `json:"unread_thread_notifications,omitzero"`
	// Events to which one of the senders relates, by one of the types of relation:
	// for clients that make lists of threads themselves. spec: MSC3440.
	RelatedBySenders  *[]ids.UserID `json:"related_by_senders,omitzero"`
	RelatedByRelTypes *[]string     `json:"related_by_rel_types,omitzero"`
	// Events by their own type of relation, "" for those that have none. spec: MSC3874.
	RelTypes    *[]string `json:"org.matrix.msc3874.rel_types,omitzero"`
	NotRelTypes []string  `json:"org.matrix.msc3874.not_rel_types,omitzero"`
}

// ParseFilter reads the JSON of a filter. The error is M_BAD_JSON.
func ParseFilter(raw []byte) (*Filter, error) {
	if len(raw) > MaxFilter {
		return nil, merr.TooLargeErr("The filter is larger than %d bytes", MaxFilter)
	}
	f := &Filter{}
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, merr.BadJSONErr("Malformed filter: %s", jsonReason(err)).Because(err)
	}
	return f, f.check()
}

// ParseEventFilter reads the JSON of a RoomEventFilter, as /messages takes it.
func ParseEventFilter(raw []byte) (*EventFilter, error) {
	if len(raw) > MaxFilter {
		return nil, merr.TooLargeErr("The filter is larger than %d bytes", MaxFilter)
	}
	f := &EventFilter{}
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, merr.BadJSONErr("Malformed filter: %s", jsonReason(err)).Because(err)
	}
	return f, f.check()
}

// Selects reports whether the filter lets some events through and others not.
func (f *EventFilter) Selects() bool {
	all := EventFilter{Limit: f.Limit, LazyLoad: f.LazyLoad, Redundant: f.Redundant, ThreadNotifications: f.ThreadNotifications}
	return !reflect.DeepEqual(*f, all)
}

func jsonReason(err error) string {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) && semantic.JSONPointer != "" {
		return fmt.Sprintf("wrong value at %s", semantic.JSONPointer)
	}
	return "not valid JSON"
}

func (f *Filter) check() error {
	if f.EventFormat != "" && f.EventFormat != "client" && f.EventFormat != "federation" {
		return merr.BadJSONErr("Unknown event_format %q", f.EventFormat)
	}
	if len(f.EventFields) > maxEventFields {
		return merr.InvalidParamErr("event_fields has more than %d entries", maxEventFields)
	}
	if f.Room.Rooms != nil && len(*f.Room.Rooms) > maxFilterList || len(f.Room.NotRooms) > maxFilterList {
		return errFilterList()
	}
	for _, r := range append(slices.Clone(f.Room.NotRooms), deref(f.Room.Rooms)...) {
		if _, err := ids.ParseRoomID(string(r)); err != nil {
			return merr.BadJSONErr("%q is no room ID", r)
		}
	}
	for _, e := range []*EventFilter{&f.Presence, &f.AccountData, &f.Room.State, &f.Room.Timeline, &f.Room.Ephemeral, &f.Room.AccountData} {
		if err := e.check(); err != nil {
			return err
		}
	}
	return nil
}

func errFilterList() error {
	return merr.InvalidParamErr("A list of the filter has more than %d entries", maxFilterList)
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

func (f *EventFilter) check() error {
	for _, n := range []int{
		len(deref(f.Types)), len(f.NotTypes), len(deref(f.Senders)), len(f.NotSenders), len(deref(f.Rooms)), len(f.NotRooms),
	} {
		if n > maxFilterList {
			return errFilterList()
		}
	}
	if len(deref(f.RelatedBySenders)) > maxFilterList {
		return errFilterList()
	}
	if len(deref(f.RelTypes)) > maxFilterList || len(f.NotRelTypes) > maxFilterList {
		return errFilterList()
	}
	if len(deref(f.RelatedByRelTypes)) > maxFilterRelTypes {
		return merr.InvalidParamErr("related_by_rel_types has more than %d entries", maxFilterRelTypes)
	}
	for _, u := range slices.Concat(f.NotSenders, deref(f.Senders), deref(f.RelatedBySenders)) {
		if _, err := ids.ParseUserID(string(u)); err != nil {
			return merr.BadJSONErr("%q is no user ID", u)
		}
	}
	for _, r := range append(slices.Clone(f.NotRooms), deref(f.Rooms)...) {
		if _, err := ids.ParseRoomID(string(r)); err != nil {
			return merr.BadJSONErr("%q is no room ID", r)
		}
	}
	if f.Limit != nil && *f.Limit < 0 {
		return merr.BadJSONErr("limit is negative")
	}
	return nil
}

// Room reports whether a room passes.
func (f *RoomFilter) Room(r ids.RoomID) bool {
	return (f.Rooms == nil || slices.Contains(*f.Rooms, r)) && !slices.Contains(f.NotRooms, r)
}

// limit is the timeline limit. The specification wants it above 0, but bots that
// have no use for the past ask for 0, and would act on an event they were shown.
func (f *EventFilter) limit() int {
	if f.Limit == nil {
		return DefaultTimeline
	}
	return min(*f.Limit, MaxTimeline)
}

// All reports whether everything passes.
func (f *EventFilter) All() bool {
	return f.Types == nil && f.NotTypes == nil && f.Senders == nil && f.NotSenders == nil &&
		f.Rooms == nil && f.NotRooms == nil && f.ContainsURL == nil &&
		f.RelTypes == nil && f.NotRelTypes == nil && !f.Related()
}

// Related reports whether the filter looks at what relates to an event, which
// Event cannot know.
func (f *EventFilter) Related() bool { return f.RelatedBySenders != nil || f.RelatedByRelTypes != nil }

// Type reports whether an event type passes; patterns may hold "*".
func (f *EventFilter) Type(t string) bool {
	for _, p := range f.NotTypes {
		if matchType(p, t) {
			return false
		}
	}
	if f.Types == nil {
		return true
	}
	return slices.ContainsFunc(*f.Types, func(p string) bool { return matchType(p, t) })
}

// matchType matches a type against a pattern in which "*" stands for anything.
// Greedy and without backtracking beyond the last star: linear in practice,
// len(pattern)·len(t) at most.
func matchType(pattern, t string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == t
	}
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(t, parts[0]) {
		return false
	}
	t = t[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(t, part)
		if i < 0 {
			return false
		}
		t = t[i+len(part):]
	}
	return strings.HasSuffix(t, parts[len(parts)-1])
}

// Event reports whether an event of a room passes.
func (f *EventFilter) Event(s *room.Stored) bool {
	if f.All() {
		return true
	}
	if !f.Type(s.Type) || slices.Contains(f.NotSenders, s.Sender) || slices.Contains(f.NotRooms, s.RoomID) {
		return false
	}
	if f.Senders != nil && !slices.Contains(*f.Senders, s.Sender) || f.Rooms != nil && !slices.Contains(*f.Rooms, s.RoomID) {
		return false
	}
	if !f.relType(s) {
		return false
	}
	if f.ContainsURL != nil {
		_, has := event.StringField(s.Content, "url")
		return has == *f.ContainsURL
	}
	return true
}

// relType reports whether an event's relation passes.
func (f *EventFilter) relType(s *room.Stored) bool {
	if f.RelTypes == nil && f.NotRelTypes == nil {
		return true
	}
	rel, _ := event.RelationOf(s.Content)
	return (f.RelTypes == nil || slices.Contains(*f.RelTypes, rel.Type)) && !slices.Contains(f.NotRelTypes, rel.Type)
}

// Room reports whether the events of a room can pass at all.
func (f *EventFilter) Room(r ids.RoomID) bool {
	return (f.Rooms == nil || slices.Contains(*f.Rooms, r)) && !slices.Contains(f.NotRooms, r)
}
