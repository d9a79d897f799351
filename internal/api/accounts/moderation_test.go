package accounts_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

const (
	lockPath    = "/_matrix/client/v1/admin/lock/"
	suspendPath = "/_matrix/client/v1/admin/suspend/"
	whoami      = v3 + "/account/whoami"
)

func TestModerationRights(t *testing.T) {
	s := apptest.Start(t)
	root, other := s.Admin(t, "root"), s.Admin(t, "other")
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	for path, member := range map[string]string{lockPath: "locked", suspendPath: "suspended"} {
		body := object{member: true}
		for _, method := range []string{"GET", "PUT"} {
			send := any(body)
			if method == "GET" {
				send = nil
			}
			anonymous(t, s).Fails(t, method, path+esc(bob.UserID), send, 401, "M_MISSING_TOKEN")
			alice.Fails(t, method, path+esc(bob.UserID), send, 403, "M_FORBIDDEN")
			alice.Fails(t, method, path+"@nobody:"+apptest.Name, send, 403, "M_FORBIDDEN")
			root.Fails(t, method, path+esc(root.UserID), send, 403, "M_FORBIDDEN")
			root.Fails(t, method, path+esc(other.UserID), send, 403, "M_FORBIDDEN")
			root.Fails(t, method, path+"@nobody:"+apptest.Name, send, 404, "M_NOT_FOUND")
			root.Fails(t, method, path+"@bob:elsewhere", send, 400, "M_INVALID_PARAM")
			root.Fails(t, method, path+"bob", send, 400, "M_INVALID_PARAM")
		}
		root.Fails(t, "PUT", path+esc(bob.UserID), object{}, 400, "M_MISSING_PARAM")
		root.Fails(t, "PUT", path+esc(bob.UserID), object{member: "yes"}, 400, "M_BAD_JSON")
		if out := root.Must(t, "GET", path+esc(bob.UserID), nil); out[member] != false {
			t.Errorf("before: %v", out)
		}
		for _, v := range []bool{true, false} {
			if out := root.Must(t, "PUT", path+esc(bob.UserID), object{member: v}); out[member] != v {
				t.Errorf("set %v: %v", v, out)
			}
			if out := root.Must(t, "GET", path+esc(bob.UserID), nil); out[member] != v {
				t.Errorf("after %v: %v", v, out)
			}
		}
		root.Must(t, "GET", whoami, nil)
	}
	bob.Must(t, "POST", v3+"/account/deactivate", object{"auth": passwordAuth(bob)})
	root.Fails(t, "PUT", lockPath+esc(bob.UserID), object{"locked": true}, 404, "M_NOT_FOUND")
}

// poll begins a sync that waits, and returns what it is answered.
func poll(t *testing.T, c *apptest.Client) <-chan object {
	t.Helper()
	since := c.Sync(t, "")["next_batch"].(string)
	answered := make(chan object, 1)
	n := *c
	n.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		status, out := n.Do(t, "GET", v3+"/sync?timeout=60000&since="+esc(since), nil)
		out["status"] = status
		answered <- out
	}()
	return answered
}

const patience = 20 * time.Second

func answer(t *testing.T, answered <-chan object) object {
	t.Helper()
	select {
	case out := <-answered:
		return out
	case <-time.After(patience):
		t.Fatal("the poll goes on")
		return nil
	}
}

