package accounts

import (
	"net/http"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// openIDLife is how long an OpenID token lasts: the third party looks it up when
// it is handed over.
const openIDLife = time.Hour

// openID: spec client-server §POST /user/{userId}/openid/request_token.
func (m *Module) openID(r *api.Request) (any, error) {
	user, err := r.Self("userId")
	if err != nil {
		return nil, err
	}
	token := auth.NewToken(auth.OpenID, user.Localpart())
	_, err = m.Router.Do(r.Context, account.NewIssueShortToken(user, auth.Hash(token), account.ShortToken{
		Use: account.UseOpenID, ExpiresTS: m.Clock.Now().Add(openIDLife).UnixMilli(),
	}))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"access_token": token, "token_type": "Bearer", "matrix_server_name": m.Server,
		"expires_in": int64(openIDLife.Seconds()),
	}, nil
}

// userInfo tells a third party whose OpenID token it was given. It is the one
// endpoint of federation that makes sense without federating. The dispatcher takes
// access_token out of the query and never logs it. spec: server-server §OpenID.
func (m *Module) userInfo(r *api.Request) (any, error) {
	token := r.Token()
	if token == "" {
		return nil, merr.New(http.StatusUnauthorized, merr.MissingToken, "Missing access token")
	}
	unknown := merr.New(http.StatusUnauthorized, merr.UnknownToken, "The token is not valid")
	kind, local, err := auth.Parse(token)
	if err != nil || kind != auth.OpenID {
		return nil, unknown
	}
	user := ids.NewUserID(local, m.Server)
	ok, err := m.Accounts.OpenID(r.Context, user, auth.Hash(token), m.Clock.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, unknown
	}
	return map[string]ids.UserID{"sub": user}, nil
}
