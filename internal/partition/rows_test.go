package partition

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// A command prepared while another's batch is on its way to the store sees what
// that one wrote, whether or not the row was in memory.
func TestPinsFollowUncommittedWrites(t *testing.T) {
	k := counter(0, "k")
	blind := &test{apply: func(tx *Tx) (any, error) {
		setCount(tx, k, 5)
		setCount(tx, counter(0, "that nobody looks at"), 5)
		return nil, nil
	}}
	for name, c := range map[string]struct {
		write *test
		want  int
	}{
		"pinned":  {add(0, 5, k), 6},
		"blind":   {blind, 5},
		"removed": {&test{pins: []storage.Key{k}, apply: func(tx *Tx) (any, error) { tx.Delete(k); return nil, nil }}, 0},
		"range, not in memory": {&test{apply: func(tx *Tx) (any, error) {
			tx.DeleteRange(counter(0, "a"), "z")
			return nil, nil
		}}, 0},
		"range beside": {&test{apply: func(tx *Tx) (any, error) {
			tx.DeleteRange(counter(0, "a"), "k")
			tx.DeletePrefix(counter(0, "ka"))
			tx.DeleteRange(counter(0, "l"), "")
			tx.DeleteRange(storage.Key{Table: counters, Entity: "e"}, "")
			tx.DeleteRange(mark1(0, ""), "")
			return nil, nil
		}}, 1},
		"range, then put": {&test{apply: func(tx *Tx) (any, error) {
			tx.DeleteRange(counter(0, ""), "")
			setCount(tx, k, 9)
			return nil, nil
		}}, 9},
		"put, then range": {&test{apply: func(tx *Tx) (any, error) {
			setCount(tx, k, 9)
			tx.DeletePrefix(counter(0, "k"))
			return nil, nil
		}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t, 1)
			d.budget = 0 // nothing stays in memory by itself
			o := d.start(0)
			defer o.Close()
			if _, err := o.Do(context.Background(), add(0, 1, k)); err != nil {
				t.Fatal(err)
			}
			entered, release := d.holdCommit()
			first := send(o, c.write)
			<-entered
			second := read(0, k)
			prepared := make(chan struct{})
			second.prepare = func(*Prep) error { close(prepared); return nil }
			got := send(o, second)
			<-prepared
			release()
			<-first
			if a := <-got; a.v != c.want || a.err != nil {
				t.Errorf("read %v, %v; want %d", a.v, a.err, c.want)
			}
			if n := d.value(k); n != c.want {
				t.Errorf("stored %d, want %d", n, c.want)
			}
			checkIdle(t, o)
		})
	}
}

// A command sees its own removal of a range.
func TestRangeInOneCommand(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	a, b := counter(0, "a"), counter(0, "b")
	cmd := &test{pins: []storage.Key{a, b}, apply: func(tx *Tx) (any, error) {
		setCount(tx, a, 1)
		setCount(tx, b, 2)
		tx.DeleteRange(a, "b")
		if n := count(tx, a) + 10*count(tx, b); n != 20 {
			return nil, fmt.Errorf("sees %d", n)
		}
		setCount(tx, a, 3)
		return count(tx, a), nil
	}}
	v, err := o.Do(context.Background(), cmd)
	if must[int](t, v, err) != 3 || d.value(a) != 3 || d.value(b) != 2 {
		t.Errorf("saw %v, stored %d and %d", v, d.value(a), d.value(b))
	}
}

// A load that read the store before a commit and comes back after it does not
// bring the old value back.
func TestSlowLoad(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	k := counter(0, "k")
	loaded, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := func([]storage.Key) {
		once.Do(func() {
			close(loaded)
			<-leave
		})
	}
	d.store.afterGet.Store(&hold)
	slow := send(o, read(0, k))
	<-loaded
	blind := &test{apply: func(tx *Tx) (any, error) { setCount(tx, k, 5); return nil, nil }}
	if _, err := o.Do(context.Background(), blind); err != nil {
		t.Fatal(err)
	}
	close(leave)
	if a := <-slow; a.v != 5 || a.err != nil {
		t.Errorf("read %v, %v; want 5", a.v, a.err)
	}
	checkIdle(t, o)
}

