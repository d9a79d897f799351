package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

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
	ok, err := s.join(ctx, p, epoch, gather(b, minNew))
	if taken := new(pgconn.PgError); errors.As(err, &taken) && taken.Code == uniqueViolation {
		// A row is there that should not be, and all was rolled back.
		s.log.Warn("a row that was to be new is there", "partition", p, "detail", taken.Detail)
		ok, err = s.join(ctx, p, epoch, gather(b, len(b.Ops)+1))
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

// minNew is from how many new rows on these are written by a statement of their own: it
// does not look for each whether it is there, which costs as much as writing it, but
// another statement costs something too.
const minNew = 6

// writes is a batch in which no key comes twice: the ranges are deleted first,
// then single rows, then rows are put. fresh are those that are not there.
type writes struct {
	ranges, deletes, puts, fresh columns
	ends, values, freshValues    [][]byte
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

// columns are keys, a slice for each part, as the database takes them.
type columns struct {
	tables          []int16
	entities, sorts [][]byte
}

func newColumns(n int) columns {
	return columns{make([]int16, 0, n), make([][]byte, 0, n), make([][]byte, 0, n)}
}

func (c *columns) add(k storage.Key) {
	c.tables = append(c.tables, int16(k.Table))
	c.entities = append(c.entities, []byte(k.Entity))
	c.sorts = append(c.sorts, []byte(k.Sort))
}

// gather brings a batch into the order of writes, with the same outcome: of
// several operations on a key the last one counts, and what a range deletes that
// comes later is not put at all. New rows are kept apart from minNew on.
func gather(b *storage.Batch, minNew int) *writes {
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
	w := &writes{
		ranges: newColumns(ranges), deletes: newColumns(0), puts: newColumns(len(last)),
		ends: make([][]byte, 0, ranges), values: make([][]byte, 0, len(last)), rows: len(b.Ops),
	}
	for i := range b.Ops {
		o := &b.Ops[i]
		if o.Kind == storage.OpDeleteRange {
			if o.End == "" || o.End > o.Key.Sort {
				w.ranges.add(o.Key)
				w.ends = append(w.ends, rangeEnd(o.End))
			}
			continue
		}
		if at, ok := last[o.Key]; !ok || at != i {
			continue
		}
		if o.Kind == storage.OpDelete {
			w.deletes.add(o.Key)
			continue
		}
		value := o.Value
		if value == nil {
			value = []byte{} // nil would be NULL
		}
		w.bytes += len(value)
		if o.New && fresh >= minNew {
			w.fresh.add(o.Key)
			w.freshValues = append(w.freshValues, value)
			continue
		}
		w.puts.add(o.Key)
		w.values = append(w.values, value)
	}
	return w
}
