package pebblestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// childEnv makes the test binary open the directory it names and report.
const childEnv = "PEBBLESTORE_TEST_OPEN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		s, err := pebblestore.Open(dir, pebblestore.Options{})
		if errors.Is(err, storage.ErrInUse) {
			fmt.Println("in use:", err)
			os.Exit(0)
		}
		if err == nil {
			err = s.Close()
		}
		fmt.Println("not in use:", err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func openDir(t *testing.T, dir string) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	s := openDir(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory %v, %v, want it private", info.Mode(), err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, dir + "/", link, dir + "/../data"} {
		_, err := pebblestore.Open(d, pebblestore.Options{})
		if !errors.Is(err, storage.ErrInUse) || !strings.Contains(err.Error(), dir) {
			t.Errorf("second open of %s in this process: %v, want it in use and named", d, err)
		}
	}
	child := func() string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("child: %v", err)
		}
		return string(out)
	}
	if out := child(); !strings.HasPrefix(out, "in use:") || !strings.Contains(out, dir) {
		t.Errorf("open by another process: %s", out)
	}
	mustClose(t, s)
	if out := child(); strings.TrimSpace(out) != "not in use: <nil>" {
		t.Errorf("open by another process after close: %s", out)
	}
	mustClose(t, openDir(t, dir))
}

func TestOpenWithoutRights(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := pebblestore.Open(dir, pebblestore.Options{}); err == nil || errors.Is(err, storage.ErrInUse) {
			t.Errorf("open of %s: %v, want another error than in use", dir, err)
		}
	}
}

func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openDir(t, dir))
	db, err := pebble.Open(dir, &pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte("\xff\xfff"), binary.BigEndian.AppendUint64(nil, storage.Format+41), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the refusal leaves nothing behind
		_, err = pebblestore.Open(dir, pebblestore.Options{})
		if !errors.Is(err, storage.ErrNewerFormat) {
			t.Fatalf("open: %v, want it refused", err)
		}
		for _, want := range []string{dir, fmt.Sprint(storage.Format + 41), fmt.Sprint(storage.Format)} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not name %s", err, want)
			}
		}
	}
}

// A store of an earlier version is opened, and is one of this version from then on.
func TestEarlierFormat(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openDir(t, dir))
	format := func(change func(*pebble.DB) error) (n uint64) {
		db, err := pebble.Open(dir, &pebble.Options{})
		if err != nil {
			t.Fatal(err)
		}
		value, closer, err := db.Get([]byte("\xff\xfff"))
		if err != nil {
			t.Fatal(err)
		}
		n = binary.BigEndian.Uint64(value)
		if err := errors.Join(closer.Close(), change(db), db.Close()); err != nil {
			t.Fatal(err)
		}
		return n
	}
	earlier := binary.BigEndian.AppendUint64(nil, storage.Format-1)
	format(func(db *pebble.DB) error { return db.Set([]byte("\xff\xfff"), earlier, pebble.Sync) })
	mustClose(t, openDir(t, dir))
	if n := format(func(*pebble.DB) error { return nil }); n != storage.Format {
		t.Errorf("its format is %d, not %d", n, storage.Format)
	}
}

func TestNewerPebble(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openDir(t, dir))
	markers, err := filepath.Glob(filepath.Join(dir, "marker.format-version.*"))
	if err != nil || len(markers) != 1 {
		t.Fatal(markers, err)
	}
	newer := markers[0][:strings.LastIndexByte(markers[0], '.')] + ".999"
	if err := os.Rename(markers[0], newer); err != nil {
		t.Fatal(err)
	}
	if _, err := pebblestore.Open(dir, pebblestore.Options{}); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("open: %v, want %v", err, storage.ErrNewerFormat)
	}
}

