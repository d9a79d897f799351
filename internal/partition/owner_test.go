package partition

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Whatever runs at once, the outcome is that of some order: transfers between
// counters keep their sum in every command's eyes, and a ticket is given out once.
func TestSerialEquivalence(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDeployment(rt, 1)
		d.budget = rapid.SampledFrom([]int64{0, 600, 1 << 20}).Draw(rt, "budget")
		o := d.start(0)
		defer o.Close()
		names := []string{"a", "b", "c", "d"}
		all := make([]storage.Key, len(names))
		for i, n := range names {
			all[i] = counter(0, n)
		}
		moves := rapid.SliceOfN(rapid.IntRange(0, 15), 1, 60).Draw(rt, "moves")
		tickets := make([]int, len(moves))
		var wg sync.WaitGroup
		for i, m := range moves {
			wg.Go(func() {
				v, err := o.Do(context.Background(), transfer(all, m/4, m%4))
				if err != nil {
					rt.Errorf("transfer: %v", err)
					return
				}
				tickets[i] = v.(int)
			})
		}
		wg.Wait()
		sum := 0
		for _, k := range all {
			sum += d.value(k)
		}
		slices.Sort(tickets)
		for i, n := range tickets {
			if n != i {
				rt.Fatalf("tickets given out: %v", tickets)
			}
		}
		if sum != 0 {
			rt.Fatalf("sum %d after transfers", sum)
		}
	})
}

// transfer moves 1 from one counter to another, checks that all counters have the
// sum 0, and returns a ticket.
func transfer(all []storage.Key, from, to int) *test {
	ticket := counter(0, "ticket")
	return &test{pins: append(slices.Clone(all), ticket), apply: func(tx *Tx) (any, error) {
		sum := 0
		for _, k := range all {
			sum += count(tx, k)
		}
		if sum != 0 {
			return nil, fmt.Errorf("sum is %d", sum)
		}
		setCount(tx, all[from], count(tx, all[from])-1)
		setCount(tx, all[to], count(tx, all[to])+1)
		n := count(tx, ticket)
		setCount(tx, ticket, n+1)
		return n, nil
	}}
}

// once adds 1 to a counter if a mark is not set yet, and returns what the first
// call with that mark returned.
func once(p ids.Partition, name string) *test {
	k, m := counter(p, "n"), mark1(p, name)
	return &test{p: p, pins: []storage.Key{k, m}, apply: func(tx *Tx) (any, error) {
		if v := tx.Get(m).Value; v != nil {
			return string(v), nil
		}
		n := count(tx, k) + 1
		setCount(tx, k, n)
		tx.Put(m, fmt.Append(nil, n), nil)
		return fmt.Sprint(n), nil
	}}
}

func TestRepeatedCommandHasOneEffect(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	answers := make([]<-chan answer, 40)
	for i := range answers {
		answers[i] = send(o, once(0, fmt.Sprint(i%2)))
	}
	seen := map[string]bool{}
	for _, a := range answers {
		v := <-a
		seen[must[string](t, v.v, v.err)] = true
	}
	d.stop(0)
	o = d.start(0)
	defer o.Close()
	for i := range 2 {
		v, err := o.Do(context.Background(), once(0, fmt.Sprint(i)))
		seen[must[string](t, v, err)] = true
	}
	if n := d.value(counter(0, "n")); n != 2 || len(seen) != 2 {
		t.Errorf("counter %d, answers %v; want two of each", n, seen)
	}
}

func TestFailedCommandLeavesNoTrace(t *testing.T) {
	k, other := counter(0, "k"), counter(0, "other")
	ways := map[string]func(tx *Tx) error{
		"error":    func(*Tx) error { return errDown },
		"retry":    func(tx *Tx) error { return fmt.Errorf("not now: %w", errDown) },
		"panic":    func(*Tx) error { panic("a command that panics") },
		"unpinned": func(tx *Tx) error { tx.Get(mark1(0, "nobody pinned this")); return nil },
		"long key": func(tx *Tx) error {
			tx.Put(storage.Key{Table: marks, Sort: strings.Repeat("x", storage.MaxSort+1)}, nil, nil)
			return nil
		},
		"wrong partition": func(tx *Tx) error { tx.Put(counter(1, "k"), nil, nil); return nil },
		"large value":     func(tx *Tx) error { tx.Put(k, make([]byte, storage.MaxValue+1), 0); return nil },
		"large in sum": func(tx *Tx) error {
			for i := range 10 {
				tx.Put(mark1(0, fmt.Sprint(i)), make([]byte, storage.MaxValue), nil)
			}
			return nil
		},
		"large effects": func(tx *Tx) error {
			for range 10 {
				tx.Effect("x", "note", make([]byte, storage.MaxValue))
			}
			return nil
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t, 1)
			d.measure()
			o := d.start(0)
			defer o.Close()
			bad := &test{pins: []storage.Key{k, other}, apply: func(tx *Tx) (any, error) {
				setCount(tx, k, 100)
				tx.Delete(other)
				tx.Emit(Record{Kind: RecordUser, Entity: "bad"})
				tx.Effect("x", "note", []byte("bad;"))
				tx.DeleteRange(counter(0, ""), "")
				setCount(tx, other, 7)
				return "bad", way(tx)
			}}
			got := inOneBatch(o, add(0, 1, k, other), bad, add(0, 1, k), read(0, other))
			if got[0].v != 0 || got[1].err == nil || got[1].v != nil || got[2].v != 1 || got[3].v != 1 {
				t.Errorf("answers %v", got)
			}
			log, err := ReadLog(context.Background(), d.store, 0, 0, 10)
			if err != nil || len(log) != 1 || len(log[0].Records) != 2 || log[0].Last != 2 {
				t.Errorf("log %+v, %v", log, err)
			}
			if d.value(k) != 2 || d.value(other) != 1 || d.outbox(0) != 0 || len(d.scan(0, received)) != 0 {
				t.Errorf("stored: %d, %d", d.value(k), d.value(other))
			}
			panics := d.measured("panics_total")
			if want := name == "panic" || name == "unpinned"; want != (panics == 1) {
				t.Errorf("%v panics counted", panics)
			}
			checkIdle(t, o)
		})
	}
}

