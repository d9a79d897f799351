package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Addresses are judged when they are connected to: by any name, in any form.
func TestControl(t *testing.T) {
	secure, plain := controls(nil)
	allowed, allowedPlain := controls([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	for _, c := range []struct {
		network, address string
		public, listed   bool
	}{
		{"tcp4", "93.184.216.34:443", true, false},
		{"tcp4", "93.184.216.34:8443", true, false},
		{"tcp6", "[2606:4700::1111]:443", true, false},
		{"tcp4", "127.0.0.1:443", false, true},
		{"tcp4", "127.9.9.9:80", false, true},
		{"tcp6", "[::ffff:127.0.0.1]:80", false, true},
		{"tcp6", "[fd00::1]:80", false, true},
		{"tcp6", "[::1]:80", false, false},
		{"tcp4", "10.0.0.1:443", false, false},
		{"tcp4", "172.16.0.1:443", false, false},
		{"tcp4", "192.168.1.1:443", false, false},
		{"tcp4", "169.254.169.254:80", false, false},
		{"tcp4", "100.64.0.1:443", false, false},
		{"tcp4", "0.0.0.0:80", false, false},
		{"tcp4", "224.0.0.1:80", false, false},
		{"tcp4", "255.255.255.255:80", false, false},
		{"tcp6", "[fe80::1]:80", false, false},
		{"tcp6", "[64:ff9b::7f00:1]:80", false, false},
		{"tcp6", "[2002:7f00:1::]:80", false, false},
		{"udp4", "93.184.216.34:443", false, false},
		{"tcp4", "nonsense", false, false},
	} {
		for name, got := range map[string][2]bool{
			"secure":                 {secure(c.network, c.address, nil) == nil, c.public},
			"plain":                  {plain(c.network, c.address, nil) == nil, false},
			"secure, networks":       {allowed(c.network, c.address, nil) == nil, c.public || c.listed},
			"without TLS, networks,": {allowedPlain(c.network, c.address, nil) == nil, c.listed},
		} {
			if got[0] != got[1] {
				t.Errorf("%s %s, %s: may connect %v, want %v", c.network, c.address, name, got[0], got[1])
			}
		}
	}
}

func TestJudgeReply(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   verdict
	}{
		{200, `{"rejected":[]}`, verdictSent},
		{200, `{}`, verdictSent},
		{200, `not JSON`, verdictSent},
		{200, `{"rejected":["other"]}`, verdictSent},
		{200, `{"rejected":["other","key"]}`, verdictGone},
		{400, ``, verdictRefused},
		{404, `{"rejected":["key"]}`, verdictRefused},
		{408, ``, verdictLater},
		{429, ``, verdictLater},
		{500, `{"rejected":["key"]}`, verdictLater},
		{302, ``, verdictLater},
		{204, ``, verdictLater},
	} {
		if got := judgeReply(c.status, http.Header{}, []byte(c.body), "key"); got.verdict != c.want {
			t.Errorf("%d %s: %s, want %s", c.status, c.body, got.verdict, c.want)
		}
	}
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "": 0, "-3": 0, "x": 0, "999999": maxRetryAfter, "Wed, 21 Oct 2026 07:28:00 GMT": 0,
	} {
		h := http.Header{"Retry-After": {value}}
		if got := judgeReply(429, h, nil, "key"); got.wait != want {
			t.Errorf("Retry-After %q: %s, want %s", value, got.wait, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	d := &sender{pace: defaultPace}
	seen := map[time.Duration]bool{}
	for n := 1; n < 100; n++ {
		full := defaultPace.retryMax
		if n < 20 {
			full = min(full, defaultPace.retryMin<<(n-1))
		}
		got := d.backoff(n)
		if got < full/2 || got > full {
			t.Errorf("pause %d is %s, want %s to %s", n, got, full/2, full)
		}
		seen[got] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different pauses of 99", len(seen))
	}
}

// loose is a router to commands that are taken down and do nothing: the rows of
// these tests are written once and stay.
type loose struct {
	mu   sync.Mutex
	cmds []partition.Command
}

var errLoose = errors.New("not now")

func (l *loose) Do(_ context.Context, c partition.Command) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cmds = append(l.cmds, c)
	return nil, errLoose
}

func newTest(t *testing.T) (*Service, *loose) {
	t.Helper()
	c := clock.NewManual(time.Now())
	st := memstore.New(c)
	r := &loose{}
	s := newService(Options{
		Count: 1, Store: storage.Store(st), Router: r, Clock: c, Log: slog.New(slog.DiscardHandler),
		Rules: pushrules.NewDefaults(pushrules.Options{}), Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}, pace{retryMin: time.Millisecond, retryMax: 5 * time.Millisecond})
	t.Cleanup(s.Close)
	return s, r
}

// The client keeps connections, does not follow where it is led, and does not read
// without end.
func TestPost(t *testing.T) {
	s, _ := newTest(t)
	var mu sync.Mutex
	from := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr]++
		mu.Unlock()
		switch r.URL.Path {
		case "/long":
			_, _ = w.Write([]byte(strings.Repeat(" ", 10*maxReply) + `{"rejected":["key"]}`))
		case "/away":
			http.Redirect(w, r, "/rejects", http.StatusTemporaryRedirect)
		case "/rejects":
			_, _ = w.Write([]byte(`{"rejected":["key"]}`))
		default:
			_, _ = w.Write([]byte(`{}`))
		}
	}))
	defer srv.Close()
	m := newMessage(&account.Pusher{PushKey: "key", Data: []byte(`{"url":"x"}`)}, 3)
	for path, want := range map[string]verdict{"/": verdictSent, "/away": verdictLater, "/rejects": verdictGone, "/long": verdictSent} {
		u, err := url.Parse(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.sender.post(context.Background(), u, m); got.verdict != want {
			t.Errorf("%s: %s (%v), want %s", path, got.verdict, got.err, want)
		}
	}
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	clear(from)
	mu.Unlock()
	for range 10 {
		s.sender.post(context.Background(), u, m)
	}
	if len(from) > 2 {
		t.Errorf("%d connections for ten notifications", len(from))
	}
}

