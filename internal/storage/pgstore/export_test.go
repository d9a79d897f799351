package pgstore

import "time"

// Wait makes a group of commits wait that long for the one before.
func (s *Store) Wait(d time.Duration) { s.slow = d }

// Waiting is how many commits wait for the next transaction.
func (s *Store) Waiting() (n int) {
	for _, d := range s.shards {
		d.few.mu.Lock()
		n += len(d.few.mu.queue)
		d.few.mu.Unlock()
	}
	return n
}
