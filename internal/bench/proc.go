package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of CPU times in /proc on Linux.
const ticksPerSecond = 100

// familyCPU is the CPU time of a process, of its children that ended and of those
// that run.
func familyCPU(pid int) (time.Duration, error) {
	first, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	sum := first.cpu + first.children
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		n, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if stat, err := readStat(n); err == nil && stat.parent == pid { // else it has ended
			sum += stat.cpu
		}
	}
	return sum, nil
}

// procStat is what is used of /proc/…/stat. children is the time of those that ended.
type procStat struct {
	parent        int
	cpu, children time.Duration
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, fmt.Errorf("CPU time of the server: %w", err)
	}
	return parseStat(b)
}

// parseStat finds the 4th and the 14th to 17th field of /proc/…/stat. The second is
// the program's name in parentheses, which may hold anything.
func parseStat(b []byte) (s procStat, err error) {
	const parent, utime, cstime = 4 - 3, 14 - 3, 17 - 3
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) <= cstime {
		return s, fmt.Errorf("CPU time of the server: %d fields in stat", len(f))
	}
	if s.parent, err = strconv.Atoi(f[parent]); err != nil {
		return s, fmt.Errorf("CPU time of the server: %w", err)
	}
	for i := utime; i <= cstime; i++ {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return s, fmt.Errorf("CPU time of the server: %w", err)
		}
		if t := time.Duration(n) * (time.Second / ticksPerSecond); i < utime+2 {
			s.cpu += t
		} else {
			s.children += t
		}
	}
	return s, nil
}

// processRSS reads VmRSS from /proc.
func processRSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of the server: %w", err)
	}
	return parseStatus(b)
}

func parseStatus(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !ok {
			continue
		}
		kib, _, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
		n, err := strconv.ParseInt(kib, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("memory of the server: %w", err)
		}
		return n << 10, nil
	}
	return 0, fmt.Errorf("memory of the server: no VmRSS in status: %w", errNoFigure)
}
