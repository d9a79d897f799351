package auth

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// PasswordVerifier is the account store as the password stage sees it.
type PasswordVerifier interface {
	// VerifyPassword returns the account of an identifier if the password is its, and
	// false if it is not or there is no such account, in the same time. An error
	// ends the request.
	VerifyPassword(ctx context.Context, id Identifier, password string) (ids.UserID, bool, error)
}

// RegistrationTokenVerifier is the account store as the registration token stage
// sees it.
type RegistrationTokenVerifier interface {
	// ValidRegistrationToken reports whether a token could be used now. It does not
	// use it: making the account does.
	ValidRegistrationToken(ctx context.Context, token string) (bool, error)
}

// EmailVerifier is the account store as the email stage sees it.
type EmailVerifier interface {
	// ValidatedEmail reports whether the client with the secret has proved an
	// address in the session sid, for the operation. It does not use that up: the
	// operation does.
	ValidatedEmail(ctx context.Context, operation, sid, secret string) (bool, error)
}

// SSOVerifier is what the stage of single sign-on stands on.
type SSOVerifier interface {
	// ConfirmedAway reports whether the user has signed in again for a session of
	// user-interactive authentication, and uses that up.
	ConfirmedAway(ctx context.Context, user ids.UserID, session string) (bool, error)
}

// JWTVerifier is what the stage of JSON web tokens stands on.
type JWTVerifier interface {
	// ProvedByJWT reports whether a token is a user's, was issued since a session of
	// user-interactive authentication was begun, and was not used before; it is now. other
	// says that it is somebody else's.
	ProvedByJWT(ctx context.Context, user ids.UserID, token string, begun time.Time) (ok, other bool, err error)
}

var (
	_ AwayStage = ssoStage{}

	_ Stage = jwtStage{}

	_ Stage = emailStage{}
	_ Stage = dummyStage{}
	_ Stage = passwordStage{}
	_ Stage = registrationTokenStage{}
)

// StageFailed is the error of a stage that may be tried again.
func StageFailed(text string) error {
	return merr.New(http.StatusUnauthorized, merr.Forbidden, "%s", text)
}

type dummyStage struct{}

// NewDummyStage returns m.login.dummy, which always succeeds.
func NewDummyStage() Stage { return dummyStage{} }

func (dummyStage) Verify(context.Context, StageRequest) (string, error) { return "", nil }

type passwordStage struct {
	server   string
	verifier PasswordVerifier
}

// NewPasswordStage returns m.login.password. Its proof is the user ID. If the request
// has a caller, the password must be the caller's; then the identifier may be
// missing, as some clients send none.
func NewPasswordStage(server string, v PasswordVerifier) Stage {
	return passwordStage{server: server, verifier: v}
}

func (s passwordStage) Verify(ctx context.Context, r StageRequest) (string, error) {
	var in struct {
		Password *string `json:"password"`
	}
	if err := json.Unmarshal(r.Auth, &in); err != nil {
		return "", merr.BadJSONErr("password must be a string").Because(err)
	}
	if in.Password == nil {
		return "", merr.MissingParamErr("password is missing")
	}
	id, found, err := parseIdentifier(r.Auth, s.server)
	if merr.Is(err, merr.Forbidden) {
		return "", StageFailed(wrongLogin)
	}
	if err != nil {
		return "", err
	}
	if !found {
		if r.Caller == "" {
			return "", merr.MissingParamErr("identifier is missing")
		}
		id.User = r.Caller
	}
	if r.Caller != "" && id.User != "" && id.User != r.Caller {
		return "", errOtherAccount()
	}
	user, ok, err := s.verifier.VerifyPassword(ctx, id, *in.Password)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", StageFailed(wrongLogin)
	}
	if r.Caller != "" && user != r.Caller {
		return "", errOtherAccount()
	}
	return string(user), nil
}

// errOtherAccount answers who proves to be someone else than the caller. Another
// attempt would prove the same, so it is not a failed stage. spec: client-server
// §User-Interactive Authentication API, 401 for what may be tried again.
func errOtherAccount() error {
	return merr.ForbiddenErr("The identifier is not that of the account that makes the request")
}

type registrationTokenStage struct{ verifier RegistrationTokenVerifier }

// NewRegistrationTokenStage returns m.login.registration_token. Its proof is the
// token, for the operation to consume.
func NewRegistrationTokenStage(v RegistrationTokenVerifier) Stage {
	return registrationTokenStage{verifier: v}
}

