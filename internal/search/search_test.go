package search

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// shownText is what an event says with the edits that are left. Which is the
// latest of one millisecond is decided by their IDs.
func (w *world) shownText(id ids.RoomID, of ids.EventID, original string, edits []ids.EventID, said map[ids.EventID]string) string {
	w.t.Helper()
	if len(edits) == 0 {
		return original
	}
	latest := slices.MaxFunc(edits, func(a, b ids.EventID) int {
		x, err := w.rooms.Event(w.ctx, id, a)
		if err != nil {
			w.t.Fatal(err)
		}
		y, err := w.rooms.Event(w.ctx, id, b)
		if err != nil {
			w.t.Fatal(err)
		}
		return room.CompareEdits(&room.Related{TS: x.OriginServerTS, ID: a}, &room.Related{TS: y.OriginServerTS, ID: b})
	})
	return said[latest]
}

// TestIndexFollows sends, edits, redacts and purges at random, with blocks and segments
// of different size and rows of earlier versions in some rooms, and looks at what
// the index has: the same after the log was given once more, and when the index is
// built from the timelines.
func TestIndexFollows(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			w := newStill(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
			w.index.bounds = []bounds{{fullBlock, maxRecent}, {1, 200}, {60, 600}, {100, 1}}[seed%4]
			id := w.create()
			texts := make(map[ids.EventID]string)     // what events say
			originals := make(map[ids.EventID]string) // what they said at first
			edits := make(map[ids.EventID][]ids.EventID)
			said := make(map[ids.EventID]string) // what edits say
			var all []ids.EventID
			text := func() string {
				var out []string
				for range 1 + rnd.IntN(4) {
					out = append(out, fmt.Sprint("word", rnd.IntN(6)), "東京"[:3*(1+rnd.IntN(2))])
				}
				return strings.Join(out, " ")
			}
			if seed%3 == 0 {
				for range 10 {
					s := text()
					ev := w.say(id, s)
					all, texts[ev], originals[ev] = append(all, ev), s, s
				}
				w.writeOld(id, texts)
				w.check(id, texts)
			}
			w.follow()
			for range 60 {
				switch n := rnd.IntN(10); {
				case n < 5 || len(all) == 0:
					s := text()
					ev := w.say(id, s)
					all, texts[ev], originals[ev] = append(all, ev), s, s
				case n < 8:
					of := all[rnd.IntN(len(all))]
					s := text()
					ed := w.edit(id, of, s)
					if _, there := texts[of]; there {
						texts[of], edits[of], said[ed] = s, append(edits[of], ed), s
					}
				default:
					of := all[rnd.IntN(len(all))]
					if list := edits[of]; len(list) > 0 && rnd.IntN(2) == 0 {
						i := rnd.IntN(len(list))
						w.redact(id, list[i])
						edits[of] = slices.Delete(list, i, i+1)
						w.await()
						texts[of] = w.shownText(id, of, originals[of], edits[of], said)
						continue
					}
					w.redact(id, of)
					delete(texts, of)
					delete(edits, of)
				}
				if rnd.IntN(4) == 0 {
					w.await()
				}
				if rnd.IntN(16) == 0 {
					w.again(id)
				}
			}
			for of := range texts {
				texts[of] = w.shownText(id, of, originals[of], edits[of], said)
			}
			w.await()
			w.check(id, texts)
			w.again(id)
			w.check(id, texts)
			w.trim(id, texts)
		})
	}
}