// A gateway has maxPerGateway requests at once; those that wait for it go on when one
// is done.
func TestGatewayPlaces(t *testing.T) {
	s, _ := newTest(t)
	d := s.sender
	for range maxPerGateway {
		if !d.enter("a") {
			t.Fatal("no place")
		}
	}
	if d.enter("a") {
		t.Fatal("a place too many")
	}
	if !d.enter("b") {
		t.Error("one gateway takes the places of another")
	}
	d.leave("a")
	if !d.enter("a") {
		t.Error("a place that was given back is taken")
	}
	for range maxPerGateway {
		d.leave("a")
	}
	d.leave("b")
	if len(d.mu.gateways) != 0 {
		t.Errorf("%d gateways are left", len(d.mu.gateways))
	}
}

// A pusher whose partition has moved is forgotten, not served.
func TestLinesOfAPartitionThatMoved(t *testing.T) {
	s, _ := newTest(t)
	ctx, cancel := context.WithCancel(context.Background())
	s.sender.begin(ctx, 0)
	cancel()
	s.sender.wake(0, account.Waiting{User: "@a:h", Pusher: "x"})
	for end := time.Now().Add(time.Minute); s.sender.waiting() > 0; {
		if time.Now().After(end) {
			t.Fatal("the line stays")
		}
	}
}

// eventAt is an event at a position; key is "-" for one that is not state.
func eventAt(seq ids.Seq, typ, key, content, prev string) *room.Stored {
	s := &room.Stored{Seq: seq}
	s.ID, s.RoomID, s.Sender, s.Type, s.Content = ids.EventID(fmt.Sprint("$", seq)), "!r:h", "@alice:h", typ, []byte(content)
	if key != "-" {
		s.StateKey = &key
	}
	if prev != "" {
		s.PrevContent = []byte(prev)
	}
	return s
}

const joined = `{"membership":"join"}`

