package idleread

import (
	"fmt"
	"os"
	"syscall"
)

// pollBatch is how many events one system call takes.
const pollBatch = 128

// NewPoller starts a Poller. Close ends it.
func NewPoller() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("idleread: make a poll descriptor: %w", err)
	}
	// Non-blocking, so that the runtime's poller takes it: no thread waits in it.
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("idleread: poll descriptor: %w", err)
	}
	p := &Poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{})}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("idleread: poll descriptor: %w", err)
	}
	go p.run()
	return p, nil
}

func (p *Poller) run() {
	defer close(p.done)
	var events [pollBatch]syscall.EpollEvent
	n := 0
	wait := func(fd uintptr) bool {
		var err error
		if n, err = syscall.EpollWait(int(fd), events[:], 0); err != nil {
			n = 0 // interrupted; else it was closed, which Read tells
			return err == syscall.EINTR
		}
		return n > 0
	}
	for p.raw.Read(wait) == nil {
		for i := range events[:n] {
			p.ready(events[i].Fd)
		}
	}
}

// arm makes the poll descriptor epfd tell once that fd can be read or has ended, as
// the event of slot. known says that it has fd already.
func arm(epfd, fd int, slot int32, known bool) error {
	op := syscall.EPOLL_CTL_ADD
	if known {
		op = syscall.EPOLL_CTL_MOD
	}
	return syscall.EpollCtl(epfd, op, fd, &syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: slot,
	})
}
