package session_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func dummy(username, password string) object {
	return object{"username": username, "password": password, "auth": object{"type": "m.login.dummy"}}
}

// flowsOf returns the stages that a 401 offers, and its session.
func flowsOf(t *testing.T, status int, out object) ([]string, string) {
	t.Helper()
	flows, _ := out["flows"].([]any)
	id, _ := out["session"].(string)
	if status != 401 || len(flows) == 0 || id == "" {
		t.Fatalf("no challenge: %d %v", status, out)
	}
	var stages []string
	for _, f := range flows {
		for _, s := range apptest.At(f, "stages").([]any) {
			stages = append(stages, s.(string))
		}
	}
	return stages, id
}

func TestRegisterOpen(t *testing.T) {
	w := newWorld(t)
	c := w.anonymous()
	status, out := c.Do(t, "POST", v3+"/register", object{})
	stages, id := flowsOf(t, status, out)
	if len(stages) != 1 || stages[0] != "m.login.dummy" || out["errcode"] != nil {
		t.Errorf("challenge %v", out)
	}
	body := object{
		"username": "Alice", "password": apptest.Password, "device_id": "PHONE", "initial_device_display_name": "my phone",
		"auth": object{"type": "m.login.dummy", "session": id},
	}
	out = c.Must(t, "POST", v3+"/register", body)
	if out["user_id"] != "@alice:h" || out["device_id"] != "PHONE" || out["home_server"] != "h" {
		t.Errorf("answer %v", out)
	}
	alice := with(c, out["access_token"])
	if d := alice.Must(t, "GET", v3+"/devices/PHONE", nil); d["display_name"] != "my phone" {
		t.Errorf("device %v", d)
	}
	c.Fails(t, "POST", v3+"/register", dummy("alice", apptest.Password), 400, "M_USER_IN_USE")
	c.Fails(t, "POST", v3+"/register", dummy("ALICE", apptest.Password), 400, "M_USER_IN_USE")

	// Without a name the server chooses one; with inhibit_login there is no session.
	noName := object{"password": apptest.Password, "inhibit_login": true, "auth": object{"type": "m.login.dummy"}}
	out = c.Must(t, "POST", v3+"/register", noName)
	if user, _ := out["user_id"].(string); !strings.HasPrefix(user, "@") || out["access_token"] != nil || out["device_id"] != nil {
		t.Errorf("inhibited login: %v", out)
	}
	c.Must(t, "POST", v3+"/login", loginBody(out["user_id"].(string), apptest.Password))
	refresh := dummy("carol", apptest.Password)
	refresh["refresh_token"] = true
	if out = c.Must(t, "POST", v3+"/register", refresh); out["refresh_token"] == nil || out["expires_in_ms"] == nil {
		t.Errorf("with a refresh token: %v", out)
	}
}

func TestRegisterRefused(t *testing.T) {
	w := newWorld(t)
	c := w.anonymous()
	for _, name := range []string{"al ice", "älice", "a:b", "a@b", "alice!", "a\nb", strings.Repeat("a", 300)} {
		c.Fails(t, "POST", v3+"/register", dummy(name, apptest.Password), 400, "M_INVALID_USERNAME")
	}
	for _, password := range []string{"", "short", "password", "password123", "xx-bobby-xx"} {
		c.Fails(t, "POST", v3+"/register", dummy("bobby", password), 400, "M_WEAK_PASSWORD")
	}
	c.Fails(t, "POST", v3+"/register", dummy("bobby", strings.Repeat("long ", 200)), 400, "M_INVALID_PARAM")
	c.Fails(t, "POST", v3+"/register", object{"username": "bobby", "auth": object{"type": "m.login.dummy"}}, 400, "M_MISSING_PARAM")
	c.Fails(t, "POST", v3+"/register?kind=guest", object{}, 403, "M_GUEST_ACCESS_FORBIDDEN")
	c.Fails(t, "POST", v3+"/register?kind=robot", object{}, 400, "M_INVALID_PARAM")
	status, out := c.Do(t, "POST", v3+"/register", object{"username": "bobby", "password": apptest.Password, "auth": object{"type": "m.login.password", "password": "x"}})
	if flowsOf(t, status, out); out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("a stage of no flow: %v", out)
	}
	c.Must(t, "GET", v3+"/register/available?username=bobby", nil) // none of that made an account
}

func TestRegisterClosed(t *testing.T) {
	w := newWorld(t, mode(config.RegistrationClosed))
	w.anonymous().Fails(t, "POST", v3+"/register", dummy("bob", apptest.Password), 403, "M_FORBIDDEN")
}

const validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="

func TestRegisterWithToken(t *testing.T) {
	w := newWorld(t, mode(config.RegistrationToken))
	w.do(&account.UseRegToken{Token: "once", Use: account.CreateRegToken, New: account.RegToken{UsesAllowed: 1, Admin: true}})
	c := w.anonymous()
	body := func(name, token, id string) object {
		return object{"username": name, "password": apptest.Password, "auth": object{
			"type": "m.login.registration_token", "token": token, "session": id,
		}}
	}
	status, out := c.Do(t, "POST", v3+"/register", object{"username": "root", "password": apptest.Password})
	stages, id := flowsOf(t, status, out)
	if len(stages) != 1 || stages[0] != "m.login.registration_token" {
		t.Fatalf("stages %v", stages)
	}
	status, out = c.Do(t, "POST", v3+"/register", dummy("root", apptest.Password))
	if flowsOf(t, status, out); out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("the dummy stage: %v", out)
	}
	status, out = c.Do(t, "POST", v3+"/register", body("root", "guess", id))
	if _, id = flowsOf(t, status, out); out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("a wrong token: %v", out)
	}
	if out = c.Must(t, "GET", validity+"once", nil); out["valid"] != true {
		t.Errorf("validity before: %v", out)
	}
	c.Must(t, "POST", v3+"/register", body("root", "once", id))
	acc, err := account.NewReader(w.store, partitions).Account(t.Context(), "@root:h")
	if err != nil || !acc.Admin {
		t.Errorf("account %+v %v, want an administrator", acc, err)
	}
	if out = c.Must(t, "GET", validity+"once", nil); out["valid"] != false {
		t.Errorf("validity after: %v", out)
	}
	status, out = c.Do(t, "POST", v3+"/register", body("second", "once", ""))
	if flowsOf(t, status, out); out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("a used token: %v", out)
	}
}

