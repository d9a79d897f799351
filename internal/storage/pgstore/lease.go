package pgstore

import (
	"context"
	"fmt"
	"time"

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
	err := s.again(ctx, s.shard(p), func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT ok, node, epoch, expires FROM hubbub_acquire($1, $2, $3, $4)",
			int32(p), []byte(node), ttl, s.now()).Scan(&ok, &holder, &lease.Epoch, &lease.Expires)
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
