package feed

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage/faultstore"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// kinds are "full" and "mark" for each of the frames.
func kinds(frames []*response) (out []string) {
	for _, f := range frames {
		switch {
		case f.NextBatch != "":
			out = append(out, "full")
		case len(f.Mark) == 2:
			out = append(out, "mark")
		default:
			out = append(out, "bare")
		}
	}
	return out
}

// calm makes a room of alice and bob with a live socket of bob's that has had the
// room's counts.
func calm(t *testing.T, filter string) (*world, ids.RoomID, Session, *sink) {
	t.Helper()
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob)
	s, k := w.socket(t, bob, "", filter)
	k.wait(t, `"next_batch"`)
	w.say(r, alice, "first")
	k.wait(t, `"first"`)
	settled(t, s)
	return w, r, s, k
}

func TestLiveFrames(t *testing.T) {
	w, r, s, k := calm(t, "")
	for i := range 5 {
		w.say(r, alice, fmt.Sprint("m", i))
	}
	frames := k.wait(t, `"m4"`)
	if got := kinds(frames); !slices.Equal(got, []string{"mark", "mark", "mark", "mark", "mark"}) {
		t.Fatalf("frames %v", got)
	}
	for i, f := range frames {
		sec := f.Rooms.Join[r]
		if bodies(sec) != fmt.Sprint("m", i) || sec.Timeline.Limited || sec.Unread == nil || sec.Unread.Notify != i+2 {
			t.Fatalf("frame %d: %+v with counts %+v", i, sec.Timeline, sec.Unread)
		}
	}
	settled(t, s)
}

// What others read does not keep the events behind it from going the short way.
func TestLiveBehindReceipts(t *testing.T) {
	w, r, s, k := calm(t, "")
	for i := range 3 {
		id := w.say(r, alice, fmt.Sprint("m", i))
		w.read(r, alice, id)
		frames := k.wait(t, `"m.receipt"`)
		if got := kinds(frames); !slices.Equal(got, []string{"mark", "mark"}) {
			t.Fatalf("message and receipt %d come as %v", i, got)
		}
	}
	settled(t, s)
	// One's own changes the counts, which a response tells.
	id := w.say(r, alice, "last")
	k.wait(t, `"last"`)
	w.read(r, bob, id)
	frames := k.wait(t, `"m.receipt"`)
	if u := frames[len(frames)-1].Rooms.Join[r].Unread; u == nil || u.Notify != 0 {
		t.Fatalf("counts after reading: %+v", u)
	}
}

// A private receipt of someone else is nobody's business and moves nobody.
func TestLivePrivateReceipt(t *testing.T) {
	w, r, s, k := calm(t, "")
	id := w.say(r, alice, "m")
	k.wait(t, `"m"`)
	v := s.(*session).mu.view
	version := func() uint64 {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.mu.version
	}
	before := version()
	w.must(&room.SetReceipt{Room: r, User: alice, Type: room.ReceiptReadPrivate, Event: id})
	w.sync(w.hub, bob, "", "")
	if version() != before {
		t.Fatal("the receipt woke bob")
	}
	w.say(r, alice, "after")
	frames := k.wait(t, `"after"`)
	if len(frames) != 1 || frames[0].Rooms.Join[r].Ephemeral.Events != nil {
		t.Fatalf("%d frames, %+v", len(frames), frames[0].Rooms.Join[r])
	}
}

func TestLiveTyping(t *testing.T) {
	w, r, s, k := calm(t, "")
	until := w.clock.Now().Add(time.Minute)
	say := func(n TypingNotice) string {
		t.Helper()
		if err := w.hub.Type(n); err != nil {
			t.Fatal(err)
		}
		frames := k.wait(t, `"m.typing"`)
		if got := kinds(frames); !slices.Equal(got, []string{"bare"}) {
			t.Fatalf("typing comes as %v", got)
		}
		return fmt.Sprint(frames[0].Rooms.Join[r].Ephemeral.Events[0].Content["user_ids"])
	}
	if got := say(TypingNotice{Room: r, User: alice, Until: until}); got != "[@alice:h]" {
		t.Fatalf("typing %s", got)
	}
	if got := say(TypingNotice{Room: r, User: alice}); got != "[]" {
		t.Fatalf("typing %s", got)
	}
	settled(t, s)
	w.must(account.NewSetData(bob, "", TypeIgnored, []byte(`{"ignored_users":{"@alice:h":{}}}`)))
	k.wait(t, TypeIgnored)
	settled(t, s)
	if got := say(TypingNotice{Room: r, User: alice, Until: until}); got != "[]" {
		t.Fatalf("the ignored type: %s", got)
	}
}

