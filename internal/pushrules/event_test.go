package pushrules

import (
	"slices"
	"testing"
)

func TestCompilePath(t *testing.T) {
	for key, want := range map[string][]string{
		`content.body`:              {"content", "body"},
		`content.m\.relates_to.rel`: {"content", "m.relates_to", "rel"},
		`content.m\\foo`:            {"content", `m\foo`},
		`content.m\\.foo`:           {"content", `m\`, "foo"},
		`content.\x`:                {"content", `\x`},
		`content.a\`:                {"content", `a\`},
		`content.`:                  {"content", ""},
		`content..a`:                {"content", "", "a"},
		``:                          {""},
	} {
		if got := compilePath(key).names; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestSlots(t *testing.T) {
	paths := []string{
		pathType, pathSender, pathRoom, pathStateKey, pathBody, pathMsgtype, pathMembership, pathMentions,
		pathMentionedUsers, pathMentionsRoom, pathRelType,
	}
	if len(paths) != int(numSlots) {
		t.Fatalf("%d paths for %d slots", len(paths), numSlots)
	}
	for i, p := range paths {
		if got := slotOf(p); got != slot(i) {
			t.Errorf("%s has slot %d, want %d", p, got, i)
		}
	}
}

func TestEventLookup(t *testing.T) {
	key := "k"
	ev := NewEvent(Fields{
		ID: "$e", Room: "!r", Sender: "@s:x", Type: "m.t", StateKey: &key, OriginServerTS: 42,
		Content: []byte(`{"b":false,"l":[1],"n":1,"o":{"":{"d.o\\t":"deep"}},"s":"x","z":null}`),
	})
	for _, tt := range []struct {
		path    string
		value   any
		present bool
	}{
		{"type", "m.t", true},
		{"event_id", "$e", true},
		{"room_id", "!r", true},
		{"sender", "@s:x", true},
		{"state_key", "k", true},
		{"origin_server_ts", 42.0, true},
		{"content.s", "x", true},
		{"content.n", 1.0, true},
		{"content.b", false, true},
		{"content.z", nil, true},
		{`content.o..d\.o\\t`, "deep", true},
		{"content.o.d", nil, false},
		{"content.s.x", nil, false},
		{"content.l.0", nil, false},
		{"unsigned.age", nil, false},
		{"nothing", nil, false},
	} {
		for range 2 { // the second time from memory
			p := compilePath(tt.path)
			prop := ev.get(&p)
			if present := prop != nil && prop.present; present != tt.present {
				t.Errorf("%s: present %v", tt.path, present)
				continue
			}
			if tt.present && prop.value != tt.value {
				t.Errorf("%s: got %v, want %v", tt.path, prop.value, tt.value)
			}
		}
	}
}

func TestEventDamagedContent(t *testing.T) {
	for _, content := range []string{``, `{`, `[1]`, `"body"`, `{"body":"x`, `{"body":x}`} {
		ev := NewEvent(Fields{Content: []byte(content)})
		p := compilePath(pathBody)
		if prop := ev.get(&p); prop.present {
			t.Errorf("%q: has a body", content)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add(`content.m\.relates_to.rel_type`, `{"m.relates_to":{"rel_type":"m.replace"}}`)
	f.Fuzz(func(_ *testing.T, key, content string) {
		ev := NewEvent(Fields{Content: []byte(content)})
		p := compilePath(key)
		prop := ev.get(&p)
		prop.text()
		prop.is("x")
		prop.contains(1.0)
	})
}
