package feed

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fatal is what *testing.T, *testing.B and *rapid.T share.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

const (
	alice ids.UserID = "@alice:h"
	bob   ids.UserID = "@bob:h"
	carol ids.UserID = "@carol:h"

	partitions = 4
)

var ctx = context.Background()

// quick is a hub's pace in tests: what is lost is found soon.
var quick = pace{gap: 2 * time.Millisecond, poll: 5 * time.Millisecond, many: 2}

// world is a node with rooms and users, and hubs that follow it.
type world struct {
	t     fatal
	store storage.Store
	clock *clock.Manual
	bus   *membus.Bus
	node  *cluster.Node
	rooms *room.Reader
	hub   *Hub // the first
	hubs  []*Hub
	pace  pace // of hubs that are made
	made  atomic.Int64
	asked atomic.Int64
}

func newWorld(t fatal, st storage.Store) *world {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	if st == nil {
		st = memstore.New(c)
	}
	w := &world{t: t, store: st, clock: c, pace: quick, bus: membus.New(), rooms: room.NewReader(st, partitions)}
	specs := room.Tables()
	for k, v := range account.Tables() {
		specs[k] = v
	}
	effects := room.Effects()
	for k, v := range account.Effects() {
		effects[k] = v
	}
	var err error
	w.node, err = cluster.Start(ctx, cluster.Options{
		Node: "n", Count: partitions, Store: st, Bus: w.bus, Clock: c, LeaseTTL: time.Hour,
		Log: slog.New(slog.DiscardHandler), Tables: specs, Effects: effects, CacheBytes: 8 << 20,
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return w
}

// open returns a world with one hub on a bus that loses nothing.
func open(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	w.follow(w.bus)
	return w
}

// follow adds a hub on a bus.
func (w *world) follow(b bus.Bus) *Hub {
	w.t.Helper()
	h, err := newHub(ctx, Options{
		Node: ids.NodeID(fmt.Sprint("hub", len(w.hubs))), Count: partitions, Store: w.store, Bus: b, Heads: w.node,
		Clock: w.clock, Log: slog.New(slog.DiscardHandler), Rules: pushrules.NewDefaults(pushrules.Options{}), Router: w.node,
	}, w.pace)
	if err != nil {
		w.t.Fatalf("hub: %v", err)
	}
	if w.hub == nil {
		w.hub = h
	}
	w.hubs = append(w.hubs, h)
	return h
}

func (w *world) close() {
	for _, h := range w.hubs {
		h.Close()
	}
	w.node.Close()
	if err := w.bus.Close(); err != nil {
		w.t.Fatalf("close bus: %v", err)
	}
}

func (w *world) do(cmd partition.Command) (any, error) { return w.node.Do(ctx, cmd) }

func (w *world) must(cmd partition.Command) any {
	w.t.Helper()
	v, err := w.do(cmd)
	if err != nil {
		w.t.Fatalf("%s: %v", cmd.Name(), err)
	}
	return v
}

func draft(sender ids.UserID, typ string, key *string, content string) roomstate.Draft {
	b, err := event.CanonicalObject(nil, []byte(content))
	if err != nil {
		panic(err) // the contents are the tests' own
	}
	return roomstate.Draft{Type: typ, StateKey: key, Sender: sender, Content: b, OriginServerTS: 1_700_000_000_000}
}

func state(sender ids.UserID, typ, key, content string) roomstate.Draft {
	return draft(sender, typ, &key, content)
}

// create makes a public room of a user's; visibility is that of its history.
func (w *world) create(creator ids.UserID, visibility string, more ...roomstate.Draft) ids.RoomID {
	w.t.Helper()
	c := newRoom(w.t, creator, visibility, w.made.Add(1), more...)
	return w.must(c).(ids.RoomID)
}

func newRoom(t fatal, creator ids.UserID, visibility string, n int64, more ...roomstate.Draft) *room.Create {
	v, _ := event.Lookup("11")
	preset, err := roomstate.Preset(roomstate.PresetPublic, roomstate.PresetOptions{Version: v, Creator: creator})
	if err != nil {
		t.Fatalf("preset: %v", err)
	}
	c := &room.Create{Version: "11", Drafts: append([]roomstate.Draft{
		state(creator, event.TypeCreate, "", string(preset.Create)),
		state(creator, event.TypeMember, string(creator), `{"membership":"join"}`),
		state(creator, event.TypePowerLevels, "", string(preset.PowerLevels)),
		state(creator, event.TypeJoinRules, "", string(preset.JoinRules)),
		state(creator, event.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, visibility)),
	}, more...)}
	if err := c.Seal(ids.RoomID(fmt.Sprintf("!x%d:h", n))); err != nil {
		t.Fatalf("seal: %v", err)
	}
	return c
}

func (w *world) sendDraft(r ids.RoomID, d roomstate.Draft) (ids.EventID, error) {
	return partition.Do[ids.EventID](ctx, w.node, &room.Send{Room: r, Draft: d})
}

func (w *world) event(r ids.RoomID, d roomstate.Draft) ids.EventID {
	w.t.Helper()
	id, err := w.sendDraft(r, d)
	if err != nil {
		w.t.Fatalf("send: %v", err)
	}
	return id
}

func message(sender ids.UserID, body string, mentions ...ids.UserID) roomstate.Draft {
	b, _ := json.Marshal(map[string]any{"body": body, "m.mentions": map[string]any{"user_ids": mentions}, "msgtype": "m.text"})
	return draft(sender, event.TypeMessage, nil, string(b))
}

func (w *world) say(r ids.RoomID, sender ids.UserID, body string) ids.EventID {
	w.t.Helper()
	return w.event(r, message(sender, body))
}

func membership(sender, target ids.UserID, m event.Membership) roomstate.Draft {
	return state(sender, event.TypeMember, string(target), fmt.Sprintf(`{"membership":%q}`, m))
}

func (w *world) member(r ids.RoomID, sender, target ids.UserID, m event.Membership) ids.EventID {
	w.t.Helper()
	return w.event(r, membership(sender, target, m))
}

func (w *world) join(r ids.RoomID, users ...ids.UserID) {
	w.t.Helper()
	for _, u := range users {
		w.member(r, u, u, event.Join)
	}
}

func redaction(r ids.RoomID, sender ids.UserID, target ids.EventID) *room.Redact {
	return &room.Redact{Room: r, Target: target, Draft: roomstate.Draft{
		Type: event.TypeRedaction, Sender: sender, Redacts: target,
		Content: event.SetString([]byte(`{}`), "redacts", string(target)),
	}}
}

func (w *world) read(r ids.RoomID, user ids.UserID, ev ids.EventID) {
	w.t.Helper()
	w.must(&room.SetReceipt{Room: r, User: user, Type: room.ReceiptRead, Event: ev})
}

// timeline returns all events of a room, oldest first.
func (w *world) timeline(r ids.RoomID) []*room.Stored {
	w.t.Helper()
	list, err := w.rooms.Timeline(ctx, r, room.Page{UpTo: 1 << 40, Limit: storage.MaxScan})
	if err != nil {
		w.t.Fatalf("timeline: %v", err)
	}
	return list
}

// response is a /sync response or a frame.
type response struct {
	Op        string   `json:"op"`
	NextBatch string   `json:"next_batch"`
	Mark      []string `json:"mark"`
	Rooms     struct {
		Join   map[ids.RoomID]*section_ `json:"join"`
		Leave  map[ids.RoomID]*section_ `json:"leave"`
		Invite map[ids.RoomID]any       `json:"invite"`
	} `json:"rooms"`
	AccountData events `json:"account_data"`
	ToDevice    events `json:"to_device"`
}

// section_ is a room's part of a response as clients read it.
type section_ struct {
	Timeline struct {
		Events    []clientEvent `json:"events"`
		Limited   bool          `json:"limited"`
		PrevBatch string        `json:"prev_batch"`
	} `json:"timeline"`
	State       events                 `json:"state"`
	Ephemeral   events                 `json:"ephemeral"`
	AccountData events                 `json:"account_data"`
	Unread      *unread                `json:"unread_notifications"`
	Threads     map[ids.EventID]unread `json:"unread_thread_notifications"`
	Summary     *struct {
		Heroes  *[]ids.UserID `json:"m.heroes"`
		Joined  int           `json:"m.joined_member_count"`
		Invited int           `json:"m.invited_member_count"`
	} `json:"summary"`
}

type unread struct {
	Highlight int `json:"highlight_count"`
	Notify    int `json:"notification_count"`
}

type events struct {
	Events []clientEvent `json:"events"`
}

type clientEvent struct {
	ID       ids.EventID    `json:"event_id"`
	Type     string         `json:"type"`
	StateKey *string        `json:"state_key"`
	Sender   ids.UserID     `json:"sender"`
	Content  map[string]any `json:"content"`
	Unsigned map[string]any `json:"unsigned"`
}

// parse reads what the feed wrote; the reader refuses duplicate members.
func parse(t fatal, b []byte) *response {
	t.Helper()
	r := &response{}
	if err := json.Unmarshal(b, r); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, b)
	}
	return r
}

