package session_test

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestDevices(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.User(t, "alice"), w.User(t, "bob")
	second := alice.Login(t)
	list := alice.Must(t, "GET", v3+"/devices", nil)["devices"].([]any)
	if len(list) != 2 {
		t.Fatalf("devices %v", list)
	}
	one := v3 + "/devices/" + second.Device
	alice.Must(t, "PUT", one, object{"display_name": "tablet"})
	alice.Must(t, "PUT", one, object{}) // changes nothing
	if d := alice.Must(t, "GET", one, nil); d["display_name"] != "tablet" || d["device_id"] != second.Device {
		t.Errorf("device %v", d)
	}
	alice.Fails(t, "PUT", one, object{"display_name": strings.Repeat("x", 1000)}, 400, "M_INVALID_PARAM")

	// A device of somebody else is no device.
	for _, device := range []string{second.Device, "UNKNOWN", strings.Repeat("D", 3000), "%01"} {
		bob.Fails(t, "GET", v3+"/devices/"+device, nil, 404, "M_NOT_FOUND")
	}
	bob.Fails(t, "PUT", one, object{"display_name": "mine"}, 404, "M_NOT_FOUND")
	bob.Must(t, "DELETE", one, object{"auth": passwordAuth("bob", apptest.Password)})
	works(t, second)
}

func TestDeleteDevices(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	a, b, c := alice.Login(t), alice.Login(t), alice.Login(t)
	for _, d := range []*apptest.Client{a, b, c} {
		works(t, d)
	}
	one := v3 + "/devices/" + a.Device
	status, out := alice.Do(t, "DELETE", one, nil)
	stages, id := flowsOf(t, status, out)
	if len(stages) != 1 || stages[0] != "m.login.password" {
		t.Errorf("stages %v", stages)
	}
	wrong := passwordAuth("alice", "wrong")
	wrong["session"] = id
	status, out = alice.Do(t, "DELETE", one, object{"auth": wrong})
	if _, id = flowsOf(t, status, out); out["errcode"] != "M_FORBIDDEN" {
		t.Errorf("wrong password: %v", out)
	}
	right := passwordAuth("alice", apptest.Password)
	right["session"] = id
	// A session is good for what it was begun for alone.
	alice.Fails(t, "DELETE", v3+"/devices/"+b.Device, object{"auth": right}, 403, "M_FORBIDDEN")
	works(t, a)
	alice.Must(t, "DELETE", one, object{"auth": right})
	fails401(t, a)
	alice.Fails(t, "GET", one, nil, 404, "M_NOT_FOUND")
	if !w.wasRevoked(a.Device) {
		t.Error("sockets of the device were not told")
	}

	status, out = alice.Do(t, "POST", v3+"/delete_devices", object{"devices": []string{b.Device, c.Device}})
	_, id = flowsOf(t, status, out)
	works(t, b)
	right["session"] = id
	alice.Must(t, "POST", v3+"/delete_devices", object{"devices": []string{b.Device, c.Device, "UNKNOWN"}, "auth": right})
	fails401(t, b)
	fails401(t, c)
	works(t, alice)
	alice.Fails(t, "POST", v3+"/delete_devices", object{"devices": make([]string, 1000)}, 400, "M_INVALID_PARAM")
}

// Another's password proves nothing.
func TestProofIsTheCallersOwn(t *testing.T) {
	w := newWorld(t)
	alice, mallory := w.User(t, "alice"), w.User(t, "mallory")
	alice.Fails(t, "POST", v3+"/account/password", object{
		"new_password": "stolen by mallory", "auth": passwordAuth("mallory", apptest.Password),
	}, 403, "M_FORBIDDEN")
	works(t, mallory)
	w.anonymous().Must(t, "POST", v3+"/login", loginBody("alice", apptest.Password))
}

func TestChangePassword(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	other := alice.Login(t)
	const path = v3 + "/account/password"
	status, out := alice.Do(t, "POST", path, object{"new_password": "a new one, longer"})
	_, id := flowsOf(t, status, out)
	proof := func(password string) object {
		p := passwordAuth("alice", password)
		p["session"] = id
		return p
	}
	alice.Fails(t, "POST", path, object{"auth": proof(apptest.Password)}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", path, object{"auth": proof(apptest.Password), "new_password": "short"}, 400, "M_WEAK_PASSWORD")
	alice.Must(t, "POST", path, object{"auth": proof(apptest.Password), "new_password": "a new one, longer", "logout_devices": false})
	works(t, alice)
	works(t, other)
	c := w.anonymous()
	c.Fails(t, "POST", v3+"/login", loginBody("alice", apptest.Password), 403, "M_FORBIDDEN")
	c.Must(t, "POST", v3+"/login", loginBody("alice", "a new one, longer"))

	_, out = alice.Do(t, "POST", path, object{"new_password": "and another one"})
	id = out["session"].(string)
	alice.Must(t, "POST", path, object{"auth": proof("a new one, longer"), "new_password": "and another one"})
	works(t, alice) // the device that asked stays
	fails401(t, other)
	c.Must(t, "POST", v3+"/login", loginBody("alice", "and another one"))
}

func TestDeactivate(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.User(t, "alice"), w.User(t, "bob")
	other := bob.Login(t)
	works(t, other)
	const path = v3 + "/account/deactivate"
	status, out := bob.Do(t, "POST", path, object{})
	flowsOf(t, status, out)
	works(t, bob)
	out = bob.Must(t, "POST", path, object{"auth": passwordAuth("bob", apptest.Password)})
	if out["id_server_unbind_result"] != "no-support" {
		t.Errorf("answer %v", out)
	}
	fails401(t, bob)
	fails401(t, other)
	// The rest is for package farewell, which follows the log.
	if f, err := account.NewReader(w.store, partitions).Farewell(t.Context(), "@bob:h"); err != nil || f == nil || f.Erase {
		t.Errorf("what is to be done: %v %v", f, err)
	}
	c := w.anonymous()
	c.Fails(t, "POST", v3+"/login", loginBody("bob", apptest.Password), 403, "M_USER_DEACTIVATED")
	c.Fails(t, "POST", v3+"/register", dummy("bob", apptest.Password), 400, "M_USER_IN_USE")
	works(t, alice)
	if acc, err := account.NewReader(w.store, partitions).Account(t.Context(), "@bob:h"); err != nil || acc.PasswordHash != "" {
		t.Errorf("the password is still there: %v", err)
	}
}
