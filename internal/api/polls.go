package api

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// polls are the long polls under way. One that waits while its token ends would
// be handed what came later.
type polls struct {
	mu struct {
		sync.Mutex
		byUser map[ids.UserID][]*poll
	}
}

type poll struct {
	device ids.DeviceID
	// cancel makes it return; it does not block.
	cancel func()
	// ended: the caller has to be proven again before the answer is given.
	ended atomic.Bool
}

func newPolls() *polls {
	p := &polls{}
	p.mu.byUser = make(map[ids.UserID][]*poll)
	return p
}

// enter notes that r, whose caller is known, may wait.
func (p *polls) enter(r *Request) *poll {
	one := &poll{device: r.Caller.Device}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.byUser[r.Caller.User] = append(p.mu.byUser[r.Caller.User], one)
	return one
}

// serve gives r a context that ends with its poll.
func (p *polls) serve(r *Request, one *poll) (end context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context)
	r.Context = ctx
	p.endBy(one, cancel)
	return cancel
}

// endBy has a function called, and none that was given before, when the poll ends: at
// once, if it has.
func (p *polls) endBy(one *poll, cancel func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.cancel = cancel; one.ended.Load() {
		cancel()
	}
}

func (p *polls) leave(user ids.UserID, one *poll) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := slices.DeleteFunc(p.mu.byUser[user], func(o *poll) bool { return o == one })
	if len(rest) == 0 {
		delete(p.mu.byUser, user)
		return
	}
	p.mu.byUser[user] = rest
}

// end ends the long polls of some devices of a user, of all if devices is nil.
func (p *polls) end(user ids.UserID, devices []ids.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.mu.byUser[user] {
		if devices == nil || slices.Contains(devices, one.device) {
			one.ended.Store(true)
			one.cancel()
		}
	}
}

// EndPolls makes the long polls of some devices of a user, of all if devices is
// nil, return at once: their tokens have ended, or the account was locked. Who is
// still welcome is asked to come back.
func (d *Dispatcher) EndPolls(user ids.UserID, devices []ids.DeviceID) { d.polls.end(user, devices) }
