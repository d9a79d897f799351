package accounts_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// admin makes an administrator.
func admin(t *testing.T, s *apptest.Server, name string) *apptest.Client {
	t.Helper()
	const path = "/_synapse/admin/v1/register"
	c := anonymous(t, s)
	nonce, _ := c.Must(t, "GET", path, nil)["nonce"].(string)
	mac := hmac.New(sha1.New, []byte("shared"))
	mac.Write([]byte(nonce + "\x00" + name + "\x00" + apptest.Password + "\x00admin"))
	out := c.Must(t, "POST", path, object{
		"nonce": nonce, "username": name, "password": apptest.Password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	})
	c.UserID, _ = out["user_id"].(string)
	c.Token, _ = out["access_token"].(string)
	c.Device, _ = out["device_id"].(string)
	return c
}

func anonymous(t *testing.T, s *apptest.Server) *apptest.Client {
	t.Helper()
	c := s.Anonymous()
	c.HTTP = &http.Client{Transport: &http.Transport{}} // connections of its own
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

func passwordAuth(c *apptest.Client) object {
	return object{"type": "m.login.password", "password": apptest.Password, "identifier": object{"type": "m.id.user", "user": c.UserID}}
}

func esc(s string) string { return url.PathEscape(s) }
