package room

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// A delayed event that is sent again, after a crash before it was noted, is the
// event that was sent, whatever the room would say by then.
func TestDelayedEventIsSentOnce(t *testing.T) {
	w, room := clean(t, "12")
	w.member(room, bob, bob, event.Join)
	cmd := func() *SendDelayed {
		m := w.message(bob, "later")
		m.Room, m.Txn = room, DelayedTxn("ID")
		return &SendDelayed{Send: *m}
	}
	before := len(w.timeline(room))
	first, err := w.node.Do(ctx, cmd())
	if err != nil {
		t.Fatal(err)
	}
	w.member(room, alice, bob, event.Ban)
	again, err := w.node.Do(ctx, cmd())
	if err != nil || again != first {
		t.Errorf("again: %v, %v; want %v", again, err, first)
	}
	if n := len(w.timeline(room)); n != before+2 { // with the ban
		t.Errorf("%d events, %d before", n, before)
	}
	other := cmd()
	other.Txn = DelayedTxn("OTHER")
	if _, err := w.node.Do(ctx, other); !merr.Is(err, merr.Forbidden) {
		t.Errorf("another one: %v", err)
	}
	w.checkRoom(room)
}

// History that is cut leaves a room that is whole from there on.
func TestTrim(t *testing.T) {
	w, room := clean(t, "12")
	for range 3 * trimPage / 2 { // more than a page
		w.mustSend(room, w.message(alice, "old"))
	}
	w.state(room, alice, event.TypeTopic, "", `{"topic":"in between"}`)
	cut := w.mustSend(room, w.message(alice, "new"))
	for removed := 0; ; {
		out, err := partition.Do[Trimmed](ctx, w.node, &Trim{Room: room, UpTo: cut.Seq - 1})
		if err != nil {
			t.Fatal(err)
		}
		removed += out.Removed
		if out.Done {
			if removed != 3*trimPage/2 {
				t.Errorf("%d removed", removed)
			}
			break
		}
	}
	w.mustSend(room, w.message(alice, "newest"))
	for _, s := range w.timeline(room) {
		if s.StateKey == nil && s.Seq < cut.Seq {
			t.Errorf("left at %d: %s", s.Seq, s.Content)
		}
	}
	var problems []string
	c, err := Check(ctx, w.store, partitions, func(p string) { problems = append(problems, p) })
	if err != nil || c.Problems != 0 {
		t.Errorf("check: %v: %s", err, strings.Join(problems, "; "))
	}
	// All of it: the last event stays, as the next is linked to it.
	if _, err := w.node.Do(ctx, &Trim{Room: room, UpTo: maxSeq}); err != nil {
		t.Fatal(err)
	}
	w.mustSend(room, w.message(alice, "goes on"))
	if _, err = Check(ctx, w.store, partitions, func(p string) { t.Error(p) }); err != nil {
		t.Fatal(err)
	}
}
