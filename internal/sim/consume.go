package sim

import (
	"context"
	"time"

	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
)

// listener is a consumer as search, push and application services are: it does something
// outside about each record, can fail before and after it did, and is given it again.
type listener struct {
	node *node
	dice *dice
}

var _ consumer.Handler = (*listener)(nil)

func (n *node) newConsumers(router partition.Router) (*consumer.Set, error) {
	if n.world.opts.Mutant == CursorAhead {
		router = hasty{router}
	}
	set := consumer.NewSet(consumer.Options{Store: n.store, Router: router, Clock: &n.clock, Log: n.world.log.With("node", n.id)})
	h := &listener{n, newDice(n.world.seed, "consumer "+string(n.id))}
	return set, set.Add(consumer.Consumer{Name: "sim", Start: consumer.AtBeginning, Handler: h})
}

// failing is how often a consumer fails, before and after.
const failing = 0.05

// Handle implements consumer.Handler.
func (h *listener) Handle(_ context.Context, b consumer.Batch) error {
	time.Sleep(h.dice.between(wireMin, 10*wireMax))
	if err := h.node.awake(); err != nil {
		return err
	}
	s := judge.Step{Partition: int(b.Partition), Node: string(h.node.id), Done: !h.dice.chance(failing)}
	for i := range b.Records {
		s.Records = append(s.Records, record(b.First+ids.Seq(i), &b.Records[i]))
	}
	w := h.node.world
	w.mu.Lock()
	w.mu.j.Steps = append(w.mu.j.Steps, s)
	if s.Done {
		w.mu.handled[b.Partition] = max(w.mu.handled[b.Partition], b.Last)
	}
	w.mu.Unlock()
	if !s.Done || h.dice.chance(failing) {
		return errNoWord
	}
	return h.node.awake()
}

// Missed implements consumer.Handler: no log of a run is long enough.
func (h *listener) Missed(_ context.Context, p ids.Partition, first, last ids.Seq) error {
	h.node.world.rec.Note("C12 partition %d: %d to %d were missed", p, first, last)
	return nil
}

func record(seq ids.Seq, r *partition.Record) judge.Record {
	return judge.Record{Seq: uint64(seq), Kind: int(r.Kind), Entity: r.Entity}
}

// hasty is what CursorAhead does to the cursor.
type hasty struct{ partition.Router }

// Do implements partition.Router.
func (h hasty) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if c, is := cmd.(partition.SaveCursor); is {
		c.To += 2
		cmd = c
	}
	return h.Router.Do(ctx, cmd)
}

// cursorMoved notes a cursor that was written.
func (w *world) cursorMoved(p ids.Partition, to ids.Seq) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.j.Steps = append(w.mu.j.Steps, judge.Step{Partition: int(p), Cursor: uint64(to)})
}

// awaitConsumer waits until all that is in the logs was handled.
func (w *world) awaitConsumer() {
	done := func() bool {
		for p := range ids.Partition(w.opts.Partitions) {
			heads, err := partition.Heads(w.ctx, w.db.inner, p)
			w.mu.Lock()
			handled := w.mu.handled[p]
			w.mu.Unlock()
			if err != nil || handled < heads[0] {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(settled); !done() && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
}

// readLogs reads the logs for the judge.
func (w *world) readLogs() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.j.Logs = make(map[int][]judge.Record)
	for p := range ids.Partition(w.opts.Partitions) {
		for at := ids.Seq(0); ; {
			const batches = 64
			list, err := partition.ReadLog(w.ctx, w.db.inner, p, at, batches)
			if err != nil {
				w.rec.Note("C12 the log of partition %d cannot be read: %v", p, err)
			}
			if len(list) == 0 {
				break
			}
			for _, b := range list {
				for i := range b.Records {
					w.mu.j.Logs[int(p)] = append(w.mu.j.Logs[int(p)], record(b.First+ids.Seq(i), &b.Records[i]))
				}
				at = b.Last
			}
		}
	}
}
