package session_test

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// Whatever a client sends, the answer says what is wrong with it. Do fails the
// test for every 5xx.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	const (
		register = v3 + "/register"
		login    = v3 + "/login"
		password = `"type":"m.login.password"`
		bad      = "M_BAD_JSON"
		missing  = "M_MISSING_PARAM"
		invalid  = "M_INVALID_PARAM"
	)
	for _, tt := range []struct {
		method, path, body, code string
	}{
		{"POST", login, `{}`, missing},
		{"POST", login, `{` + password + `}`, missing},
		{"POST", login, `{` + password + `,"password":"x"}`, missing},
		{"POST", login, `{` + password + `,"password":5,"user":"alice"}`, bad},
		{"POST", login, `{` + password + `,"password":null,"user":"alice"}`, missing},
		{"POST", login, `{` + password + `,"password":"x","identifier":{}}`, missing},
		{"POST", login, `{` + password + `,"password":"x","identifier":"alice"}`, bad},
		{"POST", login, `{` + password + `,"password":"x","identifier":{"type":"m.id.user"}}`, missing},
		{"POST", login, `{` + password + `,"password":"x","identifier":{"type":"m.id.user","user":{"$ne":1}}}`, bad},
		{"POST", login, `{` + password + `,"password":"x","identifier":{"type":"m.id.user","user":"@"}}`, invalid},
		{"POST", login, `{` + password + `,"password":"x","identifier":{"type":"m.id.phone","phone":"1"}}`, "M_UNRECOGNIZED"},
		{"POST", login, `{` + password + `,"password":"x","user":"alice","device_id":[]}`, bad},
		{"POST", login, `{` + password + `,"password":"x","user":"alice","device_id":"` + strings.Repeat("d", 300) + `"}`, invalid},
		{"POST", login, `{` + password + `,"password":"x","user":"alice","device_id":"a\u0000b"}`, invalid},
		{"POST", login, `{` + password + `,"password":"x","user":"alice","refresh_token":"yes"}`, bad},
		{"POST", login, `{` + password + `,"password":"x","user":"alice","initial_device_display_name":"` + strings.Repeat("d", 300) + `"}`, invalid},
		{"POST", login, `{` + password + `,"password":"` + strings.Repeat("p", 1000) + `","user":"alice"}`, invalid},
		{"POST", login, `{"type":5}`, bad},
		{"POST", v3 + "/refresh", `{}`, missing},
		{"POST", v3 + "/refresh", `{"refresh_token":5}`, bad},
		{"POST", register, `{"username":5}`, bad},
		{"POST", register, `{"username":"bob","password":["x"]}`, bad},
		{"POST", register, `{"username":"bob","auth":"m.login.dummy"}`, bad},
		{"POST", register, `{"username":"bob","auth":{"type":5}}`, bad},
		{"POST", register, `{"username":"bob","auth":{"type":"m.login.dummy","session":5}}`, bad},
		{"POST", register, `{"username":"bob","device_id":"` + strings.Repeat("d", 300) + `"}`, invalid},
		{"POST", register, `{"username":"bob","inhibit_login":1}`, bad},
		{"POST", "/_synapse/admin/v1/register", `{}`, "M_UNKNOWN"},
		{"POST", "/_synapse/admin/v1/register", `{"nonce":5}`, bad},
		{"PUT", v3 + "/devices/" + alice.Device, `{"display_name":5}`, bad},
		{"PUT", v3 + "/devices/" + strings.Repeat("d", 300), `{"display_name":"x"}`, invalid},
		{"DELETE", v3 + "/devices/X", `{"auth":5}`, bad},
		{"DELETE", v3 + "/devices/X", `{"auth":{"type":"m.login.password"}}`, missing},
		{"POST", v3 + "/delete_devices", `{}`, missing},
		{"POST", v3 + "/delete_devices", `{"devices":"X"}`, bad},
		{"POST", v3 + "/delete_devices", `{"devices":[5]}`, bad},
		{"POST", v3 + "/account/password", `{"new_password":5}`, bad},
		{"POST", v3 + "/account/password", `{"logout_devices":"no"}`, bad},
		{"POST", v3 + "/account/deactivate", `{"auth":[]}`, bad},
	} {
		alice.Fails(t, tt.method, tt.path, tt.body, 400, tt.code)
	}
}

// What is no object is refused everywhere, before anything is looked at.
func TestNoObject(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	for _, to := range [][2]string{
		{"POST", v3 + "/login"},
		{"POST", v3 + "/logout"},
		{"POST", v3 + "/logout/all"},
		{"POST", v3 + "/refresh"},
		{"POST", v3 + "/register"},
		{"POST", v3 + "/account/password"},
		{"POST", v3 + "/account/deactivate"},
		{"PUT", v3 + "/devices/" + alice.Device},
		{"DELETE", v3 + "/devices/" + alice.Device},
		{"POST", v3 + "/delete_devices"},
		{"POST", "/_synapse/admin/v1/register"},
	} {
		for body, code := range map[string]string{
			`{`:                      "M_NOT_JSON",
			"{\"a\":\"\xff\"}":       "M_NOT_JSON",
			`[]`:                     "M_BAD_JSON",
			`"x"`:                    "M_BAD_JSON",
			`{"type":1,"type":2}`:    "M_BAD_JSON",
			strings.Repeat("[", 200): "M_BAD_JSON",
		} {
			alice.Fails(t, to[0], to[1], body, 400, code)
		}
		alice.Fails(t, to[0], to[1], `{"x":"`+strings.Repeat("x", 1<<20)+`"}`, 413, "M_TOO_LARGE")
	}
	works(t, alice)
	_, out := w.anonymous().Do(t, "POST", v3+"/login", loginBody("alice", apptest.Password))
	if out["user_id"] != alice.UserID {
		t.Errorf("login %v", out)
	}
}
