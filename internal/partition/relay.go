package partition

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Back-off of the relay when a destination does not answer: quick enough that a
// restart of the destination is hardly felt, slow enough not to be a load.
const (
	relayRetryMin = 10 * time.Millisecond
	relayRetryMax = time.Second
)

// outItem is an effect on its way; task is whose caller waits for it, nil if
// nobody does any more.
type outItem struct {
	effect Effect
	task   *task
}

// relay carries committed effects to their destinations: in order for each
// destination, again and again until they are applied. One goroutine runs for
// each destination that has something to receive.
type relay struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		closed  bool
		queues  map[ids.Partition][]outItem
		running map[ids.Partition]bool
		// arrived are the removals of the outbox rows of effects that were applied
		// and are still there.
		arrived []removal
		// moved is closed when effects arrive; nil while nobody waits for that.
		moved chan struct{}
	}
}

// removal takes one row out of the outbox, or those of one destination from key to
// before end.
type removal struct {
	key storage.Key
	end string
}

// maxRemovals is up to how many rows of the outbox are removed one by one. A store
// keeps removed ranges apart from rows and looks at all of them in every read, so
// many of them cost all who read: one is only for what is more than a few rows.
const maxRemovals = 16

func newRelay(opts Options) *relay {
	r := &relay{opts: opts}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.queues = make(map[ids.Partition][]outItem)
	r.mu.running = make(map[ids.Partition]bool)
	return r
}

// push queues effects behind those of earlier batches.
func (r *relay) push(items []outItem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range items {
		d := it.effect.Dest
		r.mu.queues[d] = append(r.mu.queues[d], it)
		if !r.mu.running[d] && !r.mu.closed {
			r.mu.running[d] = true
			r.wg.Go(func() { r.run(d) })
		}
	}
	if r.mu.closed {
		r.abandonLocked()
	}
}

func (r *relay) run(dest ids.Partition) {
	backoff := relayRetryMin
	for {
		items := r.next(dest)
		if len(items) == 0 {
			return
		}
		cmd := &ApplyEffects{Origin: r.opts.Partition, Dest: dest, Effects: make([]Effect, len(items))}
		for i := range items {
			cmd.Effects[i] = items[i].effect
		}
		if _, err := r.opts.Router.Do(r.ctx, cmd); err != nil {
			if r.ctx.Err() != nil {
				return
			}
			r.opts.logger().Warn("effects delayed", "dest", dest, "error", err)
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, relayRetryMax)
			continue
		}
		backoff = relayRetryMin
		r.done(dest, items)
	}
}

// next returns the first effects for dest without removing them; none left ends
// the goroutine.
func (r *relay) next(dest ids.Partition) []outItem {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.mu.queues[dest]
	if len(q) == 0 || r.mu.closed {
		r.mu.running[dest] = false
		return nil
	}
	n, bytes := 0, 0
	for n < len(q) && n < maxEffects && (n == 0 || bytes < maxEffectBytes) {
		bytes += len(q[n].effect.Payload)
		n++
	}
	return q[:n:n]
}

func (r *relay) done(dest ids.Partition, items []outItem) {
	gone := removals(items)
	r.mu.Lock()
	rest := r.mu.queues[dest][len(items):]
	if len(rest) == 0 {
		rest = nil
	}
	r.mu.queues[dest] = rest
	r.mu.arrived = append(r.mu.arrived, gone...)
	if r.mu.moved != nil {
		close(r.mu.moved)
		r.mu.moved = nil
	}
	r.mu.Unlock()
	for _, it := range items {
		if it.task != nil && it.task.effects.Add(-1) == 0 {
			it.task.finish()
		}
	}
}

// removals says how the rows of effects of one destination, which follow one
// another in the outbox, leave it.
func removals(items []outItem) []removal {
	if len(items) > maxRemovals {
		return []removal{{outboxKey(&items[0].effect), outboxKey(&items[len(items)-1].effect).Sort + "\x00"}}
	}
	out := make([]removal, len(items))
	for i := range items {
		out[i].key = outboxKey(&items[i].effect)
	}
	return out
}

// appendArrived adds the removal of outbox rows that are no longer needed. If
// the commit fails they stay, and are found applied when they are sent again.
func (r *relay) appendArrived(b *storage.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, gone := range r.mu.arrived {
		if gone.end == "" {
			b.Delete(gone.key)
		} else {
			b.DeleteRange(gone.key, gone.end)
		}
	}
	r.mu.arrived = nil
}

