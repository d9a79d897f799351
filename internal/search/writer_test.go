package search

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// meanwhile does something before the next write to the index.
type meanwhile struct {
	partition.Router
	do func()
}

func (m *meanwhile) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if do := m.do; do != nil {
		if _, ok := cmd.(*Write); ok {
			m.do = nil
			do()
		}
	}
	return m.Router.Do(ctx, cmd)
}

// batch is the records of events as they come from memory.
func (w *world) batch(id ids.RoomID, events ...ids.EventID) consumer.Batch {
	w.t.Helper()
	b := consumer.Batch{Partition: w.rooms.Place(id).Partition}
	for _, ev := range events {
		e, err := w.rooms.Event(w.ctx, id, ev)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Records = append(b.Records, partition.Record{Kind: partition.RecordEvent, Seq: e.Seq, Entity: string(id), Obj: e})
	}
	b.First, b.Last = b.Records[0].Seq, b.Records[len(b.Records)-1].Seq
	return b
}

// TestOvertaken: whoever changes the index of a room that somebody else changed since it
// was read, on this node or another, begins anew, and nothing is lost or there twice.
func TestOvertaken(t *testing.T) {
	for name, sizes := range map[string]bounds{"block": {1, maxRecent}, "segment": {1, 100}} {
		t.Run(name, func(t *testing.T) {
			w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
			id := w.create()
			texts := make(map[ids.EventID]string)
			var all []ids.EventID
			for i := range 12 {
				text := fmt.Sprintf("message number%d", i)
				all = append(all, w.say(id, text))
				texts[all[i]] = text
			}
			router := &meanwhile{Router: w.node}
			here, there := New(w.store, router, w.rooms, nil), New(w.store, w.node, w.rooms, nil)
			here.bounds, there.bounds = sizes, sizes
			handle := func(x *Index, b consumer.Batch) {
				t.Helper()
				if err := x.Handle(w.ctx, b); err != nil {
					t.Fatal(err)
				}
			}
			handle(here, w.batch(id, all[:4]...))
			router.do = func() { handle(there, w.batch(id, all[4:8]...)) }
			handle(here, w.batch(id, all[4:]...))
			w.check(id, texts)
			gone := all[2]
			redaction := w.redact(id, gone)
			delete(texts, gone)
			router.do = func() {
				w.redact(id, all[6])
				delete(texts, all[6])
				if err := there.Missed(w.ctx, w.rooms.Place(id).Partition, 1, 1000); err != nil {
					t.Error(err)
				}
			}
			handle(here, w.batch(id, redaction))
			w.check(id, texts)
		})
	}
}

// TestNothingStays: what all events said that are gone is in no row, and a room of which
// nothing is left has none.
func TestNothingStays(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	w.index.bounds = bounds{100, 500}
	id := w.create()
	all := []ids.EventID{w.say(id, "secret of old")}
	w.writeOld(id, map[ids.EventID]string{all[0]: "secret of old"})
	w.follow()
	for i := range 50 {
		all = append(all, w.say(id, fmt.Sprint("secret", i)))
	}
	w.await()
	all = append(all, w.edit(id, all[0], "secret still"), w.edit(id, all[20], "secret again"))
	w.await()
	for _, ev := range all {
		w.redact(id, ev)
	}
	w.await()
	for _, table := range []storage.Table{
		tables.SearchRecent, tables.SearchSegment, tables.SearchTerm, tables.SearchWord, tables.SearchDoc,
	} {
		if rows := w.entries(id, table); len(rows) > 0 {
			t.Errorf("table %d has %d rows, the first %q: %q", table, len(rows), rows[0].Sort, rows[0].Value)
		}
	}
}

// TestFindWhileWriting: what was in the index is found at every time, also while it moves
// from blocks to segments.
func TestFindWhileWriting(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	w.index.bounds = bounds{60, 300}
	w.follow()
	id := w.create()
	w.say(id, "needle")
	w.await()
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i := range 300 {
			w.say(id, fmt.Sprint("needle number", i))
			w.await()
		}
	})
	most := 1
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		n := len(w.find("needle", id))
		if n < most {
			t.Fatalf("%d found, after %d", n, most)
		}
		most = n
	}
	if n := len(w.find("needle", id)); n != 301 {
		t.Errorf("%d found", n)
	}
}

// foldsBefore is a store in which something happens before blocks are read.
type foldsBefore struct {
	storage.Store
	do func()
}

func (s *foldsBefore) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	if do := s.do; do != nil && r.Table == tables.SearchRecent {
		s.do = nil
		do()
	}
	return s.Store.Scan(ctx, r)
}

// TestFindWhileFolding: what becomes the first segment of a room between the reading of
// its head and that of its blocks is found.
func TestFindWhileFolding(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	writing := w.index
	writing.bounds = bounds{1, 200}
	id := w.create()
	handle := func(text string) {
		if err := writing.Handle(w.ctx, w.batch(id, w.say(id, text))); err != nil {
			t.Error(err)
		}
	}
	handle("a needle that stands in a block")
	w.index = New(&foldsBefore{Store: w.store, do: func() {
		for range 8 {
			handle("something that is said so often that all becomes a segment")
		}
	}}, w.node, w.rooms, nil)
	if n := len(w.find("needle", id)); n != 1 {
		t.Errorf("%d found", n)
	}
	if n := len(w.find("needle", id)); n != 1 {
		t.Errorf("%d found afterwards", n)
	}
}

// TestFewRows: a message leaves few rows, in a busy room and in a quiet one.
func TestFewRows(t *testing.T) {
	for gather, most := range map[int]float64{1: 1.6, 100: 0.5} {
		t.Run(fmt.Sprint(gather), func(t *testing.T) {
			w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
			c := &counting{Router: w.node}
			x := New(w.store, c, w.rooms, nil)
			id := w.create()
			const messages = 2000
			for n := 0; n < messages; n += gather {
				var events []ids.EventID
				for i := range gather {
					var words []string
					for k := range 12 {
						words = append(words, fmt.Sprintf("w%dx", (n+i)*k%5000))
					}
					events = append(events, w.say(id, strings.Join(words, " ")))
				}
				if err := x.Handle(w.ctx, w.batch(id, events...)); err != nil {
					t.Fatal(err)
				}
			}
			if rows := float64(c.rows) / messages; rows > most {
				t.Errorf("%.2f rows a message, want %.2f at most", rows, most)
			}
		})
	}
}

// TestLongMessages: messages of as many long words as there is room for take several
// commits, none too large for the store, and are all found.
func TestLongMessages(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	id := w.create()
	c := &counting{Router: w.node}
	x := New(w.store, c, w.rooms, nil)
	const messages = 6
	var events []ids.EventID
	for i := range messages {
		var words []string
		for k := range 900 {
			words = append(words, fmt.Sprintf("%dx%060d", i, k*7_654_321))
		}
		events = append(events, w.say(id, strings.Join(words, " ")))
	}
	if err := x.Handle(w.ctx, w.batch(id, events...)); err != nil {
		t.Fatal(err)
	}
	if c.writes < 2 {
		t.Errorf("%d commits", c.writes)
	}
	for i := range messages {
		if n := len(w.find(fmt.Sprintf("%dx%060d", i, 899*7_654_321), id)); n != 1 {
			t.Errorf("message %d is found %d times", i, n)
		}
	}
}
