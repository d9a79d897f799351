package account

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

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

const device ids.DeviceID = "D"

// told are the rooms that were told of new keys, each with the keys that whoever
// asked then would have got.
type told struct {
	mu struct {
		sync.Mutex
		keys  map[ids.RoomID]string
		times map[ids.RoomID]int
	}
}

func newTold() *told {
	h := &told{}
	h.mu.keys, h.mu.times = make(map[ids.RoomID]string), make(map[ids.RoomID]int)
	return h
}

func (h *told) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	var c room.DevicesChange
	if err := decode(e.Payload, &c); err != nil {
		return err
	}
	k, err := NewReader(p.Store(), p.Count()).Keys(ctx, bob, c.User, nil)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range c.Rooms {
		h.mu.keys[r] = string(k.Devices[device])
		h.mu.times[r]++
	}
	return nil
}

func (h *told) Apply(*partition.Tx, partition.Effect) error { return nil }

func (h *told) keysIn(r ids.RoomID) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.keys[r]
}

// keyWorld is a world whose rooms only note what they are told of keys.
func keyWorld(t *testing.T) (*world, *told) {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, store: memstore.New(c), clock: c, ctx: context.Background()}
	w.r = NewReader(w.store, partitions)
	h := newTold()
	effects := Effects()
	effects[room.EffectDevices] = h
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
	w.register(alice)
	w.login(alice, device, "1")
	return w, h
}

func keyID(n int) string { return fmt.Sprintf("%s:K%06d", AlgorithmSigned, n) }

// someKeys are the one-time keys from..to-1.
func someKeys(from, to int) []OneTimeKey {
	var out []OneTimeKey
	for n := from; n < to; n++ {
		out = append(out, OneTimeKey{Algorithm: AlgorithmSigned, ID: keyID(n), Key: jsontext.Value(fmt.Sprintf(`{"key":"%d"}`, n))})
	}
	return out
}

func (w *world) claim(ctx context.Context) (string, error) {
	cmd := NewClaimKeys(alice, []Want{{device, AlgorithmSigned}})
	got, err := partition.Do[map[ids.DeviceID]OneTimeKey](ctx, w.node, cmd)
	return got[device].ID, err
}

func (w *world) rows(t storage.Table) int {
	w.t.Helper()
	p := PlaceOf(alice, partitions)
	rows, err := w.store.Scan(w.ctx, storage.Range{Partition: p.Partition, Table: t, Entity: string(alice), Limit: storage.MaxScan})
	if err != nil {
		w.t.Fatalf("scan: %v", err)
	}
	return len(rows)
}

// Fifty claimers, many of whom give up at some moment and ask again, never get the
// same key; what nobody got was lost by one who gave up.
func TestClaimersShareNoKey(t *testing.T) {
	w, _ := keyWorld(t)
	const keys, claimers, each = 1000, 50, 15
	w.must(NewUploadKeys(alice, device, nil, someKeys(0, keys), nil))
	var mu sync.Mutex
	var got []string
	lost := 0
	inParallel(claimers, func(i int) {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		last := ""
		for range each {
			ctx, cancel := context.WithCancel(w.ctx)
			if rng.IntN(10) < 4 {
				go func(turns int) {
					for range turns {
						runtime.Gosched()
					}
					cancel()
				}(rng.IntN(50))
			}
			id, err := w.claim(ctx)
			cancel()
			mu.Lock()
			if err != nil {
				lost++
			} else {
				got = append(got, id)
				if id <= last {
					t.Errorf("a claimer got %s after %s", id, last)
				}
				last = id
			}
			mu.Unlock()
		}
	})
	slices.Sort(got)
	if n := len(slices.Compact(slices.Clone(got))); n != len(got) || len(got) < claimers || got[0] == "" {
		t.Fatalf("%d claims gave %d different keys", len(got), n)
	}
	// The rest comes in order, and is all but what was claimed or lost.
	rest := 0
	for id, last := "", ""; ; rest++ {
		var err error
		if id, err = w.claim(w.ctx); err != nil {
			t.Fatal(err)
		}
		if id == "" {
			break
		}
		if id <= got[len(got)-1] || id <= last {
			t.Fatalf("%s came after %s, claimed before were keys up to %s", id, last, got[len(got)-1])
		}
		last = id
	}
	if missing := keys - rest - len(got); missing < 0 || missing > lost {
		t.Errorf("%d keys claimed, %d left: %d missing, and %d claimers gave up", len(got), rest, missing, lost)
	}
	if n := w.rows(tables.OneTimeKey); n != 0 {
		t.Errorf("%d keys are still stored", n)
	}
	// None comes back by a repeated upload.
	counts := w.must(NewUploadKeys(alice, device, nil, someKeys(0, keys), nil)).(map[string]int)
	if counts[AlgorithmSigned] != 0 {
		t.Errorf("%d claimed keys came back", counts[AlgorithmSigned])
	}
}

