package natsbus

import (
	"context"
	"sync"
)

// maxIdle is how many goroutines wait for further requests: as many as a busy node
// answers at a time. Each keeps its stack, some 8 KiB.
const maxIdle = 64

// job is a request to answer.
type job struct {
	handler *handler
	request request
}

// workers answer requests, each in a goroutine. Those that are done wait for further
// ones: what a new goroutine costs is its stack, which grows to that of a command in
// several steps, each a copy of the one before.
type workers struct {
	// jobs has no place, so that what is put there has been taken.
	jobs chan job
	idle chan struct{}
	all  sync.WaitGroup
}

func newWorkers() workers {
	return workers{jobs: make(chan job), idle: make(chan struct{}, maxIdle)}
}

// do runs a job. It does not wait.
func (w *workers) do(ctx context.Context, j job) {
	select {
	case w.jobs <- j:
	default:
		w.all.Go(func() { w.work(ctx, j) })
	}
}

func (w *workers) work(ctx context.Context, j job) {
	for {
		j.handler.run(j.request)
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		j = job{} // what was answered is not kept while waiting
		select {
		case j = <-w.jobs:
			<-w.idle
		case <-ctx.Done():
			<-w.idle
			return
		}
	}
}

// wait returns when all have ended, after the context of those that are idle.
func (w *workers) wait() { w.all.Wait() }
