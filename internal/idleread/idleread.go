// Package idleread reads a connection without holding a buffer while it waits.
//
// A plain conn.Read needs its buffer before the first byte is there; on a server
// whose connections are mostly idle, that buffer is most of what a connection
// costs. On a TCP connection the Reader waits for readiness first and takes a
// buffer from a pool only for the system call that has something to read. On any
// other connection (TLS keeps a buffer of its own anyway) it waits with a few
// bytes. A connection that will be quiet for long can wait without a goroutine too, in a
// Poller.
//
// A Reader belongs to one goroutine at a time.
package idleread

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// BufferSize is the most that one read takes, in bytes: a burst of some thirty
// small frames.
const BufferSize = 16 << 10

// smallSize is what a Reader waits with where readiness cannot be waited for.
const smallSize = 16

// Buffer is a pooled buffer.
type Buffer [BufferSize]byte

// Pool holds the buffers of any number of Readers, and what they wait with. Its zero
// value is ready.
type Pool struct{ p, attempts sync.Pool }

// Get takes a buffer.
func (p *Pool) Get() *Buffer {
	if b, ok := p.p.Get().(*Buffer); ok {
		return b
	}
	return new(Buffer)
}

// Put gives back a buffer. nil is allowed.
func (p *Pool) Put(b *Buffer) {
	if b != nil {
		p.p.Put(b)
	}
}

// Reader reads one connection. It is part of each connection that waits: its size counts,
// so what it shares with others is given to its methods.
type Reader struct {
	conn net.Conn
	raw  syscall.RawConn // nil if readiness cannot be waited for

	slot  int32 // in a Poller, guarded by it; 0 if it does not wait there
	known bool  // to the Poller's descriptor
}

// attempt is one wait for bytes on a goroutine. A Reader that waits in a Poller has none.
type attempt struct {
	pool *Pool
	try  func(fd uintptr) bool // readFD
	buf  *Buffer
	n    int
	err  error

	small [smallSize]byte // where readiness cannot be waited for
}

func (p *Pool) attempt() *attempt {
	if a, ok := p.attempts.Get().(*attempt); ok {
		return a
	}
	a := &attempt{pool: p}
	a.try = a.readFD
	return a
}

// Init prepares r to read conn.
func (r *Reader) Init(conn net.Conn) {
	r.conn = conn
	if tcp, ok := conn.(*net.TCPConn); ok && readable {
		if raw, err := tcp.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
}

// Next waits for bytes. It returns a buffer, which the caller gives back to the pool, and
// how many bytes of it were read (at least 1); or the connection's error, io.EOF at its
// end.
func (r *Reader) Next(pool *Pool) (*Buffer, int, error) {
	a := pool.attempt()
	if r.raw == nil {
		return a.readSmall(r.conn)
	}
	return a.taken(r.raw.Read(a.try))
}

// taken returns what readFD read, unless there was an error, and ends the attempt.
func (a *attempt) taken(err error) (*Buffer, int, error) {
	buf, n := a.buf, a.n
	if err == nil {
		err = a.err
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	a.buf, a.n, a.err = nil, 0, nil
	a.pool.attempts.Put(a)
	if err != nil {
		a.pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, nil
}

// Try is Next without the wait: no buffer and no error if there is nothing to read.
// It is for what a Poller found ready.
func (r *Reader) Try(pool *Pool) (*Buffer, int, error) {
	a, there := pool.attempt(), true
	err := r.raw.Read(func(fd uintptr) bool {
		there = a.readFD(fd)
		return true
	})
	buf, n, err := a.taken(err)
	if !there {
		return nil, 0, nil
	}
	return buf, n, err
}

// readFD is called when the descriptor may be readable; false means wait.
func (a *attempt) readFD(fd uintptr) bool {
	buf := a.pool.Get()
	n, err := readNonblock(fd, buf[:])
	if err == errWait {
		a.pool.Put(buf)
		return false
	}
	a.buf, a.n, a.err = buf, n, err
	return true
}

// readSmall waits with a few bytes.
func (a *attempt) readSmall(conn net.Conn) (*Buffer, int, error) {
	n, err := conn.Read(a.small[:])
	if n > 0 {
		a.buf, a.n = a.pool.Get(), n
		copy(a.buf[:], a.small[:n])
		return a.taken(nil)
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return a.taken(err)
}

// More reads on into a buffer that the caller holds, because a message is under
// way and its rest is near.
func (r *Reader) More(buf *Buffer) (int, error) {
	n, err := r.conn.Read(buf[:])
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// Conn returns the connection.
func (r *Reader) Conn() net.Conn { return r.conn }

// Raw gives access to the descriptor of a TCP connection, nil for any other.
func (r *Reader) Raw() syscall.RawConn { return r.raw }
