package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// oddNames are entities and sort keys that break careless encodings: empty,
// with the bytes that separators and escapes are made of, prefixes of another.
func oddNames() []string {
	return []string{
		"", "\x00", "\x00\x00", "\x00\x01", "\x00\x02", "\x00\xff", "\x01", "a", "a\x00", "a\x00\x01", "a\x00\x01b",
		"a\x00\xff", "a\x01", "aa", "ab", "b", "\x7f", "\x80", "\xfe", "\xff", "\xff\x00", "\xff\xff",
	}
}

func testGetAbsentAndEmpty(t *testing.T, h *harness) {
	k := key(1, 1, "e", "s")
	if values := h.get(); len(values) != 0 {
		t.Errorf("get of no keys gave %d values", len(values))
	}
	h.wantAbsent(k)
	var b storage.Batch
	b.Put(k, nil)
	b.Put(key(1, 1, "e", ""), []byte{})
	h.commit(1, &b)
	h.wantValue(k, "")
	h.wantValue(key(1, 1, "e", ""), "")
	for _, e := range h.scan(all(k)) {
		if e.Value == nil || len(e.Value) != 0 {
			t.Errorf("scan: value of %q is %v, want it empty and not nil", e.Sort, e.Value)
		}
	}
	values := h.get(key(1, 1, "e", "no"), k, key(1, 2, "e", "s"), k)
	for i, present := range []bool{false, true, false, true} {
		if (values[i] != nil) != present {
			t.Errorf("value %d of four: present %v, want %v", i, values[i] != nil, present)
		}
	}
}

func testOverwrite(_ *testing.T, h *harness) {
	k := key(0, 255, "entity", "sort")
	for _, v := range []string{"one", "", "a longer value", "x"} {
		h.put(k, v)
		h.wantValue(k, v)
	}
	var b storage.Batch
	b.Delete(k)
	b.Delete(key(0, 255, "entity", "never there"))
	h.commit(0, &b)
	h.wantAbsent(k)
}

