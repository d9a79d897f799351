package app

import (
	"bytes"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"
)

func TestGrantedMemory(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  int64 // 0: nothing is granted
	}{
		"not Linux":               {fstest.MapFS{}, 0},
		"a machine":               {fstest.MapFS{"proc/self/cgroup": file("0::/user.slice\n")}, 0},
		"a container":             {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("2147483648\n")}, 2 << 30},
		"a container with all":    {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("max\n")}, 0},
		"a unit":                  {fstest.MapFS{"proc/self/cgroup": file("0::/system.slice/hubbub.service\n"), "sys/fs/cgroup/system.slice/hubbub.service/memory.max": file("1000\n"), "sys/fs/cgroup/system.slice/memory.max": file("max\n")}, 1000},
		"a unit in a small slice": {fstest.MapFS{"proc/self/cgroup": file("0::/system.slice/hubbub.service\n"), "sys/fs/cgroup/system.slice/hubbub.service/memory.max": file("1000\n"), "sys/fs/cgroup/system.slice/memory.max": file("900\n")}, 900},
		"version 1 beside it":     {fstest.MapFS{"proc/self/cgroup": file("4:memory:/a\n0::/b\n"), "sys/fs/cgroup/a/memory.max": file("1\n"), "sys/fs/cgroup/b/memory.max": file("2\n")}, 2},
	} {
		got, ok := grantedMemory(c.files)
		if got != c.want || ok != (c.want != 0) {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
}

func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	root := fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")}, "sys/fs/cgroup/memory.max": {Data: []byte("1000000000000\n")}}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))

	debug.SetMemoryLimit(math.MaxInt64)
	t.Setenv("GOMEMLIMIT", "off")
	limitMemory(root, log)
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("with GOMEMLIMIT the limit became %d", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	limitMemory(root, log)
	if got := debug.SetMemoryLimit(-1); got != 900_000_000_000 || !strings.Contains(out.String(), "limit=900000000000") {
		t.Errorf("limit %d, and the log says %s", got, &out)
	}
}
