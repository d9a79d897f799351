// Package membus is the bus within one process: payloads are handed over as
// they are. Each subscription has a bounded queue and a goroutine of its own,
// which Close waits for.
package membus

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/bus"
)

// Bus implements bus.Bus.
type Bus struct {
	mu struct {
		sync.RWMutex
		closed   bool
		subs     map[string][]*subscription
		handlers map[string]*handler
	}
}

var _ bus.Bus = (*Bus)(nil)

// New returns an open bus.
func New() *Bus {
	b := &Bus{}
	b.mu.subs = make(map[string][]*subscription)
	b.mu.handlers = make(map[string]*handler)
	return b
}

type subscription struct {
	bus     *Bus
	subject string
	queue   chan bus.Payload
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}
	dropped atomic.Uint64
}

// Publish implements bus.Bus.
func (b *Bus) Publish(subject string, p bus.Payload) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.mu.closed {
		return bus.ErrClosed
	}
	for _, s := range b.mu.subs[subject] {
		select {
		case s.queue <- p:
		default:
			s.dropped.Add(1)
		}
	}
	return nil
}

// Subscribe implements bus.Bus.
func (b *Bus) Subscribe(subject string, fn func(bus.Payload)) (bus.Subscription, error) {
	s := &subscription{
		bus: b, subject: subject,
		queue: make(chan bus.Payload, bus.QueueLength),
		stop:  make(chan struct{}), done: make(chan struct{}),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil, bus.ErrClosed
	}
	// A new slice each time: Publish walks the old one without copying it.
	b.mu.subs[subject] = append(b.mu.subs[subject][:len(b.mu.subs[subject]):len(b.mu.subs[subject])], s)
	go s.run(fn)
	return s, nil
}

func (s *subscription) run(fn func(bus.Payload)) {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case p := <-s.queue:
			fn(p)
		}
	}
}

func (s *subscription) Close() {
	s.bus.mu.Lock()
	old := s.bus.mu.subs[s.subject]
	kept := make([]*subscription, 0, len(old))
	for _, o := range old {
		if o != s {
			kept = append(kept, o)
		}
	}
	s.bus.mu.subs[s.subject] = kept
	s.bus.mu.Unlock()
	s.end()
}

func (s *subscription) end() {
	s.once.Do(func() { close(s.stop) })
	<-s.done
}

func (s *subscription) Dropped() uint64 { return s.dropped.Load() }

type handler struct {
	bus     *Bus
	subject string
	fn      func(context.Context, bus.Payload) (bus.Payload, error)
	running sync.WaitGroup
}

// Handle implements bus.Bus.
func (b *Bus) Handle(subject string, fn func(context.Context, bus.Payload) (bus.Payload, error)) (bus.Subscription, error) {
	h := &handler{bus: b, subject: subject, fn: fn}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil, bus.ErrClosed
	}
	b.mu.handlers[subject] = h
	return h, nil
}

func (h *handler) Close() {
	h.bus.mu.Lock()
	if h.bus.mu.handlers[h.subject] == h {
		delete(h.bus.mu.handlers, h.subject)
	}
	h.bus.mu.Unlock()
	h.running.Wait()
}

func (h *handler) Dropped() uint64 { return 0 }

// Request implements bus.Bus. The handler runs on the caller's goroutine.
func (b *Bus) Request(ctx context.Context, subject string, p bus.Payload) (bus.Payload, error) {
	b.mu.RLock()
	closed, h := b.mu.closed, b.mu.handlers[subject]
	if h != nil && !closed {
		h.running.Add(1)
	}
	b.mu.RUnlock()
	if closed {
		return nil, bus.ErrClosed
	}
	if h == nil {
		return nil, bus.ErrNoResponder
	}
	defer h.running.Done()
	return h.fn(ctx, p)
}

// Close implements bus.Bus. It waits for running subscribers.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.mu.closed = true
	subs := b.mu.subs
	b.mu.subs = make(map[string][]*subscription)
	b.mu.Unlock()
	for _, list := range subs {
		for _, s := range list {
			s.end()
		}
	}
	return nil
}
