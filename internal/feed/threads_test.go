package feed

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const threadFilter = `{"room":{"timeline":{"unread_thread_notifications":true}}}`

// reply sends a message in a thread.
func (w *world) reply(r ids.RoomID, sender ids.UserID, root ids.EventID, body string) ids.EventID {
	w.t.Helper()
	content := fmt.Sprintf(`{"body":%q,"m.relates_to":{"event_id":%q,"rel_type":"m.thread"},"msgtype":"m.text"}`, body, root)
	return w.event(r, draft(sender, event.TypeMessage, nil, content))
}

// told writes down the counts of a section: main, then each thread.
func told(sec *section_) string {
	out := fmt.Sprint(sec.Unread.Notify)
	var roots []ids.EventID
	for root := range sec.Threads {
		roots = append(roots, root)
	}
	slices.Sort(roots)
	for _, root := range roots {
		out += fmt.Sprintf(" %s:%d", root[:4], sec.Threads[root].Notify)
	}
	return out
}

// A reply comes with the counts of its thread in the same frame, on the short way.
func TestLiveThreads(t *testing.T) {
	w, r, s, k := calm(t, threadFilter)
	_, together := w.socket(t, bob, "", "")
	together.wait(t, `"next_batch"`)
	root := w.say(r, alice, "root")
	k.wait(t, `"root"`)
	w.reply(r, alice, root, "r0")
	k.wait(t, `"r0"`)
	settled(t, s)
	for i := 1; i < 4; i++ {
		w.reply(r, alice, root, fmt.Sprint("r", i))
	}
	last := w.say(r, alice, "end")
	frames := k.wait(t, `"end"`)
	if got := kinds(frames); !slices.Equal(got, []string{"mark", "mark", "mark", "mark"}) {
		t.Fatalf("frames %v", got)
	}
	for i, f := range frames {
		want := fmt.Sprintf("2 %s:%d", root[:4], i+2)
		if i == 3 {
			want = fmt.Sprintf("3 %s:4", root[:4])
		}
		if got := told(f.Rooms.Join[r]); got != want {
			t.Errorf("frame %d tells %s, want %s", i, got, want)
		}
	}
	end := together.wait(t, `"end"`)
	if sec := end[len(end)-1].Rooms.Join[r]; told(sec) != "7" {
		t.Errorf("who does not ask for threads is told %s", told(sec))
	}
	// A receipt of the thread ends what is unread in it, and one for all the rest.
	w.must(&room.SetReceipt{Room: r, User: bob, Type: room.ReceiptRead, Thread: string(root), Event: w.reply(r, alice, root, "r4")})
	frames = k.wait(t, `"m.receipt"`)
	if sec := frames[len(frames)-1].Rooms.Join[r]; told(sec) != "3" {
		t.Errorf("after reading the thread: %s", told(sec))
	}
	w.read(r, bob, last)
	frames = k.wait(t, `"m.receipt"`)
	if sec := frames[len(frames)-1].Rooms.Join[r]; told(sec) != "0" {
		t.Errorf("after reading all: %s", told(sec))
	}
}

// Members with equal counts share a frame, whichever threads they come from.
func TestThreadFramesAreShared(t *testing.T) {
	l := &live{rec: &partition.Record{Entity: "!r:h"}, stored: &room.Stored{}}
	threads := func(c *counts, root ids.EventID, n int) badge {
		for range n {
			c.count(&room.Stored{Seq: c.upTo + 1, Thread: root}, false, tally{notify: 1})
			c.upTo++
		}
		return c.badge(true)
	}
	var a, b, other counts
	x, y := threads(&a, "$x", 2), threads(&b, "$x", 2)
	headX, tailX := l.frame(x)
	if headY, tailY := l.frame(y); &headX[0] != &headY[0] || &tailX[0] != &tailY[0] {
		t.Error("equal counts have frames of their own")
	}
	if headZ, tailZ := l.frame(threads(&other, "$z", 2)); &headX[0] != &headZ[0] || &tailX[0] == &tailZ[0] {
		t.Error("other threads do not share the event, or share the counts")
	}
}

// What is counted step by step and what is counted from the receipts on is the same.
func TestThreadCountsAgree(t *testing.T) {
	w, r, _, k := calm(t, threadFilter)
	w.join(r, carol)
	roots := []ids.EventID{w.say(r, alice, "root0"), w.say(r, alice, "root1"), w.say(r, carol, "root2")}
	var last *section_
	for i := range 60 {
		var id ids.EventID
		switch thread := roots[i*7%3]; {
		case i%11 == 5:
			id = w.reply(r, bob, thread, "mine")
		case i%13 == 7:
			id = w.say(r, bob, "mine")
		case i%5 == 1:
			id = w.say(r, carol, "main")
		default:
			id = w.reply(r, []ids.UserID{alice, carol}[i%2], thread, "reply")
		}
		switch {
		case i%17 == 3:
			w.must(redaction(r, alice, id))
		case i%19 == 4:
			w.read(r, bob, id)
		}
	}
	w.say(r, alice, "end")
	for _, f := range k.wait(t, `"end"`) {
		if sec := f.Rooms.Join[r]; sec != nil && sec.Unread != nil {
			last = sec
		}
	}
	fresh := w.follow(w.bus)
	if got, want := told(last), told(w.sync(fresh, bob, "", threadFilter).Rooms.Join[r]); got != want {
		t.Errorf("step by step %s, from the receipts %s", got, want)
	}
}

// Who wants no receipts is told of the counts when they change.
func TestCountsWithoutReceipts(t *testing.T) {
	const filter = `{"room":{"ephemeral":{"types":[]}}}`
	w, r, _, k := calm(t, filter)
	last := w.say(r, alice, "m")
	before := w.sync(w.hub, bob, "", filter)
	k.wait(t, `"m"`)
	w.read(r, bob, last)
	sec := w.sync(w.hub, bob, before.NextBatch, filter).Rooms.Join[r]
	if sec == nil || told(sec) != "0" || len(sec.Ephemeral.Events) > 0 {
		t.Errorf("after reading: %+v", sec)
	}
	frames := k.wait(t, `"notification_count":0`)
	if sec := frames[len(frames)-1].Rooms.Join[r]; told(sec) != "0" {
		t.Errorf("the socket is told %s", told(sec))
	}
}
