package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
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
)

type ctxT = context.Context

var ctx = context.Background()

// world is a node with rooms.
type world struct {
	t     fatal
	store storage.Store
	clock *clock.Manual
	bus   *membus.Bus
	node  *cluster.Node
	r     *Reader
	told  *told
	rooms int
}

const partitions = 4

func newWorld(t fatal, st storage.Store) *world {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	if st == nil {
		st = memstore.New(c)
	}
	w := &world{t: t, store: st, clock: c, bus: membus.New(), told: &told{}, r: NewReader(st, partitions)}
	w.start()
	return w
}

// start starts the node, or another one after it was closed.
func (w *world) start() {
	w.t.Helper()
	effects := Effects()
	effects[EffectMembership] = w.told
	var err error
	w.node, err = cluster.Start(ctx, cluster.Options{
		Node: "n", Count: partitions, Store: w.store, Bus: w.bus, Clock: w.clock, LeaseTTL: time.Hour,
		Log: slog.New(slog.DiscardHandler), Tables: Tables(), Effects: effects, CacheBytes: 1 << 20,
	})
	if err != nil {
		w.t.Fatalf("start: %v", err)
	}
}

func (w *world) close() {
	w.node.Close()
	if err := w.bus.Close(); err != nil {
		w.t.Fatalf("close bus: %v", err)
	}
}

// told keeps what users' partitions are told of memberships.
type told struct {
	mu struct {
		sync.Mutex
		changes []MembershipChange
	}
}

func (*told) Prepare(context.Context, *partition.Prep, partition.Effect) error { return nil }

