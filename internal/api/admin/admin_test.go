package admin_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const (
	client = "/_matrix/client/v3"
	base   = "/_synapse/admin"
)

func esc(s string) string { return url.PathEscape(s) }

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// column are one member of each object in a list.
func column(o object, list, name string) []string {
	out := []string{}
	raw, _ := o[list].([]any)
	for _, e := range raw {
		out = append(out, fmt.Sprint(e.(object)[name]))
	}
	return out
}

// walk reads a list to its end with small pages.
func walk(t *testing.T, c *apptest.Client, path, list, name, next string) []string {
	t.Helper()
	var out []string
	from := ""
	for range 100 {
		page := c.Must(t, "GET", path+"limit=2"+from, nil)
		out = append(out, column(page, list, name)...)
		if page[next] == nil {
			return out
		}
		from = "&from=" + url.QueryEscape(fmt.Sprint(page[next]))
	}
	t.Fatal("the list does not end")
	return nil
}

func TestUsers(t *testing.T) {
	s := apptest.Start(t)
	root := s.Admin(t, "root")
	bob := s.User(t, "bob").Apart(t)
	bob.Fails(t, "GET", base+"/v2/users", nil, 403, "M_FORBIDDEN")
	s.Anonymous().Fails(t, "GET", base+"/v2/users", nil, 401, "M_MISSING_TOKEN")
	one := func(name string) string { return base + "/v2/users/" + esc("@"+name+":"+apptest.Name) }

	// Made, found, changed.
	status, made := root.Do(t, "PUT", one("carol"), object{"password": apptest.Password, "displayname": "Carol C", "admin": false})
	same(t, "made", []any{status, made["name"], made["displayname"]}, []any{201, "@carol:" + apptest.Name, "Carol C"})
	carol := s.Anonymous()
	login := func(password string) (int, object) {
		return carol.Do(t, "POST", client+"/login", object{"type": "m.login.password", "user": "carol", "password": password})
	}
	status, out := login(apptest.Password)
	same(t, "carol logs in", status, 200)
	carol.Token = out["access_token"].(string)
	root.Must(t, "PUT", one("carol"), object{"displayname": "C", "locked": true})
	carol.Fails(t, "GET", client+"/account/whoami", nil, 401, "M_USER_LOCKED")
	root.Must(t, "PUT", one("carol"), object{"locked": false, "admin": true})
	same(t, "detail", root.Must(t, "GET", one("carol"), nil)["admin"], true)
	carol.Must(t, "GET", base+"/v1/server_version", nil)
	root.Must(t, "PUT", base+"/v1/users/"+esc("@carol:"+apptest.Name)+"/admin", object{"admin": false})
	carol.Fails(t, "GET", base+"/v1/server_version", nil, 403, "M_FORBIDDEN")
	same(t, "is admin", carol.UserID+fmt.Sprint(root.Must(t, "GET", base+"/v1/users/"+esc("@carol:"+apptest.Name)+"/admin", nil)["admin"]), "false")
	root.Fails(t, "PUT", base+"/v1/users/"+esc(root.UserID)+"/admin", object{"admin": false}, 400, "M_INVALID_PARAM")

	// Lists.
	for _, n := range []string{"dave", "erin", "frank"} {
		s.User(t, n).Apart(t)
	}
	want := []string{"bob", "carol", "dave", "erin", "frank", "root"}
	for i := range want {
		want[i] = "@" + want[i] + ":" + apptest.Name
	}
	same(t, "all", walk(t, root, base+"/v2/users?", "users", "name", "next_token"), want)
	whole := root.Must(t, "GET", base+"/v2/users?limit=50", nil)
	same(t, "total", whole["total"], 6)
	same(t, "by number", column(root.Must(t, "GET", base+"/v2/users?from=4", nil), "users", "name"), want[4:])
	same(t, "search", column(root.Must(t, "GET", base+"/v3/users?name=AR", nil), "users", "name"), want[1:2])
	same(t, "admins", column(root.Must(t, "GET", base+"/v2/users?admins=true", nil), "users", "name"), want[5:])
	root.Fails(t, "GET", base+"/v2/users?from=x", nil, 400, "M_INVALID_PARAM")

	// Passwords, sessions, the end.
	root.Must(t, "POST", base+"/v1/reset_password/"+esc("@carol:"+apptest.Name), object{"new_password": "another good one"})
	carol.Fails(t, "GET", client+"/account/whoami", nil, 401, "M_UNKNOWN_TOKEN")
	status, _ = login("another good one")
	same(t, "the new password", status, 200)
	as := s.Anonymous()
	as.Token = root.Must(t, "POST", base+"/v1/users/"+esc(bob.UserID)+"/login", object{})["access_token"].(string)
	same(t, "as bob", as.Must(t, "GET", client+"/account/whoami", nil)["user_id"], bob.UserID)
	root.Fails(t, "POST", base+"/v1/users/"+esc(bob.UserID)+"/login", object{"valid_until_ms": 1}, 400, "M_INVALID_PARAM")
	room := bob.CreateRoom(t, nil)
	same(t, "rooms", root.Must(t, "GET", base+"/v1/users/"+esc(bob.UserID)+"/joined_rooms", nil)["joined_rooms"], []string{room})
	same(t, "pushers", root.Must(t, "GET", base+"/v1/users/"+esc(bob.UserID)+"/pushers", nil)["total"], 0)
	root.Must(t, "GET", base+"/v1/whois/"+esc(bob.UserID), nil)
	root.Must(t, "POST", base+"/v1/deactivate/"+esc(bob.UserID), object{"erase": true})
	bob.Fails(t, "GET", client+"/account/whoami", nil, 401, "M_UNKNOWN_TOKEN")
	same(t, "without bob", len(column(root.Must(t, "GET", base+"/v2/users", nil), "users", "name")), 5)
	root.Fails(t, "POST", base+"/v1/join/"+esc(room), object{"user_id": bob.UserID}, 404, "M_NOT_FOUND")
	root.Fails(t, "PUT", one("bob"), object{"deactivated": false}, 400, "M_INVALID_PARAM")
	root.Must(t, "PUT", one("bob"), object{"deactivated": false, "password": apptest.Password})
	bob.Login(t)
}