// killed returns the files of a store that was killed after a number of commits
// of about size bytes, all of which are in its log, and the name of the log. The
// first log of a directory is in Pebble's older format.
func killed(t *testing.T, batches, size int, first bool) (map[string][]byte, string) {
	t.Helper()
	dir := t.TempDir()
	if !first {
		mustClose(t, openDir(t, dir))
	}
	s := openDir(t, dir)
	l, err := s.Acquire(context.Background(), 1, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches {
		var b storage.Batch
		for row := range 3 {
			k := storage.Key{Partition: 1, Table: 1, Entity: fmt.Sprintf("%04d", i), Sort: fmt.Sprint(row)}
			b.Put(k, bytes.Repeat([]byte{byte(i)}, size/3))
		}
		if err := s.Commit(context.Background(), 1, l.Epoch, &b); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := ""
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = content
		if strings.HasSuffix(e.Name(), ".log") && len(content) > len(files[log]) {
			log = e.Name()
		}
	}
	mustClose(t, s)
	return files, log
}

// reopen opens a copy of the files with another log and returns how many of the
// batches are there, which have to be the first ones, whole.
func reopen(t *testing.T, files map[string][]byte, log string, content []byte) (int, error) {
	t.Helper()
	dir := t.TempDir()
	for name, c := range files {
		if name == log {
			c = content
		}
		if err := os.WriteFile(filepath.Join(dir, name), c, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		return 0, err
	}
	defer mustClose(t, s)
	rows, err := s.ScanPartition(context.Background(), storage.Key{Partition: 1}, storage.MaxScan)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if r.Key.Entity != fmt.Sprintf("%04d", i/3) || r.Key.Sort != fmt.Sprint(i%3) {
			t.Fatalf("row %d is %+v: batches are missing before others", i, r.Key)
		}
	}
	if len(rows)%3 != 0 {
		t.Fatalf("%d rows: a batch is there in part", len(rows))
	}
	return len(rows) / 3, nil
}

// TestLogCutShort: an end that is missing, as after a crash, was not synced. The
// store opens with what is before it.
func TestLogCutShort(t *testing.T) {
	const logBatches = 300
	files, log := killed(t, logBatches, 600, false)
	content := files[log]
	if n, err := reopen(t, files, log, content); n != logBatches || err != nil {
		t.Fatalf("whole log: %d batches, %v", n, err)
	}
	last := logBatches
	for _, cut := range []int{1, 7, 100, 600, 700, 5000, len(content) / 2, len(content) - 20, len(content)} {
		n, err := reopen(t, files, log, content[:len(content)-cut])
		if err != nil {
			t.Errorf("cut by %d bytes: %v", cut, err)
			continue
		}
		if n >= logBatches || n > last || cut < len(content)/3 && n < logBatches-1-cut/600 {
			t.Errorf("cut by %d bytes: %d batches", cut, n)
		}
		last = n
	}
	zeros := append(bytes.Clone(content[:len(content)-300]), make([]byte, 40_000)...)
	if n, err := reopen(t, files, log, zeros); n != logBatches-1 || err != nil {
		t.Errorf("end of zeros: %d batches, %v", n, err)
	}
}

// TestLogDamaged: a flipped bit with synced records behind it is damage, which
// must not pass for a torn end: answered commits would vanish without a word.
func TestLogDamaged(t *testing.T) {
	for _, test := range []struct {
		batches, size int
		first         bool
	}{
		{300, 600, true},
		{300, 600, false},
		{11, 20_000, false}, // fill whole blocks
	} {
		size := test.size
		files, log := killed(t, test.batches, size, test.first)
		content := files[log]
		for _, at := range []int{
			20, 3000, len(content) / 3, len(content) / 2, len(content)/2 + 15,
			len(content) - 5*size, len(content) - 3*size, len(content) - 3*size/2,
		} {
			damaged := bytes.Clone(content)
			damaged[at] ^= 0x10
			n, err := reopen(t, files, log, damaged)
			if err == nil {
				t.Errorf("size %d: flipped a bit at %d of %d: opened with %d batches", size, at, len(content), n)
				continue
			}
			if !errors.Is(err, pebblestore.ErrDamaged) || !strings.Contains(err.Error(), log) {
				t.Errorf("size %d: flipped a bit at %d: %v, want it called damage, and the log named", size, at, err)
			}
		}
		// The limit of this is the last batch: it looks torn.
		damaged := bytes.Clone(content)
		damaged[len(content)-100] ^= 0x10
		if n, err := reopen(t, files, log, damaged); n != test.batches-1 || err != nil {
			t.Errorf("size %d: flipped a bit in the last batch: %d batches, %v", size, n, err)
		}
	}
}

// TestTableDamaged: the store opens, what is damaged can't be read, and it says
// so instead of giving wrong rows.
func TestTableDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	w := newWorkload(t, s)
	for range 300 {
		if err := w.commit(context.Background(), w.parts[0]); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	mustClose(t, openDir(t, dir)) // replays the log into a table
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	content, name := []byte(nil), ""
	for _, n := range tables {
		c, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(c) > len(content) {
			content, name = c, n
		}
	}
	content[len(content)/8] ^= 1 // among rows of the partition
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir)
	_, err = s.ScanPartition(context.Background(), storage.Key{Partition: 0}, storage.MaxScan)
	if !errors.Is(err, pebblestore.ErrDamaged) {
		t.Errorf("scan of a damaged table: %v", err)
	}
	if s.Err() != nil {
		t.Errorf("the store failed as a whole: %v", s.Err())
	}
	if s.Stats().Corruptions == 0 {
		t.Error("the damage was not counted")
	}
	mustClose(t, s)
}

// TestMissesUseFilters reads rows that are not there, beside rows that are.
func TestMissesUseFilters(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	l, err := s.Acquire(context.Background(), 1, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int, end string) storage.Key {
		return storage.Key{Partition: 1, Table: 4, Entity: "@user:example.org", Sort: fmt.Sprintf("%05d%s", i, end)}
	}
	var b storage.Batch
	for i := range 5000 {
		b.Put(key(i, ""), bytes.Repeat([]byte("x"), 100))
	}
	if err := s.Commit(context.Background(), 1, l.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s = openDir(t, dir) // replays the log into a table
	const misses = 2000
	for i := range misses {
		if v, err := s.Get(context.Background(), key(i, "absent")); err != nil || v[0] != nil {
			t.Fatal(v, err)
		}
	}
	if f := s.Metrics().Filter; f.Hits < misses*95/100 {
		t.Errorf("the filters spared %d of %d reads", f.Hits, misses)
	}
	mustClose(t, s)
}
