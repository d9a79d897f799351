package accounts_test

import (
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestOpenID(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	const info = "/_matrix/federation/v1/openid/userinfo"
	path := v3 + "/user/" + esc(alice.UserID) + "/openid/request_token"
	out := alice.Must(t, "POST", path, object{})
	if out["token_type"] != "Bearer" || out["matrix_server_name"] != apptest.Name || out["expires_in"] != 3600.0 {
		t.Errorf("answer %v", out)
	}
	token, _ := out["access_token"].(string)
	c := anonymous(t, s)
	for range 2 { // it is good until it ends
		if got := c.Must(t, "GET", info+"?access_token="+url.QueryEscape(token), nil); got["sub"] != alice.UserID {
			t.Errorf("userinfo %v", got)
		}
	}
	// Neither kind of token passes for the other.
	c.Fails(t, "GET", info+"?access_token="+url.QueryEscape(alice.Token), nil, 401, "M_UNKNOWN_TOKEN")
	c.Fails(t, "GET", info+"?access_token=x", nil, 401, "M_UNKNOWN_TOKEN")
	c.Fails(t, "GET", info, nil, 401, "M_MISSING_TOKEN")
	thief := *c
	thief.Token = token
	thief.Fails(t, "GET", whoami, nil, 401, "M_UNKNOWN_TOKEN")
	bob.Fails(t, "POST", path, object{}, 403, "M_FORBIDDEN")
	c.Fails(t, "POST", path, object{}, 401, "M_MISSING_TOKEN")

	alice.Must(t, "POST", v3+"/account/deactivate", object{"auth": passwordAuth(alice)})
	c.Fails(t, "GET", info+"?access_token="+url.QueryEscape(token), nil, 401, "M_UNKNOWN_TOKEN")
}
