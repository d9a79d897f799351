package feed

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// A view of many rooms finds by its marks the rooms that it would find by looking at
// each of them, whenever who moved and whoever asks.
func TestMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const partitions, most = 3, 12
		v := &view{hub: &Hub{opts: Options{Count: partitions}, pace: pace{many: rapid.IntRange(0, most).Draw(t, "many")}}, home: 1}
		seq := ids.Seq(0)
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				if len(v.mu.list) == most {
					t.Skip("enough")
				}
				seq++
				r := &userRoom{
					id: ids.RoomID(fmt.Sprint("!", len(v.mu.list))), at: int32(len(v.mu.list)), since: seq,
					p: ids.Partition(rapid.IntRange(0, partitions-1).Draw(t, "p")),
				}
				v.addRoomLocked(r)
				v.touchLocked(r)
			},
			"move": func(t *rapid.T) {
				if len(v.mu.list) == 0 {
					t.Skip("no room")
				}
				seq++
				r := rapid.SampledFrom(v.mu.list).Draw(t, "room")
				v.touchLocked(r)
				*rapid.SampledFrom([]*ids.Seq{&r.last, &r.roomSeq, &r.shared, &r.told}).Draw(t, "what") = seq
			},
			"ask": func(t *rapid.T) {
				since := NewPosition(partitions)
				for p := range since.At {
					since.At[p] = ids.Seq(rapid.Uint64Range(0, uint64(seq)).Draw(t, "at"))
				}
				also := map[ids.RoomID]bool{}
				if rapid.Bool().Draw(t, "also") {
					also["!0"] = true
				}
				var want, got []ids.RoomID
				for _, r := range v.mu.list {
					if a := since.At[r.p]; r.last > a || r.roomSeq > a || r.since > a || r.shared > a || r.told > since.At[v.home] || also[r.id] {
						want = append(want, r.id)
					}
				}
				c := v.snapshot(&since, also)
				for i := range c.rooms {
					got = append(got, c.rooms[i].id)
				}
				for _, r := range v.mu.list {
					if v.roomLocked(r.id) != r {
						t.Fatalf("%s is not found", r.id)
					}
				}
				if v.roomLocked("!none") != nil {
					t.Fatal("a room that is not there")
				}
				slices.Sort(want)
				slices.Sort(got)
				if c.all || !slices.Equal(got, want) {
					t.Fatalf("%v: got %v, want %v", since.At, got, want)
				}
			},
		})
	})
}

// A position that is older than the view gets all rooms: the view does not know what
// the user changed before.
func TestSnapshotOfAnOldPosition(t *testing.T) {
	v := &view{hub: &Hub{opts: Options{Count: 2}, pace: pace{many: 1}}, home: 1}
	for i := range 3 {
		r := &userRoom{id: ids.RoomID(fmt.Sprint("!", i)), at: int32(i)}
		v.addRoomLocked(r)
	}
	v.mu.since = 5
	since := NewPosition(2)
	since.At[1] = 4
	if c := v.snapshot(&since, nil); !c.all || len(c.rooms) != 3 {
		t.Errorf("%+v", c)
	}
	since.At[1] = 5
	if c := v.snapshot(&since, nil); c.all || len(c.rooms) != 0 {
		t.Errorf("%+v", c)
	}
}
