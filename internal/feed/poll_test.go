package feed

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

// waiter is a client that polls.
type waiter struct {
	w      *world
	st     *storagetest.Counting // of the hub: the commands of a world read elsewhere
	rooms  []ids.RoomID
	filter string
	since  string
}

// openWaiter is a world with rooms of alice and bob, of which bob's client knows all.
func openWaiter(t *testing.T, filter string) *waiter {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	p := &waiter{w: w, st: &storagetest.Counting{Store: w.store}, filter: filter}
	w.store = p.st
	// The bus loses nothing, and a look whether it did would be counted.
	w.pace.gap, w.pace.poll = time.Hour, time.Hour
	w.follow(w.bus)
	w.must(account.NewRegister(bob, account.Account{PasswordHash: "x"}, "", &account.Session{Device: "D", Access: "d"}))
	for i := range 3 {
		r := w.create(alice, "shared")
		w.join(r, bob)
		w.say(r, alice, fmt.Sprint("before ", i))
		w.say(r, bob, fmt.Sprint("before ", i))
		p.rooms = append(p.rooms, r)
	}
	for range 2 { // what it has is known by what it goes on from
		p.take(w.sync(w.hub, bob, p.since, filter))
	}
	return p
}

func (p *waiter) take(r *response) *response {
	p.since = r.NextBatch
	return r
}

// poll waits for what happens, and counts what is read for the whole request.
func (p *waiter) poll(happens func()) (r *response, reads int64) {
	p.w.t.Helper()
	before := p.st.Reads.Load()
	answer := make(chan *response, 1)
	go func() {
		answer <- p.w.poll(p.w.hub, &Request{User: bob, Device: "D", Timeout: time.Minute}, p.since, p.filter)
	}()
	p.waits()
	happens()
	r = p.take(<-answer)
	return r, p.st.Reads.Load() - before
}

func viewOfUser(h *Hub, u ids.UserID) *view {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.users[u]
}

// waits returns when the request does.
func (p *waiter) waits() {
	v := viewOfUser(p.w.hub, bob)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		waits := len(v.mu.sessions) == 1 && v.mu.sessions[0].isLive()
		v.mu.Unlock()
		if waits {
			return
		}
		if time.Now().After(deadline) {
			panic("the poll does not wait")
		}
	}
}

// A client that polls, and has had all there was, is told of messages and receipts
// without a look at the store, neither while it begins to wait nor when they come.
func TestPollReadsNothing(t *testing.T) {
	for _, filter := range []string{"", `{"room":{"state":{"lazy_load_members":true}}}`} {
		p := openWaiter(t, filter)
		r := p.rooms[1]
		p.poll(func() { p.w.say(r, alice, "first") }) // the view learns of keys and counts
		for i := range 3 {
			var said ids.EventID
			got, reads := p.poll(func() { said = p.w.say(r, alice, fmt.Sprint("news ", i)) })
			sec := got.Rooms.Join[r]
			if len(got.Rooms.Join) != 1 || sec == nil || bodies(sec) != fmt.Sprint("news ", i) || sec.Timeline.Limited || sec.Unread.Notify != i+2 {
				t.Fatalf("%q: told %+v", filter, got.Rooms.Join)
			}
			if seq := p.seq(r, said); sec.Timeline.PrevBatch != PageToken(seq-1) {
				t.Errorf("%q: prev_batch %s of an event at %d", filter, sec.Timeline.PrevBatch, seq)
			}
			if reads != 0 {
				t.Errorf("%q: message %d: %d reads", filter, i, reads)
			}
		}
		last := p.w.timeline(r)
		got, reads := p.poll(func() { p.w.read(r, alice, last[len(last)-1].ID) })
		sec := got.Rooms.Join[r]
		if sec == nil || len(sec.Timeline.Events) > 0 || len(sec.Ephemeral.Events) != 1 || !strings.Contains(fmt.Sprint(sec.Ephemeral.Events[0].Content), string(alice)) || reads != 0 {
			t.Errorf("%q: told of a receipt %+v, %d reads", filter, sec, reads)
		}
		if end := p.w.sync(p.w.hub, bob, p.since, filter); len(end.Rooms.Join) > 0 {
			t.Errorf("%q: told again: %+v", filter, end.Rooms.Join)
		}
	}
}

func (p *waiter) seq(r ids.RoomID, id ids.EventID) ids.Seq {
	for _, e := range p.w.timeline(r) {
		if e.ID == id {
			return e.Seq
		}
	}
	panic("no such event")
}