func TestUserRefusals(t *testing.T) {
	s := apptest.Start(t)
	root := s.Admin(t, "root")
	for _, c := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"GET", "/v2/users/x", nil, 400, "M_INVALID_PARAM"},
		{"GET", "/v2/users/@x:elsewhere.example", nil, 400, "M_INVALID_PARAM"},
		{"GET", "/v2/users/@x:" + apptest.Name, nil, 404, "M_NOT_FOUND"},
		{"PUT", "/v2/users/@A:" + apptest.Name, object{}, 201, ""},
		{"PUT", "/v2/users/@a:" + apptest.Name, object{"admin": "x"}, 400, "M_BAD_JSON"},
		{"POST", "/v1/reset_password/@x:" + apptest.Name, object{"new_password": "x"}, 404, "M_NOT_FOUND"},
		{"POST", "/v1/reset_password/" + root.UserID, object{}, 400, "M_MISSING_PARAM"},
		{"POST", "/v1/users/" + root.UserID + "/login", object{}, 400, "M_INVALID_PARAM"},
		{"PUT", "/v1/users/" + root.UserID + "/admin", object{}, 400, "M_MISSING_PARAM"},
		{"POST", "/v1/users/" + root.UserID + "/override_ratelimit", object{"messages_per_second": 5}, 400, "M_INVALID_PARAM"},
		{"GET", "/v1/username_available?username=root", nil, 400, "M_USER_IN_USE"},
		{"GET", "/v1/username_available?username=B%20B", nil, 400, "M_INVALID_USERNAME"},
		{"GET", "/v1/username_available", nil, 400, "M_INVALID_USERNAME"},
		{"GET", "/v1/event_reports/x", nil, 400, "M_INVALID_PARAM"},
		{"GET", "/v1/event_reports/7", nil, 404, "M_NOT_FOUND"},
		{"DELETE", "/v1/event_reports/7", nil, 404, "M_NOT_FOUND"},
		{"GET", "/v1/rooms/x", nil, 400, "M_INVALID_PARAM"},
		{"GET", "/v1/rooms/!x:h", nil, 404, "M_NOT_FOUND"},
		{"GET", "/v1/registration_tokens/none", nil, 404, "M_NOT_FOUND"},
		{"POST", "/v1/registration_tokens/new", object{"uses_allowed": -1}, 400, "M_INVALID_PARAM"},
		{"POST", "/v1/registration_tokens/new", object{"expiry_time": 1}, 400, "M_INVALID_PARAM"},
		{"POST", "/v1/registration_tokens/new", object{"token": "a b"}, 400, "M_INVALID_PARAM"},
		{"POST", "/v1/registration_tokens/new", object{"length": 0}, 400, "M_INVALID_PARAM"},
		{"POST", "/v1/join/!x:h", object{}, 400, "M_MISSING_PARAM"},
		{"POST", "/v1/join/!x:h", object{"user_id": "@none:h"}, 404, "M_NOT_FOUND"},
	} {
		if c.code != "" {
			root.Fails(t, c.method, base+c.path, c.body, c.status, c.code)
		}
	}
}

