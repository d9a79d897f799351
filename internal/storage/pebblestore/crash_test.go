package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

func openOn(t *testing.T, fs vfs.FS) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open("data", pebblestore.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: smallTables})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *pebblestore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestCrash takes images of the disk while commits run, each with an arbitrary
// part of what was not synced, and opens them.
func TestCrash(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := seeded(t, seed)
			fs := vfs.NewCrashableMem()
			s := openOn(t, fs)
			w := newWorkload(t, s)
			type image struct {
				fs   *vfs.MemFS
				want state
			}
			var images []image
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				defer close(stop)
				next := int64(0)
				for range 8 {
					for next += r.Int64N(60); w.parts[0].acked.Load() < next; {
						if err := s.Err(); err != nil {
							t.Error(err)
							return
						}
						time.Sleep(10 * time.Microsecond) // lets them commit; the outcome does not rest on it
					}
					before := w.promises()
					clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(3) * 50, RNG: r})
					images = append(images, image{clone, w.attempts(before)})
				}
			})
			if err := w.run(stop); err != nil {
				t.Error(err)
			}
			wg.Wait()
			mustClose(t, s)
			for _, i := range images {
				again := openOn(t, i.fs)
				w.check(t, again, i.want)
				mustClose(t, again)
			}
		})
	}
}

// fault fails operations on files, from the nth that match.
type fault struct {
	file  string // glob of the base name
	kinds []errorfs.OpKind
	after int64
	once  bool
	err   error

	armed atomic.Bool
	seen  atomic.Int64
}

func (f *fault) String() string { return fmt.Sprintf("%s %v", f.file, f.kinds) }

func (f *fault) MaybeError(op errorfs.Op) error {
	if !f.armed.Load() {
		return nil
	}
	match := false
	for _, k := range f.kinds {
		match = match || op.Kind == k
	}
	if ok, _ := filepath.Match(f.file, filepath.Base(op.Path)); !ok || !match {
		return nil
	}
	n := f.seen.Add(1)
	if n <= f.after || f.once && n > f.after+1 {
		return nil
	}
	return f.err
}

// faultFS is errorfs without its gap: there, the files of reused logs are beyond
// the reach of the faults. It makes new files instead of reusing old ones.
type faultFS struct{ *errorfs.FS }

func withFaults(fs vfs.FS, i errorfs.Injector) vfs.FS { return faultFS{errorfs.Wrap(fs, i)} }

func (f faultFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.Remove(oldname); err != nil {
		return nil, err
	}
	return f.Create(newname, c)
}

// TestDiskFaults runs commits into a disk that begins to fail. The store has to
// refuse from then on, and nothing that it answered or showed may be lost.
func TestDiskFaults(t *testing.T) {
	sync := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData}
	write := []errorfs.OpKind{errorfs.OpFileWrite}
	create := []errorfs.OpKind{errorfs.OpCreate, errorfs.OpReuseForWrite}
	tests := map[string]*fault{
		"LogSync":        {file: "*.log", kinds: sync, err: syscall.EIO},
		"LogSyncLater":   {file: "*.log", kinds: sync, after: 300, err: syscall.EIO},
		"LogSyncOnce":    {file: "*.log", kinds: sync, after: 50, once: true, err: syscall.EIO},
		"LogFull":        {file: "*.log", kinds: write, after: 100, err: syscall.ENOSPC},
		"LogFullOnce":    {file: "*.log", kinds: write, after: 100, once: true, err: syscall.ENOSPC},
		"NewLog":         {file: "*.log", kinds: create, after: 2, err: syscall.ENOSPC},
		"ManifestSync":   {file: "MANIFEST-*", kinds: sync, after: 1, err: syscall.EIO},
		"ManifestWrite":  {file: "MANIFEST-*", kinds: write, after: 2, once: true, err: syscall.ENOSPC},
		"DirectorySync":  {file: "data", kinds: sync, after: 1, err: syscall.EIO},
		"TablesFull":     {file: "*.sst", kinds: create, after: 3, err: syscall.ENOSPC},
		"TablesFullLate": {file: "*.sst", kinds: write, after: 40, err: syscall.ENOSPC},
		"All":            {file: "*", kinds: append(append(write, sync...), create...), after: 400, err: syscall.EIO},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			s := openOn(t, withFaults(mem, f))
			w := newWorkload(t, s)
			f.armed.Store(true)
			err := w.run(nil)
			if !errors.Is(err, pebblestore.ErrFailed) || !errors.Is(err, f.err) {
				t.Fatalf("commits ended with %v, want a failure for %v", err, f.err)
			}
			want := w.attempts(w.promises())
			checkFailed(t, s, w, f.err)
			// The machine restarts with a disk that works.
			for _, unsynced := range []int{0, 100, 50} {
				again := openOn(t, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: seeded(t, 1)}))
				w.check(t, again, want)
				mustClose(t, again)
			}
		})
	}
}

// checkFailed checks that a failed store refuses, at once and for good, that it
// can still be read, and that nobody can open its directory beside it.
func checkFailed(t *testing.T, s *pebblestore.Store, w *workload, cause error) {
	t.Helper()
	<-s.Failed()
	if !errors.Is(s.Err(), pebblestore.ErrFailed) || !errors.Is(s.Err(), cause) {
		t.Errorf("Err() is %v, want it to name %v", s.Err(), cause)
	}
	for _, p := range w.parts {
		if err := w.commit(context.Background(), p); !errors.Is(err, pebblestore.ErrFailed) {
			t.Errorf("commit after the failure: %v", err)
		}
		if err := w.read(p); err != nil {
			t.Errorf("read after the failure: %v", err)
		}
		if p.seen.Load() < p.acked.Load() {
			t.Errorf("partition %d shows batch %d, %d was answered", p.id, p.seen.Load(), p.acked.Load())
		}
	}
	if _, err := s.Acquire(context.Background(), 0, "workload", time.Hour); !errors.Is(err, pebblestore.ErrFailed) {
		t.Errorf("acquire after the failure: %v", err)
	}
	s.Metrics() // returns
	if err := s.Close(); !errors.Is(err, pebblestore.ErrFailed) {
		t.Errorf("close after the failure: %v", err)
	}
	if err := w.commit(context.Background(), w.parts[0]); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
}

