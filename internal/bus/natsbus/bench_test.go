package natsbus_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/natsbus"
	"github.com/hubbub-chat/hubbub/internal/clock/cputest"
)

// commitTime is how long the handler of BenchmarkRequest takes, as a commit does.
const commitTime = 3 * time.Millisecond

// BenchmarkRequest asks another node, which publishes a batch and answers, as a command
// to a partition elsewhere does: by one caller after another, and by many at a time.
func BenchmarkRequest(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			from, to := benchPair(b)
			batch := make(bus.Raw, 600)
			var heard atomic.Int64
			must(b, func() error {
				_, err := from.Subscribe("log", func(bus.Payload) { heard.Add(1) })
				return err
			})
			must(b, func() error {
				_, err := to.Handle("do", func(context.Context, bus.Payload) (bus.Payload, error) {
					time.Sleep(commitTime)
					return bus.Raw("done"), to.Publish("log", batch)
				})
				return err
			})
			command := make(bus.Raw, 300)
			for heard.Load() == 0 { // until both servers know of both
				_, _ = from.Request(b.Context(), "do", command)
			}
			before := cputest.Used(b)
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := from.Request(b.Context(), "do", command); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func benchPair(b *testing.B) (from, to *natsbus.Bus) {
	b.Helper()
	open := func(join ...string) *natsbus.Bus {
		x, err := natsbus.Open(b.Context(), natsbus.Options{
			Deployment: "bench", Node: fmt.Sprint("n", nodes.Add(1)), Listen: "127.0.0.1:0", Secret: "secret", Join: join,
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = x.Close() })
		return x
	}
	to = open()
	return open(to.Addr()), to
}

func must(b *testing.B, f func() error) {
	b.Helper()
	if err := f(); err != nil {
		b.Fatal(err)
	}
}
