package app

import (
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

// limiter bounds what callers do.
type limiter interface {
	api.RateLimiter
	Refund(class ratelimit.Class, key string)
}

// openLimiter makes the limiter, and lets the nodes count together what they share.
func (s *Server) openLimiter() (limiter, error) {
	rates := s.cfg.Limits.Rates()
	if len(rates) == 0 {
		return ratelimit.Off(), nil
	}
	l, err := ratelimit.New(limits(rates))
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	if !s.cfg.Clustered() {
		return l, nil
	}
	// It ends with the bus: until then the others may ask.
	return ratelimit.Share(l, ratelimit.SharedOptions{
		Bus: s.bus.Bus, Node: string(s.bus.id), Now: s.clock().Now,
		Home: func(key string) string { return string(s.node.Home(key)) },
	})
}

// limits are the configured rates; the limit of guesses per account is fixed.
func limits(rates map[string]config.Rate) ratelimit.Config {
	out := ratelimit.Defaults()
	for class, r := range rates {
		out[ratelimit.Class(class)] = ratelimit.Limit{PerSecond: r.PerSecond, Burst: r.Burst}
	}
	return out
}
