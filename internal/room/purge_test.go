package room

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// meanwhile is a command between whose Prepare and Apply something else happens,
// the first time.
type meanwhile struct {
	partition.Command
	happens func()
}

// Prepare implements partition.Command.
func (c *meanwhile) Prepare(ctx ctxT, p *partition.Prep) error {
	if err := c.Command.Prepare(ctx, p); err != nil || c.happens == nil {
		return err
	}
	happens := c.happens
	c.happens = nil
	happens()
	return nil
}

// reply is a reply of alice's in the thread of a root.
func (w *world) reply(room ids.RoomID, root *Stored) *Send {
	c := w.message(alice, "")
	c.Room = room
	c.Draft.Content = canonical(w.t, `{"body":"x","m.relates_to":{"rel_type":"m.thread","event_id":"`+string(root.ID)+`"}}`)
	return c
}

// What a command found before a purge, and is not there any more when its turn
// comes, is not an error of the server.
func TestPurgedMeanwhile(t *testing.T) {
	w, room := clean(t, "12")
	purge := func() {
		if _, err := w.node.Do(ctx, &Trim{Room: room, UpTo: maxSeq}); err != nil {
			t.Fatal(err)
		}
	}
	old := w.mustSend(room, w.message(alice, "old"))
	w.mustSend(room, w.message(alice, "newer"))
	_, err := w.node.Do(ctx, &meanwhile{w.redaction(room, alice, old.ID), purge})
	if !merr.Is(err, merr.NotFound) {
		t.Errorf("redaction of a purged event: %v", err)
	}
	old = w.mustSend(room, w.message(alice, "old"))
	w.mustSend(room, w.message(alice, "newer"))
	reply := w.reply(room, old)
	if _, err := w.node.Do(ctx, &meanwhile{reply, purge}); err != nil {
		t.Errorf("reply to a purged event: %v", err)
	}
	if _, err := Check(ctx, w.store, partitions, func(p string) { t.Error(p) }); err != nil {
		t.Fatal(err)
	}
}

// An event whose ID does not hold its position, as older versions wrote them, is found
// by the index, can be redacted, and is purged with its place in the index.
func TestOlderID(t *testing.T) {
	w, room := clean(t, "12")
	old := w.mustSend(room, w.message(alice, "old"))
	head, err := w.r.Head(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	w.node.Close()
	ev := old.Full()
	if err := ev.Seal(head.Version, 0); err != nil {
		t.Fatal(err)
	}
	if ev.ID == old.ID {
		t.Fatal("an ID with its position is one without")
	}
	older, err := newStored(ev, old.Seq)
	if err != nil {
		t.Fatal(err)
	}
	p := w.r.Place(room)
	index, _ := p.eventIndex(older.ID)
	head.LastEvent = older.ID
	w.write(p.timeline(old.Seq), older.encode())
	w.write(index, []byte(tables.SeqSort(old.Seq)))
	w.write(p.head(), head.encode())
	w.start()
	if got := w.event(room, older.ID); got.Seq != old.Seq {
		t.Errorf("%s is at %d, not at %d", older.ID, got.Seq, old.Seq)
	}
	if got, err := w.r.Event(ctx, room, old.ID); got != nil || err != nil {
		t.Errorf("an ID with the same position is taken for it: %v, %v", got, err)
	}
	if _, err := w.redact(room, alice, older.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(ctx, w.store, partitions, func(p string) { t.Error(p) }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.node.Do(ctx, &Trim{Room: room, UpTo: maxSeq}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.rows(room, tables.EventIndex)); n != 1 {
		t.Errorf("%d in the index, which has place for the create event alone", n)
	}
}

// A reply that comes while its thread is being purged leaves the list of threads
// without one that has no root.
func TestThreadMovesWhileItIsPurged(t *testing.T) {
	w, room := clean(t, "12")
	root := w.mustSend(room, w.message(alice, "root"))
	reply := func() { w.mustSend(room, w.reply(room, root)) }
	reply()
	if _, err := w.node.Do(ctx, &meanwhile{&Trim{Room: room, UpTo: root.Seq}, reply}); err != nil {
		t.Fatal(err)
	}
	if left := w.rows(room, tables.ThreadLog); len(left) != 0 {
		t.Errorf("%d threads without a root", len(left))
	}
}

// A deleted room leaves no list of those who watched it, and gets none afterwards.
func TestDropForgetsWatchers(t *testing.T) {
	w, room := clean(t, "12")
	watch := func() {
		t.Helper()
		for _, u := range []ids.UserID{alice, bob} {
			if _, err := w.node.Do(ctx, &AddWatch{Room: room, User: u, Gen: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	watch()
	if n := len(w.rows(room, tables.RoomWatch)); n != 2 {
		t.Fatalf("%d watch", n)
	}
	for gone := false; !gone; {
		var err error
		if gone, err = partition.Do[bool](ctx, w.node, &Drop{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	watch()
	if left := w.rows(room, tables.RoomWatch); len(left) != 0 {
		t.Errorf("%d watchers are left", len(left))
	}
}
