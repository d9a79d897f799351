package rooms

import (
	"slices"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// initialSync: spec client-server §GET /rooms/{roomId}/initialSync, by which a room is
// looked into before it is joined. Clients ask it of rooms they are in too. The
// specification knows no limit, but clients send one.
func (m *Module) initialSync(r *api.Request) (any, error) {
	limit, err := r.QueryInt("limit", defaultMessages, 1, maxMessages)
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	w := &walk{reading: v, back: true, filter: &feed.EventFilter{}, limit: int(limit), pos: v.until, stop: feed.PageStart}
	more, err := m.page(r.Context, w)
	if err != nil {
		return nil, err
	}
	slices.Reverse(w.chunk)
	b := event.AppendString([]byte(`{"room_id":`), string(v.id))
	if v.access.Membership != event.NoMembership {
		b = event.AppendString(append(b, `,"membership":`...), string(v.access.Membership))
	}
	b = event.AppendString(append(b, `,"visibility":`...), visibility(v.access.Head))
	b = v.appendEvents(append(b, `,"messages":{"chunk":`...), w.chunk)
	if more {
		b = event.AppendString(append(b, `,"start":`...), feed.PageToken(w.pos))
	}
	b = event.AppendString(append(b, `,"end":`...), feed.PageToken(v.until))
	all, err := m.Accounts.AllData(r.Context, r.Caller.User, v.id)
	if err != nil {
		return nil, err
	}
	var data []byte
	for _, d := range all {
		if !d.Deleted {
			data = feed.AppendDataEvent(data, d.Type, d.Content)
		}
	}
	b = append(append(append(b, `},"account_data":[`...), data...), `],"state":[`...)
	list := api.NewLongList(string(b))
	err = m.Rooms.WalkStateUpTo(r.Context, v.id, v.until, room.StateOptions{}, func(s *room.Stored) {
		list.Add(func(b []byte) []byte { return v.appendEvent(b, s) })
	})
	if err != nil {
		return nil, err
	}
	return list.End("]}"), nil
}

// visibility is how the published room directory calls it whether it lists a room.
func visibility(h *room.Head) string {
	if h.Public {
		return "public"
	}
	return "private"
}
