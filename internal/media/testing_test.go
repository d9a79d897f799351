package media

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/blob/fileblob"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alice ids.UserID = "@alice:h"
	bob   ids.UserID = "@bob:h"
	admin ids.UserID = "@admin:h"

	partitions = 4
)

// world is a node with a service of media.
type world struct {
	*Service
	t     *testing.T
	node  *clustertest.Node
	ctx   context.Context
	clock *clock.Manual
	store storage.Store
	blobs *faulty
	dir   string
	// before, if not nil, is called before each command.
	before func(partition.Command)
}

// Do implements partition.Router.
func (w *world) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if w.before != nil {
		w.before(cmd)
	}
	return w.node.Do(ctx, cmd)
}

// faulty is a blob store whose calls fail when the test says so.
type faulty struct {
	blob.Store
	put, delete error
	// only, if not "", is the key whose removal fails.
	only string
	// putting, if not nil, is called before each Put.
	putting func()
}

func (f *faulty) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if f.putting != nil {
		f.putting()
	}
	if f.put != nil {
		return f.put
	}
	return f.Store.Put(ctx, key, r, size)
}

func (f *faulty) Delete(ctx context.Context, keys ...string) error {
	if f.delete != nil && (f.only == "" || slices.Contains(keys, f.only)) {
		return f.delete
	}
	return f.Store.Delete(ctx, keys...)
}

func newWorld(t *testing.T, changes ...func(*Options)) *world {
	t.Helper()
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	w := &world{t: t, ctx: context.Background(), clock: c, store: memstore.New(c), dir: t.TempDir()}
	w.node = clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: w.store, Clock: c,
		Tables:  []map[storage.Table]partition.TableSpec{Tables()},
		Effects: []map[string]partition.EffectHandler{Effects()},
	})
	files, err := fileblob.Open(filepath.Join(w.dir, "media"))
	if err != nil {
		t.Fatal(err)
	}
	w.blobs = &faulty{Store: files}
	o := Options{
		Server: "h", Router: w, Store: w.store, Partitions: partitions, Bus: w.node.Bus, Blobs: w.blobs,
		Spool: filepath.Join(w.dir, "spool"), Clock: c, Log: slog.New(slog.DiscardHandler), MaxUpload: 64 << 20,
	}
	for _, change := range changes {
		change(&o)
	}
	if w.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		if err := files.Close(); err != nil {
			t.Errorf("close blobs: %v", err)
		}
	})
	return w
}

func (w *world) upload(u ids.UserID, content string) ID {
	w.t.Helper()
	id, err := w.Upload(w.ctx, Upload{User: u, Type: "text/plain", Name: "n", Body: strings.NewReader(content)})
	if err != nil {
		w.t.Fatalf("upload: %v", err)
	}
	return id
}

// read returns the content of media, and the error of opening it.
func (w *world) read(id ID) (string, error) {
	w.t.Helper()
	f, err := w.Open(w.ctx, id, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return string(b), nil
}

func (w *world) wantContent(id ID, content string) {
	w.t.Helper()
	if got, err := w.read(id); err != nil || got != content {
		w.t.Errorf("media %s: %.50q %v, want %.50q", id, got, err, content)
	}
}

// stored is how many blobs there are.
func (w *world) stored() int {
	w.t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(w.dir, "media", "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// rows is how many rows of a table there are.
func (w *world) rows(table storage.Table) int {
	w.t.Helper()
	n := 0
	for p := range partitions {
		rows, err := w.store.ScanPartition(w.ctx, storage.Key{Partition: ids.Partition(p)}, storage.MaxScan)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range rows {
			if r.Key.Table == table {
				n++
			}
		}
	}
	return n
}

// refs waits until so many references are left: the effects of effects are on their
// way after the answer.
func (w *world) refs(n int) {
	w.t.Helper()
	for range 10_000 {
		if w.rows(tables.ContentRef) == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatalf("%d references, want %d", w.rows(tables.ContentRef), n)
}

// wantNothing checks that no trace of any media is left.
func (w *world) wantNothing() {
	w.t.Helper()
	if n := w.stored(); n != 0 {
		w.t.Errorf("%d blobs are left", n)
	}
	for _, table := range []storage.Table{tables.Media, tables.Content, tables.ContentRef, tables.MediaTime, tables.MediaDue, tables.UserMedia} {
		if n := w.rows(table); n != 0 {
			w.t.Errorf("%d rows of table %d are left", n, table)
		}
	}
	if all, err := w.Stats(w.ctx); err != nil || all.Media != 0 || all.Bytes != 0 || all.Contents != 0 || all.Stored != 0 {
		w.t.Errorf("totals of nothing: %+v %v", all, err)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, "spool")); err != nil || len(left) != 0 {
		w.t.Errorf("the spool holds %v (%v)", left, err)
	}
}

func (w *world) sweepAll() {
	w.t.Helper()
	if err := w.Sweep(w.ctx); err != nil {
		w.t.Fatalf("sweep: %v", err)
	}
}

func uploadBytes(t *testing.T, w *world, b []byte, typ string) ID {
	t.Helper()
	id, err := w.Upload(w.ctx, Upload{User: alice, Type: typ, Body: bytes.NewReader(b)})
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	return id
}