// abandonLocked answers callers whose effects this owner will not see applied.
// They are durable; the next owner sends them.
func (r *relay) abandonLocked() {
	for d, q := range r.mu.queues {
		for _, it := range q {
			if it.task == nil {
				continue
			}
			it.task.res, it.task.err = nil, lost(nil)
			if it.task.effects.Add(-1) == 0 {
				it.task.finish()
			}
		}
		delete(r.mu.queues, d)
	}
}

// settle waits until nobody waits for effects any more.
func (r *relay) settle(ctx context.Context) {
	for {
		r.mu.Lock()
		awaited := false
		for _, q := range r.mu.queues {
			for i := range q {
				awaited = awaited || q[i].task != nil
			}
		}
		if r.mu.moved == nil {
			r.mu.moved = make(chan struct{})
		}
		moved := r.mu.moved
		r.mu.Unlock()
		if !awaited {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// close stops sending and waits for what is under way.
func (r *relay) close() {
	r.mu.Lock()
	r.mu.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandonLocked()
}

func outboxKey(e *Effect) storage.Key {
	b := make([]byte, 0, 12)
	b = binary.BigEndian.AppendUint16(b, uint16(e.Dest))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint16(b, e.Index)
	return storage.Key{Partition: e.Origin, Table: tables.Outbox, Sort: string(b)}
}

func encodeOutbox(e *Effect) []byte {
	b := appendString(make([]byte, 0, len(e.Kind)+len(e.Payload)+4), e.Kind)
	return append(b, e.Payload...)
}

func decodeOutbox(p ids.Partition, row storage.Entry) (Effect, error) {
	d := decoder{b: row.Value}
	kind := d.bytes()
	if d.err != nil || len(row.Sort) != 12 {
		return Effect{}, fmt.Errorf("decode outbox row: %w", errTruncated)
	}
	s := []byte(row.Sort)
	return Effect{
		Origin: p, Kind: string(kind), Payload: d.b,
		Dest:  ids.Partition(binary.BigEndian.Uint16(s)),
		Seq:   ids.Seq(binary.BigEndian.Uint64(s[2:])),
		Index: binary.BigEndian.Uint16(s[10:]),
	}, nil
}

// loadOutbox reads the effects that an earlier owner left.
func loadOutbox(ctx context.Context, st storage.Store, p ids.Partition) ([]outItem, error) {
	var out []outItem
	outbox := storage.Range{Partition: p, Table: tables.Outbox, Limit: storage.MaxScan}
	err := storage.Each(ctx, st, outbox, func(row storage.Entry) (more bool, err error) {
		e, err := decodeOutbox(p, row)
		out = append(out, outItem{effect: e})
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return out, nil
}

// ApplyEffects is the relay's command to a destination partition.
type ApplyEffects struct {
	Origin, Dest ids.Partition
	Effects      []Effect
}

var _ Command = (*ApplyEffects)(nil)

// Name implements Command.
func (*ApplyEffects) Name() string { return "apply_effects" }

// Partition implements Command.
func (c *ApplyEffects) Partition(int) ids.Partition { return c.Dest }

func (c *ApplyEffects) cursor() storage.Key {
	return storage.Key{
		Partition: c.Dest, Table: tables.Cursor,
		Sort: string(binary.BigEndian.AppendUint16(nil, uint16(c.Origin))),
	}
}

// Prepare implements Command.
func (c *ApplyEffects) Prepare(ctx context.Context, p *Prep) error {
	if err := p.Pin(ctx, c.cursor()); err != nil {
		return err
	}
	for _, e := range c.Effects {
		h := p.owner.opts.Effects[e.Kind]
		if h == nil {
			return fmt.Errorf("effect kind %q is not known", e.Kind)
		}
		if err := h.Prepare(ctx, p, e); err != nil {
			return fmt.Errorf("prepare effect %q: %w", e.Kind, err)
		}
	}
	return nil
}

// Apply implements Command. Effects at or before the cursor were applied before.
func (c *ApplyEffects) Apply(tx *Tx) (any, error) {
	o := tx.owner
	var last string
	if v := tx.Get(c.cursor()).Value; v != nil {
		last = string(v)
	}
	applied := false
	for _, e := range c.Effects {
		pos := outboxKey(&e).Sort[2:]
		if pos <= last {
			continue
		}
		begin := tx.mark()
		err := o.guarded(e.Kind, func() error { return o.opts.Effects[e.Kind].Apply(tx, e) })
		if err != nil {
			tx.undo(begin)
			o.opts.Metrics.badEffect()
			o.opts.logger().Error("effect passed over", "kind", e.Kind, "origin", e.Origin, "seq", e.Seq, "error", err)
		}
		last, applied = pos, true
	}
	if applied {
		tx.Put(c.cursor(), []byte(last), nil)
	}
	return nil, nil
}
