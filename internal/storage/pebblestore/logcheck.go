package pebblestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log that can't be read to its end is either torn by a crash, which loses
// nothing that was answered, or damaged, which does. Pebble tells them apart by
// the synced offsets in its log, but (2.1.7) leaves out what was written in
// full blocks when it counts them. So after large groups damage passes for a
// torn end, and answered commits would vanish without a word.
//
// Therefore each group begins with a mark: a log entry, not a row, that says up
// to where this log had been synced when the group was made. The failFS knows.
// Before Pebble opens the directory, checkLog reads the newest log as far as it
// can be read, looks for marks in all of it, those behind an unreadable stretch
// included, and refuses if one says that more had been synced.
//
// The last group has no mark behind it: damage there passes for a torn end.

// The mark as it stands in a record: a record's header, the kind and the length
// of a log entry, and markMagic, the log's number and the synced offset.
const (
	markMagic     = "hubbub\x00\x01"
	markLen       = len(markMagic) + 16
	recordHeader  = 12
	kindLogEntry  = 3
	markInRecord  = recordHeader + 2 // where markMagic is
	markRecordLen = markInRecord + markLen
)

// Pebble's log is a sequence of blocks, a block one of chunks: checksum (4
// bytes), length (2), encoding (1), low bits of the log's number (4), and in the
// newer encodings the synced offset (8).
const (
	logBlock         = 32 << 10
	chunkHeader      = 11
	chunkHeaderSync  = 19
	encodingFull     = 5 // first of four without synced offset: full, first, middle, last
	encodingSyncFull = 9
	encodings        = 4
)

// syncedLog tracks how far the current log has been synced.
type syncedLog struct{ current atomic.Pointer[logFile] }

type logFile struct {
	num     uint64
	written int64 // only touched by the writes and syncs, which come one by one
	synced  atomic.Int64
}

// begin makes the file of that name the current log, if it is one.
func (s *syncedLog) begin(name string) *logFile {
	num, ok := logNumber(name)
	if !ok {
		return nil
	}
	l := &logFile{num: num}
	s.current.Store(l)
	return l
}

func logNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(filepath.Base(name), ".log")
	if !ok {
		return 0, false
	}
	num, err := strconv.ParseUint(digits, 10, 64)
	return num, err == nil
}

// mark appends the mark of the present moment.
func (s *syncedLog) mark(dst []byte) []byte {
	dst = append(dst, markMagic...)
	l := s.current.Load()
	if l == nil { // cannot be after Open; says nothing
		l = &logFile{}
	}
	dst = binary.BigEndian.AppendUint64(dst, l.num)
	return binary.BigEndian.AppendUint64(dst, uint64(l.synced.Load()))
}

// checkLog checks the newest log of a directory. The logs before it were closed
// in order, and Pebble insists on their ends.
func checkLog(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	newest, name := uint64(0), ""
	for _, n := range names {
		if num, ok := logNumber(n); ok && num >= newest {
			newest, name = num, fsys.PathJoin(dir, n)
		}
	}
	if name == "" {
		return nil
	}
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	readable, synced, err := scanLog(f, newest)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if synced > readable {
		return fmt.Errorf("%w: log %s can be read up to byte %d, but %d were synced", ErrDamaged, name, readable, synced)
	}
	return nil
}

// scanLog returns the offset up to which a log can be read without a gap, and
// the highest synced offset in any mark.
func scanLog(r io.Reader, num uint64) (readable, synced int64, err error) {
	buf := make([]byte, logBlock)
	for offset, gap := int64(0), false; ; offset += logBlock {
		n, err := io.ReadFull(r, buf)
		if errors.Is(err, io.EOF) {
			return readable, synced, nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, 0, err
		}
		end := scanBlock(buf[:n], num, &synced)
		if !gap {
			readable = offset + int64(end)
		}
		gap = gap || end < n
	}
}

// scanBlock returns the offset of the first bytes in the block that are neither a
// chunk of the log nor the padding at its end.
func scanBlock(b []byte, num uint64, synced *int64) int {
	findMarks(b, num, synced)
	at := 0
	for {
		size, ok := parseChunk(b[at:], uint32(num))
		if !ok {
			break
		}
		at += size
	}
	if len(b) == logBlock && logBlock-at < chunkHeaderSync && len(bytes.Trim(b[at:], "\x00")) == 0 {
		return len(b)
	}
	return at
}

// findMarks raises synced to the highest offset in any mark of the block that is
// where it should be in a chunk with a good checksum.
func findMarks(b []byte, num uint64, synced *int64) {
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte(markMagic))
		if i < 0 {
			return
		}
		at += i
		for _, header := range []int{chunkHeader, chunkHeaderSync} {
			record := at - markInRecord
			if record < header {
				continue
			}
			if size, ok := parseChunk(b[record-header:], uint32(num)); ok {
				*synced = max(*synced, markedOffset(b[record:record-header+size], num))
			}
		}
	}
}

// parseChunk returns the size of the chunk at the beginning of b.
func parseChunk(b []byte, num uint32) (size int, ok bool) {
	if len(b) < chunkHeader {
		return 0, false
	}
	switch encoding := b[6]; {
	case encoding >= encodingFull && encoding < encodingFull+encodings:
		size = chunkHeader
	case encoding >= encodingSyncFull && encoding < encodingSyncFull+encodings:
		size = chunkHeaderSync
	default:
		return 0, false
	}
	size += int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) || binary.LittleEndian.Uint32(b[7:]) != num {
		return 0, false
	}
	sum := crc32.Checksum(b[6:size], crc32.MakeTable(crc32.Castagnoli))
	masked := (sum>>15 | sum<<17) + 0xa282ead8
	return size, masked == binary.LittleEndian.Uint32(b)
}

// markedOffset returns what the mark at the beginning of a record says about
// this log, 0 if there is none.
func markedOffset(record []byte, num uint64) int64 {
	if len(record) < markRecordLen || record[recordHeader] != kindLogEntry || int(record[recordHeader+1]) != markLen {
		return 0
	}
	m := record[markInRecord:markRecordLen]
	if string(m[:len(markMagic)]) != markMagic || binary.BigEndian.Uint64(m[len(markMagic):]) != num {
		return 0
	}
	return int64(binary.BigEndian.Uint64(m[len(markMagic)+8:]))
}
