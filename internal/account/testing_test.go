package account

import (
	"context"
	"fmt"
	"log/slog"
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
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice ids.UserID = "@alice:h"
	bob   ids.UserID = "@bob:h"

	partitions = 4
)

// world is a node with users.
type world struct {
	t     *testing.T
	store storage.Store
	clock *clock.Manual
	node  *cluster.Node
	r     *Reader
	ctx   context.Context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, store: memstore.New(c), clock: c, ctx: context.Background()}
	w.r = NewReader(w.store, partitions)
	effects := Effects()
	effects["fake"] = fakeEffect{}
	b := membus.New()
	var err error
	w.node, err = cluster.Start(w.ctx, cluster.Options{
		Node: "n", Count: partitions, Store: w.store, Bus: b, Clock: c, LeaseTTL: time.Hour,
		Log: slog.New(slog.DiscardHandler), Tables: Tables(), Effects: effects, CacheBytes: 1 << 20,
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		w.node.Close()
		if err := b.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
	return w
}

type fakeEffect struct{}

func (fakeEffect) Prepare(context.Context, *partition.Prep, partition.Effect) error { return nil }
func (fakeEffect) Apply(*partition.Tx, partition.Effect) error                      { return nil }

func (w *world) do(cmd partition.Command) (any, error) { return w.node.Do(w.ctx, cmd) }

func (w *world) must(cmd partition.Command) any {
	w.t.Helper()
	v, err := w.do(cmd)
	if err != nil {
		w.t.Fatalf("%s: %v", cmd.Name(), err)
	}
	return v
}

// session returns a session whose tokens are the hashes "A<n>" and "R<n>".
func session(d ids.DeviceID, n string) Session {
	return Session{Device: d, Access: "A" + n, Refresh: "R" + n}
}

func (w *world) register(u ids.UserID) {
	w.t.Helper()
	w.must(NewRegister(u, Account{PasswordHash: "hash"}, "", nil))
}

func (w *world) login(u ids.UserID, d ids.DeviceID, n string) {
	w.t.Helper()
	w.must(NewLogin(u, session(d, n), ""))
}

// tokens returns the hashes of the tokens that are stored for a user, in order.
func (w *world) tokens(u ids.UserID) string {
	w.t.Helper()
	p := PlaceOf(u, partitions)
	rows, err := w.store.Scan(w.ctx, storage.Range{Partition: p.Partition, Table: tables.Token, Entity: string(u), Limit: storage.MaxScan})
	if err != nil {
		w.t.Fatalf("scan: %v", err)
	}
	out := ""
	for _, r := range rows {
		out += r.Sort + " "
	}
	return out
}

// changes returns the stream of a user behind a position, and where it ends.
func (w *world) changes(u ids.UserID, after ids.Seq) ([]*Change, ids.Seq) {
	w.t.Helper()
	heads, err := w.node.Heads(w.ctx, PlaceOf(u, partitions).Partition)
	if err != nil {
		w.t.Fatalf("head: %v", err)
	}
	list, err := w.r.Changes(w.ctx, u, after, heads[0])
	if err != nil {
		w.t.Fatalf("changes: %v", err)
	}
	return list, heads[0]
}

// ended returns the devices that the stream says have ended behind a position.
func (w *world) ended(u ids.UserID, after ids.Seq) (out []ids.DeviceID) {
	w.t.Helper()
	list, _ := w.changes(u, after)
	for _, c := range list {
		if c.Kind == ChangeSessions {
			out = append(out, c.Devices...)
		}
	}
	return out
}

func inParallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// tell sends a user's partition effects in one command, as rooms do.
type tell struct {
	kind     string
	user     ids.UserID
	payloads [][]byte
}

func (tell) Name() string                                   { return "tell" }
func (tell) Partition(int) ids.Partition                    { return 0 }
func (tell) Prepare(context.Context, *partition.Prep) error { return nil }
func (c tell) Apply(tx *partition.Tx) (any, error) {
	for _, p := range c.payloads {
		tx.Effect(string(c.user), c.kind, p)
	}
	return nil, nil
}

func (w *world) member(u ids.UserID, r ids.RoomID, m event.Membership, seq ids.Seq) {
	w.t.Helper()
	w.must(tell{room.EffectMembership, u, [][]byte{
		encode(&room.MembershipChange{User: u, Room: r, Membership: m, Seq: seq, EventID: ids.EventID(fmt.Sprint("$", seq)), Sender: bob}),
	}})
}
