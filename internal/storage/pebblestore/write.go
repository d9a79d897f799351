package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// maxGroup bounds the bytes of a group in bytes: what comes later can go with the
// next one, which is prepared while this one is synced.
const maxGroup = 4 << 20

type requestKind uint8

const (
	kindCommit requestKind = iota + 1
	kindAcquire
	kindRenew
	kindRelease
	kindMeta
	kindCheckpoint
)

// request travels from its caller through both loops and back. Until it is sent
// the caller owns it, then the loops do, and after done the caller again.
type request struct {
	kind  requestKind
	batch *pebble.Batch // kindCommit; nil if there is nothing to write
	lease storage.Lease // the arguments; for kindAcquire also the result
	ttl   time.Duration
	// leases are those of a kindRenew, and errs the outcome of each, which may be known
	// before.
	leases []storage.Lease
	errs   []error
	name   string // of the setting, or the directory of a checkpoint
	value  []byte // of the setting; also the result
	err    error
	done   chan struct{} // one value, when the result is durable
}

// group is a number of requests that become durable together.
type group struct {
	batch    *pebble.Batch    // nil if nothing is written
	snap     *pebble.Snapshot // nil if nothing was applied
	requests []*request
}

// Commit implements storage.Store. A context that ends while the commit is on
// its way leaves the outcome unknown.
func (s *Store) Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	if err := b.Check(p); err != nil {
		return fmt.Errorf("pebblestore: commit: %w", err)
	}
	r := s.newRequest(kindCommit)
	r.lease.Partition, r.lease.Epoch = p, epoch
	if len(b.Ops) > 0 {
		batch, err := s.encode(b)
		if err != nil {
			return fmt.Errorf("pebblestore: commit: %w", err)
		}
		r.batch = batch
	}
	if err := s.submit(ctx, r); err != nil {
		return err
	}
	err := r.err
	s.recycle(r)
	return err
}

// Acquire implements storage.Store.
func (s *Store) Acquire(ctx context.Context, p ids.Partition, node ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	if err := s.begin(ctx); err != nil {
		return storage.Lease{}, err
	}
	defer s.calls.RUnlock()
	if err := storage.CheckAcquire(p, node, ttl); err != nil {
		return storage.Lease{}, fmt.Errorf("pebblestore: acquire: %w", err)
	}
	r := s.newRequest(kindAcquire)
	r.lease.Partition, r.lease.Node, r.ttl = p, node, ttl
	if err := s.submit(ctx, r); err != nil {
		return storage.Lease{}, err
	}
	lease, err := r.lease, r.err
	s.recycle(r)
	return lease, err
}

var _ storage.Renewer = (*Store)(nil)

// Renew implements storage.Renewer. All go in one request: on a disk that takes long to
// sync, leases that wait for one group each would run out before the last is renewed.
func (s *Store) Renew(ctx context.Context, leases []storage.Lease, ttl time.Duration) []error {
	if err := s.begin(ctx); err != nil {
		return slices.Repeat([]error{err}, len(leases))
	}
	defer s.calls.RUnlock()
	r := s.newRequest(kindRenew)
	// A copy: when the context ends, the request is still on its way.
	r.leases, r.errs, r.ttl = slices.Clone(leases), make([]error, len(leases)), ttl
	for i, l := range leases {
		if err := storage.CheckAcquire(l.Partition, l.Node, ttl); err != nil {
			r.errs[i] = fmt.Errorf("pebblestore: renew: %w", err)
		}
	}
	if err := s.submit(ctx, r); err != nil {
		return slices.Repeat([]error{err}, len(leases))
	}
	errs := r.errs
	s.recycle(r)
	return errs
}

// Release implements storage.Store.
func (s *Store) Release(ctx context.Context, l storage.Lease) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.calls.RUnlock()
	r := s.newRequest(kindRelease)
	r.lease = l
	if err := s.submit(ctx, r); err != nil {
		return err
	}
	err := r.err
	s.recycle(r)
	return err
}

