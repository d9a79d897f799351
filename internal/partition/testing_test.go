package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tables of these tests: counters are kept in memory, marks are not.
const (
	counters storage.Table = 200
	marks    storage.Table = 201
	received storage.Table = 202 // what effects leave; the sort key is the origin
)

var errDown = errors.New("down")

// fatal is what *testing.T, *testing.B and *rapid.T share.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// hooked is a store whose calls can be held and made to fail. A hook runs on the
// goroutine of the call.
type hooked struct {
	storage.Store
	before   atomic.Pointer[func(p ids.Partition) error] // of Commit
	after    atomic.Pointer[func(p ids.Partition) error]
	afterGet atomic.Pointer[func(keys []storage.Key)]
}

func (h *hooked) Commit(ctx context.Context, p ids.Partition, e ids.Epoch, b *storage.Batch) error {
	if f := h.before.Load(); f != nil {
		if err := (*f)(p); err != nil {
			return err
		}
	}
	err := h.Store.Commit(ctx, p, e, b)
	if f := h.after.Load(); f != nil && err == nil {
		err = (*f)(p)
	}
	return err
}

func (h *hooked) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	v, err := h.Store.Get(ctx, keys...)
	if f := h.afterGet.Load(); f != nil {
		(*f)(keys)
	}
	return v, err
}

// deployment is a store and the owners that run on it, one for each partition,
// which reach each other without a cluster.
type deployment struct {
	t     fatal
	store *hooked
	clock *clock.Manual
	count int
	// deliver, if set, stands between relays and destinations.
	deliver  atomic.Pointer[func(ctx context.Context, next Router, cmd Command) (any, error)]
	metrics  *Metrics
	registry *prometheus.Registry
	budget   int64

	mu struct {
		sync.RWMutex
		owners    map[ids.Partition]*Owner
		published []*Published
		lost      []error
		starts    int
	}
}

func newDeployment(t fatal, count int) *deployment {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	d := &deployment{t: t, store: &hooked{Store: memstore.New(c)}, clock: c, count: count, budget: 1 << 20}
	d.mu.owners = make(map[ids.Partition]*Owner)
	return d
}

// measure counts what the owners started after it do.
func (d *deployment) measure() {
	d.registry = prometheus.NewRegistry()
	d.metrics = NewMetrics(d.registry)
}

func (d *deployment) measured(name string) float64 {
	d.t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		d.t.Fatalf("gather: %v", err)
	}
	for _, f := range families {
		if f.GetName() == "hubbub_partition_"+name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	d.t.Fatalf("no metric %s", name)
	return 0
}

func specs() map[storage.Table]TableSpec {
	decode := func(_ storage.Key, v []byte) (any, error) {
		if len(v) != 8 {
			return nil, fmt.Errorf("counter of %d bytes", len(v))
		}
		return int(binary.BigEndian.Uint64(v)), nil
	}
	return map[storage.Table]TableSpec{counters: {Keep: true, Decode: decode}, marks: {}, received: {}}
}

const leaseTTL = time.Minute

