package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// maxInFlight bounds the messages of an open load that wait for their answer.
	// Beyond it messages wait to be sent, which counts as latency.
	maxInFlight = 2048
	// gateTick is how often a gate looks at what was delivered.
	gateTick = 500 * time.Microsecond
	// leastSleep is what a timer is good for; less is not waited for.
	leastSleep = 100 * time.Microsecond
)

// gate keeps a closed load from running ahead of the deliveries: so many messages
// may be acknowledged, or under way, and not delivered to all.
type gate struct {
	l        *load
	window   int64
	entered  int64
	complete int64
	open     bool
	mu       sync.Mutex
	turn     sync.Cond
}

func newGate(l *load, window int) *gate {
	g := &gate{l: l, window: int64(window)}
	g.turn.L = &g.mu
	return g
}

// enter waits for room in the window.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.open && g.entered-g.complete >= g.window {
		g.turn.Wait()
	}
	g.entered++
}

// leave gives back the room of a message that was not sent.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entered--
}

// watch moves the window until stop, then lets everyone through.
func (g *gate) watch(stop <-chan struct{}) {
	tick := time.NewTicker(gateTick)
	defer tick.Stop()
	before := g.l.acked.Load()
	for more := true; more; {
		select {
		case <-tick.C:
		case <-stop:
			more = false
		}
		n := (g.l.check.delivered()+g.l.check.skipped())/int64(g.l.receivers) - before
		g.mu.Lock()
		g.complete, g.open = n, !more
		g.turn.Broadcast()
		g.mu.Unlock()
	}
}

// closedLoop has each sender send its next message when the one before was
// acknowledged, and if window is not 0, when not more than that many wait for
// their deliveries. It returns when stop is closed and all answers have come.
func (l *load) closedLoop(ctx context.Context, stop <-chan struct{}, window int) {
	var wg sync.WaitGroup
	var g *gate
	if window > 0 {
		g = newGate(l, window)
		wg.Go(func() { g.watch(stop) })
	}
	for _, s := range l.senders {
		wg.Go(func() {
			for {
				if g != nil {
					g.enter()
				}
				select {
				case <-stop:
					return
				default:
				}
				if !s.send(ctx, l.now(), phase(l.phase.Load())) {
					if g != nil {
						g.leave()
					}
					time.Sleep(errorPause)
				}
			}
		})
	}
	wg.Wait()
}

// openLoop sends at a rate whatever the server does: messages are due at random
// times (a Poisson process), and latency counts from when they were due, also if
// they had to wait for their turn to be sent. It returns when stop is closed and
// all answers have come.
func (l *load) openLoop(ctx context.Context, stop <-chan struct{}, perSecond float64) {
	var wg sync.WaitGroup
	defer wg.Wait()
	inFlight := make(chan struct{}, maxInFlight)
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := l.now()
	for {
		due += int64(rand.ExpFloat64() * float64(time.Second) / perSecond)
		wait := time.Duration(due - l.now())
		if wait > leastSleep {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-stop:
				return
			}
		}
		select {
		case inFlight <- struct{}{}:
		case <-stop:
			return
		}
		at, p := due, phase(l.phase.Load())
		s := l.senders[rand.N(len(l.senders))]
		wg.Go(func() {
			defer func() { <-inFlight }()
			s.send(ctx, at, p)
		})
	}
}

// sample is everything that is counted at one moment.
type sample struct {
	at               time.Time
	cpu, clientCPU   time.Duration
	rss              int64
	acked, delivered int64
	metrics          map[string]float64
	noCPU, noRSS     error // why there is no such figure
}

func (l *load) sample(ctx context.Context) sample {
	s := takeSample(ctx, l.nodes...)
	s.acked, s.delivered = l.acked.Load(), l.check.delivered()
	return s
}

