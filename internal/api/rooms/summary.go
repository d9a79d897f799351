package rooms

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// summary is what is told of a room to those who are not in it. spec:
// client-server §Room summaries, RoomSummary.
type summary struct {
	publicRoom
	Version    string       `json:"room_version"`
	Encryption string       `json:"encryption,omitempty"`
	Allowed    []ids.RoomID `json:"allowed_room_ids,omitempty"`

	// membership is the asking user's.
	membership event.Membership
}

// summarise reads the summary of a room for a user, "" for one who is not known.
// It is nil if there is no room.
func (m *Module) summarise(ctx context.Context, id ids.RoomID, user ids.UserID) (*summary, error) {
	head, err := m.Rooms.Head(ctx, id)
	if err != nil || head == nil {
		return nil, err
	}
	keys := append(listedState(), room.StateKey{Type: event.TypeEncryption})
	if user != "" {
		keys = append(keys, room.StateKey{Type: event.TypeMember, Key: string(user)})
	}
	list, err := m.Rooms.StateEvents(ctx, id, keys...)
	if err != nil {
		return nil, err
	}
	s := &summary{Version: head.Version.ID}
	s.RoomID, s.Joined, s.JoinRule = id, head.Joined, string(event.JoinRuleInvite)
	for _, e := range list {
		if e == nil {
			continue
		}
		s.fill(e)
		switch e.Type {
		case event.TypeJoinRules:
			if rules := e.JoinRules(); restricted(rules.Rule) {
				s.Allowed = rules.AllowRooms
			}
		case event.TypeEncryption:
			s.Encryption, _ = event.StringField(e.Content, "algorithm")
		case event.TypeMember:
			s.membership = e.Member().Membership
		}
	}
	return s, nil
}

func restricted(rule event.JoinRule) bool {
	return rule == event.JoinRuleRestricted || rule == event.JoinRuleKnockRestricted
}

// open reports whether anyone may know of the room. spec: client-server
// §GET /room_summary/{roomIdOrAlias}, unauthenticated access.
func (s *summary) open() bool {
	switch event.JoinRule(s.JoinRule) {
	case event.JoinRulePublic, event.JoinRuleKnock, event.JoinRuleKnockRestricted:
		return true
	}
	return s.WorldReadable
}

// shownTo reports whether a room may be shown to the user it was summarised for.
// spec: client-server §GET /rooms/{roomId}/hierarchy, rooms.
func (m *Module) shownTo(ctx context.Context, s *summary, user ids.UserID) (bool, error) {
	switch {
	case s.membership == event.Join, s.membership == event.Invite, s.WorldReadable:
		return true, nil
	case s.membership == event.Ban:
		return false, nil // has no permission to join, whatever the rule
	case s.open():
		return true, nil
	}
	return m.Rooms.InAny(ctx, user, s.Allowed)
}

type summaryAnswer struct {
	*summary
	Membership event.Membership `json:"membership,omitempty"`
	// OldVersion and OldEncryption are the names of MSC3266.
	OldVersion    string `json:"im.nheko.summary.room_version,omitempty"`
	OldEncryption string `json:"im.nheko.summary.encryption,omitempty"`
}

// summary: spec client-server §GET /room_summary/{roomIdOrAlias}. A room that is
// none of the caller's business is not told from one that does not exist.
func (m *Module) summary(r *api.Request) (any, error) {
	id, err := m.resolve(r, "roomIdOrAlias")
	if err != nil {
		return nil, err
	}
	s, err := m.summarise(r.Context, id, r.Caller.User)
	if err != nil {
		return nil, err
	}
	shown := s != nil && s.open() // also to whoever logs out for it
	if s != nil && !shown && r.Caller.User != "" {
		if shown, err = m.shownTo(r.Context, s, r.Caller.User); err != nil {
			return nil, err
		}
	}
	if !shown {
		return nil, merr.NotFoundErr("There is no such room that you may know of")
	}
	a := summaryAnswer{summary: s, OldVersion: s.Version, OldEncryption: s.Encryption}
	if r.Caller.User != "" {
		if a.Membership = s.membership; a.Membership == event.NoMembership {
			a.Membership = event.Leave
		}
	}
	return a, nil
}
