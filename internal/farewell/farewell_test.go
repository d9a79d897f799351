package farewell

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice      ids.UserID = "@alice:h"
	bob        ids.UserID = "@bob:h"
	partitions            = 4
)

type world struct {
	t        *testing.T
	node     *clustertest.Node
	store    storage.Store
	accounts *account.Reader
	rooms    *room.Reader
	made     int64 // rooms
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, store: memstore.New(c)}
	w.node = clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: w.store, Clock: c,
		Tables:  []map[storage.Table]partition.TableSpec{room.Tables(), account.Tables()},
		Effects: []map[string]partition.EffectHandler{room.Effects(), account.Effects()},
	})
	w.accounts, w.rooms = account.NewReader(w.store, partitions), room.NewReader(w.store, partitions)
	for _, u := range []ids.UserID{alice, bob} {
		w.do(account.NewRegister(u, account.Account{PasswordHash: "x"}, "", nil))
	}
	return w
}

func (w *world) do(cmd partition.Command) {
	w.t.Helper()
	if _, err := w.node.Do(w.t.Context(), cmd); err != nil {
		w.t.Fatal(err)
	}
}

// room makes a room with both.
func (w *world) room() ids.RoomID {
	w.t.Helper()
	w.made++ // rooms that say the same are the same
	draft := func(sender ids.UserID, typ, key, content string) roomstate.Draft {
		return roomstate.Draft{Type: typ, StateKey: &key, Sender: sender, Content: []byte(content), OriginServerTS: w.made}
	}
	const join = `{"membership":"join"}`
	c := &room.Create{Version: event.DefaultVersion, Drafts: []roomstate.Draft{
		draft(alice, "m.room.create", "", `{"room_version":"12"}`), draft(alice, event.TypeMember, string(alice), join),
		draft(alice, event.TypeJoinRules, "", `{"join_rule":"public"}`),
	}}
	if err := c.Seal(""); err != nil {
		w.t.Fatal(err)
	}
	w.do(c)
	w.do(&room.Send{Room: c.Room, Draft: draft(bob, event.TypeMember, string(bob), join)})
	return c.Room
}

func (w *world) membership(in ids.RoomID) event.Membership {
	w.t.Helper()
	s, err := w.rooms.StateEvent(w.t.Context(), in, event.TypeMember, string(bob))
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Member().Membership
}

func (w *world) deactivate(erase bool) {
	cmd := account.NewEndAll(bob, "")
	cmd.Deactivate, cmd.Erase = true, erase
	w.do(cmd)
}

// flaky fails some commands before they are done.
type flaky struct {
	partition.Router
	left int
}

var errAway = errors.New("the owner is away")

func (f *flaky) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if f.left > 0 {
		f.left--
		return nil, errAway
	}
	return f.Router.Do(ctx, cmd)
}

// batch is the part of the log that tells of the end of bob's account.
func (w *world) batch() consumer.Batch {
	c := &account.Change{Kind: account.ChangeFarewell}
	p := w.accounts.Place(bob).Partition
	return consumer.Batch{Partition: p, Records: []partition.Record{
		{Kind: partition.RecordUser, Entity: string(alice), Data: []byte(`{"k":"s"}`)},
		{Kind: partition.RecordUser, Entity: string(bob), Obj: c},
	}}
}

// Whatever fails on the way, in the end the user is in no room, and doing it once
// more changes nothing.
func TestLeavesAllRooms(t *testing.T) {
	w := newWorld(t)
	in := []ids.RoomID{w.room(), w.room(), w.room()}
	h := Handler{Router: w.node, Accounts: w.accounts}
	if err := h.Handle(t.Context(), w.batch()); err != nil { // nothing is to be done
		t.Fatal(err)
	}
	if w.membership(in[0]) != event.Join {
		t.Fatal("a user whose account goes on was taken out")
	}
	w.deactivate(true)
	h.Router = &flaky{Router: w.node, left: 1}
	if err := h.Handle(t.Context(), w.batch()); !errors.Is(err, errAway) {
		t.Fatalf("a failure is no answer: %v", err)
	}
	if f, err := w.accounts.Farewell(t.Context(), bob); err != nil || f == nil || !f.Erase {
		t.Fatalf("what is to be done is forgotten: %v %v", f, err)
	}
	for range 2 {
		if err := h.Handle(t.Context(), w.batch()); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range in {
		if m := w.membership(id); m != event.Leave {
			t.Errorf("membership %s", m)
		}
		if head, err := w.rooms.Head(t.Context(), id); err != nil || head.Erased != 1 {
			t.Errorf("erased: %v %v", head, err)
		}
	}
	if f, err := w.accounts.Farewell(t.Context(), bob); err != nil || f != nil {
		t.Errorf("it goes on: %v %v", f, err)
	}
}

// A log that was trimmed loses nobody.
func TestMissed(t *testing.T) {
	w := newWorld(t)
	in := w.room()
	w.deactivate(false)
	h := Handler{Router: w.node, Accounts: w.accounts}
	for p := range partitions {
		if err := h.Missed(t.Context(), ids.Partition(p), 1, 2); err != nil {
			t.Fatal(err)
		}
	}
	if m := w.membership(in); m != event.Leave {
		t.Errorf("membership %s", m)
	}
	if head, err := w.rooms.Head(t.Context(), in); err != nil || head.Erased != 0 {
		t.Errorf("erased without being asked: %v %v", head, err)
	}
}