// start runs a partition on a new node, as after the death of the one before.
func (d *deployment) start(p ids.Partition) *Owner {
	d.t.Helper()
	d.clock.Advance(2 * leaseTTL)
	d.mu.Lock()
	d.mu.starts++
	node := ids.NodeID(fmt.Sprintf("node%d", d.mu.starts))
	d.mu.Unlock()
	lease, err := d.store.Acquire(context.Background(), p, node, leaseTTL)
	if err != nil {
		d.t.Fatalf("acquire partition %d: %v", p, err)
	}
	o, err := NewOwner(context.Background(), Options{
		Partition: p, Count: d.count, Store: d.store, Epoch: lease.Epoch, Clock: d.clock,
		Log: slog.New(slog.DiscardHandler), Tables: specs(), CacheBytes: d.budget, Metrics: d.metrics,
		Effects: map[string]EffectHandler{"note": noteEffect{}, "big": bigEffect{}, "echo": echoEffect{d}}, Router: d,
		Publish: func(b *Published) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.mu.published = append(d.mu.published, b)
		},
		Lost: func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.mu.lost = append(d.mu.lost, err)
		},
	})
	if err != nil {
		d.t.Fatalf("new owner: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.owners[p] = o
	return o
}

// stop ends the owner of a partition. What its relay has not delivered stays in
// the outbox.
func (d *deployment) stop(p ids.Partition) {
	d.mu.Lock()
	o := d.mu.owners[p]
	delete(d.mu.owners, p)
	d.mu.Unlock()
	if o != nil {
		o.Close()
	}
}

func (d *deployment) stopAll() {
	for p := range d.count {
		d.stop(ids.Partition(p))
	}
}

// Do implements Router.
func (d *deployment) Do(ctx context.Context, cmd Command) (any, error) {
	if f := d.deliver.Load(); f != nil {
		return (*f)(ctx, direct{d}, cmd)
	}
	return direct{d}.Do(ctx, cmd)
}

// direct is a Router that nothing stands in the way of.
type direct struct{ d *deployment }

func (r direct) Do(ctx context.Context, cmd Command) (any, error) {
	p := cmd.Partition(r.d.count)
	r.d.mu.RLock()
	o := r.d.mu.owners[p]
	r.d.mu.RUnlock()
	if o == nil {
		return nil, errDown
	}
	return o.Do(ctx, cmd)
}

// lostErrors returns what Lost was called with, once it was called n times.
func (d *deployment) lostErrors(n int) []error {
	for {
		d.mu.RLock()
		lost := append([]error(nil), d.mu.lost...)
		d.mu.RUnlock()
		if len(lost) >= n {
			return lost
		}
		runtime.Gosched()
	}
}

func (d *deployment) allPublished() []*Published {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return append([]*Published(nil), d.mu.published...)
}

// value reads a committed counter, 0 if there is none.
func (d *deployment) value(k storage.Key) int {
	d.t.Helper()
	rows, err := d.store.Store.Get(context.Background(), k)
	if err != nil {
		d.t.Fatalf("get: %v", err)
	}
	if rows[0] == nil {
		return 0
	}
	return int(binary.BigEndian.Uint64(rows[0]))
}

func (d *deployment) scan(p ids.Partition, t storage.Table) []storage.Entry {
	d.t.Helper()
	rows, err := d.store.Scan(context.Background(), storage.Range{Partition: p, Table: t, Limit: storage.MaxScan})
	if err != nil {
		d.t.Fatalf("scan: %v", err)
	}
	return rows
}

// entityIn returns an entity that lives in a partition.
func (d *deployment) entityIn(p ids.Partition) string {
	for i := 0; ; i++ {
		if e := fmt.Sprintf("entity%d", i); ids.PartitionOf(e, d.count) == p {
			return e
		}
	}
}

func counter(p ids.Partition, name string) storage.Key {
	return storage.Key{Partition: p, Table: counters, Sort: name}
}

func mark1(p ids.Partition, name string) storage.Key {
	return storage.Key{Partition: p, Table: marks, Sort: name}
}

func encodeInt(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// test is a Command made of functions.
type test struct {
	p       ids.Partition
	pins    []storage.Key
	prepare func(*Prep) error
	apply   func(*Tx) (any, error)
}

func (c *test) Name() string                { return "test" }
func (c *test) Partition(int) ids.Partition { return c.p }

func (c *test) Prepare(ctx context.Context, p *Prep) error {
	if err := p.Pin(ctx, c.pins...); err != nil {
		return err
	}
	if c.prepare != nil {
		return c.prepare(p)
	}
	return nil
}

func (c *test) Apply(tx *Tx) (any, error) { return c.apply(tx) }

// count reads a pinned counter, 0 if there is none.
func count(tx *Tx, k storage.Key) int {
	n, _ := tx.Get(k).Obj.(int)
	return n
}

func setCount(tx *Tx, k storage.Key, n int) { tx.Put(k, encodeInt(n), n) }

// add returns a command that adds to counters, logs it, and returns what the
// first one was before.
func add(p ids.Partition, n int, keys ...storage.Key) *test {
	return &test{p: p, pins: keys, apply: func(tx *Tx) (any, error) {
		before := count(tx, keys[0])
		for _, k := range keys {
			setCount(tx, k, count(tx, k)+n)
		}
		tx.Emit(Record{Kind: RecordUser, Entity: keys[0].Sort, Data: encodeInt(before)})
		return before, nil
	}}
}

// read returns a command that returns a counter as the loop sees it.
func read(p ids.Partition, k storage.Key) *test {
	return &test{p: p, pins: []storage.Key{k}, apply: func(tx *Tx) (any, error) { return count(tx, k), nil }}
}

// answer is what a caller got.
type answer struct {
	v   any
	err error
}

// send runs a command in a goroutine of its own.
func send(o *Owner, cmd Command) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		v, err := o.Do(context.Background(), cmd)
		out <- answer{v, err}
	}()
	return out
}