// again gives the index all of the log once more, and then the timelines.
func (w *world) again(id ids.RoomID) {
	w.t.Helper()
	p := w.rooms.Place(id).Partition
	list, err := partition.ReadLog(w.ctx, w.store, p, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range list {
		if err := w.index.Handle(w.ctx, consumer.Batch{Partition: p, First: b.First, Last: b.Last, Records: b.Records}); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.index.Missed(w.ctx, p, 1, list[len(list)-1].Last); err != nil {
		w.t.Fatal(err)
	}
}

// trim purges the first half of a room.
func (w *world) trim(id ids.RoomID, texts map[ids.EventID]string) {
	w.t.Helper()
	head, err := w.rooms.Head(w.ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.do(&room.Trim{Room: id, UpTo: head.Last / 2})
	w.await()
	for ev := range texts {
		e, err := w.rooms.Event(w.ctx, id, ev)
		if err != nil {
			w.t.Fatal(err)
		}
		if e == nil {
			delete(texts, ev)
		}
	}
	w.check(id, texts)
}

// TestMissed: what the log no longer has is read from the timelines.
func TestMissed(t *testing.T) {
	w := newWorld(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	id := w.create()
	var all []ids.EventID
	texts := make(map[ids.EventID]string)
	for i := range timelinePage + 20 {
		ev := w.say(id, fmt.Sprint("text", i))
		all, texts[ev] = append(all, ev), fmt.Sprint("text", i)
	}
	w.redact(id, all[0])
	delete(texts, all[0])
	w.await()
	p := w.rooms.Place(id).Partition
	head, err := w.rooms.Head(w.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var drop []Row
	for _, table := range []storage.Table{tables.SearchRecent, tables.SearchSegment} {
		for _, r := range w.entries(id, table) {
			drop = append(drop, Row{Table: table, Room: id, Sort: r.Sort})
		}
	}
	w.do(&Write{P: p, Rows: drop})
	w.check(id, nil)
	if err := w.index.Missed(w.ctx, p, 1, head.Last); err != nil {
		t.Fatal(err)
	}
	w.check(id, texts)
}

// TestWriteKeepsToItsTables: a command that names other tables is refused.
func TestWriteKeepsToItsTables(t *testing.T) {
	w := newWorld(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	id := w.create()
	_, err := w.node.Do(w.ctx, &Write{P: w.rooms.Place(id).Partition, Rows: []Row{{Table: tables.RoomHead, Room: id}}})
	if err == nil {
		t.Error("the index may remove the head of a room")
	}
}

// TestFindMany: more postings than are read at once, of several terms and rooms,
// come in order and once.
func TestFindMany(t *testing.T) {
	w := newWorld(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	rooms := []ids.RoomID{w.create(), w.create(), w.create()}
	const many = MaxLooked + 3*postingsPage
	w.say(rooms[2], "alpha and omega") // behind all the others
	for i := range many - 1 {
		w.say(rooms[i%2], fmt.Sprintf("alpha%d alphabet alp", i%5))
	}
	w.await()
	var more []ids.RoomID // of which nothing is known
	for i := range headsPage {
		more = append(more, ids.RoomID(fmt.Sprintf("!none%d:h", i)))
	}
	if hits := w.find("omega alpha", append(more, rooms...)...); len(hits) != 1 {
		t.Errorf("%d hits far back", len(hits))
	}
	hits := w.find("alpha", rooms...)
	if len(hits) != many || !slices.IsSortedFunc(hits, func(a, b Hit) int { return a.Compare(b.Place) }) {
		t.Fatalf("%d hits, or out of order", len(hits))
	}
	seen := make(map[ids.EventID]bool)
	for _, h := range hits {
		if seen[h.Event.ID] {
			t.Fatal("an event twice")
		}
		seen[h.Event.ID] = true
	}
	if n := len(w.find("lphabe alp", rooms...)); n != len(hits)-1 {
		t.Errorf("%d hits of parts of words", n)
	}
}

func TestMatchRanks(t *testing.T) {
	rank := func(text, term string) float64 {
		r, _ := match(text, textindex.Words(term))
		return r
	}
	order := []float64{
		rank("cat cat", "cat"), rank("cat", "cat"), rank("the cat sat there and looked at all the birds", "cat"),
		rank("category", "cat"), rank("scatter", "cat"),
	}
	if !slices.IsSortedFunc(order, func(a, b float64) int { return -compare(a, b) }) || order[len(order)-1] <= 0 {
		t.Errorf("ranks %v", order)
	}
	if _, ok := match("cat", []string{"cat", "dog"}); ok {
		t.Error("a word is missing")
	}
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
