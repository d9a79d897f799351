// Package sso lets people sign in with an account they have elsewhere, by OpenID
// Connect.
//
// Steps: Begin sends the browser to the provider, with a state that only this
// server can open, and gives the browser a cookie; the provider sends it back with
// a code; Finish exchanges the code, by a call of its own, for a signed statement
// of who that is.
//
// Invariants, each against an attack that servers have known: the state is bound to
// the browser by the cookie (or the code of one person ends in the session of
// another), to the provider (or one answers for another), and to a time; the code is
// bound to the flow by PKCE with S256; the statement is bound to the flow by a nonce,
// and its signature, issuer, audience and time are checked with the keys of the
// provider, whatever its header says. Nothing is kept of a flow that was begun, so a
// million of them cost nothing.
//
// All methods may be called from any goroutine. The package starts none.
package sso

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"

	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// FlowLife is how long signing in at the provider may take.
	FlowLife = 10 * time.Minute
	// callTimeout bounds a call to the provider.
	callTimeout = 15 * time.Second
	// maxRedirect is the longest redirect URL in bytes: it travels in the state, which
	// stands in a URL.
	maxRedirect = 1500
	// purposeState is that of the key that seals states.
	purposeState = "sso/state"
)

// Provider is where people have accounts. It is read from a JSON file.
type Provider struct {
	// ID names the provider in URLs and in the store; it must not change.
	ID string `json:"id"`
	// Name, Icon (an mxc URI) and Brand are shown by clients.
	Name  string `json:"name"`
	Icon  string `json:"icon,omitempty"`
	Brand string `json:"brand,omitempty"`
	// Issuer is where the provider's metadata are found.
	Issuer       string   `json:"issuer"`
	ClientID     string   `json:"client_id"`
	ClientSecret string   `json:"client_secret,omitempty"`
	Scopes       []string `json:"scopes,omitempty"`
	// UserClaim holds the wanted user name, NameClaim the display name.
	UserClaim string `json:"user_claim,omitempty"`
	NameClaim string `json:"name_claim,omitempty"`
	// ExistingOnly refuses people who have not signed in here before.
	ExistingOnly bool `json:"existing_only,omitempty"`
}

// ParseProvider reads the file of a provider.
func ParseProvider(file []byte) (Provider, error) {
	p := Provider{Scopes: []string{oidc.ScopeOpenID, "profile"}, UserClaim: "preferred_username", NameClaim: "name"}
	if err := json.Unmarshal(file, &p, json.RejectUnknownMembers(true)); err != nil {
		return p, fmt.Errorf("provider: %w", err)
	}
	for name, value := range map[string]string{"id": p.ID, "name": p.Name, "issuer": p.Issuer, "client_id": p.ClientID} {
		if value == "" {
			return p, fmt.Errorf("provider: %s is missing", name)
		}
	}
	if !isID(p.ID) {
		return p, errors.New("provider: id has other characters than a-z, A-Z, 0-9 and -._~, or too many")
	}
	return p, nil
}

// isID checks the grammar. spec: client-server §SSO, IdentityProvider.id.
func isID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != '~' {
			return false
		}
	}
	return id != "" && len(id) <= 64 && id != "." && id != ".."
}

// Errors of Begin and Finish.
var (
	// ErrUnknown: there is no such provider.
	ErrUnknown = errors.New("sso: unknown provider")
	// ErrFlow: the flow is not one that this browser began, or too old.
	ErrFlow = errors.New("sso: the flow is unknown or has ended")
	// ErrRefused: the provider did not say who it is.
	ErrRefused = errors.New("sso: the provider refused")
	// ErrAway: the provider cannot be reached.
	ErrAway = errors.New("sso: the provider does not answer")
	// ErrRedirect: the redirect URL is too long.
	ErrRedirect = errors.New("sso: the redirect URL is too long")
)

// Service signs people in.
type Service struct {
	base   string
	sealer *auth.Sealer
	clock  clock.Clock
	client *http.Client
	list   []*provider
}

type provider struct {
	Provider

	mu struct {
		sync.Mutex
		found *oidc.Provider // nil until it was asked
	}
}

// New returns the service. base is where browsers reach the server. transport is nil
// for the usual one.
func New(providers []Provider, base string, s *auth.Secrets, c clock.Clock, transport http.RoundTripper) (*Service, error) {
	out := &Service{
		base: base, sealer: auth.NewSealer(s, purposeState), clock: c,
		client: &http.Client{Timeout: callTimeout, Transport: transport},
	}
	for _, p := range providers {
		if out.find(p.ID) != nil {
			return nil, fmt.Errorf("sso: two providers with the id %q", p.ID)
		}
		out.list = append(out.list, &provider{Provider: p})
	}
	return out, nil
}

// Shown is what clients are told of a provider. spec: client-server §SSO,
// IdentityProvider.
type Shown struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Icon  string `json:"icon,omitempty"`
	Brand string `json:"brand,omitempty"`
}

// Providers lists the providers. A nil Service has none.
func (s *Service) Providers() []Shown {
	if s == nil {
		return nil
	}
	out := make([]Shown, len(s.list))
	for i, p := range s.list {
		out[i] = Shown{p.ID, p.Name, p.Icon, p.Brand}
	}
	return out
}

