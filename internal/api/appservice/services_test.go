package appservice_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestPing(t *testing.T) {
	s, b := start(t)
	const path = "/_matrix/client/v1/appservice/irc/ping"
	alice, bot := s.User(t, "alice"), b.bot()
	b.answers(always(200, object{}))
	out := bot.Must(t, "POST", path, object{"transaction_id": "meow"})
	if ms, ok := out["duration_ms"].(float64); !ok || ms < 0 {
		t.Errorf("answer %v", out)
	}
	if r := b.next(); r.method != "POST" || r.path != "/_matrix/app/v1/ping" || r.body["transaction_id"] != "meow" {
		t.Errorf("asked %+v", r)
	}
	alice.Fails(t, "POST", path, object{}, 403, "M_FORBIDDEN")
	bot.Fails(t, "POST", "/_matrix/client/v1/appservice/other/ping", object{}, 403, "M_FORBIDDEN")
	b.answers(always(403, object{"errcode": "M_FORBIDDEN"}))
	out = fails(t, bot, "POST", path, object{}, 502, "M_BAD_STATUS")
	if out["status"] != 403.0 || !strings.Contains(out["body"].(string), "M_FORBIDDEN") {
		t.Errorf("bad status: %v", out)
	}
}

func TestPingOfNobody(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	a, b := newBridge(t, "irc"), newBridge(t, "xmpp")
	a.url, b.url = gone.URL, "null"
	s := apptest.Start(t, with(a.file(), b.file()))
	a.server, b.server = s, s
	fails(t, a.bot(), "POST", "/_matrix/client/v1/appservice/irc/ping", object{}, 502, "M_CONNECTION_FAILED")
	fails(t, b.bot(), "POST", "/_matrix/client/v1/appservice/xmpp/ping", object{}, 400, "M_URL_NOT_SET")
}

func TestQueryAlias(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	alias := "#_irc_x:" + apptest.Name
	target := v3 + "/directory/room/" + url.PathEscape(alias)
	alice.Fails(t, "GET", target, nil, 404, "M_NOT_FOUND")
	if r := b.next(); r.method != "GET" || r.path != "/_matrix/app/v1/rooms/"+alias {
		t.Errorf("asked %+v", r)
	}
	b.unasked()
	// A service of old does not know the path.
	b.answers(always(404, "<html>Cannot GET"))
	alice.Fails(t, "GET", target, nil, 404, "M_NOT_FOUND")
	if b.next(); b.next().path != "/rooms/"+alias {
		t.Error("the old path was not tried")
	}
	b.answers(func(request) (int, any) {
		bot.CreateRoom(t, object{"room_alias_name": "_irc_x", "preset": "public_chat"})
		return 200, object{}
	})
	out := alice.Must(t, "POST", v3+"/join/"+url.PathEscape(alias), object{})
	if alice.Must(t, "GET", target, nil)["room_id"] != out["room_id"] {
		t.Errorf("joined %v", out)
	}
	b.next()
	alice.Fails(t, "GET", v3+"/directory/room/"+url.PathEscape("#x:"+apptest.Name), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v3+"/directory/room/"+url.PathEscape("#_irc_x:elsewhere"), nil, 404, "M_NOT_FOUND")
	b.unasked()
}

func TestQueryUser(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	user := "@_irc_a:" + apptest.Name
	invite := v3 + "/rooms/" + url.PathEscape(room) + "/invite"
	alice.Fails(t, "GET", v3+"/profile/"+user, nil, 404, "M_NOT_FOUND")
	if r := b.next(); r.method != "GET" || r.path != "/_matrix/app/v1/users/"+user {
		t.Errorf("asked %+v", r)
	}
	b.answers(func(request) (int, any) {
		b.register("_irc_a")
		return 200, object{}
	})
	alice.Must(t, "POST", invite, object{"user_id": user})
	b.next()
	alice.Must(t, "GET", v3+"/profile/"+user, nil) // is there
	b.unasked()
	b.answers(always(404, object{"errcode": "M_NOT_FOUND"}))
	alice.Fails(t, "GET", v3+"/profile/@_irc_b:"+apptest.Name, nil, 404, "M_NOT_FOUND")
	b.next()
	alice.Fails(t, "POST", invite, object{"user_id": "@bob:" + apptest.Name}, 404, "M_NOT_FOUND")
	b.unasked()
}

