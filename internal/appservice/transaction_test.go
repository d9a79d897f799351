package appservice

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func FuzzOutgoing(f *testing.F) {
	f.Add((&outgoing{upTo: 7, txn: "3-7-X", body: []byte(`{"events":[]}`)}).encode())
	f.Add([]byte{1, 0x80})
	f.Add([]byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOutgoing(b)
		if err != nil {
			return
		}
		again, err := decodeOutgoing(o.encode())
		if err != nil || again.upTo != o.upTo || again.txn != o.txn || !bytes.Equal(again.body, o.body) {
			t.Errorf("%+v became %+v, %v", o, again, err)
		}
	})
}

// counting counts reads of the store.
type counting struct {
	storage.Store
	reads atomic.Int64
}

func (c *counting) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	c.reads.Add(1)
	return c.Store.Get(ctx, keys...)
}

func (c *counting) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	c.reads.Add(1)
	return c.Store.Scan(ctx, r)
}

const testPartitions = 2

// rig is a core with rooms.
type rig struct {
	t     testing.TB
	node  *cluster.Node
	store *counting
	rooms *room.Reader
	clock *clock.Manual
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	r.store = &counting{Store: memstore.New(r.clock)}
	r.rooms = room.NewReader(r.store, testPartitions)
	bus := membus.New()
	var err error
	r.node, err = cluster.Start(t.Context(), cluster.Options{
		Node: "n", Count: testPartitions, Store: r.store.Store, Bus: bus, Clock: r.clock, LeaseTTL: time.Hour,
		Log: slog.New(slog.DiscardHandler), Tables: room.Tables(), Effects: map[string]partition.EffectHandler{
			room.EffectMembership: ignore{}, room.EffectAlias: room.Effects()[room.EffectAlias],
		}, CacheBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.node.Close()
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ignore takes the effects on users, of whom there are none here.
type ignore struct{}

func (ignore) Prepare(context.Context, *partition.Prep, partition.Effect) error { return nil }
func (ignore) Apply(*partition.Tx, partition.Effect) error                      { return nil }

func (r *rig) draft(sender ids.UserID, eventType, key, content string) roomstate.Draft {
	d := roomstate.Draft{Type: eventType, Sender: sender, Content: []byte(content), OriginServerTS: r.clock.Now().UnixMilli()}
	if eventType != "m.room.message" {
		d.StateKey = &key
	}
	return d
}

func (r *rig) create(creator ids.UserID) ids.RoomID {
	r.t.Helper()
	r.clock.Advance(time.Millisecond)
	c := &room.Create{Version: event.DefaultVersion, Drafts: []roomstate.Draft{
		r.draft(creator, event.TypeCreate, "", `{"room_version":"12"}`),
		r.draft(creator, event.TypeMember, string(creator), `{"membership":"join"}`),
		r.draft(creator, event.TypeJoinRules, "", `{"join_rule":"public"}`),
	}}
	if err := c.Seal(""); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.node.Do(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
	return c.Room
}

// send sends an event and returns it as it is stored.
func (r *rig) send(id ids.RoomID, d roomstate.Draft) *room.Stored {
	r.t.Helper()
	e, err := partition.Do[ids.EventID](r.t.Context(), r.node, &room.Send{Room: id, Draft: d})
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.rooms.Event(r.t.Context(), id, e)
	if err != nil || s == nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) member(id ids.RoomID, u ids.UserID, to string) *room.Stored {
	r.t.Helper()
	return r.send(id, r.draft(u, event.TypeMember, string(u), `{"membership":"`+to+`"}`))
}

func (r *rig) message(id ids.RoomID, u ids.UserID) *room.Stored {
	r.t.Helper()
	return r.send(id, r.draft(u, "m.room.message", "", `{}`))
}

func (r *rig) known() *known {
	return &known{svc: load(r.t.(*testing.T), good).All()[0], rooms: r.rooms}
}

// What an event costs does not depend on how many rooms and members there are: the
// second event of a room reads nothing, interesting or not, whoever comes and goes.
func TestInterestIsRemembered(t *testing.T) {
	r := newRig(t)
	k := r.known()
	plain, bridged := r.create("@alice:h"), r.create("@alice:h")
	r.member(bridged, "@_irc_a:h", "join")
	judge := func(e *room.Stored, want bool) {
		t.Helper()
		if got, err := k.event(t.Context(), e); err != nil || got != want {
			t.Errorf("%s of %s: %v %v, want %v", e.Type, e.Sender, got, err, want)
		}
	}
	judge(r.message(plain, "@alice:h"), false)
	judge(r.message(bridged, "@alice:h"), true)
	var later []*room.Stored
	for i := range 20 {
		u := ids.UserID(fmt.Sprintf("@user%d:h", i))
		for _, id := range []ids.RoomID{plain, bridged} {
			later = append(later, r.member(id, u, "join"), r.message(id, u), r.member(id, u, "leave"))
		}
	}
	later = append(later, r.member(bridged, "@_irc_b:h", "join"), r.member(bridged, "@_irc_b:h", "leave"))
	before := r.store.reads.Load()
	for _, e := range later {
		judge(e, e.RoomID == bridged)
	}
	if n := r.store.reads.Load() - before; n != 0 {
		t.Errorf("%d events took %d reads", len(later), n)
	}
}

// The log may be behind: what is judged is what was, not what is.
func TestInterestAsItWas(t *testing.T) {
	r := newRig(t)
	id := r.create("@alice:h")
	var list []*room.Stored
	var want []bool
	add := func(e *room.Stored, is bool) { list, want = append(list, e), append(want, is) }
	add(r.message(id, "@alice:h"), false)
	add(r.member(id, "@_irc_a:h", "join"), true)
	add(r.message(id, "@alice:h"), true)
	add(r.member(id, "@_irc_b:h", "join"), true)
	add(r.member(id, "@_irc_a:h", "leave"), true)
	add(r.message(id, "@alice:h"), true)
	add(r.member(id, "@_irc_b:h", "leave"), true)
	add(r.message(id, "@alice:h"), false)
	add(r.send(id, r.draft("@alice:h", event.TypeMember, "@_irc_a:h", `{"membership":"invite"}`)), true)
	add(r.message(id, "@alice:h"), false)
	// From wherever a follower begins.
	for from := range list {
		k := r.known()
		for i := from; i < len(list); i++ {
			if got, err := k.event(t.Context(), list[i]); err != nil || got != want[i] {
				t.Errorf("from %d, event %d: %v %v, want %v", from, i, got, err, want[i])
			}
		}
	}
}

// A service that hangs delays a ping and nothing else, and for as long as it is told.
func TestPingTimesOut(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	s := load(t, strings.Replace(good, "http://127.0.0.1:1234/", srv.URL, 1)).All()[0]
	c := NewClient(nil, clock.Real{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Ping(ctx, s, "x"); !merr.Is(err, "M_CONNECTION_TIMEOUT") {
		t.Errorf("ping: %v", err)
	}
}

// Who is there again is sent at once what failed, however long the pause is.
func TestRetryEndsPause(t *testing.T) {
	asked := make(chan struct{}, 2)
	var fine atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !fine.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
		asked <- struct{}{}
	}))
	defer srv.Close()
	reg := load(t, strings.Replace(good, "http://127.0.0.1:1234/", srv.URL, 1))
	c := NewClient(reg, clock.Real{})
	defer c.Close()
	s := NewSender(SenderOptions{Services: reg, Client: c, Count: 1, Log: slog.New(slog.DiscardHandler)})
	defer s.Close()
	s.firstRetry = time.Hour
	done := make(chan error)
	go func() { done <- s.lines[0].deliver(t.Context(), &outgoing{txn: "x"}) }()
	<-asked
	fine.Store(true)
	s.Retry(reg.All()[0])
	<-asked
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A token does not follow a redirect.
func TestNoRedirect(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	s := load(t, strings.Replace(good, "http://127.0.0.1:1234/", srv.URL, 1)).All()[0]
	c := NewClient(nil, clock.Real{})
	defer c.Close()
	if _, err := c.Ping(t.Context(), s, "x"); !merr.Is(err, "M_BAD_STATUS") || elsewhere.Load() != 0 {
		t.Errorf("ping: %v, %d requests elsewhere", err, elsewhere.Load())
	}
}
