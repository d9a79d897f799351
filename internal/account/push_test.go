package account

import (
	"fmt"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func pusherOf(key string) Pusher {
	return Pusher{AppID: "app", PushKey: key, Kind: "http", Data: []byte(`{"url":"https://p.example/"}`)}
}

func (w *world) pushState(u ids.UserID) *PushState {
	w.t.Helper()
	s, err := w.r.PushState(w.ctx, u)
	if err != nil {
		w.t.Fatalf("push state: %v", err)
	}
	return s
}

func notification(n int) Notification {
	return Notification{Room: "!r:h", Event: ids.EventID(fmt.Sprint("$", n)), Seq: ids.Seq(n), TS: int64(n), Actions: []byte(`["notify"]`)}
}

func (w *world) notify(u ids.UserID, read []ids.RoomID, items ...Notification) {
	w.t.Helper()
	w.must(&Notify{P: PlaceOf(u, partitions).Partition, Users: []Notified{{User: u, Items: items, Read: read}}})
}

func (w *world) queue(u ids.UserID, key string) []Queued {
	w.t.Helper()
	p := pusherOf(key)
	q, err := w.r.Queue(w.ctx, u, p.ID(), 10_000)
	if err != nil {
		w.t.Fatalf("queue: %v", err)
	}
	return q
}

func (w *world) kept(u ids.UserID) int {
	w.t.Helper()
	list, err := w.r.Notifications(w.ctx, u, "", 10_000)
	if err != nil {
		w.t.Fatalf("notifications: %v", err)
	}
	return len(list)
}

// What is told twice, as after a crash, is kept and queued once; also when it was
// sent meanwhile.
func TestNotifyIsIdempotent(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	w.notify(alice, nil, notification(1), notification(2))
	w.notify(alice, nil, notification(1), notification(2), notification(3))
	q := w.queue(alice, "k")
	if len(q) != 3 || w.kept(alice) != 3 || w.pushState(alice).Pushers[0].Queued != 3 {
		t.Fatalf("%d queued, %d listed, %+v", len(q), w.kept(alice), w.pushState(alice))
	}
	for i := range q {
		if q[i].Notification.Seq != ids.Seq(i+1) {
			t.Errorf("queue is out of order: %d at %d", q[i].Notification.Seq, i)
		}
	}
	k := pusherOf("k")
	w.must(NewSent(alice, k.ID(), []string{q[0].Sort, q[1].Sort}, 2))
	w.notify(alice, nil, notification(1))
	if q := w.queue(alice, "k"); len(q) != 1 || q[0].Notification.Seq != 3 {
		t.Errorf("%d queued", len(q))
	}
	if p := w.pushState(alice).Pushers[0]; p.Queued != 1 || !p.Told || p.Badge != 2 {
		t.Errorf("pusher %+v", p)
	}
}

// Nothing is kept for who has neither a pusher nor asked for the list.
func TestNotifyNobody(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.notify(alice, nil, notification(1))
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	w.must(NewEndPusher(alice, "app", "k"))
	w.notify(alice, nil, notification(1))
	if n := w.kept(alice); n != 0 {
		t.Errorf("%d listed", n)
	}
	w.must(NewListNotifications(alice))
	w.notify(alice, []ids.RoomID{"!r:h"}, notification(1))
	if n := w.kept(alice); n != 1 {
		t.Errorf("%d listed", n)
	}
}

// A pusher whose gateway is gone does not pile up what waits for it.
func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	for i := range 3*MaxQueued + 7 {
		w.notify(alice, nil, notification(i))
	}
	q := w.queue(alice, "k")
	if len(q) > MaxQueued || len(q) != w.pushState(alice).Pushers[0].Queued {
		t.Fatalf("%d queued, counted as %d", len(q), w.pushState(alice).Pushers[0].Queued)
	}
	if last := q[len(q)-1].Notification.Seq; last != 3*MaxQueued+6 {
		t.Errorf("the newest is %d", last)
	}
}

