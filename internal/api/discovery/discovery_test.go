package discovery_test

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/discovery"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// get calls the handler of a path.
func get(t *testing.T, d discovery.Deps, path string) (map[string]any, error) {
	t.Helper()
	m, err := discovery.New(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Routes() {
		if r.Path != path {
			continue
		}
		if err := r.Check(); err != nil || r.Method != http.MethodGet {
			t.Fatalf("route %s %s: %v", r.Method, path, err)
		}
		v, err := r.Handle(&api.Request{Host: "evil.example"})
		if err != nil {
			return nil, err
		}
		raw, ok := v.(jsontext.Value)
		if !ok || strings.Contains(string(raw), "evil") {
			t.Fatalf("%s answers %v", path, v)
		}
		out := map[string]any{}
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out, nil
	}
	t.Fatalf("no route %s", path)
	return nil, nil
}

func must(t *testing.T, d discovery.Deps, path string) map[string]any {
	t.Helper()
	out, err := get(t, d, path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}

type object = map[string]any

func TestWellKnown(t *testing.T) {
	for path, set := range map[string]struct {
		deps discovery.Deps
		want object
	}{
		"/.well-known/matrix/client": {
			discovery.Deps{BaseURL: "https://chat.example.org/"},
			object{"m.homeserver": object{"base_url": "https://chat.example.org"}},
		},
		"/.well-known/matrix/server": {
			discovery.Deps{BaseURL: "https://chat.example.org/"},
			object{"m.server": "chat.example.org:443"},
		},
		"/.well-known/matrix/support": {
			discovery.Deps{Support: &discovery.Support{
				Contacts: []discovery.Contact{{Email: "admin@example.org", Role: "m.role.admin"}}, Page: "https://example.org/help",
			}},
			object{
				"contacts":     []any{object{"email_address": "admin@example.org", "role": "m.role.admin"}},
				"support_page": "https://example.org/help",
			},
		},
	} {
		if got := must(t, set.deps, path); !reflect.DeepEqual(got, set.want) {
			t.Errorf("%s: %v, want %v", path, got, set.want)
		}
		if _, err := get(t, discovery.Deps{}, path); merr.From(err).Status != 404 || !merr.Is(err, merr.NotFound) {
			t.Errorf("%s when it is not set: %v", path, err)
		}
	}
	if _, err := discovery.New(discovery.Deps{Support: &discovery.Support{}}); err == nil {
		t.Error("support without anybody was taken")
	}
}

// What a client concludes from these names has to be true.
func TestVersions(t *testing.T) {
	out := must(t, discovery.Deps{}, "/_matrix/client/versions")
	versions := out["versions"].([]any)
	for _, v := range []string{"v1.1", "r0.6.1", "v1.4", "v1.11", "v1.14"} {
		if !slices.Contains(versions, any(v)) {
			t.Errorf("%s is missing in %v", v, versions)
		}
	}
	for _, v := range []string{"v1.15", "v1.16"} {
		if slices.Contains(versions, any(v)) {
			t.Errorf("%s is named, but clients would rely on OAuth", v)
		}
	}
	for name, on := range out["unstable_features"].(object) {
		if _, ok := on.(bool); !ok || on == true && strings.Contains(name, "msc4306") {
			t.Errorf("feature %s: %v", name, on)
		}
	}
	for _, name := range []string{"org.matrix.msc4380.stable", "org.matrix.msc3916.stable", "fi.mau.msc2246.stable"} {
		if on := out["unstable_features"].(object)[name]; on != true {
			t.Errorf("%s: %v", name, on)
		}
	}
}

func TestCapabilities(t *testing.T) {
	c := must(t, discovery.Deps{DefaultRoomVersion: "11", WebPush: "BKey"}, "/_matrix/client/v3/capabilities")["capabilities"].(object)
	versions := object{}
	for v := range 12 {
		versions[strconv.Itoa(v+1)] = "stable"
	}
	want := object{
		"m.room_versions":   object{"default": "11", "available": versions},
		"m.change_password": object{"enabled": true},
		"m.profile_fields":  object{"enabled": true},
		"m.set_displayname": object{"enabled": true},
		"m.set_avatar_url":  object{"enabled": true},
		"m.3pid_changes":    object{"enabled": false},
		"m.get_login_token": object{"enabled": true},

		"org.matrix.msc4174.webpush": object{"enabled": true, "vapid": "BKey"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("capabilities %v, want %v", c, want)
	}
}

func TestInfo(t *testing.T) {
	got := must(t, discovery.Deps{Server: "h", Version: "v0.1", Registration: "token", TestMode: true}, "/_hubbub/v1/info")
	want := object{"server_name": "h", "version": "v0.1", "registration": "token", "test_mode": true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("info %v, want %v", got, want)
	}
}

func TestNothingToTell(t *testing.T) {
	for _, path := range []string{"/voip/turnServer"} {
		if got := must(t, discovery.Deps{}, "/_matrix/client/v3"+path); len(got) != 0 {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// Who is asked before there is a token answers without one.
func TestAuth(t *testing.T) {
	m, err := discovery.New(discovery.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Routes() {
		own := strings.HasPrefix(r.Path, "/_matrix/client/v3/") || strings.HasSuffix(r.Path, "/rtc/transports") || strings.HasSuffix(r.Path, "/retention/configuration")
		if own != (r.Auth == api.AuthUser) {
			t.Errorf("%s: auth %d", r.Path, r.Auth)
		}
	}
}

// TestCalls: what clients need to know for calls of many people.
func TestCalls(t *testing.T) {
	const transports = "/_matrix/client/v1/rtc/transports"
	if list := must(t, discovery.Deps{}, transports)["rtc_transports"]; !reflect.DeepEqual(list, []any{}) {
		t.Errorf("without a media server: %v", list)
	}
	d := discovery.Deps{BaseURL: "https://x", Livekit: []string{"https://lk"}, MaxEventDelay: time.Minute, MaxDelayed: 7}
	want := []any{object{"type": "livekit", "livekit_service_url": "https://lk"}}
	if list := must(t, d, transports)["rtc_transports"]; !reflect.DeepEqual(list, want) {
		t.Errorf("transports: %v", list)
	}
	if foci := must(t, d, "/.well-known/matrix/client")["org.matrix.msc4143.rtc_foci"]; !reflect.DeepEqual(foci, want) {
		t.Errorf("well-known: %v", foci)
	}
	limits := must(t, d, "/_matrix/client/v3/capabilities")["capabilities"].(object)["m.delayed_events"]
	if !reflect.DeepEqual(limits, object{"max_delay_ms": 60000.0, "max_scheduled": 7.0}) {
		t.Errorf("limits of delayed events: %v", limits)
	}
}