// Callers that wait for a load of another give up alone, and a failed load is
// tried again.
func TestLoadFails(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	bad := counter(0, "bad")
	b := &storage.Batch{}
	b.Put(bad, []byte("no counter"))
	if err := d.store.Commit(context.Background(), 0, o.Epoch(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Do(context.Background(), read(0, counter(0, "other"))); err != nil { // stays in memory
		t.Fatal(err)
	}
	loaded, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := func([]storage.Key) {
		once.Do(func() {
			close(loaded)
			<-leave
		})
	}
	d.store.afterGet.Store(&hold)
	good, other := counter(0, "good"), counter(0, "other")
	first := &test{pins: []storage.Key{bad, good, other}}
	loader := send(o, first)
	<-loaded
	waits := send(o, &test{pins: []storage.Key{good, bad}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := o.Do(ctx, &test{pins: []storage.Key{good}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter without time got %v", err)
	}
	close(leave)
	for _, c := range []<-chan answer{loader, waits} {
		if a := <-c; a.err == nil {
			t.Error("a row that cannot be decoded was pinned")
		}
	}
	fix := &test{apply: func(tx *Tx) (any, error) { setCount(tx, bad, 4); return nil, nil }}
	if _, err := o.Do(context.Background(), fix); err != nil {
		t.Fatal(err)
	}
	if v, err := o.Do(context.Background(), read(0, bad)); v != 4 || err != nil {
		t.Errorf("read %v, %v", v, err)
	}
	checkIdle(t, o)
}

// Kept rows stay within their budget, the one used last stays longest.
func TestCacheBudget(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	hot := counter(0, "hot")
	one := &row{key: hot, Row: Row{Value: encodeInt(0)}}
	o.rows.budget = 10 * one.size()
	var gets sync.Map
	countGets := func(keys []storage.Key) {
		for _, k := range keys {
			gets.Store(k, true)
		}
	}
	d.store.afterGet.Store(&countGets)
	for i := range 100 {
		for _, k := range []storage.Key{counter(0, fmt.Sprintf("c%02d", i)), hot} {
			if _, err := o.Do(context.Background(), add(0, 1, k, mark1Counter(i))); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			gets.Clear()
		}
	}
	if _, again := gets.Load(hot); again {
		t.Error("the hot row was evicted")
	}
	o.rows.mu.Lock()
	kept := len(o.rows.mu.byKey)
	o.rows.mu.Unlock()
	if kept < 5 || kept > 10 {
		t.Errorf("%d rows kept within the budget of 10", kept)
	}
	checkIdle(t, o)
	gets.Clear()
	if v, err := o.Do(context.Background(), read(0, counter(0, "c00"))); v != 1 || err != nil {
		t.Errorf("an evicted row reads as %v, %v", v, err)
	}
	if _, again := gets.Load(counter(0, "c00")); !again {
		t.Error("the first row was never evicted")
	}
}

func mark1Counter(i int) storage.Key { return counter(0, fmt.Sprintf("m%d", i%3)) }

// Many commands on few rows, some failing, some abandoned: no reference stays.
func TestReferencesUnderLoad(t *testing.T) {
	d := newDeployment(t, 1)
	d.budget = 1500
	o := d.start(0)
	defer o.Close()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 100 {
				a, b := counter(0, fmt.Sprint(i%7)), counter(0, fmt.Sprint((i+g)%11))
				cmd := add(0, 1, a, b, a)
				ctx, cancel := context.WithCancel(context.Background())
				switch i % 5 {
				case 0:
					cmd.apply = func(*Tx) (any, error) { return nil, errDown }
				case 1:
					cmd.prepare = func(*Prep) error { cancel(); return nil }
				case 2:
					cmd.pins = append(cmd.pins, mark1(0, fmt.Sprint(g)))
				case 3:
					cmd.apply = func(tx *Tx) (any, error) { tx.DeletePrefix(a); return nil, nil }
				}
				_, _ = o.Do(ctx, cmd)
				cancel()
			}
		})
	}
	wg.Wait()
	checkIdle(t, o)
	for i := range 11 {
		k := counter(0, fmt.Sprint(i))
		v, err := o.Do(context.Background(), read(0, k))
		if must[int](t, v, err) != d.value(k) {
			t.Errorf("counter %d is %v in memory, %d in the store", i, v, d.value(k))
		}
	}
}