// Typing crosses nodes, runs out, and its end is told to who was away.
func TestTypingAcrossNodes(t *testing.T) {
	w := open(t)
	other := w.follow(w.bus)
	r := w.create(alice, "shared")
	w.join(r, bob)
	since := w.sync(other, bob, "", "").NextBatch
	if err := w.hub.Type(TypingNotice{Room: r, User: alice, Until: w.clock.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	typers := func() string {
		t.Helper()
		got := w.sync(other, bob, since, "")
		since = got.NextBatch
		if sec := got.Rooms.Join[r]; sec != nil && len(sec.Ephemeral.Events) > 0 {
			return fmt.Sprint(sec.Ephemeral.Events[0].Content["user_ids"])
		}
		return ""
	}
	eventually(t, "bob hears that alice types", func() bool { return typers() == "[@alice:h]" })
	// A notice that came while the response was built is told with the next one too.
	eventually(t, "bob is told no more", func() bool { return typers() == "" })
	w.clock.Advance(2 * time.Minute)
	other.typing.expire(w.clock.Now())
	w.clock.Advance(keepTyping / 2) // bob is away
	other.typing.expire(w.clock.Now())
	if got := typers(); got != "[]" {
		t.Fatalf("the end of typing, late: %q", got)
	}
	w.clock.Advance(keepTyping)
	other.typing.expire(w.clock.Now())
	if n := len(other.typing.mu.rooms); n != 0 {
		t.Fatalf("%d rooms are kept", n)
	}
}

func TestLiveFilters(t *testing.T) {
	w, r, s, k := calm(t, `{"room":{"timeline":{"types":["m.room.message"]},"ephemeral":{"types":[]}}}`)
	w.event(r, draft(alice, "test.other", nil, `{}`))
	w.say(r, alice, "wanted")
	id := w.say(r, alice, "end")
	var got []ids.EventID
	for _, f := range k.wait(t, `"end"`) {
		got = append(got, eventIDs(f.Rooms.Join[r].Timeline.Events)...)
	}
	if len(got) != 2 {
		t.Fatalf("events %v", got)
	}
	w.read(r, alice, id)
	w.event(r, draft(alice, "test.other", nil, `{}`))
	w.sync(w.hub, bob, "", "")
	settled(t, s)
	// What was passed over is not looked at again: the position is beyond it.
	x := s.(*session)
	x.mu.Lock()
	at, head := x.mu.at.position(partitions).At[w.rooms.Place(r).Partition], w.timeline(r)
	x.mu.Unlock()
	if last := head[len(head)-1].Seq; at != last {
		t.Fatalf("the session is at %d, the room at %d", at, last)
	}
}

func TestLiveIgnored(t *testing.T) {
	w, r, s, k := calm(t, "")
	w.join(r, carol)
	w.must(account.NewSetData(bob, "", TypeIgnored, []byte(`{"ignored_users":{"@carol:h":{}}}`)))
	w.say(r, alice, "m1")
	k.wait(t, `"m1"`)
	w.sync(w.hub, bob, "", "") // the list of the ignored has been processed
	settled(t, s)
	k.take() // it may have been told after the message
	for range 3 {
		w.say(r, carol, "unheard")
	}
	w.say(r, alice, "m2")
	frames := k.wait(t, `"m2"`)
	if got := kinds(frames); !slices.Equal(got, []string{"mark"}) {
		t.Fatalf("after the ignored: %v", got)
	}
	if u := frames[0].Rooms.Join[r].Unread; u.Notify != 3 {
		t.Fatalf("counts %+v", u)
	}
}

func TestLiveOwnTransaction(t *testing.T) {
	w, r, s, k := calm(t, "")
	k2 := newSink(1 << 30)
	sess, err := w.hub.Open(ctx, Open{User: bob, Device: "T"}, k2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sess.Close)
	k2.wait(t, `"next_batch"`)
	settled(t, sess)
	settled(t, s)
	w.must(&room.Send{Room: r, Draft: message(bob, "mine"), Txn: room.Txn{Device: "S", Path: "send", ID: "t1"}})
	txn := func(k *sink) any {
		frames := k.wait(t, `"mine"`)
		return frames[len(frames)-1].Rooms.Join[r].Timeline.Events[0].Unsigned["transaction_id"]
	}
	if a, b := txn(k), txn(k2); a != "t1" || b != nil {
		t.Fatalf("the device that sent it sees %v, the other %v", a, b)
	}
}

// The sockets of lazy readers get the member events of senders once, on the frame
// that first needs it, and again if the frame was refused.
func TestLiveLazyMembers(t *testing.T) {
	const filter = `{"room":{"state":{"lazy_load_members":true}}}`
	w, r, s, k := calm(t, filter)
	w.join(r, carol)
	w.say(r, carol, "c1") // in the timeline itself
	k.wait(t, `"c1"`)
	settled(t, s)
	w.say(r, carol, "c2")
	frames := k.wait(t, `"c2"`)
	if frames[0].NextBatch != "" || len(frames[0].Rooms.Join[r].State.Events) != 0 {
		t.Fatalf("known members are sent again: %+v", frames[0].Rooms.Join[r].State)
	}

	// A new socket knows nobody, whatever another was sent.
	_, fresh := w.socket(t, bob, frames[0].NextBatch, filter)
	fresh.wait(t, `"next_batch"`)

	// Resumed where carol's member event is long past.
	position := w.sync(w.hub, bob, "", "").NextBatch
	refusing := newSink(0)
	sess, err := w.hub.Open(ctx, Open{User: bob, Device: "R", Since: position, Filter: filter}, refusing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sess.Close)
	w.say(r, carol, "c3")
	eventually(t, "the frame is refused", func() bool {
		refusing.mu.Lock()
		defer refusing.mu.Unlock()
		return refusing.mu.refused
	})
	refusing.drain(sess, 1<<30)
	got := refusing.wait(t, `"c3"`)
	members := got[len(got)-1].Rooms.Join[r].State.Events
	if len(members) != 1 || *members[0].StateKey != string(carol) {
		t.Fatalf("after a refusal the members are %+v", members)
	}
}

// The same for polls: a response that was lost is sent again with the members.
func TestPolledLazyMembers(t *testing.T) {
	const filter = `{"room":{"state":{"lazy_load_members":true}}}`
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob, carol)
	zero := w.sync(w.hub, bob, "", `{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}`).NextBatch
	has := func(since string, want bool) string {
		t.Helper()
		got := w.sync(w.hub, bob, since, filter)
		var members []string
		for _, e := range got.Rooms.Join[r].State.Events {
			members = append(members, *e.StateKey)
		}
		if slices.Contains(members, string(alice)) != want {
			t.Fatalf("members %v, alice: %t", members, want)
		}
		return got.NextBatch
	}
	w.say(r, alice, "one")
	one := has(zero, true)
	has(zero, true) // the first was lost
	w.say(r, alice, "two")
	two := has(one, false)
	has(one, false)
	w.say(r, alice, "three")
	three := has(two, false)
	w.event(r, state(alice, event.TypeMember, string(alice), `{"displayname":"A","membership":"join"}`))
	for i := range 20 {
		w.say(r, alice, fmt.Sprint("more ", i))
	}
	has(three, true) // in the gap her name changed
	has(zero, true)  // restored from a copy of long ago
	has(one, true)   // from another client of the device
}

// Whatever changed about members in a gap is in its state, although they said nothing
// there: a client that keeps a list of members learns of it nowhere else.
func TestLazyMembersInGap(t *testing.T) {
	const filter = `{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}`
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob)
	since := w.sync(w.hub, bob, "", filter).NextBatch
	look := func() *response { // behind a gap
		for i := range 3 {
			w.say(r, alice, fmt.Sprint("more ", i))
		}
		got := w.sync(w.hub, bob, since, filter)
		since = got.NextBatch
		return got
	}
	gap := func(want ...string) {
		t.Helper()
		var members []string
		for _, e := range look().Rooms.Join[r].State.Events {
			members = append(members, fmt.Sprint(*e.StateKey, " ", e.Content["membership"], " ", e.Content["displayname"]))
		}
		if slices.Sort(members); !slices.Equal(members, want) {
			t.Fatalf("members %v, want %v", members, want)
		}
	}
	gap()
	w.join(r, carol)
	gap(string(carol) + " join <nil>")
	gap()
	w.event(r, state(carol, event.TypeMember, string(carol), `{"displayname":"C","membership":"join"}`))
	gap(string(carol) + " join C")
	w.member(r, carol, carol, event.Leave)
	gap(string(carol) + " leave <nil>")
	for i := range maxStateChanges + 1 { // more than are read one by one
		w.event(r, state(alice, "m.other", fmt.Sprint(i), `{}`))
	}
	w.join(r, carol)
	var members []string
	for _, e := range look().Rooms.Join[r].State.Events {
		if e.Type == event.TypeMember {
			members = append(members, *e.StateKey)
		}
	}
	if !slices.Equal(members, []string{string(carol)}) {
		t.Fatalf("behind many changes the members are %v", members)
	}
}

