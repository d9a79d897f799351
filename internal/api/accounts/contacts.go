package accounts

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/contact"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

func (m *Module) contactRoutes() []api.Route {
	const threePID = v3 + "/account/3pid"
	email := func(p contact.Purpose) api.Handler {
		return func(r *api.Request) (any, error) { return m.requestEmail(r, p) }
	}
	return []api.Route{
		{Method: get, Path: threePID, Op: "getAccount3PIDs", Auth: api.AuthUser, Rate: api.RateNone, Handle: m.contacts},
		{Method: post, Path: threePID + "/add", Op: "add3PID", Auth: api.AuthUser, Rate: api.RateLogin, Handle: m.addContact},
		{Method: post, Path: threePID + "/delete", Op: "delete3pidFromAccount", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.deleteContact},
		{Method: post, Path: threePID + "/email/requestToken", Op: "requestTokenTo3PIDEmail", Auth: api.AuthUser, Rate: api.RateLogin, Handle: email(contact.Add)},
		{Method: post, Path: threePID + "/msisdn/requestToken", Op: "requestTokenTo3PIDMSISDN", Auth: api.AuthOptional, Rate: api.RateLogin, Handle: noPhones},
		{Method: post, Path: v3 + "/register/email/requestToken", Op: "requestTokenToRegisterEmail", Auth: api.AuthNone, Rate: api.RateLogin, Handle: email(contact.Register)},
		{Method: post, Path: v3 + "/register/msisdn/requestToken", Op: "requestTokenToRegisterMSISDN", Auth: api.AuthNone, Rate: api.RateLogin, Handle: noPhones},
		{Method: post, Path: v3 + "/account/password/email/requestToken", Op: "requestTokenToResetPasswordEmail", Auth: api.AuthNone, Rate: api.RateLogin, Handle: email(contact.Password)},
		{Method: post, Path: v3 + "/account/password/msisdn/requestToken", Op: "requestTokenToResetPasswordMSISDN", Auth: api.AuthNone, Rate: api.RateLogin, Handle: noPhones},
		{Method: get, Path: contact.Path, Auth: api.AuthNone, Rate: api.RateLogin, Stream: m.validatePage},
		{Method: post, Path: contact.Path, Auth: api.AuthNone, Rate: api.RateLogin, MaxBody: maxForm, Stream: m.validate},
	}
}

// maxForm is the largest body of a confirmed link.
const maxForm = 8 << 10

// noPhones answers for a server that sends no text messages. spec: client-server
// §POST /account/3pid/msisdn/requestToken.
func noPhones(*api.Request) (any, error) {
	return nil, merr.New(http.StatusBadRequest, merr.ThreePIDNotSupported, "This server does not send text messages")
}

// contacts: spec client-server §GET /account/3pid.
func (m *Module) contacts(r *api.Request) (any, error) {
	list, err := m.Accounts.Contacts(r.Context, r.Caller.User)
	// Those by which a user signs in from elsewhere are no addresses.
	list = slices.DeleteFunc(list, func(c account.Contact) bool { return c.Medium != account.MediumEmail })
	return map[string]any{"threepids": list}, err
}

// requestEmail: spec client-server §POST /account/3pid/email/requestToken, and the
// same for registration and new passwords.
func (m *Module) requestEmail(r *api.Request, p contact.Purpose) (any, error) {
	var req struct {
		ClientSecret *string `json:"client_secret"`
		Email        *string `json:"email"`
		SendAttempt  *int64  `json:"send_attempt"`
		NextLink     string  `json:"next_link"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.ClientSecret == nil:
		return nil, api.Missing("client_secret")
	case req.Email == nil:
		return nil, api.Missing("email")
	case req.SendAttempt == nil:
		return nil, api.Missing("send_attempt")
	}
	sid, err := m.Contacts.Request(r.Context, contact.Request{
		Purpose: p, Secret: *req.ClientSecret, Email: *req.Email, Attempt: *req.SendAttempt,
		NextLink: req.NextLink, User: r.Caller.User,
	})
	if err != nil {
		return nil, err
	}
	return map[string]string{"sid": sid}, nil
}

// addContact: spec client-server §POST /account/3pid/add.
func (m *Module) addContact(r *api.Request) (any, error) {
	var req struct {
		Auth         jsontext.Value `json:"auth"`
		ClientSecret string         `json:"client_secret"`
		SID          string         `json:"sid"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.ClientSecret == "":
		return nil, api.Missing("client_secret")
	case req.SID == "":
		return nil, api.Missing("sid")
	}
	if err := m.Prover.Prove(r, "POST /account/3pid/add", req.Auth); err != nil {
		return nil, err
	}
	user := r.Caller.User
	v, err := m.Contacts.Use(r.Context, contact.Add, req.SID, req.ClientSecret, user)
	if err != nil {
		return nil, err
	}
	c, err := m.Contacts.Claim(r.Context, v, user)
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewAddContact(user, c))
	return api.Empty, err
}

