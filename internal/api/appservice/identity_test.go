package appservice_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

const whoami = v3 + "/account/whoami"

func TestIdentity(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	if out := bot.Must(t, "GET", whoami, nil); out["user_id"] != bot.UserID || out["device_id"] != nil {
		t.Errorf("the sender: %v", out)
	}
	bot.Sync(t, "")
	if out := bot.Must(t, "GET", as(whoami, "ircbot"), nil); out["user_id"] != bot.UserID {
		t.Errorf("the sender by name: %v", out)
	}
	bot.Fails(t, "GET", as(whoami, "_irc_a"), nil, 403, "M_FORBIDDEN") // not registered
	bot.Fails(t, "GET", as(whoami, "alice"), nil, 403, "M_FORBIDDEN")
	bot.Fails(t, "GET", whoami+"?user_id=@_irc_a:elsewhere", nil, 403, "M_FORBIDDEN")
	bot.Fails(t, "GET", whoami+"?user_id=nonsense", nil, 403, "M_FORBIDDEN")
	b.register("_irc_a")
	if out := bot.Must(t, "GET", as(whoami, "_irc_a"), nil); out["user_id"] != "@_irc_a:"+apptest.Name {
		t.Errorf("acting as a user: %v", out)
	}
	// The token may stand in the query, as for everyone.
	anon := s.Anonymous()
	if out := anon.Must(t, "GET", as(whoami+"?access_token="+b.token(), "_irc_a"), nil); out["user_id"] != "@_irc_a:"+apptest.Name {
		t.Errorf("token in the query: %v", out)
	}
	anon.Token = b.token() + "x"
	anon.Fails(t, "GET", whoami, nil, 401, "M_UNKNOWN_TOKEN")
	// Others act as nobody but themselves.
	if out := alice.Must(t, "GET", as(whoami, "_irc_a"), nil); out["user_id"] != alice.UserID {
		t.Errorf("alice acts as %v", out)
	}
	bot.Must(t, "POST", as(v3+"/account/deactivate", "_irc_a"), object{})
	bot.Fails(t, "GET", as(whoami, "_irc_a"), nil, 403, "M_USER_DEACTIVATED")
	bot.Fails(t, "POST", v3+"/account/password", object{"new_password": apptest.Password}, 403, "M_FORBIDDEN")
}

func TestActAsDevice(t *testing.T) {
	_, b := start(t)
	bot := b.bot()
	b.register("_irc_a")
	device := as(v3+"/devices/PHONE", "_irc_a")
	bot.Fails(t, "GET", as(whoami+"?device_id=PHONE", "_irc_a"), nil, 400, "M_UNKNOWN_DEVICE")
	status, _ := bot.Do(t, "PUT", device, object{"display_name": "bridge"})
	if status != 201 {
		t.Errorf("a new device: %d", status)
	}
	if status, _ = bot.Do(t, "PUT", device, object{"display_name": "other"}); status != 200 {
		t.Errorf("a device that is there: %d", status)
	}
	if out := bot.Must(t, "GET", device, nil); out["display_name"] != "other" {
		t.Errorf("device %v", out)
	}
	for _, name := range []string{"device_id", "org.matrix.msc3202.device_id"} {
		if out := bot.Must(t, "GET", as(whoami+"?"+name+"=PHONE", "_irc_a"), nil); out["device_id"] != "PHONE" {
			t.Errorf("%s: %v", name, out)
		}
	}
	bot.Fails(t, "GET", whoami+"?device_id=PHONE", nil, 400, "M_UNKNOWN_DEVICE") // of the sender
	// Keys are those of a device.
	upload := v3 + "/keys/upload"
	keys := object{"one_time_keys": object{"signed_curve25519:A": object{"key": "x", "signatures": object{}}}}
	bot.Fails(t, "POST", as(upload, "_irc_a"), keys, 400, "M_INVALID_PARAM")
	if out := bot.Must(t, "POST", as(upload+"?device_id=PHONE", "_irc_a"), keys); apptest.At(out, "one_time_key_counts", "signed_curve25519") != 1.0 {
		t.Errorf("counts %v", out)
	}
	// No password is asked for.
	bot.Must(t, "DELETE", device, object{})
	bot.Fails(t, "GET", as(whoami+"?device_id=PHONE", "_irc_a"), nil, 400, "M_UNKNOWN_DEVICE")
	bot.Do(t, "PUT", device, object{})
	bot.Must(t, "POST", as(v3+"/delete_devices", "_irc_a"), object{"devices": []string{"PHONE"}})
	bot.Fails(t, "GET", device, nil, 404, "M_NOT_FOUND")
}

