package parking

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/hubbub-chat/hubbub/internal/idleread"
)

// Conn is a connection that was parked. It begins with the request that it was parked
// in, and is then what it was before.
type Conn struct {
	net.Conn
	lot    *Lot
	tcp    *net.TCPConn
	reader idleread.Reader
	// unread is what Read returns first.
	unread []byte
	// place is that of the request which was not served again yet, guarded by the Lot.
	place *Place
	// gone: the client went away.
	gone bool
	// parked is when it was parked last, quiet that it was for long then.
	parked time.Time
	quiet  bool
}

// quietAfter is how long a connection has to be parked to be expected to be so again.
const quietAfter = 5 * time.Second

var _ io.ReaderFrom = (*Conn)(nil)

// own returns what a connection is parked as. The Conn of one that was parked before is
// kept: the poller knows it.
func (l *Lot) own(conn net.Conn) *Conn {
	if c, ok := conn.(*Conn); ok {
		return c
	}
	c := &Conn{Conn: conn, lot: l}
	c.tcp, _ = conn.(*net.TCPConn) // ConnContext saw to that
	c.reader.Init(conn)
	return c
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	return n, nil
}

// ReadFrom keeps sendfile for downloads.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) { return c.tcp.ReadFrom(r) }

// CloseWrite is what the server looks for to end a connection without losing an answer.
func (c *Conn) CloseWrite() error { return c.tcp.CloseWrite() }

// Close implements net.Conn. A request that was not served again is not any more.
func (c *Conn) Close() error {
	if guest := c.take(); guest != nil {
		guest.Abandon()
	}
	return c.Conn.Close()
}

// take takes the guest, nil if there is none any more.
func (c *Conn) take() Guest {
	c.lot.mu.Lock()
	defer c.lot.mu.Unlock()
	if c.place == nil {
		return nil
	}
	guest := c.lot.leaveLocked(c.place)
	c.place = nil
	return guest
}

// Plain returns the connection without what parking put around it, if nothing of that is
// needed any more: for who takes it from the server for good.
func Plain(conn net.Conn) net.Conn {
	if c, ok := conn.(*Conn); ok && len(c.unread) == 0 {
		return c.Conn
	}
	return conn
}

type connKey struct{}

// ConnContext is for the http.Server: by it Reserve and Returning know the connection of a
// request.
func (l *Lot) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	switch conn.(type) {
	case *net.TCPConn, *Conn:
		return context.WithValue(ctx, connKey{}, conn)
	}
	return ctx
}

// Returning returns the guest of a request that is served again, nil for any other, and
// whether its client went away. It is the caller's then.
func Returning(ctx context.Context) (guest Guest, gone bool) {
	c, ok := ctx.Value(connKey{}).(*Conn)
	if !ok {
		return nil, false
	}
	if guest = c.take(); guest != nil {
		c.quiet = time.Since(c.parked) >= quietAfter
	}
	return guest, c.gone
}

// Quiet reports whether the connection of a request was parked for long the last time.
func Quiet(ctx context.Context) bool {
	c, ok := ctx.Value(connKey{}).(*Conn)
	return ok && c.quiet
}
