package event

import (
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Membership is a user's relation to a room. spec: client-server §m.room.member.
type Membership string

// The memberships. A user without a membership event has NoMembership.
const (
	NoMembership Membership = ""
	Join         Membership = "join"
	Invite       Membership = "invite"
	Leave        Membership = "leave"
	Ban          Membership = "ban"
	Knock        Membership = "knock"
)

// JoinRule says who may join a room. spec: client-server §m.room.join_rules.
type JoinRule string

// The join rules. A room without the event is JoinRuleInvite.
const (
	JoinRulePublic          JoinRule = "public"
	JoinRuleInvite          JoinRule = "invite"
	JoinRuleKnock           JoinRule = "knock"
	JoinRulePrivate         JoinRule = "private"
	JoinRuleRestricted      JoinRule = "restricted"
	JoinRuleKnockRestricted JoinRule = "knock_restricted"
)

// HistoryVisibility says who may read what was sent before they joined.
// spec: client-server §Room history visibility.
type HistoryVisibility string

// The visibilities. A room without the event, or with another value, is
// VisibilityShared.
const (
	VisibilityWorldReadable HistoryVisibility = "world_readable"
	VisibilityShared        HistoryVisibility = "shared"
	VisibilityInvited       HistoryVisibility = "invited"
	VisibilityJoined        HistoryVisibility = "joined"
)

// parsed is the content of one event as a Go value, or why it has none.
type parsed struct {
	value any
	err   error
}

// memoise returns the parsed content of e and keeps it, so that an event in a
// cache is parsed once. Two first readers may both parse; one result stays.
func memoise[T any](e *Event, parse func(content []byte) (*T, error)) (*T, error) {
	p := e.parsed.Load()
	if p == nil {
		value, err := parse(e.Content)
		p = &parsed{value, err}
		if !e.parsed.CompareAndSwap(nil, p) {
			p = e.parsed.Load()
		}
	}
	if value, ok := p.value.(*T); ok {
		return value, p.err
	}
	return parse(e.Content) // the slot holds another type: an event read as what it is not
}

// Member is the content of m.room.member.
type Member struct {
	// Membership is NoMembership if the content has none that is a string. It
	// may be a word that the specification does not know.
	Membership  Membership
	DisplayName string
	AvatarURL   string
	Reason      string
	IsDirect    bool
	// HasAuthoriser: there is a join_authorised_via_users_server. Authoriser is
	// its value, "" if that is not a user ID.
	HasAuthoriser bool
	Authoriser    ids.UserID
	// ThirdPartyInvite is raw JSON, nil if there is none.
	ThirdPartyInvite []byte
}

// Member returns the content of an m.room.member. It is shared: read only.
func (e *Event) Member() *Member {
	m, _ := memoise(e, func(content []byte) (*Member, error) { return ParseMember(content), nil })
	return m
}

// ParseMember reads the content of an m.room.member. Members of the wrong type
// count as absent.
func ParseMember(content []byte) *Member {
	m := &Member{}
	for w := walk(content); w.next(); {
		switch string(w.key) {
		case "membership":
			s, _ := String(w.value)
			m.Membership = Membership(s)
		case "displayname":
			m.DisplayName, _ = String(w.value)
		case "avatar_url":
			m.AvatarURL, _ = String(w.value)
		case "reason":
			m.Reason, _ = String(w.value)
		case "is_direct":
			m.IsDirect = string(w.value) == "true"
		case "join_authorised_via_users_server":
			s, _ := String(w.value)
			m.HasAuthoriser = true
			m.Authoriser, _ = ids.ParseUserID(s)
		case "third_party_invite":
			m.ThirdPartyInvite = w.value
		}
	}
	return m
}

// Token returns the token that a third-party invite was made with, "" if there
// is none. It is the state key of the m.room.third_party_invite.
func (m *Member) Token() string {
	signed, _ := Field(m.ThirdPartyInvite, "signed")
	token, _ := StringField(signed, "token")
	return token
}

// Create is the content of m.room.create.
type Create struct {
	// HasCreator: there is a creator. Creator is its value, "" if that is not a
	// user ID. It counts in version 10 only.
	HasCreator bool
	Creator    ids.UserID
	// HasRoomVersion: there is a room_version. RoomVersion is "" if that is not
	// a string.
	HasRoomVersion bool
	RoomVersion    string
	// NoFederation: m.federate is false.
	NoFederation bool
	// AdditionalCreators count from version 12 on. BadCreators: the member is
	// there and is not an array of user IDs.
	AdditionalCreators []ids.UserID
	BadCreators        bool
	// RoomType is "m.space" for spaces, "" for usual rooms.
	RoomType string
	// Predecessor is the room this one replaces, "" if none.
	Predecessor ids.RoomID
}

// Create returns the content of an m.room.create. It is shared: read only.
func (e *Event) Create() *Create {
	c, _ := memoise(e, func(content []byte) (*Create, error) { return ParseCreate(content), nil })
	return c
}

// ParseCreate reads the content of an m.room.create.
func ParseCreate(content []byte) *Create {
	c := &Create{}
	for w := walk(content); w.next(); {
		switch string(w.key) {
		case "creator":
			s, _ := String(w.value)
			c.HasCreator = true
			c.Creator, _ = ids.ParseUserID(s)
		case "room_version":
			c.HasRoomVersion = true
			c.RoomVersion, _ = String(w.value)
		case "m.federate":
			c.NoFederation = string(w.value) == "false"
		case "additional_creators":
			var ok bool
			c.AdditionalCreators, ok = parseUsers(w.value)
			c.BadCreators = !ok
		case "type":
			c.RoomType, _ = String(w.value)
		case "predecessor":
			s, _ := StringField(w.value, "room_id")
			c.Predecessor = ids.RoomID(s)
		}
	}
	return c
}

func parseUsers(raw []byte) (users []ids.UserID, ok bool) {
	w := walk(raw)
	for w.nextElement() {
		s, _ := String(w.value)
		user, err := ids.ParseUserID(s)
		if err != nil {
			return nil, false
		}
		users = append(users, user)
	}
	return users, w.closed
}

// JoinRules is the content of m.room.join_rules.
type JoinRules struct {
	// Rule is JoinRuleInvite if the content has none that is a string. It may be
	// a word that the specification does not know, which lets nobody join.
	Rule JoinRule
	// AllowRooms are the rooms of the conditions of type m.room_membership.
	AllowRooms []ids.RoomID
}

// JoinRules returns the content of an m.room.join_rules. It is shared: read only.
func (e *Event) JoinRules() *JoinRules {
	j, _ := memoise(e, func(content []byte) (*JoinRules, error) { return ParseJoinRules(content), nil })
	return j
}

// ParseJoinRules reads the content of an m.room.join_rules. Conditions of an
// unknown type are left out: nobody fulfils them.
// spec: client-server §Restricted rooms.
func ParseJoinRules(content []byte) *JoinRules {
	j := &JoinRules{Rule: JoinRuleInvite}
	if rule, ok := StringField(content, "join_rule"); ok {
		j.Rule = JoinRule(rule)
	}
	allow, _ := Field(content, "allow")
	for condition := range Elements(allow) {
		kind, _ := StringField(condition, "type")
		room, ok := StringField(condition, "room_id")
		if ok && kind == "m.room_membership" {
			j.AllowRooms = append(j.AllowRooms, ids.RoomID(room))
		}
	}
	return j
}

// HistoryVisibility returns the content of an m.room.history_visibility.
func (e *Event) HistoryVisibility() HistoryVisibility {
	raw, _ := Field(e.Content, "history_visibility")
	switch string(raw) {
	case `"world_readable"`:
		return VisibilityWorldReadable
	case `"invited"`:
		return VisibilityInvited
	case `"joined"`:
		return VisibilityJoined
	}
	return VisibilityShared
}

// FieldError tells which member of a content is not what it has to be.
type FieldError struct {
	Field string
	Want  string
}

// Error says what was wanted of which field.
func (e *FieldError) Error() string { return fmt.Sprintf("%s is not %s", e.Field, e.Want) }

// Unwrap makes every FieldError an ErrBadJSON.
func (e *FieldError) Unwrap() error { return ErrBadJSON }
