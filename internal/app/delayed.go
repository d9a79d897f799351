package app

import (
	"time"

	"github.com/hubbub-chat/hubbub/internal/delayed"
)

// newDelayed makes the service that sends events at a later time. It starts when
// there is somebody to send them.
func (s *Server) newDelayed() *delayed.Service {
	s.delayed = delayed.New(delayed.Options{
		Count: s.store.partitions, Store: s.store, Router: s.node, Bus: s.bus.Bus, Owner: s.node,
		Accounts: s.accounts(), Rooms: s.rooms(), Clock: s.clock(), Log: s.log,
		MaxDelay:     time.Duration(s.cfg.Limits.MaxEventDelayMS) * time.Millisecond,
		MaxScheduled: s.cfg.Limits.MaxDelayedEvents,
	})
	return s.delayed
}
