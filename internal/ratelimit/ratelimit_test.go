package ratelimit

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func withLimit(t testing.TB, class Class, limit Limit) *Limiter {
	t.Helper()
	cfg := Defaults()
	cfg[class] = limit
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBurstThenRate(t *testing.T) {
	l := withLimit(t, Send, Limit{PerSecond: 2, Burst: 3})
	for i := range 3 {
		if ok, _ := l.Allow(Send, "a", start); !ok {
			t.Fatalf("action %d of the burst was refused", i)
		}
	}
	ok, retry := l.Allow(Send, "a", start)
	if ok || retry != 500*time.Millisecond {
		t.Fatalf("after the burst: %v, %v; want refused for 500ms", ok, retry)
	}
	if ok, _ := l.Allow(Send, "b", start); !ok {
		t.Error("another key was refused")
	}
	if ok, _ := l.Allow(Join, "a", start); !ok {
		t.Error("another class was refused")
	}
	if ok, _ := l.Allow(Send, "a", start.Add(retry-1)); ok {
		t.Error("allowed before the time it gave")
	}
	if ok, _ := l.Allow(Send, "a", start.Add(retry)); !ok {
		t.Error("refused at the time it gave")
	}
	if ok, _ := l.Allow(Send, "a", start.Add(retry)); ok {
		t.Error("two actions for one interval")
	}
}

func TestRefund(t *testing.T) {
	l := withLimit(t, LoginAccount, Limit{PerSecond: 1, Burst: 1})
	for i := range 10 {
		if ok, _ := l.Allow(LoginAccount, "a", start); !ok {
			t.Fatalf("attempt %d after a refund was refused", i)
		}
		l.Refund(LoginAccount, "a")
	}
	l.Allow(LoginAccount, "a", start)
	l.Refund(LoginAccount, "a")
	l.Refund(LoginAccount, "a")
	l.Refund(LoginAccount, "a")
	l.Refund(LoginAccount, "never seen")
	if ok, _ := l.Allow(LoginAccount, "a", start); !ok {
		t.Fatal("refused after refunds")
	}
	if ok, _ := l.Allow(LoginAccount, "a", start); ok {
		t.Error("more refunds than actions made the bucket larger than its burst")
	}
}

func TestClockSetBack(t *testing.T) {
	l := withLimit(t, Send, Limit{PerSecond: 1, Burst: 5})
	for range 5 {
		l.Allow(Send, "a", start)
	}
	back := start.Add(-time.Hour)
	ok, retry := l.Allow(Send, "a", back)
	if ok || retry > 2*time.Second {
		t.Fatalf("an hour back: %v, %v; want refused for a second at most", ok, retry)
	}
	if ok, _ := l.Allow(Send, "a", back.Add(retry)); !ok {
		t.Error("refused at the time it gave")
	}
	if ok, _ := l.Allow(Send, "a", start.Add(time.Second)); !ok {
		t.Error("refused when the clock was right again")
	}
}

func TestOffAndNone(t *testing.T) {
	off := Off()
	on := withLimit(t, Send, Limit{PerSecond: 1, Burst: 1})
	for range 1000 {
		if ok, _ := off.Allow(Login, "a", start); !ok {
			t.Fatal("a limiter that is off refused")
		}
		if ok, _ := on.Allow(None, "a", start); !ok {
			t.Fatal("the class none was refused")
		}
	}
	off.Refund(Login, "a")
}

func TestConfigIsChecked(t *testing.T) {
	missing := Defaults()
	delete(missing, Join)
	unknown := Defaults()
	unknown["sned"] = Limit{PerSecond: 1, Burst: 1}
	cases := map[string]Config{"missing": missing, "unknown": unknown}
	for name, limit := range map[string]Limit{
		"zero rate": {0, 1}, "negative rate": {-1, 1}, "NaN": {math.NaN(), 1}, "infinite": {math.Inf(1), 1},
		"tiny": {1e-9, 1}, "zero burst": {1, 0}, "huge burst": {1, 1e6 + 1},
	} {
		cfg := Defaults()
		cfg[Send] = limit
		cases[name] = cfg
	}
	for name, cfg := range cases {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Defaults()); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestIdleBucketsAreForgotten(t *testing.T) {
	l := withLimit(t, Send, Limit{PerSecond: 1000, Burst: 1})
	now := start
	for i := range 200_000 {
		now = now.Add(time.Millisecond)
		if ok, _ := l.Allow(Send, fmt.Sprint("user", i), now); !ok {
			t.Fatal("a new key was refused")
		}
	}
	// One bucket is in use at any time; each shard keeps at most what makes a
	// sweep worthwhile.
	if n := l.buckets(); n > shardCount*minSweep {
		t.Errorf("%d buckets are kept", n)
	}
}

func TestMemoryIsBoundedAndTheMostUsedStays(t *testing.T) {
	const perShard = 100
	cfg := Defaults()
	cfg[Login] = Limit{PerSecond: 0.1, Burst: 10}
	l, err := newSized(cfg, perShard)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		l.Allow(Login, "guesser", start)
	}
	for i := range 50_000 {
		l.Allow(Login, fmt.Sprint("noise", i), start)
	}
	if n := l.buckets(); n > shardCount*perShard {
		t.Errorf("%d buckets are kept, more than %d", n, shardCount*perShard)
	}
	if ok, _ := l.Allow(Login, "guesser", start); ok {
		t.Error("a flood of other keys emptied the guesser's bucket")
	}
}

// TestNeverMoreThanTheLimit checks the promise against a count: in any window
// that starts with the first action, no more than burst + rate × time.
func TestNeverMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := Limit{
			PerSecond: rapid.Float64Range(0.01, 100).Draw(t, "rate"),
			Burst:     rapid.IntRange(1, 20).Draw(t, "burst"),
		}
		cfg := Defaults()
		cfg[Send] = limit
		l, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now, allowed := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, int(5*time.Second)).Draw(t, "gap")))
			ok, retry := l.Allow(Send, "k", now)
			if ok {
				allowed++
				bound := float64(limit.Burst) + limit.PerSecond*now.Sub(start).Seconds()
				if float64(allowed) > bound+1e-6 {
					t.Fatalf("%d allowed after %v with %+v", allowed, now.Sub(start), limit)
				}
				continue
			}
			if retry <= 0 {
				t.Fatal("refused without a time to wait")
			}
			now = now.Add(retry)
			if ok, _ := l.Allow(Send, "k", now); !ok {
				t.Fatal("refused at the time it gave")
			}
			allowed++
		}
	})
}

func TestConcurrentCallersShareOneBucket(t *testing.T) {
	l := withLimit(t, LoginAccount, Limit{PerSecond: 0.01, Burst: 7})
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		allowed int
	)
	for range 50 {
		wg.Go(func() {
			if ok, _ := l.Allow(LoginAccount, "victim", start); ok {
				mu.Lock()
				allowed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if allowed != 7 {
		t.Errorf("%d of 50 parallel attempts were allowed, want 7", allowed)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := withLimit(b, Send, Limit{PerSecond: 1e6, Burst: 1e6})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Allow(Send, "@someone:example.org", start)
		}
	})
}
