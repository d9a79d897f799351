package idleread

import (
	"errors"
	"io"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

type waiter chan struct{}

func (w waiter) Ready() { w <- struct{}{} }

func TestPoller(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		skip.Test(t, "no poller on this system")
	}
	defer p.Close()
	var pool Pool
	both := pairs(t)
	tcp, pipe := both["tcp"], both["pipe"]
	var r, other Reader
	r.Init(tcp[1])
	other.Init(pipe[1])
	w := make(waiter, 1)
	if p.Park(&other, w) || p.Take(&other) {
		t.Error("a connection without readiness waits")
	}
	if buf, n, err := r.Try(&pool); buf != nil || n != 0 || err != nil {
		t.Errorf("nothing sent: %d, %v", n, err)
	}
	for i := range 3 {
		if i > 0 { // else it is there already when the wait begins
			if !p.Park(&r, w) {
				t.Fatal("does not wait")
			}
		}
		if _, err := tcp[0].Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		if i == 0 && !p.Park(&r, w) {
			t.Fatal("does not wait")
		}
		<-w
		buf, n, err := r.Try(&pool)
		if err != nil || string(buf[:n]) != "abc" {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		pool.Put(buf)
		if p.Waiting() != 0 || p.Take(&r) {
			t.Error("what was ready still waits")
		}
	}
	if !p.Park(&r, w) || p.Waiting() != 1 || !p.Take(&r) || p.Take(&r) || p.Waiting() != 0 {
		t.Error("it was not taken back, once")
	}
	if !p.Park(&r, w) {
		t.Fatal("does not wait")
	}
	_ = tcp[0].Close()
	<-w
	if _, _, err := r.Try(&pool); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	_ = tcp[1].Close()
	if p.Park(&r, w) || p.Waiting() != 0 {
		t.Error("a closed connection waits")
	}
}

// An event may come when another has the place: who is there finds nothing to read.
func TestLateEvent(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		skip.Test(t, "no poller on this system")
	}
	defer p.Close()
	var pool Pool
	conns := pairs(t)["tcp"]
	var r Reader
	r.Init(conns[1])
	w := make(waiter, 1)
	if !p.Park(&r, w) {
		t.Fatal("does not wait")
	}
	p.ready(r.slot)
	<-w
	if buf, _, err := r.Try(&pool); buf != nil || err != nil {
		t.Errorf("read something: %v", err)
	}
	p.ready(1) // nobody is there any more
	select {
	case <-w:
		t.Error("woken twice")
	default:
	}
}
