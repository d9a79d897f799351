// Package faultstore wraps a storage.Store and makes its calls fail, lose their
// answers or wait, as a test plans it.
//
// The plan is a list of faults. A call is subject to the first fault that wants
// it; a fault that has been used up is passed over. Without faults the wrapper
// passes everything through. Faults can be added and removed while calls run.
//
// All methods may be called from any goroutine.
package faultstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Errors that faults give.
var (
	// ErrInjected is the failure of a call that had no effect.
	ErrInjected = errors.New("faultstore: injected failure")
	// ErrAnswerLost is the error of a call that was carried out.
	ErrAnswerLost = errors.New("faultstore: answer lost")
	// ErrDiskFull is the error of writes after FillDisk.
	ErrDiskFull = errors.New("faultstore: no space left on device")
)

// Calls is a set of the store's methods.
type Calls uint

// The methods. Writes are those that need space on a disk.
const (
	Commit Calls = 1 << iota
	Acquire
	Release
	Get
	Scan
	ScanPartition
	InitMeta

	Reads  = Get | Scan | ScanPartition
	Writes = Commit | Acquire | InitMeta
)

// Fault is one entry of a plan.
type Fault struct {
	// Calls are the methods that are subject to it.
	Calls Calls
	// Match narrows it to calls about some partitions; nil takes all. It is not
	// asked for InitMeta. A Get is about the partition of its first key.
	Match func(ids.Partition) bool
	// Skip lets that many calls pass first. Times is how many it then befalls, 0
	// for all until it is removed.
	Skip, Times int
	// Before is returned instead of carrying the call out.
	Before error
	// After is returned although the call was carried out.
	After error
	// Hold, if not nil, is received from before the call is carried out, and
	// HoldAnswer after it. Close them to let the calls go.
	Hold, HoldAnswer <-chan struct{}
}

// Store is a store with a plan of faults.
type Store struct {
	inner storage.Store

	mu struct {
		sync.Mutex
		plan []*entry
		held int
		// changed is closed, and replaced, when held changes.
		changed chan struct{}
	}
}

type entry struct {
	Fault
	met int // calls that it wanted so far
}

var _ storage.Store = (*Store)(nil)

// New wraps a store. Closing the wrapper closes the store.
func New(inner storage.Store) *Store {
	s := &Store{inner: inner}
	s.mu.changed = make(chan struct{})
	return s
}

// Inject adds a fault behind those of the plan. remove takes it out again; calls
// that it befell before are not changed by that.
func (s *Store) Inject(f Fault) (remove func()) {
	e := &entry{Fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.plan = append(s.mu.plan, e)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.plan = slices.DeleteFunc(s.mu.plan, func(o *entry) bool { return o == e })
	}
}

// FailCommit makes the nth commit from now, 1 for the next one, fail with
// ErrInjected before it is applied.
func (s *Store) FailCommit(n int) {
	s.Inject(Fault{Calls: Commit, Skip: n - 1, Times: 1, Before: ErrInjected})
}

// LoseAnswer makes the nth commit from now succeed and return ErrAnswerLost.
func (s *Store) LoseAnswer(n int) {
	s.Inject(Fault{Calls: Commit, Skip: n - 1, Times: 1, After: ErrAnswerLost})
}

// FailReads makes reads fail with ErrInjected until stop is called.
func (s *Store) FailReads() (stop func()) {
	return s.Inject(Fault{Calls: Reads, Before: ErrInjected})
}

// FillDisk makes writes fail with ErrDiskFull until free is called.
func (s *Store) FillDisk() (free func()) {
	return s.Inject(Fault{Calls: Writes, Before: ErrDiskFull})
}

// HoldCommits stops commits that begin from now on before they are applied, as a
// pause of their owner does, until release is called. They then go on, whatever
// happened to the lease.
func (s *Store) HoldCommits() (release func()) {
	gate := make(chan struct{})
	return s.releaser(gate, s.Inject(Fault{Calls: Commit, Hold: gate}))
}

