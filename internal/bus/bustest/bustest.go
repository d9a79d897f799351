// Package bustest is the conformance suite of bus implementations.
package bustest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
)

// patience bounds the wait for a message that must come.
const patience = 10 * time.Second

// Run checks the bus that open returns against the contract of package bus.
func Run(t *testing.T, open func(t *testing.T) bus.Bus) {
	t.Run("delivers in order to every subscriber", func(t *testing.T) { delivers(t, open(t)) })
	t.Run("a slow subscriber delays nobody and loses only its own", func(t *testing.T) { slow(t, open(t)) })
	t.Run("closed subscription hears nothing", func(t *testing.T) { unsubscribes(t, open(t)) })
	t.Run("request", func(t *testing.T) { requests(t, open(t)) })
	t.Run("closed bus", func(t *testing.T) { closes(t, open(t)) })
}

func text(t *testing.T, p bus.Payload) string {
	t.Helper()
	b, err := p.MarshalBinary()
	if err != nil {
		t.Errorf("marshal payload: %v", err)
	}
	return string(b)
}

func receive(t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(patience):
		t.Fatal("no message")
		return ""
	}
}

func delivers(t *testing.T, b bus.Bus) {
	defer b.Close()
	const messages = 100
	a, c := make(chan string, messages), make(chan string, messages)
	for _, ch := range []chan string{a, c} {
		if _, err := b.Subscribe("one", func(p bus.Payload) { ch <- text(t, p) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Subscribe("two", func(p bus.Payload) { t.Errorf("subject two got %s", text(t, p)) }); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		if err := b.Publish("one", bus.Raw{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ch := range []chan string{a, c} {
		for i := range messages {
			if got := receive(t, ch); got != string([]byte{byte(i)}) {
				t.Fatalf("message %d is %q", i, got)
			}
		}
	}
}

func slow(t *testing.T, b bus.Bus) {
	defer b.Close()
	release := make(chan struct{})
	stuck, err := b.Subscribe("s", func(bus.Payload) { <-release })
	if err != nil {
		t.Fatal(err)
	}
	// Well above what queues of the transport may add to QueueLength.
	const messages = 4 * bus.QueueLength
	seen := make(chan string, messages)
	if _, err := b.Subscribe("s", func(p bus.Payload) { seen <- text(t, p) }); err != nil {
		t.Fatal(err)
	}
	for range messages {
		if err := b.Publish("s", bus.Raw("x")); err != nil {
			t.Fatal(err)
		}
		receive(t, seen)
	}
	if stuck.Dropped() == 0 {
		t.Error("the stuck subscriber dropped nothing: its queue is not bounded")
	}
	close(release)
}

func unsubscribes(t *testing.T, b bus.Bus) {
	defer b.Close()
	var mu sync.Mutex
	closed := false
	sub, err := b.Subscribe("s", func(bus.Payload) {
		mu.Lock()
		defer mu.Unlock()
		if closed {
			t.Error("called after Close")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := b.Publish("s", bus.Raw("x")); err != nil {
			t.Fatal(err)
		}
	}
	sub.Close()
	mu.Lock()
	closed = true
	mu.Unlock()
	if err := b.Publish("s", bus.Raw("x")); err != nil {
		t.Fatal(err)
	}
}

var errRefused = errors.New("refused")

func requests(t *testing.T, b bus.Bus) {
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := b.Request(ctx, "q", bus.Raw("x")); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("nobody there: got %v, want ErrNoResponder", err)
	}
	h, err := b.Handle("q", func(_ context.Context, p bus.Payload) (bus.Payload, error) {
		if text(t, p) == "bad" {
			return nil, errRefused
		}
		return bus.Raw("re: " + text(t, p)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			p, err := b.Request(ctx, "q", bus.Raw("x"))
			if err != nil || text(t, p) != "re: x" {
				t.Errorf("got %v, %v", p, err)
			}
		})
	}
	wg.Wait()
	if _, err := b.Request(ctx, "q", bus.Raw("bad")); err == nil {
		t.Error("the handler's error got lost")
	}
	h.Close()
	if _, err := b.Request(ctx, "q", bus.Raw("x")); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("handler gone: got %v, want ErrNoResponder", err)
	}
}

func closes(t *testing.T, b bus.Bus) {
	if _, err := b.Subscribe("s", func(bus.Payload) {}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("s", bus.Raw("x")); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("publish: got %v, want ErrClosed", err)
	}
	if _, err := b.Subscribe("s", func(bus.Payload) {}); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("subscribe: got %v, want ErrClosed", err)
	}
}
