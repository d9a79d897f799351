package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// view is a snapshot with a count of its users. An open snapshot keeps
// overwritten rows from being dropped, so none stays long.
type view struct {
	snap *pebble.Snapshot
	uses atomic.Int64
}

// views holds the view of everything that is durable, and the snapshots that
// nobody uses any more. Its goroutine closes those: Pebble's Snapshot.Close waits
// for a write to the manifest that is under way, and no reader should.
type views struct {
	mu struct {
		sync.Mutex
		current *view
		unused  []*pebble.Snapshot // at most those of one such write
	}
	wake chan struct{} // holds a value if there may be some in unused
	done chan struct{} // closed when the goroutine has ended
}

func newViews() *views {
	return &views{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// closeLoop ends after close.
func (v *views) closeLoop() {
	defer close(v.done)
	for range v.wake {
		v.mu.Lock()
		unused := v.mu.unused
		v.mu.unused = nil
		v.mu.Unlock()
		for _, snap := range unused {
			_ = snap.Close() // it has no error to give
		}
	}
}

// publish replaces the current view. Open calls it first, then the sync loop.
func (v *views) publish(snap *pebble.Snapshot) {
	next := &view{snap: snap}
	next.uses.Store(1)
	v.mu.Lock()
	last := v.mu.current
	v.mu.current = next
	v.mu.Unlock()
	if last != nil {
		v.release(last)
	}
}

func (v *views) acquire() *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.current.uses.Add(1)
	return v.mu.current
}

func (v *views) release(w *view) {
	if w.uses.Add(-1) > 0 {
		return
	}
	v.mu.Lock()
	v.mu.unused = append(v.mu.unused, w.snap)
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// close gives the current view up and waits for all snapshots to be closed.
// Nobody may use the views any more.
func (v *views) close() {
	v.release(v.mu.current)
	close(v.wake)
	<-v.done
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	for i := range keys {
		if err := keys[i].Check(); err != nil {
			return nil, fmt.Errorf("pebblestore: get: %w", err)
		}
	}
	v := s.views.acquire()
	defer s.views.release(v)
	out := make([][]byte, len(keys))
	var buf [128]byte // most keys fit
	for i := range keys {
		value, err := get(v.snap, appendKey(buf[:0], &keys[i]))
		if err != nil {
			return nil, fmt.Errorf("pebblestore: get: %w", damaged(err))
		}
		out[i] = value
	}
	return out, nil
}

// Scan implements storage.Store.
func (s *Store) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("pebblestore: scan: %w", err)
	}
	if r.To != "" && r.To <= r.From {
		return nil, nil
	}
	from := storage.Key{Partition: r.Partition, Table: r.Table, Entity: r.Entity, Sort: r.From}
	lower := appendKey(nil, &from)
	prefix := len(lower) - len(r.From)
	var out []storage.Entry
	err := s.iterate(ctx, lower, appendEnd(nil, &from, r.To), r.Reverse, func(key, value []byte) (bool, error) {
		out = append(out, storage.Entry{Sort: string(key[prefix:]), Value: clone(value)})
		return len(out) < r.Limit, nil
	})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: scan: %w", damaged(err))
	}
	return out, nil
}

// ScanPartition implements storage.Store. The order is by table, entity, sort.
func (s *Store) ScanPartition(ctx context.Context, after storage.Key, limit int) ([]storage.Row, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	if err := storage.CheckPartitionScan(after, limit); err != nil {
		return nil, fmt.Errorf("pebblestore: scan partition: %w", err)
	}
	lower := binary.BigEndian.AppendUint16(nil, uint16(after.Partition))
	if after.Table != 0 {
		lower = append(appendKey(nil, &after), 0) // the first key behind it
	}
	upper := binary.BigEndian.AppendUint16(nil, uint16(after.Partition)+1)
	var out []storage.Row
	err := s.iterate(ctx, lower, upper, false, func(key, value []byte) (bool, error) {
		k, err := parseKey(key)
		if err != nil {
			return false, err
		}
		out = append(out, storage.Row{Key: k, Value: clone(value)})
		return len(out) < limit, nil
	})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: scan partition: %w", damaged(err))
	}
	return out, nil
}

// clone copies a value; the copy is never nil.
func clone(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// iterate calls fn with the rows from lower to upper until it returns false. key
// and value are good until fn returns.
func (s *Store) iterate(ctx context.Context, lower, upper []byte, reverse bool,
	fn func(key, value []byte) (bool, error),
) (err error) {
	v := s.views.acquire()
	defer s.views.release(v)
	iter, err := v.snap.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	first, next := iter.First, iter.Next
	if reverse {
		first, next = iter.Last, iter.Prev
	}
	for ok := first(); ok; ok = next() {
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if more, err := fn(iter.Key(), value); !more || err != nil {
			return err
		}
	}
	return nil // Close returns what stopped the iterator
}
