package pebblestore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// TestCheckpoint copies a store again and again while commits run. Each copy
// opens, holds all that was answered before it, and nothing that came later.
func TestCheckpoint(t *testing.T) {
	fs := vfs.NewMem()
	s := openOn(t, fs)
	w := newWorkload(t, s)
	copies := make([]state, 6)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := range copies {
			for next := int64(i * 40); w.parts[0].acked.Load() < next; {
				if err := s.Err(); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(10 * time.Microsecond) // lets them commit; the outcome does not rest on it
			}
			before := w.promises()
			if err := s.Checkpoint(t.Context(), fmt.Sprint("copies/", i)); err != nil {
				t.Error(err)
			}
			copies[i] = w.attempts(before)
		}
	})
	if err := w.run(stop); err != nil {
		t.Error(err)
	}
	wg.Wait()
	mustClose(t, s)
	for i, want := range copies {
		c, err := pebblestore.Open(fmt.Sprint("copies/", i), pebblestore.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		w.check(t, c, want)
		mustClose(t, c)
	}
	again := openOn(t, fs)
	w.check(t, again, w.attempts(w.promises()))
	mustClose(t, again)
}

// TestCheckpointFails: a disk that has no room for the copy fails the copy, also
// where its files have the names of those that must not fail.
func TestCheckpointFails(t *testing.T) {
	for _, file := range []string{"*.log", "MANIFEST-*", "marker.*", "copies"} {
		t.Run(file, func(t *testing.T) {
			f := &fault{
				file:  file,
				kinds: []errorfs.OpKind{errorfs.OpCreate, errorfs.OpLink, errorfs.OpMkdirAll, errorfs.OpFileSync, errorfs.OpFileSyncData},
				err:   errors.New("no room"),
			}
			fs := vfs.NewMem()
			s := openOn(t, withFaults(fs, inDir{"copies", f}))
			w := newWorkload(t, s)
			for range 20 {
				if err := w.commit(t.Context(), w.parts[0]); err != nil {
					t.Fatal(err)
				}
			}
			f.armed.Store(true)
			if err := s.Checkpoint(t.Context(), "copies"); err == nil || errors.Is(err, pebblestore.ErrFailed) {
				t.Errorf("checkpoint: %v", err)
			}
			f.armed.Store(false)
			if err := w.commit(t.Context(), w.parts[0]); err != nil {
				t.Errorf("the store failed with its copy: %v", err)
			}
			if err := s.Checkpoint(t.Context(), "copies"); err != nil {
				t.Errorf("once there is room: %v", err)
			}
			mustClose(t, s)
		})
	}
}

// inDir passes on what happens in a directory and to it.
type inDir struct {
	dir string
	*fault
}

func (d inDir) MaybeError(op errorfs.Op) error {
	if op.Path != d.dir && vfs.Default.PathDir(op.Path) != d.dir {
		return nil
	}
	return d.fault.MaybeError(op)
}
