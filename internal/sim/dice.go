package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// dice decides for one part of a run. Each part has dice of its own, made of the
// seed and the part's name, so that what one does never changes what another meets.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64, name string) *dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash does not fail
	return &dice{rng: rand.New(rand.NewPCG(seed, h.Sum64()))}
}

// chance is true in p of all cases.
func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < p
}

// upTo is a number below n.
func (d *dice) upTo(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// between is a time. Its nanoseconds differ from those of all others, most likely,
// so that time decides what comes first and not who happens to run.
func (d *dice) between(lo, hi time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return lo + time.Duration(d.rng.Int64N(int64(hi-lo)))
}

// tasks counts what runs in the background. Unlike a sync.WaitGroup it may be waited
// for while more begins.
type tasks struct {
	mu sync.Mutex
	n  int
}

// Go runs fn in the background.
func (t *tasks) Go(fn func()) {
	t.add(1)
	go func() {
		defer t.add(-1)
		fn()
	}()
}

func (t *tasks) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n += n
}

// Wait returns when, at some moment, nothing runs.
func (t *tasks) Wait() {
	for {
		t.mu.Lock()
		n := t.n
		t.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
