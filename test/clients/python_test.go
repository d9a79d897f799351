package clients_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// Two people with three devices of matrix-nio, with encryption.
func TestNio(t *testing.T) {
	t.Parallel()
	python := environment(t)
	talk(t, python, start(t, ""), "nio_talk.py", t.TempDir())
}

// Two clients of mautrix, and a bridge made with it, with encryption.
func TestMautrixPython(t *testing.T) {
	t.Parallel()
	python := environment(t)
	registration, port := service(t, "bridge.yaml")
	talk(t, python, start(t, registration), "mautrix_talk.py", t.TempDir(), port)
}

// talk runs a script with the server.
func talk(t *testing.T, python string, s *apptest.Server, script string, args ...string) {
	t.Helper()
	run(t, command(t, []string{"PYTHONDONTWRITEBYTECODE=1"}, python, append([]string{script, s.URL}, args...)...))
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
