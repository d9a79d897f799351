package sim

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
)

// The environment of the tests: how many seeds, one seed alone, and whether to print
// what happens in a run.
const (
	seedsEnv = "HUBBUB_TEST_SEEDS"
	seedEnv  = "HUBBUB_TEST_SEED"
	traceEnv = "HUBBUB_TEST_TRACE"
)

const (
	// someSeeds are what every run of the tests takes.
	someSeeds = 100
	// again is how often one seed alone is run: see the package comment.
	again = 10
	// mutantSeeds is within how many seeds each mutant has to be found.
	mutantSeeds = 60
	// maxShown is how many breaches of a run are shown.
	maxShown = 10
	// stuckAfter is when a run, which takes a fraction of a second, is taken to hang.
	stuckAfter = time.Minute
)

// simulate runs one seed in a bubble and judges it.
func simulate(t *testing.T, opts Options) (breaches []string, r *Result) {
	t.Helper()
	stuck := time.AfterFunc(stuckAfter, func() { panic(fmt.Sprintf("seed %d does not end", opts.Seed)) })
	defer stuck.Stop()
	defer func() {
		if p := recover(); p != nil {
			panic(fmt.Sprintf("seed %d: %v", opts.Seed, p))
		}
	}()
	if os.Getenv(traceEnv) != "" {
		opts.Trace = func(at time.Duration, what string) { fmt.Fprintf(os.Stderr, "%14v %s\n", at, what) }
	}
	synctest.Test(t, func(t *testing.T) {
		var err error
		if r, err = Run(opts); err != nil {
			t.Fatal(err)
		}
	})
	return judge.Check(&r.Case), r
}

// TestSim runs seeds and checks the promises.
func TestSim(t *testing.T) {
	first, seeds, times := uint64(1), ondemand.Number(t, seedsEnv, someSeeds), 1
	if seed := ondemand.Number(t, seedEnv, 0); seed != 0 {
		first, seeds, times = seed, 1, again
	}
	var ops, faults atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		shards := uint64(runtime.GOMAXPROCS(0))
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for seed := first + shard; seed < first+seeds; seed += shards {
					for range times {
						breaches, r := simulate(t, Options{Seed: seed})
						ops.Add(int64(len(r.Case.History.Ops)))
						faults.Add(int64(len(r.Faults)))
						report(t, seed, breaches, r)
					}
				}
			})
		}
	})
	t.Logf("%d seeds, %d operations in rooms, %d faults", seeds, ops.Load(), faults.Load())
}

func report(t *testing.T, seed uint64, breaches []string, r *Result) {
	t.Helper()
	for _, b := range breaches[:min(maxShown, len(breaches))] {
		t.Errorf("seed %d: %s", seed, b)
	}
	if len(breaches) > 0 {
		t.Logf("seed %d, %d breaches; again: make sim SEED=%d\n%s", seed, len(breaches), seed, strings.Join(r.Faults, "\n"))
	}
}

// TestSimFindsMutants turns off one guard after the other. What that breaks must be
// found, by the check that is there for it.
func TestSimFindsMutants(t *testing.T) {
	for _, m := range []struct {
		mutant Mutant
		check  string
	}{
		{NoFence, "C11"},
		{EarlyAnswer, "C1"},
		{NoDedup, "C3"},
		{NoHeads, "C10"},
		{NoOutbox, "C8"},
		{NoCursor, "C8"},
		{KeysKept, "C9"},
		{AckOnSend, "C8"},
		{NoGaps, "C5"},
		{CursorAhead, "C12"},
		{ListsUntold, "C13"},
	} {
		t.Run(string(m.mutant), func(t *testing.T) {
			for seed := uint64(1); seed <= mutantSeeds; seed++ {
				breaches, _ := simulate(t, Options{Seed: seed, Mutant: m.mutant})
				for _, b := range breaches {
					if strings.HasPrefix(b, m.check+" ") {
						t.Logf("seed %d: %s", seed, b)
						return
					}
				}
			}
			t.Errorf("%d seeds, and %s found nothing", mutantSeeds, m.check)
		})
	}
}
