package search

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// asked counts the keys that a store is asked for.
type asked struct {
	storage.Store
	keys int
}

func (a *asked) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	a.keys += len(keys)
	return a.Store.Get(ctx, keys...)
}

// TestKnownWords: a word that a room has is not looked for again, and one that another
// node removed, while the partition was there, is found by its parts once it is said again.
func TestKnownWords(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	store := &asked{Store: w.store}
	here, there := New(store, w.node, w.rooms, nil), New(w.store, w.node, w.rooms, nil)
	id := w.create()
	handle := func(x *Index, ev ids.EventID) *room.Stored {
		t.Helper()
		e, err := w.rooms.Event(w.ctx, id, ev)
		if err != nil {
			t.Fatal(err)
		}
		r := partition.Record{Kind: partition.RecordEvent, Seq: e.Seq, Entity: string(id), Obj: e}
		b := consumer.Batch{Partition: w.rooms.Place(id).Partition, First: e.Seq, Last: e.Seq, Records: []partition.Record{r}}
		if err := x.Handle(w.ctx, b); err != nil {
			t.Fatal(err)
		}
		return e
	}
	first, second := w.say(id, "alpha beta gamma"), w.say(id, "gamma delta beta")
	handle(here, first)
	if store.keys != 0 {
		t.Errorf("%d keys asked for in a room without words", store.keys)
	}
	handle(here, second)
	w.check(id, map[ids.EventID]string{first: "alpha beta gamma", second: "gamma delta beta"})
	if store.keys != 1 {
		t.Errorf("%d keys asked for where all words of a room are known", store.keys)
	}
	handle(there, w.redact(id, first))
	w.check(id, map[ids.EventID]string{second: "gamma delta beta"})
	third := w.say(id, "beta alpha")
	handle(here, third)
	w.check(id, map[ids.EventID]string{second: "gamma delta beta", third: "beta alpha"})
	store.keys = 0
	handle(here, w.say(id, "alpha beta"))
	handle(here, w.say(id, "alpha omega"))
	if store.keys != 3 {
		t.Errorf("%d keys asked for where words are known again, but for one", store.keys)
	}
}

// What is known is bounded, and what is used is kept.
func TestKnownIsBounded(t *testing.T) {
	const limit = 100
	k := newKnown(limit)
	k.learn("!busy", learned{words: []string{"word"}})
	for i := range 1000 {
		k.learn(ids.RoomID(fmt.Sprint("!", i)), learned{words: []string{"a", "b", "c"}})
		if unknown, _, _, _ := k.unknown("!busy", []string{"word", "other"}); !slices.Equal(unknown, []string{"other"}) {
			t.Fatalf("of a room in use %q are unknown", unknown)
		}
		words := 0
		for _, rooms := range []map[ids.RoomID]*roomWords{k.mu.young, k.mu.old} {
			for _, r := range rooms {
				words += len(r.words)
			}
		}
		if words > limit+3 {
			t.Fatalf("%d words are remembered", words)
		}
	}
	if _, _, _, ok := k.unknown("!0", []string{"a"}); ok {
		t.Error("a room that is not in use was kept")
	}
	k.learn("!busy", learned{removals: "later", words: []string{"other"}, all: true})
	if unknown, last, all, _ := k.unknown("!busy", []string{"word", "other"}); !slices.Equal(unknown, []string{"word"}) || last != "later" || all {
		t.Errorf("after removals %q are unknown, for %q", unknown, last)
	}
}
