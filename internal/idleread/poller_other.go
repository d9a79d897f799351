//go:build !linux

package idleread

// NewPoller returns nil: each connection waits on a goroutine.
func NewPoller() (*Poller, error) { return nil, nil }

func arm(int, int, int32, bool) error { return errWait }
