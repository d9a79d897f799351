package pgstore

import (
	"context"
	"maps"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// lastReads gathers who asks one database for the last rows of partitions: while one
// statement is on its way, all who come wait for the next, which begins after they
// asked and so sees what they have to see. However many ask, one connection is in use.
type lastReads struct {
	mu struct {
		sync.Mutex
		running bool
		next    *lastRead
	}
}

// lastRead is one statement, and who waits for it.
type lastRead struct {
	wanted map[lastKey]map[ids.Partition]string
	// moved are partitions that are not in the database.
	moved map[ids.Partition]bool
	done  chan struct{}
	err   error // set before done is closed
}

// lastKey is what is asked for in each partition.
type lastKey struct {
	table  storage.Table
	entity string
}

var _ storage.LastReader = (*Store)(nil)

// Last implements storage.LastReader: one statement for each database.
func (s *Store) Last(ctx context.Context, t storage.Table, entity string, ps ...ids.Partition) ([]string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	for _, p := range ps {
		if err := (storage.Key{Partition: p, Table: t, Entity: entity}).Check(); err != nil {
			return nil, op("last", err)
		}
	}
	out := make([]string, len(ps))
	err := s.located(ctx, moveWait, func() error { return s.lastOf(ctx, lastKey{t, entity}, ps, out) })
	if err != nil {
		return nil, op("last", err)
	}
	return out, nil
}

func (s *Store) lastOf(ctx context.Context, key lastKey, ps []ids.Partition, out []string) error {
	by := make(map[int][]ids.Partition, 1)
	for _, p := range ps {
		shard := s.shard(p)
		by[shard] = append(by[shard], p)
	}
	found := make(map[ids.Partition]string, len(ps))
	reads := make([]*lastRead, 0, len(by))
	for shard, list := range by {
		reads = append(reads, s.joinLast(shard, key, list))
	}
	for _, r := range reads {
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.err != nil {
			return r.err
		}
		maps.Copy(found, r.wanted[key])
	}
	for i, p := range ps {
		for _, r := range reads {
			if _, asked := r.wanted[key][p]; asked && r.moved[p] {
				return errMoved
			}
		}
		out[i] = found[p]
	}
	return nil
}

// joinLast adds to the next statement to a database, and sees to it that there is one.
func (s *Store) joinLast(shard int, key lastKey, ps []ids.Partition) *lastRead {
	l := &s.shards[shard].last
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.mu.next
	if r == nil {
		r = &lastRead{wanted: make(map[lastKey]map[ids.Partition]string, 1), done: make(chan struct{})}
		l.mu.next = r
	}
	want := r.wanted[key]
	if want == nil {
		want = make(map[ids.Partition]string, len(ps))
		r.wanted[key] = want
	}
	for _, p := range ps {
		want[p] = ""
	}
	if !l.mu.running {
		l.mu.running = true
		s.background.Go(func() { s.runLast(shard) })
	}
	return r
}

// runLast runs one statement after another until nobody waits.
func (s *Store) runLast(shard int) {
	l := &s.shards[shard].last
	for {
		l.mu.Lock()
		r := l.mu.next
		l.mu.next, l.mu.running = nil, r != nil
		l.mu.Unlock()
		if r == nil {
			return
		}
		r.err = s.readLast(shard, r)
		close(r.done)
	}
}

// readLast is for all who wait, so not with the context of one of them.
func (s *Store) readLast(shard int, r *lastRead) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	return s.again(ctx, shard, func(ctx context.Context, c *pgxpool.Conn) error {
		r.moved = make(map[ids.Partition]bool)
		for key, want := range r.wanted {
			if err := r.read(ctx, c, key, want); err != nil {
				return err
			}
		}
		return nil
	})
}

const lastStatement = `SELECT k.p, (SELECT r.sort FROM hubbub_row r
WHERE r.partition = k.p AND r.tbl = $1 AND r.entity = $2 ORDER BY r.sort DESC LIMIT 1)
FROM unnest($3::int[]) AS k(p)
UNION ALL SELECT -1 - w.partition, NULL FROM hubbub_place w WHERE w.partition = ANY($3::int[]) AND w.state >= 2`

func (r *lastRead) read(ctx context.Context, c *pgxpool.Conn, key lastKey, want map[ids.Partition]string) error {
	ps := make([]int32, 0, len(want))
	for p := range want {
		ps = append(ps, int32(p))
	}
	rows, err := c.Query(ctx, lastStatement, int16(key.table), []byte(key.entity), ps)
	if err != nil {
		return err
	}
	var p int32
	var sort []byte
	_, err = pgx.ForEachRow(rows, []any{&p, &sort}, func() error {
		if p < 0 {
			r.moved[ids.Partition(-1-p)] = true
			return nil
		}
		want[ids.Partition(p)] = string(sort)
		return nil
	})
	return err
}