// Bridges make a user of theirs when somebody invites them, and not when the server asks.
func TestInviteUnmade(t *testing.T) {
	s, b := start(t)
	alice := s.User(t, "alice")
	user := "@_irc_a:" + apptest.Name
	room := alice.CreateRoom(t, object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{user}})
	invite := b.find("events", func(m object) bool {
		return m["type"] == "m.room.member" && m["state_key"] == user && apptest.At(m, "content", "membership") == "invite"
	})
	if apptest.At(invite, "content", "is_direct") != true || apptest.At(invite, "content", "displayname") != nil {
		t.Errorf("invite %v", invite)
	}
	b.register("_irc_a")
	ghost := b.bot()
	as := "?user_id=" + url.QueryEscape(user)
	if got := apptest.At(ghost.Must(t, "GET", v3+"/sync"+as, nil), "rooms", "invite", room); got == nil {
		t.Error("the user does not see the invite that came before them")
	}
	ghost.Must(t, "POST", v3+"/join/"+url.PathEscape(room)+as, object{})
	ghost.Must(t, "PUT", v3+"/rooms/"+url.PathEscape(room)+"/send/m.room.message/1"+as, object{"msgtype": "m.text", "body": "hello"})
}

// Who may know and does not answer keeps the client from an answer, and nobody else.
func TestQueryOfTheDead(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	b := newBridge(t, "irc")
	b.url = gone.URL
	b.server = apptest.Start(t, with(b.file()))
	alice := b.server.User(t, "alice")
	alice.Fails(t, "GET", v3+"/directory/room/"+url.PathEscape("#_irc_x:"+apptest.Name), nil, 408, "M_UNKNOWN")
	alice.Fails(t, "GET", v3+"/directory/room/"+url.PathEscape("#x:"+apptest.Name), nil, 404, "M_NOT_FOUND")
}

func TestThirdParty(t *testing.T) {
	a, b := newBridge(t, "irc"), newBridge(t, "xmpp")
	s := apptest.Start(t, with(a.file("protocols: [chat, irc]"), b.file("protocols: [chat]")))
	alice := s.User(t, "alice")
	const third = v3 + "/thirdparty"
	for _, br := range []*bridge{a, b} {
		br.answers(func(r request) (int, any) {
			switch {
			case strings.HasPrefix(r.path, "/_matrix/app/v1/thirdparty/protocol/chat"):
				return 200, object{"user_fields": []string{"nick"}, "instances": []any{
					object{"network_id": "net", "desc": br.id, "fields": object{}}, object{"desc": "no network"},
				}}
			case strings.HasPrefix(r.path, "/_matrix/app/v1/thirdparty/user"):
				return 200, []any{object{"userid": "@_" + br.id + "_a:x", "protocol": "chat", "fields": object{}}, object{"userid": "no protocol"}}
			case strings.HasPrefix(r.path, "/_matrix/app/v1/thirdparty/location"):
				return 200, []any{object{"alias": "#_" + br.id + "_a:x", "protocol": "chat", "fields": object{}}}
			}
			return 404, object{"errcode": "M_NOT_FOUND"}
		})
	}
	chat := alice.Must(t, "GET", third+"/protocol/chat", nil)
	instances := chat["instances"].([]any)
	if len(instances) != 2 || apptest.At(instances[0], "instance_id") != "irc|net" || apptest.At(instances[1], "instance_id") != "xmpp|net" ||
		chat["location_fields"] == nil || chat["field_types"] == nil {
		t.Errorf("protocol %v", chat)
	}
	a.next()
	b.next()
	all := alice.Must(t, "GET", third+"/protocols", nil)
	if len(all) != 1 || apptest.At(all, "chat", "instances") == nil {
		t.Errorf("protocols %v", all)
	}
	a.next() // about irc, which it says nothing about
	b.unasked()
	alice.Fails(t, "GET", third+"/protocol/irc", nil, 404, "M_NOT_FOUND")
	a.unasked() // asked just now
	for _, path := range []string{"/protocol/unknown", "/user/unknown", "/location/unknown"} {
		alice.Fails(t, "GET", third+path, nil, 404, "M_NOT_FOUND")
	}
	list := func(target string) string {
		status, raw, _ := alice.Raw(t, "GET", third+target, nil)
		if status != 200 {
			t.Errorf("%s: %d %s", target, status, raw)
		}
		return string(raw)
	}
	got := list("/user/chat?nick=a")
	if !strings.Contains(got, "@_irc_a:x") || !strings.Contains(got, "@_xmpp_a:x") || strings.Contains(got, "no protocol") {
		t.Errorf("users %s", got)
	}
	if r := a.next(); r.query.Get("nick") != "a" || r.path != "/_matrix/app/v1/thirdparty/user/chat" {
		t.Errorf("asked %+v", r)
	}
	b.next()
	if got := list("/location/irc"); !strings.Contains(got, "#_irc_a:x") || strings.Contains(got, "xmpp") {
		t.Errorf("locations %s", got)
	}
	a.next()
	if got := list("/location?alias=" + url.QueryEscape("#_irc_a:x")); !strings.Contains(got, "#_xmpp_a:x") {
		t.Errorf("locations by alias %s", got)
	}
	if r := a.next(); r.query.Get("alias") != "#_irc_a:x" || r.path != "/_matrix/app/v1/thirdparty/location" {
		t.Errorf("asked %+v", r)
	}
	list("/user?userid=" + url.QueryEscape("@_irc_a:x"))
	for _, path := range []string{"/user", "/location"} {
		alice.Fails(t, "GET", third+path, nil, 400, "M_MISSING_PARAM")
	}
}

