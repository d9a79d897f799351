package sso

import (
	"net/http"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

// Who has an account of a provider and no password proves who they are by signing in
// there again: the client opens a page that says what is about to happen; a link on it,
// with a state that only the browser that saw the page can use, leads to the provider;
// and who comes back as the same person has completed the stage, for one request. So
// nobody who found an access token, or a browser in which somebody is signed in at the
// provider, can do it alone, and no other site can do it for them: neither the link nor
// its cookie can be made without the page, and the page cannot be framed.
// spec: client-server §SSO during User-Interactive Authentication.

// confirmPage says what a client wants, and leads to the provider.
func (m *Module) confirmPage(r *api.Request, w http.ResponseWriter, _ *http.Request) {
	if auth.StageType(r.Param("authType")) != auth.StageSSO || len(m.SSO.Providers()) == 0 {
		r.WriteError(w, merr.New(http.StatusNotFound, merr.Unrecognized, "There is no page for this stage"))
		return
	}
	sealed := r.Query.Get("session")
	if sealed == "" {
		r.WriteError(w, api.Missing("session"))
		return
	}
	p, ok := m.Pending(sealed)
	if !ok || p.Caller == "" {
		ended().Write(w, http.StatusForbidden)
		return
	}
	contacts, err := m.Accounts.Contacts(r.Context, p.Caller)
	if err != nil {
		m.fail(w, "read who signs in again", err)
		return
	}
	page := &api.Page{Title: "Is this you?", Lines: []string{
		"An app wants to " + purpose(p.Operation) + " (" + string(p.Caller) + ").",
		"To allow it, sign in again. If you do not expect this, close the page: somebody may be using your account.",
	}}
	c := sso.Confirm{Session: p.Session, EndsTS: p.Ends.UnixMilli(), User: p.Caller}
	for _, one := range m.SSO.Providers() {
		if !signsOn(contacts, one.ID) {
			continue
		}
		begun, err := m.SSO.BeginConfirm(r.Context, one.ID, c)
		if err != nil {
			m.fail(w, "begin to sign in again", err)
			return
		}
		http.SetCookie(w, m.cookie(cookieName(begun.URL), begun.Cookie, int(sso.FlowLife.Seconds())))
		page.Links = append(page.Links, api.Link{Text: "Sign in with " + one.Name, URL: begun.URL})
	}
	if len(page.Links) == 0 {
		ended().Write(w, http.StatusForbidden)
		return
	}
	page.Write(w, http.StatusOK)
}

func signsOn(contacts []account.Contact, provider string) bool {
	for _, c := range contacts {
		if c.Medium == account.MediumSignOn+provider {
			return true
		}
	}
	return false
}

// ended also answers who has no account to sign in with: a session is shown by
// anybody.
func ended() *api.Page {
	return &api.Page{Title: "That did not work", Lines: []string{"This took too long, or was begun elsewhere. Go back to the app and try again."}}
}

// purposes says, by operation, what a client wants to do.
var purposes = map[string]string{
	"POST /delete_devices":             "sign devices out of your account",
	"POST /account/deactivate":         "END YOUR ACCOUNT for ever",
	"POST /account/password":           "change the password of your account",
	"POST /account/3pid/add":           "add an address to your account",
	"POST /keys/device_signing/upload": "replace the keys by which others know your devices",
	"POST /login/get_token":            "sign another device in to your account",
}

func purpose(operation string) string {
	if device, ok := strings.CutPrefix(operation, "DELETE /devices/"); ok {
		return "sign the device “" + device + "” out of your account"
	}
	if text, ok := purposes[operation]; ok {
		return text
	}
	return "change your account"
}

// confirm takes back who signed in again.
func (m *Module) confirm(r *api.Request, w http.ResponseWriter, id *sso.Identity) {
	c := id.Confirm
	user, err := m.Accounts.ContactOwner(r.Context, account.MediumSignOn+id.Provider.ID, id.Subject)
	switch {
	case err != nil:
		m.fail(w, "find who signed in again", err)
		return
	case user != c.User:
		m.fail(w, "sign in again", merr.ForbiddenErr("You signed in with another account than the one that the app uses. Nothing was changed."))
		return
	case !m.Clock.Now().Before(time.UnixMilli(c.EndsTS)):
		ended().Write(w, http.StatusForbidden)
		return
	}
	_, err = m.Router.Do(r.Context, account.NewIssueShortToken(user, auth.ConfirmHash(c.Session), account.ShortToken{
		Use: account.UseConfirm, ExpiresTS: c.EndsTS,
	}))
	if err != nil {
		m.fail(w, "keep that somebody signed in again", err)
		return
	}
	(&api.Page{Title: "Thank you", Lines: []string{"You may close this page and go back to the app."}, AuthDone: true}).Write(w, http.StatusOK)
}
