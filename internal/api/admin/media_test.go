package admin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func upload(t *testing.T, c *apptest.Client, text string) string {
	t.Helper()
	uri := c.Must(t, "POST", "/_matrix/media/v3/upload?filename=a.txt", text)["content_uri"].(string)
	return strings.TrimPrefix(uri, "mxc://"+apptest.Name+"/")
}

func TestMedia(t *testing.T) {
	s := apptest.Start(t)
	root, bob := s.Admin(t, "root"), s.User(t, "bob").Apart(t)
	var all []string
	for i := range 5 {
		all = append(all, upload(t, bob, fmt.Sprintf(`{"n":%d}`, i)))
	}
	slices.Reverse(all) // the newest first
	path := base + "/v1/users/" + esc(bob.UserID) + "/media"
	got := walk(t, root, path+"?", "media", "media_id", "next_token")
	slices.Sort(got)
	want := slices.Clone(all)
	slices.Sort(want)
	same(t, "media", got, want)
	same(t, "use", column(root.Must(t, "GET", base+"/v1/statistics/users/media", nil), "users", "media_count"), []string{"5"})

	download := "/_matrix/client/v1/media/download/" + apptest.Name + "/"
	gone := func(id string) bool {
		status, _, _ := bob.Raw(t, "GET", download+id, nil)
		return status == 404
	}
	one := base + "/v1/media/quarantine/" + apptest.Name + "/" + all[0]
	root.Must(t, "POST", one, object{})
	if !gone(all[0]) || gone(all[1]) {
		t.Error("quarantine hides another one")
	}
	root.Must(t, "POST", base+"/v1/media/unquarantine/"+apptest.Name+"/"+all[0], object{})
	if gone(all[0]) {
		t.Error("still in quarantine")
	}
	same(t, "deleted", root.Must(t, "DELETE", base+"/v1/media/"+apptest.Name+"/"+all[0], nil)["total"], 1)
	if !gone(all[0]) {
		t.Error("still there")
	}
	same(t, "all of bob's", root.Must(t, "POST", base+"/v1/user/"+esc(bob.UserID)+"/media/quarantine", object{})["num_quarantined"], 4)
	same(t, "all gone", root.Must(t, "DELETE", path, nil)["total"], 4)
	same(t, "left", root.Must(t, "GET", path, nil)["total"], 0)
	upload(t, bob, `{"old":true}`)
	same(t, "by time", root.Must(t, "POST", base+"/v1/media/delete?before_ts=1", object{})["total"], 0)

	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"DELETE", "/v1/media/elsewhere.example/x", 400, "M_INVALID_PARAM"},
		{"DELETE", "/v1/media/" + apptest.Name + "/none", 404, "M_NOT_FOUND"},
		{"POST", "/v1/media/quarantine/" + apptest.Name + "/none", 404, "M_NOT_FOUND"},
		{"POST", "/v1/media/delete", 400, "M_MISSING_PARAM"},
		{"GET", "/v1/users/@none:" + apptest.Name + "/media", 404, "M_NOT_FOUND"},
	} {
		root.Fails(t, c.method, base+c.path, object{}, c.status, c.code)
	}
	bob.Fails(t, "GET", path, nil, 403, "M_FORBIDDEN")
}

func TestServerNotice(t *testing.T) {
	s := apptest.Start(t)
	root, bob := s.Admin(t, "root"), s.User(t, "bob").Apart(t)
	const path = base + "/v1/send_server_notice"
	note := func(text string) object {
		return object{"user_id": bob.UserID, "content": object{"msgtype": "m.text", "body": text}}
	}
	// Who wants no invites has to hear this too.
	bob.Must(t, "PUT", client+"/user/"+esc(bob.UserID)+"/account_data/m.invite_permission_config", object{"default_action": "block"})
	first := root.Must(t, "PUT", path+"/one", note("maintenance"))["event_id"]
	same(t, "repeated", root.Must(t, "PUT", path+"/one", note("maintenance"))["event_id"], first)
	invites, _ := apptest.At(bob.Sync(t, ""), "rooms", "invite").(object)
	same(t, "invites", len(invites), 1)
	s.Anonymous().Fails(t, "POST", client+"/register", object{"username": "_server", "password": apptest.Password, "auth": object{"type": "m.login.dummy"}}, 400, "M_EXCLUSIVE")
	for room := range invites {
		bob.Fails(t, "POST", client+"/rooms/"+esc(room)+"/leave", object{}, 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
		bob.Join(t, room)
		root.Must(t, "POST", path, note("over"))
		same(t, "notices", texts(t, bob, room), []string{"over", "maintenance"})
		bob.Fails(t, "PUT", client+"/rooms/"+esc(room)+"/send/m.room.message/x", object{"body": "no"}, 403, "M_FORBIDDEN")
		tags := bob.Must(t, "GET", client+"/user/"+esc(bob.UserID)+"/rooms/"+esc(room)+"/tags", nil)
		if apptest.At(tags, "tags", "m.server_notice") == nil {
			t.Errorf("tags: %v", tags)
		}
	}
	root.Fails(t, "POST", path, object{"content": object{}}, 400, "M_MISSING_PARAM")
	root.Fails(t, "POST", path, object{"user_id": bob.UserID}, 400, "M_MISSING_PARAM")
	root.Fails(t, "POST", path, object{"user_id": "@none:h", "content": object{}}, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", path, note("x"), 403, "M_FORBIDDEN")
}
