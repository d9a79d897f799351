package appservice

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
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

const testPartitions = 2

// rig is a core with rooms.
type rig struct {
	t     testing.TB
	node  *clustertest.Node
	store *storagetest.Counting
	rooms *room.Reader
	clock *clock.Manual
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	r.store = &storagetest.Counting{Store: memstore.New(r.clock)}
	r.rooms = room.NewReader(r.store, testPartitions)
	r.node = clustertest.Start(t, clustertest.Options{
		Count: testPartitions, Store: r.store.Store, Clock: r.clock,
		Tables: []map[storage.Table]partition.TableSpec{room.Tables()},
		Effects: []map[string]partition.EffectHandler{{
			room.EffectMembership: ignore{}, room.EffectAlias: room.Effects()[room.EffectAlias],
		}},
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
	before := r.store.Reads.Load()
	for _, e := range later {
		judge(e, e.RoomID == bridged)
	}
	if n := r.store.Reads.Load() - before; n != 0 {
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

// service is a bridge that notes what it is sent, by the ID of the transaction.
type service struct {
	t  testing.TB
	mu sync.Mutex
	// refuse, if not nil, is called for each transaction, which is not taken.
	refuse func()
	order  []string // the IDs of those taken, as they came
	sent   map[string]string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.URL.Path
	if was, ok := s.sent[id]; ok && was != string(body) {
		s.t.Errorf("transaction %s was %s and is %s", id, was, body)
	}
	s.sent[id] = string(body)
	if s.refuse != nil {
		s.refuse()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.order = append(s.order, id)
}

func (s *service) refuses(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = fn
}

// bodies are the texts of the messages, as a service has them that does not look
// twice at a transaction.
func (s *service) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	seen := make(map[string]bool)
	for _, id := range s.order {
		if seen[id] {
			continue
		}
		seen[id] = true
		var t struct {
			Events []struct {
				Content struct {
					Body string `json:"body"`
				} `json:"content"`
			} `json:"events"`
		}
		if err := json.Unmarshal([]byte(s.sent[id]), &t); err != nil {
			s.t.Error(err)
		}
		for _, e := range t.Events {
			if e.Content.Body != "" {
				out = append(out, e.Content.Body)
			}
		}
	}
	return out
}

// A server that is killed has its cursor where it was saved last, and cuts the log
// elsewhere when it comes to it again. Wherever that is, the service has each event
// once, in order.
func TestKilled(t *testing.T) {
	r := newRig(t)
	id := r.create("@alice:h")
	r.member(id, "@_irc_a:h", "join")
	var want []string
	for i := range 3 * maxItems {
		body := fmt.Sprint(i)
		r.send(id, r.draft("@alice:h", "m.room.message", "", `{"body":"`+body+`"}`))
		want = append(want, body)
	}
	p := r.rooms.Place(id).Partition
	all, err := partition.ReadLog(t.Context(), r.store, p, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var records []partition.Record
	for _, b := range all {
		records = append(records, b.Records...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		if err := r.forget(p); err != nil {
			rt.Fatal(err)
		}
		svc := &service{t: t, sent: make(map[string]string)}
		srv := httptest.NewServer(svc)
		defer srv.Close()
		reg := load(t, strings.Replace(good, "http://127.0.0.1:1234/", srv.URL, 1))
		c := NewClient(reg, clock.Real{})
		defer c.Close()
		cursor, epoch := 0, ids.Epoch(1)
		for cursor < len(records) {
			// A life of the process: some batches, of which the last may not be taken.
			s := NewSender(SenderOptions{
				Services: reg, Client: c, Store: r.store, Count: testPartitions, Router: r.node, Log: slog.New(slog.DiscardHandler),
			})
			s.firstRetry = time.Hour
			at := cursor
			for range rapid.IntRange(1, 3).Draw(rt, "batches") {
				to := min(at+rapid.IntRange(1, 250).Draw(rt, "size"), len(records))
				if to == at {
					break
				}
				ctx, cancel := context.WithCancel(t.Context())
				svc.refuses(nil)
				if rapid.IntRange(0, 3).Draw(rt, "refuse") == 0 {
					svc.refuses(cancel) // the end of this life
				}
				err := s.lines[0].Handle(ctx, consumer.Batch{
					Partition: p, Epoch: epoch, First: records[at].Seq, Last: records[to-1].Seq, Records: records[at:to],
				})
				cancel()
				if err != nil {
					break
				}
				at = to
			}
			svc.refuses(nil)
			s.Close()
			// The cursor was saved at some time of that life.
			cursor = rapid.IntRange(cursor, at).Draw(rt, "saved")
			if at == len(records) {
				cursor = at
			}
			epoch++
		}
		if got := svc.bodies(); !slices.Equal(got, want) {
			rt.Errorf("got %d messages %v, want %d", len(got), got, len(want))
		}
	})
}

// forget removes the stored transaction, as if there never was one.
func (r *rig) forget(p ids.Partition) error {
	_, err := r.node.Do(r.t.Context(), &dropOutgoing{p})
	return err
}

type dropOutgoing struct{ P ids.Partition }

func (c *dropOutgoing) Name() string                                   { return "drop_outgoing" }
func (c *dropOutgoing) Partition(int) ids.Partition                    { return c.P }
func (c *dropOutgoing) Prepare(context.Context, *partition.Prep) error { return nil }
func (c *dropOutgoing) Apply(tx *partition.Tx) (any, error) {
	tx.Delete(outgoingKey(c.P, "irc"))
	return nil, nil
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