// A device is made by PUT for application services alone.
func TestPutDeviceOfOthers(t *testing.T) {
	s, _ := start(t)
	s.User(t, "alice").Fails(t, "PUT", v3+"/devices/NEW", object{}, 404, "M_NOT_FOUND")
}

func TestRegister(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	body := func(name string) object { return object{"type": "m.login.application_service", "username": name} }
	const path = v3 + "/register"
	out := bot.Must(t, "POST", path, body("_irc_Nick[1]"))
	if out["user_id"] != "@_irc_Nick[1]:"+apptest.Name {
		t.Fatalf("registered %v", out)
	}
	user := s.Anonymous()
	user.Token = out["access_token"].(string)
	if out := user.Must(t, "GET", whoami, nil); out["user_id"] != "@_irc_Nick[1]:"+apptest.Name {
		t.Errorf("its token: %v", out)
	}
	if out := bot.Must(t, "POST", path, object{"type": "m.login.application_service", "username": "_irc_b", "inhibit_login": true}); out["access_token"] != nil {
		t.Errorf("inhibit_login: %v", out)
	}
	bot.Fails(t, "POST", path, body("_irc_b"), 400, "M_USER_IN_USE")
	bot.Fails(t, "POST", path, body("bob"), 400, "M_EXCLUSIVE")
	bot.Fails(t, "POST", path, body("_irc_a b"), 400, "M_INVALID_USERNAME")
	bot.Fails(t, "POST", path, body(""), 400, "M_MISSING_PARAM")
	s.Anonymous().Fails(t, "POST", path, body("_irc_c"), 401, "M_MISSING_TOKEN")
	alice.Fails(t, "POST", path, body("_irc_c"), 401, "M_UNKNOWN_TOKEN")

	// Others stay out of the namespace, and of the sender's name.
	for _, name := range []string{"_irc_c", "ircbot"} {
		s.Anonymous().Fails(t, "POST", path, object{
			"username": name, "password": apptest.Password, "auth": object{"type": "m.login.dummy"},
		}, 400, "M_EXCLUSIVE")
		s.Anonymous().Fails(t, "GET", path+"/available?username="+name, nil, 400, "M_EXCLUSIVE")
	}
	// There is no password to log in with.
	s.Anonymous().Fails(t, "POST", v3+"/login", object{
		"type": "m.login.password", "password": "", "identifier": object{"type": "m.id.user", "user": "_irc_b"},
	}, 403, "M_FORBIDDEN")
}

// Whoever registers by the hundred is a bridge and not under the limits.
func TestRegisterUnlimited(t *testing.T) {
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file("rate_limited: true")), func(c *config.Config) {
		c.Limits.NoRateLimits = false
		c.Limits.Registration = config.Rate{PerSecond: 0.001, Burst: 1}
		c.Limits.Login = config.Rate{PerSecond: 0.001, Burst: 1}
		c.Limits.Read = config.Rate{PerSecond: 0.001, Burst: 1}
	})
	for i := range 5 {
		b.register(fmt.Sprintf("_irc_%d", i))
	}
	for range 3 {
		b.bot().Must(t, "GET", v3+"/joined_rooms", nil)
		b.bot().Must(t, "POST", v3+"/login", object{
			"type": "m.login.application_service", "identifier": object{"type": "m.id.user", "user": "_irc_1"},
		})
	}
	// Its users are, if the registration says so.
	joined := as(v3+"/joined_rooms", "_irc_0")
	b.bot().Must(t, "GET", joined, nil)
	b.bot().Fails(t, "GET", joined, nil, 429, "M_LIMIT_EXCEEDED")
}

