package userdata_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const rules = v3 + "/pushrules/global"

// names returns the IDs of the rules of a kind that the user made.
func names(set any, kind string) (out []string) {
	list, _ := apptest.At(set, kind).([]any)
	for _, r := range list {
		if id := apptest.At(r, "rule_id").(string); !strings.HasPrefix(id, ".") {
			out = append(out, id)
		}
	}
	return out
}

func TestPushRulesEverywhereTheSame(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	check := func() object {
		t.Helper()
		all := alice.Must(t, "GET", v3+"/pushrules/", nil)
		for where, got := range map[string]any{
			"without the slash": alice.Must(t, "GET", v3+"/pushrules", nil),
			"global":            object{"global": alice.Must(t, "GET", rules+"/", nil)},
			"account data":      alice.Must(t, "GET", user(alice, "/account_data/m.push_rules"), nil),
			"sync":              event(apptest.At(alice.Sync(t, ""), "account_data", "events"), "m.push_rules"),
		} {
			if !reflect.DeepEqual(got, any(all)) && !reflect.DeepEqual(got, all) {
				t.Errorf("%s: %v, want %v", where, got, all)
			}
		}
		for _, kind := range []string{"override", "content", "room", "sender", "underride"} {
			if _, ok := apptest.At(all, "global", kind).([]any); !ok {
				t.Errorf("no list of %s", kind)
			}
		}
		return apptest.At(all, "global").(object)
	}
	check()
	alice.Must(t, "PUT", rules+"/content/cake", object{"pattern": "cake*lie", "actions": []any{"notify"}})
	alice.Must(t, "PUT", rules+"/override/.m.rule.master/enabled", object{"enabled": true})
	if got := names(check(), "content"); !reflect.DeepEqual(got, []string{"cake"}) {
		t.Errorf("content rules %v", got)
	}
	alice.Must(t, "DELETE", rules+"/content/cake", nil)
	alice.Must(t, "PUT", rules+"/override/.m.rule.master/enabled", object{"enabled": false})
	check() // nothing is left to store
}

func TestPushRuleOrder(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	body := object{"conditions": []any{}, "actions": []any{}}
	put := func(id, query string) { t.Helper(); alice.Must(t, "PUT", rules+"/override/"+id+query, body) }
	put("a", "")
	put("b", "")
	put("c", "?after=b")
	put("d", "?before=a")
	put("e", "?before=b&after=a")
	check := func(want ...string) {
		t.Helper()
		if got := names(alice.Must(t, "GET", rules+"/", nil), "override"); !reflect.DeepEqual(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
	}
	check("e", "b", "c", "d", "a")
	put("a", "?before=e")
	put("b", "") // stays
	check("a", "e", "b", "c", "d")
	for _, query := range []string{"?before=nothing", "?after=nothing", "?before=.m.rule.master"} {
		alice.Fails(t, "PUT", rules+"/override/x"+query, body, 400, "M_UNKNOWN")
	}
	check("a", "e", "b", "c", "d")
}

func TestPushRule(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	const one = rules + "/room/%21room%3Ah"
	alice.Must(t, "PUT", one, object{"actions": []any{"dont_notify"}})
	r := alice.Must(t, "GET", one, nil)
	want := object{"rule_id": "!room:h", "default": false, "enabled": true, "actions": []any{"dont_notify"}}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("rule %v, want %v", r, want)
	}
	alice.Must(t, "PUT", one+"/enabled", object{"enabled": false})
	if got := alice.Must(t, "GET", one+"/enabled", nil); got["enabled"] != false {
		t.Errorf("enabled %v", got)
	}
	actions := object{"actions": []any{"notify", object{"set_tweak": "sound", "value": "ping"}}}
	alice.Must(t, "PUT", one+"/actions", actions)
	if got := alice.Must(t, "GET", one+"/actions", nil); !reflect.DeepEqual(got, actions) {
		t.Errorf("actions %v, want %v", got, actions)
	}
	const master = rules + "/override/.m.rule.master"
	alice.Must(t, "PUT", master+"/actions", actions)
	if got := alice.Must(t, "GET", master, nil); !reflect.DeepEqual(got["actions"], actions["actions"]) || got["default"] != true {
		t.Errorf("changed default rule %v", got)
	}
	alice.Must(t, "DELETE", one, nil)
	for _, rest := range []string{"", "/enabled", "/actions"} {
		alice.Fails(t, "GET", one+rest, nil, 404, "M_NOT_FOUND")
	}
	alice.Fails(t, "DELETE", one, nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "PUT", one+"/enabled", object{"enabled": true}, 404, "M_NOT_FOUND")
	alice.Fails(t, "PUT", one+"/actions", actions, 404, "M_NOT_FOUND")
	alice.Fails(t, "DELETE", master, nil, 404, "M_NOT_FOUND")
}

