// Package contact proves e-mail addresses and keeps whose they are: a mail with a
// link is sent to an address, and who follows it has proved to read what comes
// there.
//
// Steps: Request begins a validation and sends the link; the person opens it and
// presses a button (Confirm), as scanners of mail open links too; the client, which
// has the session ID and a secret of its own, uses the validation once: to
// register, to add the address to an account, to set a new password.
//
// Invariants: nobody learns from an answer or its time whether an address belongs
// to an account; who may not use an address is sent a mail without a link, or none.
// Session IDs follow from the client's secret and the address, so that a repeated
// request finds its session without an index.
//
// All methods may be called from any goroutine. The package starts none.
package contact

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/mailer"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/ratelimit"
)

// Purpose is what a validation is good for; it is good for nothing else.
type Purpose string

// The purposes. They are part of the on-disk format.
const (
	Register Purpose = "register"
	Add      Purpose = "add"
	Password Purpose = "password"
)

const (
	// life is how long a validation lasts from its mail on: time to find the mail,
	// and to be done with the rest.
	life = time.Hour
	// maxSecret is the longest client secret. spec: identity service
	// §POST /validate/email/requestToken.
	maxSecret = 255
	// maxNextLink is the longest next_link in bytes.
	maxNextLink = 2000
	// purposeSID is that of the key that makes session IDs.
	purposeSID = "auth/contact/sid"
)

// Sender sends mail beside the request.
type Sender interface {
	Send(m mailer.Mail) error
}

var _ Sender = (*mailer.Mailer)(nil)

// Limiter bounds the mails to one address.
type Limiter interface {
	Allow(class ratelimit.Class, key string, now time.Time) (ok bool, retryAfter time.Duration)
	// Refund takes back an Allow: nothing was sent.
	Refund(class ratelimit.Class, key string)
}

// Deps are what the service stands on.
type Deps struct {
	Server   string // the server name
	BaseURL  string // where clients reach the server
	Router   partition.Router
	Accounts *account.Reader
	Secrets  *auth.Secrets
	Limiter  Limiter
	Clock    clock.Clock
	// Mail is nil if the server sends none: then there are no addresses.
	Mail Sender
	// NextLinks are the URLs that a link may lead on to, with what is below them.
	NextLinks []string
}

// Service proves addresses.
type Service struct {
	Deps
	sid [auth.KeyBytes]byte
}

// New returns the service.
func New(d Deps) *Service { return &Service{Deps: d, sid: d.Secrets.Key(purposeSID)} }

// Enabled reports whether addresses can be proved.
func (s *Service) Enabled() bool { return s != nil && s.Mail != nil }

// Request asks for a mail.
type Request struct {
	Purpose Purpose
	// Secret is the client's secret; with the session ID it is worth the validation.
	Secret string
	Email  string
	// Attempt is raised by the client to have the mail sent again.
	Attempt  int64
	NextLink string
	// User is who asks, for Add.
	User ids.UserID
}

func unsupported() error {
	return merr.New(http.StatusBadRequest, merr.ThreePIDNotSupported, "This server does not send mail")
}

// Request begins a validation and returns its session ID. Its errors say nothing
// about whose the address is: 400 for a malformed request, 429, 503.
func (s *Service) Request(ctx context.Context, q Request) (sid string, err error) {
	if !s.Enabled() {
		return "", unsupported()
	}
	if !isSecret(q.Secret) {
		return "", merr.InvalidParamErr("client_secret has 1 to %d letters, digits and .=_-", maxSecret)
	}
	email, err := auth.CanonicalEmail(q.Email)
	if err != nil {
		return "", err
	}
	if len(q.NextLink) > maxNextLink {
		return "", merr.InvalidParamErr("next_link is longer than %d bytes", maxNextLink)
	}
	next := ""
	if SafeURL(q.NextLink) && allowed(q.NextLink, s.NextLinks) {
		next = q.NextLink
	}
	owner, err := s.Accounts.ContactOwner(ctx, account.MediumEmail, email)
	if err != nil {
		return "", err
	}
	if q.Purpose == Add && owner == q.User {
		return "", merr.New(http.StatusBadRequest, merr.ThreePIDInUse, "This is an address of yours already")
	}
	if ok, wait := s.Limiter.Allow(ratelimit.Mail, email, s.Clock.Now()); !ok {
		return "", merr.LimitedErr(wait)
	}
	sid = s.sessionID(q, email)
	token := auth.NewToken(auth.Registration, "") // its form is of no importance
	send, err := partition.Do[bool](ctx, s.Router, account.NewBeginValidation(sid, account.Validation{
		Purpose: string(q.Purpose), Medium: account.MediumEmail, Address: email, User: q.User,
		Secret: auth.Hash(q.Secret), Token: auth.Hash(token), Attempt: q.Attempt, NextLink: next,
		ExpiresTS: s.Clock.Now().Add(life).UnixMilli(),
	}))
	if err != nil || !send {
		s.Limiter.Refund(ratelimit.Mail, email)
		return sid, err
	}
	return sid, s.send(q.Purpose, email, owner, s.link(sid, token))
}

