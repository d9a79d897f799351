package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Where the partitions are stands in the databases: the first spread, which their
// number fixed when the deployment was created, and the moves since. A node keeps a
// map of it in memory. Nothing rests on the map being new: a database that does not
// have a partition says so to who reads it there, and refuses its commits, since a
// partition that left has another epoch and in its new place a higher one. Then the
// node reads the map anew.

// placeState is what a database says of a partition that was moved.
type placeState int16

// The states of hubbub_place. Nobody but who moves it reads a partition from
// placeComing on.
const (
	placeHere placeState = iota
	placeLeaving
	placeComing
	placeGone
)

// movedHolder holds the lease of a partition where it no longer is. No node has this
// name.
const movedHolder = "hubbub:moved"

// errMoved: the database does not have the partition.
var errMoved = errors.New("pgstore: the partition is in another database")

// Times of a call that meets a partition while it changes its database, which takes
// some hundred milliseconds.
const (
	moveWait = 3 * time.Second
	// acquireWait is that of who takes a lease, and has others to look after: a move
	// that was interrupted can last.
	acquireWait  = 500 * time.Millisecond
	movePauseMin = 5 * time.Millisecond
	movePauseMax = 100 * time.Millisecond
	moveRetry    = time.Second
)

// places is a map of where the partitions are.
type places struct {
	// shards are the databases by partition; spread is their number at first.
	shards []int
	spread int
}

// shard is the database of a partition, as far as this node knows.
func (s *Store) shard(p ids.Partition) int {
	if m := s.places.Load(); int(p) < len(m.shards) {
		return m.shards[p]
	}
	return 0 // no such partition is anywhere
}

// placeRow is what a database says of a partition.
type placeRow struct {
	shard      int
	generation int64
	state      placeState
	other      int
}

// readPlaces reads the map from all databases.
func (s *Store) readPlaces(ctx context.Context, spread int) (*places, error) {
	rows := make(map[ids.Partition][]placeRow)
	for i := range s.shards {
		err := s.again(ctx, i, func(ctx context.Context, c *pgxpool.Conn) error {
			found, err := c.Query(ctx, "SELECT partition, generation, state, other FROM hubbub_place")
			if err != nil {
				return err
			}
			var p int32
			r := placeRow{shard: i}
			_, err = pgx.ForEachRow(found, []any{&p, &r.generation, &r.state, &r.other}, func() error {
				rows[ids.Partition(p)] = append(rows[ids.Partition(p)], r)
				return nil
			})
			return err
		})
		if err != nil {
			return nil, op("places", err)
		}
	}
	m := &places{shards: make([]int, ids.MaxPartitions), spread: spread}
	for p := range m.shards {
		shard, err := resolve(rows[ids.Partition(p)], p%spread, len(s.shards))
		if err != nil {
			return nil, fmt.Errorf("pgstore: partition %d: %w", p, err)
		}
		m.shards[p] = shard
	}
	return m, nil
}

// resolve says in which of count databases a partition is: the last that says so, or
// that of the first spread. While it changes its database none has it, and which one
// is asked does not matter.
func resolve(rows []placeRow, first, count int) (int, error) {
	at, last := first, int64(-1)
	for _, r := range rows {
		if r.state < placeComing && r.generation > last {
			at, last = r.shard, r.generation
		}
	}
	for _, r := range rows {
		if r.state == placeGone && r.generation > last && r.other >= count {
			return 0, fmt.Errorf("it is in database %d, which the configuration does not name", r.other+1)
		}
	}
	return at, nil
}

// refresh reads the map anew, unless somebody did since it was old.
func (s *Store) refresh(ctx context.Context, old *places) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	if s.places.Load() != old {
		return nil
	}
	m, err := s.readPlaces(ctx, old.spread)
	if err == nil {
		s.places.Store(m)
	}
	return err
}

// located runs a call until it meets the partitions where they are. run gives errMoved
// where one is not. After a while it gives up.
func (s *Store) located(ctx context.Context, wait time.Duration, run func() error) error {
	end := time.Now().Add(wait)
	for pause := movePauseMin; ; pause = min(2*pause, movePauseMax) {
		seen := s.places.Load()
		err := run()
		if !errors.Is(err, errMoved) {
			return err
		}
		if err := s.refresh(ctx, seen); err != nil {
			return err
		}
		if time.Now().After(end) {
			return merr.UnavailableErr(moveRetry, "This part of the server is moving, try again").Because(err)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
