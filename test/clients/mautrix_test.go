// Package clients_test lets libraries that clients and bridges are made of chat
// through the real server.
package clients_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// mautrixService is the registration of the bridge that test/clients/mautrix runs.
const mautrixService = `
id: ghosts
url: http://%s
as_token: the service says this
hs_token: the server says this
sender_localpart: ghostbot
rate_limited: false
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
namespaces:
  users: [{exclusive: true, regex: "@ghost_.*:localhost"}]
`

// Users and a bridge made with mautrix-go chat, encrypt, sign each other's keys
// and restore a backup. The program of the module beside says what is checked.
func TestMautrix(t *testing.T) {
	goModule := func(what string, args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", append([]string{what}, args...)...)
		cmd.Dir = "mautrix"
		// Encryption in Go: nothing has to be there to build it. A workspace or
		// a vendor directory of the product has no part in it.
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
		return cmd
	}
	if out, err := goModule("mod", "download").CombinedOutput(); err != nil {
		skip.Test(t, fmt.Sprintf("mautrix-go cannot be downloaded: %v\n%s", err, out))
	}
	dir := t.TempDir()
	registration := filepath.Join(dir, "ghosts.yaml")
	if err := os.WriteFile(registration, fmt.Appendf(nil, mautrixService, mautrixPort(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	url := mautrixServer(t, dir, "--appservice", registration)
	out, err := goModule("run", "-tags", "goolm", ".", url, registration).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// mautrixServer starts the server with data in dir and returns its address.
func mautrixServer(t *testing.T, dir string, args ...string) string {
	t.Helper()
	binary := os.Getenv("HUBBUB_TEST_BINARY")
	if binary == "" {
		binary = filepath.Join(dir, "hubbub")
		cmd := exec.Command("go", "build", "-o", binary, "./cmd/hubbub")
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the server: %v\n%s", err, out)
		}
	}
	addr := mautrixPort(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, append([]string{
		"serve", "--test-mode", "--data", filepath.Join(dir, "data"), "--listen", addr, "--metrics-listen=",
		"--server.partitions=8", "--log.level=warn",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatalf("start the server: %v", err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the server's log:\n%s", text)
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + addr + "/_matrix/client/versions")
		if err == nil {
			_ = res.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

// mautrixPort is an address of this machine that was free a moment ago.
func mautrixPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
