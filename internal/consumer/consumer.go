// Package consumer lets services follow the logs of the partitions: a search
// index, the queue of an application service, push. A consumer has a name, under
// which it is known for ever, and a handler; it is given every record of every
// partition at least once, in the order of the partition.
//
// # Use
//
//	set := consumer.NewSet(consumer.Options{Store: …, Router: node, Clock: …, Log: …, Metrics: registry})
//	err := set.Add(consumer.Consumer{Name: "search", Start: consumer.AtBeginning, Handler: index})
//	node.Watch(set)   // from now on handlers are called
//	…
//	set.Close()       // before the node's Close: cursors are saved through it
//
// app does all but the Add: a service adds its consumer with Server.consumers.Add
// in a file of its own there, before or after the set was started.
//
// A handler gets a Batch: records of one partition, each with its Seq. For a
// RecordEvent, Obj is the *room.Stored if the record came from memory; it is nil
// if the record was read from the log, and then room.Reader.At(room, Seq) has it,
// or nil if it was purged meanwhile; Reader.Record of package room does both. A
// handler is called by one goroutine for each partition, so two partitions may call
// it at once.
//
// At least once: after a crash, or when ownership moved, up to SaveRecords records
// or SaveEvery of them come again. What a handler does must bear that: write under
// keys made of (partition, Seq), or keep the last Seq with what was written. A
// handler that changes rows of partitions does so by commands, never by itself;
// records which these write come to the handler too.
//
// An error makes the same batch come again after a pause, for as long as it takes;
// a handler decides itself what to pass over. A batch with which it panics
// maxPanics times is passed over.
//
// # How
//
// For each partition that this node owns, and each consumer, one goroutine, the
// follower, goes from the durable cursor through the log. When it has reached the
// end, it is handed published batches in memory, over a bounded queue; when that
// overflows, it reads the store again until it has caught up. So a slow handler
// costs the owner of the partition nothing. A follower that keeps up lets batches
// gather (Consumer.Gather), so that it is not woken for each.
//
// The cursor is a row of the partition, moved by a command that carries the epoch
// of the owner which the follower belongs to. A follower that outlived its owner,
// in a process that was paused, cannot move the cursor that its successor uses.
// Ownership moves, and the new owner's node goes on from the cursor.
//
// # The log waits
//
// The log is not trimmed below the lowest cursor, up to a limit (logKeepMax of
// package partition; hubbub_partition_log_trimmed_unread_total counts when it is
// hit). Who is further behind is told with Missed, so that it can build anew from
// the tables. A consumer that is no longer wanted is removed with Remove; one that
// is merely not added any more holds the log up to the limit.
//
// Rejected: followers on every node that share the work by a lock of their own (the
// lease of the partition is one already, and the records are in this process's
// memory); the bus as the way from owner to follower everywhere (it may lose a batch that
// no later one gives away, so it takes polling). Fleets in which the nodes that run
// partitions are no workers pay for that: their workers follow over the bus, and are told
// with Behind of what it lost.
//
// Methods of Set are safe for concurrent use.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Limits.
const (
	// minGather is the least time for which a consumer gathers. Nobody notices it,
	// and a follower need not be woken for each message of a busy room.
	minGather = 10 * time.Millisecond
	// SaveEvery and SaveRecords bound what is handled again after a crash: the
	// cursor is saved when either has passed since the last time. Each save is a
	// commit of the partition.
	SaveEvery   = 5 * time.Second
	SaveRecords = 4096
	// maxRecords is about how many records a handler gets at once: enough that
	// whoever writes them elsewhere pays one commit for many.
	maxRecords = 512
	// queueBatches and queueBytes bound what waits in memory for one follower: half of
	// them is what one that gathers may let wait, some seconds of busy rooms. Batches are
	// shared by the followers of a partition.
	queueBatches = 1024
	queueBytes   = 512 << 10
	// logBatches is how many batches one read of the log takes.
	logBatches = 64
	// maxPanics is how often a batch may make its handler panic before it is
	// passed over, so that one record does not stop all that come after it.
	maxPanics = 3
	// saveTimeout is how long the last save of a follower may take.
	saveTimeout = 5 * time.Second
	// maxName bounds the name of a consumer, which is part of a key.
	maxName = 128
)

