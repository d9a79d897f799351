package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// lookup are the keys of one Get that are in one database.
type lookup struct {
	at   []int32 // their places in the call
	keys columns
}

// Get implements storage.Store. Keys of several partitions in one database are
// read by one statement.
func (s *Store) Get(ctx context.Context, keys ...storage.Key) (out [][]byte, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	for _, k := range keys {
		if err := k.Check(); err != nil {
			return nil, op("get", err)
		}
	}
	err = s.located(ctx, moveWait, func() error {
		out = make([][]byte, len(keys))
		return s.get(ctx, keys, out)
	})
	if err != nil {
		return nil, op("get", err)
	}
	return out, nil
}

func (s *Store) get(ctx context.Context, keys []storage.Key, out [][]byte) error {
	by := make(map[int]*lookup)
	for i, k := range keys {
		shard := s.shard(k.Partition)
		l := by[shard]
		if l == nil {
			l = &lookup{}
			by[shard] = l
		}
		l.at = append(l.at, int32(i))
		l.keys.add(k, nil)
	}
	for shard, l := range by {
		if err := s.again(ctx, shard, func(ctx context.Context, c *pgxpool.Conn) error { return l.read(ctx, c, out) }); err != nil {
			return err
		}
	}
	return nil
}

// getStatement finds key by key, where a join would leave it to the planner whether to
// read the whole table. Like the other statements that read, it ends with a row that
// could not be there if a partition is not.
const getStatement = `SELECT k.at, (
	SELECT r.value FROM hubbub_row r WHERE r.partition = k.partition AND r.tbl = k.tbl AND r.entity = k.entity AND r.sort = k.sort
) FROM unnest($1::int[], $2::int[], $3::smallint[], $4::bytea[], $5::bytea[]) AS k(at, partition, tbl, entity, sort)
UNION ALL SELECT -1, NULL FROM hubbub_place w WHERE w.partition = ANY($2::int[]) AND w.state >= 2`

func (l *lookup) read(ctx context.Context, c *pgxpool.Conn, out [][]byte) error {
	rows, err := c.Query(ctx, getStatement, l.at, l.keys.partitions, l.keys.tables, l.keys.entities, l.keys.sorts)
	if err != nil {
		return err
	}
	var at int32
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&at, &value}, func() error {
		if at < 0 {
			return errMoved
		}
		out[at] = value
		value = nil
		return nil
	})
	return err
}

// scanStatement reads a range; the end comes as NULL for all the rest.
const (
	scanStatement = `(SELECT sort, value FROM hubbub_row
WHERE partition = $1 AND tbl = $2 AND entity = $3 AND sort >= $4 AND ($5::bytea IS NULL OR sort < $5) ORDER BY sort `
	scanEnd = `LIMIT $6) UNION ALL SELECT NULL, NULL FROM hubbub_place w WHERE w.partition = $1 AND w.state >= 2`
)

// Scan implements storage.Store.
func (s *Store) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := r.Check(); err != nil {
		return nil, op("scan", err)
	}
	if r.To != "" && r.To <= r.From {
		return nil, nil
	}
	statement := scanStatement + scanEnd
	if r.Reverse {
		statement = scanStatement + "DESC " + scanEnd
	}
	var to []byte
	if r.To != "" {
		to = []byte(r.To)
	}
	var out []storage.Entry
	err := s.located(ctx, moveWait, func() error {
		return s.again(ctx, s.shard(r.Partition), func(ctx context.Context, c *pgxpool.Conn) error {
			out = nil // of a try that failed
			rows, err := c.Query(ctx, statement, int32(r.Partition), int16(r.Table), []byte(r.Entity), []byte(r.From), to, r.Limit)
			if err != nil {
				return err
			}
			var sort, value []byte
			_, err = pgx.ForEachRow(rows, []any{&sort, &value}, func() error {
				if sort == nil {
					return errMoved
				}
				out = append(out, storage.Entry{Sort: string(sort), Value: value})
				value = nil
				return nil
			})
			return err
		})
	})
	if err != nil {
		return nil, op("scan", err)
	}
	return out, nil
}

// ScanPartition implements storage.Store. The order is by table, entity, sort.
func (s *Store) ScanPartition(ctx context.Context, after storage.Key, limit int) ([]storage.Row, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckPartitionScan(after, limit); err != nil {
		return nil, op("scan partition", err)
	}
	var out []storage.Row
	err := s.located(ctx, moveWait, func() error {
		return s.again(ctx, s.shard(after.Partition), func(ctx context.Context, c *pgxpool.Conn) (err error) {
			out, err = scanPartition(ctx, c, scanPartitionStatement+scanPartitionEnd, after, limit)
			return err
		})
	})
	if err != nil {
		return nil, op("scan partition", err)
	}
	return out, nil
}

const (
	scanPartitionStatement = `(SELECT tbl, entity, sort, value FROM hubbub_row
WHERE partition = $1 AND (tbl, entity, sort) > ($2, $3, $4) ORDER BY tbl, entity, sort LIMIT $5)`
	scanPartitionEnd = ` UNION ALL SELECT NULL, NULL, NULL, NULL FROM hubbub_place w WHERE w.partition = $1 AND w.state >= 2`
)

// querier is a connection, of a pool or not.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func scanPartition(ctx context.Context, c querier, statement string, after storage.Key, limit int) ([]storage.Row, error) {
	rows, err := c.Query(ctx, statement,
		int32(after.Partition), int16(after.Table), []byte(after.Entity), []byte(after.Sort), limit)
	if err != nil {
		return nil, err
	}
	var out []storage.Row
	var table *int16
	var entity, sort, value []byte
	_, err = pgx.ForEachRow(rows, []any{&table, &entity, &sort, &value}, func() error {
		if table == nil {
			return errMoved
		}
		out = append(out, storage.Row{
			Key: storage.Key{
				Partition: after.Partition, Table: storage.Table(*table), Entity: string(entity), Sort: string(sort),
			},
			Value: value,
		})
		value = nil
		return nil
	})
	return out, err
}
