package accounts_test

import (
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const v3 = "/_matrix/client/v3"

func anonymous(t *testing.T, s *apptest.Server) *apptest.Client {
	t.Helper()
	return s.Anonymous().Apart(t)
}

func passwordAuth(c *apptest.Client) object {
	return object{"type": "m.login.password", "password": apptest.Password, "identifier": object{"type": "m.id.user", "user": c.UserID}}
}

func esc(s string) string { return url.PathEscape(s) }