func TestLogin(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	b.register("_irc_A")
	const path = v3 + "/login"
	body := func(user string) object {
		return object{"type": "m.login.application_service", "identifier": object{"type": "m.id.user", "user": user}, "device_id": "D"}
	}
	flows := s.Anonymous().Must(t, "GET", path, nil)
	if !strings.Contains(fmt.Sprint(flows), "m.login.application_service") {
		t.Errorf("flows %v", flows)
	}
	for _, name := range []string{"_irc_A", "@_irc_A:" + apptest.Name, "ircbot"} {
		out := bot.Must(t, "POST", path, body(name))
		c := s.Anonymous()
		c.Token = out["access_token"].(string)
		if me := c.Must(t, "GET", whoami, nil); me["user_id"] != out["user_id"] || me["device_id"] != "D" {
			t.Errorf("logged in as %v, am %v", out, me)
		}
	}
	bot.Must(t, "POST", path, object{"type": "m.login.application_service", "user": "_irc_A"}) // the old form
	bot.Fails(t, "POST", path, body("alice"), 403, "M_EXCLUSIVE")
	bot.Fails(t, "POST", path, body("_irc_unknown"), 403, "M_FORBIDDEN")
	bot.Fails(t, "POST", path, body("@"), 400, "M_INVALID_PARAM")
	bot.Fails(t, "POST", path, object{"type": "m.login.application_service"}, 400, "M_MISSING_PARAM")
	bot.Fails(t, "POST", path, object{"type": "m.login.application_service", "identifier": object{"type": "m.id.phone"}}, 400, "M_UNRECOGNIZED")
	s.Anonymous().Fails(t, "POST", path, body("_irc_A"), 401, "M_MISSING_TOKEN")
	alice.Fails(t, "POST", path, body("_irc_A"), 401, "M_UNKNOWN_TOKEN")
}

// Services that make devices by themselves get no tokens.
func TestNoLogin(t *testing.T) {
	_, b := start(t, "io.element.msc4190: true")
	bot := b.bot()
	const code = "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED"
	bot.Fails(t, "POST", v3+"/register", object{"type": "m.login.application_service", "username": "_irc_a"}, 400, code)
	b.register("_irc_a")
	bot.Fails(t, "POST", v3+"/login", object{"type": "m.login.application_service", "user": "_irc_a"}, 400, code)
}

func TestCrossSigningWithoutPassword(t *testing.T) {
	_, b := start(t)
	user := b.register("_irc_a")
	for _, key := range []string{"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		b.bot().Must(t, "POST", as(v3+"/keys/device_signing/upload", "_irc_a"), object{"master_key": object{
			"user_id": user, "usage": []string{"master"}, "keys": object{"ed25519:" + key: key},
		}})
	}
}

func TestTimestamps(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	room := bot.CreateRoom(t, object{"preset": "public_chat"})
	alice.Join(t, room)
	in := v3 + "/rooms/" + url.PathEscape(room)
	when := func(id any) any {
		return bot.Must(t, "GET", in+"/event/"+url.PathEscape(id.(string)), nil)["origin_server_ts"]
	}
	const ts = 1234567.0
	sent := bot.Must(t, "PUT", in+"/send/m.room.message/1?ts=1234567", object{"msgtype": "m.text", "body": "old"})["event_id"]
	state := bot.Must(t, "PUT", in+"/state/m.room.topic/?ts=1234567", object{"topic": "old"})["event_id"]
	redacted := bot.Must(t, "PUT", in+"/redact/"+url.PathEscape(sent.(string))+"/2?ts=1234567", object{})["event_id"]
	for _, id := range []any{sent, state, redacted} {
		if when(id) != ts {
			t.Errorf("sent at %v", when(id))
		}
	}
	bot.Fails(t, "PUT", in+"/send/m.room.message/3?ts=yesterday", object{"msgtype": "m.text", "body": "x"}, 400, "M_INVALID_PARAM")
	now := alice.Must(t, "PUT", in+"/send/m.room.message/4?ts=1234567", object{"msgtype": "m.text", "body": "x"})["event_id"]
	if when(now) == ts {
		t.Error("anyone may set the time of an event")
	}
	b.register("_irc_a")
	bot.Must(t, "POST", as(v3+"/join/"+url.PathEscape(room)+"?ts=1234567", "_irc_a"), object{})
	member := bot.Must(t, "GET", in+"/state/m.room.member/"+url.PathEscape("@_irc_a:"+apptest.Name)+"?format=event", nil)
	if member["origin_server_ts"] != ts {
		t.Errorf("joined at %v", member["origin_server_ts"])
	}
}