// State that the filter keeps out of the timeline is in the state that goes before
// it, where it changed before it.
func TestStateBeforeFilteredTimeline(t *testing.T) {
	for _, filter := range []string{
		`{"room":{"timeline":{"types":["m.room.message"]}}}`,
		`{"room":{"timeline":{"types":["m.room.message"]},"state":{"lazy_load_members":true}}}`,
	} {
		w := open(t)
		r := w.create(alice, "shared")
		w.join(r, bob)
		since := w.sync(w.hub, bob, "", filter).NextBatch
		look := func(want ...string) {
			t.Helper()
			got := w.sync(w.hub, bob, since, filter)
			since = got.NextBatch
			var types []string
			for _, e := range got.Rooms.Join[r].State.Events {
				types = append(types, e.Type)
			}
			if slices.Sort(types); !slices.Equal(types, want) || got.Rooms.Join[r].Timeline.Limited {
				t.Fatalf("%s: state %v, want %v", filter, types, want)
			}
		}
		w.event(r, state(alice, event.TypeName, "", `{"name":"one"}`))
		w.join(r, carol)
		w.say(r, bob, "behind both")
		look(event.TypeMember, event.TypeName)
		w.event(r, state(alice, event.TypeName, "", `{"name":"two"}`))
		look(event.TypeName) // alone
		w.say(r, bob, "nothing else")
		look()
	}
}

