package gateway

import (
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds the goroutines that wait for work with a grown stack:
// enough for all calls that a busy machine runs at once, and some MiB at most.
const maxIdleWorkers = 256

// workers runs functions on goroutines that are used again. The API's stacks are
// deep; a fresh goroutine grows to it by copying itself four times, which was a
// tenth of what a send cost. Sessions must not wait on such a stack, so they have
// goroutines of their own; what is short and deep is done here.
type workers struct {
	jobs chan func()
	stop chan struct{}
	idle atomic.Int32
	wg   sync.WaitGroup
}

func newWorkers() *workers {
	return &workers{jobs: make(chan func()), stop: make(chan struct{})}
}

// do runs fn at once on a goroutine other than the caller's.
func (w *workers) do(fn func()) {
	select {
	case w.jobs <- fn:
	default:
		w.wg.Go(func() { w.run(fn) })
	}
}

func (w *workers) run(fn func()) {
	for {
		fn()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case fn = <-w.jobs:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

// close ends the goroutines that wait, and waits for those at work. Nothing may
// be given to do any more.
func (w *workers) close() {
	close(w.stop)
	w.wg.Wait()
}
