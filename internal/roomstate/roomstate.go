// Package roomstate is the law of a room: who may do what (the authorization
// rules of room versions 10, 11 and 12), how the next event of a room is made,
// and what a new room starts with.
//
// It is pure: no clock, no I/O, no goroutine, no randomness. It holds nothing
// between calls; the state of a room comes in as a View. Functions may be
// called from any goroutine as long as the View allows it.
//
// There is one writer per room and no federation. So a room's events are a
// line, the state an event is judged by is the current state, and the rules
// about signatures and about the auth events of other servers have nothing to
// check.
package roomstate

import (
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// View is the current state of a room.
type View interface {
	// State returns the state event of a type and key, nil if there is none.
	// The caller has loaded whatever AuthKeys names.
	State(eventType, stateKey string) *event.Event
}

// Draft is an event as its sender means it, before it has a place in a room.
type Draft struct {
	Type     string
	StateKey *string // nil in message events
	Sender   ids.UserID
	// Content is a canonical JSON object (event.CanonicalObject). The event
	// keeps it.
	Content []byte
	// OriginServerTS is in milliseconds since 1970.
	OriginServerTS int64
	// Redacts is the target of an m.room.redaction, "" if it stands in Content.
	Redacts ids.EventID
}

// StateKey names one piece of a room's state.
type StateKey struct{ Type, Key string }

// maxAuthKeys is how many state events one event can depend on: create, power
// levels, join rules, sender, target, and a token or an authoriser.
const maxAuthKeys = 7

// AuthKeys returns the state that Authorize and Build read for a draft, and the
// predicates of this package for its sender. The create event is among them in
// every version.
func AuthKeys(d Draft) []StateKey {
	return AppendAuthKeys(make([]StateKey, 0, maxAuthKeys), d)
}

// AppendAuthKeys is AuthKeys for a slice to reuse.
// spec: server-server §Auth events selection.
func AppendAuthKeys(dst []StateKey, d Draft) []StateKey {
	dst = append(dst,
		StateKey{event.TypeCreate, ""},
		StateKey{event.TypePowerLevels, ""},
		StateKey{event.TypeMember, string(d.Sender)})
	if d.Type != event.TypeMember || d.StateKey == nil {
		return dst
	}
	if *d.StateKey != string(d.Sender) {
		dst = append(dst, StateKey{event.TypeMember, *d.StateKey})
	}
	return appendMemberKeys(dst, event.ParseMember(d.Content))
}

// appendMemberKeys names the state that a membership depends on beyond the two
// members.
func appendMemberKeys(dst []StateKey, m *event.Member) []StateKey {
	switch m.Membership {
	case event.Join, event.Invite, event.Knock:
		dst = append(dst, StateKey{event.TypeJoinRules, ""})
	}
	if m.Membership == event.Invite && m.ThirdPartyInvite != nil {
		if token := m.Token(); token != "" {
			dst = append(dst, StateKey{event.TypeThirdPartyInvite, token})
		}
	}
	if m.Membership == event.Join && m.Authoriser != "" {
		dst = append(dst, StateKey{event.TypeMember, string(m.Authoriser)})
	}
	return dst
}

// Membership returns a user's membership, event.NoMembership if they never had
// one.
func Membership(st View, user ids.UserID) event.Membership {
	return membershipOf(st.State(event.TypeMember, string(user)))
}

func membershipOf(member *event.Event) event.Membership {
	if member == nil {
		return event.NoMembership
	}
	return member.Member().Membership
}

// HistoryVisibility returns who may read the room's past.
func HistoryVisibility(st View) event.HistoryVisibility {
	if ev := st.State(event.TypeHistoryVisibility, ""); ev != nil {
		return ev.HistoryVisibility()
	}
	return event.VisibilityShared
}

// JoinRule returns who may join, and for the restricted rules the rooms of
// which one has to be a member.
func JoinRule(st View) (rule event.JoinRule, allow []ids.RoomID) {
	if ev := st.State(event.TypeJoinRules, ""); ev != nil {
		j := ev.JoinRules()
		return j.Rule, j.AllowRooms
	}
	return event.JoinRuleInvite, nil
}