// send sends what the owner of the address is to know.
func (s *Service) send(p Purpose, email string, owner ids.UserID, link string) error {
	var m mailer.Mail
	switch {
	case p == Password && owner == "":
		return nil // nobody here has to do with it
	case p == Password:
		m = s.passwordMail(owner, link)
	case owner != "":
		m = s.takenMail(owner)
	case p == Add:
		m = s.addMail(link)
	default:
		m = s.registerMail(link)
	}
	m.To = email
	return s.Mail.Send(m)
}

// sessionID follows from what makes a request the same one.
func (s *Service) sessionID(q Request, email string) string {
	h := hmac.New(sha256.New, s.sid[:])
	for _, part := range []string{string(q.Purpose), q.Secret, email, string(q.User)} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Path is where links in mails lead.
const Path = "/_hubbub/v1/email/validate"

func (s *Service) link(sid, token string) string {
	return s.BaseURL + Path + "?" + url.Values{"sid": {sid}, "token": {token}}.Encode()
}

// isSecret checks the grammar of client secrets.
func isSecret(secret string) bool {
	for _, c := range []byte(secret) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.' || c == '=' || c == '_' || c == '-':
		default:
			return false
		}
	}
	return secret != "" && len(secret) <= maxSecret
}

// Pending returns a validation whose link may still be followed, nil if there is
// none.
func (s *Service) Pending(ctx context.Context, sid, token string) (*account.Validation, error) {
	v, err := s.Accounts.Validation(ctx, sid)
	if err != nil || v == nil || v.Token == "" || v.Token != auth.Hash(token) || s.Clock.Now().UnixMilli() >= v.ExpiresTS {
		return nil, err
	}
	return v, nil
}

// Confirm takes the token of a link back, once, and returns the validation. 403
// M_THREEPID_AUTH_FAILED for a wrong or used token. secret is "" if the token alone
// was shown.
func (s *Service) Confirm(ctx context.Context, sid, token, secret string) (*account.Validation, error) {
	if secret != "" {
		secret = auth.Hash(secret)
	}
	v, err := partition.Do[*account.Validation](ctx, s.Router, account.NewConfirmValidation(sid, auth.Hash(token), secret))
	if err == nil && v == nil {
		err = merr.New(http.StatusForbidden, merr.ThreePIDAuthFailed, "The link is not valid, or was used")
	}
	return v, err
}

// Validated reports whether a validation could be used now.
func (s *Service) Validated(ctx context.Context, p Purpose, sid, secret string, user ids.UserID) (bool, error) {
	if !s.Enabled() || sid == "" || secret == "" {
		return false, nil
	}
	return s.Accounts.Validated(ctx, sid, auth.Hash(secret), string(p), user, s.Clock.Now().UnixMilli())
}

// Use uses a validation up, for the user who asked for it. secret is "" if it was
// checked before.
func (s *Service) Use(ctx context.Context, p Purpose, sid, secret string, user ids.UserID) (*account.Validation, error) {
	if !s.Enabled() {
		return nil, unsupported()
	}
	if secret != "" {
		secret = auth.Hash(secret)
	}
	return partition.Do[*account.Validation](ctx, s.Router, account.NewUseValidation(sid, string(p), user, secret))
}

// Return takes a use back: what it was for failed after all.
func (s *Service) Return(ctx context.Context, p Purpose, sid string, user ids.UserID) error {
	cmd := account.NewUseValidation(sid, string(p), user, "")
	cmd.Return = true
	_, err := s.Router.Do(ctx, cmd)
	return err
}

// Claim takes the address of a validation that was used for a user.
func (s *Service) Claim(ctx context.Context, v *account.Validation, user ids.UserID) (account.Contact, error) {
	c := account.Contact{Medium: v.Medium, Address: v.Address, ValidatedTS: v.ValidatedTS}
	_, err := s.Router.Do(ctx, &account.ClaimContact{Medium: v.Medium, Address: v.Address, User: user})
	return c, err
}

// SafeURL reports whether a browser may be led to a URL: one that names a place, and
// runs nothing. Parsers differ about backslashes, control characters and what is
// before an @, so none may be there.
func SafeURL(text string) bool {
	for _, c := range text {
		if c <= 0x20 || c == 0x7f || c == '\\' {
			return false
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.User != nil {
		return false
	}
	switch strings.ToLower(u.Scheme) {
	case "javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "view-source":
		return false
	case "http", "https":
		return u.Host != "" && u.Opaque == ""
	}
	return true
}

// allowed reports whether a URL is one of the list or below one.
func allowed(text string, list []string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	for _, entry := range list {
		a, err := url.Parse(entry)
		if err != nil || !strings.EqualFold(a.Scheme, u.Scheme) || !strings.EqualFold(a.Host, u.Host) {
			continue
		}
		// A path that goes up again is not below anything.
		clean := !strings.Contains(u.Path, "/..") && !strings.Contains(u.Path, "/./")
		base := strings.TrimSuffix(a.Path, "/")
		if clean && (u.Path == base || strings.HasPrefix(u.Path, base+"/")) && u.Opaque == a.Opaque {
			return true
		}
	}
	return false
}

// Allowed reports whether a browser may be led to a URL without being asked.
func Allowed(text string, list []string) bool { return SafeURL(text) && allowed(text, list) }
