package search

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// TestPackPostings: rows hold what was packed, the newest first, each under its
// highest position, none too far apart.
func TestPackPostings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seqs := rapid.SliceOfDistinct(rapid.Uint64Range(1, 40*maxSpan), func(s uint64) uint64 { return s }).Draw(t, "seqs")
		var list, got []posting
		for _, s := range seqs {
			p := posting{seq: ids.Seq(s), ts: rapid.Int64().Draw(t, "ts")}
			if rapid.Bool().Draw(t, "edited") {
				p.edit = p.seq + 1 + ids.Seq(rapid.Uint32().Draw(t, "edit"))
			}
			list = append(list, p)
		}
		packPostings(slices.Clone(list), func(s ids.Seq, value []byte) {
			row := appendPostings(nil, &storage.Entry{Sort: postingSort("term", s), Value: value})
			if row[0].seq != s || row[0].seq-row[len(row)-1].seq >= maxSpan || len(row) > maxPacked {
				t.Fatalf("row of %d under %d: %v", len(row), s, row)
			}
			got = append(got, row...)
		})
		slices.SortFunc(list, func(a, b posting) int { return cmp.Compare(b.seq, a.seq) })
		if !slices.Equal(got, list) {
			t.Fatalf("got %v, want %v", got, list)
		}
	})
}

// TestFindParts: words are found by their parts, in blocks and in segments, and one that
// nothing has any more is not.
func TestFindParts(t *testing.T) {
	for name, sizes := range map[string]bounds{"block": {1, maxRecent}, "segment": {fullBlock, 1}} {
		t.Run(name, func(t *testing.T) {
			w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
			w.index.bounds = sizes
			w.follow()
			id := w.create()
			w.await()
			var all []ids.EventID
			for i := range 20 {
				all = append(all, w.say(id, fmt.Sprintf("xx%02dzebra%02d", i, i)))
			}
			w.await()
			for term, want := range map[string]int{
				"zebra": 20, "ebra07": 1, "xx": 20, "ra1": 10, "7z": 2, "bra20": 0, "xx07zebra07": 1, "z": 0,
			} {
				if got := len(w.find(term, id)); got != want {
					t.Errorf("%q: %d hits, want %d", term, got, want)
				}
			}
			texts := make(map[ids.EventID]string)
			for i, ev := range all {
				if i%2 == 0 {
					w.redact(id, ev)
				} else {
					texts[ev] = fmt.Sprintf("xx%02dzebra%02d", i, i)
				}
			}
			w.await()
			w.check(id, texts)
			if got := len(w.find("zebra", id)); got != 10 {
				t.Errorf("%d hits, want 10", got)
			}
		})
	}
}

// TestFindBelow: rows whose postings reach above what the searcher may see, and
// behind a page, are looked into, those of earlier versions too.
func TestFindBelow(t *testing.T) {
	w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	w.index.bounds = bounds{50, 200}
	id := w.create()
	var all []ids.EventID
	old := make(map[ids.EventID]string)
	for range 3 * maxPacked {
		all = append(all, w.say(id, "alpha"))
		old[all[len(all)-1]] = "alpha"
	}
	w.writeOld(id, old)
	w.follow()
	for i := range 600 {
		all = append(all, w.say(id, "alpha"))
		if i%2 == 0 {
			w.await()
		}
	}
	w.await()
	if h, err := w.index.heads(w.ctx, []ids.RoomID{id}); err != nil || h[0].segments <= 2*segmentsPage {
		t.Fatalf("too few segments: %v, %v", h, err)
	}
	for _, below := range []int{1, 100, maxPacked, 3*maxPacked + 20, len(all) - 30, len(all)} {
		e, err := w.rooms.Event(w.ctx, id, all[below-1])
		if err != nil {
			t.Fatal(err)
		}
		w.until = e.Seq
		if got := len(w.find("alpha", id)); got != below {
			t.Errorf("%d hits of the first %d", got, below)
		}
	}
}

// TestHandledAgain: a batch that comes from memory once more, since the first time
// failed, changes nothing; nor does what a follower says whose owner is gone.
func TestHandledAgain(t *testing.T) {
	w := newWorld(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	id := w.create()
	ev := w.say(id, "secret word")
	w.await()
	e, err := w.rooms.Event(w.ctx, id, ev)
	if err != nil {
		t.Fatal(err)
	}
	w.redact(id, ev)
	w.await()
	p := w.rooms.Place(id).Partition
	b := consumer.Batch{
		Partition: p, First: e.Seq, Last: e.Seq,
		Records: []partition.Record{{Kind: partition.RecordEvent, Seq: e.Seq, Entity: string(id), Obj: e}},
	}
	if err := w.index.Handle(w.ctx, b); err != nil {
		t.Fatal(err)
	}
	w.check(id, nil)
	b.Epoch = 1 << 40
	other := New(w.store, w.node, w.rooms, nil)
	if err := other.Handle(w.ctx, b); err == nil {
		t.Error("a follower of another owner may write")
	}
	w.check(id, nil)
}
