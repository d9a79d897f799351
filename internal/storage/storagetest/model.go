package storagetest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// model is the simplest store there could be. It does not keep who holds a
// lease across a restart, which the contract leaves open.
type model struct {
	rows   map[storage.Key]string
	leases map[ids.Partition]storage.Lease
	metas  map[string]string
}

func (m *model) apply(b *storage.Batch) {
	for _, op := range b.Ops {
		switch op.Kind {
		case storage.OpPut:
			m.rows[op.Key] = string(op.Value)
		case storage.OpDelete:
			delete(m.rows, op.Key)
		case storage.OpDeleteRange:
			maps.DeleteFunc(m.rows, func(k storage.Key, _ string) bool {
				return sameEntity(k, op.Key) && k.Sort >= op.Key.Sort && (op.End == "" || k.Sort < op.End)
			})
		}
	}
}

func (m *model) scan(r storage.Range) []storage.Entry {
	var out []storage.Entry
	for k, v := range m.rows {
		if sameEntity(k, storage.Key{Partition: r.Partition, Table: r.Table, Entity: r.Entity}) &&
			k.Sort >= r.From && (r.To == "" || k.Sort < r.To) {
			out = append(out, storage.Entry{Sort: k.Sort, Value: []byte(v)})
		}
	}
	slices.SortFunc(out, func(a, b storage.Entry) int { return strings.Compare(a.Sort, b.Sort) })
	if r.Reverse {
		slices.Reverse(out)
	}
	return out[:min(len(out), r.Limit)]
}

func sameEntity(a, b storage.Key) bool {
	return a.Partition == b.Partition && a.Table == b.Table && a.Entity == b.Entity
}

// drawn holds the generators of a small key space, where keys meet often.
type drawn struct {
	partition *rapid.Generator[ids.Partition]
	key       *rapid.Generator[storage.Key]
	sort      *rapid.Generator[string]
	op        *rapid.Generator[storage.Op]
}

func generators() drawn {
	name := rapid.OneOf(
		rapid.SampledFrom(oddNames()),
		rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 'a', 'b', 255}), 0, 3, -1),
	)
	g := drawn{partition: rapid.SampledFrom([]ids.Partition{0, 1, 256}), sort: name}
	entity := rapid.SampledFrom([]string{"", "a", "a\x00", "ab"})
	g.key = rapid.Custom(func(t *rapid.T) storage.Key {
		return key(g.partition.Draw(t, "partition"), rapid.SampledFrom([]storage.Table{1, 2}).Draw(t, "table"),
			entity.Draw(t, "entity"), name.Draw(t, "sort"))
	})
	g.op = rapid.Custom(func(t *rapid.T) storage.Op {
		op := storage.Op{
			Kind: rapid.SampledFrom([]storage.OpKind{storage.OpPut, storage.OpPut, storage.OpDelete, storage.OpDeleteRange}).Draw(t, "kind"),
			Key:  g.key.Draw(t, "key"),
		}
		switch op.Kind {
		case storage.OpPut:
			op.Value = rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "value")
		case storage.OpDeleteRange:
			op.End = name.Draw(t, "end")
		}
		return op
	})
	return g
}

// machine runs the same calls on a store and on the model.
type machine struct {
	h *harness
	t testing.TB
	m model
	g drawn
}

func testModel(t *testing.T, open func(t testing.TB) Opened) {
	rapid.Check(t, func(rt *rapid.T) {
		o := open(t)
		x := &machine{
			t: t,
			h: &harness{Opened: o, t: rt, epochs: map[ids.Partition]ids.Epoch{}},
			m: model{rows: map[storage.Key]string{}, leases: map[ids.Partition]storage.Lease{}, metas: map[string]string{}},
			g: generators(),
		}
		defer func() {
			if err := x.h.Store.Close(); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		actions := map[string]func(*rapid.T){
			"commit": x.commit, "commit2": x.commit, "acquire": x.acquire, "release": x.release,
			"scan": x.scan, "partition": x.partition, "get": x.get, "meta": x.meta, "wait": x.wait,
		}
		if o.Reopen != nil {
			actions["reopen"] = x.reopen
		}
		rt.Repeat(actions)
	})
}

func (x *machine) commit(t *rapid.T) {
	p := x.g.partition.Draw(t, "to")
	var b storage.Batch
	for _, op := range rapid.SliceOfN(x.g.op, 0, 6).Draw(t, "ops") {
		op.Key.Partition = p
		b.Ops = append(b.Ops, op)
	}
	current := x.m.leases[p].Epoch
	epoch := max(0, current+ids.Epoch(rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "ahead")))
	if current > 0 && rapid.IntRange(0, 9).Draw(t, "behind") == 0 {
		epoch = current - 1
	}
	err := x.h.Store.Commit(ctx(), p, epoch, &b)
	if epoch == 0 || epoch != current {
		wantError(x.h.t, "stale commit", err, storage.ErrFenced)
		return
	}
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	x.m.apply(&b)
}

