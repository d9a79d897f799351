// Package memstore keeps the data in memory: the reference that other backends
// are compared with, and the store of tests. Several nodes in one process share
// it by using the same *Store, as nodes share a database.
//
// Rows live in one B-tree per partition, ordered by table, entity and sort key.
// Each partition has a lock of its own; a commit holds it from the epoch check to
// the last row, so readers see whole batches and no epoch can slip in between.
//
// All methods may be called from any goroutine.
package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// degree is the B-tree's: wide enough that nodes are few, small enough that an
// insertion moves little.
const degree = 32

// Store is a storage.Store in memory.
type Store struct {
	clock clock.Clock

	// mu is held shared by each running call, and by Close to wait for them.
	mu struct {
		sync.RWMutex
		closed bool
	}
	parts struct {
		sync.Mutex
		byID map[ids.Partition]*partition
	}
	metas struct {
		sync.Mutex
		byName map[string][]byte
	}
}

type partition struct {
	mu struct {
		sync.RWMutex
		lease storage.Lease // Node is "" if nobody holds it
		rows  *btree.BTreeG[storage.Row]
	}
}

var _ storage.Store = (*Store)(nil)

// New returns an empty store. Leases expire by the clock.
func New(c clock.Clock) *Store {
	s := &Store{clock: c}
	s.parts.byID = map[ids.Partition]*partition{}
	s.metas.byName = map[string][]byte{}
	return s
}

func less(a, b storage.Row) bool {
	return cmp.Or(
		cmp.Compare(a.Key.Table, b.Key.Table),
		strings.Compare(a.Key.Entity, b.Key.Entity),
		strings.Compare(a.Key.Sort, b.Key.Sort),
	) < 0
}

// begin opens a call; the caller defers s.mu.RUnlock if there is no error.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memstore: %w", err)
	}
	s.mu.RLock()
	if s.mu.closed {
		s.mu.RUnlock()
		return storage.ErrClosed
	}
	return nil
}

func (s *Store) partition(p ids.Partition) *partition {
	s.parts.Lock()
	defer s.parts.Unlock()
	part := s.parts.byID[p]
	if part == nil {
		part = &partition{}
		part.mu.lease.Partition = p
		part.mu.rows = btree.NewG(degree, less)
		s.parts.byID[p] = part
	}
	return part
}

// Acquire implements storage.Store.
func (s *Store) Acquire(ctx context.Context, p ids.Partition, node ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if err := s.begin(ctx); err != nil {
		return storage.Lease{}, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckAcquire(p, node, ttl); err != nil {
		return storage.Lease{}, fmt.Errorf("memstore: acquire: %w", err)
	}
	part := s.partition(p)
	part.mu.Lock()
	defer part.mu.Unlock()
	now, lease := s.clock.Now(), &part.mu.lease
	live := lease.Node != "" && now.Before(lease.Expires)
	if live && lease.Node != node {
		return *lease, fmt.Errorf("memstore: partition %d by %s: %w", p, lease.Node, storage.ErrHeld)
	}
	if !live {
		lease.Epoch++
		lease.Node = node
	}
	lease.Expires = now.Add(ttl)
	return *lease, nil
}

var _ storage.Renewer = (*Store)(nil)

// Renew implements storage.Renewer.
func (s *Store) Renew(ctx context.Context, leases []storage.Lease, ttl time.Duration) []error {
	errs := make([]error, len(leases))
	for i, l := range leases {
		errs[i] = s.renew(ctx, l, ttl)
	}
	return errs
}

func (s *Store) renew(ctx context.Context, l storage.Lease, ttl time.Duration) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckAcquire(l.Partition, l.Node, ttl); err != nil {
		return fmt.Errorf("memstore: renew: %w", err)
	}
	part := s.partition(l.Partition)
	part.mu.Lock()
	defer part.mu.Unlock()
	now, have := s.clock.Now(), &part.mu.lease
	if have.Node != l.Node || have.Epoch != l.Epoch || !now.Before(have.Expires) {
		return fmt.Errorf("memstore: renew lease of partition %d epoch %d, now %d: %w", l.Partition, l.Epoch, have.Epoch, storage.ErrFenced)
	}
	have.Expires = now.Add(ttl)
	return nil
}

// Release implements storage.Store.
func (s *Store) Release(ctx context.Context, l storage.Lease) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	part := s.partition(l.Partition)
	part.mu.Lock()
	defer part.mu.Unlock()
	have := &part.mu.lease
	if have.Node == "" || have.Node != l.Node || have.Epoch != l.Epoch {
		return fmt.Errorf("memstore: release partition %d epoch %d, now %d: %w",
			l.Partition, l.Epoch, have.Epoch, storage.ErrFenced)
	}
	have.Node = ""
	return nil
}

