package push_test

import (
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// local lets the server reach the gateways of these tests.
func local(c *config.Config) { c.Push.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func TestSetAndGetPushers(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	g := newGateway(t)
	wantPushers(t, alice)
	set(t, alice, g.pusher("k1", object{"profile_tag": "tag"}))
	list := alice.Must(t, "GET", v3+"/pushers", nil)["pushers"].([]any)
	want := g.pusher("k1", object{"profile_tag": "tag"})
	want["data"] = object{"url": g.URL + "/_matrix/push/v1/notify", "default_payload": object{"a": 1.0}}
	if len(list) != 1 || !reflect.DeepEqual(list[0], any(want)) {
		t.Errorf("pushers %v, want %v", list, want)
	}
	set(t, alice, g.pusher("k1", object{"lang": "de"})) // replaces
	set(t, alice, g.pusher("k2", nil))
	set(t, alice, g.pusher("k1", object{"app_id": "other.app"})) // another app
	wantPushers(t, alice, "k1", "k2", "k1")
	alice.Must(t, "POST", v3+"/pushers/set", `{"app_id":"org.example.app","pushkey":"k1","kind":null}`)
	alice.Must(t, "POST", v3+"/pushers/set", `{"app_id":"org.example.app","pushkey":"nothing","kind":null}`)
	wantPushers(t, alice, "k2", "k1")
	s.Anonymous().Fails(t, "GET", v3+"/pushers", nil, 401, "M_MISSING_TOKEN")
	s.Anonymous().Fails(t, "POST", v3+"/pushers/set", object{}, 401, "M_MISSING_TOKEN")
}

func TestPusherMistakes(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	g := newGateway(t)
	at := func(u string) object { return object{"data": object{"url": u}} }
	for name, c := range map[string]struct {
		changes object
		code    string
	}{
		"no app_id":              {object{"app_id": nil}, "M_MISSING_PARAM"},
		"empty app_id":           {object{"app_id": ""}, "M_INVALID_PARAM"},
		"long app_id":            {object{"app_id": strings.Repeat("x", 65)}, "M_INVALID_PARAM"},
		"app_id with NUL":        {object{"app_id": "a\x00b"}, "M_INVALID_PARAM"},
		"no pushkey":             {object{"pushkey": nil}, "M_MISSING_PARAM"},
		"long pushkey":           {object{"pushkey": strings.Repeat("x", 513)}, "M_INVALID_PARAM"},
		"pushkey is a number":    {object{"pushkey": 1}, "M_BAD_JSON"},
		"no kind":                {object{"kind": nil}, "M_MISSING_PARAM"},
		"kind is a number":       {object{"kind": 1}, "M_BAD_JSON"},
		"kind email":             {object{"kind": "email"}, "M_INVALID_PARAM"},
		"no lang":                {object{"lang": nil}, "M_MISSING_PARAM"},
		"long lang":              {object{"lang": strings.Repeat("x", 300)}, "M_INVALID_PARAM"},
		"no app_display_name":    {object{"app_display_name": nil}, "M_MISSING_PARAM"},
		"no device_display_name": {object{"device_display_name": nil}, "M_MISSING_PARAM"},
		"long profile_tag":       {object{"profile_tag": strings.Repeat("x", 300)}, "M_INVALID_PARAM"},
		"no data":                {object{"data": nil}, "M_MISSING_PARAM"},
		"data is a list":         {object{"data": []any{}}, "M_BAD_JSON"},
		"no url":                 {object{"data": object{}}, "M_MISSING_PARAM"},
		"url is a number":        {object{"data": object{"url": 1}}, "M_BAD_JSON"},
		"format is a number":     {object{"data": object{"url": g.URL + "/_matrix/push/v1/notify", "format": 1}}, "M_BAD_JSON"},
		"long data":              {object{"data": object{"url": g.URL + "/_matrix/push/v1/notify", "x": strings.Repeat("x", 5000)}}, "M_TOO_LARGE"},
		"another path":           {at("https://push.example.org/notify"), "M_INVALID_PARAM"},
		"a path behind":          {at("https://push.example.org/_matrix/push/v1/notify/"), "M_INVALID_PARAM"},
		"no host":                {at("https:///_matrix/push/v1/notify"), "M_INVALID_PARAM"},
		"not a URL":              {at("::"), "M_INVALID_PARAM"},
		"another scheme":         {at("ftp://push.example.org/_matrix/push/v1/notify"), "M_INVALID_PARAM"},
		"a password":             {at("https://a:b@push.example.org/_matrix/push/v1/notify"), "M_INVALID_PARAM"},
		"append is a word":       {object{"append": "yes"}, "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			status := http.StatusBadRequest
			if c.code == "M_TOO_LARGE" {
				status = http.StatusRequestEntityTooLarge
			}
			alice.Fails(t, "POST", v3+"/pushers/set", g.pusher("k", c.changes), status, c.code)
		})
	}
	wantPushers(t, alice)
}

// Without allowed networks, gateways speak TLS.
func TestPlainHTTPIsRefused(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Push.Allow = nil })
	alice := s.User(t, "alice")
	g := newGateway(t)
	alice.Fails(t, "POST", v3+"/pushers/set", g.pusher("k", nil), 400, "M_INVALID_PARAM")
	set(t, alice, g.pusher("k", object{"data": object{"url": "https://push.example.org/_matrix/push/v1/notify"}}))
}

