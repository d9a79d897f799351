package tables

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// mergeChunk is how many rows of each partition Merge reads at a time: little, as
// a page takes few of each.
const mergeChunk = 32

// Merge walks the names that all partitions list in a table whose entity is "", in
// order, from the first behind after. It reads a few rows of each partition and
// what fn takes, not all there are. fn returns false to end the walk.
func Merge(ctx context.Context, st storage.Store, count int, t storage.Table, after string, fn func(name string) (bool, error)) error {
	from := ""
	if after != "" {
		from = after + "\x00"
	}
	heads := make([]listing, count)
	for p := range heads {
		heads[p] = listing{p: ids.Partition(p), from: from}
		if err := heads[p].fill(ctx, st, t); err != nil {
			return err
		}
	}
	for {
		least := -1
		for i := range heads {
			if len(heads[i].rows) > 0 && (least < 0 || heads[i].rows[0].Sort < heads[least].rows[0].Sort) {
				least = i
			}
		}
		if least < 0 {
			return nil
		}
		l := &heads[least]
		name := l.rows[0].Sort
		if l.rows = l.rows[1:]; len(l.rows) == 0 && !l.done {
			if err := l.fill(ctx, st, t); err != nil {
				return err
			}
		}
		if more, err := fn(name); !more || err != nil {
			return err
		}
	}
}

// listing is what is read of one partition.
type listing struct {
	p    ids.Partition
	from string
	rows []storage.Entry
	done bool
}

func (l *listing) fill(ctx context.Context, st storage.Store, t storage.Table) (err error) {
	l.rows, err = st.Scan(ctx, storage.Range{Partition: l.p, Table: t, From: l.from, Limit: mergeChunk})
	if err != nil {
		return fmt.Errorf("list table %d: %w", t, err)
	}
	if l.done = len(l.rows) < mergeChunk; !l.done {
		l.from = l.rows[len(l.rows)-1].Sort + "\x00"
	}
	return nil
}
