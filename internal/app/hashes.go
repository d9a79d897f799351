package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// countHashes shows how much work passwords are: a flood of guesses is seen there
// first.
func (s *Server) countHashes(h *auth.Hasher) {
	s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: obs.Namespace, Subsystem: "auth", Name: "password_hashes_total",
		Help: "Password hashes that were computed: sign-ups, new passwords, logins and wrong guesses.",
	}, func() float64 { return float64(h.Hashes()) }))
}