// A refusal may rest on a write of the same batch; it is worth nothing before
// that is committed.
func TestRefusalWaitsForCommit(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	if _, err := o.Do(context.Background(), add(0, 1, counter(0, "k"))); err != nil {
		t.Fatal(err)
	}
	var committed atomic.Bool
	refused := make(chan bool, 1)
	entered, release := d.holdCommit()
	unblock := block(o)
	second := send(o, add(0, 1, counter(0, "k")))
	waitQueued(o, 1)
	go func() {
		_, err := o.Do(context.Background(), &test{pins: []storage.Key{counter(0, "k")}, apply: func(tx *Tx) (any, error) {
			return nil, merr.ForbiddenErr("it is %d", count(tx, counter(0, "k")))
		}})
		refused <- committed.Load() && merr.Is(err, merr.Forbidden) && strings.Contains(err.Error(), "it is 2")
	}()
	waitQueued(o, 2)
	go unblock()
	<-entered
	for range 1000 {
		runtime.Gosched()
	}
	committed.Store(true)
	release()
	<-second
	if !<-refused {
		t.Error("refused before the batch was committed, or for another reason")
	}
}

// A refusal of an owner that has lost the partition is no answer.
func TestRefusalChecksEpoch(t *testing.T) {
	d := newDeployment(t, 1)
	old := d.start(0)
	defer old.Close()
	owner := d.start(0)
	defer owner.Close()
	refuse := &test{apply: func(*Tx) (any, error) { return nil, merr.ForbiddenErr("no") }}
	if _, err := owner.Do(context.Background(), refuse); !merr.Is(err, merr.Forbidden) {
		t.Errorf("the owner refuses with %v", err)
	}
	if _, err := old.Do(context.Background(), refuse); !errors.Is(err, ErrClosing) || errors.Is(err, ErrLost) {
		t.Errorf("who lost the partition answers %v", err)
	}
	<-old.Done()
}

func TestPrepareAgain(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	for _, failures := range []int{0, 1, maxAttempts - 1, maxAttempts} {
		prepared, applied := 0, 0
		cmd := &test{
			pins:    []storage.Key{counter(0, "k")},
			prepare: func(*Prep) error { prepared++; return nil },
			apply: func(tx *Tx) (any, error) {
				setCount(tx, counter(0, "k"), 1)
				if applied++; applied <= failures {
					return nil, fmt.Errorf("changed: %w", ErrRetry)
				}
				return "done", nil
			},
		}
		v, err := o.Do(context.Background(), cmd)
		if failures < maxAttempts {
			if v != "done" || err != nil || prepared != failures+1 {
				t.Errorf("%d failures: %v, %v, prepared %d times", failures, v, err, prepared)
			}
			continue
		}
		if merr.From(err).Status != http.StatusServiceUnavailable || prepared != maxAttempts {
			t.Errorf("%d failures: %v, prepared %d times", failures, err, prepared)
		}
	}
	checkIdle(t, o)
}

func TestPrepareThatFailsReleasesPins(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	for _, prepare := range []func(*Prep) error{
		func(*Prep) error { return errDown },
		func(*Prep) error { panic("in Prepare") },
		func(p *Prep) error { return p.Pin(context.Background(), counter(1, "k")) },
		func(p *Prep) error { return p.Pin(context.Background(), storage.Key{Table: 99}) },
		func(p *Prep) error {
			return p.Pin(context.Background(), counter(0, strings.Repeat("x", storage.MaxSort+1)))
		},
	} {
		func() {
			defer func() { recover() }()
			cmd := &test{pins: []storage.Key{counter(0, "a"), mark1(0, "m")}, prepare: prepare}
			if _, err := o.Do(context.Background(), cmd); err == nil {
				t.Error("no error")
			}
		}()
	}
	checkIdle(t, o)
}