func (x *machine) acquire(t *rapid.T) {
	p := x.g.partition.Draw(t, "partition")
	node := rapid.SampledFrom([]ids.NodeID{"a", "b"}).Draw(t, "node")
	l, err := x.h.Store.Acquire(ctx(), p, node, ttl)
	now, have := x.h.Clock.Now(), x.m.leases[p]
	live := have.Node != "" && now.Before(have.Expires)
	if live && have.Node != node {
		if !errors.Is(err, storage.ErrHeld) || l.Node != have.Node || l.Epoch != have.Epoch {
			t.Fatalf("acquire by %s of %+v: %+v, %v", node, have, l, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	if live != (l.Epoch == have.Epoch) || l.Epoch < have.Epoch {
		t.Fatalf("acquire by %s of %+v at %v: %+v", node, have, now, l)
	}
	x.m.leases[p] = l
}

func (x *machine) release(t *rapid.T) {
	l := x.m.leases[x.g.partition.Draw(t, "partition")]
	err := x.h.Store.Release(ctx(), l)
	if l.Node == "" {
		wantError(x.h.t, "release of nothing", err, storage.ErrFenced)
		return
	}
	if err != nil {
		t.Fatalf("release: %v", err)
	}
	x.m.leases[l.Partition] = storage.Lease{Partition: l.Partition, Epoch: l.Epoch}
}

func (x *machine) get(t *rapid.T) {
	keys := rapid.SliceOfN(x.g.key, 0, 5).Draw(t, "keys")
	for i, got := range x.h.get(keys...) {
		want, ok := x.m.rows[keys[i]]
		if (got != nil) != ok || string(got) != want {
			t.Fatalf("get %+v: %q present %v, want %q %v", keys[i], got, got != nil, want, ok)
		}
	}
}

func (x *machine) scan(t *rapid.T) {
	k := x.g.key.Draw(t, "entity")
	r := storage.Range{
		Partition: k.Partition, Table: k.Table, Entity: k.Entity,
		From: x.g.sort.Draw(t, "from"), To: x.g.sort.Draw(t, "to"),
		Limit: rapid.SampledFrom([]int{1, 2, 3, storage.MaxScan}).Draw(t, "limit"), Reverse: rapid.Bool().Draw(t, "reverse"),
	}
	got, want := x.h.scan(r), x.m.scan(r)
	same := func(a, b storage.Entry) bool { return a.Sort == b.Sort && string(a.Value) == string(b.Value) }
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("scan %+v: %+v, want %+v", r, got, want)
	}
}

func (x *machine) partition(t *rapid.T) {
	p := x.g.partition.Draw(t, "partition")
	want := map[storage.Key]string{}
	for k, v := range x.m.rows {
		if k.Partition == p {
			want[k] = v
		}
	}
	got := map[storage.Key]string{}
	rows := x.h.rows(p, rapid.IntRange(1, 5).Draw(t, "page"))
	for _, r := range rows {
		got[r.Key] = string(r.Value)
	}
	if !maps.Equal(got, want) || len(rows) != len(want) {
		t.Fatalf("partition %d: %v, want %v", p, got, want)
	}
}

func (x *machine) meta(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "ab", "b"}).Draw(t, "name")
	value := rapid.StringN(0, 3, -1).Draw(t, "value")
	got, err := x.h.Store.InitMeta(ctx(), name, []byte(value))
	if err != nil {
		t.Fatalf("setting: %v", err)
	}
	if _, ok := x.m.metas[name]; !ok {
		x.m.metas[name] = value
	}
	if string(got) != x.m.metas[name] {
		t.Fatalf("setting %q is %q, want %q", name, got, x.m.metas[name])
	}
}

func (x *machine) wait(t *rapid.T) {
	x.h.Clock.Advance(rapid.SampledFrom([]time.Duration{time.Second, ttl / 2, ttl}).Draw(t, "time"))
}

func (x *machine) reopen(*rapid.T) {
	x.h.Store = x.h.Reopen(x.t)
	x.h.Clock.Advance(2 * ttl) // whether holders are remembered is open
	for p, l := range x.m.leases {
		x.m.leases[p] = storage.Lease{Partition: p, Epoch: l.Epoch}
	}
}
