package feed

import (
	"context"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
)

// addOther adds a room that the user is not in: invited, knocking, or gone. c is
// what changed since the client looked, nil in an initial sync.
func (s *syncer) addOther(ctx context.Context, r *roomState, c *account.Change) error {
	m, err := s.h.accounts.Membership(ctx, s.v.user, r.id)
	if err != nil || m == nil {
		return err
	}
	switch r.membership {
	case event.Invite:
		if !s.v.hidesInvite(m.Sender) {
			addRoom(&s.out.invite, r.id, strippedSection("invite_state", m.Stripped))
			return nil
		}
		if c == nil || c.Prev != event.Join {
			return nil
		}
		end, err := s.beforeInvite(ctx, r)
		if err != nil || end == nil {
			return err
		}
		return s.addLeft(ctx, end, c, false)
	case event.Knock:
		addRoom(&s.out.knock, r.id, strippedSection("knock_state", m.Stripped))
	default:
		if c == nil && (m.Forgotten || !s.req.Filter.Room.IncludeLeave) {
			return nil
		}
		return s.addLeft(ctx, r, c, m.Forgotten)
	}
	return nil
}

// beforeInvite returns a room as it was for the user before they got an invite that they
// are not shown, nil if that cannot be read: a client that knows them in the room has to
// hear that they are not in it any more.
func (s *syncer) beforeInvite(ctx context.Context, r *roomState) (*roomState, error) {
	invite, err := s.h.rooms.At(ctx, r.id, r.roomSeq)
	if err != nil || invite == nil {
		return nil, err
	}
	own, err := s.h.rooms.Replaced(ctx, invite)
	if err != nil || own == nil {
		return nil, err
	}
	end := *r
	end.membership, end.roomSeq = own.Member().Membership, own.Seq
	return &end, nil
}

func strippedSection(name string, stripped jsontext.Value) []byte {
	if stripped == nil {
		stripped = jsontext.Value("[]")
	}
	b := append([]byte(`{"`), name...)
	b = append(append(b, `":{"events":`...), stripped...)
	return append(b, `}}`...)
}

// addLeft adds a room the user has left: what happened up to then.
//
// A forgotten room has no past to show. But a client that knows it as joined or
// invited has to hear that it ended, or would list it for ever: another of the
// user's devices may have left and forgotten it. So it gets the leaving alone.
func (s *syncer) addLeft(ctx context.Context, r *roomState, c *account.Change, forgotten bool) error {
	if forgotten && (c.Prev == event.NoMembership || c.Prev == event.Leave || c.Prev == event.Ban) {
		return nil
	}
	a, err := s.h.rooms.Access(ctx, r.id, s.v.user)
	if err != nil || a == nil {
		return err
	}
	sec := &section{s: s, r: r, to: r.roomSeq, access: a, fresh: c == nil, limit: s.timelineLimit(c == nil)}
	if c != nil {
		sec.from = s.since.At[r.p]
	}
	if c != nil && sec.from >= sec.to {
		if c.Prev == event.Join {
			return nil // was told when the room knew and the list of rooms did not
		}
		// An invite that was declined or withdrawn, a knock: one's own event has
		// not been shown, however far the client is in other rooms.
		sec.from = sec.to - 1
	}
	if forgotten {
		sec.from = sec.to - 1
	}
	if err := sec.readTimeline(ctx); err != nil {
		return err
	}
	if a.WasJoined() && !forgotten {
		if err := sec.readState(ctx); err != nil {
			return err
		}
	}
	if err := sec.bundle(ctx); err != nil {
		return err
	}
	b := sec.appendTimeline([]byte{'{'})
	b = sec.appendState(b)
	b = append(b, `,"account_data":{"events":[]}}`...)
	addRoom(&s.out.leave, r.id, b)
	return nil
}

// selectFields reduces an event to the fields a filter names, in dotted paths.
// spec: client-server §Filtering, event_fields.
func selectFields(raw []byte, fields []string) []byte {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(raw, &all); err != nil {
		return raw
	}
	out := make(map[string]any)
	for _, f := range fields {
		pick(out, all, splitField(f))
	}
	b, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		return raw
	}
	return b
}

// splitField splits at dots that no backslash stands before.
func splitField(f string) []string {
	var parts []string
	var part []byte
	for i := 0; i < len(f); i++ {
		switch {
		case f[i] == '\\' && i+1 < len(f) && (f[i+1] == '.' || f[i+1] == '\\'):
			i++
			part = append(part, f[i])
		case f[i] == '.':
			parts, part = append(parts, string(part)), nil
		default:
			part = append(part, f[i])
		}
	}
	return append(parts, string(part))
}

func pick(out map[string]any, in map[string]jsontext.Value, path []string) {
	v, ok := in[path[0]]
	if !ok {
		return
	}
	if len(path) == 1 {
		out[path[0]] = v
		return
	}
	var inner map[string]jsontext.Value
	if err := json.Unmarshal(v, &inner); err != nil {
		return
	}
	sub, ok := out[path[0]].(map[string]any)
	if !ok {
		if _, whole := out[path[0]]; whole {
			return
		}
		sub = make(map[string]any)
	}
	pick(sub, inner, path[1:])
	if len(sub) > 0 {
		out[path[0]] = sub
	}
}