// A token that is good for one account makes one, however many ask at once; the
// same holds for a name.
func TestRegisterRaces(t *testing.T) {
	w := newWorld(t, mode(config.RegistrationToken))
	w.do(&account.UseRegToken{Token: "once", Use: account.CreateRegToken, New: account.RegToken{UsesAllowed: 1}})
	w.do(&account.UseRegToken{Token: "many", Use: account.CreateRegToken})
	for name, request := range map[string]func(i int) object{
		"one token": func(i int) object {
			return object{"username": "user" + string(rune('a'+i)), "password": apptest.Password, "auth": object{"type": "m.login.registration_token", "token": "once"}}
		},
		"one name": func(int) object {
			return object{"username": "popular", "password": apptest.Password, "auth": object{"type": "m.login.registration_token", "token": "many"}}
		},
	} {
		var wg sync.WaitGroup
		results := make(chan int, 10)
		for i := range cap(results) {
			c := w.anonymous()
			wg.Go(func() {
				status, _ := c.Do(t, "POST", v3+"/register", request(i))
				results <- status
			})
		}
		wg.Wait()
		close(results)
		won := 0
		for status := range results {
			if status == 200 {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%s: %d registrations won", name, won)
		}
	}
}

func TestTokenValidity(t *testing.T) {
	w := newWorld(t)
	expires := w.clock.Now().Add(time.Minute).UnixMilli()
	w.do(&account.UseRegToken{Token: "soon", Use: account.CreateRegToken, New: account.RegToken{ExpiresTS: expires}})
	c := w.anonymous()
	valid := func(token string, want bool) {
		t.Helper()
		if out := c.Must(t, "GET", validity+token, nil); out["valid"] != want {
			t.Errorf("%.20s: %v, want %t", token, out, want)
		}
	}
	valid("soon", true)
	valid("never", false)
	valid(strings.Repeat("x", 5000), false)
	w.clock.Advance(time.Hour)
	valid("soon", false)
	c.Fails(t, "GET", validity, nil, 400, "M_MISSING_PARAM")
}

func TestAvailable(t *testing.T) {
	w := newWorld(t)
	w.User(t, "alice")
	c := w.anonymous()
	const path = v3 + "/register/available"
	if out := c.Must(t, "GET", path+"?username=bob", nil); out["available"] != true {
		t.Errorf("bob: %v", out)
	}
	c.Fails(t, "GET", path+"?username=alice", nil, 400, "M_USER_IN_USE")
	c.Fails(t, "GET", path+"?username=a%20b", nil, 400, "M_INVALID_USERNAME")
	c.Fails(t, "GET", path, nil, 400, "M_MISSING_PARAM")
}

func sign(secret string, fields ...string) string {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(strings.Join(fields, "\x00")))
	return hex.EncodeToString(h.Sum(nil))
}

func TestSharedSecret(t *testing.T) {
	const path = "/_synapse/admin/v1/register"
	w := newWorld(t, mode(config.RegistrationClosed))
	c := w.anonymous()
	nonce := c.Must(t, "GET", path, nil)["nonce"].(string)
	body := func(secret string) object {
		return object{
			"nonce": nonce, "username": "op", "displayname": "Operator", "password": "pw", "admin": true,
			"mac": sign(secret, nonce, "op", "pw", "admin"),
		}
	}
	c.Fails(t, "POST", path, body("guess"), 403, "M_FORBIDDEN")
	out := c.Must(t, "POST", path, body("shared"))
	op := with(c, out["access_token"])
	op.UserID = "@op:h"
	works(t, op)
	r := account.NewReader(w.store, partitions)
	if acc, err := r.Account(t.Context(), "@op:h"); err != nil || !acc.Admin {
		t.Errorf("account %+v %v, want an administrator", acc, err)
	}
	if n, err := r.Names(t.Context(), "@op:h"); err != nil || n.DisplayName != "Operator" {
		t.Errorf("names %+v %v", n, err)
	}
	c.Fails(t, "POST", path, body("shared"), 400, "M_UNKNOWN") // the nonce is used up
	for _, change := range []object{{"username": ""}, {"password": ""}} {
		nonce = c.Must(t, "GET", path, nil)["nonce"].(string)
		b := object{"nonce": nonce, "username": "op2", "password": "pw"}
		for k, v := range change {
			b[k] = v
		}
		b["mac"] = sign("shared", nonce, b["username"].(string), b["password"].(string), "notadmin")
		c.Fails(t, "POST", path, b, 400, "M_MISSING_PARAM")
	}

	off := newWorld(t, func(d *session.Deps) { d.Shared = nil }).anonymous()
	off.Fails(t, "GET", path, nil, 400, "M_UNKNOWN")
	off.Fails(t, "POST", path, body("shared"), 400, "M_UNKNOWN")
}