// InitMeta implements storage.Store.
func (s *Store) InitMeta(ctx context.Context, name string, value []byte) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.calls.RUnlock()
	if err := storage.CheckMeta(name, value); err != nil {
		return nil, fmt.Errorf("pebblestore: setting: %w", err)
	}
	r := s.newRequest(kindMeta)
	r.name, r.value = name, append([]byte{}, value...)
	if err := s.submit(ctx, r); err != nil {
		return nil, err
	}
	value, err := r.value, r.err
	s.recycle(r)
	return value, err
}

func (s *Store) newRequest(k requestKind) *request {
	r := s.pool.Get().(*request)
	r.kind = k
	return r
}

func (s *Store) recycle(r *request) {
	*r = request{done: r.done}
	s.pool.Put(r)
}

// submit hands the request over and waits for its answer, which is in the
// request if there is no error. With an error the request is lost to the loops.
func (s *Store) submit(ctx context.Context, r *request) error {
	select {
	case s.requests <- r:
	case <-s.failure.done:
		return s.failure.Err()
	case <-ctx.Done():
		return fmt.Errorf("pebblestore: not started: %w", ctx.Err())
	}
	select {
	case <-r.done:
		return nil
	case <-s.failure.done:
		return s.failure.Err()
	case <-ctx.Done():
		return fmt.Errorf("pebblestore: outcome unknown: %w", ctx.Err())
	}
}

