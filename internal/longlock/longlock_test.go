package longlock

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTimePasses holds a lock for longer than another waits for it, by a clock that
// moves only when everybody waits.
func TestTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		begin := time.Now()
		l.Lock()
		if l.TryLock() {
			t.Error("two hold the lock")
		}
		go func() {
			time.Sleep(time.Hour)
			l.Unlock()
		}()
		l.Lock()
		if waited := time.Since(begin); waited != time.Hour {
			t.Errorf("the lock was given after %v", waited)
		}
		l.Unlock()
		if !l.TryLock() {
			t.Error("a free lock was refused")
		}
		l.Unlock()
	})
}
