package chaos

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// perUser is how many sockets one user has in a storm: as many as a node lets in.
const perUser = 50

// storm opens many sockets, kills the node under a third of them, and then cuts them
// all at once: all must be back, and say so with a position that goes on.
func (s *scene) storm() string {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var up atomic.Int64
	var wg sync.WaitGroup
	var dialer wsclient.Dialer
	type socket struct {
		mu sync.Mutex
		c  *wsclient.Client
	}
	sockets := make([]*socket, s.sockets)
	var first sync.WaitGroup
	for i := range sockets {
		if i%perUser == 0 && i > 0 {
			first.Wait() // so that the beginning is no storm
		}
		k := &socket{}
		sockets[i] = k
		w := s.stormUsers(i / perUser)
		c := s.client(w.User, w.Name, w.Token)
		first.Add(1)
		wg.Go(func() {
			begun := sync.OnceFunc(first.Done)
			defer begun()
			var since string
			var marks map[string]string
			for ctx.Err() == nil {
				n := s.fleet.pick(c.rng)
				broken := make(chan error, 1)
				dialing, done := context.WithTimeout(ctx, s.callLimit)
				conn, err := dialer.Dial(dialing, n.url(), wsclient.Options{
					Token: c.Token, Sync: true, Since: since, Marks: marks, OnDisconnect: func(err error) { broken <- err },
				})
				done()
				if err != nil {
					pause(ctx)
					continue
				}
				k.mu.Lock()
				k.c = conn
				k.mu.Unlock()
				up.Add(1)
				begun()
				select {
				case <-broken:
				case <-ctx.Done():
				}
				up.Add(-1)
				_ = conn.Close()
				since, marks = conn.Position()
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	s.allUp(&up)
	n, _ := s.one()
	n.kill()
	after := time.Now()
	for up.Load() == int64(s.sockets) && time.Since(after) < liveness {
		time.Sleep(time.Millisecond)
	}
	text := fmt.Sprintf("%d sockets; after the death of a node all are back in %v", s.sockets, s.allUp(&up))
	n.start()
	s.fleet.await(n)
	for _, k := range sockets {
		k.mu.Lock()
		k.c.Abort()
		k.mu.Unlock()
	}
	after = time.Now()
	for up.Load() == int64(s.sockets) && time.Since(after) < liveness {
		time.Sleep(time.Millisecond)
	}
	return text + fmt.Sprintf(", after all were cut in %v", s.allUp(&up))
}

// allUp waits until all sockets are connected.
func (s *scene) allUp(up *atomic.Int64) time.Duration {
	begin := time.Now()
	for up.Load() < int64(s.sockets) {
		if time.Since(begin) > liveness {
			s.fleet.t.Fatalf("%d of %d sockets are connected", up.Load(), s.sockets)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin).Round(10 * time.Millisecond)
}

// stormUsers is a device of the user with a number, made when first asked for.
func (s *scene) stormUsers(i int) *client {
	for len(s.crowd) <= i {
		s.crowd = append(s.crowd, s.register(fmt.Sprintf("s%d", len(s.crowd))))
	}
	return s.crowd[i]
}
