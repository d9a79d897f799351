package session_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/appservice"
)

// Who was proven stays so without the token, as sockets ask: a user, and a service; not
// one that there is no more, nor nobody.
func TestProvenBefore(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "irc.yaml")
	text := `{id: irc, url: "", as_token: as-token, hs_token: hs-token, sender_localpart: ircbot, namespaces: {users: [], aliases: [], rooms: []}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	registry, err := appservice.Load([]string{file}, serverName)
	if err != nil {
		t.Fatal(err)
	}
	a := session.NewServiceAuthenticator(w.tokens, registry, account.NewReader(w.store, partitions))
	w.User(t, "ircbot")
	for _, token := range []string{"as-token", w.User(t, "alice").Token} {
		first, err := a.Authenticate(t.Context(), api.Credentials{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		again, err := a.Authenticate(t.Context(), api.Credentials{User: first.User, TokenHash: first.TokenHash, AppService: first.AppService})
		if err != nil || again != first {
			t.Errorf("%+v, and without the token %+v, %v", first, again, err)
		}
	}
	for _, c := range []api.Credentials{{}, {User: "@alice:h"}, {User: "@ircbot:h", AppService: "gone"}} {
		if caller, err := a.Authenticate(t.Context(), c); err == nil {
			t.Errorf("%+v is %+v", c, caller)
		}
	}
}
