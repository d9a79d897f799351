package room

import (
	"context"
	"fmt"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// A row may be damaged: on the disk, by a faulty restore, by a hand in the database.
// Who shows rooms leaves it out (Tolerant), so that it costs nobody more than itself.
// Who decides does not: what is missing may be the ban. So commands, which pin rows,
// and a Reader as NewReader makes it refuse with errDamaged.
//
// State stands twice, in State and in Timeline. A Reader that finds the one damaged
// shows the other; a pin does not look further, and the room is not changed in that
// place until the row is mended.

// Tolerant returns a Reader that leaves damaged rows out, and tells d of them.
func (r *Reader) Tolerant(d *damage.Log) *Reader { return r.leavingOut(d.Row) }

// leavingOut is Tolerant for any listener.
func (r *Reader) leavingOut(hear func(storage.Key, error)) *Reader {
	n := *r
	n.damaged = hear
	return &n
}

// Strict returns a Reader that refuses where something cannot be read, for those who
// decide by what they read.
func (r *Reader) Strict() *Reader { return r.leavingOut(nil) }

// errDamaged is what a decision gives for which a row is needed that cannot be read.
// It is no 5xx, which clients would repeat for ever.
func errDamaged(cause error) error {
	return merr.New(http.StatusConflict, merr.Unknown, "A part of this room cannot be read, so that this cannot be decided. The server's log says which").
		Because(cause)
}

// unreadable deals with a damaged row: the error is nil if it is left out.
func (r *Reader) unreadable(k storage.Key, cause error) error {
	if r.damaged == nil {
		return errDamaged(cause)
	}
	r.damaged(k, cause)
	return nil
}

// decoding makes the rows that a table's decode cannot read ones that refuse commands.
func decoding(decode func(storage.Key, []byte) (any, error)) func(storage.Key, []byte) (any, error) {
	return func(k storage.Key, row []byte) (any, error) {
		v, err := decode(k, row)
		if err != nil {
			return nil, errDamaged(err)
		}
		return v, nil
	}
}

// decode reads a row of Timeline or State, or the copy of a damaged row of State. It is
// nil for one that is left out.
func (r *Reader) decode(ctx context.Context, k storage.Key, row []byte) (*Stored, error) {
	s, err := decodeAt(k, row)
	if err == nil {
		return s, nil
	}
	if k.Table == tables.State {
		if twin, failed := r.twin(ctx, k); twin != nil || failed != nil {
			if r.damaged != nil {
				r.damaged(k, err)
			}
			return twin, failed
		}
	}
	return nil, r.unreadable(k, err)
}

// decodeAt reads the row at a key. It is an error if it cannot be shown there: if it is
// of another place, if what it replaced does not stand before it, or if its JSON is
// none, which would spoil all of a response.
func decodeAt(k storage.Key, row []byte) (*Stored, error) {
	s, err := DecodeStored(ids.RoomID(k.Entity), row)
	switch {
	case err != nil:
		return nil, err
	case k.Table == tables.Timeline && s.Seq != tables.SortSeq(k.Sort), k.Table == tables.State && !s.isAt(k.Sort):
		return nil, fmt.Errorf("event row: of another place: %w", errRow)
	case s.Seq == 0 || s.Replaces >= s.Seq:
		return nil, fmt.Errorf("event row: what it replaced is not before it: %w", errRow)
	case !s.isJSON(row):
		return nil, fmt.Errorf("event row: no JSON: %w", errRow)
	}
	return s, nil
}

// isAt reports whether a piece of state belongs under a sort key of State.
func (s *Stored) isAt(sort string) bool {
	if s.StateKey == nil || len(sort) != len(s.Type)+1+len(*s.StateKey) {
		return false
	}
	return sort[:len(s.Type)] == s.Type && sort[len(s.Type)] == 0 && sort[len(s.Type)+1:] == *s.StateKey
}

// isJSON reports whether all that is written for clients of the row it was read from is
// JSON.
func (s *Stored) isJSON(row []byte) bool {
	return event.IsOpenObject(row[len(row)-len(s.json):]) && s.Content[0] == '{' &&
		(s.PrevContent == nil || event.IsJSON(s.PrevContent)) && (s.RedactedBy == nil || event.IsJSON(s.RedactedBy))
}

const (
	// twinPage is how many rows one look for a copy takes; twinPages bounds the looks.
	// A piece of state that was set longer ago than so many changes is left out.
	twinPage, twinPages = 1000, 50
)

// twin finds the event in the timeline of which a damaged row of State was a copy, nil
// if it is not found or is damaged too.
func (r *Reader) twin(ctx context.Context, k storage.Key) (*Stored, error) {
	to := ""
	for range twinPages {
		rows, err := r.st.Scan(ctx, storage.Range{
			Partition: k.Partition, Table: tables.StateLog, Entity: k.Entity, To: to, Limit: twinPage, Reverse: true,
		})
		if err != nil {
			return nil, fmt.Errorf("find state: %w", err)
		}
		for _, row := range rows {
			if string(row.Value) == k.Sort {
				return r.twinAt(ctx, k, tables.SortSeq(row.Sort))
			}
		}
		if len(rows) < twinPage {
			return nil, nil
		}
		to = rows[len(rows)-1].Sort
	}
	return nil, nil
}

func (r *Reader) twinAt(ctx context.Context, k storage.Key, at ids.Seq) (*Stored, error) {
	key := k
	key.Table, key.Sort = tables.Timeline, tables.SeqSort(at)
	rows, err := r.st.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if rows[0] == nil {
		return nil, nil
	}
	if s, err := decodeAt(key, rows[0]); err == nil && s.isAt(k.Sort) {
		return s, nil
	}
	return nil, nil
}

// Replaced returns the piece of state that another replaced; nil if it replaced none, or
// one that cannot be read (s.Replaces is not 0 then).
func (r *Reader) Replaced(ctx context.Context, s *Stored) (*Stored, error) {
	if s.Replaces == 0 {
		return nil, nil
	}
	old, err := r.At(ctx, s.RoomID, s.Replaces)
	if err != nil || old == nil {
		return nil, err
	}
	if !old.isOf(s) {
		return nil, r.unreadable(r.Place(s.RoomID).timeline(s.Replaces), fmt.Errorf("event row: other state: %w", errRow))
	}
	return old, nil
}

// isOf reports whether two events are of one piece of state.
func (s *Stored) isOf(o *Stored) bool {
	return s.StateKey != nil && o.StateKey != nil && s.Type == o.Type && *s.StateKey == *o.StateKey
}

// unlistedState returns those of some positions whose event is no state, as the list of
// changes has it: what the event itself says cannot be read.
func (r *Reader) unlistedState(ctx context.Context, p Place, at []ids.Seq) ([]ids.Seq, error) {
	keys := make([]storage.Key, len(at))
	for i, s := range at {
		keys[i] = p.key(tables.StateLog, tables.SeqSort(s))
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read state changes: %w", err)
	}
	var out []ids.Seq
	for i, row := range rows {
		if row == nil {
			out = append(out, at[i])
		}
	}
	return out, nil
}