func TestAliasNamespaces(t *testing.T) {
	s, b := start(t)
	alice, bot := s.User(t, "alice"), b.bot()
	room, theirs := alice.CreateRoom(t, nil), bot.CreateRoom(t, nil)
	alias := func(local string) string {
		return v3 + "/directory/room/" + url.PathEscape("#"+local+":"+apptest.Name)
	}
	alice.Fails(t, "PUT", alias("_irc_x"), object{"room_id": room}, 400, "M_EXCLUSIVE")
	alice.Fails(t, "POST", v3+"/createRoom", object{"room_alias_name": "_irc_x"}, 400, "M_EXCLUSIVE")
	bot.Fails(t, "PUT", alias("x"), object{"room_id": theirs}, 400, "M_EXCLUSIVE")
	bot.Fails(t, "POST", v3+"/createRoom", object{"room_alias_name": "x"}, 400, "M_EXCLUSIVE")
	bot.Must(t, "PUT", alias("_irc_x"), object{"room_id": theirs})
	bot.Must(t, "PUT", alias("_irc_y"), object{"room_id": room}) // where none of its users is
	bot.Fails(t, "PUT", alias("_irc_z"), object{"room_id": "!none:" + apptest.Name}, 403, "M_FORBIDDEN")
	alice.Fails(t, "DELETE", alias("_irc_x"), nil, 400, "M_EXCLUSIVE")
	// The service has full control of its namespace, whichever of its users made the alias.
	b.register("_irc_a")
	bot.Must(t, "DELETE", as(alias("_irc_x"), "_irc_a"), nil)
	alice.Must(t, "PUT", alias("x"), object{"room_id": room})
	bot.Fails(t, "DELETE", alias("x"), nil, 400, "M_EXCLUSIVE")
	alice.Must(t, "DELETE", alias("x"), nil)
}

// The users of services are nobody who could be the first administrator.
func TestFirstAdministrator(t *testing.T) {
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file()), func(c *config.Config) { c.Registration.Mode = config.RegistrationToken })
	b.register("_irc_a")
	b.server.Restart(t)
	if out := announced(t, b.server); !strings.Contains(out, "signup?token=") {
		t.Errorf("announced %q", out)
	}
}

func announced(t *testing.T, s *apptest.Server) string {
	t.Helper()
	s.Stop()
	cfg := s.Config
	cfg.Server.Listen = []string{"127.0.0.1:0"}
	srv, err := app.New(t.Context(), cfg, obs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out strings.Builder
	if err := srv.Announce(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A file with a mistake keeps the server from starting.
func TestRefusesToStart(t *testing.T) {
	b := newBridge(t, "irc")
	cfg := config.Default()
	cfg.Server.DataDir, cfg.Server.MetricsListen, cfg.Server.Listen = t.TempDir(), "", []string{"127.0.0.1:0"}
	cfg.Server.AppserviceFiles = []string{b.file("url: nowhere")}
	_, err := app.New(t.Context(), cfg, obs.Discard())
	if err == nil || !strings.Contains(err.Error(), `the url "nowhere"`) {
		t.Errorf("started: %v", err)
	}
}