// What comes before the request has been answered comes with it, room by room: own
// events with their transaction, and receipts.
func TestPollGathers(t *testing.T) {
	p := openWaiter(t, "")
	w, r, q := p.w, p.rooms[0], p.rooms[2]
	p.poll(func() { w.say(r, alice, "first") })
	hold := make(chan struct{})
	var first, own, last ids.EventID
	got, _ := p.poll(func() {
		s := viewOfUser(w.hub, bob).mu.sessions[0]
		s.mu.Lock() // nobody is told, and the request is not answered
		go func() {
			defer close(hold)
			first = w.say(r, alice, "one")
			w.say(q, alice, "elsewhere")
			id, err := w.do(&room.Send{Room: r, Draft: message(bob, "two"), Txn: room.Txn{Device: "D", Path: "send", ID: "T"}})
			if err != nil {
				t.Error(err)
				return
			}
			own, _ = id.(ids.EventID)
			w.read(r, alice, first)
			last = w.say(r, alice, "three")
		}()
		<-hold
		// The shards wait for the session's lock with the first of each room: all that
		// is behind it comes while the request wakes up, or with the next one.
		s.mu.Unlock()
	})
	told := map[ids.RoomID]string{}
	var txn any
	receipts := 0
	for n := 0; ; n++ {
		for id, sec := range got.Rooms.Join {
			told[id] = strings.TrimSpace(told[id] + " " + bodies(sec))
			receipts += len(sec.Ephemeral.Events)
			for _, e := range sec.Timeline.Events {
				if e.ID == own {
					txn = e.Unsigned["transaction_id"]
				}
			}
		}
		if told[r] == "one two three" && told[q] == "elsewhere" && receipts == 1 || n == 5 {
			break
		}
		got = p.take(w.sync(w.hub, bob, p.since, ""))
	}
	if told[r] != "one two three" || told[q] != "elsewhere" || receipts != 1 || txn != "T" {
		t.Errorf("told %v, %d receipts, transaction %v; last was %s", told, receipts, txn, last)
	}
}

// More than a timeline may have is left to a response that is built, and who is not
// known to a client that loads members lazily comes with their member event.
func TestPollLimits(t *testing.T) {
	p := openWaiter(t, `{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}`)
	w, r := p.w, p.rooms[0]
	var told string
	for n := range 4 {
		got, _ := p.poll(func() { w.say(r, alice, fmt.Sprint("message ", n)) })
		told += bodies(got.Rooms.Join[r]) + ";"
	}
	if told != "message 0;message 1;message 2;message 3;" {
		t.Errorf("told %s", told)
	}
	w.join(r, carol)
	p.take(w.sync(w.hub, bob, p.since, p.filter))
	got, _ := p.poll(func() { w.say(r, carol, "new here") })
	if sec := got.Rooms.Join[r]; bodies(sec) != "new here" {
		t.Fatalf("told %+v", sec)
	}
}

// State, typing notices and the end of the time are told by responses that are built,
// or that say nothing, and each goes on from where the client is.
func TestPollIsWoken(t *testing.T) {
	p := openWaiter(t, "")
	w, r := p.w, p.rooms[0]
	got, _ := p.poll(func() { w.event(r, state(alice, event.TypeTopic, "", `{"topic":"new"}`)) })
	if sec := got.Rooms.Join[r]; sec == nil || len(sec.Timeline.Events) != 1 || sec.Timeline.Events[0].Type != event.TypeTopic {
		t.Fatalf("told of the topic: %+v", sec)
	}
	got, _ = p.poll(func() {
		if err := w.hub.Type(TypingNotice{Room: r, User: alice, Until: w.clock.Now().Add(time.Minute)}); err != nil {
			t.Error(err)
		}
	})
	if sec := got.Rooms.Join[r]; sec == nil || len(sec.Ephemeral.Events) != 1 || sec.Ephemeral.Events[0].Type != "m.typing" {
		t.Fatalf("told who types: %+v", sec)
	}
	w.followed(r)
	end := w.poll(w.hub, &Request{User: bob, Device: "D", Timeout: 10 * time.Millisecond}, p.since, "")
	if len(end.Rooms.Join) > 0 || end.NextBatch == "" {
		t.Fatalf("told at the end of the time: %+v", end)
	}
	p.take(end)
	w.say(r, alice, "after it")
	if got := w.sync(w.hub, bob, p.since, ""); bodies(got.Rooms.Join[r]) != "after it" {
		t.Errorf("told after it: %+v", got.Rooms.Join[r])
	}
}

