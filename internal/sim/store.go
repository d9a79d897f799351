package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Errors that the simulated store gives.
var (
	errRefused = errors.New("sim: the store failed before it did anything")
	errNoWord  = errors.New("sim: the store's answer is lost")
	errGone    = errors.New("sim: the node is dead")
)

// database is the store that all nodes share. It keeps a ledger of leases and
// commits, in the order in which they took effect.
type database struct {
	inner  *memstore.Store
	clock  *skewed
	mutant Mutant
	late   tasks // calls that take effect after their caller gave up
	// moved is told of cursors of consumers as they are written.
	moved func(ids.Partition, ids.Seq)

	mu struct {
		sync.Mutex
		ledger []judge.Write
		epochs map[ids.Partition]ids.Epoch
	}
}

func newDatabase(m Mutant) *database {
	c := &skewed{}
	d := &database{inner: memstore.New(c), clock: c, mutant: m}
	d.mu.epochs = make(map[ids.Partition]ids.Epoch)
	return d
}

func (d *database) acquire(ctx context.Context, p ids.Partition, id ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, err := d.inner.Acquire(ctx, p, id, ttl)
	if err == nil {
		d.mu.epochs[p] = l.Epoch
		d.mu.ledger = append(d.mu.ledger, judge.Write{Partition: int(p), Node: string(id), Epoch: uint64(l.Epoch), Grant: true})
	}
	return l, err
}

func (d *database) commit(ctx context.Context, id ids.NodeID, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b = d.mutant.change(b)
	err := d.inner.Commit(ctx, p, epoch, b)
	if errors.Is(err, storage.ErrFenced) && d.mutant == NoFence {
		err = d.inner.Commit(ctx, p, d.mu.epochs[p], b)
	}
	if err == nil && len(b.Ops) > 0 {
		d.mu.ledger = append(d.mu.ledger, judge.Write{Partition: int(p), Node: string(id), Epoch: uint64(epoch)})
		for i := range b.Ops {
			if op := &b.Ops[i]; op.Key.Table == tables.ConsumerCursor && len(op.Value) == 8 {
				d.moved(p, ids.Seq(binary.BigEndian.Uint64(op.Value)))
			}
		}
	}
	return err
}

// Times of the store.
const (
	storeMin, storeMax = 50 * time.Microsecond, 2 * time.Millisecond
	// patience is how long a node waits for an answer: the time-out of a statement.
	patience = 3 * time.Second
)

// nodeStore is the way of one node to the database.
type nodeStore struct {
	db   *database
	node *node
	dice *dice
}

var _ storage.Store = (*nodeStore)(nil)

// call carries a call to the database and its answer back. What has been sent
// happens, whatever becomes of the node.
func (s *nodeStore) call(ctx context.Context, write bool, do func(context.Context) error) error {
	if err := s.node.awake(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f := s.node.world.weather
	lo, hi := storeMin, storeMax
	if s.dice.chance(f.slowStore()) {
		hi = patience
	}
	time.Sleep(s.dice.between(lo, hi))
	if s.node.cutFromStore() || write && s.dice.chance(f.lateWrite()) {
		return s.noAnswer(write, do)
	}
	if s.dice.chance(f.refused()) {
		return errors.Join(errRefused, s.node.awake())
	}
	// Whose caller gave up meanwhile is carried out all the same.
	err := do(context.WithoutCancel(ctx))
	time.Sleep(s.dice.between(lo, storeMax))
	if err := s.node.awake(); err != nil {
		return err
	}
	if err == nil && (s.node.cutFromStore() || write && s.dice.chance(f.noWord())) {
		return errNoWord
	}
	return err
}

// noAnswer lets the node wait for nothing. A write may have been on its way, and
// takes effect at some time: before the node gives up, or after.
func (s *nodeStore) noAnswer(write bool, do func(context.Context) error) error {
	if write && s.dice.chance(0.5) {
		after := s.dice.between(0, 3*patience)
		s.db.late.Go(func() {
			time.Sleep(after)
			_ = do(context.Background()) // nobody waits for it any more
		})
	}
	time.Sleep(s.dice.between(patience/2, patience))
	return errors.Join(errNoWord, s.node.awake())
}

func (s *nodeStore) Acquire(ctx context.Context, p ids.Partition, id ids.NodeID, ttl time.Duration) (l storage.Lease, err error) {
	got := make(chan storage.Lease, 1) // a late answer is nobody's
	err = s.call(ctx, true, func(ctx context.Context) error {
		l, err := s.db.acquire(ctx, p, id, ttl)
		got <- l
		return err
	})
	if err == nil || errors.Is(err, storage.ErrHeld) {
		l = <-got
	}
	return l, err
}

func (s *nodeStore) Release(ctx context.Context, l storage.Lease) error {
	return s.call(ctx, true, func(ctx context.Context) error { return s.db.inner.Release(ctx, l) })
}

func (s *nodeStore) Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	id := s.node.id
	own := &storage.Batch{Ops: append([]storage.Op(nil), b.Ops...)} // the caller uses its own again
	if s.db.mutant == EarlyAnswer {
		if err := s.node.awake(); err != nil {
			return err
		}
		return s.commitLater(p, epoch, own)
	}
	return s.call(ctx, true, func(ctx context.Context) error { return s.db.commit(ctx, id, p, epoch, own) })
}

// commitLater is what EarlyAnswer does: it says that a commit is durable, and what
// dies with the node is lost.
func (s *nodeStore) commitLater(p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	commit := func() error { return s.db.commit(context.Background(), s.node.id, p, epoch, b) }
	if s.dice.chance(0.8) {
		return commit()
	}
	s.db.late.Go(func() {
		time.Sleep(s.dice.between(storeMin, time.Second))
		if s.node.awake() == nil {
			_ = commit() // it was answered already
		}
	})
	return nil
}

func (s *nodeStore) Get(ctx context.Context, keys ...storage.Key) (out [][]byte, err error) {
	err = s.call(ctx, false, func(ctx context.Context) (err error) {
		out, err = s.db.inner.Get(ctx, keys...)
		return err
	})
	return out, err
}

func (s *nodeStore) Scan(ctx context.Context, r storage.Range) (out []storage.Entry, err error) {
	err = s.call(ctx, false, func(ctx context.Context) (err error) {
		out, err = s.db.inner.Scan(ctx, r)
		return err
	})
	return out, err
}

func (s *nodeStore) ScanPartition(ctx context.Context, after storage.Key, limit int) (out []storage.Row, err error) {
	err = s.call(ctx, false, func(ctx context.Context) (err error) {
		out, err = s.db.inner.ScanPartition(ctx, after, limit)
		return err
	})
	return out, err
}

func (s *nodeStore) InitMeta(ctx context.Context, name string, value []byte) (out []byte, err error) {
	err = s.call(ctx, true, func(ctx context.Context) (err error) {
		out, err = s.db.inner.InitMeta(ctx, name, value)
		return err
	})
	return out, err
}

func (s *nodeStore) Close() error { return nil }