func dial(t *testing.T, c *apptest.Client) *wsclient.Client {
	t.Helper()
	ws, err := wsclient.Dial(t.Context(), c.Server.URL, wsclient.Options{Token: c.Token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return ws
}

func ends(t *testing.T, ws *wsclient.Client) {
	t.Helper()
	select {
	case <-ws.Done():
	case <-time.After(patience):
		t.Fatal("the socket stays open")
	}
}

// A locked account does nothing more, on no transport, and loses nothing.
func TestLocked(t *testing.T) {
	s := apptest.Start(t)
	root, bob := s.Admin(t, "root"), s.User(t, "bob")
	second := bob.Login(t)
	waiting, ws := poll(t, bob), dial(t, bob)
	root.Must(t, "PUT", lockPath+esc(bob.UserID), object{"locked": true})

	if out := answer(t, waiting); out["errcode"] != "M_USER_LOCKED" || out["soft_logout"] != true {
		t.Errorf("the open long poll: %v", out)
	}
	ends(t, ws)
	if status, out := bob.Do(t, "GET", whoami, nil); status != 401 || out["errcode"] != "M_USER_LOCKED" || out["soft_logout"] != true {
		t.Errorf("got %d %v", status, out)
	}
	// A route that needs no token must not take one of a locked user either.
	bob.Fails(t, "GET", v3+"/profile/"+esc(bob.UserID), nil, 401, "M_USER_LOCKED")
	anonymous(t, s).Fails(t, "POST", v3+"/login", passwordAuth(bob), 401, "M_USER_LOCKED")
	if _, err := wsclient.Dial(t.Context(), s.URL, wsclient.Options{Token: bob.Token}); err == nil {
		t.Error("a socket opens")
	}
	second.Must(t, "POST", v3+"/logout", object{})

	root.Must(t, "PUT", lockPath+esc(bob.UserID), object{"locked": false})
	bob.Must(t, "GET", whoami, nil)
	second.Fails(t, "GET", whoami, nil, 401, "M_UNKNOWN_TOKEN")
}

func TestSuspended(t *testing.T) {
	s := apptest.Start(t)
	root, bob, alice := s.Admin(t, "root"), s.User(t, "bob"), s.User(t, "alice")
	in := bob.CreateRoom(t, object{"preset": "public_chat"})
	alice.Join(t, in)
	elsewhere := alice.CreateRoom(t, object{"preset": "public_chat"})
	invited := alice.CreateRoom(t, object{"invite": []string{bob.UserID}})
	own, others, second := bob.Send(t, in, "mine"), alice.Send(t, in, "hers"), bob.Send(t, in, "mine too")
	ws := dial(t, bob)
	root.Must(t, "PUT", suspendPath+esc(bob.UserID), object{"suspended": true})

	message := object{"msgtype": "m.text", "body": "x"}
	rooms := v3 + "/rooms/" + esc(in)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"PUT", rooms + "/send/m.room.message/1", message},
		{"PUT", rooms + "/state/m.room.topic/", object{"topic": "x"}},
		{"PUT", rooms + "/typing/" + esc(bob.UserID), object{"typing": true}},
		{"POST", v3 + "/join/" + esc(elsewhere), object{}},
		{"POST", v3 + "/rooms/" + esc(invited) + "/join", object{}},
		{"POST", v3 + "/knock/" + esc(elsewhere), object{}},
		{"POST", rooms + "/invite", object{"user_id": root.UserID}},
		{"POST", rooms + "/kick", object{"user_id": alice.UserID}},
		{"POST", v3 + "/createRoom", object{}},
		{"PUT", v3 + "/profile/" + esc(bob.UserID) + "/displayname", object{"displayname": "x"}},
		{"PUT", v3 + "/directory/room/" + esc("#x:"+apptest.Name), object{"room_id": in}},
		{"PUT", rooms + "/redact/" + esc(others) + "/1", object{}},
		{"PUT", rooms + "/send/m.room.redaction/1", object{"redacts": others}},
	} {
		bob.Fails(t, c.method, c.path, c.body, 403, "M_USER_SUSPENDED")
		body, err := json.Marshal(c.body)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := ws.Call(t.Context(), c.method, c.path, body); err != nil || res.Status != 403 {
			t.Errorf("%s %s over the socket: %v %v", c.method, c.path, res, err)
		}
	}
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"GET", v3 + "/sync", nil},
		{"GET", rooms + "/messages?dir=b", nil},
		{"PUT", rooms + "/redact/" + esc(own) + "/2", object{}},
		{"PUT", rooms + "/send/m.room.redaction/2", object{"redacts": second}},
		{"PUT", v3 + "/sendToDevice/m.key.verification.request/1", object{"messages": object{}}},
		{"POST", v3 + "/keys/upload", object{}},
		{"PUT", v3 + "/user/" + esc(bob.UserID) + "/account_data/x", object{}},
		{"POST", v3 + "/rooms/" + esc(invited) + "/leave", object{}},
		{"POST", rooms + "/leave", object{}},
	} {
		bob.Must(t, c.method, c.path, c.body)
	}
	n := bob.Login(t)
	n.Fails(t, "POST", v3+"/createRoom", object{}, 403, "M_USER_SUSPENDED")
	root.Must(t, "PUT", suspendPath+esc(bob.UserID), object{"suspended": false})
	n.Must(t, "POST", v3+"/createRoom", object{})
	n.Must(t, "POST", v3+"/logout", object{})
}

