// Package clock lets time be injected: the real one in production, a manual one
// in tests and simulations.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time. Implementations are safe for concurrent use.
type Clock interface {
	Now() time.Time
}

// Real is the clock of the machine.
type Real struct{}

var (
	_ Clock = Real{}
	_ Clock = (*Manual)(nil)
)

// Now returns the time of the machine.
func (Real) Now() time.Time { return time.Now() }

// Manual is a clock that moves only when told to. Its zero value stands at the
// zero time.
type Manual struct {
	mu struct {
		sync.Mutex
		now time.Time
	}
}

// NewManual returns a clock that stands at now.
func NewManual(now time.Time) *Manual {
	m := &Manual{}
	m.mu.now = now
	return m
}

// Now returns the time last set.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.now
}

// Advance moves the clock by d, which may be negative: clocks jump.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = m.mu.now.Add(d)
}
