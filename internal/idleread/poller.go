package idleread

import (
	"os"
	"sync"
	"syscall"
)

// Poller waits for bytes on any number of connections with one goroutine. A
// connection that waits there has no goroutine of its own, which is a third of what it
// costs otherwise; but each wait is a system call, which a goroutine's is not. So it is
// for connections that will be quiet for long.
//
// How: a poll descriptor of the kernel holds the connections, each armed for one
// event, beside the runtime's own; the goroutine waits for it as for any other file.
// A place in slots is what an event names. It may be late, when its connection was
// taken back and another has the place: then that one is woken for nothing, and finds
// nothing to read.
//
// Methods may be called on a nil Poller, where nothing can wait.
type Poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	done chan struct{}

	mu struct {
		sync.Mutex
		slots []place
		free  []int32
	}
}

// place is a connection that waits; its slot is the index and one.
type place struct {
	r *Reader
	w Waiter
}

// Waiter is told when its connection has something to read, or has ended.
type Waiter interface {
	// Ready must not wait. The connection does not wait in the Poller any more.
	Ready()
}

// Park hands the wait for the next bytes of r to the Poller, which belongs to it until
// Ready or Take. It returns false if it cannot be; then r is still the caller's.
func (p *Poller) Park(r *Reader, w Waiter) bool {
	if p == nil || r.raw == nil {
		return false
	}
	slot := p.enter(r, w)
	var armed error = errWait
	err := r.raw.Control(func(fd uintptr) {
		armed = arm(p.fd, int(fd), slot, r.known)
		r.known = r.known || armed == nil
	})
	// If someone took it meanwhile, it is theirs.
	return err == nil && armed == nil || !p.Take(r)
}

// enter gives r a place.
func (p *Poller) enter(r *Reader, w Waiter) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.mu.free); n > 0 {
		r.slot = p.mu.free[n-1]
		p.mu.free = p.mu.free[:n-1]
	} else {
		p.mu.slots = append(p.mu.slots, place{})
		r.slot = int32(len(p.mu.slots))
	}
	p.mu.slots[r.slot-1] = place{r, w}
	return r.slot
}

// Take takes r back, for one whose connection was closed: that is no event. It returns
// false if r does not wait here, or was just found ready.
func (p *Poller) Take(r *Reader) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaveLocked(r.slot) != nil
}

// leaveLocked empties a slot, and returns who waited there, nil if nobody did.
func (p *Poller) leaveLocked(slot int32) Waiter {
	if slot == 0 || p.mu.slots[slot-1].r == nil {
		return nil
	}
	at := &p.mu.slots[slot-1]
	w := at.w
	at.r.slot = 0
	*at = place{}
	p.mu.free = append(p.mu.free, slot)
	return w
}

// ready wakes who waits at a slot.
func (p *Poller) ready(slot int32) {
	p.mu.Lock()
	w := p.leaveLocked(slot)
	p.mu.Unlock()
	if w != nil {
		w.Ready()
	}
}

// Waiting is how many connections wait.
func (p *Poller) Waiting() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.slots) - len(p.mu.free)
}

// Close ends the goroutine. Nothing may wait any more.
func (p *Poller) Close() {
	if p != nil {
		_ = p.file.Close()
		<-p.done
	}
}
