package app

import (
	"errors"
	"fmt"
	"os"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/accounts"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	apisso "github.com/hubbub-chat/hubbub/internal/api/sso"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/mailer"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

// contacts starts what proves e-mail addresses, if mail can be sent.
func (s *Server) contacts(limiter limiter) (*contact.Service, error) {
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

// people is what lets people in.
type people struct {
	sessions *session.Module
	contacts *contact.Service
	signOn   *sso.Service
}

func (s *Server) people(limiter limiter) (*people, error) {
	var shared *auth.SharedSecret
	if secret := s.cfg.Registration.SharedSecret.Reveal(); secret != "" {
		shared = auth.NewSharedSecret(secret, s.store.secrets, s.clock())
	}
	contacts, err := s.contacts(limiter)
	if err != nil {
		return nil, err
	}
	signOn, webTokens, err := s.foreign()
	if err != nil {
		return nil, err
	}
	hasher := newHasher(s.cfg)
	s.countHashes(hasher)
	sessions := session.New(session.Deps{
		Guests: s.cfg.Registration.Guests, Providers: signOn.Providers(), JWT: webTokens, JWTCreates: s.cfg.JWT.CreateUsers,
		Server: s.cfg.Server.Name, Mode: s.cfg.Registration.Mode, Contacts: contacts, NeedEmail: s.cfg.Registration.RequireEmail,
		Router: s.node, Accounts: s.accounts(),
		Services: s.services.registry,
		Hasher:   hasher, Policy: auth.NewPolicy(s.cfg.Registration.AllowWeakPasswords),
		Secrets: s.store.secrets, Shared: shared, Limiter: limiter, Clock: s.clock(), Log: s.log, Tokens: s.tokens,
		Revoked: func(user ids.UserID, devices []ids.DeviceID) {
			for _, d := range devices {
				s.gateway.CloseDevice(user, d, closeTokenRevoked)
			}
			s.api.EndPolls(user, devices)
			s.tellEnded(user, devices)
		},
	})
	return &people{sessions, contacts, signOn}, nil
}

func newHasher(cfg config.Config) *auth.Hasher {
	params := auth.DefaultParams()
	if cfg.Registration.CheapPasswordHashes {
		params = auth.CheapParams()
	}
	return auth.NewHasher(params)
}

// accountRoutes are the endpoints about accounts beside their sessions.
func (s *Server) accountRoutes(p *people) []api.Route {
	own := accounts.New(accounts.Deps{
		Server: s.cfg.Server.Name, Router: s.node, Accounts: s.accounts(), Clock: s.clock(), Prover: p.sessions,
		Contacts: p.contacts,
		Changed: func(user ids.UserID) {
			s.tokens.Forget(user)
			s.gateway.RecheckUser(user)
			s.api.EndPolls(user, nil)
			s.tellEnded(user, nil)
		},
	}).Routes()
	return append(own, apisso.New(apisso.Deps{
		Server: s.cfg.Server.Name, BaseURL: s.URL(), SSO: p.signOn, Router: s.node, Accounts: s.accounts(), Reserved: p.sessions.Reserved, Pending: p.sessions.Pending, Clock: s.clock(),
		Log: s.log, Redirects: append([]string{s.URL()}, s.cfg.SSO.Redirects...),
	}).Routes()...)
}

// foreign is what lets people in who are known elsewhere; both are nil if the
// configuration names nobody.
func (s *Server) foreign() (*sso.Service, *auth.JWT, error) {
	var providers []sso.Provider
	for _, name := range s.cfg.SSO.ProviderFiles {
		file, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("sso.provider_files: %w", err)
		}
		p, err := sso.ParseProvider(file)
		if err != nil {
			return nil, nil, fmt.Errorf("sso.provider_files: %s: %w", name, err)
		}
		providers = append(providers, p)
	}
	signOn, err := sso.New(providers, s.URL(), s.store.secrets, s.clock(), nil)
	if err != nil || len(s.cfg.JWT.Algorithms) == 0 {
		return signOn, nil, err
	}
	o := auth.JWTOptions{
		Algorithms: s.cfg.JWT.Algorithms, Secret: []byte(s.cfg.JWT.Secret.Reveal()), Issuer: s.cfg.JWT.Issuer,
		Audiences: s.cfg.JWT.Audiences, Subject: s.cfg.JWT.SubjectClaim,
	}
	if s.cfg.JWT.KeysFile != "" {
		if o.Keys, err = os.ReadFile(s.cfg.JWT.KeysFile); err != nil {
			return nil, nil, fmt.Errorf("jwt.keys_file: %w", err)
		}
	}
	webTokens, err := auth.NewJWT(o)
	return signOn, webTokens, err
}
