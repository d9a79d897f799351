// Package storage defines the one narrow interface between hubbub and the
// databases that can hold its data: ordered keys in partitions, leases with
// epochs, atomic commits that check the epoch.
//
// A key is (partition, table, entity, sort). A commit touches one partition, a
// scan one entity. Nothing else is asked of a backend, so an embedded store, a
// sharded relational database or a wide-column store can each serve. Typed
// tables are encodings above this interface. The suite in storagetest is the
// definition of correct; every backend passes it.
//
// All methods are safe for concurrent use. Values returned are the caller's to
// keep; values passed in are not retained after the call returns.
package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrFenced: the epoch of a commit or release is not the current one. The
	// caller has lost the partition and must drop all it knows of it.
	ErrFenced = errors.New("storage: fenced by a newer epoch")
	// ErrHeld: another node holds an unexpired lease.
	ErrHeld = errors.New("storage: lease held by another node")
	// ErrNewerFormat: the data was written by a newer version of hubbub.
	ErrNewerFormat = errors.New("storage: data has a newer format")
	// ErrInUse: another process has the data directory open.
	ErrInUse = errors.New("storage: data directory in use")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("storage: closed")
	// ErrInvalid: the call itself is wrong (a batch that leaves its partition,
	// a scan without a limit, a key part that is too long).
	ErrInvalid = errors.New("storage: invalid call")
)

// Format is the number of what this version writes, in rows and to the disk. A store
// refuses to open data with a higher number: 2 has events that their IDs lead to, and
// an index of what is said in blocks and segments, neither of which an earlier version
// would find.
const Format = 2

// Limits of the interface, low enough for every backend that is planned.
const (
	// MaxEntity and MaxSort bound the parts of a key in bytes. Matrix bounds
	// its identifiers and event types to 255 bytes each; a sort key joins up to
	// four of them with separators.
	MaxEntity = 512
	MaxSort   = 1200
	// MaxValue bounds one value in bytes: an event is at most 64 KiB, and the
	// largest account data rows a few hundred KiB.
	MaxValue = 4 << 20
	// MaxBatch bounds the keys and values of one batch in bytes together: a batch
	// is held in memory several times on its way to the disk. It has room for
	// the largest value and the rows that come with it.
	MaxBatch = 32 << 20
	// MaxScan bounds the rows one Scan returns, so that no caller can make the
	// server hold an unbounded answer.
	MaxScan = 10_000
)

// Table is the second part of a key. The numbers are part of the on-disk
// format; package tables gives them names. 0 is reserved: a key with it is
// ErrInvalid, so that a zero Key never names a row.
type Table uint8

// Key names one row. It is comparable. Entity and Sort may be empty and may hold
// any bytes. Partition is below ids.MaxPartitions.
type Key struct {
	Partition ids.Partition
	Table     Table
	Entity    string
	Sort      string
}

// Entry is one row of a scan.
type Entry struct {
	Sort  string
	Value []byte
}

// Row is one row of a partition scan.
type Row struct {
	Key   Key
	Value []byte
}

// Range names a stretch of the rows of one entity.
type Range struct {
	Partition ids.Partition
	Table     Table
	Entity    string
	// From is the first sort key of the range. To is the first one behind it;
	// "" stands for the end of the entity. A range whose To is not behind its
	// From is empty.
	From, To string
	// Limit is the most rows wanted, 1 to MaxScan.
	Limit int
	// Reverse yields the last rows of the range first.
	Reverse bool
}

// OpKind says what an Op does.
type OpKind uint8

// The operations of a batch.
const (
	OpPut OpKind = iota + 1
	OpDelete
	OpDeleteRange
)

// Op is one operation of a batch. End belongs to OpDeleteRange: the first sort
// key that is kept, "" for the end of the entity. A range whose End is not
// behind its Key.Sort is empty.
//
// New belongs to OpPut: whoever made it knows that there is no such row, so that a
// backend need not look for one. It is a hint: a row that is there all the same is
// set.
type Op struct {
	Kind  OpKind
	New   bool
	Key   Key
	End   string
	Value []byte
}

// Batch is a list of operations that are applied together, in order: a later
// operation on the same key wins. The zero value is an empty batch.
type Batch struct {
	Ops []Op
}

// Put sets a row. value is not copied.
func (b *Batch) Put(k Key, value []byte) {
	b.Ops = append(b.Ops, Op{Kind: OpPut, Key: k, Value: value})
}

// Insert sets a row that is not there. value is not copied.
func (b *Batch) Insert(k Key, value []byte) {
	b.Ops = append(b.Ops, Op{Kind: OpPut, New: true, Key: k, Value: value})
}

// Delete removes a row if it is there.
func (b *Batch) Delete(k Key) {
	b.Ops = append(b.Ops, Op{Kind: OpDelete, Key: k})
}

// DeleteRange removes the rows of from's entity from from up to, not including,
// the sort key to ("" for all the rest).
func (b *Batch) DeleteRange(from Key, to string) {
	b.Ops = append(b.Ops, Op{Kind: OpDeleteRange, Key: from, End: to})
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Ops)
	b.Ops = b.Ops[:0]
}

