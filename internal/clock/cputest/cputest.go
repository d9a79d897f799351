// Package cputest tells benchmarks what they cost in CPU time, which is steadier than
// wall time.
package cputest

import (
	"syscall"
	"testing"
	"time"
)

// Used is the CPU time that the process has used so far, its own and the system's for it.
func Used(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
