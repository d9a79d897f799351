package app

import (
	"net"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/api"
)

// Routes is the table of all that the server answers, for tests that go through
// it row by row. The rows are shared and must not be changed.
func (s *Server) Routes() []api.Route { return slices.Clone(s.table) }

// MetricsAddr is where metrics are served, nil if they are not.
func (s *Server) MetricsAddr() net.Addr {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.Addr()
}
