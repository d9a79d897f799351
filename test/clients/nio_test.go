// Package clients_test lets Matrix clients of other people talk through the server, each as
// it is published: what they cannot read, or miss, is no promise kept.
package clients_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// TestNio: two people with three devices of matrix-nio, with encryption.
func TestNio(t *testing.T) {
	t.Parallel()
	talk(t, environment(t), func(*config.Config) {}, "nio_talk.py")
}

// TestMautrix: two clients of mautrix, and a bridge made with it, with encryption.
func TestMautrix(t *testing.T) {
	t.Parallel()
	python := environment(t)
	registration, err := os.ReadFile("bridge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	_ = free.Close()
	file := filepath.Join(t.TempDir(), "bridge.yaml")
	if err := os.WriteFile(file, bytes.ReplaceAll(registration, []byte("PORT"), []byte(port)), 0o600); err != nil {
		t.Fatal(err)
	}
	talk(t, python, func(c *config.Config) { c.Server.AppserviceFiles = []string{file} }, "mautrix_talk.py", port)
}

// talk runs a script with a server of its own. It downloads media as one does that
// is no test: with a token only.
func talk(t *testing.T, python string, change func(*config.Config), script string, args ...string) {
	t.Helper()
	s := apptest.Start(t, func(c *config.Config) { c.Media.LegacyDownload = false }, change)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{script, s.URL, t.TempDir()}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
}

// making keeps the tests of this process from making the same at once.
var making sync.Mutex

// environment is the Python of a virtual environment with what requirements.txt
// names. It is made once, and kept among the user's caches under the hash of all
// that it was made from.
func environment(t *testing.T) string {
	t.Helper()
	making.Lock()
	defer making.Unlock()
	system, err := exec.LookPath("python3")
	if err != nil {
		skip.Test(t, "no python3")
	}
	version, err := exec.CommandContext(t.Context(), system, "-c", "import sys, ensurepip, venv; print(sys.executable, sys.version)").Output()
	if err != nil {
		skip.Test(t, "python3 has no venv; on Debian it is the package python3-venv")
	}
	required, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	caches, err := os.UserCacheDir()
	if err != nil {
		caches = os.TempDir()
	}
	caches = filepath.Join(caches, "hubbub-test")
	hash := sha256.Sum256(append(version, required...))
	kept := filepath.Join(caches, "python-"+hex.EncodeToString(hash[:8]))
	python := filepath.Join("bin", "python")
	if _, err := os.Stat(kept); err == nil {
		return filepath.Join(kept, python)
	}

	if err := os.MkdirAll(caches, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(caches, "making-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(fresh) })
	if out, err := exec.CommandContext(t.Context(), system, "-m", "venv", fresh).CombinedOutput(); err != nil {
		t.Fatalf("make a virtual environment: %v\n%s", err, out)
	}
	pip := exec.CommandContext(t.Context(), filepath.Join(fresh, python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt")
	if out, err := pip.CombinedOutput(); err != nil {
		skip.Test(t, "pip cannot install what the clients are made of: "+string(out))
	}
	// Whoever was faster has made the same.
	if err := os.Rename(fresh, kept); err != nil {
		if _, there := os.Stat(kept); there != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(kept, python)
}
