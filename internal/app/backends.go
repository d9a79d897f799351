package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
)

// openPebble opens the store inside the process.
func openPebble(dir string, reg prometheus.Registerer, log *slog.Logger) (*openedStore, error) {
	p, err := pebblestore.Open(dir, pebblestore.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	counter := func(name, help string, value func(pebblestore.Stats) uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: obs.Namespace, Subsystem: "store", Name: name, Help: help,
		}, func() float64 { return float64(value(p.Stats())) }))
	}
	counter("commits_total", "Commits applied.", func(st pebblestore.Stats) uint64 { return st.Commits })
	counter("groups_total", "Writes to the disk that the commits took.", func(st pebblestore.Stats) uint64 { return st.Groups })
	counter("fenced_total", "Commits refused because their epoch was old.", func(st pebblestore.Stats) uint64 { return st.Fenced })
	counter("slow_disk_total", "Disk operations that took longer than 5 seconds.", func(st pebblestore.Stats) uint64 { return st.SlowDisk })
	counter("stalls_total", "Times commits waited for a flush or a compaction.", func(st pebblestore.Stats) uint64 { return st.Stalls })
	counter("corruptions_total", "Damaged blocks that were met.", func(st pebblestore.Stats) uint64 { return st.Corruptions })
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: obs.Namespace, Subsystem: "store", Name: "cache_bytes", Help: "Blocks of the store that are kept in memory: what was read last.",
	}, func() float64 { return float64(p.CacheBytes()) }))
	return &openedStore{
		Store: p, failed: p.Failed(), err: p.Err,
		ready: func(context.Context) error { return p.Err() },
		meta:  p.Meta, checkpoint: p.Checkpoint,
	}, nil
}

// openPostgres opens a store of PostgreSQL databases. It never fails for good: a
// database may come back.
func openPostgres(ctx context.Context, urls []string, reg prometheus.Registerer, log *slog.Logger) (*openedStore, error) {
	p, err := pgstore.Open(ctx, pgstore.Options{URLs: urls, Log: log})
	if errors.Is(err, pgstore.ErrConnect) {
		return nil, fmt.Errorf("server.store: %w. Check that the database runs and listens there, that a database of that name was made, and user and password", err)
	}
	if err != nil {
		return nil, fmt.Errorf("server.store: %w", err)
	}
	export := func(register func(prometheus.Opts, func() float64) prometheus.Collector, name, help string, value func(pgstore.Stats) float64) {
		reg.MustRegister(register(prometheus.Opts{Namespace: obs.Namespace, Subsystem: "store", Name: name, Help: help}, func() float64 {
			return value(p.Stats())
		}))
	}
	gauge := func(o prometheus.Opts, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(o), f)
	}
	counter := func(o prometheus.Opts, f func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts(o), f)
	}
	export(gauge, "connections", "Open connections to the databases.", func(st pgstore.Stats) float64 { return float64(st.Connections) })
	export(gauge, "connections_in_use", "Connections that carry a call.", func(st pgstore.Stats) float64 { return float64(st.InUse) })
	export(gauge, "connections_max", "How many connections there may be.", func(st pgstore.Stats) float64 { return float64(st.Max) })
	export(counter, "calls_total", "Round trips to the databases.", func(st pgstore.Stats) float64 { return float64(st.Calls) })
	export(counter, "connection_waits_total", "Calls that found no connection free.", func(st pgstore.Stats) float64 { return float64(st.Waits) })
	export(counter, "connection_wait_seconds_total", "How long these calls waited.", func(st pgstore.Stats) float64 { return st.Waited.Seconds() })
	return &openedStore{Store: p, err: func() error { return nil }, ready: p.Ping, fit: p.Err, meta: p.Meta}, nil
}