// takeSample reads what the processes of servers used together.
func takeSample(ctx context.Context, nodes ...*server) sample {
	s := sample{metrics: make(map[string]float64)}
	for _, srv := range nodes {
		metrics, _ := srv.scrape(ctx) // without metrics there are fewer figures
		for name, v := range metrics {
			s.metrics[name] += v
		}
		cpu, noCPU := srv.cpu(metrics)
		rss, noRSS := srv.rss(metrics)
		s.cpu, s.noCPU = s.cpu+cpu, errors.Join(s.noCPU, noCPU)
		s.rss, s.noRSS = s.rss+rss, errors.Join(s.noRSS, noRSS)
	}
	s.clientCPU = ownCPU()
	s.at = time.Now()
	return s
}

// ownCPU is the CPU time of the load generator.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// window is what happened between two samples.
type window struct {
	elapsed                  time.Duration
	cpu, clientCPU           time.Duration
	acked, delivered         int64
	metrics                  map[string]float64
	framesPerWrite, perBatch float64 // 0: unknown
	noCPU                    error
}

func between(a, b sample) window {
	w := window{
		elapsed: b.at.Sub(a.at), cpu: b.cpu - a.cpu, clientCPU: b.clientCPU - a.clientCPU,
		acked: b.acked - a.acked, delivered: b.delivered - a.delivered, metrics: maps.Clone(b.metrics), noCPU: b.noCPU,
	}
	for name := range w.metrics {
		w.metrics[name] -= a.metrics[name]
	}
	w.framesPerWrite = w.ratio("hubbub_gateway_frames_sent_total", "hubbub_gateway_writes_total")
	w.perBatch = w.ratio("hubbub_partition_commands_total", "hubbub_partition_batches_total")
	return w
}

func (w *window) ratio(of, to string) float64 {
	if w.metrics[to] == 0 {
		return 0
	}
	return w.metrics[of] / w.metrics[to]
}

// measure runs a load for the warm-up and the duration, and returns what happened
// in the latter. Messages of that time belong to a phase.
func (l *load) measure(ctx context.Context, name string, p phase, run func(stop <-chan struct{})) (window, error) {
	return l.measureWhile(ctx, name, p, run, func() error { return sleep(ctx, l.env.Duration) })
}

// measureWhile is measure for as long as something lasts: do, which takes about the
// duration.
func (l *load) measureWhile(ctx context.Context, name string, p phase, run func(stop <-chan struct{}), do func() error) (window, error) {
	l.env.progress("%s: %v and %v to warm up", name, l.env.Duration, l.env.Warmup)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { run(stop) })
	defer func() {
		close(stop)
		wg.Wait()
	}()
	if err := sleep(ctx, l.env.Warmup); err != nil {
		return window{}, err
	}
	l.phase.Store(int32(p))
	defer l.phase.Store(int32(phaseWarm))
	var profiling sync.WaitGroup
	defer profiling.Wait()
	if l.env.Profile != "" {
		for i, srv := range l.nodes {
			name := name
			if len(l.nodes) > 1 {
				name += fmt.Sprintf("-node%d", i+1)
			}
			profiling.Go(func() { l.env.profile(ctx, srv, name, l.env.Duration) })
		}
	}
	a := l.sample(ctx)
	if err := do(); err != nil {
		return window{}, err
	}
	w := between(a, l.sample(ctx))
	return w, w.noCPU
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// profile writes profiles of the server to files: where its CPU time goes during
// d, and what it allocates.
func (e *env) profile(ctx context.Context, srv *server, name string, d time.Duration) {
	seconds := max(int(d/time.Second), 1)
	var wg sync.WaitGroup
	for file, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		wg.Go(func() { e.fetchProfile(ctx, srv, name+"."+file, fmt.Sprintf("%s?seconds=%d", path, seconds)) })
	}
	wg.Wait()
}

// fetchProfile writes one profile to a file. Without it there are still figures.
func (e *env) fetchProfile(ctx context.Context, srv *server, name, path string) {
	b, err := srv.get(ctx, srv.metrics+"/debug/pprof/"+path)
	if err == nil {
		err = os.WriteFile(filepath.Join(e.Profile, name+".pb.gz"), b, 0o600)
	}
	if err != nil {
		e.progress("profile %s: %v", name, err)
	}
}
