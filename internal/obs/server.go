package obs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// checkTimeout is how long /readyz waits for its checks: less than the
	// second or more that load balancers wait for it.
	checkTimeout = 900 * time.Millisecond
	// readTimeout ends the request of a peer that does not finish sending it.
	readTimeout = 5 * time.Second
	// idleTimeout ends connections between scrapes that are minutes apart.
	idleTimeout = 5 * time.Minute
	// writeTimeout is above the 30 s a CPU profile takes if not told otherwise.
	writeTimeout = 2 * time.Minute
	// maxHeaderBytes suffices for a scraper's headers many times over.
	maxHeaderBytes = 16 << 10
	// maxScrapes bounds scrapes at one time: each walks all metrics.
	maxScrapes = 4
)

// Check is one condition of readiness. Ready returns nil or why not; it is
// called from many goroutines and returns when its context ends.
type Check struct {
	Name  string
	Ready func(context.Context) error
}

// ServerOptions says what the server for operators serves.
type ServerOptions struct {
	// Addr is host:port; port 0 takes a free one.
	Addr     string
	Registry *Registry
	// Checks are the conditions of /readyz; all must hold.
	Checks []Check
	// Pprof serves the profiler at /debug/pprof/.
	Pprof bool
	Log   *slog.Logger
}

// Server answers operators: /metrics, /healthz (the process runs) and /readyz
// (send it traffic). It begins to answer in Listen, so that a process that is
// still starting can be told from one that is dead, and ends in Close.
type Server struct {
	http *http.Server
	addr net.Addr
	done chan struct{}
	// failed is why serving ended; it is set before done is closed.
	failed error
}

// Listen binds the address and serves on it until Close.
func Listen(ctx context.Context, opts ServerOptions) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	s := &Server{
		addr: l.Addr(),
		done: make(chan struct{}),
		http: &http.Server{
			Handler:           Handler(opts),
			ReadTimeout:       readTimeout,
			ReadHeaderTimeout: readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
		},
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed = err
			opts.Log.Error("metrics server ended", Err(err))
		}
	}()
	return s, nil
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.addr }

// Close stops at once: what is under way for operators (a profile, a scrape) is
// not worth waiting for. It returns when no request is accepted any more; the
// error is that of serving, if it failed before.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if s.failed != nil {
		return fmt.Errorf("serve metrics: %w", s.failed)
	}
	if err != nil {
		return fmt.Errorf("close metrics server: %w", err)
	}
	return nil
}

// Handler returns the handler of the server for operators; Addr is not used.
func Handler(opts ServerOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(opts.Registry, promhttp.HandlerFor(opts.Registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            slog.NewLogLogger(opts.Log.Handler(), slog.LevelError),
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		text, ready := readiness(r.Context(), opts.Checks)
		status := http.StatusOK
		if !ready {
			status = http.StatusServiceUnavailable
		}
		writeText(w, status, text)
	})
	if opts.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // a peer that is gone needs no answer
}

// readiness runs the checks side by side and returns a line for each in their
// order. A check that does not return in time counts as failed.
func readiness(ctx context.Context, checks []Check) (text string, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	failures := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { failures[i] = c.Ready(ctx) })
	}
	wg.Wait()
	var b strings.Builder
	ready = true
	for i, c := range checks {
		if failures[i] == nil {
			fmt.Fprintf(&b, "%s: ok\n", c.Name)
			continue
		}
		ready = false
		fmt.Fprintf(&b, "%s: %v\n", c.Name, failures[i])
	}
	if len(checks) == 0 {
		b.WriteString("ok\n")
	}
	return b.String(), ready
}
