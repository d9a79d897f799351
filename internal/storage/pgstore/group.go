package pgstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
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
	// goodGroup is how many commits make a transaction cheap for each; one that had some
	// and not that many is followed by a pause of gatherTime, less than the transaction
	// takes, in which further ones come. Where they come one at a time, none waits.
	goodGroup  = 16
	gatherTime = 2 * time.Millisecond
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
// They go in one call of a function, which looks whether all their epochs still hold and
// writes nothing if not. What it refuses, and what the database refuses or waits for,
// is tried alone. The locks are taken in the order of the partitions: each waits for
// whoever takes the lease of its own, and two transactions that hold some and want others
// could wait for each other.
type groups struct {
	mu struct {
		sync.Mutex
		queue   []*commit
		running bool
	}
	// enough is told when goodGroup commits wait.
	enough chan struct{}
}

func newGroups() *groups { return &groups{enough: make(chan struct{}, 1)} }

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
	g := s.shards[shard].few
	if w.rows >= manyRows {
		g = s.shards[shard].many
	}
	g.mu.Lock()
	g.mu.queue = append(g.mu.queue, c)
	if len(g.mu.queue) == goodGroup {
		select {
		case g.enough <- struct{}{}:
		default:
		}
	}
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
			if len(list) > 1 && len(list) < goodGroup {
				g.gather()
			}
		case <-slow.C:
		}
	}
}

// gather waits for more commits.
func (g *groups) gather() {
	g.mu.Lock()
	n := len(g.mu.queue)
	select {
	case <-g.enough: // of a group before
	default:
	}
	g.mu.Unlock()
	if n >= goodGroup {
		return
	}
	t := time.NewTimer(gatherTime)
	defer t.Stop()
	select {
	case <-g.enough:
	case <-t.C:
	}
}

// next takes the next group, in the order of partitions and of each no more than one; with
// none, whoever asks is done.
func (g *groups) next() []*commit {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.queue) == 0 {
		g.mu.running = false
		return nil
	}
	size := 0
	var list, rest []*commit
	for _, c := range g.mu.queue {
		at, twice := slices.BinarySearchFunc(list, c, func(a, b *commit) int { return cmp.Compare(a.p, b.p) })
		if twice || len(list) == maxGroup || len(list) > 0 && size+c.bytes > groupBytes {
			rest = append(rest, c)
			continue
		}
		size += c.bytes
		list = slices.Insert(list, at, c)
	}
	g.mu.queue = rest
	return list
}

// commitGroup commits all. It does not wait for those that have to be tried alone.
func (s *Store) commitGroup(shard int, list []*commit) {
	wait := ""
	if len(list) > 1 {
		wait = lockTimeout
	}
	ok, args := false, arguments(wait, list)
	// The context is not that of any caller: it belongs to many.
	err := s.with(context.Background(), shard, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, writeStatement, args...).Scan(&ok)
	})
	refused := err == nil && !ok || errors.As(err, new(*pgconn.PgError)) && !errors.Is(err, ErrAway)
	for _, c := range list {
		if refused && len(list) > 1 {
			s.background.Go(func() { s.commitGroup(shard, []*commit{c}) })
			continue
		}
		c.ok, c.err = ok, err
		close(c.done)
	}
}

const writeStatement = "SELECT hubbub_write_group(" +
	"$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"

func arguments(wait string, list []*commit) []any {
	var w writes
	ps, es := make(pgtype.FlatArray[int32], len(list)), make(pgtype.FlatArray[int64], len(list))
	for i, c := range list {
		ps[i], es[i] = int32(c.p), int64(c.epoch)
		w.addAll(c.writes)
	}
	if len(w.fresh.tables) < minNew {
		w.puts.addAll(&w.fresh)
		w.fresh = columns{}
	}
	args := []any{wait, ps, es}
	for _, c := range []*columns{&w.ranges, &w.deletes, &w.puts, &w.fresh} {
		args = append(args, c.partitions, c.tables, c.entities, c.sorts)
		if c != &w.deletes {
			args = append(args, c.content)
		}
	}
	return args
}
