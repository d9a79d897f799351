package app

import "github.com/hubbub-chat/hubbub/internal/room"

// retention is how long events are kept.
func (s *Server) retention() room.Retention {
	c := &s.cfg.Retention
	return room.Retention{Enabled: c.Enabled, Default: c.DefaultMaxLifetimeMS, Min: c.MinLifetimeMS, Max: c.MaxLifetimeMS}
}

// retentionPolicies is what clients are told of it. spec: MSC1763 §Client-server
// API, as servers have it.
func (s *Server) retentionPolicies() map[string]any {
	c := &s.cfg.Retention
	if !c.Enabled {
		return nil
	}
	policies, limits := map[string]any{}, map[string]any{}
	if c.DefaultMaxLifetimeMS > 0 {
		policies["*"] = map[string]int64{"max_lifetime": c.DefaultMaxLifetimeMS}
	}
	bounds := map[string]int64{}
	if c.MinLifetimeMS > 0 {
		bounds["min"] = c.MinLifetimeMS
	}
	if c.MaxLifetimeMS > 0 {
		bounds["max"] = c.MaxLifetimeMS
	}
	if len(bounds) > 0 {
		limits["max_lifetime"] = bounds
	}
	return map[string]any{"policies": policies, "limits": limits}
}
