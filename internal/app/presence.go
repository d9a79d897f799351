package app

import (
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/presence"
)

func (s *Server) presenceRoutes() []api.Route {
	return presence.New(presence.Deps{
		Feed: s.hub, Router: s.node, Accounts: s.accounts(), Clock: s.clock(), Enabled: s.cfg.Presence.Enabled,
	}).Routes()
}
