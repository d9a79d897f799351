package app

import (
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/admin"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/report"
)

// adminRoutes are what administrators and their tools do.
func (s *Server) adminRoutes(sessions *session.Module, calls admin.Caller) []api.Route {
	return admin.New(admin.Deps{
		Server: s.cfg.Server.Name, Version: "hubbub " + obs.ReadBuild().Version, Count: s.store.partitions, Store: s.store,
		Router: s.node, Accounts: s.accounts(), Rooms: s.rooms(), Reports: report.NewReader(s.store, s.store.partitions),
		Sessions: sessions, API: calls, Clock: s.clock(),
		Changed: func(user ids.UserID) {
			s.tokens.Forget(user)
			s.gateway.RecheckUser(user)
		},
	}).Routes()
}
