package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// binaryEnv names a server binary to test instead of one that is built.
const binaryEnv = "HUBBUB_TEST_BINARY"

// build returns the path of a server binary with some build tags.
func build(t *testing.T, tags string) string {
	t.Helper()
	if path := os.Getenv(binaryEnv); path != "" && tags == "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "hubbub")
	cmd := exec.Command("go", "build", "-tags", tags, "-o", path, "./cmd/hubbub")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return path
}

// server is a server process that is killed and started again on its data.
type server struct {
	binary, dir, addr string
	log               *os.File

	proc   *exec.Cmd
	exited chan struct{}

	mu struct {
		sync.Mutex
		up chan struct{} // closed while the server answers
	}
}

// newServer prepares a server with an address that stays the same.
func newServer(t *testing.T, binary string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{binary: binary, dir: dir, addr: addr, log: log}
	s.mu.up = make(chan struct{})
	t.Cleanup(func() {
		s.kill()
		_ = log.Close()
	})
	return s
}

func (s *server) url() string { return "http://" + s.addr }

func (s *server) args(sub string) []string {
	return []string{
		sub, "--test-mode", "--data", filepath.Join(s.dir, "data"), "--listen", s.addr, "--metrics-listen=",
		"--server.partitions=8", "--log.level=warn",
	}
}

// start starts the process and returns at once.
func (s *server) start() error {
	s.proc = exec.Command(s.binary, s.args("serve")...)
	s.proc.Stdout, s.proc.Stderr = s.log, s.log
	if err := s.proc.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	s.exited = make(chan struct{})
	go func(p *exec.Cmd, exited chan struct{}) {
		_ = p.Wait()
		close(exited)
	}(s.proc, s.exited)
	return nil
}

// startupLimit bounds how long a start may take on a busy machine.
const startupLimit = time.Minute

var errExited = errors.New("the server ended by itself")

// ready waits until the server answers, or the wait has an end.
func (s *server) ready(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url()+"/_matrix/client/v3/login", nil)
		if err != nil {
			return err
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			s.mu.Lock()
			close(s.mu.up)
			s.mu.Unlock()
			return nil
		}
		select {
		case <-s.exited:
			return errExited
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// kill ends the process as a crash would.
func (s *server) kill() {
	if s.proc == nil {
		return
	}
	s.mu.Lock()
	select {
	case <-s.mu.up:
		s.mu.up = make(chan struct{})
	default:
	}
	s.mu.Unlock()
	_ = s.proc.Process.Kill()
	<-s.exited
	s.proc = nil
}

// awaitUp waits until the server answers.
func (s *server) awaitUp(ctx context.Context) bool {
	s.mu.Lock()
	up := s.mu.up
	s.mu.Unlock()
	select {
	case <-up:
		return true
	case <-ctx.Done():
		return false
	}
}

// fsck checks the data of the stopped server.
func (s *server) fsck() error {
	out, err := exec.Command(s.binary, s.args("fsck")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fsck: %w\n%s", err, out)
	}
	return nil
}

// complaints are the lines of the server's log that should not be there.
func (s *server) complaints() []string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, line := range strings.Split(string(text), "\n") {
		if strings.Contains(line, "context canceled") {
			continue // a client that hung up
		}
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
			out = append(out, line)
		}
	}
	return out
}

// tail is the end of the server's log.
func (s *server) tail() string {
	text, _ := os.ReadFile(s.log.Name())
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return string(bytes.ToValidUTF8(text, nil))
}