func (s *Service) find(id string) *provider {
	if s == nil {
		return nil
	}
	for _, p := range s.list {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// CallbackPath is where the provider sends browsers back to, with the provider's ID
// behind it.
const CallbackPath = "/_hubbub/v1/sso/callback/"

// ctx makes calls to the provider go out by our client.
func (s *Service) ctx(ctx context.Context) context.Context { return oidc.ClientContext(ctx, s.client) }

// config finds the provider's addresses and keys, once.
func (s *Service) config(ctx context.Context, p *provider) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	found := p.mu.found
	p.mu.Unlock()
	if found == nil {
		var err error
		// The keys are fetched with this context later on: it must not end.
		if found, err = oidc.NewProvider(s.ctx(context.WithoutCancel(ctx)), p.Issuer); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrAway, err)
		}
		p.mu.Lock()
		p.mu.found = found
		p.mu.Unlock()
	}
	return found, &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: found.Endpoint(),
		RedirectURL: s.base + CallbackPath + p.ID, Scopes: p.Scopes,
	}, nil
}

// flow is the content of a state.
type flow struct {
	Provider string `json:"p"`
	Redirect string `json:"r"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Cookie   string `json:"c"` // the hash of the browser's cookie
	Created  int64  `json:"t"` // ms since 1970
	// Confirm is set in a flow of someone who signs in again.
	Confirm *Confirm `json:"u,omitempty"`
}

// Confirm says what somebody signs in again for.
type Confirm struct {
	// Session is that of user-interactive authentication, which ends at EndsTS, in
	// ms since 1970.
	Session string `json:"s"`
	EndsTS  int64  `json:"e"`
	// User is who it has to be.
	User ids.UserID `json:"u"`
}

// Begun is a flow that was begun.
type Begun struct {
	// URL is where the browser goes, Cookie what it keeps for Finish.
	URL, Cookie string
}

// Begin begins a flow that ends at a redirect URL, which the caller has checked.
func (s *Service) Begin(ctx context.Context, id, redirect string) (Begun, error) {
	if len(redirect) > maxRedirect {
		return Begun{}, ErrRedirect
	}
	return s.begin(ctx, flow{Provider: id, Redirect: redirect})
}

// BeginConfirm begins a flow of someone who signs in again.
func (s *Service) BeginConfirm(ctx context.Context, id string, c Confirm) (Begun, error) {
	return s.begin(ctx, flow{Provider: id, Confirm: &c})
}

func (s *Service) begin(ctx context.Context, f flow) (Begun, error) {
	p := s.find(f.Provider)
	if p == nil {
		return Begun{}, ErrUnknown
	}
	_, conf, err := s.config(ctx, p)
	if err != nil {
		return Begun{}, err
	}
	cookie := rand.Text()
	f.Nonce, f.Verifier = rand.Text(), oauth2.GenerateVerifier()
	f.Cookie, f.Created = auth.Hash(cookie), s.clock.Now().UnixMilli()
	plain, err := json.Marshal(&f)
	if err != nil {
		return Begun{}, fmt.Errorf("sso: encode state: %w", err)
	}
	url := conf.AuthCodeURL(s.sealer.Seal(plain), oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier))
	return Begun{URL: url, Cookie: cookie}, nil
}

// Identity is who somebody is, as a provider says.
type Identity struct {
	Provider Provider
	// Subject identifies the person at the provider for ever.
	Subject string
	// UserName and DisplayName are what the person is called there, "" if it is not
	// said.
	UserName, DisplayName string
	// Redirect is where the flow ends, "" where Confirm is set.
	Redirect string
	Confirm  *Confirm
}

// Callback is what a browser came back with.
type Callback struct {
	Provider, State, Code string
	// Issuer is the iss parameter, "" for none. RFC 9207.
	Issuer string
	Cookie string
}

// Finish ends a flow.
func (s *Service) Finish(ctx context.Context, c Callback) (*Identity, error) {
	f, err := s.open(c)
	if err != nil {
		return nil, err
	}
	p := s.find(f.Provider)
	if p == nil {
		return nil, ErrUnknown
	}
	found, conf, err := s.config(ctx, p)
	if err != nil {
		return nil, err
	}
	if c.Code == "" {
		return nil, ErrRefused
	}
	token, err := conf.Exchange(s.ctx(ctx), c.Code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	raw, _ := token.Extra("id_token").(string)
	verifier := found.Verifier(&oidc.Config{ClientID: p.ClientID, Now: s.clock.Now})
	statement, err := verifier.Verify(s.ctx(ctx), raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if subtle.ConstantTimeCompare([]byte(statement.Nonce), []byte(f.Nonce)) != 1 || statement.Subject == "" {
		return nil, fmt.Errorf("%w: the statement is of another flow", ErrRefused)
	}
	claims := map[string]any{}
	if err := statement.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	id := &Identity{Provider: p.Provider, Subject: statement.Subject, Redirect: f.Redirect, Confirm: f.Confirm}
	id.UserName, _ = claims[p.UserClaim].(string)
	id.DisplayName, _ = claims[p.NameClaim].(string)
	return id, nil
}

// open checks that a state is one of ours, of this browser and this provider.
func (s *Service) open(c Callback) (*flow, error) {
	plain, err := s.sealer.Open(c.State)
	if err != nil {
		return nil, ErrFlow
	}
	f := &flow{}
	if err := json.Unmarshal(plain, f); err != nil {
		return nil, fmt.Errorf("sso: decode own state: %w", err)
	}
	age := s.clock.Now().Sub(time.UnixMilli(f.Created))
	bound := subtle.ConstantTimeCompare([]byte(auth.Hash(c.Cookie)), []byte(f.Cookie)) == 1
	if !bound || f.Provider != c.Provider || age > FlowLife || age < -time.Minute {
		return nil, ErrFlow
	}
	if p := s.find(c.Provider); c.Issuer != "" && (p == nil || p.Issuer != c.Issuer) {
		return nil, ErrFlow
	}
	return f, nil
}
