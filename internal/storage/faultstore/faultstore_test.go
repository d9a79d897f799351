package faultstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/faultstore"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformanceWithoutFaults(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storagetest.Opened {
		c := clock.NewManual(time.Unix(1_700_000_000, 0))
		return storagetest.Opened{Store: faultstore.New(memstore.New(c)), Clock: c}
	})
}

// fixture is a store with a lease on partitions 1 and 2.
type fixture struct {
	*faultstore.Store
	t      *testing.T
	clock  *clock.Manual
	epochs map[ids.Partition]ids.Epoch
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	f := &fixture{Store: faultstore.New(memstore.New(c)), t: t, clock: c, epochs: map[ids.Partition]ids.Epoch{}}
	for _, p := range []ids.Partition{1, 2} {
		l, err := f.Acquire(context.Background(), p, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		f.epochs[p] = l.Epoch
	}
	return f
}

func rowKey(p ids.Partition, sort string) storage.Key {
	return storage.Key{Partition: p, Table: 1, Entity: "e", Sort: sort}
}

func (f *fixture) put(ctx context.Context, p ids.Partition, sort string) error {
	var b storage.Batch
	b.Put(rowKey(p, sort), []byte("v"))
	return f.Commit(ctx, p, f.epochs[p], &b)
}

func (f *fixture) want(p ids.Partition, sort string, present bool) {
	f.t.Helper()
	values, err := f.Get(context.Background(), rowKey(p, sort))
	if err != nil {
		f.t.Fatal(err)
	}
	if (values[0] != nil) != present {
		f.t.Errorf("row %s of %d: present %v, want %v", sort, p, values[0] != nil, present)
	}
}

func TestFailAndLose(t *testing.T) {
	f := newFixture(t)
	f.FailCommit(2)
	f.LoseAnswer(2) // the failed commit does not count for it
	for _, step := range []struct {
		sort    string
		err     error
		present bool
	}{
		{"1", nil, true},
		{"2", faultstore.ErrInjected, false},
		{"3", faultstore.ErrAnswerLost, true},
		{"4", nil, true},
	} {
		if err := f.put(context.Background(), 1, step.sort); !errors.Is(err, step.err) {
			t.Errorf("commit %s: %v, want %v", step.sort, err, step.err)
		}
		f.want(1, step.sort, step.present)
	}
}

func TestFailReadsAndFillDisk(t *testing.T) {
	f, ctx := newFixture(t), context.Background()
	stop := f.FailReads()
	_, err1 := f.Get(ctx, rowKey(1, "x"))
	_, err2 := f.Scan(ctx, storage.Range{Partition: 1, Table: 1, Limit: 1})
	_, err3 := f.ScanPartition(ctx, storage.Key{Partition: 1}, 1)
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, faultstore.ErrInjected) {
			t.Errorf("read %d: %v", i, err)
		}
	}
	if err := f.put(ctx, 1, "x"); err != nil {
		t.Errorf("commit while reads fail: %v", err)
	}
	stop()
	f.want(1, "x", true)

	free := f.FillDisk()
	_, err1 = f.Acquire(ctx, 3, "a", time.Minute)
	_, err2 = f.InitMeta(ctx, "name", nil)
	for i, err := range []error{f.put(ctx, 1, "full"), err1, err2} {
		if !errors.Is(err, faultstore.ErrDiskFull) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	f.want(1, "full", false)
	free()
	if err := f.put(ctx, 1, "full"); err != nil {
		t.Error(err)
	}
}

// TestHoldCommits pauses an owner in the middle of a commit while another node
// takes over: when it goes on it must be fenced.
func TestHoldCommits(t *testing.T) {
	f, ctx := newFixture(t), context.Background()
	release := f.HoldCommits()
	answer := make(chan error, 1)
	go func() { answer <- f.put(ctx, 1, "late") }()
	if err := f.AwaitHeld(ctx, 1); err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Hour)
	if _, err := f.Acquire(ctx, 1, "b", time.Minute); err != nil {
		t.Fatal(err)
	}
	release()
	release() // again is harmless
	if err := <-answer; !errors.Is(err, storage.ErrFenced) {
		t.Errorf("commit of the paused owner: %v", err)
	}
	f.want(1, "late", false)
	if err := f.put(ctx, 2, "later"); err != nil {
		t.Errorf("commit after the release: %v", err)
	}
}

func TestHoldAnswers(t *testing.T) {
	f, ctx := newFixture(t), context.Background()
	release := f.HoldAnswers()
	answers := make(chan error, 2)
	impatient, giveUp := context.WithCancel(ctx)
	go func() { answers <- f.put(impatient, 1, "x") }()
	if err := f.AwaitHeld(ctx, 1); err != nil {
		t.Fatal(err)
	}
	f.want(1, "x", true)
	giveUp()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Errorf("commit whose caller gave up: %v", err)
	}
	go func() { answers <- f.put(ctx, 2, "y") }()
	if err := f.AwaitHeld(ctx, 1); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-answers; err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.AwaitHeld(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for calls that nobody makes: %v", err)
	}
}

func TestMatchSkipTimes(t *testing.T) {
	f, ctx := newFixture(t), context.Background()
	remove := f.Inject(faultstore.Fault{
		Calls: faultstore.Commit | faultstore.Release,
		Match: func(p ids.Partition) bool { return p == 2 },
		Skip:  1, Times: 2, Before: faultstore.ErrInjected,
	})
	got := ""
	for range 5 {
		for _, p := range []ids.Partition{1, 2} {
			switch err := f.put(ctx, p, "x"); {
			case err == nil:
				got += "."
			case errors.Is(err, faultstore.ErrInjected):
				got += "F"
			default:
				t.Fatal(err)
			}
		}
	}
	if want := "...F.F...."; got != want {
		t.Errorf("commits went %s, want %s", got, want)
	}
	remove()
	f.Inject(faultstore.Fault{Calls: faultstore.Release, Before: faultstore.ErrInjected})
	if err := f.Release(ctx, storage.Lease{Partition: 1, Node: "a", Epoch: f.epochs[1]}); !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("release: %v", err)
	}
}
