package fileblob_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/blob/blobtest"
	"github.com/hubbub-chat/hubbub/internal/blob/fileblob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *fileblob.Store {
	t.Helper()
	s, err := fileblob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return open(t, t.TempDir()) })
}

// TestCrashLeavesNothing: what a crash left in the middle of a Put is gone after
// the next start, and what was put is there.
func TestCrashLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(t.Context(), "a/b", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "tmp", "HALF")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the partial file is still there: %v", err)
	}
	o, err := again.Open(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLinksLeadNowhere: not even a link inside the directory leads out of it.
func TestLinksLeadNowhere(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	s := open(t, dir)
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "blobs", "link")); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Open(t.Context(), "link/secret"); err == nil {
		o.Close()
		t.Error("read outside the directory")
	}
	if err := s.Put(t.Context(), "link/new", strings.NewReader("x"), 1); err == nil {
		t.Error("wrote outside the directory")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v %v", entries, err)
	}
}

// TestDirectoryIsNoValue: a part of a key is not a key.
func TestDirectoryIsNoValue(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Put(t.Context(), "a/b", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "a"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open a directory: %v", err)
	}
}
