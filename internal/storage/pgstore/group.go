package pgstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// manyRows is from how many rows on a commit goes with its like: a message, which has
	// a few, does not wait for those of the search index and of imports.
	manyRows = 32
	// maxGroup bounds the commits in one transaction, and groupBytes what they write, so
	// that none waits for long behind others.
	maxGroup   = 64
	groupBytes = 1 << 20
	// lockTimeout is how long a transaction waits for a partition whose lease is being
	// taken, or which is being moved, before the others go on without it; slowGroup how
	// long whoever comes next waits for a transaction. Both take longer than what is in
	// order, so that only a partition in trouble is left to itself.
	lockTimeout = "250ms"
	slowGroup   = 500 * time.Millisecond
)

// groups gathers commits to partitions of one database that come at the same time. One
// transaction of a node runs at a time, and one more of commits with many rows; what
// comes meanwhile shares the next: a transaction costs the database, and the node, more
// than the rows of a message do.
//
// They go in one transaction and one round trip, a statement for each, which looks
// itself whether its epoch still holds and writes nothing if not. So one that is
// fenced keeps none of the others from being written; what the database refuses, or
// waits for, is rolled back for all, and each is tried alone. Statements come in the
// order of their partitions: each waits for whoever takes the lease of its own, and two
// transactions that hold some and want others could wait for each other.
type groups struct {
	mu struct {
		sync.Mutex
		queue   []*commit
		running bool
	}
}

// commit is one commit on its way.
type commit struct {
	p     ids.Partition
	epoch ids.Epoch
	*writes
	// ok and err are set before done is closed: whether the epoch held.
	ok   bool
	err  error
	done chan struct{}
}

// join commits with whoever else does. The outcome is not known if the context ends.
func (s *Store) join(ctx context.Context, p ids.Partition, epoch ids.Epoch, w *writes) (ok bool, err error) {
	c := &commit{p: p, epoch: s.fence(ctx, p, epoch), writes: w, done: make(chan struct{})}
	shard := s.shard(p)
	g := &s.shards[shard].few
	if w.rows >= manyRows {
		g = &s.shards[shard].many
	}
	g.mu.Lock()
	g.mu.queue = append(g.mu.queue, c)
	if !g.mu.running {
		g.mu.running = true
		s.background.Go(func() { s.runGroups(shard, g) })
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.ok, c.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// runGroups commits one group after another until nobody waits.
func (s *Store) runGroups(shard int, g *groups) {
	slow := time.NewTimer(s.slow)
	defer slow.Stop()
	for {
		list := g.next()
		if len(list) == 0 {
			return
		}
		ended := make(chan struct{})
		s.background.Go(func() {
			defer close(ended)
			s.commitGroup(shard, list)
		})
		slow.Reset(s.slow)
		select {
		case <-ended:
		case <-slow.C:
		}
	}
}

// next takes the next group; with none, whoever asks is done.
func (g *groups) next() []*commit {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < min(len(g.mu.queue), maxGroup) && (n == 0 || size+g.mu.queue[n].bytes <= groupBytes) {
		size += g.mu.queue[n].bytes
		n++
	}
	if n == 0 {
		g.mu.running = false
		return nil
	}
	list := slices.Clone(g.mu.queue[:n])
	g.mu.queue = slices.Delete(g.mu.queue, 0, n)
	slices.SortStableFunc(list, func(a, b *commit) int { return cmp.Compare(a.p, b.p) })
	return list
}

// commitGroup commits all. It does not wait for those that have to be tried alone.
func (s *Store) commitGroup(shard int, list []*commit) {
	if len(list) == 1 {
		s.commitAlone(shard, list[0])
		return
	}
	ctx := context.Background() // not that of any caller: it belongs to many
	err := s.with(ctx, shard, func(ctx context.Context, c *pgxpool.Conn) error { return write(ctx, c, list) })
	refused := errors.As(err, new(*pgconn.PgError)) && !errors.Is(err, ErrAway)
	for _, c := range list {
		if refused {
			s.background.Go(func() { s.commitAlone(shard, c) })
			continue
		}
		c.ok, c.err = c.ok && err == nil, err
		close(c.done)
	}
}

func (s *Store) commitAlone(shard int, c *commit) {
	c.err = s.with(context.Background(), shard, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, writeStatement, c.arguments()...).Scan(&c.ok)
	})
	close(c.done)
}

// write sends all in one transaction: the database ends it behind the last of statements
// that come together, and only then tells that it is written.
func write(ctx context.Context, conn *pgxpool.Conn, list []*commit) error {
	var b pgx.Batch
	b.Queue("SELECT set_config('lock_timeout', $1, true)", lockTimeout)
	for _, c := range list {
		b.Queue(writeStatement, c.arguments()...)
	}
	results := conn.SendBatch(ctx, &b)
	_, err := results.Exec()
	for i := 0; i < len(list) && err == nil; i++ {
		err = results.QueryRow().Scan(&list[i].ok)
	}
	if end := results.Close(); err == nil {
		err = end
	}
	return err
}

const writeStatement = "SELECT hubbub_write($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"

func (c *commit) arguments() []any {
	w := c.writes
	return []any{
		int32(c.p), int64(c.epoch),
		w.ranges.tables, w.ranges.entities, w.ranges.sorts, w.ends,
		w.deletes.tables, w.deletes.entities, w.deletes.sorts,
		w.puts.tables, w.puts.entities, w.puts.sorts, w.values,
		w.fresh.tables, w.fresh.entities, w.fresh.sorts, w.freshValues,
	}
}
