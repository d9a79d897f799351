package feed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// stopStore stops the next read of a timeline when it is armed, until it is let go.
type stopStore struct {
	storage.Store
	armed   atomic.Bool
	stopped chan chan struct{}
}

func (s *stopStore) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	out, err := s.Store.Scan(ctx, r)
	if r.Table == tables.Timeline && s.armed.CompareAndSwap(true, false) {
		release := make(chan struct{})
		s.stopped <- release
		<-release
	}
	return out, err
}

// slow returns a room of alice and bob, with a socket of bob's that was refused a frame
// and builds a response, which has read the timeline and does not go on before release.
func slow(t *testing.T) (w *world, r ids.RoomID, s Session, k *sink, release chan struct{}) {
	t.Helper()
	st := &stopStore{Store: memstore.New(clock.Real{}), stopped: make(chan chan struct{})}
	w = newWorld(t, st)
	t.Cleanup(w.close)
	w.follow(w.bus)
	r = w.create(alice, "shared")
	w.join(r, bob)
	s, k = w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	w.say(r, alice, "first")
	k.wait(t, `"first"`)
	settled(t, s)
	k.drain(s, 0)
	w.say(r, alice, "refused")
	w.followed(r)
	w.forget(r)
	st.armed.Store(true)
	k.drain(s, 1<<30)
	return w, r, s, k, <-st.stopped
}

// saidIn are the messages of frames, in order.
func saidIn(frames []*response, r ids.RoomID) (out []string) {
	for _, f := range frames {
		for _, e := range f.Rooms.Join[r].Timeline.Events {
			out = append(out, fmt.Sprint(e.Content["body"]))
		}
	}
	return out
}

// What comes while a response is built follows it, in order and once, and the session is
// live then without another one: a room that is busier than responses are quick would
// keep it building for ever.
func TestHeldBack(t *testing.T) {
	w, r, s, k, release := slow(t)
	want := []string{"refused"}
	for i := range maxHeld {
		want = append(want, fmt.Sprint("m", i))
		w.say(r, alice, want[i+1])
	}
	w.followed(r)
	close(release)
	frames := k.wait(t, `"`+want[maxHeld]+`"`)
	if got := saidIn(frames, r); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	for i, f := range frames {
		if isResponse := f.NextBatch != ""; isResponse != (i == 0) {
			t.Errorf("frame %d: next_batch %q", i, f.NextBatch)
		}
	}
	settled(t, s)
}

// What only a response can tell, and more than is held back, are told by another one.
func TestNotHeldBack(t *testing.T) {
	for name, say := range map[string]func(w *world, r ids.RoomID){
		"too many": func(w *world, r ids.RoomID) {
			for i := range maxHeld {
				w.say(r, alice, fmt.Sprint("m", i))
			}
		},
		"state": func(w *world, r ids.RoomID) {
			w.event(r, roomstate.Draft{Type: event.TypeName, StateKey: new(string), Sender: alice, Content: []byte(`{"name":"new"}`)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, r, s, k, release := slow(t)
			say(w, r)
			w.say(r, alice, "last")
			w.followed(r)
			close(release)
			frames := k.wait(t, `"last"`)
			got := saidIn(frames, r)
			if len(frames) != 2 || got[0] != "refused" || got[len(got)-1] != "last" {
				t.Errorf("%d frames: %v", len(frames), got)
			}
			if slices.Sort(got); len(slices.Compact(got)) != len(got) {
				t.Errorf("told twice: %s", strings.Join(got, " "))
			}
			settled(t, s)
		})
	}
}

// What is taken away again while a response is built is not counted.
func TestRedactedWhileHeld(t *testing.T) {
	w, r, s, k, release := slow(t)
	w.must(redaction(r, alice, w.say(r, alice, "slip")))
	w.followed(r)
	close(release)
	frames := k.wait(t, `"m.room.redaction"`)
	want := w.sync(w.follow(w.bus), bob, "", "").Rooms.Join[r].Unread.Notify
	if got := frames[len(frames)-1].Rooms.Join[r].Unread; got == nil || got.Notify != want {
		t.Errorf("unread: %+v, want %d", got, want)
	}
	settled(t, s)
}
