package purge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// roomsPage is how many rooms one read of a list takes.
const roomsPage = 200

// Retention is what the server removes by itself, and how often it looks.
type Retention struct {
	room.Retention
	Every time.Duration
	// Media is how long media is kept, 0 for ever.
	Media time.Duration
	// DeleteMedia removes media created before a time in ms since 1970.
	DeleteMedia func(ctx context.Context, before int64) error
}

// retain removes what has expired, again and again.
func (s *Service) retain(p Retention) {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.sweep(s.ctx, p); err != nil && s.ctx.Err() == nil {
			s.opts.Log.Warn("remove what has expired", "error", err)
		}
	}
}

// sweep looks at the rooms of this node, one after another: it is in no hurry, as
// what has expired is not shown any more. A room in which nothing can be removed keeps
// nothing from being removed in the others; the error is that of the first.
func (s *Service) sweep(ctx context.Context, p Retention) error {
	var failed error
	for n := range s.opts.Count {
		part := ids.Partition(n)
		if !s.opts.Owner.Owns(part) {
			continue
		}
		rooms := storage.Range{Partition: part, Table: tables.Rooms, Limit: roomsPage}
		err := storage.Each(ctx, s.opts.Store, rooms, func(row storage.Entry) (more bool, err error) {
			err = s.expire(ctx, p, ids.RoomID(row.Sort))
			if ctx.Err() != nil {
				return false, err
			}
			if err != nil && failed == nil {
				failed = fmt.Errorf("room %s: %w", row.Sort, err)
			}
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("look through rooms: %w", err)
		}
	}
	// One node does it for all.
	if p.Media > 0 && p.DeleteMedia != nil && s.opts.Owner.Owns(0) {
		return errors.Join(failed, p.DeleteMedia(ctx, s.opts.Clock.Now().Add(-p.Media).UnixMilli()))
	}
	return failed
}

func (s *Service) expire(ctx context.Context, p Retention, r ids.RoomID) error {
	n, before, err := s.Expired(ctx, p.Retention, r, 1)
	if err != nil || n == 0 {
		return err
	}
	_, err = s.trimRoom(ctx, room.Trim{Room: r, UpTo: 1 << 62, Before: before})
	return err
}

// Expired counts the events of a room that a policy lets go of, up to limit, and
// says before which time, in ms since 1970, they were sent.
func (s *Service) Expired(ctx context.Context, p room.Retention, r ids.RoomID, limit int) (n int, before int64, err error) {
	h, err := s.opts.Rooms.Head(ctx, r)
	if err != nil || h == nil {
		return 0, 0, err
	}
	life := p.Lifetime(h)
	if life == 0 {
		return 0, 0, nil
	}
	before = s.opts.Clock.Now().UnixMilli() - life
	for after := h.Purged; ; {
		page, err := s.opts.Rooms.Timeline(ctx, r, room.Page{After: after, UpTo: h.Last - 1, Limit: roomsPage})
		if err != nil {
			return n, before, err
		}
		for _, e := range page {
			if e.OriginServerTS >= before || n == limit {
				return n, before, nil
			}
			if e.StateKey == nil {
				n++
			}
			after = e.Seq
		}
		if len(page) < roomsPage {
			return n, before, nil
		}
	}
}
