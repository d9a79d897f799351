package consumer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/faultstore"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// maxFaults is more than a test injects.
const maxFaults = 1000

// longLease never ends in real time: the manual clock ends it.
const longLease = time.Hour

var (
	bg      = context.Background()
	errDown = errors.New("down")
	// quick saves at once and hardly waits.
	quick = pace{save: time.Millisecond, retryMin: time.Microsecond, retryMax: time.Millisecond}
	// lazy saves only when it must.
	lazy = pace{save: time.Hour, retryMin: time.Microsecond, retryMax: time.Millisecond}
)

// fatal is what *testing.T and *rapid.T share.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// emit writes n records to the log of a partition.
type emit struct {
	p    ids.Partition
	n    int
	size int
}

func (emit) Name() string                                   { return "emit" }
func (c emit) Partition(int) ids.Partition                  { return c.p }
func (emit) Prepare(context.Context, *partition.Prep) error { return nil }

func (c emit) Apply(tx *partition.Tx) (any, error) {
	for range c.n {
		tx.Emit(partition.Record{
			Kind: partition.RecordUser, Entity: "u", Body: make([]byte, c.size),
			Data: binary.BigEndian.AppendUint64(nil, uint64(tx.NextSeq())),
		})
	}
	return tx.NextSeq() - 1, nil
}

// world is a store and the nodes that run on it.
type world struct {
	t     fatal
	mem   *memstore.Store
	store *faultstore.Store
	clock *clock.Manual
	bus   *membus.Bus
	count int
	seen  *witness
	made  int
	nodes []*node
}

// node is a node with its consumers.
type node struct {
	*cluster.Node
	set      *Set
	registry *prometheus.Registry
	once     sync.Once
}

func newWorld(t fatal, count int) *world {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, mem: memstore.New(c), clock: c, bus: membus.New(), count: count}
	w.store = faultstore.New(w.mem)
	w.seen = &witness{t: t}
	w.seen.mu.upTo = make(map[ids.Partition]ids.Seq)
	w.seen.mu.calls = make(map[ids.Partition]int)
	return w
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.close()
	}
	if err := w.bus.Close(); err != nil {
		w.t.Errorf("close bus: %v", err)
	}
}

// start runs a node with one consumer, unless c is nil.
func (w *world) start(pc pace, c *Consumer) *node {
	w.t.Helper()
	w.made++
	opts := cluster.Options{
		Node: ids.NodeID(fmt.Sprintf("node%d", w.made)), Count: w.count, Store: w.store, Bus: w.bus,
		Clock: w.clock, Log: slog.New(slog.DiscardHandler), LeaseTTL: longLease, CacheBytes: 1 << 20,
	}
	cn, err := cluster.Start(bg, opts)
	for range maxFaults { // reads that fail were meant for the followers
		if !errors.Is(err, errDown) {
			break
		}
		cn, err = cluster.Start(bg, opts)
	}
	if err != nil {
		w.t.Fatalf("start node: %v", err)
	}
	n := &node{Node: cn, registry: prometheus.NewRegistry()}
	n.set = newSet(Options{
		Store: w.store, Router: cn, Clock: w.clock, Log: slog.New(slog.DiscardHandler), Metrics: n.registry,
	}, pc)
	cn.Watch(n.set)
	if c != nil {
		if err := n.set.Add(*c); err != nil {
			w.t.Fatalf("add: %v", err)
		}
	}
	w.nodes = append(w.nodes, n)
	return n
}

// consumer is the consumer most tests use.
func (w *world) consumer() *Consumer {
	return &Consumer{Name: "test", Start: AtBeginning, Handler: w.seen}
}

func (n *node) close() {
	n.once.Do(func() {
		n.set.Close()
		n.Close()
	})
}

func (n *node) emit(t fatal, p ids.Partition, count int) ids.Seq {
	t.Helper()
	seq, err := partition.Do[ids.Seq](bg, n, emit{p: p, n: count})
	if err != nil {
		t.Fatalf("emit: %v", err)
	}
	return seq
}

func (n *node) await(t fatal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	if err := n.set.Await(ctx, "test"); err != nil {
		t.Fatalf("await: %v", err)
	}
}

// metric is the value of a metric of the consumer named test.
func (n *node) metric(t fatal, name string) float64 {
	t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	for _, f := range families {
		if f.GetName() == "hubbub_consumer_"+name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// cursor is the durable cursor of the consumer, or of another.
func (w *world) cursor(p ids.Partition, name string) (ids.Seq, bool) {
	w.t.Helper()
	v, err := w.mem.Get(bg, storage.Key{Partition: p, Table: tables.ConsumerCursor, Sort: name})
	if err != nil {
		w.t.Fatalf("get cursor: %v", err)
	}
	if v[0] == nil {
		return 0, false
	}
	return ids.Seq(binary.BigEndian.Uint64(v[0])), true
}

// witness is a handler that checks what it is given: every record follows the one
// before or was given earlier, and says what was written.
type witness struct {
	t fatal
	// before, if set, is called with each batch first, and may fail.
	before func(ctx context.Context, b Batch) error

	mu struct {
		sync.Mutex
		upTo    map[ids.Partition]ids.Seq
		calls   map[ids.Partition]int
		records int
		missed  [][2]ids.Seq
	}
}

func (h *witness) Handle(ctx context.Context, b Batch) error {
	if h.before != nil {
		if err := h.before(ctx, b); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.First > h.mu.upTo[b.Partition]+1 {
		h.t.Errorf("partition %d: given %d to %d after %d", b.Partition, b.First, b.Last, h.mu.upTo[b.Partition])
	}
	if len(b.Records) != int(b.Last-b.First)+1 || b.Epoch == 0 {
		h.t.Errorf("%d records for %d to %d", len(b.Records), b.First, b.Last)
	}
	for i, r := range b.Records {
		if want := b.First + ids.Seq(i); r.Seq != want || ids.Seq(binary.BigEndian.Uint64(r.Data)) != want {
			h.t.Errorf("record %d says %x at %d", want, r.Data, r.Seq)
		}
	}
	h.mu.upTo[b.Partition] = max(h.mu.upTo[b.Partition], b.Last)
	h.mu.calls[b.Partition]++
	h.mu.records += len(b.Records)
	return nil
}

func (h *witness) Missed(_ context.Context, p ids.Partition, first, last ids.Seq) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.missed = append(h.mu.missed, [2]ids.Seq{first, last})
	h.mu.upTo[p] = max(h.mu.upTo[p], last)
	return nil
}

func (h *witness) at(p ids.Partition) ids.Seq {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.upTo[p]
}

func (h *witness) total() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.records
}
