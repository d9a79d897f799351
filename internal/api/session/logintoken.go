package session

import (
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// loginTokenLife is how long a login token lasts. spec: client-server
// §POST /login/get_token recommends it.
const loginTokenLife = 2 * time.Minute

// loginToken: spec client-server §POST /login/get_token. Proof is asked for
// each time, as sessions of user-interactive authentication end with their
// operation.
func (m *Module) loginToken(r *api.Request) (any, error) {
	var req authOnly
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if err := m.Prove(r, "POST /login/get_token", req.Auth); err != nil {
		return nil, err
	}
	token := auth.NewToken(auth.Login, r.Caller.User.Localpart())
	_, err := m.Router.Do(r.Context, account.NewIssueShortToken(r.Caller.User, auth.Hash(token), account.ShortToken{
		Use: account.UseLogin, ExpiresTS: m.Clock.Now().Add(loginTokenLife).UnixMilli(),
	}))
	if err != nil {
		return nil, err
	}
	return map[string]any{"login_token": token, "expires_in_ms": loginTokenLife.Milliseconds()}, nil
}

// tokenLogin logs in whoever has a login token, once.
func (m *Module) tokenLogin(r *api.Request, req *loginRequest) (any, error) {
	if req.Token == nil {
		return nil, api.Missing("token")
	}
	kind, local, err := auth.Parse(*req.Token)
	if err != nil || kind != auth.Login {
		return nil, merr.ForbiddenErr("The login token is not valid, or was used")
	}
	user := ids.NewUserID(local, m.Server)
	return m.begin(r, req, user, func(cmd *account.Login) { cmd.Token = auth.Hash(*req.Token) })
}
