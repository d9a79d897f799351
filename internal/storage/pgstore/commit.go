package pgstore

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

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
	w := gather(b)
	var ok bool
	err := s.with(ctx, s.shard(p), func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT hubbub_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
			int32(p), int64(epoch),
			w.ranges.tables, w.ranges.entities, w.ranges.sorts, w.ends,
			w.deletes.tables, w.deletes.entities, w.deletes.sorts,
			w.puts.tables, w.puts.entities, w.puts.sorts, w.values).Scan(&ok)
	})
	if err != nil {
		return op("commit", err)
	}
	if !ok {
		return fmt.Errorf("pgstore: commit to partition %d with epoch %d: %w", p, epoch, storage.ErrFenced)
	}
	return nil
}

// writes is a batch in which no key comes twice: the ranges are deleted first,
// then single rows, then rows are put.
type writes struct {
	ranges, deletes, puts columns
	ends, values          [][]byte
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
// comes later is not put at all.
func gather(b *storage.Batch) *writes {
	last := make(map[storage.Key]int, len(b.Ops))
	ranges := 0
	for i := range b.Ops {
		o := &b.Ops[i]
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
		ends: make([][]byte, 0, ranges), values: make([][]byte, 0, len(last)),
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
		w.puts.add(o.Key)
		value := o.Value
		if value == nil {
			value = []byte{} // nil would be NULL
		}
		w.values = append(w.values, value)
	}
	return w
}
