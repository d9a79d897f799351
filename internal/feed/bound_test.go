package feed

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// countedHeads notes which partitions are asked for.
type countedHeads struct {
	inner Heads
	mu    sync.Mutex
	asked [][]ids.Partition
}

func (c *countedHeads) Heads(ctx context.Context, ps ...ids.Partition) ([]ids.Seq, error) {
	c.mu.Lock()
	c.asked = append(c.asked, slices.Clone(ps))
	c.mu.Unlock()
	return c.inner.Heads(ctx, ps...)
}

func (c *countedHeads) take() [][]ids.Partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

// lonely returns a hub that the bus tells nothing, and that looks for nothing by itself.
func (w *world) lonely() (*Hub, *countedHeads) {
	w.t.Helper()
	b := newFaultyBus(w.bus, 1)
	b.chances(1, 0, 0, 0)
	heads := &countedHeads{inner: w.node}
	h, err := newHub(ctx, Options{
		Node: "lonely", Count: partitions, Store: w.store, Bus: b, Heads: heads,
		Clock: w.clock, Log: slog.New(slog.DiscardHandler), Rules: pushrules.NewDefaults(pushrules.Options{}), Router: w.node,
	}, pace{gap: time.Millisecond, poll: time.Hour})
	if err != nil {
		w.t.Fatalf("hub: %v", err)
	}
	w.hubs = append(w.hubs, h)
	return h, heads
}

// A sync asks once where the logs end, and only those of the partitions that the user
// is in. What it tells does not depend on the bus.
func TestSyncAsksForHeadsOnce(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	w.join(r, bob)
	h, heads := w.lonely()
	if got := heads.take(); len(got) != 1 || len(got[0]) != partitions {
		t.Errorf("a hub that begins asks for %v", got)
	}
	want := []ids.Partition{ids.PartitionOf(string(bob), partitions), ids.PartitionOf(string(r), partitions)}
	slices.Sort(want)
	want = slices.Compact(want)
	since := ""
	for n := range 3 {
		said := w.say(r, alice, fmt.Sprint("m", n))
		got := w.sync(h, bob, since, "")
		since = got.NextBatch
		sec := got.Rooms.Join[r]
		if sec == nil || !slices.Contains(eventIDs(sec.Timeline.Events), said) {
			t.Fatalf("sync %d does not have what was said before", n)
		}
		if asked := heads.take(); len(asked) != 1 || !slices.Equal(asked[0], want) {
			t.Errorf("sync %d asked for %v, want once %v", n, asked, want)
		}
	}
}

// A long poll that wakes for what its client does not want asks no more than one that
// is answered at once.
func TestLongPollAsksForHeadsOnce(t *testing.T) {
	w := newWorld(t, nil)
	t.Cleanup(w.close)
	heads := &countedHeads{inner: w.node}
	h, err := newHub(ctx, Options{
		Node: "n", Count: partitions, Store: w.store, Bus: w.bus, Heads: heads,
		Clock: w.clock, Log: slog.New(slog.DiscardHandler), Rules: pushrules.NewDefaults(pushrules.Options{}), Router: w.node,
	}, pace{gap: time.Millisecond, poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w.hub, w.hubs = h, []*Hub{h}
	r := w.create(alice, "shared")
	w.join(r, bob)
	filter := `{"room":{"timeline":{"not_types":["m.room.topic"]},"state":{"not_types":["m.room.topic"]}}}`
	since := w.sync(h, bob, "", filter).NextBatch
	heads.take()
	answer := make(chan *response)
	go func() {
		answer <- w.poll(h, &Request{User: bob, Device: "D", Timeout: time.Hour}, since, filter)
	}()
	for n := range 5 {
		w.event(r, state(alice, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, n)))
		w.followed(r)
	}
	said := w.say(r, alice, "end")
	if got := <-answer; !slices.Contains(eventIDs(got.Rooms.Join[r].Timeline.Events), said) {
		t.Error("the message did not come")
	}
	if asked := heads.take(); len(asked) != 1 {
		t.Errorf("asked for %v", asked)
	}
}
