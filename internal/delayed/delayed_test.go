package delayed

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	partitions            = 4
	alice      ids.UserID = "@alice:h"
)

// senders answers each send with the next of its errors.
type senders struct {
	sent []string
	errs []error
}

func (s *senders) SendDelayed(_ context.Context, e *Event) (ids.EventID, error) {
	s.sent = append(s.sent, e.ID)
	var err error
	if len(s.errs) > 0 {
		err, s.errs = s.errs[0], s.errs[1:]
	}
	if err != nil {
		return "", err
	}
	return "$sent", nil
}

// open returns a service that sends only when told to, with its clock.
func open(t *testing.T) (*Service, *clock.Manual) {
	t.Helper()
	ctx := context.Background()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	st := memstore.New(c)
	node := clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: st, Clock: c,
		Tables:  []map[storage.Table]partition.TableSpec{account.Tables(), Tables()},
		Effects: []map[string]partition.EffectHandler{account.Effects()},
	})
	s := New(Options{
		Count: partitions, Store: st, Router: node, Bus: node.Bus, Owner: node, Clock: c, Log: slog.New(slog.DiscardHandler),
		Accounts: account.NewReader(st, partitions), Rooms: room.NewReader(st, partitions), MaxDelay: time.Hour, MaxScheduled: 10,
	})
	t.Cleanup(s.Close)
	if _, err := node.Do(ctx, account.NewRegister(alice, account.Account{}, "", nil)); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func schedule(t *testing.T, s *Service) *Event {
	t.Helper()
	e := Event{ID: newID(alice, partitions), User: alice, Room: "!r", Type: "m.x", Content: []byte("{}"), Delay: 1000}
	if _, err := s.opts.Router.Do(t.Context(), &Schedule{Event: e, Max: 10}); err != nil {
		t.Fatal(err)
	}
	return &e
}

func (s *Service) status(t *testing.T, id string) Status {
	t.Helper()
	e, err := s.find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return e.Status
}

// TestClaimIsTakenOver: an event whose sender died between the claim and the send
// is sent when the claim is over, and not before.
func TestClaimIsTakenOver(t *testing.T) {
	s, c := open(t)
	e := schedule(t, s)
	home := ids.PartitionOf(string(alice), partitions)
	to := &senders{}
	s.pass(home, to)
	if len(to.sent) != 0 {
		t.Fatal("sent before its time")
	}
	c.Advance(1001 * time.Millisecond)
	claimed, err := partition.Do[[]*Event](t.Context(), s.opts.Router, &ClaimDue{In: home, Now: c.Now().UnixMilli()})
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %v, %v", claimed, err)
	}
	// The node dies here.
	s.pass(home, to)
	if len(to.sent) != 0 || s.status(t, e.ID) != Sending {
		t.Errorf("sent %v under a claim of another", to.sent)
	}
	if _, err := s.opts.Router.Do(t.Context(), &Update{ID: e.ID, User: alice, Action: Cancel}); merr.From(err).Status != 409 {
		t.Errorf("cancelled while it may be on its way: %v", err)
	}
	c.Advance(claimLease + time.Millisecond)
	s.pass(home, to)
	s.pass(home, to)
	if len(to.sent) != 1 || s.status(t, e.ID) != Sent {
		t.Errorf("sent %v, %s", to.sent, s.status(t, e.ID))
	}
}

// TestSendFails: what may work later is tried again, a refusal is final.
func TestSendFails(t *testing.T) {
	s, c := open(t)
	e := schedule(t, s)
	home := ids.PartitionOf(string(alice), partitions)
	to := &senders{errs: []error{errors.New("disk"), merr.ForbiddenErr("no")}}
	c.Advance(2 * time.Second)
	s.pass(home, to)
	if s.status(t, e.ID) != Sending {
		t.Errorf("after a failure: %s", s.status(t, e.ID))
	}
	c.Advance(claimLease + time.Second)
	s.pass(home, to)
	c.Advance(claimLease + time.Second)
	s.pass(home, to)
	if len(to.sent) != 2 || s.status(t, e.ID) != Failed {
		t.Errorf("tried %d times, %s", len(to.sent), s.status(t, e.ID))
	}
}

