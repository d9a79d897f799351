package bench

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBuckets(t *testing.T) {
	last := bucketOf(0)
	for v := int64(1); v < 1<<maxBits; v += 1 + v/1000 {
		i := bucketOf(v)
		if i != last && i != last+1 {
			t.Fatalf("bucket %d follows bucket %d at %d", i, last, v)
		}
		last = i
		top := bucketTop(i)
		if top < v || float64(top-v) > float64(v)/(1<<subBits) {
			t.Fatalf("the bucket of %d ends at %d", v, top)
		}
		if bucketOf(top) != i || bucketOf(top+1) == i && top+1 < 1<<maxBits {
			t.Fatalf("bucket %d does not end at %d", i, top)
		}
	}
	if last != buckets-1 || bucketOf(math.MaxInt64) != buckets-1 || bucketOf(-5) != 0 {
		t.Fatalf("the last bucket is %d of %d", last, buckets)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Values of all magnitudes.
		values := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) int64 {
			return rapid.Int64Range(0, 1<<rapid.IntRange(1, maxBits-1).Draw(t, "bits")).Draw(t, "value")
		}), 1, 200).Draw(t, "values")
		whole, parts := new(Histogram), [2]Histogram{}
		for i, v := range values {
			whole.Record(time.Duration(v))
			parts[i%2].Record(time.Duration(v))
		}
		sum := new(Histogram)
		sum.Add(&parts[0])
		sum.Add(&parts[1])
		slices.Sort(values)
		for _, h := range []*Histogram{whole, sum} {
			if h.Count() != uint64(len(values)) || int64(h.Max()) != values[len(values)-1] {
				t.Fatalf("count %d, max %d", h.Count(), h.Max())
			}
			for _, q := range []float64{0, 0.01, 0.5, 0.95, 0.99, 1} {
				exact := values[max(int(math.Ceil(q*float64(len(values)))), 1)-1]
				got := int64(h.Quantile(q))
				if got < exact || float64(got-exact) > float64(exact)/(1<<subBits) {
					t.Fatalf("quantile %v is %d, exactly %d", q, got, exact)
				}
			}
		}
	})
}

func TestHistogramOfNothing(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error("something out of nothing")
	}
	h.Record(-time.Second)
	h.Record(time.Hour)
	if h.Max() != time.Hour || h.Mean() != 30*time.Minute || h.Quantile(0.5) != 0 {
		t.Errorf("max %v, mean %v, median %v", h.Max(), h.Mean(), h.Quantile(0.5))
	}
}
