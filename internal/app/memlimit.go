package app

import (
	"io/fs"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitShare is the part, in percent, of what the kernel grants a container that Go may
// use: the rest is for stacks of threads, for the kernel's buffers of the sockets, and
// for what Go notices late.
const limitShare = 90

// limitMemory lets the garbage collector work harder instead of the kernel end the
// process when memory is granted by a control group, as containers and systemd's
// MemoryMax do. Without it the heap may grow to twice of what is in use. Whoever sets
// GOMEMLIMIT knows better.
func limitMemory(root fs.FS, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if granted, ok := grantedMemory(root); ok {
		limit := granted / 100 * limitShare
		debug.SetMemoryLimit(limit)
		log.Info("memory limit", "granted", granted, "limit", limit)
	}
}

// grantedMemory is the least, in bytes, that the control group of this process and
// those around it grant, and whether any does. root is the file system. Version 1 of
// control groups is not looked at.
func grantedMemory(root fs.FS) (least int64, ok bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false // not Linux
	}
	var group string
	for line := range strings.Lines(string(groups)) {
		if own, found := strings.CutPrefix(line, "0::"); found {
			group = strings.Trim(strings.TrimSpace(own), "/")
		}
	}
	for dir := path.Clean(group); ; dir = path.Dir(dir) {
		b, err := fs.ReadFile(root, path.Join("sys/fs/cgroup", dir, "memory.max"))
		if err == nil { // the outermost has none
			n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // or "max"
			if err == nil && n > 0 && (!ok || n < least) {
				least, ok = n, true
			}
		}
		if dir == "." {
			return least, ok
		}
	}
}
