// Package sso serves signing in with an account elsewhere: the way to the provider,
// the way back, and the hand-over of a login token to the client; and signing in again
// for what needs proof (confirm.go). spec: client-server §SSO client
// login/authentication.
//
// A person at a provider is the user whose contacts have the provider's name for
// them. A user name is a wish: where it is taken, another is found, and nobody is
// ever signed in to an account that they did not make this way.
package sso

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

const (
	// tokenLife is how long the client has to use the login token: it may have to be
	// started by the browser.
	tokenLife = 2 * time.Minute
	// cookiePrefix begins the name of a flow's cookie; the rest of it tells flows
	// apart that one browser has under way.
	cookiePrefix = "hubbub_sso_"
	// cookieTail is how much of the state names the cookie.
	cookieTail = 12
)

// Deps are what the module stands on.
type Deps struct {
	Server   string // the server name
	BaseURL  string // where browsers reach the server
	SSO      *sso.Service
	Router   partition.Router
	Accounts *account.Reader
	// Reserved reports whether nobody may have a name: it is an application
	// service's, or the server's own.
	Reserved func(ids.UserID) bool
	// Pending returns a session of user-interactive authentication that is under way.
	Pending func(sealed string) (auth.Pending, bool)
	Clock   clock.Clock
	Log     *slog.Logger
	// Redirects are URLs to which people are led without being asked, with all that is
	// below them.
	Redirects []string
}

// Module holds the handlers.
type Module struct {
	Deps
}

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const redirect = "/_matrix/client/v3/login/sso/redirect"
	return []api.Route{
		{Method: http.MethodGet, Path: redirect, Op: "redirectToSSO", Auth: api.AuthNone, Rate: api.RateLogin, Stream: m.redirect},
		{Method: http.MethodGet, Path: redirect + "/{idpId}", Op: "redirectToIdP", Auth: api.AuthNone, Rate: api.RateLogin, Stream: m.redirect},
		{Method: http.MethodGet, Path: sso.CallbackPath + "{idpId}", Auth: api.AuthNone, Rate: api.RateLogin, Stream: m.callback},
		{Method: http.MethodGet, Path: "/_matrix/client/v3/auth/{authType}/fallback/web", Auth: api.AuthNone, Rate: api.RateLogin, Stream: m.confirmPage},
	}
}

// redirect sends the browser to a provider, or lets the person choose one. spec:
// client-server §GET /login/sso/redirect/{idpId}.
func (m *Module) redirect(r *api.Request, w http.ResponseWriter, _ *http.Request) {
	target, id := r.Query.Get("redirectUrl"), r.Param("idpId")
	providers := m.SSO.Providers()
	switch {
	case len(providers) == 0:
		r.WriteError(w, merr.New(http.StatusNotFound, merr.Unrecognized, "There is no single sign-on here"))
		return
	case target == "":
		r.WriteError(w, api.Missing("redirectUrl"))
		return
	case !contact.SafeURL(target):
		r.WriteError(w, merr.InvalidParamErr("redirectUrl is not a URL that a browser may be led to"))
		return
	case id == "" && len(providers) > 1:
		m.choose(w, providers, target)
		return
	case id == "":
		id = providers[0].ID
	}
	begun, err := m.SSO.Begin(r.Context, id, target)
	switch {
	case errors.Is(err, sso.ErrUnknown):
		r.WriteError(w, merr.NotFoundErr("There is no such identity provider"))
	case errors.Is(err, sso.ErrRedirect):
		r.WriteError(w, merr.InvalidParamErr("redirectUrl is too long"))
	case err != nil:
		m.fail(w, "begin single sign-on", err)
	default:
		http.SetCookie(w, m.cookie(cookieName(begun.URL), begun.Cookie, int(sso.FlowLife.Seconds())))
		w.Header().Set("Location", begun.URL)
		w.WriteHeader(http.StatusFound)
	}
}

// cookieName is that of the flow whose state is in a URL.
func cookieName(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return cookiePrefix
	}
	return flowCookie(u.Query().Get("state"))
}