// What was said before a member came is no news to them; a change of their name
// changes nothing.
func TestNewsSinceTheJoin(t *testing.T) {
	s, _ := newTest(t)
	bench, err := s.judge.Bench(t.Context(), "!r:h")
	if err != nil {
		t.Fatal(err)
	}
	var events []*room.Stored
	var cases []*feed.Case
	for _, seq := range []ids.Seq{5, 9} {
		e := eventAt(seq, "m.room.message", "-", `{"body":"x"}`, "")
		events, cases = append(events, e), append(cases, bench.Case(e))
	}
	for prev, want := range map[string]int{"": 1, `{"membership":"leave"}`: 1, `{"membership":"invite"}`: 1, joined: 2, `{`: 1} {
		w := &work{notified: make(map[ids.UserID]*account.Notified)}
		member := eventAt(7, "m.room.member", "@bob:h", joined, prev)
		since, err := s.joinedSince(t.Context(), member, events[0].Seq)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.judgeFor(w, account.Watcher{User: "@bob:h"}, pushrules.Member{}, since, events, cases); err != nil {
			t.Fatal(err)
		}
		items := w.of("@bob:h").Items
		if len(items) != want || items[len(items)-1].Seq != 9 {
			t.Errorf("member before: %q: notified of %+v", prev, items)
		}
	}
}

// Who joined and changed their name before the consumer came to it, has joined all
// the same.
func TestNewsSinceTheJoinOfWhoIsRenamed(t *testing.T) {
	s, _ := newTest(t)
	node := clustertest.Start(t, clustertest.Options{
		Count: 1, Store: s.opts.Store, Clock: s.opts.Clock,
		Tables:  []map[storage.Table]partition.TableSpec{room.Tables(), account.Tables()},
		Effects: []map[string]partition.EffectHandler{room.Effects(), account.Effects()},
	})
	draft := func(sender ids.UserID, typ, key, content string) roomstate.Draft {
		return roomstate.Draft{Type: typ, StateKey: &key, Sender: sender, Content: []byte(content), OriginServerTS: 1}
	}
	c := &room.Create{Version: event.DefaultVersion, Drafts: []roomstate.Draft{
		draft("@alice:h", event.TypeCreate, "", `{"room_version":"12"}`), draft("@alice:h", event.TypeMember, "@alice:h", joined),
		draft("@alice:h", event.TypeJoinRules, "", `{"join_rule":"public"}`),
	}}
	if err := c.Seal(""); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Do(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var at []ids.Seq
	for _, content := range []string{joined, `{"displayname":"B","membership":"join"}`, `{"displayname":"C","membership":"join"}`} {
		if _, err := node.Do(t.Context(), &room.Send{Room: c.Room, Draft: draft("@bob:h", event.TypeMember, "@bob:h", content)}); err != nil {
			t.Fatal(err)
		}
		m, err := s.rooms.StateEvent(t.Context(), c.Room, event.TypeMember, "@bob:h")
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, m.Seq)
	}
	m, err := s.rooms.StateEvent(t.Context(), c.Room, event.TypeMember, "@bob:h")
	if err != nil {
		t.Fatal(err)
	}
	for first, want := range map[ids.Seq]ids.Seq{1: at[0], at[0]: at[0], at[1]: 0, at[2] + 1: 0} {
		if got, err := s.joinedSince(t.Context(), m, first); got != want || err != nil {
			t.Errorf("joined since %d: %d, %v; want %d", first, got, err, want)
		}
	}
}

