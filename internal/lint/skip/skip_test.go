package skip_test

import (
	"fmt"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// recorder is a test that notes how it was ended.
type recorder struct {
	testing.TB
	ending string
}

func (*recorder) Helper()                        {}
func (r *recorder) Skip(args ...any)             { r.end("skip: " + fmt.Sprint(args...)) }
func (r *recorder) Fatalf(f string, args ...any) { r.end("fatal: " + fmt.Sprintf(f, args...)) }

// end keeps the first ending only: the real ones do not return.
func (r *recorder) end(how string) {
	if r.ending == "" {
		r.ending = how
	}
}

func TestTest(t *testing.T) {
	for ci, want := range map[string]string{
		"":      "skip: no tool",
		"false": "skip: no tool",
		"true":  "fatal: not skipped, as CI is set: no tool",
		"1":     "fatal: not skipped, as CI is set: no tool",
	} {
		t.Setenv("CI", ci)
		r := &recorder{TB: t}
		skip.Test(r, "no tool")
		if r.ending != want {
			t.Errorf("CI=%q: %q, want %q", ci, r.ending, want)
		}
	}
}
