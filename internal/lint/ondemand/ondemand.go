// Package ondemand reads how long a test is to be: short everywhere, and as long as the
// environment says for whoever wants to know more. For tests only.
package ondemand

import (
	"os"
	"strconv"
	"testing"
)

// Number is the number in an environment variable, or else another.
func Number(t testing.TB, env string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}