func testValuesAreCopies(t *testing.T, h *harness) {
	k := key(1, 1, "e", "s")
	value := []byte("value")
	var b storage.Batch
	b.Put(k, value)
	h.commit(1, &b)
	copy(value, "XXXXX")
	h.wantValue(k, "value")
	copy(h.get(k)[0], "YYYYY")
	h.wantValue(k, "value")
	copy(h.scan(all(k))[0].Value, "ZZZZZ")
	h.wantValue(k, "value")
	rows, err := h.Store.ScanPartition(ctx(), storage.Key{Partition: 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	copy(rows[0].Value, "WWWWW")
	h.wantValue(k, "value")
}

func testScanOrder(t *testing.T, h *harness) {
	sorts := oddNames()
	e := key(1, 1, "e", "")
	for i, j := range []int{5, 0, 21, 9, 13, 1, 20, 2, 16, 4, 12, 3, 8, 19, 6, 15, 7, 11, 10, 18, 14, 17} {
		h.put(key(1, 1, "e", sorts[j]), fmt.Sprint(i))
	}
	slices.Sort(sorts)
	if got := h.sorts(all(e)); !slices.Equal(got, sorts) {
		t.Errorf("scan gave\n%q, want\n%q", got, sorts)
	}
	r := all(e)
	r.Reverse = true
	slices.Reverse(sorts)
	if got := h.sorts(r); !slices.Equal(got, sorts) {
		t.Errorf("scan backwards gave\n%q, want\n%q", got, sorts)
	}
	for _, s := range sorts {
		if h.get(key(1, 1, "e", s))[0] == nil {
			t.Errorf("get of %q gave nothing", s)
		}
	}
}

func testScanRanges(t *testing.T, h *harness) {
	for _, s := range []string{"b", "d", "f", "h"} {
		h.put(key(1, 1, "e", s), s)
	}
	tests := []struct {
		from, to string
		limit    int
		reverse  bool
		want     string
	}{
		{"", "", 100, false, "b d f h"},
		{"", "", 100, true, "h f d b"},
		{"", "", 2, false, "b d"},
		{"", "", 2, true, "h f"},
		{"", "", 4, false, "b d f h"},
		{"d", "", 100, false, "d f h"},
		{"d", "", 1, false, "d"},
		{"d", "", 1, true, "h"},
		{"c", "g", 100, false, "d f"},
		{"d", "f", 100, false, "d"},
		{"d", "f\x00", 100, false, "d f"},
		{"", "f", 100, true, "d b"},
		{"", "f", 1, true, "d"},
		{"d\x00", "", 100, false, "f h"},
		{"f", "f", 100, false, ""},
		{"f", "b", 100, false, ""},
		{"f", "b", 100, true, ""},
		{"i", "", 100, false, ""},
		{"", "a", 100, false, ""},
		{"", "\xff", 100, false, "b d f h"},
		{"h", "", 100, true, "h"},
	}
	for _, test := range tests {
		r := storage.Range{
			Partition: 1, Table: 1, Entity: "e",
			From: test.from, To: test.to, Limit: test.limit, Reverse: test.reverse,
		}
		if got := strings.Join(h.sorts(r), " "); got != test.want {
			t.Errorf("from %q to %q limit %d reverse %v: %q, want %q",
				test.from, test.to, test.limit, test.reverse, got, test.want)
		}
	}
}

func testEntitiesDoNotMix(t *testing.T, h *harness) {
	names := oddNames()
	var b storage.Batch
	for _, table := range []storage.Table{1, 2} {
		for _, entity := range names {
			for _, sort := range names {
				b.Put(key(3, table, entity, sort), []byte(entity+"|"+sort))
			}
		}
	}
	h.commit(3, &b)
	sorted := slices.Sorted(slices.Values(names))
	check := func(table storage.Table, entity string, want []string) {
		t.Helper()
		entries := h.scan(all(key(3, table, entity, "")))
		if len(entries) != len(want) {
			t.Fatalf("table %d entity %q has %d rows, want %d", table, entity, len(entries), len(want))
		}
		for i, e := range entries {
			if e.Sort != want[i] || string(e.Value) != entity+"|"+want[i] {
				t.Errorf("table %d entity %q row %d: %q: %q", table, entity, i, e.Sort, e.Value)
			}
		}
	}
	for _, entity := range names {
		check(1, entity, sorted)
	}
	// Deleting one whole entity leaves the others alone.
	for i, entity := range names {
		b.Reset()
		b.DeleteRange(key(3, 1, entity, ""), "")
		h.commit(3, &b)
		for j, other := range names {
			if j <= i {
				check(1, other, nil)
			} else {
				check(1, other, sorted)
			}
		}
	}
	for _, entity := range names {
		check(2, entity, sorted)
	}
}

func testLargestRow(t *testing.T, h *harness) {
	k := key(ids.MaxPartitions-1, 255,
		strings.Repeat("\x00", storage.MaxEntity), strings.Repeat("\xff", storage.MaxSort))
	value := bytes.Repeat([]byte{0xa5}, storage.MaxValue)
	var b storage.Batch
	b.Put(k, value)
	h.commit(k.Partition, &b)
	if !bytes.Equal(h.get(k)[0], value) {
		t.Error("the largest value came back changed")
	}
	entries := h.scan(all(k))
	if len(entries) != 1 || entries[0].Sort != k.Sort || !bytes.Equal(entries[0].Value, value) {
		t.Error("the largest row came back changed from a scan")
	}
}

func testBatchOrder(t *testing.T, h *harness) {
	at := func(s string) storage.Key { return key(1, 1, "e", s) }
	h.put(at("a"), "old")
	h.put(at("b"), "old")
	h.put(at("c"), "old")
	var b storage.Batch
	b.Put(at("a"), []byte("1"))
	b.Put(at("a"), []byte("2"))
	b.Delete(at("b"))
	b.Put(at("b"), []byte("3"))
	b.Put(at("c"), []byte("4"))
	b.Delete(at("c"))
	b.Put(at("x1"), []byte("gone"))
	b.Put(at("x2"), []byte("gone"))
	b.DeleteRange(at("x"), "y")
	b.Put(at("x2"), []byte("5"))
	b.Put(at("y"), []byte("6"))
	b.DeleteRange(at("y"), "y")  // empty
	b.DeleteRange(at("z"), "a")  // empty
	b.DeleteRange(at("yy"), "z") // nothing in it
	h.commit(1, &b)
	h.wantValue(at("a"), "2")
	h.wantValue(at("b"), "3")
	h.wantAbsent(at("c"))
	h.wantValue(at("x2"), "5")
	h.wantValue(at("y"), "6")
	if got := strings.Join(h.sorts(all(at(""))), " "); got != "a b x2 y" {
		t.Errorf("rows %q", got)
	}
	b.Reset()
	h.commit(1, &b)
}

func testDeleteRange(t *testing.T, h *harness) {
	tests := []struct{ from, to, want string }{
		{"", "", ""},
		{"c", "", "a b"},
		{"", "c", "c d"},
		{"b", "d", "a d"},
		{"b\x00", "d", "a b d"},
		{"b", "b\x00", "a c d"},
		{"e", "", "a b c d"},
		{"d", "b", "a b c d"},
	}
	for i, test := range tests {
		entity := fmt.Sprintf("e%d", i)
		var b storage.Batch
		for _, s := range []string{"a", "b", "c", "d"} {
			b.Put(key(1, 1, entity, s), []byte(s))
		}
		h.commit(1, &b)
		b.Reset()
		b.DeleteRange(key(1, 1, entity, test.from), test.to)
		h.commit(1, &b)
		if got := strings.Join(h.sorts(all(key(1, 1, entity, ""))), " "); got != test.want {
			t.Errorf("after delete from %q to %q: %q, want %q", test.from, test.to, got, test.want)
		}
	}
}

// testInsert: rows that are said to be new are set, also one that was there.
func testInsert(_ *testing.T, h *harness) {
	for _, n := range []int{1, 40} {
		at := func(i int) storage.Key { return key(1, 3, fmt.Sprint("e", n), fmt.Sprint(i)) }
		var b storage.Batch
		for i := range n {
			b.Insert(at(i), []byte("new"))
		}
		h.commit(1, &b)
		h.wantValue(at(n-1), "new")
		b.Reset()
		for i := range n {
			b.Insert(at(i+n-1), []byte("again"))
		}
		b.Insert(at(2*n), []byte("twice"))
		b.Put(at(2*n), []byte("put"))
		b.Put(at(2*n+1), []byte("put"))
		h.commit(1, &b)
		h.wantValue(at(n-1), "again")
		h.wantValue(at(2*n-2), "again")
		h.wantValue(at(2*n), "put")
		h.wantValue(at(2*n+1), "put")
	}
}

func testLast(t *testing.T, h *harness) {
	last := func(ps ...ids.Partition) []string {
		t.Helper()
		got, err := storage.Last(ctx(), h.Store, 5, "e", ps...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := func(got []string, sorts ...string) {
		t.Helper()
		if !slices.Equal(got, sorts) {
			t.Errorf("%q, want %q", got, sorts)
		}
	}
	want(last(1, 2), "", "")
	for _, k := range []storage.Key{
		{Partition: 1, Table: 5, Entity: "e", Sort: "a"},
		{Partition: 1, Table: 5, Entity: "e", Sort: "\xff\x00"},
		{Partition: 1, Table: 5, Entity: "f", Sort: "z"},
		{Partition: 1, Table: 6, Entity: "e", Sort: "z"},
		{Partition: 2, Table: 5, Entity: "e", Sort: "b"},
		{Partition: 7, Table: 5, Entity: "e", Sort: "c"},
	} {
		h.put(k, "v")
	}
	want(last(7, 1, 3, 2, 1), "c", "\xff\x00", "", "b", "\xff\x00")
	want(last())
	var b storage.Batch
	b.Delete(storage.Key{Partition: 1, Table: 5, Entity: "e", Sort: "\xff\x00"})
	h.commit(1, &b)
	want(last(1), "a")
	for _, p := range []ids.Partition{1, ids.MaxPartitions} {
		if _, err := storage.Last(ctx(), h.Store, storage.Table(1-p&1), "e", p); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("partition %d: %v", p, err)
		}
	}
	// Who asks sees what was answered before, however many ask at once.
	var wg sync.WaitGroup
	for i := range 8 {
		p := ids.Partition(10 + i)
		h.put(storage.Key{Partition: p, Table: 5, Entity: "e", Sort: "000"}, "v")
		epoch := h.epochs[p]
		wg.Go(func() {
			for n := range 50 {
				sort := fmt.Sprintf("%03d", n+1)
				var b storage.Batch
				b.Put(storage.Key{Partition: p, Table: 5, Entity: "e", Sort: sort}, nil)
				if err := h.Store.Commit(ctx(), p, epoch, &b); err != nil {
					t.Error(err)
					return
				}
				if got, err := storage.Last(ctx(), h.Store, 5, "e", 1, p); err != nil || got[0] != "a" || got[1] != sort {
					t.Errorf("%q after %q, %v", got, sort, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testInvalid(t *testing.T, h *harness) {
	good := key(1, 1, "e", "s")
	bad := map[string]storage.Key{
		"partition": key(ids.MaxPartitions, 1, "e", "s"),
		"table":     key(1, 0, "e", "s"),
		"entity":    key(1, 1, strings.Repeat("e", storage.MaxEntity+1), "s"),
		"sort":      key(1, 1, "e", strings.Repeat("s", storage.MaxSort+1)),
	}
	epoch := h.acquire(1, "n").Epoch
	commit := func(b *storage.Batch) error { return h.Store.Commit(ctx(), 1, epoch, b) }
	for name, k := range bad {
		_, err := h.Store.Get(ctx(), good, k)
		wantError(t, "get, bad "+name, err, storage.ErrInvalid)
		_, err = h.Store.Scan(ctx(), storage.Range{Partition: k.Partition, Table: k.Table, Entity: k.Entity, From: k.Sort, Limit: 1})
		wantError(t, "scan, bad "+name, err, storage.ErrInvalid)
		_, err = h.Store.ScanPartition(ctx(), k, 1)
		wantError(t, "scan partition, bad "+name, err, storage.ErrInvalid)
		for _, kind := range []storage.OpKind{storage.OpPut, storage.OpDelete, storage.OpDeleteRange} {
			wantError(t, fmt.Sprintf("commit of kind %d, bad %s", kind, name),
				commit(&storage.Batch{Ops: []storage.Op{{Kind: kind, Key: k}}}), storage.ErrInvalid)
		}
	}
	ops := map[string]storage.Op{
		"partition of another commit": {Kind: storage.OpPut, Key: key(2, 1, "e", "s")},
		"kind 0":                      {Key: good},
		"kind 4":                      {Kind: 4, Key: good},
		"end":                         {Kind: storage.OpDeleteRange, Key: good, End: strings.Repeat("s", storage.MaxSort+1)},
		"value":                       {Kind: storage.OpPut, Key: good, Value: make([]byte, storage.MaxValue+1)},
	}
	for name, op := range ops {
		wantError(t, "commit, bad "+name, commit(&storage.Batch{Ops: []storage.Op{op}}), storage.ErrInvalid)
	}
	wantError(t, "commit of nothing", commit(nil), storage.ErrInvalid)
	var large storage.Batch
	for i := range storage.MaxBatch/storage.MaxValue + 1 {
		large.Put(key(1, 1, "e", fmt.Sprint(i)), make([]byte, storage.MaxValue))
	}
	wantError(t, "commit of too large a batch", commit(&large), storage.ErrInvalid)
	for _, limit := range []int{-1, 0, storage.MaxScan + 1} {
		r := all(good)
		r.Limit = limit
		_, err := h.Store.Scan(ctx(), r)
		wantError(t, fmt.Sprintf("scan of %d", limit), err, storage.ErrInvalid)
		_, err = h.Store.ScanPartition(ctx(), storage.Key{Partition: 1}, limit)
		wantError(t, fmt.Sprintf("scan partition of %d", limit), err, storage.ErrInvalid)
	}
	testInvalidLeases(t, h)
}

func testInvalidLeases(t *testing.T, h *harness) {
	t.Helper()
	_, err := h.Store.Acquire(ctx(), ids.MaxPartitions, "n", ttl)
	wantError(t, "acquire of too high a partition", err, storage.ErrInvalid)
	_, err = h.Store.Acquire(ctx(), 1, "", ttl)
	wantError(t, "acquire by nobody", err, storage.ErrInvalid)
	_, err = h.Store.Acquire(ctx(), 1, "n", 0)
	wantError(t, "acquire for no time", err, storage.ErrInvalid)
	_, err = h.Store.InitMeta(ctx(), "", []byte("v"))
	wantError(t, "setting without a name", err, storage.ErrInvalid)
	_, err = h.Store.InitMeta(ctx(), strings.Repeat("n", storage.MaxEntity+1), nil)
	wantError(t, "setting with a long name", err, storage.ErrInvalid)
}

func testInvalidHasNoEffect(_ *testing.T, h *harness) {
	h.put(key(1, 1, "e", "kept"), "v")
	var b storage.Batch
	b.Put(key(1, 1, "e", "new"), []byte("v"))
	b.DeleteRange(key(1, 1, "e", ""), "")
	b.Put(key(2, 1, "e", "elsewhere"), nil)
	wantError(h.t, "commit", h.Store.Commit(ctx(), 1, h.epochs[1], &b), storage.ErrInvalid)
	h.wantValue(key(1, 1, "e", "kept"), "v")
	h.wantAbsent(key(1, 1, "e", "new"))
	h.wantAbsent(key(2, 1, "e", "elsewhere"))
}

func testScanPartition(t *testing.T, h *harness) {
	want := map[storage.Key]string{}
	var b, neighbours storage.Batch
	for _, table := range []storage.Table{1, 2, 128, 255} {
		for _, entity := range oddNames() {
			for _, sort := range []string{"", "\x00", "a", "\xff"} {
				k := key(7, table, entity, sort)
				want[k] = entity + sort
				b.Put(k, []byte(want[k]))
			}
		}
	}
	h.commit(7, &b)
	for _, p := range []ids.Partition{6, 8} {
		neighbours.Reset()
		neighbours.Put(key(p, 1, "", ""), []byte("first"))
		neighbours.Put(key(p, 255, "\xff", "\xff"), []byte("last"))
		h.commit(p, &neighbours)
	}
	var order []storage.Row
	for _, page := range []int{storage.MaxScan, len(want), 1, 7} {
		rows := h.rows(7, page)
		seen := map[storage.Key]string{}
		for _, r := range rows {
			seen[r.Key] = string(r.Value)
		}
		if len(rows) != len(want) || len(seen) != len(want) {
			t.Fatalf("pages of %d: %d rows, %d different, want %d", page, len(rows), len(seen), len(want))
		}
		for k, v := range want {
			if seen[k] != v {
				t.Errorf("pages of %d: %+v is %q, want %q", page, k, seen[k], v)
			}
		}
		same := func(a, b storage.Row) bool { return a.Key == b.Key }
		if order != nil && !slices.EqualFunc(order, rows, same) {
			t.Errorf("pages of %d: another order", page)
		}
		order = rows
	}
	if rows := h.rows(9, 10); len(rows) != 0 {
		t.Errorf("an empty partition has %d rows", len(rows))
	}
}

func testPartitionsAreIsolated(t *testing.T, h *harness) {
	partitions := []ids.Partition{0, 1, 2, 255, 256, 257, ids.MaxPartitions - 1}
	for _, p := range partitions {
		h.put(key(p, 1, "e", "s"), fmt.Sprint(p))
	}
	for _, p := range partitions {
		h.wantValue(key(p, 1, "e", "s"), fmt.Sprint(p))
		if n := len(h.scan(all(key(p, 1, "e", "")))); n != 1 {
			t.Errorf("partition %d has %d rows", p, n)
		}
		if n := len(h.rows(p, 10)); n != 1 {
			t.Errorf("partition %d has %d rows in all", p, n)
		}
	}
	var b storage.Batch
	b.DeleteRange(key(1, 1, "e", ""), "")
	h.commit(1, &b)
	for _, p := range partitions {
		if got := h.get(key(p, 1, "e", "s"))[0]; cmp.Compare(len(got), 0) == 0 != (p == 1) {
			t.Errorf("partition %d after a delete in 1: %q", p, got)
		}
	}
}

func testContext(t *testing.T, h *harness) {
	k := key(1, 1, "e", "s")
	epoch := h.acquire(1, "n").Epoch
	ended, cancel := context.WithCancel(ctx())
	cancel()
	var b storage.Batch
	b.Put(k, []byte("v"))
	wantError(t, "commit", h.Store.Commit(ended, 1, epoch, &b), context.Canceled)
	_, err := h.Store.Get(ended, k)
	wantError(t, "get", err, context.Canceled)
	_, err = h.Store.Scan(ended, all(k))
	wantError(t, "scan", err, context.Canceled)
	_, err = h.Store.Acquire(ended, 1, "n", ttl)
	wantError(t, "acquire", err, context.Canceled)
	h.wantAbsent(k)
}
