package app

import (
	"errors"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/accounts"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/mailer"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

// contacts starts what proves e-mail addresses, if mail can be sent.
func (s *Server) contacts(limiter *ratelimit.Limiter) (*contact.Service, error) {
	d := contact.Deps{
		Server: s.cfg.Server.Name, BaseURL: s.URL(), Router: s.node, Accounts: s.accounts(), Secrets: s.store.secrets,
		Limiter: limiter, Clock: s.clock(), NextLinks: append([]string{s.URL()}, s.cfg.SMTP.NextLinks...),
	}
	if s.cfg.SMTP.Addr == "" && s.cfg.Registration.RequireEmail {
		return nil, errors.New("registration.require_email needs a server that takes mail: set smtp.addr")
	}
	if s.cfg.SMTP.Addr != "" && s.cfg.SMTP.From == "" {
		return nil, errors.New("smtp.from is empty: say who sends the mail, such as Chat <chat@example.org>")
	}
	if s.cfg.SMTP.Addr != "" {
		var err error
		s.mailer, err = mailer.New(mailer.Options{
			Addr: s.cfg.SMTP.Addr, From: s.cfg.SMTP.From, User: s.cfg.SMTP.User, Password: s.cfg.SMTP.Password.Reveal(),
			Security: mailer.Security(s.cfg.SMTP.Security), Log: s.log,
		})
		if err != nil {
			return nil, err
		}
		d.Mail = s.mailer
	}
	return contact.New(d), nil
}

// accountRoutes are the endpoints about accounts beside their sessions.
func (s *Server) accountRoutes(sessions *session.Module, contacts *contact.Service) []api.Route {
	return accounts.New(accounts.Deps{
		Server: s.cfg.Server.Name, Router: s.node, Accounts: s.accounts(), Clock: s.clock(), Prover: sessions,
		Contacts: contacts,
		Changed: func(user ids.UserID) {
			s.tokens.Forget(user)
			s.gateway.RecheckUser(user)
			s.api.EndPolls(user, nil)
		},
	}).Routes()
}
