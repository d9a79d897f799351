package ondemand

import (
	"fmt"
	"testing"
)

// failing notes how a test was failed.
type failing struct {
	testing.TB
	text string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) { f.text = fmt.Sprintf(format, args...) }

func TestNumber(t *testing.T) {
	const env = "HUBBUB_TEST_ON_DEMAND"
	if n := Number(t, env, 7); n != 7 {
		t.Errorf("%d without the variable", n)
	}
	t.Setenv(env, "12")
	if n := Number(t, env, 7); n != 12 {
		t.Errorf("%d with it", n)
	}
	t.Setenv(env, "-1")
	f := &failing{TB: t}
	if Number(f, env, 7); f.text == "" {
		t.Error("a number below 0 is taken")
	}
}
