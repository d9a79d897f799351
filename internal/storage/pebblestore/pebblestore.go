// Package pebblestore keeps hubbub's data in one directory of this machine with
// Pebble, a log-structured merge tree. One process owns the directory.
//
// # How a commit travels
//
//  1. The caller's goroutine checks the batch, encodes it and queues it.
//  2. The apply loop, one goroutine, takes everything that is queued, checks each
//     commit's epoch, joins what may pass into one Pebble batch and applies it
//     without waiting for the disk. It marks the spot with a snapshot.
//  3. The sync loop, another goroutine, waits for the fsync of that batch, makes
//     its snapshot the one that reads use, and answers the callers.
//
// While one fsync runs the next group gathers, over all partitions. That is the
// group commit.
//
// # Invariants
//
//   - Only the apply loop writes to Pebble and only it knows the leases, so the
//     epoch check and the write are one step without a lock.
//   - Reads use the snapshot of the last durable group. Nobody can see a row that
//     a crash could take back, although Pebble itself shows writes before their
//     fsync.
//   - After the first failed write to the log or the manifest the store has
//     failed for good: see failure.
//
// The simpler design, every caller applying its own batch under a read lock of
// its partition, was measured: it costs a tenth more CPU with 64 committers, each
// passing Pebble's pipeline alone. It shows data before it is durable, and leaves
// callers hanging in the pipeline's locks when the log fails.
//
// All exported methods may be called from any goroutine.
package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	crdberrors "github.com/cockroachdb/errors"
	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// requestQueue is how many requests wait for the apply loop before callers
	// block. Callers are partition owners, which have one commit under way each,
	// so the queue holds all of them in a usual deployment.
	requestQueue = 256
	// groupsInFlight is how many applied groups may queue for the sync loop, beside
	// the one that it waits for and the one that waits to be handed over. More make
	// smaller groups, and were measured to cost more CPU.
	groupsInFlight = 0
)

// ErrDamaged is wrapped by errors that come from files whose checksums are wrong.
// From Open it says that answered commits can't be read: restore a backup, or
// let an operator decide what to give up.
var ErrDamaged = errors.New("pebblestore: data on disk is damaged")

// damaged marks Pebble's errors about checksums.
func damaged(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// Store is a storage.Store in a directory.
type Store struct {
	db       *pebble.DB
	dir      string
	lock     *pebble.Lock
	fsCloser io.Closer // of the disk health checks; nil with a caller's FS
	clock    clock.Clock
	failure  *failure
	counters *counters
	views    *views
	log      *syncedLog
	spare    *spareLog
	pacer    *pacer

	requests chan *request
	syncing  chan *group
	loops    sync.WaitGroup
	pool     sync.Pool // of *request

	// calls is held shared by each running call, and by Close to wait for them.
	calls struct {
		sync.RWMutex
		closed bool
	}
}

var _ storage.Store = (*Store)(nil)

// Open opens or creates the store in dir. It returns storage.ErrInUse if a
// process, this one included, has it open, and storage.ErrNewerFormat if a newer
// hubbub wrote it. After a crash it first replays the log; what a torn end of
// the log held was never answered. A damage before the end is an error.
func Open(dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	dir, err := prepareDir(dir, opts.FS)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: prepare %s: %w", dir, err)
	}
	s := &Store{
		dir:      dir,
		clock:    opts.Clock,
		failure:  newFailure(opts.Logger),
		counters: &counters{},
		views:    newViews(),
		log:      &syncedLog{},
		requests: make(chan *request, requestQueue),
		syncing:  make(chan *group, groupsInFlight),
	}
	s.pool.New = func() any { return &request{done: make(chan struct{}, 1)} }
	po, closer := s.pebbleOptions(opts)
	s.fsCloser = closer
	if err := s.open(po); err != nil {
		return nil, errors.Join(fmt.Errorf("pebblestore: open %s: %w", dir, err), s.closeFS())
	}
	return s, nil
}

func (s *Store) open(po *pebble.Options) error {
	lock, err := pebble.LockDirectory(s.dir, po.FS)
	if err != nil {
		return lockError(err)
	}
	s.lock, po.Lock = lock, lock
	if err := checkLog(po.FS, s.dir); err != nil {
		return errors.Join(err, lock.Close())
	}
	if done, err := s.openPebble(po); err != nil {
		if done { // else Pebble is still at work in there
			err = errors.Join(err, lock.Close())
		}
		return err
	}
	led, err := s.load()
	if err != nil {
		return errors.Join(err, s.db.Close(), lock.Close())
	}
	s.failure.arm()
	s.views.publish(s.db.NewSnapshot())
	go s.views.closeLoop()
	s.loops.Add(2)
	go s.applyLoop(led)
	go s.syncLoop()
	return nil
}

// openPebble runs Pebble's Open beside the failure signal, because with a full
// disk Open retries its flush for ever. It tells whether Pebble has let go of the
// directory, if there is an error.
func (s *Store) openPebble(po *pebble.Options) (bool, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan result, 1)
	go func() {
		db, err := pebble.Open(s.dir, po)
		opened <- result{db, err}
	}()
	select {
	case r := <-opened:
		if r.err == nil {
			s.db = r.db
			return false, s.failure.Err()
		}
		if strings.Contains(r.err.Error(), "unknown format major version") {
			return true, fmt.Errorf("%w: %w", storage.ErrNewerFormat, r.err)
		}
		if d := crdberrors.FlattenDetails(r.err); d != "" { // names the file
			r.err = fmt.Errorf("%w (%s)", r.err, d)
		}
		return true, damaged(r.err)
	case <-s.failure.done:
		return false, s.failure.Err()
	}
}

// begin opens a call; the caller defers s.calls.RUnlock if there is no error.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pebblestore: %w", err)
	}
	s.calls.RLock()
	if s.calls.closed {
		s.calls.RUnlock()
		return storage.ErrClosed
	}
	return nil
}

// Close waits for running calls and closes the directory. A second Close does
// nothing. After a failure it leaves Pebble and the lock of the directory as
// they are, because Pebble may be in the middle of a write that must not go on;
// the end of the process frees both. It then returns the failure.
func (s *Store) Close() error {
	s.calls.Lock()
	defer s.calls.Unlock()
	if s.calls.closed {
		return nil
	}
	s.calls.closed = true
	close(s.requests)
	stopped := make(chan struct{})
	go func() {
		s.loops.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-s.failure.done:
	}
	if err := s.failure.Err(); err != nil {
		return fmt.Errorf("pebblestore: close %s: %w", s.dir, err)
	}
	s.views.close()
	s.spare.close()
	s.pacer.off.Store(true)
	err := errors.Join(s.db.Close(), s.lock.Close(), s.closeFS())
	if err != nil {
		return fmt.Errorf("pebblestore: close %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) closeFS() error {
	if s.fsCloser == nil {
		return nil
	}
	return s.fsCloser.Close()
}

// Err returns why the store has failed, nil while it works. A store that has
// failed refuses every commit until the process is started again; reads of what
// was durable go on.
func (s *Store) Err() error { return s.failure.Err() }

// Failed is closed when the store fails.
func (s *Store) Failed() <-chan struct{} { return s.failure.done }
