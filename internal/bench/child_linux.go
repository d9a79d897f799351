package bench

import "syscall"

// childAttributes put the child into a process group of its own and end it with
// this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
