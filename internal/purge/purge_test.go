package purge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	partitions = 4

	alice ids.UserID = "@alice:h"
	bob   ids.UserID = "@bob:h"
)

// world is a node with rooms of alice's, and a service that purges them.
type world struct {
	*Service
	t     *testing.T
	ctx   context.Context
	node  *clustertest.Node
	clock *clock.Manual
	made  int

	mu struct {
		sync.Mutex
		// before is called with each command of the service; its error is the
		// command's.
		before func(partition.Command) error
	}
}

// noIndex is a search index of nothing.
type noIndex struct{}

func (noIndex) Await(context.Context) error                       { return nil }
func (noIndex) Forget(context.Context, ids.RoomID, ids.Seq) error { return nil }

// Do implements partition.Router for the service.
func (w *world) Do(ctx context.Context, cmd partition.Command) (any, error) {
	w.mu.Lock()
	before := w.mu.before
	w.mu.Unlock()
	if before != nil {
		if err := before(cmd); err != nil {
			return nil, err
		}
	}
	return w.node.Do(ctx, cmd)
}

func (w *world) intercept(before func(partition.Command) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.before = before
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	st := memstore.New(w.clock)
	w.node = clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: st, Clock: w.clock,
		Tables:  []map[storage.Table]partition.TableSpec{room.Tables(), account.Tables(), Tables()},
		Effects: []map[string]partition.EffectHandler{room.Effects(), account.Effects()},
	})
	w.Service = Start(Options{
		Count: partitions, Store: st, Router: w, Owner: w.node, Accounts: account.NewReader(st, partitions),
		Rooms: room.NewReader(st, partitions), Clock: w.clock, Log: slog.New(slog.DiscardHandler), Index: noIndex{},
	})
	t.Cleanup(w.Close)
	return w
}

// create makes a public room of alice's.
func (w *world) create() ids.RoomID {
	w.t.Helper()
	w.made++
	v, _ := event.Lookup("12")
	preset, err := roomstate.Preset(roomstate.PresetPublic, roomstate.PresetOptions{Version: v, Creator: alice})
	if err != nil {
		w.t.Fatal(err)
	}
	draft := func(typ, key string, content []byte) roomstate.Draft {
		return roomstate.Draft{Type: typ, StateKey: &key, Sender: alice, Content: content, OriginServerTS: w.clock.Now().UnixMilli() + int64(w.made)}
	}
	c := &room.Create{Version: "12", Drafts: []roomstate.Draft{
		draft(event.TypeCreate, "", preset.Create), draft(event.TypeMember, string(alice), []byte(`{"membership":"join"}`)),
		draft(event.TypePowerLevels, "", preset.PowerLevels), draft(event.TypeJoinRules, "", preset.JoinRules),
	}}
	if err := c.Seal(ids.RoomID(fmt.Sprintf("!room%d:h", w.made))); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.node.Do(w.ctx, c); err != nil {
		w.t.Fatal(err)
	}
	return c.Room
}

