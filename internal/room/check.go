package room

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Checked counts what Check looked at.
type Checked struct {
	Rooms, Events, Problems int
}

// checkPage is how many rows Check reads at a time.
const checkPage = 500

// Check proves that no room of a store was altered: every event's ID is its hash, with
// its position or without, each names the one before it, the head names the last, the
// state is a copy of events, and all of it, the receipts too, can be read. It tells
// report of each problem in a line. The store must be at rest.
func Check(ctx context.Context, st storage.Store, count int, report func(string)) (Checked, error) {
	c := &checker{report: report}
	c.r = NewReader(st, count).leavingOut(c.damaged)
	for p := range count {
		rooms := storage.Range{Partition: ids.Partition(p), Table: tables.Rooms, Limit: checkPage}
		err := storage.Each(ctx, st, rooms, func(row storage.Entry) (more bool, err error) {
			return true, c.room(ctx, ids.RoomID(row.Sort))
		})
		if err != nil {
			return c.Checked, fmt.Errorf("check rooms: %w", err)
		}
	}
	return c.Checked, nil
}

type checker struct {
	Checked
	r      *Reader
	report func(string)
}

func (c *checker) problem(room ids.RoomID, format string, args ...any) {
	c.Problems++
	c.report(fmt.Sprintf("room %s: ", room) + fmt.Sprintf(format, args...))
}

// damaged hears of rows that cannot be read.
func (c *checker) damaged(k storage.Key, cause error) {
	room := ids.RoomID(k.Entity)
	switch k.Table {
	case tables.Timeline:
		c.problem(room, "event at %d: %v", tables.SortSeq(k.Sort), cause)
	case tables.State, tables.Receipt:
		c.problem(room, "row %q of table %d: %v", k.Sort, k.Table, cause)
	default:
		c.problem(room, "row of table %d: %v", k.Table, cause)
	}
}

func (c *checker) room(ctx context.Context, id ids.RoomID) error {
	c.Rooms++
	head, err := c.r.Head(ctx, id)
	if err != nil {
		return err
	}
	if head == nil {
		c.problem(id, "it is listed and has no head")
		return nil
	}
	if err := errors.Join(c.state(ctx, id), c.receipts(ctx, id)); err != nil {
		return err
	}
	var prev *Stored
	for after := ids.Seq(0); ; {
		page, err := c.r.Timeline(ctx, id, Page{After: after, UpTo: head.Last, Limit: checkPage})
		if err != nil {
			return err
		}
		for _, s := range page {
			c.event(head, prev, s)
			prev, after = s, s.Seq
		}
		if len(page) < checkPage {
			break
		}
	}
	if prev == nil || prev.ID != head.LastEvent {
		c.problem(id, "the last event is not the head's %s", head.LastEvent)
	}
	return nil
}

// state checks that each piece of state is a copy of its event.
func (c *checker) state(ctx context.Context, id ids.RoomID) error {
	var failed error
	err := c.r.WalkState(ctx, id, "", func(s *Stored) bool {
		var e *Stored
		if e, failed = c.r.At(ctx, id, s.Seq); failed != nil {
			return false
		}
		if e == nil || !bytes.Equal(e.encode(), s.encode()) {
			c.problem(id, "state %s: it is not the event at %d", s.ID, s.Seq)
		}
		return true
	})
	return errors.Join(err, failed)
}

func (c *checker) receipts(ctx context.Context, id ids.RoomID) error {
	p := c.r.Place(id)
	err := storage.Each(ctx, c.r.st, storage.Range{
		Partition: p.Partition, Table: tables.Receipt, Entity: string(id), Limit: checkPage,
	}, func(row storage.Entry) (more bool, err error) {
		if _, err := DecodeReceipt(row.Sort, row.Value); err != nil {
			c.damaged(p.key(tables.Receipt, row.Sort), err)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("read receipts: %w", err)
	}
	return nil
}

func (c *checker) event(head *Head, prev, s *Stored) {
	c.Events++
	err := s.Full().Verify(head.Version, s.Seq)
	if errors.Is(err, event.ErrContentHash) && s.RedactedBy != nil {
		err = nil // a redaction took the content away, and it should have
	}
	if err != nil {
		c.problem(head.RoomID, "event %s at %d: %v", s.ID, s.Seq, err)
	}
	switch {
	case s.Seq <= head.Purged: // what is left there is state, and no chain
	case head.Purged != 0 && (prev == nil || prev.Seq <= head.Purged) && len(s.PrevEvents) == 1 && s.PrevEvents[0] == head.PurgedEvent:
	case prev == nil && len(s.PrevEvents) == 0:
	case prev != nil && len(s.PrevEvents) == 1 && s.PrevEvents[0] == prev.ID:
	default:
		c.problem(head.RoomID, "event %s at %d does not follow the one before it", s.ID, s.Seq)
	}
}