// A user with a pusher who joins watches the room before what comes next is judged.
func TestJoinsWatchAtOnce(t *testing.T) {
	s, r := newTest(t)
	lease, err := s.opts.Store.Acquire(t.Context(), 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	b.Put(storage.Key{Table: tables.Push, Entity: "@bob:h"}, []byte(`{"listed":true,"watch":3}`))
	if err := s.opts.Store.Commit(t.Context(), 0, lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	judge := func(e *room.Stored) error {
		w := &work{notified: make(map[ids.UserID]*account.Notified), watched: &s.watched[0]}
		return s.judgeRoom(t.Context(), w, "!r:h", []*room.Stored{e})
	}
	for _, e := range []*room.Stored{
		eventAt(1, "m.room.member", "@carol:h", joined, ""),   // has no pusher
		eventAt(2, "m.room.member", "@bob:h", joined, joined), // was there before
		eventAt(3, "m.room.member", "@bob:h", `{"membership":"leave"}`, joined),
		eventAt(4, "m.room.message", "-", joined, ""),
	} {
		if err := judge(e); err != nil {
			t.Errorf("event %d: %v", e.Seq, err)
		}
	}
	if err := judge(eventAt(5, "m.room.member", "@bob:h", joined, "")); !errors.Is(err, errLoose) {
		t.Errorf("a join: %v", err)
	}
	want := &room.AddWatch{Room: "!r:h", User: "@bob:h", Gen: 3}
	if len(r.cmds) != 1 || !reflect.DeepEqual(r.cmds[0], partition.Command(want)) {
		t.Errorf("commands %+v", r.cmds)
	}
}

// Whom a room lists is read once, and again when the log says that it lists someone, for
// a follower that begins, and after a while.
func TestWatchersAreRemembered(t *testing.T) {
	s, r := newTest(t)
	st := &storagetest.Counting{Store: s.opts.Store}
	s.rooms = room.NewReader(st, 1)
	at := ids.Seq(0)
	handle := func(kinds ...partition.RecordKind) (reads int64, err error) {
		b := consumer.Batch{First: at + 1}
		for _, k := range kinds {
			at++
			rec := partition.Record{Seq: at, Kind: k, Entity: "!r:h"}
			if k == partition.RecordEvent {
				rec.Obj = eventAt(at, "m.room.message", "-", joined, "")
			}
			b.Records = append(b.Records, rec)
		}
		b.Last = at
		before := st.Reads.Load()
		err = s.Handle(t.Context(), b)
		return st.Reads.Load() - before, err
	}
	expect := func(what string, want int64, kinds ...partition.RecordKind) {
		t.Helper()
		if got, err := handle(kinds...); err != nil || got != want {
			t.Errorf("%s: %d reads, want %d; %v", what, got, want, err)
		}
	}
	message := partition.RecordEvent
	expect("the first", 1, message)
	expect("the next", 0, message, message)
	lease, err := s.opts.Store.Acquire(t.Context(), 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	b.Put(storage.Key{Table: tables.RoomWatch, Entity: "!r:h", Sort: "@bob:h"}, []byte{3})
	if err := s.opts.Store.Commit(t.Context(), 0, lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	expect("somebody watches, and the log does not say so", 0, message)
	// Bob is not in the room: that he was found shows by a command to list him no more.
	found := func(what string, kinds ...partition.RecordKind) {
		t.Helper()
		r.cmds = nil
		if _, err := handle(kinds...); !errors.Is(err, errLoose) || len(r.cmds) != 1 {
			t.Errorf("%s: %v, %+v", what, err, r.cmds)
		}
	}
	found("the log says so, behind a message", message, partition.RecordWatch)
	found("the command failed", message)
	stale := func() { s.watched[0].remember("!r:h", nil) }
	stale()
	expect("remembered", 0, message)
	if err := s.Begin(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	found("a follower begins", message)
	stale()
	s.opts.Clock.(*clock.Manual).Advance(watchedFor)
	found("a minute later", message)
}

// What is remembered is bounded, and long lists are not.
func TestWatchedIsBounded(t *testing.T) {
	s, _ := newTest(t)
	st := &storagetest.Counting{Store: s.opts.Store}
	rooms := room.NewReader(st, 1)
	c := &s.watched[0]
	for i := range 2 * maxWatched {
		r := ids.RoomID(fmt.Sprint("!", i, ":h"))
		if _, err := c.page(t.Context(), rooms, r, ""); err != nil {
			t.Fatal(err)
		}
		if len(c.rooms) > maxWatched || c.size != len(c.rooms) {
			t.Fatalf("%d rooms, size %d", len(c.rooms), c.size)
		}
	}
	lease, err := s.opts.Store.Acquire(t.Context(), 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	for i := range watcherPage {
		b.Put(storage.Key{Table: tables.RoomWatch, Entity: "!r:h", Sort: fmt.Sprintf("@u%03d:h", i)}, []byte{1})
	}
	if err := s.opts.Store.Commit(t.Context(), 0, lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	before := st.Reads.Load()
	for range 2 {
		first, err := c.page(t.Context(), rooms, "!r:h", "")
		if err != nil || len(first) != watcherPage {
			t.Fatalf("%d watchers, %v", len(first), err)
		}
		if rest, err := c.page(t.Context(), rooms, "!r:h", first[len(first)-1].User); err != nil || len(rest) > 0 {
			t.Errorf("behind the last %d, %v", len(rest), err)
		}
	}
	if n := st.Reads.Load() - before; n != 4 {
		t.Errorf("%d reads of two times two pages", n)
	}
}

// After a part of the log was missed, what is queued is found, and what is unread is
// counted anew.
func TestMissed(t *testing.T) {
	s, _ := newTest(t)
	lease, err := s.opts.Store.Acquire(t.Context(), 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	b.Put(storage.Key{Table: tables.PushQueue, Sort: "@bob:h\x00twelve bytes8 of time"}, []byte{})
	if err := s.opts.Store.Commit(t.Context(), 0, lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	s.sender.badges.get("@bob:h", true)
	if err := s.Missed(t.Context(), 0, 1, 9); err != nil {
		t.Fatal(err)
	}
	if s.sender.waiting() != 1 {
		t.Error("what is queued was not found")
	}
	if s.sender.badges.get("@bob:h", false) != nil {
		t.Error("an old count is kept")
	}
}

// Nothing waits for a pusher that has nothing queued.
func TestWakeForNothing(t *testing.T) {
	s, r := newTest(t)
	s.sender.begin(context.Background(), 0)
	for _, u := range []ids.UserID{"@a:h", "@b:h", "@a:h"} {
		s.sender.wake(0, account.Waiting{User: u, Pusher: "x"})
	}
	for end := time.Now().Add(time.Minute); s.sender.waiting() > 0; {
		if time.Now().After(end) {
			t.Fatal("the lines stay")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cmds) != 0 {
		t.Errorf("%d commands for nothing", len(r.cmds))
	}
}

// Who is locked out is not told, and what waited is dropped.
func TestLockedUsersAreNotPushed(t *testing.T) {
	s, r := newTest(t)
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write([]byte(`{}`))
	}))
	defer srv.Close()
	lease, err := s.opts.Store.Acquire(t.Context(), 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pusher := account.Pusher{AppID: "app", PushKey: "key", Kind: KindHTTP, Data: []byte(`{"url":"` + srv.URL + `"}`)}
	row, err := json.Marshal(account.PushState{Pushers: []account.Pusher{pusher}})
	if err != nil {
		t.Fatal(err)
	}
	who := account.Waiting{User: "@bob:h", Pusher: pusher.ID()}
	for state, want := range map[string]int{`{"locked":true}`: 0, `{"deactivated":true}`: 0, `{}`: 1} {
		var b storage.Batch
		b.Put(storage.Key{Table: tables.Push, Entity: "@bob:h"}, row)
		b.Put(storage.Key{Table: tables.PushQueue, Sort: "@bob:h\x00" + string(who.Pusher) + "\xff"}, []byte{}) // the badge
		b.Put(storage.Key{Table: tables.Account, Entity: "@bob:h"}, []byte(state))
		if err := s.opts.Store.Commit(t.Context(), 0, lease.Epoch, &b); err != nil {
			t.Fatal(err)
		}
		asked, r.cmds = 0, nil
		s.sender.serve(t.Context(), &line{who: who})
		if asked != want {
			t.Errorf("account %s: %d requests", state, asked)
		}
		sent, _ := r.cmds[0].(*account.Sent)
		if len(r.cmds) != 1 || sent == nil || len(sent.Sorts) != 1 {
			t.Errorf("account %s: commands %+v", state, r.cmds)
		}
	}
}
