// Package obs is what operators see of a process: the registry of metrics, the
// logger with its fixed keys, and the listener for /metrics, /healthz and
// /readyz, which is never the public one.
//
// Nothing here is global: a Registry and a logger are made once, by app, and
// passed down. Packages define their own metrics against prometheus.Registerer
// and take *slog.Logger; they use this package for bucket presets and keys only.
// Everything exported is safe for concurrent use.
package obs

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Namespace begins the name of every metric of the server.
const Namespace = "hubbub"

// Registry holds the metrics of one process, or of one server in a test.
type Registry struct {
	*prometheus.Registry
}

var (
	_ prometheus.Registerer = (*Registry)(nil)
	_ prometheus.Gatherer   = (*Registry)(nil)
)

// NewRegistry returns a registry with the metrics of the Go runtime, of the
// process, and of the build.
func NewRegistry() *Registry {
	r := &Registry{Registry: prometheus.NewRegistry()}
	b := ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace:   Namespace,
		Name:        "build_info",
		Help:        "1, with the version of the binary as labels.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go": b.Go},
	})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// Build says which binary is running.
type Build struct {
	// Version is the module's version, "(devel)" if the binary was not built
	// from a tagged commit.
	Version string
	// Commit is the revision, with "+dirty" behind it if files were changed,
	// or "unknown" if the build did not record it.
	Commit string
	// Go is the version of the toolchain.
	Go string
}

// ReadBuild returns what the toolchain recorded in the running binary.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: info.Main.Version, Commit: "unknown", Go: runtime.Version()}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && b.Commit != "unknown" {
		b.Commit += "+dirty"
	}
	return b
}

// LatencyBuckets are for durations in seconds, from 50 µs (a step in memory) to
// about 26 s (a client's patience), in factors of two.
func LatencyBuckets() []float64 { return prometheus.ExponentialBuckets(50e-6, 2, 20) }

// SizeBuckets are for sizes in bytes, from 64 B to 64 MiB, in factors of four.
func SizeBuckets() []float64 { return prometheus.ExponentialBuckets(64, 4, 11) }

// CountBuckets are for how many things came together (commands in a batch,
// frames in a write, members of a room), from 1 to 65536, in factors of two.
func CountBuckets() []float64 { return prometheus.ExponentialBuckets(1, 2, 17) }