// Commit implements storage.Store.
func (s *Store) Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	if err := b.Check(p); err != nil {
		return fmt.Errorf("memstore: commit: %w", err)
	}
	part := s.partition(p)
	part.mu.Lock()
	defer part.mu.Unlock()
	if epoch == 0 || epoch != part.mu.lease.Epoch {
		return fmt.Errorf("memstore: commit to partition %d with epoch %d, now %d: %w",
			p, epoch, part.mu.lease.Epoch, storage.ErrFenced)
	}
	for i := range b.Ops {
		part.applyLocked(&b.Ops[i])
	}
	return nil
}

func (p *partition) applyLocked(op *storage.Op) {
	switch op.Kind {
	case storage.OpPut:
		p.mu.rows.ReplaceOrInsert(storage.Row{Key: op.Key, Value: clone(op.Value)})
	case storage.OpDelete:
		p.mu.rows.Delete(storage.Row{Key: op.Key})
	case storage.OpDeleteRange:
		var doomed []storage.Row
		p.entityLocked(op.Key, op.End, func(r storage.Row) bool {
			doomed = append(doomed, r)
			return true
		})
		for _, r := range doomed {
			p.mu.rows.Delete(r)
		}
	}
}

// entityLocked calls fn with the rows of from's entity from from to, not
// including, the sort key to ("" for all the rest) until it returns false.
func (p *partition) entityLocked(from storage.Key, to string, fn func(storage.Row) bool) {
	p.mu.rows.AscendGreaterOrEqual(storage.Row{Key: from}, func(r storage.Row) bool {
		if r.Key.Table != from.Table || r.Key.Entity != from.Entity || to != "" && r.Key.Sort >= to {
			return false
		}
		return fn(r)
	})
}

// clone copies a value; the copy is never nil.
func clone(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	var locked []ids.Partition // ascending, so that two calls can't block each other
	for i := range keys {
		if err := keys[i].Check(); err != nil {
			return nil, fmt.Errorf("memstore: get: %w", err)
		}
		locked = append(locked, keys[i].Partition)
	}
	slices.Sort(locked)
	for _, id := range slices.Compact(locked) {
		part := s.partition(id)
		part.mu.RLock()
		defer part.mu.RUnlock()
	}
	out := make([][]byte, len(keys))
	for i := range keys {
		if row, ok := s.partition(keys[i].Partition).mu.rows.Get(storage.Row{Key: keys[i]}); ok {
			out[i] = clone(row.Value)
		}
	}
	return out, nil
}

// Scan implements storage.Store.
func (s *Store) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("memstore: scan: %w", err)
	}
	if r.To != "" && r.To <= r.From {
		return nil, nil
	}
	part := s.partition(r.Partition)
	part.mu.RLock()
	defer part.mu.RUnlock()
	from := storage.Key{Partition: r.Partition, Table: r.Table, Entity: r.Entity, Sort: r.From}
	var out []storage.Entry
	add := func(row storage.Row) bool {
		out = append(out, storage.Entry{Sort: row.Key.Sort, Value: clone(row.Value)})
		return len(out) < r.Limit
	}
	if r.Reverse {
		part.backwardsLocked(from, r.To, add)
	} else {
		part.entityLocked(from, r.To, add)
	}
	return out, nil
}

// backwardsLocked is entityLocked from the last row to the first.
func (p *partition) backwardsLocked(from storage.Key, to string, fn func(storage.Row) bool) {
	end := from
	end.Sort = to
	if to == "" { // the first key behind the entity: no name lies between
		end.Entity += "\x00"
	}
	p.mu.rows.DescendLessOrEqual(storage.Row{Key: end}, func(r storage.Row) bool {
		if r.Key == end { // the end itself is not in the range
			return true
		}
		if r.Key.Table != from.Table || r.Key.Entity != from.Entity || r.Key.Sort < from.Sort {
			return false
		}
		return fn(r)
	})
}

// ScanPartition implements storage.Store. The order is by table, entity, sort.
func (s *Store) ScanPartition(ctx context.Context, after storage.Key, limit int) ([]storage.Row, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckPartitionScan(after, limit); err != nil {
		return nil, fmt.Errorf("memstore: scan partition: %w", err)
	}
	part := s.partition(after.Partition)
	part.mu.RLock()
	defer part.mu.RUnlock()
	var out []storage.Row
	part.mu.rows.AscendGreaterOrEqual(storage.Row{Key: after}, func(r storage.Row) bool {
		if r.Key != after {
			out = append(out, storage.Row{Key: r.Key, Value: clone(r.Value)})
		}
		return len(out) < limit
	})
	return out, nil
}

// InitMeta implements storage.Store.
func (s *Store) InitMeta(ctx context.Context, name string, value []byte) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckMeta(name, value); err != nil {
		return nil, fmt.Errorf("memstore: setting: %w", err)
	}
	s.metas.Lock()
	defer s.metas.Unlock()
	if _, ok := s.metas.byName[name]; !ok {
		s.metas.byName[name] = clone(value)
	}
	return clone(s.metas.byName[name]), nil
}

// Close implements storage.Store. All nodes that share the store lose it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	return nil
}
