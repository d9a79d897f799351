package admin

import (
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// maxExpired bounds how far the expired events of a room are counted.
const maxExpired = 10_000

type retentionAnswer struct {
	Room ids.RoomID `json:"room_id"`
	// Lifetime is how long events are kept, in ms.
	Lifetime int64 `json:"lifetime_ms"`
	// Expired counts those that are to be removed, up to maxExpired.
	Expired int `json:"expired"`
}

// retention is the dry run of what is removed by itself: which rooms lose how many
// events when it is next looked. It removes nothing.
func (m *Module) retention(r *api.Request) (any, error) {
	p, err := page(r)
	if err != nil {
		return nil, err
	}
	out := []retentionAnswer{}
	next, _, err := m.list(r.Context, tables.Rooms, &p, func(name string) (bool, error) {
		id := ids.RoomID(name)
		h, err := m.Rooms.Head(r.Context, id)
		if err != nil || h == nil || m.Retention.Lifetime(h) == 0 {
			return false, err
		}
		if p.skip > 0 {
			p.skip--
			return true, nil
		}
		n, _, err := m.Purges.Expired(r.Context, m.Retention, id, maxExpired)
		out = append(out, retentionAnswer{id, m.Retention.Lifetime(h), n})
		return true, err
	}, func() int { return len(out) })
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"enabled": m.Retention.Enabled, "rooms": out}
	if next != "" {
		answer["next_token"] = next
	}
	return answer, nil
}
