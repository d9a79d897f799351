package pebblestore

import (
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// counters are written by the loops and by Pebble's event callbacks, which may
// not call back into Pebble.
type counters struct {
	commits          atomic.Uint64
	groups           atomic.Uint64
	fenced           atomic.Uint64
	slowDisk         atomic.Uint64
	backgroundErrors atomic.Uint64
	corruptions      atomic.Uint64
	stalls           atomic.Uint64
	flushFailures    atomic.Int32 // in a row
}

// Stats are numbers for monitoring, counted since Open.
type Stats struct {
	// Commits is how many were applied, Groups the number of writes that took.
	Commits, Groups uint64
	// Fenced is how many commits had an old epoch.
	Fenced uint64
	// SlowDisk counts disk operations that took longer than 5 seconds.
	SlowDisk uint64
	// BackgroundErrors counts failed flushes and compactions, Corruptions the
	// damaged blocks that were met, Stalls the times commits had to wait for a
	// flush or a compaction.
	BackgroundErrors, Corruptions, Stalls uint64
}

// Stats returns the store's own counters.
func (s *Store) Stats() Stats {
	c := s.counters
	return Stats{
		Commits:          c.commits.Load(),
		Groups:           c.groups.Load(),
		Fenced:           c.fenced.Load(),
		SlowDisk:         c.slowDisk.Load(),
		BackgroundErrors: c.backgroundErrors.Load(),
		Corruptions:      c.corruptions.Load(),
		Stalls:           c.stalls.Load(),
	}
}

// Metrics returns Pebble's own numbers, nil after Close or a failure.
func (s *Store) Metrics() *pebble.Metrics {
	s.calls.RLock()
	defer s.calls.RUnlock()
	if s.calls.closed {
		return nil
	}
	// Pebble waits here for a write to the manifest, which may have been parked.
	metrics := make(chan *pebble.Metrics, 1)
	go func() { metrics <- s.db.Metrics() }()
	select {
	case m := <-metrics:
		return m
	case <-s.failure.done:
		return nil
	}
}

// CacheBytes is what the cache of uncompressed blocks holds, in bytes; 0 after Close or
// a failure.
func (s *Store) CacheBytes() int64 {
	if m := s.Metrics(); m != nil {
		return m.BlockCache.Size
	}
	return 0
}

func (s *Store) listener(log *slog.Logger) *pebble.EventListener {
	c := s.counters
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			c.backgroundErrors.Add(1)
			log.Error("storage background work failed", "error", err)
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			// Reads of the block give an error and the rest of the data is good,
			// so the store goes on.
			c.corruptions.Add(1)
			log.Error("storage corruption", "path", i.Path, "error", i.Details)
		},
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				c.flushFailures.Store(0)
				return
			}
			if c.flushFailures.Add(1) >= maxFlushFailures {
				s.failure.set(i.Err)
			}
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			c.stalls.Add(1)
			log.Warn("storage stalls commits", "reason", i.Reason)
		},
	}
}

// behind is what the pacer wants to know. Pebble's own background work asks, which ends
// before Pebble closes.
func (s *Store) behind() (memTables, sublevels int) {
	m := s.db.Metrics()
	return int(m.MemTable.Count), int(m.Levels[0].Sublevels)
}
