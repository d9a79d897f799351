package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Commit implements storage.Store.
func (s *Store) Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	if err := b.Check(p); err != nil {
		return op("commit", err)
	}
	ok, err := s.join(ctx, p, epoch, gather(b, false))
	if taken := new(pgconn.PgError); errors.As(err, &taken) && taken.Code == uniqueViolation {
		// A row is there that should not be, and all was rolled back.
		s.log.Warn("a row that was to be new is there", "partition", p, "detail", taken.Detail)
		ok, err = s.join(ctx, p, epoch, gather(b, true))
	}
	if err != nil {
		return op("commit", err)
	}
	if !ok {
		return fmt.Errorf("pgstore: commit to partition %d with epoch %d: %w", p, epoch, storage.ErrFenced)
	}
	return nil
}

// uniqueViolation is PostgreSQL's code for a row whose key is there.
const uniqueViolation = "23505"

// minNew is from how many new rows of a group on these are written by a statement of
// their own: it does not look for each whether it is there, which costs as much as writing
// it, but another statement costs something too.
const minNew = 6

// writes are batches in which no key comes twice: the ranges are deleted first,
// then single rows, then rows are put. fresh are those that are not there.
type writes struct {
	ranges, deletes, puts, fresh columns
	// rows is how many operations there are, bytes the length of the values.
	rows, bytes int
}

// behindAll is behind every sort key.
var behindAll = bytes.Repeat([]byte{0xff}, storage.MaxSort+1)

// rangeEnd is the end of a range: a bound that an index knows what to do with, also
// where the range has no end.
func rangeEnd(end string) []byte {
	if end == "" {
		return behindAll
	}
	return []byte(end)
}

// columns are rows, or ranges, as the database takes them: a slice for each part of the
// key, and one for their values, or ends.
type columns struct {
	partitions               pgtype.FlatArray[int32]
	tables                   pgtype.FlatArray[int16]
	entities, sorts, content pgtype.FlatArray[[]byte]
}

func newColumns(n int) columns {
	return columns{
		make(pgtype.FlatArray[int32], 0, n), make(pgtype.FlatArray[int16], 0, n), make(pgtype.FlatArray[[]byte], 0, n),
		make(pgtype.FlatArray[[]byte], 0, n), make(pgtype.FlatArray[[]byte], 0, n),
	}
}

// add adds a row; content is nil if there is only its key.
func (c *columns) add(k storage.Key, content []byte) {
	c.partitions = append(c.partitions, int32(k.Partition))
	c.tables = append(c.tables, int16(k.Table))
	c.entities = append(c.entities, []byte(k.Entity))
	c.sorts = append(c.sorts, []byte(k.Sort))
	if content != nil {
		c.content = append(c.content, content)
	}
}

func (c *columns) addAll(o *columns) {
	c.partitions = append(c.partitions, o.partitions...)
	c.tables = append(c.tables, o.tables...)
	c.entities = append(c.entities, o.entities...)
	c.sorts = append(c.sorts, o.sorts...)
	c.content = append(c.content, o.content...)
}

func (w *writes) addAll(o *writes) {
	w.ranges.addAll(&o.ranges)
	w.deletes.addAll(&o.deletes)
	w.puts.addAll(&o.puts)
	w.fresh.addAll(&o.fresh)
}

// gather brings a batch into the order of writes, with the same outcome: of
// several operations on a key the last one counts, and what a range deletes that
// comes later is not put at all. New rows are kept apart unless look says that each
// is to be looked for.
func gather(b *storage.Batch, look bool) *writes {
	last := make(map[storage.Key]int, len(b.Ops))
	ranges, fresh := 0, 0
	for i := range b.Ops {
		o := &b.Ops[i]
		if o.New {
			fresh++
		}
		if o.Kind != storage.OpDeleteRange {
			last[o.Key] = i
			continue
		}
		ranges++
		for k := range last {
			if k.Table == o.Key.Table && k.Entity == o.Key.Entity && k.Sort >= o.Key.Sort && (o.End == "" || k.Sort < o.End) {
				delete(last, k)
			}
		}
	}
	w := &writes{ranges: newColumns(ranges), puts: newColumns(max(0, len(last)-fresh)), fresh: newColumns(fresh), rows: len(b.Ops)}
	for i := range b.Ops {
		o := &b.Ops[i]
		if o.Kind == storage.OpDeleteRange {
			if o.End == "" || o.End > o.Key.Sort {
				w.ranges.add(o.Key, rangeEnd(o.End))
			}
			continue
		}
		if at, ok := last[o.Key]; !ok || at != i {
			continue
		}
		if o.Kind == storage.OpDelete {
			w.deletes.add(o.Key, nil)
			continue
		}
		value := o.Value
		if value == nil {
			value = []byte{} // nil would be NULL
		}
		w.bytes += len(value)
		if o.New && !look {
			w.fresh.add(o.Key, value)
		} else {
			w.puts.add(o.Key, value)
		}
	}
	return w
}
