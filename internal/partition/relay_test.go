package partition

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// notes returns a command that sends numbered notes, each number once, to
// destinations.
func notes(d *deployment, p ids.Partition, dests ...ids.Partition) *test {
	var pins []storage.Key
	for _, dest := range dests {
		pins = append(pins, counter(p, fmt.Sprint("sent", dest)))
	}
	return &test{p: p, pins: pins, apply: func(tx *Tx) (any, error) {
		for i, dest := range dests {
			n := count(tx, pins[i]) + 1
			setCount(tx, pins[i], n)
			if n%3 == 0 { // a record of its own between effects
				tx.Emit(Record{Kind: RecordUser, Entity: "x"})
			}
			tx.Effect(d.entityIn(dest), "note", fmt.Appendf(nil, "%d;", n))
		}
		return nil, nil
	}}
}

// noted is what a destination has from an origin.
func (d *deployment) noted(p, origin ids.Partition) string {
	rows, err := d.store.Store.Get(context.Background(), noteKey(p, origin))
	if err != nil {
		d.t.Fatalf("get: %v", err)
	}
	return string(rows[0])
}

// sequence is the notes from 1 to n.
func sequence(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d;", i+1)
	}
	return b.String()
}

// checkNotes checks that every destination has what was sent to it, once and in
// order.
func (d *deployment) checkNotes() {
	d.t.Helper()
	for origin := range d.count {
		for dest := range d.count {
			o, p := ids.Partition(origin), ids.Partition(dest)
			sent := d.value(counter(o, fmt.Sprint("sent", dest)))
			if got := d.noted(p, o); got != sequence(sent) {
				d.t.Fatalf("%d sent %d notes to %d, which has %q", o, sent, p, got)
			}
		}
	}
}

// The caller is answered when the effects have been applied, not before.
func TestAnswerWaitsForEffects(t *testing.T) {
	d := newDeployment(t, 4)
	o := d.start(0)
	for p := range 3 {
		d.start(ids.Partition(p + 1))
	}
	defer d.stopAll()
	var open atomic.Bool
	arrived, leave := make(chan struct{}), make(chan struct{})
	hold := func(ctx context.Context, next Router, cmd Command) (any, error) {
		if cmd.Partition(d.count) == 3 {
			close(arrived)
			<-leave
		}
		return next.Do(ctx, cmd)
	}
	d.deliver.Store(&hold)
	out := make(chan bool, 1)
	go func() {
		_, err := o.Do(context.Background(), notes(d, 0, 1, 0, 3, 2, 1))
		out <- err == nil && open.Load()
	}()
	<-arrived
	// Others are not held up by one that waits.
	if _, err := o.Do(context.Background(), add(0, 1, counter(0, "k"))); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Do(context.Background(), notes(d, 0, 1, 2)); err != nil {
		t.Fatal(err)
	}
	open.Store(true)
	close(leave)
	if !<-out {
		t.Error("answered before all effects were applied")
	}
	d.checkNotes()
}