// encode copies a batch into one of Pebble's.
func (s *Store) encode(b *storage.Batch) (*pebble.Batch, error) {
	size := 0
	for i := range b.Ops {
		const header = 16 // kind and lengths, about
		size += keyLen(&b.Ops[i].Key) + len(b.Ops[i].End) + len(b.Ops[i].Value) + header
	}
	out := s.db.NewBatchWithSize(size)
	for i := range b.Ops {
		op := &b.Ops[i]
		switch op.Kind {
		case storage.OpPut:
			d := out.SetDeferred(keyLen(&op.Key), len(op.Value))
			appendKey(d.Key[:0], &op.Key)
			copy(d.Value, op.Value)
			if err := d.Finish(); err != nil {
				return nil, err
			}
		case storage.OpDelete:
			d := out.DeleteDeferred(keyLen(&op.Key))
			appendKey(d.Key[:0], &op.Key)
			if err := d.Finish(); err != nil {
				return nil, err
			}
		case storage.OpDeleteRange:
			if op.End != "" && op.End <= op.Key.Sort {
				continue
			}
			if err := out.DeleteRange(appendKey(nil, &op.Key), appendEnd(nil, &op.Key, op.End), nil); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// applyLoop owns the ledger and is the only one that writes to Pebble. It ends
// when requests is closed, or at a failure, which also answers all callers.
func (s *Store) applyLoop(led *ledger) {
	defer s.loops.Done()
	defer close(s.syncing)
	for first := range s.requests {
		g := &group{}
		if err := s.gather(led, g, first); err != nil {
			s.failure.set(err)
			return
		}
		if g.batch != nil && g.batch.Count() > 0 {
			if err := s.db.ApplyNoSyncWait(g.batch, pebble.Sync); err != nil {
				s.failure.set(fmt.Errorf("apply: %w", err))
				return
			}
			g.snap = s.db.NewSnapshot()
			s.counters.groups.Add(1)
		}
		select {
		case s.syncing <- g:
		case <-s.failure.done:
			return
		}
	}
}

// gather adds the first request and what else is waiting.
func (s *Store) gather(led *ledger, g *group, first *request) error {
	if err := s.admit(led, g, first); err != nil {
		return err
	}
	for g.batch == nil || g.batch.Len() < maxGroup {
		select {
		case r, ok := <-s.requests:
			if !ok {
				return nil // the loop finds it closed next
			}
			if err := s.admit(led, g, r); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// admit decides a request and adds what it writes to the group. The errors that
// it returns are the store's; those of the request are in the request.
func (s *Store) admit(led *ledger, g *group, r *request) error {
	g.requests = append(g.requests, r)
	switch r.kind {
	case kindCommit:
		return s.admitCommit(led, g, r)
	case kindAcquire:
		lease, written, err := led.acquire(r.lease.Partition, r.lease.Node, r.ttl, s.clock.Now())
		r.lease, r.err = lease, err
		if !written {
			return nil
		}
		return s.put(g, epochKey(lease.Partition), binary.BigEndian.AppendUint64(nil, uint64(lease.Epoch)))
	case kindRenew:
		now := s.clock.Now()
		for i, l := range r.leases {
			if r.errs[i] == nil {
				r.errs[i] = led.renew(l, r.ttl, now)
			}
		}
		return nil
	case kindRelease:
		r.err = led.release(r.lease)
		return nil
	case kindMeta:
		return s.admitMeta(led, g, r)
	case kindCheckpoint:
		r.err = s.checkpoint(r.name)
		return nil
	}
	panic("pebblestore: unknown kind of request")
}

func (s *Store) admitCommit(led *ledger, g *group, r *request) error {
	batch := r.batch
	r.batch = nil
	if !led.mayCommit(r.lease.Partition, r.lease.Epoch) {
		s.counters.fenced.Add(1)
		r.err = fmt.Errorf("pebblestore: commit to partition %d with epoch %d, now %d: %w",
			r.lease.Partition, r.lease.Epoch, led.leases[r.lease.Partition].Epoch, storage.ErrFenced)
		return closeBatch(batch)
	}
	s.counters.commits.Add(1)
	if batch == nil {
		return nil
	}
	out, err := s.batchOf(g)
	if err != nil {
		return err
	}
	if err := out.Apply(batch, nil); err != nil {
		return fmt.Errorf("join batches: %w", err)
	}
	return closeBatch(batch)
}

func (s *Store) admitMeta(led *ledger, g *group, r *request) error {
	value, ok := led.metas[r.name]
	if !ok {
		// Pebble shows what was applied; what is only in the group is in metas.
		stored, err := get(s.db, metaKey(r.name))
		if err != nil {
			r.err = fmt.Errorf("pebblestore: read setting %q: %w", r.name, err)
			return nil
		}
		value = stored
		if stored == nil {
			value = r.value
			if err := s.put(g, metaKey(r.name), value); err != nil {
				return err
			}
		}
		led.metas[r.name] = value
	}
	r.value = append([]byte{}, value...)
	return nil
}

func (s *Store) put(g *group, key, value []byte) error {
	out, err := s.batchOf(g)
	if err != nil {
		return err
	}
	return out.Set(key, value, nil)
}

// batchOf returns the group's batch, which begins with a mark; see checkLog.
func (s *Store) batchOf(g *group) (*pebble.Batch, error) {
	if g.batch != nil {
		return g.batch, nil
	}
	g.batch = s.db.NewBatch()
	var buf [markLen]byte
	if err := g.batch.LogData(s.log.mark(buf[:0]), nil); err != nil {
		return nil, fmt.Errorf("mark group: %w", err)
	}
	return g.batch, nil
}

func closeBatch(b *pebble.Batch) error {
	if b == nil {
		return nil
	}
	return b.Close()
}

// syncLoop makes groups durable in the order in which they were applied. It
// ends when syncing is closed.
func (s *Store) syncLoop() {
	defer s.loops.Done()
	for g := range s.syncing {
		if g.snap != nil {
			// Not g.batch.Count(): Pebble takes the contents of a large batch.
			if err := g.batch.SyncWait(); err != nil {
				s.failure.set(fmt.Errorf("sync: %w", err))
				return
			}
		}
		if s.failure.Err() != nil {
			return // the callers have been told
		}
		if g.snap != nil {
			s.views.publish(g.snap)
		}
		for _, r := range g.requests {
			r.done <- struct{}{}
		}
		if err := closeBatch(g.batch); err != nil {
			s.failure.set(fmt.Errorf("free batch: %w", err))
			return
		}
	}
}