// What ends a session ends what waits for it, at once. Other sessions go on.
func TestRevocationEndsWaiting(t *testing.T) {
	s := apptest.Start(t)
	for name, end := range map[string]func(keep, gone *apptest.Client){
		"logout": func(_, gone *apptest.Client) { gone.Must(t, "POST", v3+"/logout", object{}) },
		"device deleted": func(keep, gone *apptest.Client) {
			keep.Must(t, "DELETE", v3+"/devices/"+gone.Device, object{"auth": passwordAuth(keep)})
		},
		"password changed": func(keep, _ *apptest.Client) {
			keep.Must(t, "POST", v3+"/account/password", object{"auth": passwordAuth(keep), "new_password": "another one, longer"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			keep := s.User(t, "u"+name[:6])
			gone := keep.Login(t)
			other, waiting, ws := poll(t, keep), poll(t, gone), dial(t, gone)
			end(keep, gone)
			if out := answer(t, waiting); out["errcode"] != "M_UNKNOWN_TOKEN" {
				t.Errorf("the long poll: %v", out)
			}
			ends(t, ws)
			keep.CreateRoom(t, nil)
			if out := answer(t, other); out["status"] != 200 {
				t.Errorf("the other session: %v", out)
			}
		})
	}
	bob := s.User(t, "bob")
	waiting, ws := poll(t, bob), dial(t, bob)
	bob.Must(t, "POST", v3+"/account/deactivate", object{"auth": passwordAuth(bob)})
	if out := answer(t, waiting); out["errcode"] != "M_UNKNOWN_TOKEN" {
		t.Errorf("the long poll of a deactivated user: %v", out)
	}
	ends(t, ws)
}

func TestWhois(t *testing.T) {
	s := apptest.Start(t)
	root, alice, bob := s.Admin(t, "root"), s.User(t, "alice"), s.User(t, "bob")
	path := v3 + "/admin/whois/"
	for _, c := range []*apptest.Client{root, bob} {
		out := c.Must(t, "GET", path+esc(bob.UserID), nil)
		sessions, _ := apptest.At(out, "devices", bob.Device, "sessions").([]any)
		if len(sessions) != 1 || out["user_id"] != bob.UserID {
			t.Fatalf("whois: %v", out)
		}
		list, _ := apptest.At(sessions[0], "connections").([]any)
		if len(list) != 1 || apptest.At(list[0], "ip") != "127.0.0.1" || apptest.At(list[0], "last_seen") == 0.0 || apptest.At(list[0], "user_agent") == "" {
			t.Errorf("connections %v", list)
		}
	}
	alice.Fails(t, "GET", path+esc(bob.UserID), nil, 403, "M_FORBIDDEN")
	alice.Fails(t, "GET", path+"@nobody:"+apptest.Name, nil, 403, "M_FORBIDDEN")
	root.Fails(t, "GET", path+"@nobody:"+apptest.Name, nil, 404, "M_NOT_FOUND")
	anonymous(t, s).Fails(t, "GET", path+esc(bob.UserID), nil, 401, "M_MISSING_TOKEN")
}
