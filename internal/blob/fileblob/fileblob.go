// Package fileblob keeps blobs as files below one directory.
//
// Every access goes through an os.Root: whatever a key says, and whatever links
// stand in the directory, nothing outside of it is read or written. A value is
// written to a file of its own in "tmp", synced, and renamed to its place, so
// that a crash leaves no partial value; what stands in "tmp" at the start is
// from a crash and is removed.
package fileblob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/hubbub-chat/hubbub/internal/blob"
)

const (
	// tmpDir holds files that are being written. No key begins with it, since
	// values live in valuesDir.
	tmpDir    = "tmp"
	valuesDir = "blobs"

	dirMode  = 0o700
	fileMode = 0o600
)

// Store is a blob.Store of files.
type Store struct {
	root *os.Root
	// durable are the directories that are known to outlast a crash. Keys spread
	// over a bounded number of directories.
	durable sync.Map
}

var _ blob.Store = (*Store)(nil)

// Open opens the directory, which is made if need be.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("fileblob: create directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("fileblob: open directory: %w", err)
	}
	s := &Store{root: root}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("fileblob: prepare directory: %w", err), root.Close())
	}
	return s, nil
}

func (s *Store) prepare() error {
	if err := s.root.RemoveAll(tmpDir); err != nil {
		return err
	}
	for _, dir := range []string{tmpDir, valuesDir} {
		if err := s.root.MkdirAll(dir, dirMode); err != nil {
			return err
		}
	}
	return s.sync(".")
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	tmp := path.Join(tmpDir, rand.Text())
	err := s.write(ctx, tmp, r, size)
	if err == nil {
		err = s.place(tmp, path.Join(valuesDir, key))
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = errors.Join(blob.ErrFull, err)
		}
		return fmt.Errorf("fileblob: put: %w", err)
	}
	return nil
}

func (s *Store) write(ctx context.Context, name string, r io.Reader, size int64) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	// One byte more than announced is enough to know that there is too much.
	n, err := io.Copy(f, io.LimitReader(r, size+1))
	switch {
	case err != nil:
	case n != size:
		err = blob.ErrShort
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// place renames a file to its place and makes that durable.
func (s *Store) place(tmp, name string) error {
	dir := path.Dir(name)
	if err := s.makeDirs(dir); err != nil {
		return err
	}
	if err := s.root.Rename(tmp, name); err != nil {
		return err
	}
	return s.sync(dir)
}

// makeDirs makes a directory with those above it, durably. That a directory is
// there says nothing of that: another Put may have made it a moment ago.
func (s *Store) makeDirs(dir string) error {
	if dir == valuesDir {
		return nil
	}
	if _, ok := s.durable.Load(dir); ok {
		return nil
	}
	if err := s.makeDirs(path.Dir(dir)); err != nil {
		return err
	}
	if err := s.root.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.sync(path.Dir(dir)); err != nil {
		return err
	}
	s.durable.Store(dir, struct{}{})
	return nil
}

func (s *Store) sync(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// file is an open value. The *os.File inside lets the kernel send it.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// Open implements blob.Store.
func (s *Store) Open(_ context.Context, key string) (blob.Object, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	f, err := s.root.Open(path.Join(valuesDir, key))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, blob.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("fileblob: open: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = blob.ErrNotFound
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return file{f, info.Size()}, nil
}

// Delete implements blob.Store. Directories stay: others may be putting into them.
func (s *Store) Delete(_ context.Context, keys ...string) error {
	dirs := map[string]bool{}
	for _, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return err
		}
		name := path.Join(valuesDir, key)
		switch err := s.root.Remove(name); {
		case err == nil:
			dirs[path.Dir(name)] = true
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		default:
			return fmt.Errorf("fileblob: delete: %w", err)
		}
	}
	for dir := range dirs {
		if err := s.sync(dir); err != nil {
			return fmt.Errorf("fileblob: delete: %w", err)
		}
	}
	return nil
}

// Close implements blob.Store.
func (s *Store) Close() error {
	if err := s.root.Close(); err != nil {
		return fmt.Errorf("fileblob: close: %w", err)
	}
	return nil
}
