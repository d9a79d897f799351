// Package storagetest is the definition of a correct storage.Store: one suite
// that every backend passes. A backend's test calls Run with a function that
// opens an empty store.
//
// The suite uses a store from many goroutines; each of its tests opens its own.
package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Opened is an empty store and what a test needs to steer it. The suite closes
// the store.
type Opened struct {
	Store storage.Store
	// Clock is the one by which the store's leases expire.
	Clock *clock.Manual
	// Reopen closes the store if it is open and opens its data again, as a
	// process does that was restarted. nil for a store whose data ends with it.
	Reopen func(t testing.TB) storage.Store
}

// ttl is the length of the suite's leases.
const ttl = 10 * time.Second

// Run runs the suite, one subtest per part of the contract.
func Run(t *testing.T, open func(t testing.TB) Opened) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, *harness)
	}{
		{"GetAbsentAndEmpty", testGetAbsentAndEmpty},
		{"Overwrite", testOverwrite},
		{"ValuesAreCopies", testValuesAreCopies},
		{"ScanOrder", testScanOrder},
		{"ScanRanges", testScanRanges},
		{"EntitiesDoNotMix", testEntitiesDoNotMix},
		{"LargestRow", testLargestRow},
		{"BatchOrder", testBatchOrder},
		{"DeleteRange", testDeleteRange},
		{"Insert", testInsert},
		{"Last", testLast},
		{"Invalid", testInvalid},
		{"InvalidHasNoEffect", testInvalidHasNoEffect},
		{"ScanPartition", testScanPartition},
		{"PartitionsAreIsolated", testPartitionsAreIsolated},
		{"Context", testContext},
		{"AcquireAndRenew", testAcquireAndRenew},
		{"RenewTogether", testRenewTogether},
		{"LeaseExpires", testLeaseExpires},
		{"Release", testRelease},
		{"OldEpochIsFenced", testOldEpochIsFenced},
		{"EpochsArePerPartition", testEpochsArePerPartition},
		{"ConcurrentAcquire", testConcurrentAcquire},
		{"FencedWhileCommitting", testFencedWhileCommitting},
		{"InitMeta", testInitMeta},
		{"ConcurrentInitMeta", testConcurrentInitMeta},
		{"ConcurrentCommits", testConcurrentCommits},
		{"ReadersSeeWholeBatches", testReadersSeeWholeBatches},
		{"Closed", testClosed},
		{"CloseWaits", testCloseWaits},
		{"Reopen", testReopen},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, newHarness(t, open)) })
	}
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

// reporter is what *testing.T and *rapid.T have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// harness wraps the calls of a store with the checks most tests make.
type harness struct {
	Opened
	t      reporter
	epochs map[ids.Partition]ids.Epoch
}

func newHarness(t testing.TB, open func(t testing.TB) Opened) *harness {
	t.Helper()
	h := &harness{Opened: open(t), t: t, epochs: map[ids.Partition]ids.Epoch{}}
	t.Cleanup(func() {
		if err := h.Store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func (h *harness) acquire(p ids.Partition, node ids.NodeID) storage.Lease {
	h.t.Helper()
	l, err := h.Store.Acquire(ctx(), p, node, ttl)
	if err != nil {
		h.t.Fatalf("acquire %d by %s: %v", p, node, err)
	}
	return l
}

// commit takes the lease of the partition if it has not been taken.
func (h *harness) commit(p ids.Partition, b *storage.Batch) {
	h.t.Helper()
	if h.epochs[p] == 0 {
		h.epochs[p] = h.acquire(p, "suite").Epoch
	}
	if err := h.Store.Commit(ctx(), p, h.epochs[p], b); err != nil {
		h.t.Fatalf("commit to %d: %v", p, err)
	}
}

func (h *harness) put(k storage.Key, value string) {
	h.t.Helper()
	var b storage.Batch
	b.Put(k, []byte(value))
	h.commit(k.Partition, &b)
}

func (h *harness) get(keys ...storage.Key) [][]byte {
	h.t.Helper()
	values, err := h.Store.Get(ctx(), keys...)
	if err != nil {
		h.t.Fatalf("get: %v", err)
	}
	if len(values) != len(keys) {
		h.t.Fatalf("get of %d keys gave %d values", len(keys), len(values))
	}
	return values
}

func (h *harness) wantValue(k storage.Key, want string) {
	h.t.Helper()
	switch got := h.get(k)[0]; {
	case got == nil:
		h.t.Errorf("%+v: absent, want %q", k, want)
	case string(got) != want:
		h.t.Errorf("%+v: %q, want %q", k, got, want)
	}
}

func (h *harness) wantAbsent(k storage.Key) {
	h.t.Helper()
	if got := h.get(k)[0]; got != nil {
		h.t.Errorf("%+v: %q, want it absent", k, got)
	}
}

func (h *harness) scan(r storage.Range) []storage.Entry {
	h.t.Helper()
	entries, err := h.Store.Scan(ctx(), r)
	if err != nil {
		h.t.Fatalf("scan %+v: %v", r, err)
	}
	return entries
}

// sorts returns the sort keys of a scan.
func (h *harness) sorts(r storage.Range) []string {
	h.t.Helper()
	out := []string{}
	for _, e := range h.scan(r) {
		out = append(out, e.Sort)
	}
	return out
}

// rows pages through a partition.
func (h *harness) rows(p ids.Partition, page int) []storage.Row {
	h.t.Helper()
	var out []storage.Row
	after := storage.Key{Partition: p}
	for {
		rows, err := h.Store.ScanPartition(ctx(), after, page)
		if err != nil {
			h.t.Fatalf("scan partition %d: %v", p, err)
		}
		if len(rows) > page {
			h.t.Fatalf("scan partition gave %d rows with limit %d", len(rows), page)
		}
		out = append(out, rows...)
		if len(rows) < page {
			return out
		}
		after = rows[len(rows)-1].Key
	}
}

func wantError(t reporter, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func ctx() context.Context { return context.Background() }

func key(p ids.Partition, table storage.Table, entity, sort string) storage.Key {
	return storage.Key{Partition: p, Table: table, Entity: entity, Sort: sort}
}

// all is the range of a whole entity.
func all(k storage.Key) storage.Range {
	return storage.Range{Partition: k.Partition, Table: k.Table, Entity: k.Entity, Limit: storage.MaxScan}
}