func TestQueueOverflow(t *testing.T) {
	d := newDeployment(t, 1)
	d.measure()
	o := d.start(0)
	defer o.Close()
	k := counter(0, "k")
	release := block(o)
	const extra = 50
	answers := make([]<-chan answer, QueueLength+extra)
	for i := range answers {
		answers[i] = send(o, add(0, 1, k))
		if i == QueueLength-1 {
			waitQueued(o, QueueLength)
		}
	}
	overflow := 0
	for d.measured("overloads_total") < extra {
		runtime.Gosched()
	}
	release()
	for _, a := range answers {
		if got := <-a; got.err != nil {
			e := merr.From(got.err)
			if e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 || errors.Is(got.err, ErrLost) {
				t.Fatalf("refused with %v", got.err)
			}
			overflow++
		}
	}
	if n := d.value(k); overflow != extra || n != QueueLength {
		t.Errorf("%d refused, %d applied", overflow, n)
	}
	checkIdle(t, o)
}

func TestCommitFails(t *testing.T) {
	k := counter(0, "k")
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied=%v", applied), func(t *testing.T) {
			d := newDeployment(t, 1)
			o := d.start(0)
			if _, err := o.Do(context.Background(), add(0, 1, k)); err != nil {
				t.Fatal(err)
			}
			fail := func(ids.Partition) error { return errDown }
			hook, rows, head := &d.store.before, 1, ids.Seq(1)
			if applied {
				hook, rows, head = &d.store.after, 3, 3
			}
			hook.Store(&fail)
			got := inOneBatch(o, add(0, 1, k), &test{apply: func(*Tx) (any, error) { return nil, errDown }}, add(0, 1, k))
			for i, a := range got {
				if !errors.Is(a.err, ErrLost) || merr.From(a.err).Status != http.StatusServiceUnavailable || a.v != nil {
					t.Errorf("caller %d got %v", i, a)
				}
			}
			<-o.Done()
			hook.Store(nil)
			if lost := d.lostErrors(1); len(lost) != 1 || !errors.Is(lost[0], errDown) {
				t.Errorf("Lost called with %v", lost)
			}
			if _, err := o.Do(context.Background(), add(0, 1, k)); !errors.Is(err, ErrClosing) {
				t.Errorf("after the end: %v", err)
			}
			if n := len(d.allPublished()); n != 1 {
				t.Errorf("%d batches published", n)
			}
			d.stop(0)
			next := d.start(0)
			defer next.Close()
			if next.Head() != head || next.Epoch() <= o.Epoch() {
				t.Errorf("new owner at %d, epoch %d", next.Head(), next.Epoch())
			}
			v, err := next.Do(context.Background(), add(0, 1, k))
			if must[int](t, v, err) != rows || next.Head() != head+1 {
				t.Errorf("new owner read %v, is at %d", v, next.Head())
			}
			checkLog(t, d, 0, head+1)
		})
	}
}

// checkLog checks that the stored log is contiguous from 1 to head.
func checkLog(t fatal, d *deployment, p ids.Partition, head ids.Seq) {
	t.Helper()
	at := ids.Seq(0)
	for {
		log, err := ReadLog(context.Background(), d.store, p, at, 3)
		if err != nil {
			t.Fatalf("read log behind %d: %v", at, err)
		}
		for _, b := range log {
			if b.First != at+1 || int(b.Last-b.First)+1 != len(b.Records) {
				t.Fatalf("batch %d to %d with %d records behind %d", b.First, b.Last, len(b.Records), at)
			}
			at = b.Last
		}
		if len(log) == 0 {
			break
		}
	}
	if at != head {
		t.Fatalf("log ends at %d, want %d", at, head)
	}
}

// A caller that goes away gets an unknown outcome, and costs nothing.
func TestCallerGoesAway(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	release := block(o)
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan error, 1)
	go func() {
		_, err := o.Do(ctx, add(0, 1, counter(0, "k"), counter(0, "l")))
		out <- err
	}()
	waitQueued(o, 1)
	cancel()
	if err := <-out; !errors.Is(err, ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("caller got %v", err)
	}
	release()
	checkIdle(t, o)
	if d.value(counter(0, "k")) != 1 {
		t.Error("the command was queued and not applied")
	}
}

// Close answers everybody, and an answer without an error is the truth.
func TestCloseWhileBusy(t *testing.T) {
	for range 20 {
		d := newDeployment(t, 1)
		o := d.start(0)
		var done atomic.Int64
		var wg, begun sync.WaitGroup
		begun.Add(16)
		for range 16 {
			wg.Go(func() {
				begin := sync.OnceFunc(begun.Done)
				for {
					_, err := o.Do(context.Background(), add(0, 1, counter(0, "k")))
					begin()
					if err != nil {
						if !errors.Is(err, ErrLost) && !errors.Is(err, ErrClosing) {
							t.Errorf("closing owner answers %v", err)
						}
						return
					}
					done.Add(1)
				}
			})
		}
		begun.Wait()
		o.Close()
		wg.Wait()
		o.Close() // again: nothing happens
		if n := d.value(counter(0, "k")); int64(n) != done.Load() {
			t.Fatalf("%d done, %d answered", n, done.Load())
		}
	}
}