func TestPushRuleBadInput(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	for _, path := range []string{
		rules + "/postcontent/x", rules + "/postcontent/x/enabled", rules + "/postcontent/x/actions",
		v3 + "/pushrules/device/override/x", v3 + "/pushrules/device/",
	} {
		alice.Fails(t, "GET", path, nil, 404, "M_UNRECOGNIZED")
	}
	alice.Fails(t, "PUT", rules+"/postcontent/x", object{"actions": []any{}}, 404, "M_UNRECOGNIZED")
	alice.Fails(t, "GET", rules+"/override/"+strings.Repeat("x", 3000), nil, 404, "M_NOT_FOUND")
	const bad, missing, invalid = "M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM"
	for _, tt := range []struct{ path, body, code string }{
		{"/content/x", ``, missing},
		{"/content/x", `{}`, missing},
		{"/content/x", `{"actions":[]}`, missing},
		{"/content/x", `{"actions":"notify","pattern":"x"}`, bad},
		{"/content/x", `{"actions":[],"pattern":5}`, bad},
		{"/content/x", `{"actions":["explode"],"pattern":"x"}`, invalid},
		{"/override/x", `{"actions":[],"conditions":{}}`, bad},
		{"/override/x", `{"actions":[],"conditions":[{"kind":"event_match","key":"a"}]}`, invalid},
		{"/override/.x", `{"actions":[]}`, invalid},
		{"/override/.m.rule.master", `{"actions":[]}`, invalid},
		{"/override/a%2Fb", `{"actions":[]}`, invalid},
		{"/override/a%5Cb", `{"actions":[]}`, invalid},
		{"/override/" + strings.Repeat("x", 256), `{"actions":[]}`, invalid},
		{"/override/.m.rule.master/enabled", `{}`, missing},
		{"/override/.m.rule.master/enabled", `{"enabled":"yes"}`, bad},
		{"/override/.m.rule.master/actions", `{}`, missing},
		{"/override/.m.rule.master/actions", `{"actions":{}}`, bad},
		{"/override/x", `{`, "M_NOT_JSON"},
		{"/override/x", `[]`, bad},
	} {
		alice.Fails(t, "PUT", rules+tt.path, tt.body, 400, tt.code)
	}
	s.Anonymous().Fails(t, "GET", v3+"/pushrules/", nil, 401, "M_MISSING_TOKEN")
}

// Two devices that change rules at once keep both changes.
func TestPushRulesAtOnce(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	var wg sync.WaitGroup
	const n = 20
	for i := range n {
		wg.Go(func() {
			alice.Do(t, "PUT", fmt.Sprintf("%s/content/rule%d", rules, i), object{"pattern": "x", "actions": []any{}})
		})
	}
	wg.Wait()
	if got := names(alice.Must(t, "GET", rules+"/", nil), "content"); len(got) != n {
		t.Errorf("%d rules, want %d", len(got), n)
	}
}

// A changed rule counts at once, and after a restart.
func TestPushRulesCount(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	unread := func() any {
		return apptest.At(alice.Sync(t, ""), "rooms", "join", room, "unread_notifications", "highlight_count")
	}
	alice.Sync(t, "")
	alice.Must(t, "PUT", rules+"/content/cake", object{"pattern": "cake", "actions": []any{"notify", object{"set_tweak": "highlight"}}})
	bob.Send(t, room, "the cake is a lie")
	if n := unread(); n != 1.0 {
		t.Errorf("highlights %v, want 1", n)
	}
	s.Restart(t)
	if n := unread(); n != 1.0 {
		t.Errorf("highlights after a restart %v, want 1", n)
	}
	alice.Must(t, "PUT", rules+"/content/cake/enabled", object{"enabled": false})
	bob.Send(t, room, "cake again")
	if n := unread(); n == 2.0 {
		t.Errorf("a disabled rule counts: %v", n)
	}
}

func TestPushers(t *testing.T) {
	s := apptest.Start(t)
	if out := s.User(t, "alice").Must(t, "GET", v3+"/pushers", nil); !reflect.DeepEqual(out, object{"pushers": []any{}}) {
		t.Errorf("pushers %v", out)
	}
}
