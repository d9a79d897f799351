package bench

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 5 0 100 200 300"))
	if err != nil || got != (procStat{1, 1750 * time.Millisecond, 150 * time.Millisecond}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1 2 3", "42 (a) S 1 42 42 0 -1 4194560 1 2 3 4 x 25 7 8", "42 (a) S x 42 42 0 -1 4194560 1 2 3 4 1 25 7 8"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q has a CPU time", bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte("Name:\ta\nVmHWM:\t  99 kB\nVmRSS:\t  2048 kB\n"))
	if err != nil || got != 2<<20 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS: x kB\n"} {
		if _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q has a size", bad)
		}
	}
}

func TestOwnProcess(t *testing.T) {
	if n, err := processRSS(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("this process has %d bytes, %v", n, err)
	}
	if _, err := familyCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := familyCPU(1 << 30); err == nil {
		t.Error("a process that cannot be used CPU time")
	}
	// Twice the same process, which uses more while it is looked at.
	one, err := (&server{pids: []int{os.Getpid()}}).cpu(nil)
	two, err2 := (&server{pids: []int{os.Getpid(), os.Getpid()}}).cpu(nil)
	if err != nil || err2 != nil || two < 2*one {
		t.Errorf("one process %v, %v, and two %v, %v", one, err, two, err2)
	}
}