// maxRegistrationToken is the longest token in bytes.
// spec: client-server §Token-authenticated registration.
const maxRegistrationToken = 64

func (s registrationTokenStage) Verify(ctx context.Context, r StageRequest) (string, error) {
	token, err := tokenOf(&r)
	if err != nil {
		return "", err
	}
	if !isRegistrationToken(token) {
		return "", StageFailed("Invalid registration token")
	}
	ok, err := s.verifier.ValidRegistrationToken(ctx, token)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", StageFailed("Invalid registration token")
	}
	return token, nil
}

// tokenOf is the member token of what a stage is given.
func tokenOf(r *StageRequest) (string, error) {
	var in struct {
		Token *string `json:"token"`
	}
	if err := json.Unmarshal(r.Auth, &in); err != nil {
		return "", merr.BadJSONErr("token must be a string").Because(err)
	}
	if in.Token == nil {
		return "", merr.MissingParamErr("token is missing")
	}
	return *in.Token, nil
}

// isRegistrationToken checks the grammar of opaque identifiers.
func isRegistrationToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.' || c == '_' || c == '~' || c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxRegistrationToken
}

type emailStage struct{ verifier EmailVerifier }

// NewEmailStage returns m.login.email.identity. Its proof is the session ID of the
// validation, for the operation to use up. spec: client-server §Email-based
// (identity / homeserver).
func NewEmailStage(v EmailVerifier) Stage { return emailStage{verifier: v} }

// maxEmailCreds bounds both members: what a server makes and what a client may.
const maxEmailCreds = 255

func (s emailStage) Verify(ctx context.Context, r StageRequest) (string, error) {
	type creds struct {
		SID    string `json:"sid"`
		Secret string `json:"client_secret"`
	}
	var in struct {
		Creds *creds `json:"threepid_creds"`
		// Old is the name before version 1.1, which clients send as well.
		Old *creds `json:"threepidCreds"`
	}
	if err := json.Unmarshal(r.Auth, &in); err != nil {
		return "", merr.BadJSONErr("threepid_creds has a wrong form").Because(err)
	}
	if in.Creds == nil {
		in.Creds = in.Old
	}
	if in.Creds == nil || in.Creds.SID == "" || in.Creds.Secret == "" {
		return "", merr.MissingParamErr("threepid_creds with sid and client_secret is missing")
	}
	if len(in.Creds.SID) > maxEmailCreds || len(in.Creds.Secret) > maxEmailCreds {
		return "", merr.InvalidParamErr("threepid_creds is too long")
	}
	ok, err := s.verifier.ValidatedEmail(ctx, r.Operation, in.Creds.SID, in.Creds.Secret)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", StageFailed("The email address is not confirmed yet")
	}
	return in.Creds.SID, nil
}

type ssoStage struct{ verifier SSOVerifier }

// NewSSOStage returns m.login.sso. Its proof is the user ID. spec: client-server
// §SSO during User-Interactive Authentication.
func NewSSOStage(v SSOVerifier) AwayStage { return ssoStage{verifier: v} }

func (ssoStage) Away() {}

func (s ssoStage) Verify(ctx context.Context, r StageRequest) (string, error) {
	if r.Caller == "" {
		return "", merr.ForbiddenErr("Nobody is signed in who could sign in again")
	}
	ok, err := s.verifier.ConfirmedAway(ctx, r.Caller, r.Session)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", StageFailed("You have not signed in again yet")
	}
	return string(r.Caller), nil
}

type jwtStage struct{ verifier JWTVerifier }

// NewJWTStage returns org.matrix.login.jwt, which takes the member token: a JSON web
// token of who trusts the same issuer as the login of that name does. It is for
// accounts that have no password, and for operations of a caller.
func NewJWTStage(v JWTVerifier) Stage { return jwtStage{v} }

func (s jwtStage) Verify(ctx context.Context, r StageRequest) (string, error) {
	token, err := tokenOf(&r)
	if err != nil {
		return "", err
	}
	ok, other, err := s.verifier.ProvedByJWT(ctx, r.Caller, token, r.Begun)
	switch {
	case err != nil:
		return "", err
	case other:
		return "", errOtherAccount()
	case !ok:
		return "", StageFailed("The JSON web token is not valid, was not issued for this, or was used")
	}
	return string(r.Caller), nil
}