// HoldAnswers lets commits that begin from now on be applied, and keeps their
// answers back until release is called.
func (s *Store) HoldAnswers() (release func()) {
	gate := make(chan struct{})
	return s.releaser(gate, s.Inject(Fault{Calls: Commit, HoldAnswer: gate}))
}

func (s *Store) releaser(gate chan struct{}, remove func()) func() {
	return sync.OnceFunc(func() {
		remove()
		close(gate)
	})
}

// AwaitHeld returns when at least n calls are held, or the context ends.
func (s *Store) AwaitHeld(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		held, changed := s.mu.held, s.mu.changed
		s.mu.Unlock()
		if held >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("faultstore: %d of %d calls held: %w", held, n, ctx.Err())
		}
	}
}

// fault returns the fault of a call, the zero one if it has none.
func (s *Store) fault(c Calls, p ids.Partition) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.mu.plan {
		if e.Calls&c == 0 || e.Match != nil && c != InitMeta && !e.Match(p) {
			continue
		}
		e.met++
		if e.met > e.Skip && (e.Times == 0 || e.met <= e.Skip+e.Times) {
			return e.Fault
		}
	}
	return Fault{}
}

func (s *Store) hold(ctx context.Context, gate <-chan struct{}) error {
	if gate == nil {
		return nil
	}
	s.count(1)
	defer s.count(-1)
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("faultstore: held: %w", ctx.Err())
	}
}

func (s *Store) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.held += n
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// do carries a call out, subject to its fault.
func (s *Store) do(ctx context.Context, c Calls, p ids.Partition, call func() error) error {
	f := s.fault(c, p)
	if err := s.hold(ctx, f.Hold); err != nil {
		return err
	}
	if f.Before != nil {
		return f.Before
	}
	if err := call(); err != nil {
		return err
	}
	if err := s.hold(ctx, f.HoldAnswer); err != nil {
		return err
	}
	return f.After
}

// Acquire implements storage.Store.
func (s *Store) Acquire(ctx context.Context, p ids.Partition, node ids.NodeID, ttl time.Duration) (storage.Lease, error) {
	var l storage.Lease
	err := s.do(ctx, Acquire, p, func() (err error) {
		l, err = s.inner.Acquire(ctx, p, node, ttl)
		return err
	})
	if err != nil && !errors.Is(err, storage.ErrHeld) {
		return storage.Lease{}, err
	}
	return l, err
}

// Release implements storage.Store.
func (s *Store) Release(ctx context.Context, l storage.Lease) error {
	return s.do(ctx, Release, l.Partition, func() error { return s.inner.Release(ctx, l) })
}

// Commit implements storage.Store.
func (s *Store) Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *storage.Batch) error {
	return s.do(ctx, Commit, p, func() error { return s.inner.Commit(ctx, p, epoch, b) })
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	var p ids.Partition
	if len(keys) > 0 {
		p = keys[0].Partition
	}
	return answer(s, ctx, Get, p, func() ([][]byte, error) { return s.inner.Get(ctx, keys...) })
}

// Scan implements storage.Store.
func (s *Store) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	return answer(s, ctx, Scan, r.Partition, func() ([]storage.Entry, error) { return s.inner.Scan(ctx, r) })
}

// ScanPartition implements storage.Store.
func (s *Store) ScanPartition(ctx context.Context, after storage.Key, limit int) ([]storage.Row, error) {
	return answer(s, ctx, ScanPartition, after.Partition, func() ([]storage.Row, error) {
		return s.inner.ScanPartition(ctx, after, limit)
	})
}

// InitMeta implements storage.Store.
func (s *Store) InitMeta(ctx context.Context, name string, value []byte) ([]byte, error) {
	return answer(s, ctx, InitMeta, 0, func() ([]byte, error) { return s.inner.InitMeta(ctx, name, value) })
}

// answer is do for a call with a result, which is lost with an error.
func answer[T any](s *Store, ctx context.Context, c Calls, p ids.Partition, call func() (T, error)) (T, error) {
	var result, none T
	err := s.do(ctx, c, p, func() (err error) {
		result, err = call()
		return err
	})
	if err != nil {
		return none, err
	}
	return result, nil
}

// Close implements storage.Store.
func (s *Store) Close() error { return s.inner.Close() }