// TestSuspendedMeanwhile: what a user scheduled before being suspended is not sent
// until that is over.
func TestSuspendedMeanwhile(t *testing.T) {
	s, c := open(t)
	suspend := func(on bool) {
		t.Helper()
		if _, err := s.opts.Router.Do(t.Context(), account.NewSetStatus(alice, nil, &on)); err != nil {
			t.Fatal(err)
		}
	}
	first, second := schedule(t, s), schedule(t, s)
	home := ids.PartitionOf(string(alice), partitions)
	to := &senders{}
	suspend(true)
	if err := s.Do(t.Context(), to, first.ID, "send"); !merr.Is(err, merr.UserSuspended) {
		t.Errorf("sent by hand: %v", err)
	}
	suspend(false)
	if err := s.Do(t.Context(), to, first.ID, "send"); err != nil || len(to.sent) != 1 {
		t.Errorf("sent by hand afterwards: %v, %v", to.sent, err)
	}
	suspend(true)
	c.Advance(2 * time.Second)
	s.pass(home, to)
	if len(to.sent) != 1 || s.status(t, second.ID) != Failed {
		t.Errorf("sent %v, %s", to.sent, s.status(t, second.ID))
	}
}

// TestQueueForgetsWhatIsNotThere: a place in the queue that leads to no event goes,
// or the loop would find it due for ever.
func TestQueueForgetsWhatIsNotThere(t *testing.T) {
	s, c := open(t)
	home := ids.PartitionOf(string(alice), partitions)
	if _, err := s.opts.Router.Do(t.Context(), stray{home, newID(alice, partitions)}); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Second)
	s.pass(home, &senders{})
	rows, err := s.opts.Store.Scan(t.Context(), storage.Range{Partition: home, Table: tables.DelayedDue, Limit: 1})
	if err != nil || len(rows) != 0 {
		t.Errorf("left %v, %v", rows, err)
	}
}

// stray writes a place in the queue for an event that is not there.
type stray struct {
	in ids.Partition
	id string
}

func (stray) Name() string                                   { return "stray" }
func (s stray) Partition(int) ids.Partition                  { return s.in }
func (stray) Prepare(context.Context, *partition.Prep) error { return nil }
func (s stray) Apply(tx *partition.Tx) (any, error) {
	tx.Put(place(s.in).due(tx.Now, s.id), []byte{}, nil)
	return nil, nil
}

// TestNothingIsLeft: the content of what was sent is the room's alone, and of what is
// finalised nothing is kept for longer than it is shown.
func TestNothingIsLeft(t *testing.T) {
	s, c := open(t)
	home := ids.PartitionOf(string(alice), partitions)
	stored := func(id string) *Event {
		t.Helper()
		list, err := s.read(t.Context(), home, id)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return nil
		}
		return list[0]
	}
	sent, cancelled := schedule(t, s), schedule(t, s)
	if err := s.Do(t.Context(), &senders{}, sent.ID, "send"); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), nil, cancelled.ID, "cancel"); err != nil {
		t.Fatal(err)
	}
	if e := stored(sent.ID); e.Status != Sent || e.Content != nil {
		t.Errorf("after it was sent: %+v", e)
	}
	if e := stored(cancelled.ID); e.Status != Cancelled || string(e.Content) != "{}" {
		t.Errorf("after it was cancelled: %+v", e)
	}
	c.Advance(keepFinishedFor - time.Second)
	s.pass(home, &senders{})
	if stored(sent.ID) == nil || stored(cancelled.ID) == nil {
		t.Error("forgotten too early")
	}
	c.Advance(time.Second)
	to := &senders{}
	s.pass(home, to)
	if stored(sent.ID) != nil || stored(cancelled.ID) != nil || len(to.sent) != 0 {
		t.Errorf("left: %+v %+v; sent %v", stored(sent.ID), stored(cancelled.ID), to.sent)
	}
	rows, err := s.opts.Store.Scan(t.Context(), storage.Range{Partition: home, Table: tables.DelayedDue, Limit: 1})
	if err != nil || len(rows) != 0 {
		t.Errorf("the queue holds %v, %v", rows, err)
	}
	if list, err := s.List(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("listed %v, %v", list, err)
	}
}