// The keys of a device are counted anew when they change, and when a device ends.
func TestPollCountsKeys(t *testing.T) {
	p := openWaiter(t, "")
	v := viewOfUser(p.w.hub, bob)
	for _, c := range []*account.Change{
		{Kind: account.ChangeKeyCounts, Devices: []ids.DeviceID{"D"}},
		{Kind: account.ChangeSessions, Devices: []ids.DeviceID{"D"}},
	} {
		if _, err := v.keyState(ctx, "D"); err != nil {
			t.Fatal(err)
		}
		before := p.st.Reads.Load()
		if _, err := v.keyState(ctx, "D"); err != nil || p.st.Reads.Load() != before {
			t.Fatalf("known keys are read again: %v", err)
		}
		v.mu.Lock()
		v.noteKeysLocked(c)
		v.mu.Unlock()
		if _, err := v.keyState(ctx, "D"); err != nil || p.st.Reads.Load() == before {
			t.Fatalf("after %q old keys are known: %v", c.Kind, err)
		}
	}
	for i := range maxPolled + 3 {
		if _, err := v.keyState(ctx, ids.DeviceID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.mu.polled.keys.list); n != maxPolled {
		t.Errorf("%d devices are known", n)
	}
}

// A request that waits without a goroutine is woken by all that ends a wait, once, and
// also by what came before it was said who is to be woken.
func TestWaitingIsWoken(t *testing.T) {
	p := openWaiter(t, "")
	w, r := p.w, p.rooms[0]
	// begin returns a request that has found nothing to tell.
	begin := func(timeout time.Duration) *Waiting {
		req := &Request{User: bob, Device: "D", Timeout: timeout}
		var err error
		if req.Since, err = w.hub.ParseSince(p.since); err != nil {
			t.Fatal(err)
		}
		q := w.hub.Begin(ctx, req)
		t.Cleanup(q.Close)
		if b, err := q.Answer(ctx, time.Nanosecond); b != nil || err != nil {
			t.Fatalf("told %s, %v", b, err)
		}
		return q
	}
	// woken tells the answer of one that is woken.
	woken := func(q *Waiting, what string, happens func()) *response {
		t.Helper()
		calls := make(chan struct{}, 10)
		early := false
		if what == "before" {
			early = true
			happens()
			for deadline := time.Now().Add(10 * time.Second); len(q.poll.ready) == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		q.Wake(func() { calls <- struct{}{} })
		if !early {
			happens()
		}
		select {
		case <-calls:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not woken", what)
		}
		b, err := q.Answer(ctx, 0)
		q.Close()
		q.Close()
		if err != nil || len(calls) > 0 {
			t.Fatalf("%s: %v, woken %d times more", what, err, len(calls))
		}
		return p.take(parse(t, b))
	}
	says := func(body string) func() { return func() { w.say(r, alice, body) } }
	for _, what := range []string{"message", "before"} {
		if got := woken(begin(time.Minute), what, says(what)); bodies(got.Rooms.Join[r]) != what {
			t.Errorf("%s: told %+v", what, got.Rooms.Join[r])
		}
	}
	w.followed(r)
	if got := woken(begin(20*time.Millisecond), "end of the time", func() {}); len(got.Rooms.Join) > 0 {
		t.Errorf("told at the end of the time %+v", got)
	}
	got := woken(begin(time.Minute), "another view", func() {
		w.hub.discard(viewOfUser(w.hub, bob))
		w.say(r, alice, "of another view")
	})
	if bodies(got.Rooms.Join[r]) != "of another view" {
		t.Errorf("told on another view %+v", got.Rooms.Join)
	}
	q := begin(time.Minute)
	closed := make(chan struct{})
	q.Wake(func() { close(closed) })
	v := viewOfUser(w.hub, bob)
	w.hub.Close()
	<-closed
	if _, err := q.Answer(ctx, 0); err == nil {
		t.Error("an answer of a hub that is closed")
	}
	q.Close()
	if w.hub.mu.Lock(); v.refs != 0 || len(v.mu.sessions) != 0 {
		t.Errorf("%d requests and %d sessions are left", v.refs, len(v.mu.sessions))
	}
	w.hub.mu.Unlock()
}
