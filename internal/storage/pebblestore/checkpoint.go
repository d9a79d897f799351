package pebblestore

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Checkpoint makes a copy of the store in a directory that does not exist yet:
// everything that was answered before the call, of all partitions at one moment.
// Open opens it as after a crash. Tables are hard links where the directory is on
// the store's file system, and it should be: commits wait while the copy is made,
// since a log that is written while it is copied could not be told from a damaged
// one. What fails in the copy does not fail the store.
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	// What stands in the log is copied; so leave little there. Nobody waits yet.
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("pebblestore: checkpoint: %w", err)
	}
	select {
	case <-flushed:
	case <-s.failure.done:
		return s.failure.Err()
	case <-ctx.Done():
		return fmt.Errorf("pebblestore: checkpoint: %w", ctx.Err())
	}
	r := s.newRequest(kindCheckpoint)
	r.name = dir
	if err := s.submit(ctx, r); err != nil {
		return err
	}
	err = r.err
	s.recycle(r)
	return err
}

// checkpoint runs in the apply loop, so that nothing is written meanwhile.
func (s *Store) checkpoint(dir string) error {
	if err := s.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("pebblestore: checkpoint: %w", damaged(err))
	}
	return nil
}

// Meta returns a setting of the deployment, nil if there is none.
func (s *Store) Meta(ctx context.Context, name string) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	if err := storage.CheckMeta(name, nil); err != nil {
		return nil, fmt.Errorf("pebblestore: setting: %w", err)
	}
	v := s.views.acquire()
	defer s.views.release(v)
	value, err := get(v.snap, metaKey(name))
	if err != nil {
		return nil, fmt.Errorf("pebblestore: read setting %q: %w", name, damaged(err))
	}
	return value, nil
}
