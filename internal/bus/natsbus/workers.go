package natsbus

import (
	"context"
	"sync"
)

// maxIdle is how many goroutines wait for further requests: as many as a busy node
// answers at a time. Each keeps its stack.
const maxIdle = 64

// workers answer requests, each in a goroutine. Those that are done wait for further
// ones: what a new goroutine costs is its stack, which grows to that of a command in
// several steps, each a copy of the one before.
type workers struct {
	// requests has no place, so that what is put there has been taken.
	requests chan request
	idle     chan struct{}
	all      sync.WaitGroup
}

func newWorkers() workers {
	return workers{requests: make(chan request), idle: make(chan struct{}, maxIdle)}
}

// do answers a request. It does not wait.
func (w *workers) do(ctx context.Context, r request) {
	select {
	case w.requests <- r:
	default:
		w.all.Go(func() { w.work(ctx, r) })
	}
}

func (w *workers) work(ctx context.Context, r request) {
	for {
		r.run()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		r = request{} // what was answered is not kept while waiting
		select {
		case r = <-w.requests:
			<-w.idle
		case <-ctx.Done():
			<-w.idle
			return
		}
	}
}