func TestDevicesAndLimits(t *testing.T) {
	s := apptest.Start(t)
	root, bob := s.Admin(t, "root"), s.User(t, "bob").Apart(t)
	phone, tablet := bob.Login(t), bob.Login(t)
	path := base + "/v2/users/" + esc(bob.UserID)
	same(t, "devices", len(column(root.Must(t, "GET", path+"/devices", nil), "devices", "device_id")), 3)
	root.Must(t, "PUT", path+"/devices/"+phone.Device, object{"display_name": "seized"})
	same(t, "name", root.Must(t, "GET", path+"/devices/"+phone.Device, nil)["display_name"], "seized")
	root.Must(t, "DELETE", path+"/devices/"+phone.Device, nil)
	phone.Fails(t, "GET", client+"/account/whoami", nil, 401, "M_UNKNOWN_TOKEN")
	root.Fails(t, "GET", path+"/devices/"+phone.Device, nil, 404, "M_NOT_FOUND")
	root.Must(t, "POST", path+"/delete_devices", object{"devices": []string{tablet.Device}})
	tablet.Fails(t, "GET", client+"/account/whoami", nil, 401, "M_UNKNOWN_TOKEN")
	bob.Must(t, "GET", client+"/account/whoami", nil)

	limit := base + "/v1/users/" + esc(bob.UserID) + "/override_ratelimit"
	same(t, "limits", root.Must(t, "GET", limit, nil), object{})
	root.Must(t, "POST", limit, object{"messages_per_second": 0, "burst_count": 0})
	same(t, "limits", root.Must(t, "GET", limit, nil), object{"messages_per_second": 0, "burst_count": 0})
	root.Must(t, "DELETE", limit, nil)
	same(t, "limits", root.Must(t, "GET", limit, nil), object{})
}

func TestRegistrationTokens(t *testing.T) {
	s := apptest.Start(t)
	root := s.Admin(t, "root")
	const tokens = base + "/v1/registration_tokens"
	chosen := root.Must(t, "POST", tokens+"/new", object{"token": "welcome", "uses_allowed": 2})
	same(t, "chosen", []any{chosen["token"], chosen["uses_allowed"], chosen["completed"], chosen["expiry_time"]}, []any{"welcome", 2, 0, nil})
	root.Fails(t, "POST", tokens+"/new", object{"token": "welcome"}, 400, "M_INVALID_PARAM")
	made := root.Must(t, "POST", tokens+"/new", object{"length": 7})["token"].(string)
	same(t, "length", len(made), 7)
	all := []string{made, "welcome"}
	slices.Sort(all)
	same(t, "all", column(root.Must(t, "GET", tokens, nil), "registration_tokens", "token"), all)
	same(t, "changed", root.Must(t, "PUT", tokens+"/welcome", object{"uses_allowed": nil, "expiry_time": 4e12})["uses_allowed"], nil)
	same(t, "one", fmt.Sprint(root.Must(t, "GET", tokens+"/welcome", nil)["expiry_time"]), fmt.Sprint(4e12))
	same(t, "invalid", column(root.Must(t, "GET", tokens+"?valid=false", nil), "registration_tokens", "token"), []string{})
	root.Must(t, "DELETE", tokens+"/welcome", nil)
	root.Fails(t, "GET", tokens+"/welcome", nil, 404, "M_NOT_FOUND")
	root.Must(t, "GET", base+"/v1/username_available?username=new", nil)
}

