// Package skip is the only way for a test not to run. A missing tool is a reason
// on a laptop; in CI it is a failure, as a test that silently does not run
// proves nothing. For tests only.
package skip

import (
	"os"
	"testing"
)

// Test skips the test and says why, or fails it if the environment sets CI to
// anything but "" or "false".
func Test(t testing.TB, why string) {
	t.Helper()
	if Forbidden(os.Getenv) {
		t.Fatalf("not skipped, as CI is set: %s", why)
	}
	t.Skip(why)
}

// Forbidden reports whether the environment forbids skipping.
func Forbidden(getenv func(string) string) bool {
	ci := getenv("CI")
	return ci != "" && ci != "false"
}