// Resuming behind any of the frames gives exactly what came after it.
func TestResumeAnywhere(t *testing.T) {
	w, r, s, k := calm(t, "")
	second := w.create(alice, "shared")
	w.join(second, bob)
	since, marks := w.sync(w.hub, bob, "", "").NextBatch, map[string]string{}
	settled(t, s) // the hub has processed all that was synced
	k.take()
	rest := map[ids.EventID]bool{}
	for i := range 12 {
		in := []ids.RoomID{r, second}[i%2]
		rest[w.say(in, alice, fmt.Sprint("m", i))] = true
		w.sync(w.hub, bob, since, "")
		if i%5 == 4 {
			rest[w.event(in, state(alice, event.TypeName, "", fmt.Sprintf(`{"name":"n%d"}`, i)))] = true
			w.sync(w.hub, bob, since, "")
			settled(t, s)
		}
	}
	rest[w.say(r, alice, "end")] = true
	frames := k.wait(t, `"end"`)
	gather := func(list ...*response) map[ids.EventID]bool {
		out := map[ids.EventID]bool{}
		for _, f := range list {
			for _, sec := range f.Rooms.Join {
				for _, e := range sec.Timeline.Events {
					if out[e.ID] || sec.Timeline.Limited {
						t.Fatalf("event %s again, or a gap before it", e.ID)
					}
					out[e.ID] = true
				}
			}
		}
		return out
	}
	marked := 0
	for n := range len(frames) + 1 {
		token := since
		for p, at := range marks {
			token += "~" + p + "." + at
		}
		polled := gather(w.sync(w.hub, bob, token, `{"room":{"timeline":{"limit":100}}}`))
		k2 := newSink(1 << 30)
		sess, err := w.hub.Open(ctx, Open{User: bob, Device: "R", Since: since, Marks: marks}, k2)
		if err != nil {
			t.Fatal(err)
		}
		settled(t, sess)
		sess.Close()
		var list []*response
		for _, f := range k2.take() {
			list = append(list, parse(t, f))
		}
		if pushed := gather(list...); !maps.Equal(pushed, rest) || !maps.Equal(polled, rest) {
			t.Fatalf("behind %d of %d frames %d events are left, a socket gets %d, a poll %d",
				n, len(frames), len(rest), len(pushed), len(polled))
		}
		if n == len(frames) {
			break
		}
		for id := range gather(frames[n]) {
			delete(rest, id)
		}
		if frames[n].NextBatch != "" {
			since, marks = frames[n].NextBatch, map[string]string{}
			continue
		}
		marked++
		marks[frames[n].Mark[0]] = frames[n].Mark[1]
	}
	if marked < 5 || len(rest) > 0 {
		t.Fatalf("%d of %d frames were of the second kind, %d events did not come", marked, len(frames), len(rest))
	}
}