// Effects may have effects of their own, also where they came from: no relay waits
// for another, or for itself.
func TestEffectsOfEffects(t *testing.T) {
	d := newDeployment(t, 2)
	owners := []*Owner{d.start(0), d.start(1)}
	defer d.stopAll()
	const rounds = 100
	var wg sync.WaitGroup
	for origin, o := range owners {
		for dest := range owners {
			for back := range owners {
				wg.Go(func() {
					for range rounds {
						cmd := &test{p: ids.Partition(origin), apply: func(tx *Tx) (any, error) {
							tx.Effect(d.entityIn(ids.Partition(dest)), "echo", []byte{byte(back)})
							return nil, nil
						}}
						if _, err := o.Do(context.Background(), cmd); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
	wg.Wait()
	// Effects arrive in order: behind these notes there are no echoes under way.
	for p, o := range owners {
		if _, err := o.Do(context.Background(), notes(d, ids.Partition(p), 0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.Repeat("echo;", len(owners)*rounds) + "1;"
	for p := range owners {
		for origin := range owners {
			if got := d.noted(ids.Partition(p), ids.Partition(origin)); got != want {
				t.Errorf("%d has from %d %d bytes, want %d", p, origin, len(got), len(want))
			}
		}
	}
}

func TestOutboxIsEmptied(t *testing.T) {
	d := newDeployment(t, 4)
	o := d.start(0)
	for p := range 3 {
		d.start(ids.Partition(p + 1))
	}
	defer d.stopAll()
	for range 10 {
		if _, err := o.Do(context.Background(), notes(d, 0, 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if d.outbox(0) == 0 {
		t.Error("nothing in the outbox, where the last effects wait for a commit")
	}
	if _, err := o.Do(context.Background(), add(0, 1, counter(0, "k"))); err != nil {
		t.Fatal(err)
	}
	if n := d.outbox(0); n != 0 {
		t.Errorf("%d effects that arrived are still in the outbox", n)
	}
}

// Few rows are removed one by one, many as one range, and nothing beside them.
func TestRemovals(t *testing.T) {
	for _, n := range []int{1, maxRemovals, maxRemovals + 1, maxEffects} {
		items := make([]outItem, n)
		for i := range items {
			items[i].effect = Effect{Origin: 1, Dest: 2, Seq: 7, Index: uint16(i)}
		}
		got := removals(items)
		want := n
		if n > maxRemovals {
			want = 1
		}
		if len(got) != want || (got[0].end != "") != (n > maxRemovals) {
			t.Fatalf("%d rows: %d removals, the first to %q", n, len(got), got[0].end)
		}
		gone := func(e Effect) bool {
			k := outboxKey(&e)
			return slices.ContainsFunc(got, func(r removal) bool {
				return r.key == k || r.end != "" && r.key.Sort <= k.Sort && k.Sort < r.end
			})
		}
		for i := range items {
			if !gone(items[i].effect) {
				t.Errorf("%d rows: row %d stays", n, i)
			}
		}
		for _, other := range []Effect{
			{Origin: 1, Dest: 2, Seq: 6, Index: 9},
			{Origin: 1, Dest: 2, Seq: 7, Index: uint16(n)},
			{Origin: 1, Dest: 1, Seq: 7},
			{Origin: 1, Dest: 3, Seq: 7},
		} {
			if gone(other) {
				t.Errorf("%d rows: %+v goes too", n, other)
			}
		}
	}
}

// The numbers of effects rise over the commands of a batch and the batches.
func TestEffectNumbers(t *testing.T) {
	d := newDeployment(t, 2)
	o := d.start(0)
	down := func(context.Context, Router, Command) (any, error) { return nil, errDown }
	d.deliver.Store(&down)
	bare := &test{apply: func(tx *Tx) (any, error) {
		tx.Effect(d.entityIn(1), "note", []byte("bare;"))
		tx.Effect(d.entityIn(1), "note", []byte("bare2;"))
		return nil, nil
	}}
	refused := &test{apply: func(tx *Tx) (any, error) {
		tx.Effect(d.entityIn(1), "note", []byte("refused;"))
		return nil, errDown
	}}
	release := block(o)
	var answers []<-chan answer
	for i, c := range []Command{notes(d, 0, 1), bare, refused, notes(d, 0, 1, 1), bare, notes(d, 0, 1)} {
		answers = append(answers, send(o, c))
		waitQueued(o, i+1)
	}
	release()
	for o.Head() == 0 {
		<-answers[2]
	}
	rows := d.scan(0, tables.Outbox)
	want := []string{"1;", "bare;", "bare2;", "2;", "3;", "bare;", "bare2;", "4;"}
	for i, r := range rows {
		e, err := decodeOutbox(0, r)
		if err != nil || e.Dest != 1 || i >= len(want) || string(e.Payload) != want[i] {
			t.Errorf("outbox row %d: %+v %q, %v", i, e, e.Payload, err)
		}
	}
	if len(rows) != len(want) {
		t.Errorf("%d effects in the outbox, want %d", len(rows), len(want))
	}
	d.stop(0)
	for i, a := range answers {
		if got := <-a; i != 2 && !errors.Is(got.err, ErrLost) {
			t.Errorf("a caller whose effects have not arrived got %v", got)
		}
	}
	d.deliver.Store(nil)
	d.start(1)
	o = d.start(0)
	defer d.stopAll()
	if _, err := o.Do(context.Background(), notes(d, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if got := d.noted(1, 0); got != strings.Join(want, "")+"5;" {
		t.Errorf("arrived: %q", got)
	}
}

// An effect that cannot be applied leaves nothing and holds nobody up.
func TestBadEffectIsPassedOver(t *testing.T) {
	d := newDeployment(t, 2)
	d.measure()
	d.start(1)
	o := d.start(0)
	defer d.stopAll()
	for _, payload := range []string{"a;", "refused;", "b;", "panic;", "c;"} {
		cmd := &test{apply: func(tx *Tx) (any, error) { tx.Effect(d.entityIn(1), "note", []byte(payload)); return nil, nil }}
		if _, err := o.Do(context.Background(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.noted(1, 0); got != "a;b;c;" {
		t.Errorf("arrived: %q", got)
	}
	if n := d.measured("bad_effects_total"); n != 2 {
		t.Errorf("%v bad effects counted", n)
	}
}

// Effects that together exceed what a command may write arrive all the same.
func TestLargeEffects(t *testing.T) {
	d := newDeployment(t, 2)
	o := d.start(0)
	defer d.stopAll()
	const n, size = 60, 1 << 20
	var answers []<-chan answer
	for range n {
		answers = append(answers, send(o, &test{apply: func(tx *Tx) (any, error) {
			tx.Effect(d.entityIn(1), "big", make([]byte, size))
			return nil, nil
		}}))
	}
	for d.outbox(0) < n && len(d.lostErrors(0)) == 0 {
		runtime.Gosched()
	}
	d.start(1)
	for _, a := range answers {
		if v := <-a; v.err != nil {
			t.Fatal(v.err)
		}
	}
	got := 0
	for _, row := range d.scan(1, marks) {
		got += len(row.Value)
	}
	if got != n*size {
		t.Errorf("%d bytes arrived", got)
	}
}

// bigEffect stores what it receives, under a key for each.
type bigEffect struct{}

func (bigEffect) Prepare(context.Context, *Prep, Effect) error { return nil }

func (bigEffect) Apply(tx *Tx, e Effect) error {
	tx.Put(mark1(tx.Partition(), fmt.Sprint(e.Seq)), e.Payload, nil)
	return nil
}

// Whatever dies between a commit and the answer of a destination, effects are
// applied once and in order.
func TestEffectsSurviveCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDeployment(rt, 4)
		for p := range d.count {
			d.start(ids.Partition(p))
		}
		defer d.stopAll()
		w := &weather{d: d}
		w.install()
		partition := rapid.Map(rapid.IntRange(0, 3), func(n int) ids.Partition { return ids.Partition(n) })
		var wg sync.WaitGroup
		rt.Repeat(map[string]func(*rapid.T){
			"send": func(rt *rapid.T) {
				p := partition.Draw(rt, "origin")
				dests := rapid.SliceOfN(partition, 1, 4).Draw(rt, "dests")
				wg.Go(func() { _, _ = direct{d}.Do(context.Background(), notes(d, p, dests...)) })
			},
			"weather": func(rt *rapid.T) { w.mode.Store(rapid.Int32Range(0, 3).Draw(rt, "mode")) },
			"restart": func(rt *rapid.T) {
				p := partition.Draw(rt, "partition")
				d.stop(p)
				d.start(p)
			},
			"commit fails": func(rt *rapid.T) {
				p := partition.Draw(rt, "partition")
				w.failNext(p, rapid.Bool().Draw(rt, "applied"))
			},
		})
		w.calm()
		for p := range d.count {
			d.stop(ids.Partition(p))
			d.start(ids.Partition(p))
		}
		wg.Wait()
		for p := range d.count {
			// The last ones arrive after all that were there before.
			if _, err := (direct{d}).Do(context.Background(), notes(d, ids.Partition(p), 0, 1, 2, 3)); err != nil {
				rt.Fatalf("send: %v", err)
			}
		}
		d.checkNotes()
	})
}

// weather is what happens to deliveries: 0 nothing, 1 they do not arrive, 2 they
// arrive and the answer is lost, 3 every other of either.
type weather struct {
	d    *deployment
	mode atomic.Int32
	n    atomic.Int32
}

func (w *weather) install() {
	f := func(ctx context.Context, next Router, cmd Command) (any, error) {
		mode := w.mode.Load()
		if n := w.n.Add(1); mode == 3 {
			mode = 1 + n%2
		}
		if mode == 1 {
			return nil, errDown
		}
		v, err := next.Do(ctx, cmd)
		if mode == 2 && w.n.Load()%4 != 0 {
			return nil, errDown
		}
		return v, err
	}
	w.d.deliver.Store(&f)
}

// failNext lets the next commit of a partition fail.
func (w *weather) failNext(p ids.Partition, applied bool) {
	var once sync.Once
	f := func(q ids.Partition) (err error) {
		if p == q {
			once.Do(func() { err = errDown })
		}
		return err
	}
	if applied {
		w.d.store.after.Store(&f)
	} else {
		w.d.store.before.Store(&f)
	}
}

func (w *weather) calm() {
	w.mode.Store(0)
	w.d.store.before.Store(nil)
	w.d.store.after.Store(nil)
}
