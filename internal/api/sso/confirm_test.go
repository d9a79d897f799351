package sso_test

import (
	"html"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// signedIn returns a client of a person at the provider, who has no password.
func (s *site) signedIn(t *testing.T, sub string) *apptest.Client {
	t.Helper()
	s.idp.person(object{"sub": sub, "preferred_username": "p" + sub})
	out := s.signIn(t)
	c := *s.client(t)
	c.Token, c.UserID = out["access_token"].(string), out["user_id"].(string)
	return &c
}

// challenge is the 401 of a request that needs proof; stage is the flow it offers.
func challenge(t *testing.T, c *apptest.Client, method, path string, body object, stage string) (session string) {
	t.Helper()
	status, out := c.Do(t, method, path, body)
	flows, _ := out["flows"].([]any)
	if status != 401 || len(flows) != 1 || apptest.At(flows[0], "stages").([]any)[0] != stage {
		t.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out["session"].(string)
}

func fallback(s *site, session string) string {
	return s.URL + v3 + "/auth/m.login.sso/fallback/web?" + url.Values{"session": {session}}.Encode()
}

// provider is where a page leads.
func (p page) provider(t *testing.T) string {
	t.Helper()
	m := link.FindStringSubmatch(p.body)
	if p.status != 200 || m == nil {
		t.Fatalf("no link: %d %s", p.status, p.body)
	}
	return html.UnescapeString(m[1])
}

// confirm signs in again for a session, in a browser of its own.
func (s *site) confirm(t *testing.T, session string) page {
	t.Helper()
	b := newBrowser(t)
	return b.follow(b.open(fallback(s, session)).provider(t), 1)
}

func with(session string, more object) object {
	out := object{"auth": object{"session": session}}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func crossSigning(user, key string) object {
	return object{"master_key": object{"user_id": user, "usage": []string{"master"}, "keys": object{"ed25519:" + key: key}}}
}

// What needs proof works for an account that has no password, and each time once.
func TestConfirm(t *testing.T) {
	s := newSite(t, nil)
	s.signedIn(t, "1")
	alice := s.signedIn(t, "1")
	own := alice.Must(t, "GET", v3+"/account/whoami", nil)["device_id"]
	var devices []string
	for _, d := range alice.Must(t, "GET", v3+"/devices", nil)["devices"].([]any) {
		if id := apptest.At(d, "device_id").(string); id != own {
			devices = append(devices, id)
		}
	}
	if len(devices) != 1 {
		t.Fatalf("devices %v", devices)
	}
	keyA, keyB := strings.Repeat("A", 43), strings.Repeat("B", 42)+"A"
	const keys = v3 + "/keys/device_signing/upload"
	alice.Must(t, "POST", keys, crossSigning(alice.UserID, keyA))

	for _, op := range []struct {
		method, path, says string
		body, again        object
	}{
		{"POST", keys, "replace the keys", crossSigning(alice.UserID, keyB), crossSigning(alice.UserID, keyA)},
		{"DELETE", v3 + "/devices/" + devices[0], "sign the device “" + devices[0] + "” out", nil, nil},
		{"POST", "/_matrix/client/v1/login/get_token", "sign another device in", nil, nil},
		{"POST", v3 + "/delete_devices", "sign devices out", object{"devices": devices}, object{"devices": devices}},
		{"POST", v3 + "/account/deactivate", "END YOUR ACCOUNT", nil, nil},
	} {
		session := challenge(t, alice, op.method, op.path, with("", op.body), "m.login.sso")
		// Asking before it is done is no failure.
		if status, out := alice.Do(t, op.method, op.path, with(session, op.body)); status != 401 || out["errcode"] != nil {
			t.Fatalf("%s: too early: %d %v", op.path, status, out)
		}
		if p := newBrowser(t).open(fallback(s, session)); !strings.Contains(p.body, op.says) || !strings.Contains(p.body, alice.UserID) {
			t.Errorf("%s: the page says %s", op.path, p.body)
		}
		done := s.confirm(t, session)
		csp := done.header.Get("Content-Security-Policy")
		if done.status != 200 || !strings.Contains(done.body, `postMessage("authDone","*")`) || !strings.Contains(done.body, "window.onAuthDone()") ||
			!strings.Contains(csp, "script-src 'sha256-") || strings.Contains(done.body, "loginToken") {
			t.Fatalf("%s: done: %d %s %s", op.path, done.status, csp, done.body)
		}
		alice.Must(t, op.method, op.path, with(session, op.body))
		if op.says == "END YOUR ACCOUNT" {
			break
		}
		if status, _ := alice.Do(t, op.method, op.path, with(session, op.again)); status != 401 {
			t.Errorf("%s: a second time: %d", op.path, status)
		}
	}
	if status, _ := alice.Do(t, "GET", v3+"/account/whoami", nil); status != 401 {
		t.Errorf("after the end of the account: %d", status)
	}
}

// A confirmation is for one operation of one user, by the same person.
func TestConfirmIsBound(t *testing.T) {
	s := newSite(t, nil)
	alice, bob := s.signedIn(t, "1"), s.signedIn(t, "2")
	const path = v3 + "/delete_devices"
	body := object{"devices": []string{"X"}}
	session := challenge(t, alice, "POST", path, body, "m.login.sso")
	refused := func(name string) {
		t.Helper()
		if status, out := alice.Do(t, "POST", path, with(session, body)); status != 401 {
			t.Errorf("%s: %d %v", name, status, out)
		}
	}
	// Bob's provider account confirms nothing of Alice's; the person who signs in last
	// is Bob.
	if p := s.confirm(t, session); p.status != 403 || strings.Contains(p.body, "authDone") {
		t.Errorf("another person: %d %s", p.status, p.body)
	}
	refused("another person")

	s.idp.person(object{"sub": "1"})
	attacker, victim := newBrowser(t), newBrowser(t)
	there := attacker.open(fallback(s, session)).provider(t)
	back := victim.open(there).location
	if p := victim.open(back); p.status != 403 {
		t.Errorf("the link of another browser: %d %s", p.status, p.body)
	}
	refused("the link of another browser")
	// A flow of signing in is none of signing in again.
	s.signIn(t)
	refused("signing in")

	s.confirm(t, session)
	bob.Fails(t, "POST", path, with(session, body), 403, "M_FORBIDDEN")
	alice.Fails(t, "POST", v3+"/account/deactivate", with(session, nil), 403, "M_FORBIDDEN")
	if status, _ := alice.Do(t, "POST", path, object{"auth": object{"session": challenge(t, alice, "POST", path, body, "m.login.sso")}, "devices": []string{"X"}}); status != 401 {
		t.Errorf("another session: %d", status)
	}
	var good atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if status, _ := alice.Do(t, "POST", path, with(session, body)); status == 200 {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 {
		t.Errorf("%d requests with one confirmation", good.Load())
	}
	// A type that says what it wants is told that it is not done.
	session = challenge(t, alice, "POST", path, body, "m.login.sso")
	alice.Fails(t, "POST", path, object{"auth": object{"type": "m.login.sso", "session": session}, "devices": []string{"X"}}, 401, "M_FORBIDDEN")
}

// Who has a password too may choose; who has no account of a provider is asked for the
// password alone.
func TestConfirmOrPassword(t *testing.T) {
	s := newSite(t, nil)
	alice := s.signedIn(t, "1")
	const path = v3 + "/account/password"
	body := object{"new_password": apptest.Password, "logout_devices": false}
	session := challenge(t, alice, "POST", path, body, "m.login.sso")
	s.confirm(t, session)
	alice.Must(t, "POST", path, with(session, body))
	_, out := alice.Do(t, "POST", v3+"/delete_devices", object{"devices": []string{"X"}})
	if flows := out["flows"].([]any); len(flows) != 2 {
		t.Errorf("flows %v", flows)
	}
	alice.Must(t, "POST", v3+"/delete_devices", object{"devices": []string{"X"}, "auth": object{"type": "m.login.password", "password": apptest.Password}})
	bob := s.User(t, "bob")
	session = challenge(t, bob, "POST", v3+"/delete_devices", object{"devices": []string{"X"}}, "m.login.password")
	if p := newBrowser(t).open(fallback(s, session)); p.status != 403 || link.MatchString(p.body) {
		t.Errorf("a page for who has no account elsewhere: %d %s", p.status, p.body)
	}
}

func TestConfirmPage(t *testing.T) {
	s := newSite(t, nil)
	c := s.client(t)
	c.Fails(t, "GET", v3+"/auth/m.login.sso/fallback/web", nil, 400, "M_MISSING_PARAM")
	c.Fails(t, "GET", v3+"/auth/m.login.password/fallback/web?session=x", nil, 404, "M_UNRECOGNIZED")
	_, out := c.Do(t, "POST", v3+"/register", object{"username": "new", "password": apptest.Password})
	for _, session := range []string{"x", `"><svg onload=alert(1)>`, out["session"].(string)} {
		p := newBrowser(t).open(fallback(s, session))
		if p.status != 403 || link.MatchString(p.body) || strings.Contains(p.body, "<svg") {
			t.Errorf("session %q: %d %s", session, p.status, p.body)
		}
	}
	alice := s.signedIn(t, "1")
	session := challenge(t, alice, "DELETE", v3+"/devices/%3Csvg%3E", object{}, "m.login.sso")
	if p := newBrowser(t).open(fallback(s, session)); strings.Contains(p.body, "<svg") {
		t.Error("a device ID is not escaped")
	}
	without := &site{Server: apptest.Start(t)}
	without.client(t).Fails(t, "GET", v3+"/auth/m.login.sso/fallback/web?session=x", nil, 404, "M_UNRECOGNIZED")
}