func TestRooms(t *testing.T) {
	s := apptest.Start(t)
	root, bob, carol := s.Admin(t, "root"), s.User(t, "bob").Apart(t), s.User(t, "carol").Apart(t)
	closed := bob.CreateRoom(t, object{"name": "Closed", "topic": "of it", "preset": "private_chat"})
	var all []string
	for i := range 4 {
		all = append(all, bob.CreateRoom(t, object{"name": fmt.Sprint("Open ", i), "preset": "public_chat", "visibility": "public"}))
	}
	open := all[0]
	all = append(all, closed)
	slices.Sort(all)
	same(t, "all", walk(t, root, base+"/v1/rooms?", "rooms", "room_id", "next_batch"), all)
	same(t, "search", column(root.Must(t, "GET", base+"/v1/rooms?search_term=closed", nil), "rooms", "name"), []string{"Closed"})
	same(t, "by ID", column(root.Must(t, "GET", base+"/v1/rooms?search_term="+url.QueryEscape(open), nil), "rooms", "name"), []string{"Open 0"})
	same(t, "hidden", column(root.Must(t, "GET", base+"/v1/rooms?public_rooms=false", nil), "rooms", "name"), []string{"Closed"})
	same(t, "total", root.Must(t, "GET", base+"/v1/rooms?from=1&limit=2", nil)["total_rooms"], 4)

	one := base + "/v1/rooms/" + esc(closed)
	detail := root.Must(t, "GET", one, nil)
	same(t, "detail", []any{detail["name"], detail["topic"], detail["joined_members"], detail["creator"]}, []any{"Closed", "of it", 1, bob.UserID})
	same(t, "members", root.Must(t, "GET", one+"/members", nil)["members"], []string{bob.UserID})
	if n := len(column(root.Must(t, "GET", one+"/state", nil), "state", "type")); n < 6 {
		t.Errorf("state: %d events", n)
	}
	same(t, "some state", column(root.Must(t, "GET", one+"/state?type=m.room.name", nil), "state", "type"), []string{"m.room.name"})
	bob.Send(t, closed, "hush")
	back := root.Must(t, "GET", one+"/messages?dir=b&limit=1", nil)
	same(t, "last", column(back, "chunk", "type"), []string{"m.room.message"})
	back = root.Must(t, "GET", one+"/messages?dir=b&limit=100&from="+url.QueryEscape(back["end"].(string)), nil)
	same(t, "end", back["end"], nil)
	root.Fails(t, "GET", one+"/messages?from=x", nil, 400, "M_INVALID_PARAM")

	// Power, and the way in.
	root.Must(t, "POST", one+"/make_room_admin", object{})
	root.Must(t, "POST", client+"/join/"+esc(closed), object{})
	root.Must(t, "PUT", client+"/rooms/"+esc(closed)+"/state/m.room.name/", object{"name": "Seized"})
	root.Must(t, "POST", base+"/v1/join/"+esc(closed), object{"user_id": carol.UserID})
	same(t, "members", len(root.Must(t, "GET", one+"/members", nil)["members"].([]any)), 3)
	root.Must(t, "POST", base+"/v1/join/"+esc(open), object{"user_id": carol.UserID})
	bob.Fails(t, "POST", one+"/make_room_admin", object{}, 403, "M_FORBIDDEN")
}

func TestReports(t *testing.T) {
	s := apptest.Start(t)
	root, bob := s.Admin(t, "root"), s.User(t, "bob").Apart(t)
	room := bob.CreateRoom(t, nil)
	said := bob.Send(t, room, "bad")
	for _, reason := range []string{"first", "second", "third"} {
		bob.Must(t, "POST", client+"/rooms/"+esc(room)+"/report/"+esc(said), object{"reason": reason})
	}
	same(t, "all", walk(t, root, base+"/v1/event_reports?", "event_reports", "reason", "next_token"), []string{"third", "second", "first"})
	list := root.Must(t, "GET", base+"/v1/event_reports", nil)["event_reports"].([]any)
	id := fmt.Sprint(list[0].(object)["id"])
	one := root.Must(t, "GET", base+"/v1/event_reports/"+id, nil)
	same(t, "one", []any{one["event_id"], one["user_id"], apptest.At(one, "event_json", "content", "body")}, []any{said, bob.UserID, "bad"})
	root.Must(t, "DELETE", base+"/v1/event_reports/"+id, nil)
	same(t, "left", len(root.Must(t, "GET", base+"/v1/event_reports", nil)["event_reports"].([]any)), 2)
}
