package session_test

import (
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/auth"
)

var jwtSecret = []byte("a secret of thirty-two bytes or so")

func withJWT(t *testing.T, creates bool) func(*session.Deps) {
	return func(d *session.Deps) {
		var err error
		if d.JWT, err = auth.NewJWT(auth.JWTOptions{Algorithms: []string{"HS256"}, Secret: jwtSecret, Subject: "sub"}); err != nil {
			t.Fatal(err)
		}
		d.JWTCreates = creates
	}
}

func (w *world) jwt(subject string) object {
	w.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jwtSecret}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(object{"sub": subject, "exp": w.clock.Now().Unix() + 60}).Serialize()
	if err != nil {
		w.t.Fatal(err)
	}
	return object{"type": "org.matrix.login.jwt", "token": token}
}

func TestJWTLogin(t *testing.T) {
	w := newWorld(t, withJWT(t, true))
	c := w.anonymous()
	flows := c.Must(t, "GET", v3+"/login", nil)["flows"].([]any)
	if len(flows) != 3 {
		t.Errorf("flows %v", flows)
	}
	first := c.Must(t, "POST", v3+"/login", w.jwt("Alice"))
	body := w.jwt("alice")
	body["type"], body["device_id"] = "m.login.jwt", "D"
	second := c.Must(t, "POST", v3+"/login", body)
	if first["user_id"] != "@alice:h" || second["user_id"] != "@alice:h" || second["device_id"] != "D" {
		t.Errorf("logins %v and %v", first, second)
	}
	n := with(c, second["access_token"])
	n.UserID = "@alice:h"
	works(t, n)
	// There is no password to guess.
	c.Fails(t, "POST", v3+"/login", loginBody("alice", ""), 403, "M_FORBIDDEN")
	for _, subject := range []string{"@alice:h", "_server", "no spaces", "a/../b\x00", "ünï"} {
		c.Fails(t, "POST", v3+"/login", w.jwt(subject), 403, "M_FORBIDDEN")
	}
	c.Fails(t, "POST", v3+"/login", object{"type": "m.login.jwt", "token": "x"}, 403, "M_FORBIDDEN")
	c.Fails(t, "POST", v3+"/login", object{"type": "m.login.jwt"}, 400, "M_MISSING_PARAM")
}

func TestJWTLoginOfKnownUsersOnly(t *testing.T) {
	w := newWorld(t, withJWT(t, false))
	w.User(t, "alice")
	c := w.anonymous()
	c.Must(t, "POST", v3+"/login", w.jwt("alice"))
	c.Fails(t, "POST", v3+"/login", w.jwt("nobody"), 403, "M_FORBIDDEN")
}

func TestWithoutJWT(t *testing.T) {
	w := newWorld(t)
	w.anonymous().Fails(t, "POST", v3+"/login", w.jwt("alice"), 400, "M_UNKNOWN")
}
