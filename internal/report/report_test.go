package report

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

func TestReports(t *testing.T) {
	ctx := context.Background()
	c := clock.NewManual(time.UnixMilli(1000))
	store := memstore.New(c)
	node := clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: store, Clock: c, Tables: []map[storage.Table]partition.TableSpec{Tables()},
	})
	r := NewReader(store, partitions)
	score := -7
	var all []ids.Seq
	for _, reason := range []string{"a", "b", "c"} {
		id, err := partition.Do[ids.Seq](ctx, node, &Add{Report{Reporter: "@alice:h", Room: "!r", Event: "$e", User: "@bob:h", Reason: reason, Score: &score}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	one, err := r.Get(ctx, all[1])
	if err != nil || one.ID != all[1] || one.TS != 1000 || one.Reporter != "@alice:h" || one.Room != "!r" || one.Event != "$e" ||
		one.User != "@bob:h" || one.Reason != "b" || *one.Score != -7 {
		t.Errorf("one: %+v, %v", one, err)
	}
	reasons := func(before ids.Seq, limit int) (out string) {
		list, err := r.List(ctx, before, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, rep := range list {
			out += rep.Reason
		}
		return out
	}
	for _, tt := range []struct {
		before ids.Seq
		limit  int
		want   string
	}{{0, 10, "cba"}, {0, 2, "cb"}, {all[1], 10, "a"}, {all[0], 10, ""}, {0, 0, "c"}} {
		if got := reasons(tt.before, tt.limit); got != tt.want {
			t.Errorf("list before %d, at most %d: %q, want %q", tt.before, tt.limit, got, tt.want)
		}
	}
	if _, err := node.Do(ctx, &Resolve{all[1]}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Do(ctx, &Resolve{all[1]}); !merr.Is(err, merr.NotFound) {
		t.Errorf("resolved twice: %v", err)
	}
	if one, err := r.Get(ctx, all[1]); one != nil || err != nil {
		t.Errorf("resolved, and there: %+v, %v", one, err)
	}
	if got := reasons(0, 10); got != "ca" {
		t.Errorf("what is left: %q", got)
	}
}
