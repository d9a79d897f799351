package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// fillLogs commits until the store has begun a number of logs.
func fillLogs(t *testing.T, s *Store, epoch ids.Epoch, n uint64) {
	t.Helper()
	first := s.log.current.Load().num
	for i := uint64(0); s.log.current.Load().num < first+n; i++ {
		if i > 10000 {
			t.Fatal("no new log came")
		}
		b := &storage.Batch{}
		key := binary.BigEndian.AppendUint64(nil, i)
		b.Put(storage.Key{Partition: 1, Table: 1, Entity: "e", Sort: string(key)}, bytes.Repeat(key, 1<<9))
		if err := s.Commit(t.Context(), 1, epoch, b); err != nil {
			t.Fatal(err)
		}
	}
}

// logSizes are the sizes of the logs in a directory.
func logSizes(t *testing.T, fs vfs.FS) (sizes []int64) {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !strings.HasSuffix(n, ".log") {
			continue
		}
		info, err := fs.Stat("data/" + n)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	return sizes
}

// A log that comes after the first is a file that was written before, in full; what
// is in it survives a crash, and the zeros behind it pass for no damage.
func TestSpareLogs(t *testing.T) {
	fs := vfs.NewCrashableMem()
	opts := Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 512 << 10}
	whole := logBytes(opts.MemTableBytes)
	s, err := Open("data", opts)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Acquire(t.Context(), 1, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	fillLogs(t, s, lease.Epoch, 1)
	s.spare.writing.Wait()
	if info, err := fs.Stat("data/" + spareName); err != nil || info.Size() != whole {
		t.Fatalf("the spare file: %v, %v", info, err)
	}
	fillLogs(t, s, lease.Epoch, 1)
	key := storage.Key{Partition: 1, Table: 2, Entity: "last"}
	b := &storage.Batch{}
	b.Put(key, []byte("x"))
	if err := s.Commit(t.Context(), 1, lease.Epoch, b); err != nil {
		t.Fatal(err)
	}
	if sizes := logSizes(t, fs); !slices.Contains(sizes, whole) {
		t.Fatalf("logs of %d bytes, want one of %d", sizes, whole)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	opts.FS = crashed
	again, err := Open("data", opts)
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Get(context.Background(), key)
	if err != nil || len(got) != 1 || string(got[0]) != "x" {
		t.Fatalf("after the crash: %q, %v", got, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// A spare file that was left whole is used by the next process, one that was not
// is written anew; and one that cannot be written is missed by nobody.
func TestSpareLogLeft(t *testing.T) {
	fs := vfs.NewMem()
	open := func(size int64) *spareLog { return newSpareLog(fs, "", size, newFailure(nil)) }
	s := open(3 * spareStep / 2)
	if f := s.take("1.log", vfs.WriteCategoryUnspecified); f != nil {
		t.Fatal("took a file that is not there")
	}
	s.prepare()
	s.writing.Wait()
	s.close()
	if f := open(2*spareStep).take("1.log", vfs.WriteCategoryUnspecified); f != nil {
		t.Fatal("took a file of another size")
	}
	s = open(3 * spareStep / 2)
	f := s.take("1.log", vfs.WriteCategoryUnspecified)
	if f == nil {
		t.Fatal("did not take the file that was left")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := fs.Stat("1.log"); err != nil || info.Size() != 3*spareStep/2 {
		t.Fatalf("the log: %v, %v", info, err)
	}
	close(s.stop)
	s.prepare()
	s.writing.Wait()
	if f := s.take("2.log", vfs.WriteCategoryUnspecified); f != nil {
		t.Fatal("took a file that was not written in full")
	}
}
