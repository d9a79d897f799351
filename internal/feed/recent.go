package feed

import (
	"context"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// recentRecords is how many records of its partition a shard remembers: some seconds of
// a busy one, and a client asks again within milliseconds. It bounds what that takes:
// a kilobyte or two for each, of all rooms together.
const recentRecords = 128

// recent are the last records of a partition, so that what has just been handed out need
// not be read to be told to those who ask for it.
type recent struct {
	// ring has them by their positions, modulo its length; nil before the first.
	ring []recentRecord
	// first is from where on all are there, up to what the shard has processed.
	first ids.Seq
}

// recentRecord is what is kept of a record of a room, nothing of others: obj, a
// *room.Stored or a *room.Receipt, is nil if it is not known, of a room that nobody here
// was in, or if events were removed.
type recentRecord struct {
	entity string
	obj    any
}

// add takes the record that follows those there are. known: its obj is kept.
func (c *recent) add(r *partition.Record, known bool) {
	if c.ring == nil {
		c.ring, c.first = make([]recentRecord, recentRecords), r.Seq
	}
	var k recentRecord
	switch r.Kind {
	case partition.RecordEvent, partition.RecordReceipt, partition.RecordTrimmed:
		k.entity = r.Entity
		if known {
			k.obj = r.Obj
		}
	}
	c.ring[r.Seq%recentRecords] = k
	c.first = max(c.first, r.Seq-min(r.Seq, recentRecords-1))
}

// forget forgets all; s is the last position that was passed over or processed.
func (c *recent) forget(s ids.Seq) {
	clear(c.ring)
	c.first = s + 1
}

// each calls fn with what happened in a room behind after, up to upTo, oldest first. It
// reports false if that is not known, or has been changed since: by a redaction, or
// because it was removed.
func (s *shard) each(r ids.RoomID, after, upTo ids.Seq, fn func(seq ids.Seq, obj any)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.mu.recent
	if c.ring == nil || after+1 < c.first || upTo > s.mu.processed {
		return false
	}
	for seq := after + 1; seq <= s.mu.processed; seq++ {
		k := &c.ring[seq%recentRecords]
		if k.entity != string(r) {
			continue
		}
		e, isEvent := k.obj.(*room.Stored)
		if k.obj == nil || isEvent && (e.Type == event.TypeRedaction || s.hub.rooms.MayHide(e)) {
			return false
		}
		if seq <= upTo {
			fn(seq, k.obj)
		}
	}
	return true
}

// eventsOf returns the events of a room between two positions, oldest first, if they are
// known.
func (h *Hub) eventsOf(r ids.RoomID, after, upTo ids.Seq) (out []*room.Stored, known bool) {
	known = h.shardOf(string(r)).each(r, after, upTo, func(_ ids.Seq, obj any) {
		if e, ok := obj.(*room.Stored); ok {
			out = append(out, e)
		}
	})
	return out, known
}

// newest returns the newest events of a room behind after, up to upTo, newest first, at
// most limit.
func (h *Hub) newest(ctx context.Context, r ids.RoomID, after, upTo ids.Seq, limit int) ([]*room.Stored, error) {
	list, known := h.eventsOf(r, after, upTo)
	if !known {
		return h.rooms.Timeline(ctx, r, room.Page{After: after, UpTo: upTo, Limit: limit, Newest: true})
	}
	slices.Reverse(list)
	return list[:min(len(list), limit)], nil
}

// stateChanges is Reader.StateChanges.
func (h *Hub) stateChanges(ctx context.Context, r ids.RoomID, after, upTo ids.Seq, limit int) (changed []*room.Stored, more bool, err error) {
	list, known := h.eventsOf(r, after, upTo)
	if !known {
		return h.rooms.StateChanges(ctx, r, after, upTo, limit)
	}
	for i, e := range list {
		later := func(l *room.Stored) bool { return l.StateKey != nil && l.Is(e.Type, *e.StateKey) }
		if e.StateKey != nil && !slices.ContainsFunc(list[i+1:], later) {
			changed = append(changed, e)
		}
	}
	if len(changed) > limit {
		return nil, true, nil
	}
	return changed, false, nil
}

// receipts is Reader.Receipts.
func (h *Hub) receipts(ctx context.Context, r ids.RoomID, after, upTo ids.Seq, limit int) ([]*room.Receipt, error) {
	type slot struct {
		user          ids.UserID
		typ, inThread string
	}
	last := make(map[slot]ids.Seq)
	var list []*room.Receipt
	known := h.shardOf(string(r)).each(r, after, upTo, func(seq ids.Seq, obj any) {
		if rc, ok := obj.(*room.Receipt); ok {
			last[slot{rc.User, rc.Type, rc.Thread}] = rc.Changed
			list = append(list, rc)
		}
	})
	if !known {
		return h.rooms.Receipts(ctx, r, after, upTo, limit)
	}
	list = slices.DeleteFunc(list, func(rc *room.Receipt) bool { return last[slot{rc.User, rc.Type, rc.Thread}] != rc.Changed })
	return list[max(0, len(list)-limit):], nil
}
