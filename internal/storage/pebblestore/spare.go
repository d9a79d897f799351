package pebblestore

import (
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// spareName is the file that becomes the next log. Pebble knows no such name
	// and leaves it alone.
	spareName = "spare-log"
	// spareStep is how much of it is written at a time, and sparePause the pause
	// behind each: 20 MB/s, which leaves the disk to those who wait for it.
	spareStep  = 256 << 10
	sparePause = 12 * time.Millisecond
)

var errSpareStopped = errors.New("pebblestore: closed")

// spareLog keeps a file at hand that is written already, with zeros, and becomes
// the next log.
//
// The fsync of a log that grows has to write the file's new size and blocks too.
// They go through the file system's journal, which first writes all else that it
// holds: while a memtable is written out, every commit waited for hundreds of
// milliseconds. A log that is written over has only itself to wait for. For that
// reason Pebble uses old logs again, but has none at first, and too short ones for as
// long as its memtables double.
//
// Zeros end a log for those who read it (Pebble, and checkLog), as the rest of an
// older log does in one that is used again.
type spareLog struct {
	fs      vfs.FS
	path    string
	size    int64
	failure *failure

	stop    chan struct{}
	writing sync.WaitGroup

	mu struct {
		sync.Mutex
		ready, busy, closed bool
	}
}

// newSpareLog takes over the file that an earlier process has left, if it is whole.
func newSpareLog(fs vfs.FS, dir string, size int64, f *failure) *spareLog {
	s := &spareLog{fs: fs, path: fs.PathJoin(dir, spareName), size: size, failure: f, stop: make(chan struct{})}
	info, err := fs.Stat(s.path)
	s.mu.ready = err == nil && info.Size() == size
	return s
}

// take makes the spare file the log of a name. It is nil if there is none, or it
// cannot be had; then the log is made as usual.
func (s *spareLog) take(name string, c vfs.DiskWriteCategory) vfs.File {
	s.mu.Lock()
	ready := s.mu.ready
	s.mu.ready = false
	s.mu.Unlock()
	if !ready {
		return nil
	}
	file, err := s.fs.ReuseForWrite(s.path, name, c)
	if err != nil {
		return nil
	}
	return file
}

// short reports whether a log that is to be used again would have to grow.
func (s *spareLog) short(name string) bool {
	info, err := s.fs.Stat(name)
	return err == nil && info.Size() < s.size
}

// prepare begins to write the next spare file, if there is none.
func (s *spareLog) prepare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ready || s.mu.busy || s.mu.closed {
		return
	}
	s.mu.busy = true
	s.writing.Go(func() {
		err := s.write()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.busy, s.mu.ready = false, err == nil
	})
}

// write makes the file. What fails here fails nobody: there is no spare file then.
func (s *spareLog) write() error {
	f, err := s.fs.Create(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := s.fill(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func (s *spareLog) fill(f vfs.File) error {
	zeros := make([]byte, spareStep)
	for left := s.size; left > 0; left -= spareStep {
		if _, err := f.Write(zeros[:min(left, spareStep)]); err != nil {
			return err
		}
		if err := f.SyncData(); err != nil { // little at a time, for those who wait too
			return err
		}
		select {
		case <-time.After(sparePause):
		case <-s.stop:
			return errSpareStopped
		case <-s.failure.done:
			return s.failure.err
		}
	}
	return f.Sync()
}

// close ends the writing. A file that is whole stays for the next process.
func (s *spareLog) close() {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.writing.Wait()
}
