package session

import (
	"net/http"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// The names of login by a JSON web token: that which clients know, and the one that
// older ones send.
const (
	typeJWT    = "org.matrix.login.jwt"
	typeOldJWT = "m.login.jwt"
)

// jwtLogin logs in the user that a token of a trusted issuer names. Their account is
// made the first time, if the configuration says so.
func (m *Module) jwtLogin(r *api.Request, req *loginRequest) (any, error) {
	if m.JWT == nil {
		return nil, errLoginType()
	}
	if req.Token == nil {
		return nil, api.Missing("token")
	}
	subject, err := m.JWT.Verify(*req.Token, m.Clock.Now())
	if err != nil {
		return nil, merr.ForbiddenErr("The JSON web token is not valid").Because(err)
	}
	user, err := ids.ParseLocalpart(strings.ToLower(subject), m.Server)
	if err != nil {
		return nil, merr.ForbiddenErr("The JSON web token names nobody who could be here").Because(err)
	}
	acc, err := m.Accounts.Account(r.Context, user)
	if err != nil {
		return nil, err
	}
	if acc == nil {
		if !m.JWTCreates {
			return nil, merr.ForbiddenErr("There is no such account")
		}
		if m.Reserved(user) {
			return nil, merr.ForbiddenErr("The JSON web token names nobody who could be here")
		}
		_, err := m.Router.Do(r.Context, account.NewRegister(user, account.Account{}, user.Localpart(), nil))
		if err != nil && !merr.Is(err, merr.UserInUse) { // by the same token, a moment ago
			return nil, err
		}
	}
	return m.begin(r, req, user, func(*account.Login) {})
}

func errLoginType() error {
	return merr.New(http.StatusBadRequest, merr.Unknown, "Unknown login type")
}
