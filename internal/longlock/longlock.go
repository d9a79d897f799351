// Package longlock is a lock for what takes long: the store or another node may be
// waited for while it is held. Who waits for it waits on a channel, so that a
// simulation with a clock of its own sees that nothing runs, and lets time pass;
// behind a sync.Mutex it would wait for ever.
package longlock

// Mutex is a lock that one goroutine at a time holds. It is made by New.
type Mutex struct{ held chan struct{} }

// New returns a lock that nobody holds.
func New() Mutex { return Mutex{make(chan struct{}, 1)} }

// Lock waits until nobody else holds the lock.
func (l Mutex) Lock() { l.held <- struct{}{} }

// TryLock takes the lock if nobody holds it.
func (l Mutex) TryLock() bool {
	select {
	case l.held <- struct{}{}:
		return true
	default:
		return false
	}
}

// Unlock gives the lock up.
func (l Mutex) Unlock() { <-l.held }
