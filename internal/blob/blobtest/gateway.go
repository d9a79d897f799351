package blobtest

import (
	"context"
	"go/build"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// What the bucket of Gateway is called, and its keys.
const (
	AccessKey, SecretKey = "hubbub-test", "hubbub-test-secret"
	Bucket               = "media"
	// patience bounds the wait for the server to listen.
	patience = 30 * time.Second
)

// Gateway starts a real S3 server with an empty Bucket until the test ends, and
// returns its address.
func Gateway(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("versitygw")
	if err != nil {
		// Where go install puts it, which is not always in the path.
		binary = filepath.Join(build.Default.GOPATH, "bin", "versitygw")
		if _, err := os.Stat(binary); err != nil {
			skip.Test(t, "no S3 server; go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 to run it")
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "--port", addr, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", "--sidecar", t.TempDir(), dir)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	// It tells nobody when it listens, so it has to be asked.
	for until := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return addr
		}
		if time.Now().After(until) {
			t.Fatalf("the S3 server does not listen: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