// sync asks a hub without waiting, and returns the response.
func (w *world) sync(h *Hub, user ids.UserID, since, filter string) *response {
	w.t.Helper()
	return w.poll(h, &Request{User: user, Device: "D"}, since, filter)
}

func (w *world) poll(h *Hub, req *Request, since, filter string) *response {
	w.t.Helper()
	var err error
	if req.Since, err = h.ParseSince(since); err != nil {
		w.t.Fatalf("since %q: %v", since, err)
	}
	if req.Filter, err = h.LoadFilter(ctx, req.User, filter); err != nil {
		w.t.Fatalf("filter: %v", err)
	}
	answer := h.Sync
	if w.asked.Add(1)%2 == 0 {
		answer = h.syncInTurns
	}
	b, err := answer(ctx, req)
	if err != nil {
		w.t.Fatalf("sync: %v", err)
	}
	return parse(w.t, b)
}

// syncInTurns is Sync for who has no goroutine while nothing happens.
func (h *Hub) syncInTurns(ctx context.Context, req *Request) (jsontext.Value, error) {
	w := h.Begin(ctx, req)
	defer w.Close()
	for {
		b, err := w.Answer(ctx, time.Nanosecond)
		if b != nil || err != nil {
			return b, err
		}
		woken := make(chan struct{})
		w.Wake(func() { close(woken) }) // once
		select {
		case <-woken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func eventIDs(list []clientEvent) []ids.EventID {
	out := make([]ids.EventID, 0, len(list))
	for i := range list {
		out = append(out, list[i].ID)
	}
	return out
}

// bodies are the texts of a timeline.
func bodies(s *section_) string {
	if s == nil {
		return ""
	}
	var out []string
	for _, e := range s.Timeline.Events {
		if b, ok := e.Content["body"].(string); ok {
			out = append(out, b)
		}
	}
	return strings.Join(out, " ")
}

// faultyBus loses, repeats, delays and encodes what one hub is told of the logs.
type faultyBus struct {
	bus.Bus
	mu struct {
		sync.Mutex
		rng *rand.Rand
		// drop, double, hold and raw are chances.
		drop, double, hold, raw float64
		// dropped is the end of the last batch that was lost.
		dropped ids.Seq
	}
	dropped atomic.Int64 // batches
}

func newFaultyBus(b bus.Bus, seed uint64) *faultyBus {
	f := &faultyBus{Bus: b}
	f.mu.rng = rand.New(rand.NewPCG(seed, 1))
	return f
}

func (f *faultyBus) chances(drop, double, hold, raw float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.drop, f.mu.double, f.mu.hold, f.mu.raw = drop, double, hold, raw
}

func (f *faultyBus) Subscribe(subject string, fn func(bus.Payload)) (bus.Subscription, error) {
	if !strings.HasPrefix(subject, "log.") {
		return f.Bus.Subscribe(subject, fn)
	}
	var held []bus.Payload
	return f.Bus.Subscribe(subject, func(p bus.Payload) {
		f.mu.Lock()
		roll := func(chance float64) bool { return f.mu.rng.Float64() < chance }
		drop, double, hold, raw := roll(f.mu.drop), roll(f.mu.double), roll(f.mu.hold), roll(f.mu.raw)
		if b, ok := p.(*partition.Published); ok && drop {
			f.mu.dropped = b.Last
		}
		f.mu.Unlock()
		if raw {
			b, err := p.MarshalBinary()
			if err != nil {
				panic(err)
			}
			p = bus.Raw(b)
		}
		switch {
		case drop:
			f.dropped.Add(1)
			return
		case hold:
			held = append(held, p)
			return
		}
		fn(p)
		if double {
			fn(p)
		}
		for _, p := range held {
			fn(p)
		}
		held = nil
	})
}

// sink is a socket that takes as many frames as it has room for.
type sink struct {
	mu struct {
		sync.Mutex
		room    int // frames it still takes
		refused bool
		frames  [][]byte
		closed  int // the code
	}
	arrived chan struct{} // has an element when a frame came, or a refusal, or the end
}

var _ Sink = (*sink)(nil)

func newSink(room int) *sink {
	s := &sink{arrived: make(chan struct{}, 1)}
	s.mu.room = room
	return s
}

func (s *sink) Send(frame []byte) bool { return s.SendTail(frame, nil) }

func (s *sink) SendTail(head, tail []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.note()
	if s.mu.refused || s.mu.room == 0 {
		s.mu.refused = true
		return false
	}
	s.mu.room--
	s.mu.frames = append(s.mu.frames, slices.Concat(head, tail))
	return true
}

func (s *sink) note() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

func (s *sink) Close(code int, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = code
	s.note()
}

// take returns the frames that have come.
func (s *sink) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.mu.frames
	s.mu.frames = nil
	return out
}

// drain makes room, and tells the session if it was refused something.
func (s *sink) drain(sess Session, room int) {
	s.mu.Lock()
	s.mu.room = room
	was := s.mu.refused
	s.mu.refused = false
	s.mu.Unlock()
	if was {
		sess.Drained()
	}
}

// wait returns the frames up to one that holds a text.
func (s *sink) wait(t *testing.T, text string) []*response {
	t.Helper()
	var out []*response
	deadline := time.After(20 * time.Second)
	for {
		frames := s.take()
		found := false
		for _, f := range frames {
			out = append(out, parse(t, f))
			found = found || strings.Contains(string(f), text)
		}
		if found {
			return out
		}
		select {
		case <-s.arrived:
		case <-deadline:
			t.Fatalf("no frame with %q came", text)
		}
	}
}

// settled waits until a session is live.
func settled(t *testing.T, s Session) {
	t.Helper()
	eventually(t, "the session is live", func() bool {
		x := s.(*session)
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.mu.live
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// socket opens a session of a user with room for any number of frames.
func (w *world) socket(t *testing.T, user ids.UserID, since, filter string) (Session, *sink) {
	t.Helper()
	k := newSink(1 << 30)
	s, err := w.hub.Open(ctx, Open{User: user, Device: "S", Since: since, Filter: filter}, k)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(s.Close)
	return s, k
}

// trimLog removes what the log of a partition says up to a position.
func (w *world) trimLog(p ids.Partition, upTo ids.Seq) {
	w.t.Helper()
	w.must(trim{p, upTo})
}

type trim struct {
	p    ids.Partition
	upTo ids.Seq
}

func (trim) Name() string                                   { return "trim" }
func (c trim) Partition(int) ids.Partition                  { return c.p }
func (trim) Prepare(context.Context, *partition.Prep) error { return nil }
func (c trim) Apply(tx *partition.Tx) (any, error) {
	tx.DeleteRange(storage.Key{Partition: c.p, Table: tables.Log}, tables.SeqSort(c.upTo+1))
	return nil, nil
}

// followed waits until the hub has seen all that was said in a room.
func (w *world) followed(r ids.RoomID) {
	w.t.Helper()
	sh := w.hub.shardOf(string(r))
	heads, err := w.node.Heads(ctx, sh.p)
	if err == nil {
		_, err = sh.await(ctx, heads[0])
	}
	if err != nil {
		w.t.Fatalf("follow %s: %v", r, err)
	}
}

// forget makes the hub read what happened in a room's partition.
func (w *world) forget(r ids.RoomID) {
	s := w.hub.shardOf(string(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.recent.forget(s.mu.processed)
}
