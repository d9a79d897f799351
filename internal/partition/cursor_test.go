package partition

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestTrimPoint(t *testing.T) {
	type cursors = map[string]ids.Seq
	for _, c := range []struct {
		name    string
		last    ids.Seq
		cursors cursors
		to      ids.Seq
		late    []string
	}{
		{"short", logKeep, nil, 0, nil},
		{"no consumers", logKeep + 5, nil, 5, nil},
		{"all have come far enough", logKeep + 5, cursors{"a": 5, "b": 900}, 5, nil},
		{"one has not", logKeep + 500, cursors{"a": 7, "b": 900}, 7, nil},
		{"a new one", logKeep + 500, cursors{"a": 0}, 0, nil},
		{"just in time", logKeepMax + 500, cursors{"a": 500, "b": logKeepMax}, 500, nil},
		{"too late", logKeepMax + 500, cursors{"a": 499, "b": 3, "c": 500}, 500, []string{"a", "b"}},
	} {
		to, late := trimPoint(c.last, c.cursors)
		slices.Sort(late)
		if to != c.to || !slices.Equal(late, c.late) {
			t.Errorf("%s: trimmed to %d, late %v; want %d, %v", c.name, to, late, c.to, c.late)
		}
	}
}

func doSeq(t *testing.T, o *Owner, c Command) ids.Seq {
	t.Helper()
	v, err := o.Do(context.Background(), c)
	if err != nil {
		t.Fatalf("%s: %v", c.Name(), err)
	}
	at, _ := v.(ids.Seq)
	return at
}

// The log waits for a consumer, also after a restart, and goes on when it has been
// dropped.
func TestLogWaitsForConsumers(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	doSeq(t, o, add(0, 1, counter(0, "k")))
	if at := doSeq(t, o, OpenCursor{Consumer: "slow", Epoch: o.Epoch(), AtHead: true}); at != 1 {
		t.Fatalf("new cursor at %d, want 1", at)
	}
	o.Close()
	o = d.start(0)
	if at := doSeq(t, o, OpenCursor{Consumer: "slow", Epoch: o.Epoch()}); at != 1 {
		t.Fatalf("cursor at %d, want 1", at)
	}
	const each = 1 << 15
	many := &test{apply: func(tx *Tx) (any, error) {
		for range each {
			tx.Emit(Record{Kind: RecordEffect})
		}
		return nil, nil
	}}
	for range logKeep/each + 2 {
		doSeq(t, o, many)
	}
	ctx := context.Background()
	if log, err := ReadLog(ctx, d.store, 0, 1, 1); err != nil || len(log) != 1 {
		t.Errorf("what the consumer has not handled: %d batches, %v", len(log), err)
	}
	doSeq(t, o, SaveCursor{Consumer: "slow", Epoch: o.Epoch(), To: 2*each + 1})
	doSeq(t, o, SaveCursor{Consumer: "slow", Epoch: o.Epoch(), To: 3})
	doSeq(t, o, many)
	if start, err := LogStart(ctx, d.store, 0, 0); err != nil || start != each+2 {
		t.Errorf("the log begins at %d, %v, the consumer stands at %d", start, err, 2*each+1)
	}
	doSeq(t, o, DropCursor{Consumer: "slow"})
	doSeq(t, o, SaveCursor{Consumer: "slow", Epoch: o.Epoch(), To: 4 * each})
	if n := len(d.scan(0, tables.ConsumerCursor)); n != 0 {
		t.Errorf("%d cursors are left", n)
	}
	doSeq(t, o, many)
	if _, err := ReadLog(ctx, d.store, 0, each, 1); !errors.Is(err, ErrTrimmed) {
		t.Errorf("the log waits for a consumer that is gone: %v", err)
	}
	o.Close()
}
