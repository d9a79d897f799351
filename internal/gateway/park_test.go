package gateway

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// serveParked serves sessions that wait in the poller after each message.
func serveParked(t *testing.T, ts times) *fixture {
	t.Helper()
	ts.park = 1
	f := serve(t, Config{times: ts})
	if f.poller == nil {
		skip.Test(t, "no poller on this system")
	}
	return f
}

func (f *fixture) awaitParked(t *testing.T, n int) {
	t.Helper()
	eventually(t, func() bool { return f.poller.Waiting() == n })
}

// A parked session answers, and parks again; one whose client went away ends, whether
// it said so or not; one that the server closes ends too.
func TestParked(t *testing.T) {
	f := serveParked(t, times{})
	a, b, c, d := signIn(t, f, "@a:x/D", true), signIn(t, f, "@b:x/D", true), signIn(t, f, "@c:x/D", true), signIn(t, f, "@d:x/D", true)
	f.awaitParked(t, 4)
	for range 3 {
		for _, p := range []*peer{a, b, c, d} {
			p.say(`{"op":"ping"}`)
			if m := p.hear(); m["op"] != "pong" {
				t.Fatalf("got %v", m)
			}
		}
		f.awaitParked(t, 4)
	}
	_ = a.CloseNow()
	f.awaitParked(t, 3)
	if err := b.Close(1000, "bye"); err != nil {
		t.Fatal(err)
	}
	f.awaitParked(t, 2)
	f.CloseUser("@c:x", wire.CloseForbidden)
	c.expectClose(wire.CloseForbidden)
	f.awaitParked(t, 1)
	eventually(t, func() bool { return f.Sockets() == 1 && len(f.feed.all()) == 1 })
	d.say(`{"op":"ping"}`)
	d.hear()
}

// A message that comes in two parts is read on with a goroutine, not in the poller.
func TestParkedBetweenMessagesOnly(t *testing.T) {
	f := serveParked(t, times{message: 50 * time.Millisecond})
	r := dialRaw(t, f)
	r.send(text(helloText))
	f.awaitParked(t, 1)
	r.send(text(helloText)[:20])
	r.expectClose(wire.CloseTimeout)
}

// Parked sessions whose clients do not answer the close frame do not hold a shutdown.
func TestParkedAreCut(t *testing.T) {
	f := serveParked(t, times{closing: time.Hour})
	const n = 20
	for i := range n {
		signIn(t, f, fmt.Sprintf("@u%d:x/D", i), true)
	}
	f.awaitParked(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if left := f.poller.Waiting(); left != 0 {
		t.Errorf("%d still wait", left)
	}
}

// A session fits into 352 bytes. The runtime's next size is that of decoded events, which
// the opening of a session leaves as garbage: sessions among it would keep the memory.
func TestSessionSize(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 352 {
		t.Errorf("%d bytes", n)
	}
}

// A session is parked when it has said hello, and not any more while it is busy.
func TestBusyIsNotParked(t *testing.T) {
	f := serve(t, Config{times: times{park: time.Hour}})
	p := signIn(t, f, "@a:x/D", true)
	if f.poller != nil {
		f.awaitParked(t, 1)
	}
	for range 3 {
		p.say(`{"op":"ping"}`)
		p.hear()
	}
	if n := f.poller.Waiting(); n != 0 {
		t.Errorf("%d wait in the poller", n)
	}
}
