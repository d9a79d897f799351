package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// DefaultCacheBytes is the size of the cache of uncompressed blocks. Bloom
	// filters live in it too, at 10 bits a row.
	DefaultCacheBytes = 256 << 20
	// DefaultMemTableBytes is the size at which rows in memory are written out.
	// Pebble starts with small ones and doubles them, so that an idle server
	// does not hold this much. Larger ones write a little less in all, and more at
	// a time, for which commits that come meanwhile wait.
	DefaultMemTableBytes = 16 << 20

	// memTables is how many of them may wait for the disk before commits stall.
	memTables = 4
	// l0Compaction and l0Stop are numbers of sublevels: at the first the topmost
	// level is merged down, at the second commits stall. The distance lets a
	// burst pass without a stall. A merge writes the level below anew, since
	// rooms lie anywhere in it; so the more sublevels go down together, the less is
	// written for each row: with 4 it was 3.4 times what commits brought, and with 12
	// it is 2.3 times, as with 20. A read asks each sublevel's filter.
	l0Compaction = 12
	l0Stop       = 200
	// bloomBits a row give about one false positive in a hundred.
	bloomBits = 10
	// blockBytes trades the size of the index against the bytes read for a row.
	blockBytes = 16 << 10
	// slowDisk is the time after which one disk operation is logged as slow.
	slowDisk = 5 * time.Second
	// maxFlushFailures in a row fail the store: the rows cannot be written out,
	// the log grows, and soon commits would hang instead of being refused.
	maxFlushFailures = 5
	// pebbleFormat is pinned, so that an update of the library does not rewrite
	// data that the version before could read. It includes the sync offsets in
	// the log that tell a damaged log from a torn one.
	pebbleFormat = pebble.FormatTableFormatV6
)

// Options of a store. The zero value is good.
type Options struct {
	// Clock decides when leases expire; nil is the machine's.
	Clock clock.Clock
	// FS holds the directory; nil is the disk.
	FS vfs.FS
	// CacheBytes and MemTableBytes replace the defaults if they are not 0.
	CacheBytes    int64
	MemTableBytes uint64
	// Logger gets failures and what Pebble has to say; nil discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// pebbleOptions translates the options. The closer belongs to the file system
// it made; it is nil if the caller gave one.
func (s *Store) pebbleOptions(o Options) (*pebble.Options, io.Closer) {
	fsys, closer := o.FS, io.Closer(nil)
	if fsys == nil {
		fsys, closer = vfs.WithDiskHealthChecks(vfs.Default, slowDisk, nil, func(i vfs.DiskSlowInfo) {
			s.counters.slowDisk.Add(1)
			o.Logger.Warn("slow disk", "operation", i.String())
		})
	}
	s.pacer = &pacer{load: s.behind, sleep: time.Sleep}
	s.spare = newSpareLog(fsys, s.dir, logBytes(o.MemTableBytes), s.failure)
	po := &pebble.Options{
		FS:                          &failFS{FS: fsys, dir: s.dir, failure: s.failure, log: s.log, spare: s.spare, pacer: s.pacer},
		CacheSize:                   o.CacheBytes,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       l0Compaction,
		L0StopWritesThreshold:       l0Stop,
		FormatMajorVersion:          pebbleFormat,
		Logger:                      pebbleLogger{log: o.Logger, failure: s.failure},
		EventListener:               s.listener(o.Logger),
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
	}
	// Reads that schedule compactions would wait for the manifest.
	po.Experimental.ReadSamplingMultiplier = -1
	for i := range po.Levels {
		// The whole key is in the filter (the default comparer does not split),
		// since the hot miss is one absent row of an entity that has others.
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		po.Levels[i].FilterType = pebble.TableFilter
		po.Levels[i].BlockSize = blockBytes
		// Where there is assembler for it, MinLZ: the default, Snappy, was 4 % of a send.
		po.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.FastestCompression }
	}
	return po, closer
}

// logBytes is how long Pebble makes a log for a memtable of a size: its rows take
// less in a log, and the last batch comes on top.
func logBytes(memTable uint64) int64 { return int64(memTable + memTable/10) }

// prepareDir makes the directory, private to its user and durable, and returns
// its one true name: a lock on another spelling of the path would not be seen.
func prepareDir(dir string, fsys vfs.FS) (string, error) {
	if fsys != nil {
		return dir, makeDir(fsys, dir)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir, err
	}
	if err := makeDir(vfs.Default, abs); err != nil {
		return dir, err
	}
	return filepath.EvalSymlinks(abs)
}

func makeDir(fsys vfs.FS, dir string) error {
	_, err := fsys.Stat(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d, err := fsys.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockError tells a lock that is held from one that could not be tried: a
// failure to create the lock file names a path, a refused lock does not.
func lockError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return err
	}
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) ||
		strings.Contains(err.Error(), "held by current process") {
		return fmt.Errorf("%w by another running hubbub, or twice by this one: %w", storage.ErrInUse, err)
	}
	return err
}