func TestTooManyPushers(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	g := newGateway(t)
	for i := range 50 {
		set(t, alice, g.pusher(strings.Repeat("k", i+1), nil))
	}
	alice.Fails(t, "POST", v3+"/pushers/set", g.pusher("other", nil), 413, "M_TOO_LARGE")
	set(t, alice, g.pusher("k", object{"lang": "de"})) // one of those there are
}

// A phone that changes hands: its new owner's pusher ends the old one's, unless it is
// to stand beside it.
func TestPushKeyOfAnotherUser(t *testing.T) {
	s := apptest.Start(t, local)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	g := newGateway(t)
	set(t, alice, g.pusher("phone", nil))
	set(t, bob, g.pusher("phone", object{"append": true}))
	wantPushers(t, alice, "phone")
	wantPushers(t, bob, "phone")
	set(t, carol, g.pusher("phone", object{"app_id": "other.app"}))
	set(t, carol, g.pusher("phone", nil))
	// The others are told by effects of effects, which nobody waits for.
	for end := time.Now().Add(patience); len(pushers(t, alice))+len(pushers(t, bob)) > 0; {
		if time.Now().After(end) {
			t.Fatal("the old pushers stay")
		}
	}
	wantPushers(t, carol, "phone", "phone")
	set(t, alice, g.pusher("phone", object{"append": true}))
	wantPushers(t, carol, "phone", "phone")
	wantPushers(t, alice, "phone")
}

// A pusher ends with the session that set it.
func TestPushersEndWithSessions(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	g := newGateway(t)
	set(t, alice, g.pusher("own", nil))
	phone, tablet, old := alice.Login(t), alice.Login(t), alice.Login(t)
	set(t, phone, g.pusher("phone", nil))
	set(t, tablet, g.pusher("tablet", nil))
	set(t, old, g.pusher("old", nil))
	wantPushers(t, alice, "own", "phone", "tablet", "old")
	phone.Must(t, "POST", v3+"/logout", object{})
	wantPushers(t, alice, "own", "tablet", "old")
	alice.Must(t, "DELETE", v3+"/devices/"+tablet.Device, object{"auth": object{
		"type": "m.login.password", "password": apptest.Password, "identifier": object{"type": "m.id.user", "user": alice.UserID},
	}})
	wantPushers(t, alice, "own", "old")
	alice.Must(t, "POST", v3+"/account/password", object{
		"new_password": "another long password", "auth": object{
			"type": "m.login.password", "password": apptest.Password, "identifier": object{"type": "m.id.user", "user": alice.UserID},
		},
	})
	wantPushers(t, alice, "own")
	alice.Must(t, "POST", v3+"/logout/all", object{})
}

func TestPushRulePathsThatAreNone(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	alice.Fails(t, "GET", v3+"/pushrules/global/postcontent", nil, 404, "M_UNRECOGNIZED")
	alice.Fails(t, "GET", v3+"/pushrules/global/postcontent/x", nil, 404, "M_UNRECOGNIZED")
}
