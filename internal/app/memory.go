package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often it is looked whether memory can be given back.
	trimEvery = 5 * time.Second
	// quietRate is the rate of allocation, in bytes a second, below which the
	// process counts as quiet: what idle sockets and a few people cause, or 15,000 polls
	// that wait for 30 seconds and begin again, which allocate 17 MiB a second.
	quietRate = 32 << 20
	// trimAfter and trimShare are how much must have been allocated since memory was
	// last given back before it is worth a collection: so many bytes, and such a part
	// of what is live, since looking through that is what a collection costs.
	trimAfter = 8 << 20
	trimShare = 8
	// ballast counts as live, and is never touched, so that it takes no memory. Garbage
	// may gather until it is as large as what is live, which is looked through then: a
	// small server would do so again and again.
	ballast = 32 << 20
)

// tendMemory keeps the balance between memory and the work of collecting it, and gives
// memory back to the machine when a busy time is over. Go lets the heap grow to twice
// what is in use and returns the rest slowly: right while there is work, and the larger
// half of what many idle sockets would cost.
func tendMemory(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var before, trimmed uint64
	weight := make([]byte, ballast)
	defer runtime.KeepAlive(weight)
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		now, live := sample[0].Value.Uint64(), max(sample[1].Value.Uint64(), ballast)-ballast
		quiet := now-before < uint64(trimEvery.Seconds())*quietRate
		before = now
		if quiet && now-trimmed > max(trimAfter, live/trimShare) {
			debug.FreeOSMemory()
			trimmed = now
		}
	}
}