// A sink that refused gets nothing more until it drained, then one response with
// a gap, and the stream goes on.
func TestSlowSink(t *testing.T) {
	w, r, s, k := calm(t, "")
	k.drain(s, 2)
	for i := range 300 {
		w.say(r, alice, fmt.Sprint("m", i))
	}
	eventually(t, "a refusal", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.mu.refused })
	if n := len(k.take()); n != 2 {
		t.Fatalf("%d frames were taken", n)
	}
	w.followed(r)
	k.drain(s, 1<<30)
	frames := k.wait(t, `"m299"`)
	sec := frames[0].Rooms.Join[r]
	if !sec.Timeline.Limited || len(sec.Timeline.Events) != MaxTimeline || frames[0].NextBatch == "" || len(frames) != 1 {
		t.Fatalf("%d frames, limited %t, %d events", len(frames), sec.Timeline.Limited, len(sec.Timeline.Events))
	}
	settled(t, s)
	w.say(r, alice, "on")
	if f := k.wait(t, `"on"`); len(f) != 1 || f[0].Mark == nil {
		t.Fatalf("after that come %v", kinds(f))
	}

	// Where little was refused there is no gap.
	k.drain(s, 1)
	for i := range 5 {
		w.say(r, alice, fmt.Sprint("n", i))
	}
	eventually(t, "a refusal", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.mu.refused })
	k.drain(s, 1<<30)
	got := ""
	for _, f := range k.wait(t, `"n4"`) {
		got += bodies(f.Rooms.Join[r]) + " "
	}
	if got != "n0 n1 n2 n3 n4 " {
		t.Fatalf("around a refusal came %s", got)
	}
}

func viewOf(s Session) *view {
	x := s.(*session)
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.view
}