func (w *world) send(r ids.RoomID, d roomstate.Draft) {
	w.t.Helper()
	if _, err := w.node.Do(w.ctx, &room.Send{Room: r, Draft: d}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) join(r ids.RoomID, u ids.UserID) {
	w.t.Helper()
	key := string(u)
	w.send(r, roomstate.Draft{Type: event.TypeMember, StateKey: &key, Sender: u, Content: []byte(`{"membership":"join"}`)})
}

// Who comes in while a room is deleted is taken out too: nobody keeps a room that is
// not there.
func TestJoinWhileARoomIsDeleted(t *testing.T) {
	w := newWorld(t)
	r := w.create()
	come := sync.OnceFunc(func() { w.join(r, bob) })
	w.intercept(func(cmd partition.Command) error {
		if _, last := cmd.(*room.Drop); last { // everybody else is out, and forgets it
			come()
		}
		return nil
	})
	id, err := w.Begin(w.ctx, Job{Kind: DeleteRoom, Room: r, Purge: true})
	if err != nil {
		t.Fatal(err)
	}
	j, err := w.Wait(w.ctx, id)
	if err != nil || j.Status != Complete {
		t.Fatalf("job: %+v, %v", j, err)
	}
	for _, u := range []ids.UserID{alice, bob} {
		list, err := w.opts.Accounts.Memberships(w.ctx, u)
		if err != nil || len(list) != 0 {
			t.Errorf("rooms of %s: %v, %v", u, list, err)
		}
	}
	if h, err := w.opts.Rooms.Head(w.ctx, r); h != nil || err != nil {
		t.Errorf("head: %v, %v", h, err)
	}
}

// A room in which nothing can be removed keeps nothing from being removed in others.
func TestSweepGoesOn(t *testing.T) {
	w := newWorld(t)
	var rooms []ids.RoomID
	for range 8 {
		r := w.create()
		rooms = append(rooms, r)
		for range 2 {
			w.send(r, roomstate.Draft{Type: event.TypeMessage, Sender: alice, Content: []byte(`{"body":"x"}`)})
		}
	}
	w.clock.Advance(time.Hour)
	errBroken := errors.New("broken")
	broken := rooms[:4]
	w.intercept(func(cmd partition.Command) error {
		if c, trims := cmd.(*room.Trim); trims && slices.Contains(broken, c.Room) {
			return errBroken
		}
		return nil
	})
	err := w.sweep(w.ctx, Retention{Retention: room.Retention{Enabled: true, Default: 1000}})
	if !errors.Is(err, errBroken) {
		t.Errorf("sweep: %v", err)
	}
	for _, r := range rooms {
		h, err := w.opts.Rooms.Head(w.ctx, r)
		if err != nil || (h.Purged == 0) != slices.Contains(broken, r) {
			t.Errorf("%s is purged up to %d, %v", r, h.Purged, err)
		}
	}
}

// A job that meets trouble of the server's own is tried again, less and less often, and
// says why; a refusal ends it.
func TestTroubleIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	r := w.create()
	var mu sync.Mutex
	trouble, tries := errors.New("the disk is on fire"), 0
	w.intercept(func(cmd partition.Command) error {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := cmd.(*room.Trim); ok {
			tries++
			return trouble
		}
		return nil
	})
	id, err := w.Begin(w.ctx, Job{Kind: PurgeHistory, Room: r, UpTo: 100})
	if err != nil {
		t.Fatal(err)
	}
	run := func() *Job {
		t.Helper()
		w.look(ids.PartitionOf(string(r), partitions))
		j, err := w.Wait(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := run()
	if j.Status != Active || !strings.Contains(j.Error, "the disk is on fire") || j.Tries != 1 || j.Ended != 0 {
		t.Fatalf("after the first failure: %+v", j)
	}
	if run(); tries != 1 {
		t.Errorf("tried %d times, at once", tries)
	}
	pauses := []time.Duration{}
	for range 10 {
		pause := time.Duration(j.Retry-w.clock.Now().UnixMilli()) * time.Millisecond
		pauses = append(pauses, pause)
		w.clock.Advance(pause)
		j = run()
	}
	if pauses[0] != retryMin || pauses[1] != 2*retryMin || pauses[9] != retryMax || j.Status != Active || j.Tries != 11 {
		t.Errorf("pauses %v, job %+v", pauses, j)
	}
	mu.Lock()
	trouble = nil
	mu.Unlock()
	w.clock.Advance(retryMax)
	if j = run(); j.Status != Complete || j.Error != "" || j.Ended == 0 {
		t.Errorf("when the trouble is over: %+v", j)
	}

	mu.Lock()
	trouble = merr.ForbiddenErr("no")
	mu.Unlock()
	if id, err = w.Begin(w.ctx, Job{Kind: PurgeHistory, Room: r, UpTo: 100}); err != nil {
		t.Fatal(err)
	}
	if j = run(); j.Status != Failed || j.Error != "no" {
		t.Errorf("a refusal: %+v", j)
	}
	j = &Job{Status: Active, Tries: maxTries}
	if w.note(j, errors.New("still")); j.Status != Failed || !strings.Contains(j.Error, "still") {
		t.Errorf("in the end: %+v", j)
	}
}
