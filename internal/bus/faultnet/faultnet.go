// Package faultnet is a network with faults, for tests: TCP proxies that can be told
// to cut the connections through them, to swallow what is sent, or to be slow.
//
// A Proxy stands in front of one address. Who connects is told apart by process, so
// that of three nodes that all reach each other through proxies any two can be
// parted.
package faultnet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Fault is what a connection suffers.
type Fault int

// The faults.
const (
	// Pass: none.
	Pass Fault = iota
	// Cut: connections are closed, and new ones too.
	Cut
	// Hole: nothing arrives, and nobody is told.
	Hole
	// Slow: what is sent arrives Delay later.
	Slow
)

// Delay is how late everything is on a slow connection, each way.
const Delay = 50 * time.Millisecond

// poll is how often a connection in a hole looks whether it is out of it.
const poll = 5 * time.Millisecond

// Proxy passes connections on to an address. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	to       string
	// who tells who connects, "" if it is not known.
	who func(client *net.TCPAddr, proxy *net.TCPAddr) string
	wg  sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		// faults are by who connects; "" is for all others.
		faults map[string]Fault
		conns  map[*pair]bool
	}
}

// pair are the two sides of a connection.
type pair struct {
	from           string
	client, server net.Conn
}

// New listens on 127.0.0.1 until the test ends. who may be nil.
func New(t testing.TB, to string, who func(client, proxy *net.TCPAddr) string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, to: to, who: who}
	p.mu.faults = make(map[string]Fault)
	p.mu.conns = make(map[*pair]bool)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the port of Addr.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Set sets what those suffer who connect as from, "" for all who are not named.
func (p *Proxy) Set(from string, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.faults[from] = f
	for c := range p.mu.conns {
		if p.faultLocked(c.from) == Cut {
			c.close()
		}
	}
}

// Open is how many connections go through the proxy.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.conns)
}

func (p *Proxy) faultLocked(from string) Fault {
	if f, named := p.mu.faults[from]; named {
		return f
	}
	return p.mu.faults[""]
}

func (p *Proxy) fault(from string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return Cut
	}
	return p.faultLocked(from)
}

func (c *pair) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.mu.closed = true
	for c := range p.mu.conns {
		c.close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	from := ""
	if p.who != nil {
		from = p.who(client.RemoteAddr().(*net.TCPAddr), client.LocalAddr().(*net.TCPAddr))
	}
	if p.passes(from) == Cut {
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{from, client, server}
	p.mu.Lock()
	cut := p.mu.closed || p.faultLocked(from) == Cut
	if !cut {
		p.mu.conns[c] = true
	}
	p.mu.Unlock()
	if cut {
		c.close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.carry(c, client, server) })
	both.Go(func() { p.carry(c, server, client) })
	both.Wait()
	p.mu.Lock()
	delete(p.mu.conns, c)
	p.mu.Unlock()
}

// passes waits while who connects is in a hole, and returns the fault.
func (p *Proxy) passes(from string) Fault {
	for {
		f := p.fault(from)
		if f != Hole {
			return f
		}
		time.Sleep(poll)
	}
}

// chunk is what was read, and when it is due at the other end.
type chunk struct {
	data []byte
	due  time.Time
}

// carry takes bytes from one side to the other, and ends both sides when one ends.
func (p *Proxy) carry(c *pair, from, to net.Conn) {
	defer c.close()
	const waiting = 1024
	queue := make(chan chunk, waiting)
	var writing sync.WaitGroup
	writing.Go(func() {
		defer c.close()
		for k := range queue {
			time.Sleep(time.Until(k.due))
			if p.passes(c.from) == Cut {
				continue
			}
			if _, err := to.Write(k.data); err != nil {
				_ = from.Close()
			}
		}
	})
	defer writing.Wait()
	defer close(queue)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			k := chunk{data: append([]byte(nil), buf[:n]...)}
			if p.fault(c.from) == Slow {
				k.due = time.Now().Add(Delay)
			}
			queue <- k
		}
		if err != nil {
			return
		}
	}
}

// Address returns a free address of 127.0.0.1. Its port is not one of those from which
// connections are made: these are free one moment, and somebody's the next.
func Address(t testing.TB) string {
	t.Helper()
	const from, to, tries = 10240, 32768, 100
	for range tries {
		addr := fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(to-from))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}