// Who was kicked is told of that, and of nothing behind it, though the list of
// rooms does not know yet.
func TestKickedAheadOfList(t *testing.T) {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	st := faultstore.New(memstore.New(c))
	w := newWorld(t, st)
	t.Cleanup(w.close)
	w.follow(w.bus)
	home := w.hub.homeOf(bob)
	r := w.create(alice, "shared")
	for w.rooms.Place(r).Partition == home {
		r = w.create(alice, "shared")
	}
	w.join(r, bob)
	s, k := w.socket(t, bob, "", "")
	k.wait(t, `"next_batch"`)
	w.say(r, alice, "first")
	k.wait(t, `"first"`)
	settled(t, s)
	gate := make(chan struct{})
	stop := st.Inject(faultstore.Fault{
		Calls: faultstore.Commit, Hold: gate, Match: func(p ids.Partition) bool { return p == home },
	})
	var kick sync.WaitGroup
	kick.Go(func() { w.member(r, alice, bob, event.Leave) })
	frames := k.wait(t, `"leave":{`)
	settled(t, s) // the list is held back, and the session is up to date
	secret := w.say(r, alice, "secret")
	w.sync(w.hub, bob, frames[len(frames)-1].NextBatch, "") // it has been processed
	// A view that is made now takes a seat in the room, and learns that it is none.
	w.hub.discard(viewOf(s))
	settled(t, s)
	notice := TypingNotice{Room: r, User: alice, Until: w.clock.Now().Add(time.Minute)}
	w.read(r, alice, secret)
	settled(t, s)
	w.hub.discard(viewOf(s))
	settled(t, s)
	if err := w.hub.Type(notice); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	w.sync(w.hub, bob, "", "")
	settled(t, s)
	w.say(r, alice, "secret too")
	notice.Until = time.Time{}
	if err := w.hub.Type(notice); err != nil {
		t.Fatal(err)
	}
	polled := w.sync(w.hub, bob, frames[len(frames)-1].NextBatch, "")
	stop()
	close(gate)
	kick.Wait()
	w.sync(w.hub, bob, "", "")
	settled(t, s)
	frames = append(frames, polled)
	for _, f := range k.take() {
		frames = append(frames, parse(t, f))
	}
	leaves := 0
	for _, f := range frames {
		if f.Rooms.Join[r] != nil {
			t.Fatalf("told after the kick: %+v", f.Rooms.Join[r])
		}
		if sec := f.Rooms.Leave[r]; sec != nil {
			leaves++
			if len(sec.Timeline.Events) != 1 || len(sec.Ephemeral.Events) > 0 {
				t.Fatalf("told with the kick: %+v", sec)
			}
		}
	}
	if leaves != 1 {
		t.Fatalf("told %d times of the kick", leaves)
	}
}

// After a rejoin what was sent during the absence is not counted.
func TestCountsOfNewStay(t *testing.T) {
	w, r, _, k := calm(t, "")
	w.member(r, bob, bob, event.Leave)
	k.wait(t, `"leave":{`)
	for range 5 {
		w.say(r, alice, "unheard")
	}
	w.join(r, bob)
	w.say(r, alice, "back")
	frames := k.wait(t, `"back"`)
	if u := frames[len(frames)-1].Rooms.Join[r].Unread; u.Notify != 1 {
		t.Fatalf("counts after coming back: %+v", u)
	}
}