func TestListIsBounded(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewListNotifications(alice))
	most := 0
	for i := range 3 * MaxNotifications {
		w.notify(alice, nil, notification(i))
		if i%100 == 0 {
			most = max(most, w.kept(alice))
		}
	}
	list, err := w.r.Notifications(w.ctx, alice, "", 10_000)
	if err != nil || most > 2*MaxNotifications+1 || len(list) < MaxNotifications {
		t.Fatalf("%d listed, %d at most, %v", len(list), most, err)
	}
	for i, n := range list {
		if want := ids.Seq(3*MaxNotifications - 1 - i); n.Seq != want {
			t.Fatalf("place %d has %d, want %d", i, n.Seq, want)
		}
	}
}

// Numbers collapse: however often a user reads, one row waits, behind the rest.
func TestBadgeCollapses(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	for range 5 {
		w.notify(alice, []ids.RoomID{"!r:h"})
	}
	w.notify(alice, nil, notification(1))
	if q := w.queue(alice, "k"); len(q) != 2 || q[0].Badge || !q[1].Badge {
		t.Errorf("queue %+v", q)
	}
}

// A pusher that ends takes what waits for it along, and nothing of others.
func TestEndPusherEmptiesItsQueue(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	w.must(NewSetPusher(alice, pusherOf("l"), false))
	w.notify(alice, nil, notification(1))
	waiting, err := w.r.WaitingPushers(w.ctx, PlaceOf(alice, partitions).Partition, Waiting{}, 10)
	if err != nil || len(waiting) != 2 || waiting[0].User != alice || waiting[0].Pusher == waiting[1].Pusher {
		t.Fatalf("waiting %+v, %v", waiting, err)
	}
	next, err := w.r.WaitingPushers(w.ctx, PlaceOf(alice, partitions).Partition, waiting[0], 10)
	if err != nil || len(next) != 1 || next[0] != waiting[1] {
		t.Errorf("behind the first: %+v, %v", next, err)
	}
	old := NewEndPusher(alice, "app", "k")
	old.SetTS = 1 // meant is one that was set at another time
	w.must(old)
	if len(w.queue(alice, "k")) != 1 {
		t.Error("a pusher that was set anew has ended")
	}
	w.must(NewEndPusher(alice, "app", "k"))
	if len(w.queue(alice, "k")) != 0 || len(w.queue(alice, "l")) != 1 {
		t.Errorf("%d and %d queued", len(w.queue(alice, "k")), len(w.queue(alice, "l")))
	}
}

// A pusher that was set after another user took its key stays.
func TestLateTaken(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.must(NewSetPusher(alice, pusherOf("k"), false))
	at := w.pushState(alice).Pushers[0].SetTS
	taken := func(ts int64) {
		w.must(tell{EffectPusherTaken, alice, [][]byte{encode(&pushKeyChange{User: alice, AppID: "app", PushKey: "k", TS: ts})}})
	}
	taken(at - 1)
	if len(w.pushState(alice).Pushers) != 1 {
		t.Error("an old message ended a new pusher")
	}
	taken(at)
	if len(w.pushState(alice).Pushers) != 0 {
		t.Error("the pusher stays")
	}
}

func TestPushersPerUser(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	for i := range MaxPushers {
		w.must(NewSetPusher(alice, pusherOf(fmt.Sprint(i)), false))
	}
	if _, err := w.do(NewSetPusher(alice, pusherOf("one more"), false)); !merr.Is(err, merr.TooLarge) {
		t.Errorf("one more: %v", err)
	}
}

func TestDecodePush(t *testing.T) {
	k := pusherOf("k")
	id := k.ID()
	pushers, rooms, err := DecodePush(encode(&pushRecord{Pushers: [][]byte{[]byte(id)}, Rooms: []ids.RoomID{"!r:h"}}))
	if err != nil || len(pushers) != 1 || pushers[0] != id || len(rooms) != 1 || rooms[0] != "!r:h" {
		t.Errorf("%q, %v, %v", pushers, rooms, err)
	}
	if _, _, err := DecodePush([]byte("{")); err == nil {
		t.Error("a damaged record was read")
	}
}