// Start says where a consumer that has no cursor yet begins.
type Start bool

// Where to begin.
const (
	// AtHead: with what is committed after the consumer was first added.
	AtHead Start = false
	// AtBeginning: with the first record of the log. If it was trimmed before, the
	// handler is told by Missed.
	AtBeginning Start = true
)

// Batch is what a handler gets.
type Batch struct {
	Partition ids.Partition
	// Epoch is the owner's whose follower hands it over.
	Epoch ids.Epoch
	// First and Last are the positions of the first and the last record.
	First, Last ids.Seq
	// Records are shared and must not be changed.
	Records []partition.Record
}

// Handler is what a consumer does.
type Handler interface {
	// Handle does what has to be done about a batch. It returns when that is done
	// or durable elsewhere: afterwards it is not given again. ctx ends when the
	// partition moves or the server stops.
	Handle(ctx context.Context, b Batch) error
	// Missed tells that the records from first to last are gone. What the
	// handler made of the log of the partition is to be built anew from its tables.
	Missed(ctx context.Context, p ids.Partition, first, last ids.Seq) error
}

// Beginner is a Handler that wants to know of a partition before its first batch,
// say to find what an earlier owner left undone.
type Beginner interface {
	// Begin is called when a follower begins. ctx ends when the partition moves or
	// the server stops. An error makes it be called again.
	Begin(ctx context.Context, p ids.Partition) error
}

// Consumer is a handler with a name.
type Consumer struct {
	// Name identifies the consumer's cursors; it must not change.
	Name    string
	Start   Start
	Handler Handler
	// Gather is for how long, at most, records are gathered while they keep coming:
	// what comes that soon after the last batch waits for more, so that a handler
	// that has a cost for each batch has it seldom. It waits no longer than until
	// half the queue is full, or somebody awaits the consumer. What comes after a
	// while of quiet is handled at once.
	Gather time.Duration
}

// Options configure a Set.
type Options struct {
	Store  storage.Store
	Router partition.Router
	Clock  clock.Clock
	Log    *slog.Logger
	// Metrics is where the set registers its metrics, nil for nowhere.
	Metrics prometheus.Registerer
}

// Set are the consumers of a node. It begins when it is given to the node's Watch.
type Set struct {
	opts    Options
	pace    pace
	metrics *metrics
	wg      sync.WaitGroup

	mu struct {
		sync.RWMutex
		closed    bool
		owned     map[ids.Partition]ids.Epoch
		consumers map[string]*running
	}
}

// running is a consumer and its followers on this node.
type running struct {
	Consumer
	byPart map[ids.Partition]*follower
}

// pace is what tests shorten.
type pace struct {
	save, gather       time.Duration
	retryMin, retryMax time.Duration
}

// A handler that cannot reach something finds it again within half a minute.
var defaultPace = pace{save: SaveEvery, gather: minGather, retryMin: 50 * time.Millisecond, retryMax: 30 * time.Second}

// Errors of Add.
var (
	ErrName   = errors.New("consumer: name is taken or no name")
	ErrClosed = errors.New("consumer: closed")
)

var _ cluster.Follower = (*Set)(nil)

// NewSet returns a set without consumers.
func NewSet(opts Options) *Set { return newSet(opts, defaultPace) }

func newSet(opts Options, pc pace) *Set {
	s := &Set{opts: opts, pace: pc}
	s.mu.owned = make(map[ids.Partition]ids.Epoch)
	s.mu.consumers = make(map[string]*running)
	s.metrics = newMetrics(s, opts.Metrics)
	return s
}