// The count in the state is that of the rows, whoever uploads and claims at once.
func TestKeyCounts(t *testing.T) {
	w, _ := keyWorld(t)
	inParallel(12, func(i int) {
		for j := range 20 {
			if i%3 == 0 {
				w.must(NewUploadKeys(alice, device, nil, someKeys(100*i+3*j, 100*i+3*j+4), nil))
			} else if _, err := w.claim(w.ctx); err != nil {
				t.Error(err)
			}
		}
	})
	st, err := w.r.KeyState(w.ctx, alice, device)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.rows(tables.OneTimeKey); st.Counts[AlgorithmSigned] != n {
		t.Errorf("count %d, rows %d", st.Counts[AlgorithmSigned], n)
	}
}

// What is remembered of claimed keys is bounded.
func TestClaimedKeysAreForgotten(t *testing.T) {
	w, _ := keyWorld(t)
	const all = tombstones + 300
	for from := 0; from < all; from += 100 {
		w.must(NewUploadKeys(alice, device, nil, someKeys(from, from+100), nil))
		// Claims that run together forget the same keys, and what is remembered
		// grows for a while; the last hundred, one by one, make up for it.
		together := 10
		if from+100 == all {
			together = 1
		}
		inParallel(together, func(int) {
			for range 100 / together {
				if _, err := w.claim(w.ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if n, ids := w.rows(tables.ClaimedKey), w.rows(tables.OneTimeKeyID); n != ids || n < tombstones || n > tombstones+trimStep {
		t.Errorf("%d claims and %d names are remembered, want %d", n, ids, tombstones)
	}
	if w.must(NewUploadKeys(alice, device, nil, someKeys(all-tombstones, all), nil)).(map[string]int)[AlgorithmSigned] != 0 {
		t.Error("a key that is remembered came back")
	}
	w.must(NewEndDevices(alice, device))
	for _, table := range []storage.Table{tables.ClaimedKey, tables.OneTimeKeyID, tables.OneTimeKey, tables.KeyState} {
		if n := w.rows(table); n != 0 {
			t.Errorf("%d rows in table %d after the device ended", n, table)
		}
	}
}

// Keys that change while the user comes into rooms: every room learns of the last
// keys, though it was told of the join, and may have been asked, before.
func TestNoRoomMissesNewKeys(t *testing.T) {
	w, h := keyWorld(t)
	upload := func(n int) jsontext.Value {
		raw := jsontext.Value(fmt.Sprintf(`{"algorithms":[],"device_id":"D","keys":{"a:D":"%d"},"signatures":{},"user_id":"@alice:h"}`, n))
		w.must(NewUploadKeys(alice, device, raw, nil, nil))
		return raw
	}
	upload(-1)
	var joined []ids.RoomID
	for n := range 150 {
		w.clock.Advance(time.Minute)
		r := ids.RoomID(fmt.Sprintf("!r%d:h", n))
		var last jsontext.Value
		var wg sync.WaitGroup
		// The room committed the join before the keys change.
		ts := w.clock.Now().UnixMilli()
		wg.Go(func() { w.joins(r, ids.Seq(n+1), ts) })
		wg.Go(func() { last = upload(n) })
		wg.Wait()
		joined = append(joined, r)
		for _, r := range joined[max(0, n-3):] {
			for deadline := time.Now().Add(10 * time.Second); h.keysIn(r) != string(last); runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%s was told of %q last, the keys are %q", r, h.keysIn(r), last)
				}
			}
		}
	}
	// Keys that have not changed for long are not told again.
	w.clock.Advance(2 * joinWindow)
	w.joins("!late:h", 1000, w.clock.Now().UnixMilli())
	upload(-1) // waits for everything that was sent before
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.mu.times["!late:h"]; n != 1 {
		t.Errorf("a room was told %d times of keys that changed once since the join", n)
	}
}

func (w *world) joins(r ids.RoomID, seq ids.Seq, ts int64) {
	w.must(tell{room.EffectMembership, alice, [][]byte{
		encode(&room.MembershipChange{User: alice, Room: r, Membership: event.Join, Seq: seq, TS: ts, EventID: "$x", Sender: alice}),
	}})
}

func TestReplaceRules(t *testing.T) {
	keys := []*BackupKey{
		{FirstMessageIndex: 5, ForwardedCount: 2, IsVerified: true},
		{FirstMessageIndex: 5, ForwardedCount: 3, IsVerified: true},
		{FirstMessageIndex: 6, ForwardedCount: 0, IsVerified: true},
		{FirstMessageIndex: 0, ForwardedCount: 0},
		{FirstMessageIndex: 0, ForwardedCount: 1},
	}
	for i, a := range keys {
		if !a.replaces(nil) {
			t.Errorf("%d does not replace nothing", i)
		}
		for j, b := range keys {
			if a.replaces(b) != (i < j) {
				t.Errorf("%d replaces %d: %v", i, j, a.replaces(b))
			}
		}
	}
}
