package session_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const getToken = "/_matrix/client/v1/login/get_token"

func tokenBody(token any) object { return object{"type": "m.login.token", "token": token} }

func TestLoginToken(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	proof := object{"auth": passwordAuth("alice", apptest.Password)}
	if status, out := alice.Do(t, "POST", getToken, object{}); status != 401 || out["flows"] == nil {
		t.Errorf("without proof: %d %v", status, out)
	}
	w.anonymous().Fails(t, "POST", getToken, proof, 401, "M_MISSING_TOKEN")
	first := alice.Must(t, "POST", getToken, proof)
	second := alice.Must(t, "POST", "/_matrix/client/unstable/org.matrix.msc3882/login/get_token", proof)
	if first["expires_in_ms"] != 120000.0 || first["login_token"] == second["login_token"] {
		t.Errorf("tokens %v and %v", first, second)
	}
	c := w.anonymous()
	body := tokenBody(first["login_token"])
	body["device_id"], body["refresh_token"] = "TV", true
	out := c.Must(t, "POST", v3+"/login", body)
	if out["user_id"] != alice.UserID || out["device_id"] != "TV" || out["refresh_token"] == nil {
		t.Errorf("login %v", out)
	}
	n := with(c, out["access_token"])
	n.UserID = alice.UserID
	works(t, n)
	works(t, alice)
	c.Fails(t, "POST", v3+"/login", body, 403, "M_FORBIDDEN")

	w.clock.Advance(2 * time.Minute)
	c.Fails(t, "POST", v3+"/login", tokenBody(second["login_token"]), 403, "M_FORBIDDEN")
	for _, token := range []any{"", "x", alice.Token} {
		c.Fails(t, "POST", v3+"/login", tokenBody(token), 403, "M_FORBIDDEN")
	}
	c.Fails(t, "POST", v3+"/login", object{"type": "m.login.token"}, 400, "M_MISSING_PARAM")
	c.Fails(t, "POST", v3+"/login", tokenBody(5), 400, "M_BAD_JSON")
}

// A login token of before does not outlast the end of all sessions.
func TestLoginTokenEndsWithSessions(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	proof := object{"auth": passwordAuth("alice", apptest.Password)}
	token := alice.Must(t, "POST", getToken, proof)["login_token"]
	alice.Must(t, "POST", v3+"/account/password", object{"auth": proof["auth"], "new_password": "another one, longer"})
	w.anonymous().Fails(t, "POST", v3+"/login", tokenBody(token), 403, "M_FORBIDDEN")
}

func TestLoginTokenRace(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	token := alice.Must(t, "POST", getToken, object{"auth": passwordAuth("alice", apptest.Password)})["login_token"]
	var won atomic.Int32
	clients := make([]*apptest.Client, 20)
	for i := range clients {
		clients[i] = w.anonymous()
	}
	inParallel(clients, func(c *apptest.Client) {
		if status, _ := c.Do(t, "POST", v3+"/login", tokenBody(token)); status == 200 {
			won.Add(1)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d logins with one token", won.Load())
	}
}
