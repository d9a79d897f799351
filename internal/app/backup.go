package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

const (
	// controlSocket is where a running server is asked for a backup, in the data
	// directory: whoever may write there owns the data anyway. An address in the
	// network would need a password, for it fills a disk.
	controlSocket = "control.sock"
	// checkpointDir is where the copy of the store is made, in the data directory,
	// so that it consists of hard links.
	checkpointDir = "store.checkpoint"
	// controlTimeout bounds the request, not the copying.
	controlTimeout = 10 * time.Second
	// maxControl bounds the request and the answer, a path or a sentence.
	maxControl = 64 << 10
)

// A backup is a data directory: store and media as they were at one moment.
//
//  1. The store makes a checkpoint beside itself, while commits wait for the
//     length of a copy of its log (pebblestore.Checkpoint).
//  2. The checkpoint's files, then those of the media, are linked or copied to a
//     directory with ".partial" behind its name. The store comes first, so that
//     it names no media that were uploaded later. A file that is removed
//     meanwhile was removed by somebody.
//  3. A file says that it is a backup: the first server that runs on it begins a new
//     generation of the store (generation.go).
//  4. The directory gets its name.
//
// A server that runs is asked over a socket, since it alone may open the store;
// of a stopped one the command opens the store itself.
type backups struct {
	dataDir    string
	media      bool // they are files in the data directory
	checkpoint func(ctx context.Context, dir string) error
	log        *slog.Logger
	http       *http.Server
	done       chan struct{}
	running    sync.Mutex
}

func newBackups(s *openedStore, cfg config.Config, log *slog.Logger) *backups {
	return &backups{
		dataDir: cfg.Server.DataDir, media: cfg.Media.Store == config.MediaFiles, checkpoint: s.checkpoint, log: log, done: make(chan struct{}),
	}
}

type backupRequest struct {
	Dir string `json:"dir"`
}

type backupAnswer struct {
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"`
}

// serveBackups takes requests for backups until the store is closed. A server
// without (the path may be too long for a socket) works as well.
func (s *openedStore) serveBackups(ctx context.Context, cfg config.Config, log *slog.Logger) {
	if s.checkpoint == nil {
		return
	}
	b := newBackups(s, cfg, log)
	path := filepath.Join(cfg.Server.DataDir, controlSocket)
	// What a process that was killed left. The store's lock says that none is running.
	if err := errors.Join(os.RemoveAll(path), os.RemoveAll(filepath.Join(b.dataDir, checkpointDir))); err != nil {
		log.Warn("cannot tidy the data directory", obs.Err(err))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		log.Warn("no online backups: cannot listen in the data directory", obs.Err(err))
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /backup", b.serve)
	b.http = &http.Server{Handler: mux, ReadTimeout: controlTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	s.backups = b
	go func() {
		defer close(b.done)
		if err := b.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("no online backups any more", obs.Err(err))
		}
	}()
}

// Close ends a backup that is under way, then the store.
func (s *openedStore) Close() error {
	var err error
	if b := s.backups; b != nil {
		err = b.http.Close()
		<-b.done
		b.running.Lock() // its context has ended
		defer b.running.Unlock()
	}
	return errors.Join(err, s.Store.Close())
}

func (b *backups) serve(w http.ResponseWriter, r *http.Request) {
	var req backupRequest
	var a backupAnswer
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControl))
	if err == nil {
		err = json.Unmarshal(raw, &req)
	}
	if err == nil {
		a, err = b.run(r.Context(), req.Dir)
	}
	status := http.StatusOK
	if err != nil {
		b.log.Error("backup failed", obs.Err(err))
		a.Error, status = err.Error(), http.StatusInternalServerError
	}
	raw, _ = json.Marshal(a) // strings and numbers
	w.WriteHeader(status)
	_, _ = w.Write(raw) // who asked may have gone
}

// run makes a backup in a directory that does not exist yet.
func (b *backups) run(ctx context.Context, dir string) (a backupAnswer, err error) {
	if !b.running.TryLock() {
		return a, errors.New("another backup is under way")
	}
	defer b.running.Unlock()
	if !filepath.IsAbs(dir) {
		return a, fmt.Errorf("%q is not an absolute path", dir)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("%s is there already: name a new directory", dir)
	}
	checkpoint := filepath.Join(b.dataDir, checkpointDir)
	if err := os.RemoveAll(checkpoint); err != nil { // of a process that was killed
		return a, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(checkpoint)) }()
	if err := b.checkpoint(ctx, checkpoint); err != nil {
		return a, err
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return a, err
	}
	c := copier{ctx: ctx, answer: &a}
	if err := c.tree(checkpoint, filepath.Join(partial, storeDir)); err != nil {
		return a, err
	}
	if b.media {
		if err := c.tree(filepath.Join(b.dataDir, mediaDir), filepath.Join(partial, mediaDir)); err != nil {
			return a, err
		}
	}
	if err := markRestored(partial); err != nil {
		return a, err
	}
	if err := errors.Join(syncDir(partial), os.Rename(partial, dir), syncDir(filepath.Dir(dir))); err != nil {
		return a, err
	}
	b.log.Info("backup made", "dir", dir, "files", a.Files, "bytes", a.Bytes)
	return a, nil
}

// copier copies directories durably and counts.
type copier struct {
	ctx    context.Context
	answer *backupAnswer
}

func (c copier) tree(from, to string) error {
	if err := c.ctx.Err(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = c.tree(source, target)
		case e.Type().IsRegular():
			err = c.file(source, target)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(to)
}

// file links a file, or copies it to another file system. Both are right, since
// what is in a checkpoint or among the media is never written to again.
func (c copier) file(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = copyFile(from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(to)
	if err != nil {
		return err
	}
	c.answer.Files++
	c.answer.Bytes += info.Size()
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Backup makes a backup of the embedded store, and of media that are files, in a
// new directory, whether the server is running or not. The server writes it if it
// runs, so it needs the rights.
func Backup(ctx context.Context, cfg config.Config, dir string, out io.Writer) error {
	if cfg.Server.Store != config.StoreEmbedded {
		return errors.New("backup: the store is PostgreSQL, whose own tools back it up: pg_dump, or pg_basebackup; see docs/operations.md")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	a, err := askForBackup(ctx, cfg, dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		a, err = backupStopped(ctx, cfg, dir)
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s: %d files, %d bytes\n", dir, a.Files, a.Bytes)
	return err
}

func askForBackup(ctx context.Context, cfg config.Config, dir string) (a backupAnswer, err error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(cfg.Server.DataDir, controlSocket))
	}}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(backupRequest{Dir: dir})
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hubbub/backup", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxControl))
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return a, fmt.Errorf("the server gave no answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func backupStopped(ctx context.Context, cfg config.Config, dir string) (a backupAnswer, err error) {
	if _, err := os.Stat(filepath.Join(cfg.Server.DataDir, storeDir)); err != nil { // opening would create one
		return a, err
	}
	s, err := openBackend(ctx, cfg, prometheus.NewRegistry(), obs.Discard())
	if err != nil {
		return a, err
	}
	a, err = newBackups(s, cfg, obs.Discard()).run(ctx, dir)
	return a, errors.Join(err, s.Close())
}