// What was redacted is never shown with its content again.
func TestRedactedIsGone(t *testing.T) {
	w, r, _, k := calm(t, "")
	before := w.sync(w.hub, bob, "", "").NextBatch
	id := w.say(r, alice, "regrets")
	k.wait(t, `"regrets"`)
	w.must(redaction(r, alice, id))
	frames := k.wait(t, `"m.room.redaction"`)
	if strings.Contains(bodies(frames[0].Rooms.Join[r]), "regrets") {
		t.Fatal("the redaction brings the content")
	}
	for _, since := range []string{"", before} {
		got := w.sync(w.hub, bob, since, "").Rooms.Join[r]
		if !slices.Contains(eventIDs(got.Timeline.Events), id) || strings.Contains(bodies(got), "regrets") {
			t.Fatalf("since %q: %+v", since, got.Timeline)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	for name, tt := range map[string]struct {
		o    Open
		code int // 0: Open itself fails
	}{
		"no token":          {Open{Since: "x"}, 0},
		"a mark of nowhere": {Open{Since: NewPosition(partitions).Token(), Marks: map[string]string{"9": "1"}}, 0},
		"a token of the future": {Open{Since: func() string {
			p := NewPosition(partitions)
			p.At[w.rooms.Place(r).Partition] = 1 << 30
			return p.Token()
		}()}, closeUnknownPosition},
		"a mark of the future": {Open{
			Since: w.sync(w.hub, alice, "", "").NextBatch,
			Marks: map[string]string{fmt.Sprint(w.rooms.Place(r).Partition): "zzzzz"},
		}, closeUnknownPosition},
	} {
		tt.o.User, tt.o.Device = alice, "D"
		k := newSink(1 << 30)
		s, err := w.hub.Open(ctx, tt.o, k)
		if tt.code == 0 {
			if !errors.Is(err, ErrUnknownPosition) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		eventually(t, name, func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.mu.closed == tt.code })
		s.Close()
	}
}

// A stay that was over before the client was told of it is told of from where the
// client stands: nothing that it was shown of the stay before comes again.
func TestStayAheadOfList(t *testing.T) {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	st := faultstore.New(memstore.New(c))
	w := newWorld(t, st)
	t.Cleanup(w.close)
	w.follow(w.bus)
	home := w.hub.homeOf(bob)
	r := w.create(alice, "shared")
	for w.rooms.Place(r).Partition == home {
		r = w.create(alice, "shared")
	}
	w.join(r, bob)
	w.say(r, alice, "first")
	joined := w.sync(w.hub, bob, "", "")
	w.member(r, bob, bob, event.Leave)
	first := w.sync(w.hub, bob, joined.NextBatch, "")
	if joined.Rooms.Join[r] == nil || first.Rooms.Leave[r] == nil {
		t.Fatalf("the first stay: %+v, then %+v", joined.Rooms, first.Rooms)
	}
	w.say(r, alice, "away")
	w.join(r, bob)
	gate := make(chan struct{})
	stop := st.Inject(faultstore.Fault{
		Calls: faultstore.Commit, Hold: gate, Match: func(p ids.Partition) bool { return p == home },
	})
	var kick sync.WaitGroup
	kick.Go(func() { w.member(r, alice, bob, event.Leave) })
	eventually(t, "the kick is in the room", func() bool {
		e, err := w.rooms.StateEvent(ctx, r, event.TypeMember, string(bob))
		return err == nil && e.Member().Membership == event.Leave
	})
	told := w.sync(w.hub, bob, first.NextBatch, "")
	stop()
	close(gate)
	kick.Wait()
	after := w.sync(w.hub, bob, told.NextBatch, "")
	sec := told.Rooms.Leave[r]
	if sec == nil || len(told.Rooms.Join) > 0 {
		t.Fatalf("told of the stay: %+v", told.Rooms)
	}
	events := w.timeline(r)
	if got, want := eventIDs(sec.Timeline.Events), []ids.EventID{events[len(events)-3].ID, events[len(events)-2].ID, events[len(events)-1].ID}; !slices.Equal(got, want) {
		t.Fatalf("told of the stay, %s:\n%v, want\n%v", bodies(sec), got, want)
	}
	if len(after.Rooms.Leave)+len(after.Rooms.Join) > 0 {
		t.Fatalf("told again: %+v", after.Rooms)
	}
}

// A sync that began before the user left and came back counts what was unread in the stay
// it tells of, and leaves nothing of that to those who tell of the next one.
func TestCountsOfAnotherStay(t *testing.T) {
	w := newWorld(t, memstore.New(clock.NewManual(time.Unix(1_700_000_000, 0))))
	t.Cleanup(w.close)
	w.follow(w.bus)
	r := w.create(alice, "shared")
	w.join(r, bob)
	w.say(r, alice, "first")
	w.say(r, alice, "second")
	v, err := w.hub.acquire(ctx, bob)
	if err != nil {
		t.Fatal(err)
	}
	defer w.hub.release(v)
	stay := func() (roomState, ids.Seq) {
		t.Helper()
		w.followed(r)
		heads, err := w.node.Heads(ctx, v.home, w.rooms.Place(r).Partition)
		if err == nil {
			_, err = w.hub.shards[v.home].await(ctx, heads[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		rooms := v.snapshot(nil, nil).rooms
		for _, s := range rooms {
			if s.id == r {
				return s, heads[1]
			}
		}
		t.Fatal("bob is not in the room")
		return roomState{}, 0
	}
	before, then := stay()
	w.member(r, bob, bob, event.Leave)
	w.join(r, bob)
	w.say(r, alice, "third")
	after, now := stay()
	for _, tt := range []struct {
		r    roomState
		upTo ids.Seq
		want int
	}{{before, then, 2}, {after, now, 1}, {before, then, 2}, {after, now, 1}} {
		b, err := v.unread(ctx, &tt.r, tt.upTo, false)
		if err != nil {
			t.Fatal(err)
		}
		if b.notify != tt.want {
			t.Errorf("%d are unread of the stay that began at %d, want %d", b.notify, tt.r.joined, tt.want)
		}
	}
}
