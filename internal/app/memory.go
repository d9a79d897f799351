package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often it is looked whether memory can be given back.
	trimEvery = 10 * time.Second
	// quietRate is the rate of allocation, in bytes a second, below which the
	// process counts as quiet: what idle sockets and a few people cause.
	quietRate = 16 << 20
	// trimAfter and trimShare are how much must have been allocated since memory was
	// last given back before it is worth a collection: so many bytes, and such a part
	// of what is live, since looking through that is what a collection costs.
	trimAfter = 8 << 20
	trimShare = 8
)

// trimMemory gives memory back to the machine when a busy time is over. Go lets
// the heap grow to twice what is in use and returns the rest slowly: right while
// there is work, and the larger half of what many idle sockets would cost.
func trimMemory(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var before, trimmed uint64
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		quiet := now-before < uint64(trimEvery.Seconds())*quietRate
		before = now
		if quiet && now-trimmed > max(trimAfter, sample[1].Value.Uint64()/trimShare) {
			debug.FreeOSMemory()
			trimmed = now
		}
	}
}
