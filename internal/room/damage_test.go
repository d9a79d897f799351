package room

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// write puts a row into the store of a world that is closed.
func (w *world) write(k storage.Key, value []byte) {
	w.t.Helper()
	l, err := w.store.Acquire(ctx, k.Partition, "surgeon", time.Hour)
	if err != nil {
		w.t.Fatalf("lease: %v", err)
	}
	b := &storage.Batch{}
	b.Put(k, value)
	if err := errors.Join(w.store.Commit(ctx, k.Partition, l.Epoch, b), w.store.Release(ctx, l)); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// TestDamagedChain: what a piece of state says it replaced is followed only to an event
// of the same state that stands before it: else a damaged row could make
// a reader go round for ever, or show one thing for another.
func TestDamagedChain(t *testing.T) {
	w := newWorld(t, nil)
	id := w.create("12")
	w.state(id, alice, event.TypeTopic, "", `{"topic":"one"}`)
	message := w.event(id, w.say(id, alice, "hello"))
	w.state(id, alice, event.TypeTopic, "", `{"topic":"two"}`)
	now, err := w.r.StateEvent(ctx, id, event.TypeTopic, "")
	if err != nil || now == nil || now.Replaces == 0 {
		t.Fatalf("topic %v, %v", now, err)
	}
	w.close()
	at := now.Replaces
	for name, replaces := range map[string]ids.Seq{"itself": now.Seq, "a later one": now.Seq + 1, "a message": message.Seq, "nothing there": now.Seq - 1} {
		if name == "nothing there" && replaces == message.Seq {
			replaces = 0 // the message stands there: not what is meant
		}
		bad := now.withPrevContent(now.PrevContent)
		bad.Replaces = replaces
		for _, k := range []storage.Key{w.r.Place(id).timeline(now.Seq), w.r.Place(id).state(event.TypeTopic, "")} {
			w.write(k, bad.encode())
		}
		var heard int
		r := w.r.leavingOut(func(storage.Key, error) { heard++ })
		old, err := r.StateEventUpTo(ctx, id, StateKey{event.TypeTopic, ""}, at)
		if err != nil || old != nil || replaces != 0 && heard == 0 {
			t.Errorf("%s: the topic before is %v, %v, and %d rows were told of", name, old, err, heard)
		}
		if _, err := w.r.StateEventUpTo(ctx, id, StateKey{event.TypeTopic, ""}, at); replaces != 0 && !merr.Is(err, merr.Unknown) {
			t.Errorf("%s: a strict reader says %v", name, err)
		}
	}
}

// TestTrimDamaged: what cannot be read goes with the rest of the history, since it may
// hold what is to go, but for state.
func TestTrimDamaged(t *testing.T) {
	w := newWorld(t, nil)
	id := w.create("12")
	w.state(id, alice, event.TypeTopic, "", `{"topic":"one"}`)
	topic, err := w.r.StateEvent(ctx, id, event.TypeTopic, "")
	if err != nil {
		t.Fatal(err)
	}
	bad := w.event(id, w.say(id, alice, "damaged"))
	w.say(id, alice, "whole")
	w.say(id, alice, "last")
	w.node.Close()
	p := w.r.Place(id)
	w.write(p.timeline(bad.Seq), []byte("damaged"))
	w.write(p.timeline(topic.Seq), []byte("damaged"))
	w.start()
	defer w.close()
	res, err := w.node.Do(ctx, &Trim{Room: id, UpTo: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	out := res.(Trimmed)
	if out.Removed != 2 || !out.Done {
		t.Errorf("trimmed: %+v", out)
	}
	rows := w.rows(id, tables.Timeline)
	left := map[ids.Seq]bool{}
	for _, row := range rows {
		left[tables.SortSeq(row.Sort)] = true
	}
	if left[bad.Seq] || !left[topic.Seq] {
		t.Errorf("left of the history: %v; damaged message at %d, topic at %d", left, bad.Seq, topic.Seq)
	}
}

// BenchmarkTimeline reads a page of messages, as each sync and each page does.
func BenchmarkTimeline(b *testing.B) {
	w := newWorld(b, nil)
	defer w.close()
	id := w.create("12")
	for range 100 {
		w.say(id, alice, strings.Repeat("some words of a usual length ", 4))
	}
	head, err := w.r.Head(ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		list, err := w.r.Timeline(context.Background(), id, Page{UpTo: head.Last, Limit: 100, Newest: true})
		if err != nil || len(list) != 100 {
			b.Fatalf("%d events, %v", len(list), err)
		}
	}
}
