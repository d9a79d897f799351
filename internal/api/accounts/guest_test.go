package accounts_test

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func guests(c *config.Config) { c.Registration.Guests = true }

func newGuest(t *testing.T, s *apptest.Server) *apptest.Client {
	t.Helper()
	c := anonymous(t, s)
	out := c.Must(t, "POST", v3+"/register?kind=guest", object{"username": "ignored", "password": "ignored", "initial_device_display_name": "Phone"})
	c.UserID, _ = out["user_id"].(string)
	c.Token, _ = out["access_token"].(string)
	c.Device, _ = out["device_id"].(string)
	if !strings.HasPrefix(c.UserID, "@guest-") || c.Device == "" {
		t.Fatalf("guest %v", out)
	}
	return c
}

func TestGuestsAreOffByDefault(t *testing.T) {
	s := apptest.Start(t)
	anonymous(t, s).Fails(t, "POST", v3+"/register?kind=guest", object{}, 403, "M_GUEST_ACCESS_FORBIDDEN")
}

func TestGuest(t *testing.T) {
	s := apptest.Start(t, guests)
	alice, g := s.User(t, "alice"), newGuest(t, s)
	if out := g.Must(t, "GET", whoami, nil); out["is_guest"] != true || out["user_id"] != g.UserID {
		t.Errorf("whoami %v", out)
	}
	open := alice.CreateRoom(t, object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": "can_join"}},
	}})
	closed := alice.CreateRoom(t, object{"preset": "public_chat"})
	g.Join(t, open)
	g.Fails(t, "POST", v3+"/join/"+esc(closed), object{}, 403, "M_GUEST_ACCESS_FORBIDDEN")
	g.Fails(t, "PUT", v3+"/rooms/"+esc(closed)+"/state/m.room.member/"+esc(g.UserID), object{"membership": "join"}, 403, "M_GUEST_ACCESS_FORBIDDEN")
	g.Send(t, open, "hello from outside")
	profile := v3 + "/profile/" + esc(g.UserID)
	g.Must(t, "PUT", profile+"/displayname", object{"displayname": "Visitor"})
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"PUT", profile + "/avatar_url", object{"avatar_url": "mxc://a/b"}},
		{"DELETE", profile + "/org.example.x", nil},
		{"POST", v3 + "/createRoom", object{}},
		{"POST", v3 + "/rooms/" + esc(open) + "/invite", object{"user_id": alice.UserID}},
		{"POST", v3 + "/account/deactivate", object{}},
		{"POST", v3 + "/account/password", object{"new_password": "another one, longer"}},
		{"GET", v3 + "/account/3pid", nil},
		{"POST", v3 + "/user_directory/search", object{"search_term": "a"}},
		{"PUT", v3 + "/user/" + esc(g.UserID) + "/account_data/x", object{}},
		{"POST", "/_matrix/client/v1/login/get_token", object{}},
	} {
		g.Fails(t, c.method, c.path, c.body, 403, "M_GUEST_ACCESS_FORBIDDEN")
	}
	// A room that closes itself to guests is rid of them.
	alice.Must(t, "PUT", v3+"/rooms/"+esc(open)+"/state/m.room.guest_access/", object{"guest_access": "forbidden"})
	gone(t, alice, open, g.UserID)
	if out := alice.Must(t, "GET", v3+"/rooms/"+esc(open)+"/state/m.room.member/"+esc(alice.UserID), nil); out["membership"] != "join" {
		t.Errorf("who is no guest: %v", out)
	}
	g.Must(t, "POST", v3+"/logout", object{})
	g.Fails(t, "GET", whoami, nil, 401, "M_UNKNOWN_TOKEN")
}

func TestGuestStays(t *testing.T) {
	s := apptest.Start(t, guests)
	alice, g := s.User(t, "alice"), newGuest(t, s)
	name := strings.TrimSuffix(strings.TrimPrefix(g.UserID, "@"), ":"+apptest.Name)
	body := func(changes object) object {
		b := object{"username": name, "password": apptest.Password, "guest_access_token": g.Token, "auth": object{"type": "m.login.dummy"}}
		for k, v := range changes {
			b[k] = v
			if v == nil {
				delete(b, k)
			}
		}
		return b
	}
	c := anonymous(t, s)
	c.Fails(t, "POST", v3+"/register", body(object{"guest_access_token": nil}), 400, "M_USER_IN_USE")
	c.Fails(t, "POST", v3+"/register", body(object{"guest_access_token": "x"}), 401, "M_UNKNOWN_TOKEN")
	c.Fails(t, "POST", v3+"/register", body(object{"guest_access_token": alice.Token, "username": "alice"}), 403, "M_FORBIDDEN")
	c.Fails(t, "POST", v3+"/register", body(object{"username": nil}), 400, "M_MISSING_PARAM")
	c.Fails(t, "POST", v3+"/register", body(object{"username": "alice"}), 400, "M_INVALID_USERNAME")
	out := c.Must(t, "POST", v3+"/register", body(nil))
	if out["user_id"] != g.UserID {
		t.Errorf("answer %v", out)
	}
	c.Fails(t, "POST", v3+"/register", body(nil), 403, "M_FORBIDDEN") // no guest any more
	for _, token := range []string{g.Token, out["access_token"].(string)} {
		n := *c
		n.Token = token
		if out := n.Must(t, "GET", whoami, nil); out["is_guest"] != false {
			t.Errorf("whoami %v", out)
		}
		n.Must(t, "POST", v3+"/createRoom", object{})
	}
	anonymous(t, s).Must(t, "POST", v3+"/login", object{"type": "m.login.password", "password": apptest.Password, "user": name})
}
