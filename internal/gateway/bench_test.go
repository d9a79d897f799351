package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hubbub-chat/hubbub/internal/clock/cputest"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// childEnv makes the test binary a process of clients, so that what they cost is
// not counted as the server's.
const childEnv = "HUBBUB_GATEWAY_CHILD"

// childReport is what the child prints when its input ends.
type childReport struct {
	Frames     int64
	P50, P99   float64 // milliseconds from Send to the callback
	Disordered int64
}

// benchFrame is a 500-byte frame with its number and its time at fixed places.
func benchFrame(seq int, at time.Time) []byte {
	f := fmt.Appendf(nil, `{"op":"sync","mark":["12","%016d"],"at":%020d,"pad":"`, seq, at.UnixNano())
	return append(append(f, strings.Repeat("x", 500-len(f)-2)...), `"}`...)
}

func parseFrame(b []byte) (seq int64, at time.Time) {
	seq, err := strconv.ParseInt(string(b[27:43]), 10, 64)
	if err != nil {
		panic(err)
	}
	nanos, err := strconv.ParseInt(string(b[51:71]), 10, 64)
	if err != nil {
		panic(err)
	}
	return seq, time.Unix(0, nanos)
}

// runChild opens connections, says "ready", and reports when its input ends.
func runChild(mode string) {
	url, count, _ := strings.Cut(mode, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		panic(err)
	}
	var frames, disordered atomic.Int64
	var mu sync.Mutex
	var latencies []float64
	var d wsclient.Dialer
	var wg sync.WaitGroup
	limit := make(chan struct{}, 32)
	clients := make([]*wsclient.Client, n)
	for i := range n {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			last := int64(-1)
			c, err := d.Dial(context.Background(), url, wsclient.Options{
				Token: fmt.Sprintf("@u%d:x/D", i), Sync: true, NoPosition: true,
				OnFrame: func(b []byte) {
					frames.Add(1)
					seq, at := parseFrame(b)
					if last >= 0 && seq != last+1 {
						disordered.Add(1)
					}
					last = seq
					if i%16 == 0 {
						mu.Lock()
						latencies = append(latencies, float64(time.Since(at))/1e6)
						mu.Unlock()
					}
				},
			})
			if err != nil {
				panic(err)
			}
			clients[i] = c
		})
	}
	wg.Wait()
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	r := childReport{Frames: frames.Load(), Disordered: disordered.Load()}
	mu.Lock()
	slices.Sort(latencies)
	if len(latencies) > 0 {
		r.P50, r.P99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	}
	mu.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(r)
	runtime.KeepAlive(clients)
}

// child is a process of clients.
type child struct {
	cmd *exec.Cmd
	in  interface{ Close() error }
	out *bufio.Reader
}

func startChild(tb testing.TB, url string, n int) *child {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, url, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c := &child{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if line, err := c.out.ReadString('\n'); err != nil || line != "ready\n" {
		tb.Fatalf("child: %q, %v", line, err)
	}
	return c
}

func (c *child) end(tb testing.TB) childReport {
	tb.Helper()
	_ = c.in.Close()
	var r childReport
	if err := json.NewDecoder(c.out).Decode(&r); err != nil {
		tb.Fatalf("child's report: %v", err)
	}
	_ = c.cmd.Wait()
	return r
}

func value(tb testing.TB, c prometheus.Metric) float64 {
	tb.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		tb.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// BenchmarkFanout500 sends messages of 500 bytes to 500 sockets at steady rates;
// b.N counts messages. The clients are another process, so the CPU time is that
// of the server, the kernel's part included.
func BenchmarkFanout500(b *testing.B) {
	for _, rate := range []int{50, 100, 200, 500, 1000, 2000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			const members = 500
			f := serve(b, Config{})
			c := startChild(b, f.url, members)
			// hello is answered before the sync starts.
			eventually(b, func() bool { return len(f.feed.all()) == members })
			sinks := f.feed.all()
			refused := 0
			frames, writes := value(b, f.metrics.frames), value(b, f.metrics.writes)
			cpu := cputest.Used(b)
			begin := time.Now()
			b.ResetTimer()
			for i := range b.N {
				time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				frame := benchFrame(i, time.Now())
				for _, s := range sinks {
					if !s.sink.Send(frame) {
						refused++
					}
				}
			}
			for value(b, f.metrics.frames)-frames < float64(b.N*members-refused) {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			cpu = cputest.Used(b) - cpu
			frames, writes = value(b, f.metrics.frames)-frames, value(b, f.metrics.writes)-writes
			time.Sleep(100 * time.Millisecond)
			r := c.end(b)
			if r.Frames != int64(b.N*members-refused) || refused == 0 && r.Disordered > 0 {
				b.Fatalf("sent %d, refused %d, received %d, out of order %d", b.N*members, refused, r.Frames, r.Disordered)
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/frames, "cpu-ns/delivery")
			b.ReportMetric(frames/writes, "frames/write")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(r.P50, "p50-ms")
			b.ReportMetric(r.P99, "p99-ms")
			b.ReportMetric(float64(refused), "refused")
		})
	}
}

// BenchmarkIdleMemory reports the resident memory of an idle socket with its
// session, the fake feed's part included.
func BenchmarkIdleMemory(b *testing.B) {
	const n = 5000
	for range b.N {
		f := serve(b, Config{})
		startChild(b, f.url, 1).end(b)
		debug.FreeOSMemory()
		before := rss(b)
		c := startChild(b, f.url, n)
		b.ReportMetric(float64(rss(b)-before)/n, "rss-B/conn-fresh")
		debug.FreeOSMemory()
		b.ReportMetric(float64(rss(b)-before)/n, "rss-B/conn")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.StackInuse)/n, "stack-B/conn")
		b.ReportMetric(float64(m.HeapAlloc)/n, "heap-B/conn")
		c.end(b)
	}
}

func rss(tb testing.TB) int64 {
	tb.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err) // Linux only, as the figures are
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kb << 10
		}
	}
	tb.Fatal("no VmRSS")
	return 0
}

// BenchmarkGather compares the two ways to write 8 frames of 500 bytes at once:
// copied into one buffer, and gathered by writev.
func BenchmarkGather(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 256<<10)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	frames := make([]wire.Frame, 8)
	for i := range frames {
		frames[i] = wire.Frame{Op: wire.OpText, Payload: benchFrame(i, time.Now())}
	}
	run := func(b *testing.B, write func(net.Conn) error) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		cpu := cputest.Used(b)
		for b.Loop() {
			if err := write(conn); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cputest.Used(b)-cpu)/float64(b.N), "cpu-ns/op")
	}
	b.Run("copy", func(b *testing.B) {
		var buf [shardBufferSize]byte
		run(b, func(conn net.Conn) error {
			cur := wire.Cursor{Frames: frames}
			_, err := conn.Write(buf[:cur.Fill(buf[:])])
			return err
		})
	})
	b.Run("writev", func(b *testing.B) {
		headers := make([]byte, 0, 8*14)
		bufs := make(net.Buffers, 0, 16)
		run(b, func(conn net.Conn) error {
			headers, bufs = headers[:0], bufs[:0]
			for i := range frames {
				start := len(headers)
				headers = wire.AppendHeader(headers, frames[i].Op, len(frames[i].Payload), nil)
				bufs = append(bufs, headers[start:], frames[i].Payload)
			}
			out := bufs
			_, err := out.WriteTo(conn)
			return err
		})
	})
}
