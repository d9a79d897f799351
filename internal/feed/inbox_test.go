package feed

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// inboxStore counts how often to-device messages are looked for.
type inboxStore struct {
	storage.Store
	looked atomic.Int64
}

func (s *inboxStore) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	if r.Table == tables.Inbox {
		s.looked.Add(1)
	}
	return s.Store.Scan(ctx, r)
}

// inboxWorld is a world with a room of alice and bob, whose devices are D and E.
type inboxWorld struct {
	*world
	st   *inboxStore
	room ids.RoomID
	sent int
}

func openInbox(t *testing.T) *inboxWorld {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	i := &inboxWorld{world: w, st: &inboxStore{Store: w.store}}
	w.store = i.st
	w.follow(w.bus)
	w.must(account.NewRegister(bob, account.Account{PasswordHash: "x"}, "", &account.Session{Device: "D", Access: "d"}))
	w.must(account.NewLogin(bob, account.Session{Device: "E", Access: "e"}, ""))
	i.room = w.create(alice, "shared")
	w.join(i.room, bob)
	return i
}

// send sends a to-device message to both devices of bob.
func (w *inboxWorld) send() {
	w.t.Helper()
	w.sent++
	w.must(account.NewSendToDevice(alice, "A", "test", fmt.Sprint(w.sent), map[ids.UserID]map[ids.DeviceID]jsontext.Value{
		bob: {account.AllDevices: jsontext.Value(`{}`)},
	}))
}

// kept is how many messages bob's devices have in store.
func (w *inboxWorld) kept() int {
	w.t.Helper()
	rows, err := w.st.Store.Scan(ctx, storage.Range{
		Partition: w.hub.homeOf(bob), Table: tables.Inbox, Entity: string(bob), Limit: 100,
	})
	if err != nil {
		w.t.Fatalf("scan: %v", err)
	}
	return len(rows)
}

// turn syncs a device behind something that was said, and returns the next since, how
// many to-device messages there were and how often they were looked for.
func (w *inboxWorld) turn(d ids.DeviceID, since string) (next string, got, looked int) {
	w.t.Helper()
	w.say(w.room, alice, "something")
	before := w.st.looked.Load()
	r := w.poll(w.hub, &Request{User: bob, Device: d}, since, "")
	return r.NextBatch, len(r.ToDevice.Events), int(w.st.looked.Load() - before)
}

// What a device has had is removed, and not looked for with each request.
func TestAcknowledgedOnce(t *testing.T) {
	w := openInbox(t)
	d, _, _ := w.turn("D", "")
	e, _, _ := w.turn("E", "")
	quiet := func(what string) {
		t.Helper()
		for range 3 {
			var n [4]int
			d, n[0], n[1] = w.turn("D", d)
			e, n[2], n[3] = w.turn("E", e)
			if n != [4]int{} {
				t.Fatalf("%s: messages and looks of two devices: %v", what, n)
			}
		}
	}
	// Where the view does not know what was before it was loaded, it looks once.
	d, _, _ = w.turn("D", d)
	e, _, _ = w.turn("E", e)
	quiet("from the beginning")
	for i := range 3 {
		w.send()
		var got int
		if d, got, _ = w.turn("D", d); got != 1 || w.kept() != 2 {
			t.Fatalf("message %d: D got %d, %d are kept", i, got, w.kept())
		}
		if d, got, _ = w.turn("D", d); got != 0 || w.kept() != 1 {
			t.Fatalf("message %d, acknowledged: D got %d, %d are kept", i, got, w.kept())
		}
		old := e
		if e, got, _ = w.turn("E", old); got != 1 || w.kept() != 1 {
			t.Fatalf("message %d: E got %d, %d are kept", i, got, w.kept())
		}
		if e, got, _ = w.turn("E", old); got != 1 {
			t.Fatalf("message %d: E, who lost the response, got %d", i, got)
		}
		if e, got, _ = w.turn("E", e); got != 0 || w.kept() != 0 {
			t.Fatalf("message %d, acknowledged: E got %d, %d are kept", i, got, w.kept())
		}
		quiet(fmt.Sprint("after message ", i))
	}
	// A node that has not seen the message come removes it too.
	w.send()
	w.hub = w.follow(w.bus)
	for _, want := range [][2]int{{1, 2}, {0, 1}} {
		var got int
		if d, got, _ = w.turn("D", d); got != want[0] || w.kept() != want[1] {
			t.Fatalf("on another node: D got %d, %d are kept, want %v", got, w.kept(), want)
		}
	}
}

// A position of the future acknowledges nothing, and hides nothing that comes.
func TestFutureAcknowledgesNothing(t *testing.T) {
	w := openInbox(t)
	since, _, _ := w.turn("D", "")
	home := w.hub.homeOf(bob)
	for _, ahead := range []ids.Seq{1000, 2000} {
		p, err := w.hub.ParseSince(since)
		if err != nil {
			t.Fatal(err)
		}
		p.At[home], p.Inbox = p.At[home]+ahead, p.At[home]+ahead
		w.send()
		w.hub.acknowledged(ctx, bob, "D", p)
		kept := w.kept()
		var got int
		if since, got, _ = w.turn("D", since); got != 1 {
			t.Fatalf("%d ahead: got %d messages", ahead, got)
		}
		if since, got, _ = w.turn("D", since); got != 0 || w.kept() != kept-1 {
			t.Fatalf("%d ahead: got %d, and %d of %d are kept", ahead, got, w.kept(), kept)
		}
	}
}

// More devices than a view remembers are looked up, and lose nothing.
func TestManyPollingDevices(t *testing.T) {
	v := &view{}
	device := func(i int) ids.DeviceID { return ids.DeviceID(fmt.Sprint("D", i)) }
	for i := range maxPolled + 3 {
		v.emptied(device(i), 10)
		v.emptied(device(i), 5)
	}
	v.mu.inbox = 10
	for i := range maxPolled + 3 {
		if got, want := v.inboxEmpty(device(i), 20), i >= 3; got != want {
			t.Errorf("device %d: empty %v, want %v", i, got, want)
		}
	}
	v.mu.inbox = 11
	if v.inboxEmpty(device(9), 11) || !v.inboxEmpty(device(9), 10) {
		t.Error("a message is passed over, or one behind the position counts")
	}
}
