package security

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"testing"
)

// crashEnv makes this test the process that crashes: it names the directory where
// that leaves what it knows.
const crashEnv = "HUBBUB_TEST_CRASH"

// remains is what the process that crashed has written before.
type remains struct {
	DataDir string
	Tokens  map[string]string
}

// TestCrashTellsNothing: what a server leaves that dies in the middle of its work
// (the stacks of all goroutines, an execution trace, profiles) has no secret in it, and
// its data directory, as a backup of a moment would hold it, no password or token.
func TestCrashTellsNothing(t *testing.T) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crash(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashTellsNothing$")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir, "TMPDIR="+t.TempDir(), "GOTRACEBACK=all")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("panic: the crash")) || bytes.Count(out, []byte("\ngoroutine ")) < 20 {
		t.Fatalf("that was no crash: %v %.2000s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "remains"))
	if err != nil {
		t.Fatal(err)
	}
	var left remains
	if err := json.Unmarshal(raw, &left); err != nil || len(left.Tokens) < 8 {
		t.Fatalf("%d tokens: %v", len(left.Tokens), err)
	}
	places := map[string]string{"crash output": string(out)}
	for _, name := range []string{"trace", "goroutine", "heap"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(raw) < 1000 {
			t.Fatalf("%s: %d bytes, %v", name, len(raw), err)
		}
		places[name] = string(raw)
	}
	secrets := chosen()
	for what, token := range left.Tokens {
		secrets[what] = token
	}
	for where, text := range places {
		for what, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s is in the %s", what, where)
			}
		}
	}
	if n := searchFiles(t, left.DataDir, hidden(left.Tokens)); n < 3 {
		t.Errorf("%d files: is this the data directory?", n)
	}
}

// crash uses a server with secrets and dies while requests are under way.
func crash(t *testing.T, dir string) {
	t.Helper()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := file("trace")
	if err := trace.Start(f); err != nil {
		t.Fatal(err)
	}
	r := newRun(t)
	c := r.sessions()
	r.contents(c)
	raw, err := json.Marshal(remains{r.s.Config.Server.DataDir, r.tokens})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "remains"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		go func() { _, _, _ = c.Raw(t, "GET", v3+"/sync?timeout=60000", nil) }()
		go func() { _, _, _ = c.Raw(t, "POST", v3+"/login", password(c, canaryGuess)) }()
	}
	c.Sync(t, "")
	trace.Stop()
	for _, name := range []string{"goroutine", "heap"} {
		if err := pprof.Lookup(name).WriteTo(file(name), 2); err != nil {
			t.Fatal(err)
		}
	}
	go panic("the crash")
	select {}
}
