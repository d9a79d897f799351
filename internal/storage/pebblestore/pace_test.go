package pebblestore

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Pauses shrink while merges fall behind, and end before commits would stall.
func TestPaceFollowsLoad(t *testing.T) {
	for _, c := range []struct {
		memTables, sublevels int
		want                 time.Duration
	}{
		{1, 0, pacePause},
		{paceMemTables, l0Compaction, pacePause},
		{paceMemTables, l0Compaction * 3 / 2, pacePause / 2},
		{paceMemTables, 2 * l0Compaction, 0},
		{paceMemTables, l0Stop, 0},
		{paceMemTables + 1, 0, 0},
	} {
		p := &pacer{load: func() (int, int) { return c.memTables, c.sublevels }}
		if got := p.pause(); got != c.want {
			t.Errorf("%d memtables, %d sublevels: a pause of %v, not %v", c.memTables, c.sublevels, got, c.want)
		}
	}
	if memTables < paceMemTables+2 || l0Stop < 4*l0Compaction {
		t.Error("commits may stall while there are pauses")
	}
}

// Each step of a table has its pause, and there is none once the store closes.
func TestPaceSteps(t *testing.T) {
	var slept []time.Duration
	p := &pacer{load: func() (int, int) { return 1, 0 }, sleep: func(d time.Duration) { slept = append(slept, d) }}
	table := p.begin()
	for range 4 {
		table.wrote(paceStep / 2)
	}
	table.wrote(3 * paceStep)
	if len(slept) != 3 || slept[0] != pacePause {
		t.Errorf("slept %v", slept)
	}
	p.off.Store(true)
	table.wrote(paceStep)
	if len(slept) != 3 {
		t.Error("slept while the store closes")
	}
	var log *pace
	log.wrote(paceStep) // what is no table
}

// What a store writes in the background is paced, and what commits wait for is not.
func TestTablesArePaced(t *testing.T) {
	s, err := Open("data", Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 512 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	asked, slept := make(chan struct{}, 100), make(chan struct{}, 1000)
	s.pacer.load = func() (int, int) { asked <- struct{}{}; return 1, 0 }
	s.pacer.sleep = func(time.Duration) { slept <- struct{}{} }
	lease, err := s.Acquire(t.Context(), 1, "node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 8*paceStep) // of what cannot be compressed
	_, _ = rand.NewChaCha8([32]byte{}).Read(value)
	b := &storage.Batch{}
	b.Put(storage.Key{Partition: 1, Table: 1, Entity: "e", Sort: "k"}, value)
	if err := s.Commit(t.Context(), 1, lease.Epoch, b); err != nil {
		t.Fatal(err)
	}
	if len(slept) > 0 {
		t.Error("a commit waited")
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(asked) == 0 || len(slept) == 0 {
		t.Errorf("a table was begun with %d looks at the load and written with %d pauses", len(asked), len(slept))
	}
}