// deleteContact: spec client-server §POST /account/3pid/delete.
func (m *Module) deleteContact(r *api.Request) (any, error) {
	var req struct {
		Medium  string `json:"medium"`
		Address string `json:"address"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Medium == "":
		return nil, api.Missing("medium")
	case req.Address == "":
		return nil, api.Missing("address")
	}
	if req.Medium == account.MediumEmail {
		address, err := auth.CanonicalEmail(req.Address)
		if err != nil {
			return nil, err
		}
		if _, err := m.Router.Do(r.Context, account.NewRemoveContact(r.Caller.User, req.Medium, address)); err != nil {
			return nil, err
		}
	}
	// There is no identity server that could know of it.
	return jsontext.Value(`{"id_server_unbind_result":"no-support"}`), nil
}

func purposeTexts(p contact.Purpose) (title, line, button string) {
	switch p {
	case contact.Password:
		return "Set a new password?", "Somebody, hopefully you, wants to set a new password for the account with the address", "Allow a new password"
	case contact.Add:
		return "Confirm this address?", "Somebody, hopefully you, wants to add to their account the address", "Confirm the address"
	}
	return "Confirm this address?", "Somebody, hopefully you, wants to sign up with the address", "Confirm the address"
}

// validatePage asks whether the link was meant to be followed. It changes nothing:
// those who scan mail open links.
func (m *Module) validatePage(r *api.Request, w http.ResponseWriter, _ *http.Request) {
	sid, token := r.Query.Get("sid"), r.Query.Get("token")
	v, err := m.Contacts.Pending(r.Context, sid, token)
	if err != nil {
		r.WriteError(w, err)
		return
	}
	if v == nil {
		badLink().Write(w, http.StatusForbidden)
		return
	}
	title, line, button := purposeTexts(contact.Purpose(v.Purpose))
	(&api.Page{Title: title, Lines: []string{line + " " + v.Address + "."}, Form: &api.Form{
		Action: contact.Path, Button: button, Fields: []api.Field{{Name: "sid", Value: sid}, {Name: "token", Value: token}},
	}}).Write(w, http.StatusOK)
}

func badLink() *api.Page {
	return &api.Page{Title: "This link does not work", Lines: []string{"It was used, or is too old, or there is a newer mail."}}
}

// validate takes the token back: from the page's form, or as JSON from a client.
// spec: identity service §POST /validate/email/submitToken.
func (m *Module) validate(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	body, err := io.ReadAll(hr.Body)
	if err != nil {
		r.WriteError(w, merr.TooLargeErr("The body is larger than %d bytes", maxForm).Because(err))
		return
	}
	if kind, _, _ := mime.ParseMediaType(hr.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		m.submitToken(r, w, body)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		badLink().Write(w, http.StatusBadRequest)
		return
	}
	v, err := m.Contacts.Confirm(r.Context, form.Get("sid"), form.Get("token"), "")
	switch {
	case merr.Is(err, merr.ThreePIDAuthFailed), merr.Is(err, merr.InvalidParam):
		badLink().Write(w, http.StatusForbidden)
	case err != nil:
		r.WriteError(w, err)
	default:
		done := &api.Page{Title: "Thank you", Lines: []string{"Go back to where you began; it goes on there."}}
		if v.NextLink != "" {
			done.Links = []api.Link{{Text: "Go on", URL: v.NextLink}}
		}
		done.Write(w, http.StatusOK)
	}
}

// submitToken answers a client that was given the token.
func (m *Module) submitToken(r *api.Request, w http.ResponseWriter, body []byte) {
	var req struct {
		SID          string `json:"sid"`
		ClientSecret string `json:"client_secret"`
		Token        string `json:"token"`
	}
	err := api.DecodeJSON(body, &req)
	switch {
	case err != nil:
	case req.SID == "":
		err = api.Missing("sid")
	case req.ClientSecret == "":
		err = api.Missing("client_secret")
	case req.Token == "":
		err = api.Missing("token")
	default:
		_, err = m.Contacts.Confirm(r.Context, req.SID, req.Token, req.ClientSecret)
	}
	if err != nil {
		r.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"success":true}`) // an error means that the client is gone
}
