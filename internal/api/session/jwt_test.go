package session_test

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
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

// proof is a token for user-interactive authentication.
func (w *world) proof(session string, claims object) object {
	w.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jwtSecret}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		w.t.Fatal(err)
	}
	return object{"type": "org.matrix.login.jwt", "session": session, "token": token}
}

// Who came by a JSON web token and has no password proves who they are by another
// token: one that was issued for this, names them, and was not used before.
func TestProofByJWT(t *testing.T) {
	w := newWorld(t, withJWT(t, true))
	c := w.anonymous()
	login := func(name string) *apptest.Client {
		n := with(c, c.Must(t, "POST", v3+"/login", w.jwt(name))["access_token"])
		n.UserID = "@" + name + ":h"
		return n
	}
	alice := login("alice")
	var device string
	begin := func() (session string) {
		t.Helper()
		device = c.Must(t, "POST", v3+"/login", w.jwt("alice"))["device_id"].(string)
		status, out := alice.Do(t, "DELETE", v3+"/devices/"+device, object{})
		stages, session := flowsOf(t, status, out)
		if len(stages) != 1 || stages[0] != "org.matrix.login.jwt" {
			t.Fatalf("stages %v", stages)
		}
		return session
	}
	now := func(d int64) int64 { return w.clock.Now().Unix() + d }
	session := begin()
	w.clock.Advance(5 * time.Minute)
	good := object{"sub": "Alice", "iat": now(0), "exp": now(300), "jti": "1"}
	for name, claims := range map[string]object{
		"expired":             {"sub": "alice", "iat": now(-280), "exp": now(-120)},
		"issued before":       {"sub": "alice", "iat": now(-600), "exp": now(300)},
		"of unknown age":      {"sub": "alice", "exp": now(300)},
		"of the future":       {"sub": "alice", "iat": now(600), "exp": now(900)},
		"that never expires":  {"sub": "alice", "iat": now(0)},
		"without a subject":   {"iat": now(0), "exp": now(300)},
		"with another's name": {"name": "alice", "iat": now(0), "exp": now(300)},
	} {
		status, out := alice.Do(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, claims)})
		if status != 401 || out["errcode"] != "M_FORBIDDEN" || out["session"] == nil {
			t.Errorf("a token %s: %d %v", name, status, out)
		}
	}
	for _, subject := range []string{"bob", "@alice:h", "_server", "no spaces"} {
		alice.Fails(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, object{"sub": subject, "iat": now(0), "exp": now(300)})}, 403, "M_FORBIDDEN")
	}
	alice.Fails(t, "DELETE", v3+"/devices/"+device, object{"auth": object{"type": "org.matrix.login.jwt", "session": session}}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "DELETE", v3+"/devices/"+device, object{"auth": object{"type": "org.matrix.login.jwt", "session": session, "token": 5}}, 400, "M_BAD_JSON")
	forged := w.proof(session, good)
	forged["token"] = forged["token"].(string) + "x"
	if status, _ := alice.Do(t, "DELETE", v3+"/devices/"+device, object{"auth": forged}); status != 401 {
		t.Errorf("a forged token: %d", status)
	}
	alice.Must(t, "GET", v3+"/devices/"+device, nil) // nothing was done by any of these
	alice.Must(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, good)})
	alice.Fails(t, "GET", v3+"/devices/"+device, nil, 404, "M_NOT_FOUND")

	// The same token is good for nothing else, however fresh.
	session = begin()
	if status, out := alice.Do(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, good)}); status != 401 || out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("a token that was used: %d %v", status, out)
	}
	next := object{"sub": "alice", "iat": now(0), "exp": now(300), "jti": "2"}
	alice.Must(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, next)})
	// A session is its own operation's and caller's.
	session = begin()
	login("bob").Fails(t, "DELETE", v3+"/devices/"+device, object{"auth": w.proof(session, object{"sub": "bob", "iat": now(0), "exp": now(300)})}, 403, "M_FORBIDDEN")
}

// Who has a password proves who they are by it: the issuer of tokens is asked for
// nobody else.
func TestNoProofByJWTWithPassword(t *testing.T) {
	w := newWorld(t, withJWT(t, true))
	alice := w.User(t, "alice")
	other := alice.Login(t)
	status, out := alice.Do(t, "DELETE", v3+"/devices/"+other.Device, object{})
	stages, session := flowsOf(t, status, out)
	if len(stages) != 1 || stages[0] != "m.login.password" {
		t.Errorf("stages %v", stages)
	}
	now := w.clock.Now().Unix()
	status, _ = alice.Do(t, "DELETE", v3+"/devices/"+other.Device, object{"auth": w.proof(session, object{"sub": "alice", "iat": now, "exp": now + 60})})
	if status != 401 {
		t.Errorf("a token of who has a password: %d", status)
	}
	works(t, other)
}
