// Package clustertest runs one node for tests of what stands on the engine: all
// partitions, a bus in memory, and the tables and effects that the test names.
package clustertest

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// cacheBytes is little, so that rows go and come back within a test.
const cacheBytes = 1 << 20

// Options say what the node runs.
type Options struct {
	// Count is the number of partitions.
	Count int
	Store storage.Store
	Clock clock.Clock
	// Tables and Effects are those of all packages whose commands are run.
	Tables  []map[storage.Table]partition.TableSpec
	Effects []map[string]partition.EffectHandler
	// CacheBytes bounds the rows kept in memory; 0 stands for little.
	CacheBytes int64
}

// Node is a running node with its bus.
type Node struct {
	*cluster.Node
	Bus bus.Bus
}

// Start runs a node until the test ends. What the test starts upon it, and
// closes by a cleanup of its own, is closed before it.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	b := membus.New()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
	if o.CacheBytes == 0 {
		o.CacheBytes = cacheBytes
	}
	node, err := cluster.Start(context.Background(), cluster.Options{
		Node: "n", Count: o.Count, Store: o.Store, Bus: b, Clock: o.Clock, LeaseTTL: time.Hour,
		Log: slog.New(slog.DiscardHandler), Tables: merge(o.Tables), Effects: merge(o.Effects), CacheBytes: o.CacheBytes,
	})
	if err != nil {
		t.Fatalf("start node: %v", err)
	}
	t.Cleanup(node.Close)
	return &Node{node, b}
}

func merge[K comparable, V any](parts []map[K]V) map[K]V {
	all := make(map[K]V)
	for _, p := range parts {
		maps.Copy(all, p)
	}
	return all
}
