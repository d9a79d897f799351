//go:build unix

package gateway

import "syscall"

// writeNonblock writes what a non-blocking descriptor accepts, which may be
// nothing.
func writeNonblock(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, nil
		}
		return max(n, 0), err
	}
}
