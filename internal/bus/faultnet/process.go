package faultnet

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Processes tells who connects by the process that owns the client's end of the
// connection, as Linux shows it in /proc. names are by process ID.
func Processes(names func() map[int]string) func(client, proxy *net.TCPAddr) string {
	return func(client, proxy *net.TCPAddr) string {
		inode := socketInode(client, proxy)
		if inode == "" {
			return ""
		}
		for pid, name := range names() {
			fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			for _, fd := range fds {
				if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
					return name
				}
			}
		}
		return ""
	}
}

// socketInode finds the client's end of a connection over 127.0.0.1.
func socketInode(client, proxy *net.TCPAddr) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	local, remote := fmt.Sprintf("0100007F:%04X", client.Port), fmt.Sprintf("0100007F:%04X", proxy.Port)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		const inodeField = 9
		fields := strings.Fields(lines.Text())
		if len(fields) > inodeField && fields[1] == local && fields[2] == remote {
			return fields[inodeField]
		}
	}
	return ""
}