// TestFaultThatPasses has single table writes fail: nothing is lost, Pebble
// tries again, and the store goes on.
func TestFaultThatPasses(t *testing.T) {
	f := &fault{file: "*.sst", kinds: []errorfs.OpKind{errorfs.OpFileWrite}, after: 5, once: true, err: syscall.ENOSPC}
	mem := vfs.NewCrashableMem()
	s := openOn(t, withFaults(mem, f))
	w := newWorkload(t, s)
	f.armed.Store(true)
	for w.parts[0].acked.Load() < 500 {
		for _, p := range w.parts {
			if err := w.commit(context.Background(), p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Stats().BackgroundErrors == 0 {
		t.Error("the fault was not counted, or did not happen")
	}
	mustClose(t, s)
	again := openOn(t, mem)
	w.check(t, again, w.attempts(w.promises()))
	mustClose(t, again)
}

// TestOpenOnBadDisk: an Open that fails says so, whatever fails, and a later one
// works.
func TestOpenOnBadDisk(t *testing.T) {
	for _, file := range []string{"*.log", "MANIFEST-*", "*.sst", "marker.*", "LOCK"} {
		t.Run(strings.Trim(file, "*.-"), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			first := openOn(t, mem)
			w := newWorkload(t, first)
			for range 20 {
				if err := w.commit(context.Background(), w.parts[0]); err != nil {
					t.Fatal(err)
				}
			}
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			mustClose(t, first)
			f := &fault{
				file: file, err: syscall.ENOSPC,
				kinds: []errorfs.OpKind{errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpLock},
			}
			f.armed.Store(true)
			_, err := pebblestore.Open("data", pebblestore.Options{FS: withFaults(crashed, f), MemTableBytes: smallTables})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("open: %v, want %v", err, syscall.ENOSPC)
			}
			again := openOn(t, crashed.CrashClone(vfs.CrashCloneCfg{}))
			w.check(t, again, w.attempts(w.promises()))
			mustClose(t, again)
		})
	}
}

// gate holds the syncs of the log until it is opened.
type gate struct {
	held    atomic.Bool
	reached chan struct{} // one value per sync that is held
	open    chan struct{}
}

func (g *gate) String() string { return "gate" }

func (g *gate) MaybeError(op errorfs.Op) error {
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
	if sync && strings.HasSuffix(op.Path, ".log") && g.held.Load() {
		g.reached <- struct{}{}
		<-g.open
	}
	return nil
}

// TestReadsSeeOnlyDurable holds the fsync of a commit: until it is over, nobody
// may see the rows, and the caller can give up.
func TestReadsSeeOnlyDurable(t *testing.T) {
	g := &gate{reached: make(chan struct{}, 10), open: make(chan struct{})}
	s := openOn(t, withFaults(vfs.NewMem(), g))
	ctx := context.Background()
	l, err := s.Acquire(ctx, 1, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k := storage.Key{Partition: 1, Table: 1, Entity: "e"}
	put := func(ctx context.Context, v string) error {
		return s.Commit(ctx, 1, l.Epoch, &storage.Batch{Ops: []storage.Op{{Kind: storage.OpPut, Key: k, Value: []byte(v)}}})
	}
	value := func() string {
		values, err := s.Get(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.Scan(ctx, storage.Range{Partition: 1, Table: 1, Entity: "e", Limit: 1})
		if err != nil || len(rows) > 0 != (values[0] != nil) || len(rows) > 0 && string(rows[0].Value) != string(values[0]) {
			t.Fatalf("scan gave %v, get %q: %v", rows, values[0], err)
		}
		return string(values[0])
	}
	if err := put(ctx, "old"); err != nil {
		t.Fatal(err)
	}
	g.held.Store(true)
	impatient, giveUp := context.WithCancel(ctx)
	answers := make(chan error, 2)
	go func() { answers <- put(impatient, "new") }()
	<-g.reached // it is applied and on its way to the disk
	if v := value(); v != "old" {
		t.Errorf("a reader saw %q before it was durable", v)
	}
	giveUp()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Errorf("commit with an ended context: %v", err)
	}
	go func() { answers <- put(ctx, "newer") }()
	if v := value(); v != "old" {
		t.Errorf("a reader saw %q before it was durable", v)
	}
	g.held.Store(false)
	close(g.open)
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if v := value(); v != "newer" {
		t.Errorf("after the answer a reader saw %q", v)
	}
	mustClose(t, s)
}

// TestStats counts a fenced commit and groups.
func TestStats(t *testing.T) {
	s := openOn(t, vfs.NewMem())
	w := newWorkload(t, s)
	for range 10 {
		if err := w.commit(context.Background(), w.parts[0]); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Commit(context.Background(), 0, ids.Epoch(99), &storage.Batch{})
	if !errors.Is(err, storage.ErrFenced) {
		t.Error(err)
	}
	if st := s.Stats(); st.Commits != 10 || st.Fenced != 1 || st.Groups < 10 {
		t.Errorf("stats %+v", st)
	}
	if m := s.Metrics(); m == nil || m.WAL.BytesIn == 0 {
		t.Error("metrics are empty")
	}
	mustClose(t, s)
	if s.Metrics() != nil || s.CacheBytes() != 0 {
		t.Error("metrics after close")
	}
}
