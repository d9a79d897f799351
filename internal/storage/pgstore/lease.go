package pgstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// now is the time by which leases expire, nil for the database's own.
func (s *Store) now() *time.Time {
	if s.clock == nil {
		return nil
	}
	t := s.clock.Now()
	return &t
}

// Acquire implements storage.Store.
func (s *Store) Acquire(ctx context.Context, p ids.Partition, node ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if err := s.begin(ctx); err != nil {
		return storage.Lease{}, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckAcquire(p, node, ttl); err != nil {
		return storage.Lease{}, op("acquire", err)
	}
	var ok bool
	var holder []byte
	lease := storage.Lease{Partition: p}
	err := s.located(ctx, acquireWait, func() error {
		return s.again(ctx, s.shard(p), func(ctx context.Context, c *pgxpool.Conn) error {
			var expires pgtype.Timestamptz // infinity, where it has gone
			err := c.QueryRow(ctx, "SELECT ok, node, epoch, expires FROM hubbub_acquire($1, $2, $3, $4)",
				int32(p), []byte(node), ttl, s.now()).Scan(&ok, &holder, &lease.Epoch, &expires)
			if err == nil && string(holder) == movedHolder {
				err = errMoved
			}
			lease.Expires = expires.Time
			return err
		})
	})
	if err != nil {
		return storage.Lease{}, op("acquire", err)
	}
	lease.Node = ids.NodeID(holder)
	if !ok {
		return lease, fmt.Errorf("pgstore: partition %d by %s: %w", p, lease.Node, storage.ErrHeld)
	}
	return lease, nil
}

var _ storage.Renewer = (*Store)(nil)

// Renew implements storage.Renewer: one statement for each database, all at once, so
// that one that is away keeps the leases in the others from nothing.
func (s *Store) Renew(ctx context.Context, leases []storage.Lease, ttl time.Duration) []error {
	errs := make([]error, len(leases))
	fail := func(at []int, err error) {
		for _, i := range at {
			errs[i] = err
		}
	}
	all := make([]int, len(leases))
	by := make(map[int][]int)
	for i, l := range leases {
		all[i] = i
		if err := storage.CheckAcquire(l.Partition, l.Node, ttl); err != nil {
			errs[i] = op("renew", err)
			continue
		}
		shard := s.shard(l.Partition)
		by[shard] = append(by[shard], i)
	}
	if err := s.begin(ctx); err != nil {
		fail(all, err)
		return errs
	}
	defer s.mu.RUnlock()
	var wg sync.WaitGroup
	for shard, at := range by {
		wg.Go(func() {
			held, err := s.renew(ctx, shard, leases, at, ttl)
			if err != nil {
				fail(at, op("renew", err))
				return
			}
			for _, i := range at {
				if !held[leases[i].Partition] {
					errs[i] = fmt.Errorf("pgstore: renew lease of partition %d: %w", leases[i].Partition, storage.ErrFenced)
				}
			}
		})
	}
	wg.Wait()
	return errs
}

// renew renews the leases at some places of a list, which are of one database.
func (s *Store) renew(ctx context.Context, shard int, leases []storage.Lease, at []int, ttl time.Duration) (map[ids.Partition]bool, error) {
	ps, es := make([]int32, len(at)), make([]int64, len(at))
	for n, i := range at {
		ps[n], es[n] = int32(leases[i].Partition), int64(leases[i].Epoch)
	}
	held := make(map[ids.Partition]bool, len(at))
	err := s.again(ctx, shard, func(ctx context.Context, c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, "SELECT hubbub_renew($1, $2, $3, $4, $5)", []byte(leases[at[0]].Node), ps, es, ttl, s.now())
		if err != nil {
			return err
		}
		var p int32
		_, err = pgx.ForEachRow(rows, []any{&p}, func() error {
			held[ids.Partition(p)] = true
			return nil
		})
		return err
	})
	return held, err
}

// Release implements storage.Store.
func (s *Store) Release(ctx context.Context, l storage.Lease) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	var ok bool
	err := s.with(ctx, s.shard(l.Partition), func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT hubbub_release($1, $2, $3)", int32(l.Partition), []byte(l.Node), int64(l.Epoch)).Scan(&ok)
	})
	if err != nil {
		return op("release", err)
	}
	if !ok {
		return fmt.Errorf("pgstore: release partition %d epoch %d: %w", l.Partition, l.Epoch, storage.ErrFenced)
	}
	return nil
}
