package feed

import (
	"context"
	"math"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// maxUnread bounds the events behind a receipt that are counted. Beyond it the
// number stands still, which no badge shows anyway.
const maxUnread = 1000

// counts are a user's unread notifications in a room. They are not stored: they
// follow from the receipt, the events behind it and the push rules, and are
// carried on from sync to sync while the view lives.
type counts struct {
	// fresh: read is the user's present receipt.
	fresh             bool
	read, upTo        ids.Seq
	seen              int
	notify, highlight int
	// push is what the rules ask about the room; nil if it has to be read.
	push *pushContext
	// gen moves when fresh or push is taken back.
	gen uint64
}

// forgetRead makes the receipt be read again.
func (c *counts) forgetRead() { c.fresh, c.gen = false, c.gen+1 }

// forgetPush makes what the push rules ask be read again.
func (c *counts) forgetPush() { c.push, c.gen = nil, c.gen+1 }

// unread brings the counts of a joined room up to a position.
func (v *view) unread(ctx context.Context, r *roomState, upTo ids.Seq) (counts, error) {
	v.mu.Lock()
	c := counts{}
	if ur := v.mu.rooms[r.id]; ur != nil {
		c = ur.counts
	}
	program := v.mu.program
	v.mu.Unlock()
	if c.fresh && c.upTo >= upTo {
		return c, nil
	}
	if !c.fresh {
		read, err := v.hub.rooms.ReadUpTo(ctx, r.id, v.user)
		if err != nil {
			return c, err
		}
		// What was sent before is no news to who has just joined.
		read = max(read, r.joined)
		if read != c.read || c.upTo == 0 || c.upTo > upTo {
			c = counts{read: read, upTo: read, push: c.push, gen: c.gen}
		}
		c.fresh = true
	}
	if c.upTo < upTo && c.seen < maxUnread {
		if err := v.count(ctx, r.id, &c, program, upTo); err != nil {
			return c, err
		}
	}
	c.upTo = max(c.upTo, upTo) // beyond the bound nothing is counted, which is known
	v.mu.Lock()
	defer v.mu.Unlock()
	// Keep what came meanwhile: a receipt, or counts that are further on.
	if ur := v.mu.rooms[r.id]; ur != nil && ur.counts.gen == c.gen && (!ur.counts.fresh || ur.counts.upTo <= c.upTo) {
		ur.counts = c
	}
	return c, nil
}

func (v *view) count(ctx context.Context, id ids.RoomID, c *counts, program *pushrules.Program, upTo ids.Seq) error {
	events, err := v.hub.rooms.Timeline(ctx, id, room.Page{After: c.upTo, UpTo: upTo, Limit: maxUnread - c.seen})
	if err != nil {
		return err
	}
	if len(events) > 0 && c.push == nil {
		if c.push, err = v.pushContext(ctx, id); err != nil {
			return err
		}
	}
	infos := make(map[ids.UserID]*pushrules.RoomInfo)
	for _, s := range events {
		info := infos[s.Sender]
		if info == nil {
			info = c.push.room.info(s.Sender)
			infos[s.Sender] = info
		}
		out, ok := program.Evaluate(newPushEvent(s), info, c.push.displayName)
		if ok && out.Notify && !v.ignores(s.Sender) {
			c.notify++
			if out.Highlight {
				c.highlight++
			}
		}
	}
	c.seen += len(events)
	return nil
}

// pushContext is what push rules ask about a room, for one user.
type pushContext struct {
	room        *roomPush
	displayName string
}

// roomPush is what push rules ask about a room, whoever asks. The views of its
// members share it. It does not change.
type roomPush struct {
	members int
	powers  roomstate.Powers
	levels  map[string]int64
}

func (v *view) pushContext(ctx context.Context, id ids.RoomID) (*pushContext, error) {
	shared, err := v.hub.shardOf(string(id)).roomPush(ctx, id)
	if err != nil {
		return nil, err
	}
	p := &pushContext{room: shared}
	m, err := v.hub.rooms.StateEvent(ctx, id, event.TypeMember, string(v.user))
	if m != nil {
		p.displayName = m.Member().DisplayName
	}
	return p, err
}

// roomPush returns what the audience of a room shares, reading it if need be.
func (s *shard) roomPush(ctx context.Context, id ids.RoomID) (*roomPush, error) {
	s.mu.Lock()
	a := s.mu.rooms[id]
	var gen uint64
	if a != nil {
		if a.push != nil {
			defer s.mu.Unlock()
			return a.push, nil
		}
		gen = a.gen
	}
	s.mu.Unlock()
	p, err := s.hub.readRoomPush(ctx, id)
	if err != nil || a == nil {
		return p, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.gen == gen {
		a.push = p
	}
	return p, nil
}

func (h *Hub) readRoomPush(ctx context.Context, id ids.RoomID) (*roomPush, error) {
	p := &roomPush{}
	head, err := h.rooms.Head(ctx, id)
	if err != nil || head == nil {
		return p, err
	}
	p.members = head.Joined
	err = h.rooms.Ask(ctx, id, func(st roomstate.View) {
		p.powers = roomstate.PowersOf(head.Version, st)
		if pl := st.State(event.TypePowerLevels, ""); pl != nil {
			if levels, err := pl.PowerLevels(); err == nil {
				p.levels = levels.Notifications
			}
		}
	})
	return p, err
}

// forgetPush makes what push rules ask be read again.
func (a *audience) forgetPush() { a.push, a.gen = nil, a.gen+1 }

// changesPush reports whether a record, whose live form is l, may change what push
// rules ask about its room.
func changesPush(r *partition.Record, l *live) bool {
	return r.Kind == partition.RecordEvent && l == nil
}

// info is what push rules ask about an event of a sender.
func (p *roomPush) info(sender ids.UserID) *pushrules.RoomInfo {
	power := p.powers.Of(sender)
	info := &pushrules.RoomInfo{Members: p.members, SenderPower: int64(power), NotificationPower: p.levels}
	if power == roomstate.Infinite {
		info.SenderPower = math.MaxInt64
	}
	return info
}

func newPushEvent(s *room.Stored) *pushrules.Event {
	return pushrules.NewEvent(pushrules.Fields{
		ID: s.ID, Room: s.RoomID, Sender: s.Sender, Type: s.Type, StateKey: s.StateKey,
		OriginServerTS: s.OriginServerTS, Content: s.Content,
	})
}