// inOneBatch runs commands one after another in one batch.
func inOneBatch(o *Owner, cmds ...Command) []answer {
	release := block(o)
	chans := make([]<-chan answer, len(cmds))
	for i, c := range cmds {
		chans[i] = send(o, c)
		waitQueued(o, i+1)
	}
	release()
	out := make([]answer, len(cmds))
	for i := range chans {
		out[i] = <-chans[i]
	}
	return out
}

// block keeps the loop busy with a command until it is released; what is queued
// meanwhile comes in the same batch.
func block(o *Owner) (release func()) {
	entered, leave := make(chan struct{}), make(chan struct{})
	done := send(o, &test{p: o.opts.Partition, apply: func(*Tx) (any, error) {
		close(entered)
		<-leave
		return nil, nil
	}})
	<-entered
	return func() {
		close(leave)
		<-done
	}
}

func waitQueued(o *Owner, n int) {
	for len(o.queue) < n {
		runtime.Gosched()
	}
}

// holdCommit makes the next commit wait. entered is closed when it has begun.
func (d *deployment) holdCommit() (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := func(ids.Partition) error {
		once.Do(func() {
			close(in)
			<-out
		})
		return nil
	}
	d.store.before.Store(&f)
	return in, func() { close(out) }
}

func must[T any](t fatal, v any, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("command: %v", err)
	}
	return v.(T)
}

// checkIdle checks that nothing holds a row of the cache any more.
func checkIdle(t *testing.T, o *Owner) {
	t.Helper()
	if _, err := o.Do(context.Background(), read(o.opts.Partition, counter(o.opts.Partition, "barrier"))); err != nil {
		t.Fatalf("barrier: %v", err)
	}
	c := o.rows
	c.mu.Lock()
	defer c.mu.Unlock()
	listed, bytes := 0, int64(0)
	for r := c.mu.lru.next; r != &c.mu.lru; r = r.next {
		listed++
		bytes += r.size()
		if c.mu.byKey[r.key] != r {
			t.Errorf("row %v is in the list and not in the map", r.key)
		}
	}
	for k, r := range c.mu.byKey {
		if r.refs != 0 || !c.specs[k.Table].Keep {
			t.Errorf("row %v: %d references in an idle owner", k, r.refs)
		}
	}
	if listed != len(c.mu.byKey) || bytes != c.mu.bytes || bytes > c.budget || len(c.mu.removed) != 0 {
		t.Errorf("cache has %d rows, %d listed, %d bytes counted as %d, budget %d, %d ranges",
			len(c.mu.byKey), listed, bytes, c.mu.bytes, c.budget, len(c.mu.removed))
	}
}

// noteEffect appends the payload to what its origin has sent so far.
type noteEffect struct{}

func noteKey(p, origin ids.Partition) storage.Key {
	return storage.Key{Partition: p, Table: received, Sort: string(rune('0' + origin))}
}

func (noteEffect) Prepare(ctx context.Context, p *Prep, e Effect) error {
	return p.Pin(ctx, noteKey(p.Partition(), e.Origin))
}

func (noteEffect) Apply(tx *Tx, e Effect) error {
	k := noteKey(tx.Partition(), e.Origin)
	value := append(append([]byte(nil), tx.Get(k).Value...), e.Payload...)
	tx.Put(k, value, nil)
	switch string(e.Payload) {
	case "refused;":
		return errDown
	case "panic;":
		panic("an effect that panics")
	}
	return nil
}

// outbox is how many effects of a partition are stored as not delivered.
func (d *deployment) outbox(p ids.Partition) int { return len(d.scan(p, tables.Outbox)) }

// echoEffect is an effect that sends a note to a partition, which its payload names.
type echoEffect struct{ d *deployment }

func (echoEffect) Prepare(context.Context, *Prep, Effect) error { return nil }

func (h echoEffect) Apply(tx *Tx, e Effect) error {
	tx.Effect(h.d.entityIn(ids.Partition(e.Payload[0])), "note", []byte("echo;"))
	return nil
}
