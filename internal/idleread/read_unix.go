//go:build unix

package idleread

import "syscall"

const readable = true

// errWait means that there is nothing to read yet.
const errWait = syscall.EAGAIN

func readNonblock(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err == syscall.EINTR {
			continue
		}
		return max(n, 0), err
	}
}
