package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram's bucket is at most 1/64 as wide as the values in it.
const (
	subBits = 6
	// maxBits bounds what is told apart: 2^40 ns is 18 minutes.
	maxBits = 40
	buckets = (maxBits-subBits)<<subBits + 1<<subBits
)

// Histogram counts durations in buckets whose width grows with the value, as
// HDR histograms do: quantiles are right to 1.6 %, whatever the range, and a
// value costs two atomic additions. Negative values count as 0, those beyond 18
// minutes as 18 minutes, save in Max.
//
// The zero value is ready. All methods may be called from any goroutine; those
// that read give a consistent picture only when nobody records.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64
	max    atomic.Int64
}

// bucketOf is the bucket of a value. The first 2^(subBits+1) values have a
// bucket each; beyond, each doubling has 2^subBits.
func bucketOf(v int64) int {
	v = min(max(v, 0), 1<<maxBits-1)
	shift := max(bits.Len64(uint64(v))-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// bucketTop is the largest value of a bucket.
func bucketTop(i int) int64 {
	shift := max(i>>subBits-1, 0)
	return int64(i-shift<<subBits+1)<<shift - 1
}

// Record counts a duration.
func (h *Histogram) Record(d time.Duration) {
	v := max(int64(d), 0)
	h.counts[bucketOf(v)].Add(1)
	h.sum.Add(v)
	for old := h.max.Load(); v > old && !h.max.CompareAndSwap(old, v); old = h.max.Load() {
	}
}

// Add counts everything that another histogram has counted.
func (h *Histogram) Add(o *Histogram) {
	for i := range o.counts {
		if n := o.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
	h.sum.Add(o.sum.Load())
	h.max.Store(max(h.max.Load(), o.max.Load()))
}

// Count is how many durations were counted.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Mean is the average, 0 if nothing was counted.
func (h *Histogram) Mean() time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	return time.Duration(uint64(h.sum.Load()) / n)
}

// Quantile returns a duration that a share q (0 to 1) of those counted does not
// exceed, 0 if nothing was counted. It errs upwards.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(n))), 1)
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return min(time.Duration(bucketTop(i)), h.Max())
		}
	}
	return h.Max()
}
