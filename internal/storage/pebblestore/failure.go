package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrFailed is wrapped by every error of a store that has failed, and by
// nothing else.
var ErrFailed = errors.New("pebblestore: the disk failed a write; restart to recover")

// failure is the store's one-way switch from working to failed.
//
// After a failed fsync nobody knows what is on the disk, and a later fsync that
// succeeds says nothing about the pages of the one before. So the first failure
// is final; what is certain is found out by replaying the log in a new process.
//
// Pebble takes the same view, but drastically: it calls Fatalf, or panics with
// its locks held. hubbub wants its callers answered and its exit orderly. So
// failFS catches the error below Pebble, trips the switch, which answers all
// callers, and parks Pebble's goroutine for good before it learns of the error.
// Pebble never does file operations under the locks that reads need.
//
// Parked goroutines stay until the process ends, as they must: nothing may
// touch the directory any more. The cost is that a failed store can't be closed.
type failure struct {
	log   *slog.Logger
	done  chan struct{} // closed by set
	once  sync.Once
	err   error       // written before done is closed
	armed atomic.Bool // false while opening, when errors are returned instead
}

func newFailure(log *slog.Logger) *failure {
	return &failure{log: log, done: make(chan struct{})}
}

func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = fmt.Errorf("%w: %w", ErrFailed, err)
		f.log.Error("storage failed", "error", err)
		close(f.done)
	})
}

// Err returns the failure, nil if there is none.
func (f *failure) Err() error {
	select {
	case <-f.done:
		return f.err
	default:
		return nil
	}
}

func (f *failure) arm() { f.armed.Store(true) }

// park never returns.
func (f *failure) park() { select {} }

// parkIfFailed keeps writes that were under way from going on.
func (f *failure) parkIfFailed() {
	if f.Err() != nil {
		f.park()
	}
}

// check handles the result of a write operation on a file.
func (f *failure) check(critical bool, op, name string, err error) error {
	if err == nil || !critical || !f.armed.Load() {
		return err
	}
	f.set(fmt.Errorf("%s %s: %w", op, name, err))
	f.park()
	return err
}

// critical says whether a failed write to the file leaves Pebble in doubt: the
// log, the manifest and the markers that name it. Failed table files are thrown
// away and written again.
func critical(base string) bool {
	return strings.HasSuffix(base, ".log") || strings.HasPrefix(base, "MANIFEST-") ||
		strings.HasPrefix(base, "marker.")
}

// failFS is a file system whose failed writes trip a failure, and which keeps
// account of what was synced of the log.
//
// Only the files of the store count. A checkpoint writes files of the same names
// elsewhere, and what fails there fails the checkpoint alone.
type failFS struct {
	vfs.FS
	dir     string
	failure *failure
	log     *syncedLog
	spare   *spareLog
	pacer   *pacer
}

var (
	_ vfs.FS   = (*failFS)(nil)
	_ vfs.File = (*failFile)(nil)
)

// inside says whether a file is one of the store's.
func (f *failFS) inside(name string) bool {
	return f.PathDir(name) == f.PathDir(f.PathJoin(f.dir, "x"))
}

func (f *failFS) critical(name string) bool { return critical(f.PathBase(name)) && f.inside(name) }

func (f *failFS) wrap(file vfs.File, name string) vfs.File {
	if file == nil {
		return nil
	}
	out := &failFile{File: file, fs: f, name: name, critical: f.critical(name)}
	if f.inside(name) {
		out.log = f.log.begin(name)
		if isTable(f.PathBase(name)) && f.failure.armed.Load() {
			out.pace = f.pacer.begin()
		}
	}
	return out
}

