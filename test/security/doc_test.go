package security

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

var (
	// named finds directories in code spans and the tests behind them.
	named = regexp.MustCompile("`([a-z0-9/]+)`|\\b((?:Test|Fuzz)[A-Z]\\w*)")
	row   = regexp.MustCompile(`^\| \*\*(S\d+)\*\*`)
)

// TestDocument: each test that docs/security.md names exists, and each of its rows
// names one or says why there is none.
func TestDocument(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, line := range strings.Split(string(raw), "\n") {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 4 {
			t.Errorf("%s has %d cells", m[1], len(cells))
			continue
		}
		if n := testsExist(t, m[1], cells[3]); n == 0 && !strings.HasPrefix(cells[3], "does not apply: ") {
			t.Errorf("%s names no test and no reason", m[1])
		}
	}
	if rows < 35 {
		t.Errorf("%d rows were found", rows)
	}
}

// testsExist looks for the tests that a cell names and returns how many there are.
func testsExist(t *testing.T, row, cell string) int {
	t.Helper()
	n, source := 0, ""
	for _, m := range named.FindAllStringSubmatch(cell, -1) {
		if m[1] != "" {
			source = sources(t, m[1])
			continue
		}
		n++
		if !strings.Contains(source, "func "+m[2]+"(") {
			t.Errorf("%s: there is no %s in the directory before it", row, m[2])
		}
	}
	return n
}

// sources are the tests of a directory.
func sources(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("no tests in %s: %v", dir, err)
	}
	var all strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(raw)
	}
	return all.String()
}
