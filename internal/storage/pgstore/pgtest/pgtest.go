// Package pgtest starts a PostgreSQL for tests: a real one, in a directory of its
// own, that listens on 127.0.0.1 and ends with the tests.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	startPause   = 50 * time.Millisecond
)

// Server is a running PostgreSQL.
type Server struct {
	bin, dir string
	port     int
	cred     *syscall.Credential
	settings []string
	cmd      *exec.Cmd
	ended    chan error
	names    int
}

// Start starts a PostgreSQL with some settings ("fsync=off") until the test ends.
// Without the program the test is skipped, where that is allowed.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	bin := find()
	if bin == "" {
		skip.Test(t, "no PostgreSQL: install it (Debian: postgresql) or put initdb and postgres into PATH")
	}
	dir, err := os.MkdirTemp("", "hubbub-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{bin: bin, dir: filepath.Join(dir, "data"), cred: credential(t, dir), settings: settings}
	s.port = freePort(t)
	init := s.command("initdb", "-D", s.dir, "-U", "hubbub", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.StartAgain(t)
	t.Cleanup(func() { s.Stop(t, syscall.SIGQUIT) })
	return s
}

// find returns the directory of the programs, "" if there are none.
func find() string {
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(candidates)
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append([]string{filepath.Dir(path)}, candidates...)
	}
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir
		}
	}
	return ""
}

// credential is whom the server runs as: it refuses to run as root.
func credential(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = filepath.Dir(s.dir)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Pdeathsig: syscall.SIGINT}
	return cmd
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// StartAgain starts the server on its data.
func (s *Server) StartAgain(t testing.TB) {
	t.Helper()
	var log bytes.Buffer
	s.cmd = s.command("postgres", "-D", s.dir, "-p", strconv.Itoa(s.port), "-k", filepath.Dir(s.dir),
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=64MB")
	for _, setting := range s.settings {
		s.cmd.Args = append(s.cmd.Args, "-c", setting)
	}
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd) { s.ended <- cmd.Wait() }(s.cmd)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.exec(ctx, "SELECT 1")
		if err == nil {
			return
		}
		select {
		case end := <-s.ended:
			t.Fatalf("postgres: %v\n%s", end, log.String())
		case <-ctx.Done():
			t.Fatalf("postgres does not answer: %v\n%s", err, log.String())
		case <-time.After(startPause):
		}
	}
}

// Stop ends the server: SIGINT is a fast shutdown, SIGQUIT one that needs
// recovery at the next start.
func (s *Server) Stop(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.ended
		t.Error("postgres had to be killed")
	}
	s.cmd = nil
}

// URL is where a database is.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://hubbub@127.0.0.1:%d/%s", s.port, database)
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.names++
	name := fmt.Sprintf("test%d", s.names)
	if err := s.exec(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.URL(name)
}

func (s *Server) exec(ctx context.Context, statement string) error {
	c, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, err = c.Exec(ctx, statement)
	return errors.Join(err, c.Close(ctx))
}