func flowCookie(state string) string {
	if len(state) < cookieTail {
		return cookiePrefix
	}
	return cookiePrefix + state[len(state)-cookieTail:]
}

// cookie is sent to the callback alone. Lax: the browser comes from the provider.
func (m *Module) cookie(name, value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: sso.CallbackPath, MaxAge: age, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(m.BaseURL, "https:"),
	}
}

func (m *Module) choose(w http.ResponseWriter, providers []sso.Shown, target string) {
	p := &api.Page{Title: "Sign in with", Lines: []string{"Choose the account to sign in with."}}
	for _, one := range providers {
		p.Links = append(p.Links, api.Link{
			Text: one.Name,
			URL:  "/_matrix/client/v3/login/sso/redirect/" + url.PathEscape(one.ID) + "?" + url.Values{"redirectUrl": {target}}.Encode(),
		})
	}
	p.Write(w, http.StatusOK)
}

// fail shows a page: a person looks at it, no client.
func (m *Module) fail(w http.ResponseWriter, doing string, err error) {
	status, text := http.StatusForbidden, "It was not possible to sign you in. Go back to where you began and try again."
	switch {
	case errors.Is(err, sso.ErrAway), merr.From(err).Status >= http.StatusInternalServerError && !errors.Is(err, sso.ErrRefused) && !errors.Is(err, sso.ErrFlow):
		status, text = http.StatusServiceUnavailable, "The service that knows your account does not answer. Try again later."
	case merr.Is(err, merr.Forbidden):
		text = merr.From(err).Msg
	}
	m.Log.Warn(doing, "error", err)
	(&api.Page{Title: "That did not work", Lines: []string{text}}).Write(w, status)
}

// callback takes the browser back from the provider.
func (m *Module) callback(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	state := r.Query.Get("state")
	name, value := flowCookie(state), ""
	if c, err := hr.Cookie(name); err == nil {
		value = c.Value
	}
	http.SetCookie(w, m.cookie(name, "", -1))
	id, err := m.SSO.Finish(r.Context, sso.Callback{
		Provider: r.Param("idpId"), State: state, Code: r.Query.Get("code"), Issuer: r.Query.Get("iss"), Cookie: value,
	})
	if err != nil {
		m.fail(w, "finish single sign-on", err)
		return
	}
	if id.Confirm != nil {
		m.confirm(r, w, id)
		return
	}
	user, err := m.user(r.Context, id)
	if err != nil {
		m.fail(w, "find the user of a single sign-on", err)
		return
	}
	token := auth.NewToken(auth.Login, user.Localpart())
	_, err = m.Router.Do(r.Context, account.NewIssueShortToken(user, auth.Hash(token), account.ShortToken{
		Use: account.UseLogin, ExpiresTS: m.Clock.Now().Add(tokenLife).UnixMilli(),
	}))
	if err != nil {
		m.fail(w, "issue a login token", err)
		return
	}
	m.hand(w, user, id.Redirect, token)
}

// hand gives the login token to the client: at once where the configuration knows
// it, else when the person says so, as anybody can send them here with a redirect URL
// of their own.
func (m *Module) hand(w http.ResponseWriter, user ids.UserID, redirect, token string) {
	u, err := url.Parse(redirect)
	if err != nil {
		m.fail(w, "redirect after single sign-on", err)
		return
	}
	q := u.Query()
	q.Set("loginToken", token)
	u.RawQuery = q.Encode()
	if contact.Allowed(redirect, m.Redirects) {
		w.Header().Set("Location", u.String())
		w.WriteHeader(http.StatusFound)
		return
	}
	where := u.Scheme + ":"
	if u.Host != "" {
		where += "//" + u.Host
	}
	(&api.Page{
		Title: "Sign in?",
		Lines: []string{
			"You are about to sign in as " + string(user) + " at " + where + ".",
			"Go on only if that is the app you came from: it will be able to read and write everything as you.",
		},
		Links: []api.Link{{Text: "Sign in", URL: u.String()}},
	}).Write(w, http.StatusOK)
}
