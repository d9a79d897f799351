package pebblestore_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

// smallTables make flushes and compactions happen within a test.
const smallTables = 64 << 10

func opener(dir func(testing.TB) string, fs func() vfs.FS) func(testing.TB) storagetest.Opened {
	return func(t testing.TB) storagetest.Opened {
		c := clock.NewManual(time.Unix(1_700_000_000, 0))
		path := dir(t)
		opts := pebblestore.Options{Clock: c, FS: fs(), CacheBytes: 1 << 20, MemTableBytes: smallTables}
		var current *pebblestore.Store
		open := func(t testing.TB) storage.Store {
			if current != nil {
				if err := current.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s, err := pebblestore.Open(path, opts)
			if err != nil {
				t.Fatal(err)
			}
			current = s
			return s
		}
		return storagetest.Opened{Store: open(t), Clock: c, Reopen: open}
	}
}

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // failed stores of other tests leave theirs
	t.Run("Disk", func(t *testing.T) {
		storagetest.Run(t, opener(testing.TB.TempDir, func() vfs.FS { return nil }))
	})
	t.Run("Memory", func(t *testing.T) {
		storagetest.Run(t, opener(func(testing.TB) string { return "data" }, func() vfs.FS { return vfs.NewMem() }))
	})
}
