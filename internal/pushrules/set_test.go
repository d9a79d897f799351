package pushrules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

func ruleIDs(rules []Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.RuleID)
	}
	return out
}

// TestDefaultsJSON pins the shapes that clients read and the order of the
// specification.
func TestDefaultsJSON(t *testing.T) {
	s := open(t, true)
	want := map[Kind][]string{
		Override: {
			RuleMaster, RuleSuppressNotices, RuleInviteForMe, RuleMemberEvent, RuleIsUserMention, RuleContainsDisplayName,
			RuleIsRoomMention, RuleRoomNotif, RuleTombstone, RuleReaction, RuleServerACL, RuleSuppressEdits,
			RulePollResponse,
		},
		Content: {RuleContainsUserName},
		Underride: {
			RuleCall, RuleEncryptedOneToOne, RuleOneToOne, RuleMessage, RuleEncrypted,
			RulePollStartOneToOne, RulePollStart, RulePollEndOneToOne, RulePollEnd,
		},
	}
	for _, kind := range Kinds() {
		if got := ruleIDs(s.Rules(kind)); !slices.Equal(got, want[kind]) {
			t.Errorf("%s: got %v", kind, got)
		}
	}
	for _, tt := range []struct {
		kind     Kind
		id, want string
	}{
		{Override, RuleMaster, `{"rule_id":".m.rule.master","default":true,"enabled":false,"actions":[],"conditions":[]}`},
		{Override, RuleInviteForMe, `{"rule_id":".m.rule.invite_for_me","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"default"}],"conditions":[` +
			`{"key":"type","kind":"event_match","pattern":"m.room.member"},` +
			`{"key":"content.membership","kind":"event_match","pattern":"invite"},` +
			`{"key":"state_key","kind":"event_match","pattern":"@alice:example.org"}]}`},
		{Override, RuleIsUserMention, `{"rule_id":".m.rule.is_user_mention","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}],"conditions":[` +
			`{"key":"content.m\\.mentions.user_ids","kind":"event_property_contains","value":"@alice:example.org"}]}`},
		{Override, RuleIsRoomMention, `{"rule_id":".m.rule.is_room_mention","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"highlight"}],"conditions":[` +
			`{"key":"content.m\\.mentions.room","kind":"event_property_is","value":true},` +
			`{"key":"room","kind":"sender_notification_permission"}]}`},
		{Override, RuleContainsDisplayName, `{"rule_id":".m.rule.contains_display_name","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}],` +
			`"conditions":[{"kind":"contains_display_name"}]}`},
		{Content, RuleContainsUserName, `{"rule_id":".m.rule.contains_user_name","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}],"pattern":"alice"}`},
		{Underride, RuleCall, `{"rule_id":".m.rule.call","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"ring"}],` +
			`"conditions":[{"key":"type","kind":"event_match","pattern":"m.call.invite"}]}`},
		{Underride, RuleOneToOne, `{"rule_id":".m.rule.room_one_to_one","default":true,"enabled":true,` +
			`"actions":["notify",{"set_tweak":"sound","value":"default"}],"conditions":[` +
			`{"is":"2","kind":"room_member_count"},{"key":"type","kind":"event_match","pattern":"m.room.message"}]}`},
	} {
		r, err := s.Rule(tt.kind, tt.id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(r); err != nil || string(got) != tt.want {
			t.Errorf("got  %s %v\nwant %s", got, err, tt.want)
		}
	}
}

func TestRulesetHasNoNull(t *testing.T) {
	got, err := json.Marshal(Rulesets{Global: (&Set{defaults: &Defaults{}}).Ruleset()})
	if want := `{"global":{"override":[],"content":[],"room":[],"sender":[],"underride":[]}}`; err != nil || string(got) != want {
		t.Errorf("got %s %v", got, err)
	}
}

func TestLegacyRulesAreOptional(t *testing.T) {
	s := open(t, false)
	for _, r := range append(s.Rules(Override), s.Rules(Content)...) {
		switch r.RuleID {
		case RuleContainsDisplayName, RuleContainsUserName, RuleRoomNotif:
			t.Errorf("%s is there", r.RuleID)
		}
	}
}

func TestDecodeRule(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, tt := range []struct {
		kind Kind
		body string
		want merr.Code // "" for success
	}{
		{Override, `{"actions":[]}`, ""},
		{Override, `{"actions":["notify","dont_notify","coalesce"],"conditions":[]}`, ""},
		{Override, `{"actions":[],"conditions":[{"kind":"org.example.new","x":{"y":[1.5]}}]}`, ""},
		{Content, `{"actions":["notify"],"pattern":"cake"}`, ""},
		{Room, `{"actions":["notify",{"set_tweak":"sound","value":"x"}],"unknown":1}`, ""},
		{Room, `{"actions":[{"set_tweak":"flash","value":{"a":[1]}}],"pattern":5}`, ""},
		{Room, `{`, merr.NotJSON},
		{Room, ``, merr.NotJSON},
		{Room, `{"actions":[],"actions":[]}`, merr.NotJSON},
		{Room, "{\"actions\":[\"\xff\"]}", merr.NotJSON},
		{Room, `[]`, merr.BadJSON},
		{Room, `{}`, merr.MissingParam},
		{Room, `{"actions":"notify"}`, merr.BadJSON},
		{Room, `{"actions":null}`, merr.BadJSON},
		{Room, `{"actions":["not_an_action"]}`, merr.InvalidParam},
		{Room, `{"actions":[{}]}`, merr.InvalidParam},
		{Room, `{"actions":[{"set_tweak":1}]}`, merr.InvalidParam},
		{Room, `{"actions":[null]}`, merr.InvalidParam},
		{Room, `{"actions":[` + deep + `]}`, merr.InvalidParam},
		{Room, `{"actions":["notify"` + strings.Repeat(`,"notify"`, MaxActions) + `]}`, merr.TooLarge},
		{Room, `{"actions":[],"x":"` + strings.Repeat("x", MaxRuleBytes) + `"}`, merr.TooLarge},
		{Content, `{"actions":[]}`, merr.MissingParam},
		{Content, `{"actions":[],"pattern":1}`, merr.BadJSON},
		{Content, `{"actions":[],"pattern":"` + strings.Repeat("x", MaxPatternBytes+1) + `"}`, merr.TooLarge},
		{Override, `{"actions":[],"conditions":{}}`, merr.BadJSON},
		{Override, `{"actions":[],"conditions":[{}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":["x"]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":1}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_match","key":"type"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_match","key":1,"pattern":"x"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_match","key":"type","pattern":"` + strings.Repeat("x", MaxPatternBytes+1) + `"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type","value":[]}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type","value":1.5}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"event_property_contains","key":"type","value":9007199254740992}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"room_member_count","is":"=2"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"room_member_count","is":2}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"room_member_count","is":">="}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"room_member_count","is":"99999999999"}]}`, merr.InvalidParam},
		{Underride, `{"actions":[],"conditions":[{"kind":"sender_notification_permission"}]}`, merr.InvalidParam},
		{Override, `{"actions":[],"conditions":[{"kind":"a"}` + strings.Repeat(`,{"kind":"a"}`, MaxConditions) + `]}`, merr.TooLarge},
	} {
		_, err := DecodeRule(tt.kind, []byte(tt.body))
		if tt.want == "" && err != nil || tt.want != "" && !merr.Is(err, tt.want) {
			t.Errorf("%s %.100s: got %v, want %q", tt.kind, tt.body, err, tt.want)
		}
	}
}

func FuzzDecodeRule(f *testing.F) {
	f.Add(`{"actions":["notify",{"set_tweak":"sound","value":"x"}],"conditions":[{"kind":"event_match","key":"content.body","pattern":"a*b?"}],"pattern":"x"}`)
	f.Add(`{"actions":[],"conditions":[{"kind":"room_member_count","is":">=2"},{"kind":"event_property_is","key":"content.n","value":1}]}`)
	d := NewDefaults(Options{})
	f.Fuzz(func(t *testing.T, body string) {
		for _, kind := range Kinds() {
			r, err := DecodeRule(kind, []byte(body))
			if err != nil {
				if merr.From(err).Status >= 500 {
					t.Fatal(err)
				}
				continue
			}
			if kind == PostContent {
				t.Fatal("a rule of the server's")
			}
			s, _ := d.Open(alice, nil)
			if err := s.Put(kind, "id", r, "", ""); err != nil {
				t.Fatal(err)
			}
			stored, err := s.Stored()
			if err != nil {
				t.Fatal(err)
			}
			again, err := d.Open(alice, stored)
			if err != nil {
				t.Fatalf("%s: %v", stored, err)
			}
			if twice, err := again.Stored(); err != nil || string(twice) != string(stored) {
				t.Fatalf("stored %s, then %s (%v)", stored, twice, err)
			}
			again.Compile().Evaluate(message(`{"body":"x","n":1}`), &RoomInfo{}, NewMember("x"))
		}
	})
}

func TestDecodeEnabled(t *testing.T) {
	for _, tt := range []struct {
		body string
		want bool
		code merr.Code
	}{
		{`{"enabled":true}`, true, ""},
		{`{"enabled":false}`, false, ""},
		{`{"enabled":"true"}`, false, merr.BadJSON},
		{`{"enabled":null}`, false, merr.BadJSON},
		{`{}`, false, merr.MissingParam},
		{`x`, false, merr.NotJSON},
	} {
		got, err := DecodeEnabled([]byte(tt.body))
		if got != tt.want || tt.code == "" && err != nil || tt.code != "" && !merr.Is(err, tt.code) {
			t.Errorf("%s: got %v %v", tt.body, got, err)
		}
	}
}

func TestParseKindAndScope(t *testing.T) {
	d, off := NewDefaults(Options{ThreadSubscriptions: true}), NewDefaults(Options{})
	for _, k := range Kinds() {
		if got, err := d.ParseKind(string(k)); err != nil || got != k {
			t.Errorf("%s: got %v %v", k, got, err)
		}
	}
	for _, err := range []error{second(off.ParseKind("postcontent")), second(d.ParseKind("")), ParseScope("device")} {
		if e := merr.From(err); err == nil || e.Status != 404 || e.Code != merr.Unrecognized {
			t.Errorf("got %v", err)
		}
	}
	if err := ParseScope("global"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestPutRuleID(t *testing.T) {
	for _, id := range []string{"", ".m.rule.master", ".x", "a/b", `a\b`, "\xff", "a\x00", strings.Repeat("x", MaxRuleIDBytes+1)} {
		if err := open(t, false).Put(Room, id, NewRule{}, "", ""); !merr.Is(err, merr.InvalidParam) {
			t.Errorf("%q: got %v", id, err)
		}
	}
	for _, id := range []string{"!room:example.org", "#room:example.org", "ключ", strings.Repeat("x", MaxRuleIDBytes)} {
		if err := open(t, false).Put(Room, id, NewRule{}, "", ""); err != nil {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestPutOrder(t *testing.T) {
	for _, tt := range []struct {
		id, before, after string
		want              string // "" for before/after not found
	}{
		{"new", "", "", "new a b c"},
		{"new", "a", "", "new a b c"},
		{"new", "c", "", "a b new c"},
		{"new", "", "a", "a new b c"},
		{"new", "", "c", "a b c new"},
		{"new", "b", "c", "a new b c"},
		{"new", "x", "", ""},
		{"new", "", "x", ""},
		{"new", "", RuleMaster, ""},
		{"new", RuleSuppressEdits, "", ""},
		{"b", "", "", "a b c"},
		{"c", "", "", "a b c"},
		{"c", "a", "", "c a b"},
		{"a", "", "c", "b c a"},
		{"a", "", "b", "b a c"},
		{"a", "c", "", "b a c"},
		{"a", "a", "", ""},
	} {
		s := open(t, false)
		for _, id := range []string{"c", "b", "a"} {
			put(t, s, Override, id, `{"actions":[]}`)
		}
		err := s.Put(Override, tt.id, NewRule{Actions: []Action{Notify()}}, tt.before, tt.after)
		want := tt.want
		if want == "" {
			want = "a b c"
			if e := merr.From(err); err == nil || e.Status != 400 || e.Code != merr.Unknown {
				t.Errorf("%+v: got %v", tt, err)
			}
		} else if err != nil {
			t.Errorf("%+v: got %v", tt, err)
		}
		ids := ruleIDs(s.Rules(Override))
		if ids[0] != RuleMaster || ids[len(ids)-1] != RulePollResponse {
			t.Errorf("%+v: %v", tt, ids)
		}
		if got := strings.Join(slices.DeleteFunc(ids, func(id string) bool { return id[0] == '.' }), " "); got != want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

func TestPutKeepsDisabled(t *testing.T) {
	s := open(t, false)
	put(t, s, Sender, "@x:y", `{"actions":[]}`)
	if r, err := s.Rule(Sender, "@x:y"); err != nil || !r.Enabled || r.Default {
		t.Errorf("got %+v %v", r, err)
	}
	if err := s.SetEnabled(Sender, "@x:y", false); err != nil {
		t.Fatal(err)
	}
	put(t, s, Sender, "@x:y", `{"actions":["notify"]}`)
	if r, err := s.Rule(Sender, "@x:y"); err != nil || r.Enabled || len(r.Actions) != 1 {
		t.Errorf("got %+v %v", r, err)
	}
}

func TestNotFound(t *testing.T) {
	s := open(t, false)
	put(t, s, Room, "!x", `{"actions":[]}`)
	for name, err := range map[string]error{
		"get":                second(s.Rule(Room, "!y")),
		"get, other kind":    second(s.Rule(Sender, "!x")),
		"get default":        second(s.Rule(Underride, RuleMaster)),
		"enable":             s.SetEnabled(Room, "!y", true),
		"enable default":     s.SetEnabled(Override, ".m.rule.nope", true),
		"actions":            s.SetActions(Room, "!y", nil),
		"delete":             s.Delete(Room, "!y"),
		"delete, other kind": s.Delete(Sender, "!x"),
		"delete default":     s.Delete(Override, RuleMaster),
	} {
		if e := merr.From(err); err == nil || e.Status != 404 || e.Code != merr.NotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := s.Delete(Room, "!x"); err != nil {
		t.Fatal(err)
	}
	if len(s.Rules(Room)) != 0 {
		t.Error("the rule is still there")
	}
}

// TestStoredAreDeviations: what equals the defaults is not stored, so that later
// versions can change it.
func TestStoredAreDeviations(t *testing.T) {
	s := open(t, false)
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, ``},
		{func() error { return s.SetEnabled(Override, RuleMaster, false) }, ``},
		{func() error { return s.SetEnabled(Override, RuleMaster, true) }, `{"defaults":{".m.rule.master":{"enabled":true}}}`},
		{func() error { return s.SetEnabled(Override, RuleMaster, false) }, ``},
		{func() error { return s.SetActions(Underride, RuleMessage, nil) }, `{"defaults":{".m.rule.message":{"actions":[]}}}`},
		{func() error { return s.SetActions(Underride, RuleMessage, []Action{Notify()}) }, ``},
		{func() error { return s.Put(Room, "!r", NewRule{Actions: []Action{}}, "", "") }, `{"rules":{"room":[{"id":"!r","actions":[]}]}}`},
		{func() error { return s.SetEnabled(Room, "!r", false) }, `{"rules":{"room":[{"id":"!r","disabled":true,"actions":[]}]}}`},
		{func() error { return s.Delete(Room, "!r") }, ``},
	}
	for i, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Stored(); err != nil || string(got) != step.want {
			t.Errorf("step %d: got %s %v", i, got, err)
		}
	}
}

// TestChangedDefaults: changes survive being stored, apply to evaluation, and those
// to rules of another version are kept.
func TestChangedDefaults(t *testing.T) {
	d := NewDefaults(Options{})
	s, err := d.Open(alice, []byte(`{"defaults":{".m.rule.future":{"enabled":false},".m.rule.message":{"actions":[{"set_tweak":"sound","value":"x"},"notify"]},".m.rule.call":null}}`))
	if err != nil {
		t.Fatal(err)
	}
	if o := check(t, s.Compile(), message(`{}`), RoomInfo{Members: 9}, RuleMessage); o.Sound != "x" || !o.Notify {
		t.Errorf("got %+v", o)
	}
	if r, err := s.Rule(Underride, RuleMessage); err != nil || len(r.Actions) != 2 || !r.Default {
		t.Errorf("got %+v %v", r, err)
	}
	if got, err := s.Stored(); err != nil || !strings.Contains(string(got), "future") {
		t.Errorf("got %s %v", got, err)
	}
}

func TestOpenDamaged(t *testing.T) {
	for _, stored := range []string{`{`, `[]`, `{"rules":{"room":[{"id":1}]}}`, `{"defaults":{"x":{"actions":["?"]}}}`} {
		if _, err := NewDefaults(Options{}).Open(alice, []byte(stored)); err == nil {
			t.Errorf("%s: opened", stored)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"rules":{"room":[{"id":"!r","disabled":true,"actions":[]}],"content":[{"id":"c","actions":[]}]},"defaults":{".m.rule.master":{"enabled":true}}}`))
	d := NewDefaults(Options{LegacyMentions: true})
	f.Fuzz(func(t *testing.T, stored []byte) {
		s, err := d.Open(alice, stored)
		if err != nil {
			return
		}
		s.Compile().Evaluate(message(`{"body":"alice"}`), &RoomInfo{}, NewMember("alice"))
		if _, err := json.Marshal(s.Ruleset()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stored(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLimits(t *testing.T) {
	s := open(t, false)
	for i := range MaxRules - 1 { // not by Put, which looks at the whole size each time
		kind := Kinds()[i%2*2]
		s.changes.Rules[kind] = append(s.changes.Rules[kind], storedRule{ID: fmt.Sprint("r", i), Actions: []Action{}})
	}
	if err := s.Put(Room, "last", NewRule{Actions: []Action{}}, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(Sender, "more", NewRule{}, "", ""); !merr.Is(err, merr.TooLarge) {
		t.Errorf("got %v", err)
	}
	if err := s.Put(Override, "r0", NewRule{}, "", ""); err != nil {
		t.Errorf("replacing at the limit: %v", err)
	}
}

func TestStoredSizeLimit(t *testing.T) {
	s := open(t, false)
	big := NewRule{Actions: []Action{Tweak("x", `"`+strings.Repeat("x", 3000)+`"`)}}
	n := 0
	for ; ; n++ {
		if err := s.Put(Room, fmt.Sprint("r", n), big, "", ""); err != nil {
			if !merr.Is(err, merr.TooLarge) {
				t.Fatal(err)
			}
			break
		}
	}
	for name, err := range map[string]error{
		"actions":         s.SetActions(Room, "r0", append(big.Actions, big.Actions...)),
		"default actions": s.SetActions(Override, RuleMaster, big.Actions),
	} {
		if !merr.Is(err, merr.TooLarge) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	stored, err := s.Stored()
	if err != nil || len(stored) > MaxStoredBytes || len(s.Rules(Room)) != n {
		t.Errorf("%d bytes, %d rules of %d, %v", len(stored), len(s.Rules(Room)), n, err)
	}
	if r, _ := s.Rule(Override, RuleMaster); len(r.Actions) != 0 {
		t.Error("a refused change was kept")
	}
}

// TestSetProperty runs random edits against a plain list, and a stored and reopened
// copy after each.
func TestSetProperty(t *testing.T) {
	d := NewDefaults(Options{})
	rapid.Check(t, func(t *rapid.T) {
		s, _ := d.Open(alice, nil)
		var model []string
		name := rapid.SampledFrom([]string{"", "a", "b", "c", "d"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				id, before, after := name.Draw(t, "id"), name.Draw(t, "before"), name.Draw(t, "after")
				err := s.Put(Content, id, NewRule{Pattern: &id, Actions: []Action{}}, before, after)
				anchor := before
				if anchor == "" {
					anchor = after
				}
				if id == "" || anchor == id || anchor != "" && !slices.Contains(model, anchor) {
					if err == nil {
						t.Fatal("no error")
					}
					return
				}
				at := max(slices.Index(model, id), 0)
				model = slices.DeleteFunc(model, func(m string) bool { return m == id })
				if anchor != "" {
					at = slices.Index(model, anchor)
					if before == "" {
						at++
					}
				}
				model = slices.Insert(model, at, id)
			},
			"delete": func(t *rapid.T) {
				id := name.Draw(t, "id")
				if err := s.Delete(Content, id); (err == nil) != slices.Contains(model, id) {
					t.Fatal(err)
				}
				model = slices.DeleteFunc(model, func(m string) bool { return m == id })
			},
			"": func(t *rapid.T) {
				stored, err := s.Stored()
				if err != nil {
					t.Fatal(err)
				}
				if s, err = d.Open(alice, stored); err != nil {
					t.Fatal(err)
				}
				if got := ruleIDs(s.Rules(Content)); !slices.Equal(got, model) {
					t.Fatalf("got %v, want %v", got, model)
				}
			},
		})
	})
}