func TestThirdPartyOfNobody(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	if out := alice.Must(t, "GET", v3+"/thirdparty/protocols", nil); len(out) != 0 {
		t.Errorf("protocols %v", out)
	}
	if _, raw, _ := alice.Raw(t, "GET", v3+"/thirdparty/user?userid=@a:x", nil); string(raw) != "[]" {
		t.Errorf("users %s", raw)
	}
}

func TestNetworkDirectory(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	public := alice.CreateRoom(t, object{"visibility": "public"})
	bridged := bot.CreateRoom(t, nil)
	entry := func(room string) string {
		return v3 + "/directory/list/appservice/net/" + url.PathEscape(room)
	}
	rooms := func(body object) string {
		out := alice.Must(t, "POST", v3+"/publicRooms", body)
		ids := ""
		for _, r := range out["chunk"].([]any) {
			ids += r.(object)["room_id"].(string) + " "
		}
		return ids
	}
	bot.Must(t, "PUT", entry(bridged), object{"visibility": "public"})
	bot.Must(t, "PUT", entry(public), object{"visibility": "public"})
	check := func(body object, want ...string) {
		t.Helper()
		got := rooms(body)
		if strings.Count(got, " ") != len(want) {
			t.Errorf("%v: %s, want %v", body, got, want)
		}
		for _, id := range want {
			if !strings.Contains(got, id) {
				t.Errorf("%v: %s, want %v", body, got, want)
			}
		}
	}
	check(object{}, public)
	check(object{"third_party_instance_id": "irc|net"}, public, bridged)
	check(object{"third_party_instance_id": "irc|other"})
	check(object{"third_party_instance_id": "unknown|net"})
	check(object{"include_all_networks": true}, public, bridged)
	bot.Must(t, "PUT", entry(bridged), object{"visibility": "private"})
	check(object{"third_party_instance_id": "irc|net"}, public)
	for _, bad := range []object{
		{"third_party_instance_id": "net"}, {"third_party_instance_id": "irc|net", "include_all_networks": true},
	} {
		alice.Fails(t, "POST", v3+"/publicRooms", bad, 400, "M_INVALID_PARAM")
	}
	alice.Fails(t, "PUT", entry(public), object{"visibility": "public"}, 403, "M_FORBIDDEN")
	bot.Fails(t, "PUT", entry(public), object{}, 400, "M_MISSING_PARAM")
	bot.Fails(t, "PUT", entry(public), object{"visibility": "x"}, 400, "M_INVALID_PARAM")
	bot.Fails(t, "PUT", entry("!unknown:x"), object{"visibility": "public"}, 404, "M_NOT_FOUND")
	bot.Fails(t, "PUT", entry("x"), object{"visibility": "public"}, 400, "M_INVALID_PARAM")
	bot.Fails(t, "PUT", v3+"/directory/list/appservice/"+strings.Repeat("n", 300)+"/"+url.PathEscape(public), object{"visibility": "public"}, 400, "M_INVALID_PARAM")
}