func (d *told) Apply(_ *partition.Tx, e partition.Effect) error {
	var c MembershipChange
	if err := json.Unmarshal(e.Payload, &c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.changes = append(d.mu.changes, c)
	return nil
}

// of returns what was told of one user, oldest first.
func (d *told) of(u ids.UserID) (out []MembershipChange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.mu.changes {
		if c.User == u {
			out = append(out, c)
		}
	}
	return out
}

func canonical(t fatal, content string) []byte {
	t.Helper()
	b, err := event.CanonicalObject(nil, []byte(content))
	if err != nil {
		t.Fatalf("content %s: %v", content, err)
	}
	return b
}

func (w *world) draft(sender ids.UserID, typ, key, content string) roomstate.Draft {
	w.t.Helper()
	return roomstate.Draft{
		Type: typ, StateKey: &key, Sender: sender, Content: canonical(w.t, content),
		OriginServerTS: w.clock.Now().UnixMilli(),
	}
}

func (w *world) message(sender ids.UserID, body string) *Send {
	d := w.draft(sender, event.TypeMessage, "", fmt.Sprintf(`{"body":%q,"msgtype":"m.text"}`, body))
	d.StateKey = nil
	return &Send{Draft: d}
}

// create makes a room of alice's; state is type, key and content of further
// first events.
func (w *world) create(version string, state ...[3]string) ids.RoomID {
	w.t.Helper()
	w.rooms++
	w.clock.Advance(time.Millisecond)
	v, ok := event.Lookup(version)
	if !ok {
		w.t.Fatalf("no version %s", version)
	}
	preset, err := roomstate.Preset(roomstate.PresetPublic, roomstate.PresetOptions{Version: v, Creator: alice})
	if err != nil {
		w.t.Fatalf("preset: %v", err)
	}
	c := &Create{Version: version, Drafts: []roomstate.Draft{
		w.draft(alice, event.TypeCreate, "", string(preset.Create)),
		w.draft(alice, event.TypeMember, string(alice), `{"membership":"join"}`),
		w.draft(alice, event.TypePowerLevels, "", string(preset.PowerLevels)),
		w.draft(alice, event.TypeJoinRules, "", string(preset.JoinRules)),
		w.draft(alice, event.TypeHistoryVisibility, "", string(preset.HistoryVisibility)),
	}}
	for _, s := range state {
		c.Drafts = append(c.Drafts, w.draft(alice, s[0], s[1], s[2]))
	}
	if err := c.Seal(ids.RoomID(fmt.Sprintf("!room%d:h", w.rooms))); err != nil {
		w.t.Fatalf("seal: %v", err)
	}
	id, err := partition.Do[ids.RoomID](ctx, w.node, c)
	if err != nil || id != c.Room {
		w.t.Fatalf("create: %v, %v", id, err)
	}
	return id
}

// send runs a Send whose room is set here.
func (w *world) send(room ids.RoomID, c *Send) (ids.EventID, error) {
	c.Room = room
	return partition.Do[ids.EventID](ctx, w.node, c)
}

func (w *world) mustSend(room ids.RoomID, c *Send) *Stored {
	w.t.Helper()
	id, err := w.send(room, c)
	if err != nil {
		w.t.Fatalf("send: %v", err)
	}
	return w.event(room, id)
}

func (w *world) event(room ids.RoomID, id ids.EventID) *Stored {
	w.t.Helper()
	s, err := w.r.Event(ctx, room, id)
	if err != nil || s == nil {
		w.t.Fatalf("event %s: %v, %v", id, s, err)
	}
	return s
}

func (w *world) state(room ids.RoomID, sender ids.UserID, typ, key, content string) *Stored {
	w.t.Helper()
	return w.mustSend(room, &Send{Draft: w.draft(sender, typ, key, content)})
}

func (w *world) member(room ids.RoomID, sender, target ids.UserID, m event.Membership) *Stored {
	w.t.Helper()
	return w.state(room, sender, event.TypeMember, string(target), fmt.Sprintf(`{"membership":%q}`, m))
}

func (w *world) redaction(room ids.RoomID, sender ids.UserID, target ids.EventID) *Redact {
	d := roomstate.Draft{
		Type: event.TypeRedaction, Sender: sender, Redacts: target,
		Content: event.SetString([]byte(`{}`), "redacts", string(target)),
	}
	return &Redact{Room: room, Target: target, Draft: d}
}

func (w *world) redact(room ids.RoomID, sender ids.UserID, target ids.EventID) (ids.EventID, error) {
	return partition.Do[ids.EventID](ctx, w.node, w.redaction(room, sender, target))
}

// rows returns all rows of a room in one table.
func (w *world) rows(room ids.RoomID, t storage.Table) []storage.Entry {
	w.t.Helper()
	rows, err := w.store.Scan(ctx, storage.Range{
		Partition: w.r.Place(room).Partition, Table: t, Entity: string(room), Limit: storage.MaxScan,
	})
	if err != nil {
		w.t.Fatalf("scan: %v", err)
	}
	return rows
}

// timeline returns all events of a room, oldest first.
func (w *world) timeline(room ids.RoomID) []*Stored {
	w.t.Helper()
	var out []*Stored
	for _, row := range w.rows(room, tables.Timeline) {
		s, err := DecodeStored(room, row.Value)
		if err != nil {
			w.t.Fatalf("timeline: %v", err)
		}
		out = append(out, s)
	}
	return out
}

// checkRoom checks every row of a room against the others.
func (w *world) checkRoom(room ids.RoomID) {
	w.t.Helper()
	head, err := w.r.Head(ctx, room)
	if err != nil || head == nil {
		w.t.Fatalf("head: %v, %v", head, err)
	}
	events := w.timeline(room)
	w.checkChain(head, events)
	w.checkIndex(room, events)
	w.checkState(room, head, events)
	w.checkDirectory(room, head)
}

// checkDirectory checks that the room is where it belongs in the directory, and
// that its members and what describes it are found by exactly their words.
func (w *world) checkDirectory(room ids.RoomID, head *Head) {
	w.t.Helper()
	var want, have, members, haveMembers []string
	roomType := ""
	for _, row := range w.rows(room, tables.State) {
		s, err := DecodeStored(room, row.Value)
		if err != nil {
			w.t.Fatalf("read: %v", err)
		}
		for _, d := range describing {
			if s.Is(d.eventType, "") && head.Public {
				for _, term := range describes(s, d.field) {
					want = append(want, term+" "+d.letter)
				}
			}
		}
		switch s.Type {
		case event.TypeCreate:
			roomType = s.Create().RoomType
		case event.TypeMember:
			for _, term := range memberTerms(s) {
				members = append(members, term+" "+*s.StateKey)
			}
		}
	}
	for _, row := range w.rows(room, tables.MemberTerm) {
		haveMembers = append(haveMembers, strings.Replace(row.Sort, "\x00", " ", 1))
	}
	scan := func(table storage.Table, entity string) []storage.Entry {
		rows, err := w.store.Scan(ctx, storage.Range{Partition: w.r.Place(room).Partition, Table: table, Entity: entity, Limit: storage.MaxScan})
		if err != nil {
			w.t.Fatalf("read: %v", err)
		}
		return rows
	}
	for _, row := range scan(tables.DirectoryTerm, "") {
		if parts := strings.Split(row.Sort, "\x00"); parts[1] == string(room) {
			have = append(have, parts[0]+" "+parts[2])
		}
	}
	for _, list := range []string{listAll, listOf(roomType)} {
		for _, row := range scan(tables.DirectoryOrder, list) {
			if l := parseListing(row.Sort); l.Room == room {
				have = append(have, fmt.Sprint(list, l.Joined))
			}
		}
		if head.Public && head.Joined > 0 {
			want = append(want, fmt.Sprint(list, head.Joined))
		}
	}
	for _, list := range [][]string{want, have, members, haveMembers} {
		slices.Sort(list)
	}
	if !slices.Equal(have, want) || !slices.Equal(haveMembers, members) {
		w.t.Fatalf("public: %t, directory %q, want %q; members %q, want %q", head.Public, have, want, haveMembers, members)
	}
}

// checkChain checks that the events are a hash chain that ends at the head.
func (w *world) checkChain(head *Head, events []*Stored) {
	w.t.Helper()
	var last *Stored
	for _, s := range events {
		full := s.Full()
		err := full.Verify(head.Version, s.Seq)
		if s.RedactedBy != nil && errors.Is(err, event.ErrContentHash) {
			err = nil
		}
		if err != nil {
			w.t.Fatalf("event at %d: %v", s.Seq, err)
		}
		switch {
		case last == nil && (len(full.PrevEvents) != 0 || full.Type != event.TypeCreate || full.Depth != 1):
			w.t.Fatalf("first event: %+v", full)
		case last != nil && (len(full.PrevEvents) != 1 || full.PrevEvents[0] != last.ID || full.Depth != last.Depth+1 || s.Seq <= last.Seq):
			w.t.Fatalf("event at %d of depth %d follows %v, not %s", s.Seq, full.Depth, full.PrevEvents, last.ID)
		}
		if !json.Valid(s.AppendClient(nil, Viewer{RoomID: true})) {
			w.t.Fatalf("event at %d: client JSON %s", s.Seq, s.AppendClient(nil, Viewer{}))
		}
		last = s
	}
	if last == nil || head.LastEvent != last.ID || head.Last != last.Seq || head.Depth != last.Depth || head.Creator != events[0].Sender {
		w.t.Fatalf("head %+v does not name the last event %v", head, last)
	}
}

func (w *world) checkIndex(room ids.RoomID, events []*Stored) {
	w.t.Helper()
	inIndex := 0
	for _, s := range events {
		if event.Position(s.ID) != s.Seq {
			inIndex++
		}
	}
	if n := len(w.rows(room, tables.EventIndex)); n != inIndex || n > 1 {
		w.t.Fatalf("%d events without their positions, %d in the index", inIndex, n)
	}
	for _, s := range events {
		if got := w.event(room, s.ID); got.Seq != s.Seq {
			w.t.Fatalf("%s leads to %d, it is at %d", s.ID, got.Seq, s.Seq)
		}
	}
}

// checkState checks the state, the list of its changes and the counts of members
// against what the timeline says.
func (w *world) checkState(room ids.RoomID, head *Head, events []*Stored) {
	w.t.Helper()
	timeline := map[ids.Seq]storage.Entry{}
	for _, row := range w.rows(room, tables.Timeline) {
		timeline[tables.SortSeq(row.Sort)] = row
	}
	current := map[string]*Stored{}
	var log []string
	for _, s := range events {
		if s.StateKey == nil {
			continue
		}
		k := stateSort(s.Type, *s.StateKey)
		before := current[k]
		current[k] = s
		log = append(log, tables.SeqSort(s.Seq)+k)
		if before == nil {
			before = &Stored{}
		}
		if s.Replaces != before.Seq || string(s.PrevContent) != string(before.Content) {
			w.t.Fatalf("%s at %d replaces %d with %s, want %d with %s",
				s.Type, s.Seq, s.Replaces, s.PrevContent, before.Seq, before.Content)
		}
	}
	rows := w.rows(room, tables.State)
	if len(rows) != len(current) {
		w.t.Fatalf("%d pieces of state, want %d", len(rows), len(current))
	}
	joined, invited := 0, 0
	for _, row := range rows {
		s := current[row.Sort]
		if s == nil || string(row.Value) != string(timeline[s.Seq].Value) {
			w.t.Fatalf("state %q differs from the timeline", row.Sort)
		}
		if s.Type == event.TypeMember {
			switch s.Member().Membership {
			case event.Join:
				joined++
			case event.Invite:
				invited++
			}
		}
	}
	if head.Joined != joined || head.Invited != invited {
		w.t.Fatalf("%d joined and %d invited, want %d and %d", head.Joined, head.Invited, joined, invited)
	}
	var have []string
	for _, row := range w.rows(room, tables.StateLog) {
		have = append(have, row.Sort+string(row.Value))
	}
	if strings.Join(have, "\n") != strings.Join(log, "\n") {
		w.t.Fatalf("state log %q, want %q", have, log)
	}
}

func inParallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

func clean(t *testing.T, version string) (*world, ids.RoomID) {
	t.Helper()
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	return w, w.create(version)
}