// Lease is the right to commit to a partition.
type Lease struct {
	Partition ids.Partition
	Node      ids.NodeID
	Epoch     ids.Epoch
	// Expires is when another node may take the lease, by the store's clock.
	// It bounds unavailability only; safety rests on the epoch.
	Expires time.Time
}

// Store is a backend.
type Store interface {
	// Acquire takes or renews the lease of a partition for ttl. A node that
	// holds it keeps its epoch; a free or expired lease is given out with an
	// epoch higher than any before, even to its last holder. ErrHeld if another
	// node's lease has not expired; the Lease returned with ErrHeld names it.
	Acquire(ctx context.Context, p ids.Partition, node ids.NodeID, ttl time.Duration) (Lease, error)

	// Release gives a lease up at once. ErrFenced if it is no longer held: its
	// epoch is not the last one given out, or it was released before. A lease
	// that expired and that nobody else took is still held.
	Release(ctx context.Context, l Lease) error

	// Commit applies the whole batch durably, or nothing of it. It checks the
	// epoch in the same atomic step: ErrFenced if it is not the epoch last given
	// out for the partition. An expired lease that nobody else took may commit.
	// An empty batch checks the epoch and does nothing else. After a released
	// lease the caller must not commit; a store need not notice. An error other than ErrFenced, ErrInvalid and ErrClosed leaves the outcome
	// unknown: the batch may have been applied, whole.
	Commit(ctx context.Context, p ids.Partition, epoch ids.Epoch, b *Batch) error

	// Get returns the values of the keys, nil where there is no row. A row with
	// an empty value gives a slice that is empty and not nil. Like a scan, it
	// sees every commit that was answered before it began, and a batch whole or
	// not at all.
	Get(ctx context.Context, keys ...Key) ([][]byte, error)

	// Scan returns the rows of a range in order of their sort keys, as bytes
	// compare. It sees every commit that was answered before it began, a batch
	// whole or not at all, and nothing that a crash could still take back.
	Scan(ctx context.Context, r Range) ([]Entry, error)

	// ScanPartition returns rows of a whole partition behind a key (the zero Key
	// with the partition set to begin), in an order that is stable, up to limit
	// (1 to MaxScan). Fewer rows than limit mean that the partition is done. For
	// maintenance: checks, copies, statistics.
	ScanPartition(ctx context.Context, after Key, limit int) ([]Row, error)

	// InitMeta returns the deployment's setting of that name, which becomes
	// value if there was none. Exactly one of several concurrent callers sets it.
	// name is not empty and at most MaxEntity bytes long.
	InitMeta(ctx context.Context, name string, value []byte) ([]byte, error)

	// Close waits for running calls and releases everything. Later calls give
	// ErrClosed; closing again does nothing.
	Close() error
}

// LastReader is implemented by stores that read the last rows of many partitions at
// once.
type LastReader interface {
	// Last returns the sort key of the last row of an entity in each of the
	// partitions, "" where there is none. It sees every commit that was answered
	// before it began.
	Last(ctx context.Context, t Table, entity string, ps ...ids.Partition) ([]string, error)
}

// Last is LastReader.Last of any store, one scan after another if it cannot do
// better. A row with an empty sort key counts as none.
func Last(ctx context.Context, st Store, t Table, entity string, ps ...ids.Partition) ([]string, error) {
	if r, ok := st.(LastReader); ok {
		return r.Last(ctx, t, entity, ps...)
	}
	out := make([]string, len(ps))
	for i, p := range ps {
		rows, err := st.Scan(ctx, Range{Partition: p, Table: t, Entity: entity, Limit: 1, Reverse: true})
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			out[i] = rows[0].Sort
		}
	}
	return out, nil
}

// Renewer is implemented by stores that renew many leases at once.
type Renewer interface {
	// Renew renews leases of one node for ttl, as Acquire does, but gives out none
	// anew. The result is that of each: nil, or ErrFenced if it is not held so any
	// more or has expired.
	Renew(ctx context.Context, leases []Lease, ttl time.Duration) []error
}

// Renew is Renewer.Renew of any store, one call after another if it cannot do better;
// then a lease that had expired, or was given up meanwhile, may be held anew, with an epoch
// that Acquire tells. Then nobody else gets the partition until it expires again: a store
// that several nodes share implements Renewer.
func Renew(ctx context.Context, st Store, leases []Lease, ttl time.Duration) []error {
	if r, ok := st.(Renewer); ok {
		return r.Renew(ctx, leases, ttl)
	}
	errs := make([]error, len(leases))
	for i, l := range leases {
		have, err := st.Acquire(ctx, l.Partition, l.Node, ttl)
		if errors.Is(err, ErrHeld) || err == nil && have.Epoch != l.Epoch {
			err = fmt.Errorf("renew lease of partition %d: %w", l.Partition, ErrFenced)
		}
		errs[i] = err
	}
	return errs
}