// Create implements vfs.FS.
func (f *failFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.failure.parkIfFailed()
	if _, ok := logNumber(name); ok && f.inside(name) {
		if f.failure.armed.Load() { // an open store that fills its logs
			defer f.spare.prepare()
		}
		if file := f.spare.take(name, c); file != nil {
			return f.wrap(file, name), nil
		}
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(file, name), f.failure.check(f.critical(name), "create", name, err)
}

// OpenReadWrite implements vfs.FS.
func (f *failFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f.failure.parkIfFailed()
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(file, name), f.failure.check(f.critical(name), "open", name, err)
}

// OpenDir implements vfs.FS. A failed sync of the directory leaves in doubt
// whether a new log has a name.
func (f *failFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &failFile{File: file, fs: f, name: name, critical: f.inside(f.PathJoin(name, "x"))}, nil
}

// ReuseForWrite implements vfs.FS.
func (f *failFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.failure.parkIfFailed()
	if f.spare.short(oldname) {
		defer f.spare.prepare()
		if file := f.spare.take(newname, c); file != nil {
			return f.wrap(file, newname), f.failure.check(true, "remove", oldname, f.FS.Remove(oldname))
		}
	}
	file, err := f.FS.ReuseForWrite(oldname, newname, c)
	return f.wrap(file, newname), f.failure.check(f.critical(newname), "reuse", newname, err)
}

// Link implements vfs.FS.
func (f *failFS) Link(oldname, newname string) error {
	f.failure.parkIfFailed()
	return f.failure.check(f.critical(newname), "link", newname, f.FS.Link(oldname, newname))
}

// Rename implements vfs.FS.
func (f *failFS) Rename(oldname, newname string) error {
	f.failure.parkIfFailed()
	return f.failure.check(f.critical(newname), "rename", newname, f.FS.Rename(oldname, newname))
}

// Remove implements vfs.FS. A file that could not be removed does no harm.
func (f *failFS) Remove(name string) error {
	f.failure.parkIfFailed()
	return f.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (f *failFS) RemoveAll(name string) error {
	f.failure.parkIfFailed()
	return f.FS.RemoveAll(name)
}

// Unwrap implements vfs.FS.
func (f *failFS) Unwrap() vfs.FS { return f.FS }

type failFile struct {
	vfs.File
	fs       *failFS
	name     string
	critical bool
	log      *logFile // nil if it is not a log
	pace     *pace    // nil if it is not a table that is written in the background
}

func (f *failFile) check(op string, err error) error {
	return f.fs.failure.check(f.critical, op, f.name, err)
}

// Write implements vfs.File.
func (f *failFile) Write(p []byte) (int, error) {
	f.fs.failure.parkIfFailed()
	n, err := f.File.Write(p)
	if f.log != nil {
		f.log.written += int64(n)
	}
	f.pace.wrote(n)
	return n, f.check("write", err)
}

// synced takes account of a sync of everything that was written.
func (f *failFile) synced(err error) error {
	if f.log != nil && err == nil {
		f.log.synced.Store(f.log.written)
	}
	return f.check("sync", err)
}

// WriteAt implements vfs.File.
func (f *failFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.failure.parkIfFailed()
	n, err := f.File.WriteAt(p, off)
	return n, f.check("write", err)
}

// Sync implements vfs.File.
func (f *failFile) Sync() error {
	f.fs.failure.parkIfFailed()
	return f.synced(f.File.Sync())
}

// SyncData implements vfs.File.
func (f *failFile) SyncData() error {
	f.fs.failure.parkIfFailed()
	return f.synced(f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *failFile) SyncTo(length int64) (bool, error) {
	f.fs.failure.parkIfFailed()
	full, err := f.File.SyncTo(length)
	return full, f.check("sync", err)
}

// Close implements vfs.File. Everything that matters was synced before.
func (f *failFile) Close() error { return f.File.Close() }

// pebbleLogger passes Pebble's messages on. Fatalf is called where Pebble can't
// go on: for broken invariants, since failFS keeps failed writes from it.
type pebbleLogger struct {
	log     *slog.Logger
	failure *failure
}

// Infof implements pebble.Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	l.log.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	fatal := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			fatal.cause = err
		}
	}
	l.failure.set(fatal)
	if l.failure.armed.Load() {
		l.failure.park()
	}
}

// fatalError is a message of Pebble's with the error that it is about.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }
