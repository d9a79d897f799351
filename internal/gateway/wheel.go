package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// recheckers is how many tokens are looked up at a time: enough to overlap with
// a slow store, too few to burden it.
const recheckers = 8

// maxLook is how many tokens are looked up in one read at most.
const maxLook = 100

// wheel visits every session once per round (times.recheck), slot by slot.
func (g *Gateway) wheel() {
	tick := time.NewTicker(g.times.recheck / wheelSlots)
	defer tick.Stop()
	var sessions []*session
	for slot := 0; ; slot = (slot + 1) % wheelSlots {
		select {
		case <-tick.C:
		case <-g.stop:
			return
		}
		sessions = g.hub.inSlot(slot, sessions[:0])
		now := g.now()
		for _, s := range sessions {
			s.heartbeat(now)
		}
		g.recheck(sessions)
		sessions = emptied(sessions)
	}
}

// heartbeat pings a quiet peer and closes a dead one. A ping is due when it
// would be late at the next visit.
func (s *session) heartbeat(now int64) {
	t := &s.g.times
	heard := now - s.heard.Load()
	if heard > 3*int64(t.heartbeat) {
		s.close(wire.CloseTimeout, "no pong")
		return
	}
	s.mu.Lock()
	stray := s.mu.caller.User == "" && now-s.born > int64(t.signIn)
	due := int64(t.heartbeat - t.recheck)
	// A peer that only listens has to be asked, however busy its queue is.
	quiet := heard > due || now-s.wrote.Load() > due && s.mu.flush == flushIdle
	if quiet && !stray && !s.mu.closing {
		s.pushLocked(wire.Frame{Op: wire.OpPing, Own: true})
	}
	s.mu.Unlock()
	if stray {
		s.close(wire.CloseTimeout, "not signed in")
	}
}

// recheck looks up the tokens of sessions and closes those whose token is no good
// any more. Revocations are announced (CloseDevice); this bounds the time that a
// lost announcement costs. When the store cannot tell, the session stays: what
// it could receive cannot be committed either.
func (g *Gateway) recheck(sessions []*session) {
	ctx, cancel := context.WithTimeout(g.ctx, g.times.recheck)
	defer cancel()
	var wg sync.WaitGroup
	places := make(chan struct{}, recheckers)
	for part := range slices.Chunk(sessions, maxLook) {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			g.look(ctx, part)
			for _, s := range part {
				s.recheck(ctx)
			}
		})
	}
	wg.Wait()
}

// look has the tokens of sessions looked up in one read.
func (g *Gateway) look(ctx context.Context, sessions []*session) {
	list, ok := g.asked.Get().(*credentialsList)
	if !ok {
		list = new(credentialsList)
	}
	n := 0
	for _, s := range sessions {
		if caller := s.signedIn(); caller.User != "" {
			list[n] = s.proven(&caller)
			n++
		}
	}
	g.cfg.Auth.Look(ctx, list[:n])
	clear(list[:n])
	g.asked.Put(list)
}

// credentialsList is for the tokens of one look-up. It is used again: thousands of idle
// sockets, looked at every few seconds, must not be what a server collects garbage for.
type credentialsList [maxLook]api.Credentials

func (s *session) recheck(ctx context.Context) {
	old := s.signedIn()
	if old.User == "" {
		return
	}
	caller, err := s.g.cfg.Auth.Authenticate(ctx, s.proven(&old))
	var e *merr.Error
	switch {
	case err == nil && (caller.User != old.User || caller.Device != old.Device):
		s.close(wire.CloseUnauthorized, string(merr.UnknownToken))
	case err == nil:
		s.mu.Lock()
		if s.mu.caller.TokenHash == old.TokenHash { // else an auth message was quicker
			s.mu.caller = caller
		}
		s.mu.Unlock()
	case errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		s.mu.Lock()
		replaced := s.mu.caller.TokenHash != old.TokenHash
		s.mu.Unlock()
		if !replaced {
			s.close(closeCode(err))
		}
	}
}

// signedIn is whose a session is that stays, zero if it is nobody's.
func (s *session) signedIn() api.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return api.Caller{}
	}
	return s.mu.caller
}

// proven are the credentials of a session's caller, which has no other token than one
// that was proven.
func (s *session) proven(caller *api.Caller) api.Credentials {
	return api.Credentials{User: caller.User, TokenHash: caller.TokenHash, AppService: caller.AppService, Addr: s.addr, UserAgent: s.userAgent.Value()}
}
