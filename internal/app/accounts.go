package app

import (
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/accounts"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// accountRoutes are the endpoints about accounts beside their sessions.
func (s *Server) accountRoutes(sessions *session.Module) []api.Route {
	return accounts.New(accounts.Deps{
		Server: s.cfg.Server.Name, Router: s.node, Accounts: s.accounts(), Clock: s.clock(), Prover: sessions,
		Changed: func(user ids.UserID) {
			s.tokens.Forget(user)
			s.gateway.RecheckUser(user)
			s.api.EndPolls(user, nil)
		},
	}).Routes()
}