// Add begins a consumer on all partitions of this node.
func (s *Set) Add(c Consumer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return ErrClosed
	}
	if c.Name == "" || len(c.Name) > maxName || s.mu.consumers[c.Name] != nil {
		return fmt.Errorf("%w: %q", ErrName, c.Name)
	}
	c.Gather = max(c.Gather, s.pace.gather)
	r := &running{Consumer: c, byPart: make(map[ids.Partition]*follower)}
	s.mu.consumers[c.Name] = r
	s.metrics.begin(c.Name)
	for p, epoch := range s.mu.owned {
		s.followLocked(r, p, epoch)
	}
	return nil
}

// Remove ends a consumer and forgets its cursors in the partitions of this node.
// One that is added under the name later is a new one.
func (s *Set) Remove(ctx context.Context, name string) error {
	s.mu.Lock()
	r := s.mu.consumers[name]
	delete(s.mu.consumers, name)
	owned := make([]ids.Partition, 0, len(s.mu.owned))
	for p := range s.mu.owned {
		owned = append(owned, p)
	}
	s.mu.Unlock()
	if r != nil {
		for _, f := range r.byPart {
			f.drop()
			<-f.done
		}
	}
	for _, p := range owned {
		if _, err := s.opts.Router.Do(ctx, partition.DropCursor{Consumer: name, P: p}); err != nil {
			return fmt.Errorf("forget cursor: %w", err)
		}
	}
	return nil
}

// Taken implements cluster.Watcher.
func (s *Set) Taken(p ids.Partition, epoch ids.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.mu.owned[p]; s.mu.closed || ok && have == epoch {
		return
	}
	s.mu.owned[p] = epoch
	for _, r := range s.mu.consumers {
		s.followLocked(r, p, epoch)
	}
}

// Dropped implements cluster.Watcher.
func (s *Set) Dropped(p ids.Partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.owned, p)
	for _, r := range s.mu.consumers {
		if f := r.byPart[p]; f != nil {
			f.drop()
		}
	}
}

// Published implements cluster.Watcher.
func (s *Set) Published(b *partition.Published) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if epoch, ok := s.mu.owned[b.Partition]; !ok || epoch != b.Epoch {
		return
	}
	for _, r := range s.mu.consumers {
		if f := r.byPart[b.Partition]; f != nil {
			f.offer(b)
		}
	}
}

// Behind implements cluster.Follower: the followers of a partition that runs elsewhere
// read its log.
func (s *Set) Behind(p ids.Partition, head ids.Seq) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.mu.consumers {
		if f := r.byPart[p]; f != nil {
			f.readOn(head)
		}
	}
}

// followLocked starts a follower, which waits for the one before it to end: a
// partition that changes hands does not wait for a handler.
func (s *Set) followLocked(r *running, p ids.Partition, epoch ids.Epoch) {
	before := r.byPart[p]
	if before != nil {
		before.drop()
	}
	f := newFollower(s, r.Consumer, p, epoch)
	r.byPart[p] = f
	s.wg.Go(func() {
		defer close(f.done)
		if before != nil {
			<-before.done
		}
		f.run()
	})
}

// Await waits until a consumer has handled all that the partitions of this node
// had committed at the time of the call, as far as the consumer was told of it.
func (s *Set) Await(ctx context.Context, name string) error {
	s.mu.RLock()
	r := s.mu.consumers[name]
	var list []*follower
	if r != nil {
		for p, f := range r.byPart {
			if s.mu.owned[p] == f.epoch {
				list = append(list, f)
			}
		}
	}
	s.mu.RUnlock()
	for _, f := range list {
		if err := f.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the running calls of handlers, saves the cursors and waits. It comes
// before the Close of the node.
func (s *Set) Close() {
	s.mu.Lock()
	s.mu.closed = true
	for _, r := range s.mu.consumers {
		for _, f := range r.byPart {
			f.cancel()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}