// Who deactivates their account is told of nothing any more, and nothing is kept of
// what they were told, followed or said of themselves.
func TestDeactivationEndsPush(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	pusher := pusherOf("k")
	pusher.Device = "" // set by no device, so none takes it along
	w.must(NewSetPusher(alice, pusher, false))
	w.must(NewListNotifications(alice))
	w.must(NewSetPresence(alice, "busy"))
	w.must(NewSubscribeThread(alice, "!r:h", "$root", 0))
	p := PlaceOf(alice, partitions)
	w.must(&Notify{P: p.Partition, Users: []Notified{{User: alice, Items: []Notification{{Room: "!r:h", Event: "$e", Seq: 7, TS: 1}}}}})
	kept := []storage.Table{tables.Notification, tables.Presence, tables.ThreadSubscription}
	left := func(table storage.Table) int {
		t.Helper()
		rows, err := w.store.Scan(w.ctx, storage.Range{Partition: p.Partition, Table: table, Entity: string(alice), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	for _, table := range kept {
		if left(table) == 0 {
			t.Fatalf("nothing in table %d", table)
		}
	}
	end := NewEndAll(alice, "")
	end.Deactivate = true
	w.must(end)
	for _, table := range kept {
		if n := left(table); n != 0 {
			t.Errorf("%d rows are left in table %d", n, table)
		}
	}
	if s, err := w.r.PushState(w.ctx, alice); err != nil || s.Active() {
		t.Errorf("push: %+v, %v", s, err)
	}
	if list, err := w.r.WaitingPushers(w.ctx, p.Partition, Waiting{}, 10); err != nil || len(list) != 0 {
		t.Errorf("waiting: %v, %v", list, err)
	}
}

func webPusher(ack, data string) Pusher {
	return Pusher{AppID: "web", PushKey: "k", Kind: "webpush", Data: []byte(data), Inactive: true, Ack: ack}
}

// A pusher that has to be activated is told of nothing before, and once it is active it
// stays so while it means the same browser.
func TestActivatePusher(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	const one, two = `{"url":"https://p.example/1","auth":"a"}`, `{"url":"https://p.example/2","auth":"a"}`
	set := func(ack, data string) bool {
		t.Helper()
		return w.must(NewSetPusher(alice, webPusher(ack, data), false)).(PusherSet).Inactive
	}
	pu := webPusher("", one)
	queued := func() []Queued {
		t.Helper()
		q, err := w.r.Queue(w.ctx, alice, pu.ID(), 100)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	refused := func(ack string, want merr.Code) {
		t.Helper()
		if _, err := w.do(NewActivatePusher(alice, "web", ack)); !merr.Is(err, want) {
			t.Errorf("activate by %q: %v, want %s", ack, err, want)
		}
	}
	refused("x", merr.NotFound)
	if !set("first", one) || !set("second", one) {
		t.Error("a new pusher is active")
	}
	w.notify(alice, []ids.RoomID{"!r:h"}, notification(1))
	q, s := queued(), w.pushState(alice)
	if len(q) != 2 || !q[0].Ack || !q[1].Ack || s.Pushers[0].Asks(&q[0]) == s.Pushers[0].Asks(&q[1]) {
		t.Fatalf("queued %+v", q)
	}
	w.must(NewSent(alice, pu.ID(), []string{q[0].Sort}, -1))
	if rest := queued(); len(rest) != 1 || rest[0].Sort != q[1].Sort {
		t.Errorf("queued %+v", rest)
	}
	refused("first", merr.UnknownActivation)
	refused("", merr.UnknownActivation)
	w.must(NewActivatePusher(alice, "web", "second"))
	w.must(NewActivatePusher(alice, "web", "second"))
	if s := w.pushState(alice); s.Pushers[0].Asks(&q[1]) || s.Pushers[0].Asks(&q[0]) || s.Pushers[0].Queued != 0 {
		t.Errorf("pusher %+v", s.Pushers[0])
	}
	w.notify(alice, nil, notification(2))
	if len(queued()) != 2 {
		t.Errorf("queued %+v", queued())
	}
	if set("third", one) {
		t.Error("the same browser has to be activated again")
	}
	if !set("fourth", two) {
		t.Error("another address needs no proof")
	}
	w.clock.Advance(AckLife + time.Second)
	refused("fourth", merr.ExpiredActivation)
	if !set("fifth", two) {
		t.Error("it is active")
	}
	w.must(NewActivatePusher(alice, "web", "fifth"))
}
