package natsbus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/bustest"
	"github.com/hubbub-chat/hubbub/internal/bus/natsbus"
)

var nodes atomic.Int64

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, change func(*natsbus.Options)) *natsbus.Bus {
	t.Helper()
	o := natsbus.Options{
		Deployment: "test", Node: fmt.Sprint("n", nodes.Add(1)), Listen: "127.0.0.1:0", Secret: "secret",
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	b, err := natsbus.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pair opens two nodes of one deployment.
func pair(t *testing.T) (a, b *natsbus.Bus) {
	t.Helper()
	a = open(t, nil)
	return a, open(t, func(o *natsbus.Options) { o.Join = []string{a.Addr()} })
}

func TestConformance(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bus.Bus { return open(t, nil) })
}

// across publishes and asks on one node what another subscribes to and handles.
type across struct {
	bus.Bus // that of the subscribers
	from    *natsbus.Bus
	t       *testing.T
	names   int
}

func (x *across) Publish(s string, p bus.Payload) error { return x.from.Publish(s, p) }

func (x *across) Request(ctx context.Context, s string, p bus.Payload) (bus.Payload, error) {
	return x.from.Request(ctx, s, p)
}

func (x *across) Subscribe(s string, fn func(bus.Payload)) (bus.Subscription, error) {
	sub, err := x.Bus.Subscribe(s, fn)
	if err == nil {
		x.settle()
	}
	return sub, err
}

func (x *across) Handle(s string, fn func(context.Context, bus.Payload) (bus.Payload, error)) (bus.Subscription, error) {
	sub, err := x.Bus.Handle(s, fn)
	if err == nil {
		x.settle()
	}
	return sub, err
}

// settle returns when the one node knows of all that the other subscribed to: a
// handler that came last is known last.
func (x *across) settle() {
	x.names++
	name := fmt.Sprint("settle", x.names)
	h, err := x.Bus.Handle(name, func(context.Context, bus.Payload) (bus.Payload, error) { return bus.Raw(nil), nil })
	if err != nil {
		x.t.Fatal(err)
	}
	defer h.Close()
	for {
		_, err := x.from.Request(x.t.Context(), name, bus.Raw(nil))
		if err == nil {
			return
		}
		if !errors.Is(err, bus.ErrNoResponder) {
			x.t.Fatal(err)
		}
		runtime.Gosched()
	}
}

func (x *across) Close() error { return errors.Join(x.from.Close(), x.Bus.Close()) }

// The contract holds between two nodes as it does within one.
func TestConformanceAcross(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bus.Bus {
		a, b := pair(t)
		return &across{Bus: a, from: b, t: t}
	})
}

// The contract holds with a server outside.
func TestConformanceOutside(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("no server")
	}
	outside := func(o *natsbus.Options) { o.URL, o.Listen = s.ClientURL(), "" }
	bustest.Run(t, func(t *testing.T) bus.Bus {
		// Each has a name of its own: what is asked of a node that has just gone, of which
		// the server does not know yet, is lost.
		name := fmt.Sprint("test", nodes.Add(1))
		own := func(o *natsbus.Options) { outside(o); o.Deployment = name }
		return &across{Bus: open(t, own), from: open(t, own), t: t}
	})
	// Another deployment on the same server hears nothing.
	a, other := open(t, outside), open(t, func(o *natsbus.Options) { outside(o); o.Deployment = "other" })
	if _, err := a.Handle("q", func(context.Context, bus.Payload) (bus.Payload, error) { return bus.Raw(nil), nil }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Request(t.Context(), "q", bus.Raw(nil)); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("another deployment answers: %v", err)
	}
}

// Requests and answers of any size up to the limit arrive whole; beyond it they are
// refused, and so are messages that NATS does not carry.
func TestLarge(t *testing.T) {
	a, b := pair(t)
	x := &across{Bus: a, from: b, t: t}
	if _, err := x.Handle("echo", func(_ context.Context, p bus.Payload) (bus.Payload, error) {
		r := p.(bus.Raw)
		if len(r) == 1 {
			return make(bus.Raw, 65<<20), nil
		}
		return r, nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 512 << 10, 512<<10 + 1, 5<<20 + 7} {
		in := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, n/7+1)[:n]
		out, err := x.Request(t.Context(), "echo", bus.Raw(in))
		if err != nil || !bytes.Equal(out.(bus.Raw), in) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if _, err := x.Request(t.Context(), "echo", make(bus.Raw, 65<<20)); !errors.Is(err, natsbus.ErrTooLarge) {
		t.Errorf("too large a request: %v", err)
	}
	if _, err := x.Request(t.Context(), "echo", bus.Raw("x")); err == nil {
		t.Error("too large an answer arrived")
	}
	if err := x.Publish("log", make(bus.Raw, 9<<20)); !errors.Is(err, natsbus.ErrTooLarge) {
		t.Errorf("too large a message: %v", err)
	}
}

// The time that the caller waits is what the handler has.
func TestDeadline(t *testing.T) {
	a, b := pair(t)
	x := &across{Bus: a, from: b, t: t}
	ended := make(chan error, 1)
	if _, err := x.Handle("wait", func(ctx context.Context, _ bus.Payload) (bus.Payload, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := x.Request(ctx, "wait", bus.Raw(nil)); err == nil {
		t.Error("answered")
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handler's context ended with %v", err)
	}
}

// A node of another deployment, or with another secret, is told so when it starts.
func TestRefused(t *testing.T) {
	a := open(t, nil)
	for name, change := range map[string]func(*natsbus.Options){
		"secret":     func(o *natsbus.Options) { o.Secret = "wrong" },
		"deployment": func(o *natsbus.Options) { o.Deployment = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			o := natsbus.Options{
				Deployment: "test", Node: "stranger", Listen: "127.0.0.1:0", Secret: "secret", Join: []string{a.Addr()},
			}
			change(&o)
			b, err := natsbus.Open(t.Context(), o)
			if !errors.Is(err, natsbus.ErrRefused) {
				t.Errorf("got %v", err)
			}
			if b != nil {
				b.Close()
			}
		})
	}
}
