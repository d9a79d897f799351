package event

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

type redactionCase struct{ name, eventType, content, v10, v11 string }

// redactionCases has a row for each event type that keeps something, and some
// that do not, with what is left of a content in each version.
func redactionCases() []redactionCase {
	return []redactionCase{
		{"message", TypeMessage, `{"body":"x","membership":"join","msgtype":"m.text"}`, `{}`, `{}`},
		{"empty", TypeMember, `{}`, `{}`, `{}`},
		{"own type", "org.example", `{"creator":"x","redacts":"$y"}`, `{}`, `{}`},
		{
			"member", TypeMember,
			`{"avatar_url":"mxc://a","displayname":"A","is_direct":true,"join_authorised_via_users_server":"@b:c","membership":"join","reason":"r"}`,
			`{"join_authorised_via_users_server":"@b:c","membership":"join"}`,
			`{"join_authorised_via_users_server":"@b:c","membership":"join"}`,
		},
		{
			"member by third-party invite", TypeMember,
			`{"membership":"invite","third_party_invite":{"display_name":"x","signed":{"mxid":"@a:b","token":"t"}}}`,
			`{"membership":"invite"}`,
			`{"membership":"invite","third_party_invite":{"signed":{"mxid":"@a:b","token":"t"}}}`,
		},
		{
			"member by third-party invite without signed", TypeMember,
			`{"membership":"invite","third_party_invite":{"display_name":"x"}}`,
			`{"membership":"invite"}`, `{"membership":"invite","third_party_invite":{}}`,
		},
		{
			"member by third-party invite that is none", TypeMember,
			`{"membership":"invite","third_party_invite":"x"}`,
			`{"membership":"invite"}`, `{"membership":"invite"}`,
		},
		{
			"create", TypeCreate,
			`{"additional_creators":["@c:d"],"creator":"@a:b","m.federate":false,"room_version":"10","type":"m.space"}`,
			`{"creator":"@a:b"}`,
			`{"additional_creators":["@c:d"],"creator":"@a:b","m.federate":false,"room_version":"10","type":"m.space"}`,
		},
		{
			"join rules", TypeJoinRules, `{"allow":[{"room_id":"!a","type":"m.room_membership"}],"join_rule":"restricted","x":1}`,
			`{"allow":[{"room_id":"!a","type":"m.room_membership"}],"join_rule":"restricted"}`,
			`{"allow":[{"room_id":"!a","type":"m.room_membership"}],"join_rule":"restricted"}`,
		},
		{
			"power levels", TypePowerLevels,
			`{"ban":1,"events":{"a":1},"events_default":2,"invite":3,"kick":4,"notifications":{"room":5},"redact":6,"state_default":7,"users":{"@a:b":8},"users_default":9,"z":10}`,
			`{"ban":1,"events":{"a":1},"events_default":2,"kick":4,"redact":6,"state_default":7,"users":{"@a:b":8},"users_default":9}`,
			`{"ban":1,"events":{"a":1},"events_default":2,"invite":3,"kick":4,"redact":6,"state_default":7,"users":{"@a:b":8},"users_default":9}`,
		},
		{"history visibility", TypeHistoryVisibility, `{"history_visibility":"joined","x":1}`, `{"history_visibility":"joined"}`, `{"history_visibility":"joined"}`},
		{"redaction", TypeRedaction, `{"reason":"r","redacts":"$x"}`, `{}`, `{"redacts":"$x"}`},
		{"name", TypeName, `{"name":"x"}`, `{}`, `{}`},
		{"third-party invite", TypeThirdPartyInvite, `{"public_key":"k"}`, `{}`, `{}`},
		{"aliases", "m.room.aliases", `{"aliases":["#a:b"]}`, `{}`, `{}`},
	}
}

func TestRedactedContent(t *testing.T) {
	for _, tc := range redactionCases() {
		for _, id := range []string{"10", "11", "12"} {
			t.Run(tc.name+" in "+id, func(t *testing.T) {
				want := tc.v11
				if id == "10" {
					want = tc.v10
				}
				key := "k"
				e := &Event{
					ID: "$i", RoomID: "!r", Type: tc.eventType, StateKey: &key, Sender: "@s:t", OriginServerTS: 1, Depth: 2,
					PrevEvents: []ids.EventID{"$p"}, AuthEvents: []ids.EventID{"$a"}, ContentHash: [32]byte{9},
					Content: []byte(tc.content), Redacts: "$x",
				}
				r := Redact(version(t, id), e)
				if string(r.Content) != want {
					t.Errorf("got  %s\nwant %s", r.Content, want)
				}
				if keeps := r.Redacts != ""; keeps != (id != "10") {
					t.Errorf("redacts is %q", r.Redacts)
				}
				if string(e.Content) != tc.content {
					t.Error("the original changed")
				}
				// All else stays.
				if r.ID != e.ID || r.RoomID != e.RoomID || r.Type != e.Type || r.StateKey != e.StateKey || r.Sender != e.Sender ||
					r.OriginServerTS != e.OriginServerTS || r.Depth != e.Depth || r.ContentHash != e.ContentHash ||
					!slices.Equal(r.PrevEvents, e.PrevEvents) || !slices.Equal(r.AuthEvents, e.AuthEvents) {
					t.Errorf("got %+v", r)
				}
			})
		}
	}
}

func TestLookup(t *testing.T) {
	for _, id := range Supported() {
		if v, ok := Lookup(id); !ok || v.ID != id {
			t.Errorf("Lookup(%s) = %v, %v", id, v, ok)
		}
	}
	for _, id := range []string{"", "0", "01", "13", "12 ", "org.example"} {
		if _, ok := Lookup(id); ok {
			t.Errorf("version %q is known", id)
		}
	}
	if Default().ID != "12" {
		t.Error("default is not 12")
	}
}

func TestParsePowerLevelsIsStrict(t *testing.T) {
	for _, tc := range []struct{ content, field string }{
		{`{}`, ""},
		{`{"ban":-5,"users":{},"events":{},"notifications":{},"x":"anything","historical":"100"}`, ""},
		{`{"ban":"50"}`, "ban"},
		{`{"kick":null}`, "kick"},
		{`{"invite":1.5}`, "invite"},
		{`{"redact":true}`, "redact"},
		{`{"state_default":[]}`, "state_default"},
		{`{"events_default":{}}`, "events_default"},
		{`{"users_default":"0"}`, "users_default"},
		{`{"users_default":9007199254740992}`, "users_default"},
		{`{"events":null}`, "events"},
		{`{"events":[]}`, "events"},
		{`{"events":{"a":"1"}}`, "events"},
		{`{"events":{"a":null}}`, "events"},
		{`{"notifications":5}`, "notifications"},
		{`{"notifications":{"room":"50"}}`, "notifications"},
		{`{"users":null}`, "users"},
		{`{"users":{"@a:b":"100"}}`, "users"},
		{`{"users":{"@a:b":1e3}}`, "users"},
		{`{"users":{"alice":1}}`, "users"},
		{`{"users":{"@alice":1}}`, "users"},
		{`{"users":{"":1}}`, "users"},
		{`[]`, "content"},
		{`{"ban":1`, "content"},
	} {
		p, err := ParsePowerLevels([]byte(tc.content))
		var field *FieldError
		switch {
		case tc.field == "":
			if err != nil {
				t.Errorf("%s: %v", tc.content, err)
			}
		case !errors.As(err, &field) || field.Field != tc.field || !errors.Is(err, ErrBadJSON) || p != nil:
			t.Errorf("%s: got %v", tc.content, err)
		}
	}
}

func TestPowerLevelDefaults(t *testing.T) {
	empty, err := ParsePowerLevels([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*PowerLevels{nil, empty} {
		for l, want := range map[Level]int64{
			LevelUsersDefault: 0, LevelEventsDefault: 0, LevelStateDefault: 50,
			LevelBan: 50, LevelRedact: 50, LevelKick: 50, LevelInvite: 0,
		} {
			if got := p.Level(l); got != want || p.Has(l) {
				t.Errorf("%s is %d, has %v", l.Name(), got, p.Has(l))
			}
		}
		if p.Send(TypeName, true) != 50 || p.Send(TypeMessage, false) != 0 || p.User("@a:b") != 0 || p.Notification("room") != 50 {
			t.Error("defaults of the maps")
		}
	}
	full, err := ParsePowerLevels([]byte(`{"ban":1,"events":{"m.room.name":2},"events_default":3,"invite":4,"kick":5,` +
		`"notifications":{"room":6},"redact":7,"state_default":8,"users":{"@a:b":9,"@\"q:b":11},"users_default":10}`))
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[Level]int64{
		LevelUsersDefault: 10, LevelEventsDefault: 3, LevelStateDefault: 8,
		LevelBan: 1, LevelRedact: 7, LevelKick: 5, LevelInvite: 4,
	} {
		if got := full.Level(l); got != want || !full.Has(l) {
			t.Errorf("%s is %d", l.Name(), got)
		}
	}
	for got, want := range map[int64]int64{
		full.Send(TypeName, true): 2, full.Send(TypeName, false): 2, full.Send("x", true): 8, full.Send("x", false): 3,
		full.User("@a:b"): 9, full.User("@c:d"): 10, full.User(`@"q:b`): 11, full.Notification("room"): 6, full.Notification("x"): 50,
	} {
		if got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}

func TestParseContents(t *testing.T) {
	member := ParseMember([]byte(`{"avatar_url":"mxc://a/b","displayname":"\"A\"","is_direct":true,` +
		`"join_authorised_via_users_server":"@b:c","membership":"invite","reason":"r","third_party_invite":{"signed":{"token":"t"}}}`))
	if want := (Member{
		Membership: Invite, DisplayName: `"A"`, AvatarURL: "mxc://a/b", Reason: "r", IsDirect: true,
		HasAuthoriser: true, Authoriser: "@b:c", ThirdPartyInvite: []byte(`{"signed":{"token":"t"}}`),
	}); !reflect.DeepEqual(*member, want) || member.Token() != "t" {
		t.Errorf("%+v", member)
	}
	member = ParseMember([]byte(`{"displayname":null,"join_authorised_via_users_server":5,"membership":["join"]}`))
	if want := (Member{HasAuthoriser: true}); !reflect.DeepEqual(*member, want) {
		t.Errorf("%+v", member)
	}

	create := ParseCreate([]byte(`{"additional_creators":["@c:d","@e:f"],"creator":"@a:b","m.federate":false,` +
		`"predecessor":{"event_id":"$x","room_id":"!old"},"room_version":"12","type":"m.space"}`))
	if want := (Create{
		HasCreator: true, Creator: "@a:b", HasRoomVersion: true, RoomVersion: "12", NoFederation: true,
		AdditionalCreators: []ids.UserID{"@c:d", "@e:f"}, RoomType: "m.space", Predecessor: "!old",
	}); !reflect.DeepEqual(*create, want) {
		t.Errorf("%+v", create)
	}
	for content, bad := range map[string]bool{
		`{}`: false, `{"additional_creators":[]}`: false, `{"additional_creators":["@a:b"]}`: false,
		`{"additional_creators":"@a:b"}`: true, `{"additional_creators":null}`: true, `{"additional_creators":{}}`: true,
		`{"additional_creators":["@a:b",1]}`: true, `{"additional_creators":["a"]}`: true, `{"additional_creators":[["@a:b"]]}`: true,
	} {
		if got := ParseCreate([]byte(content)).BadCreators; got != bad {
			t.Errorf("%s: bad %v", content, got)
		}
	}

	rules := ParseJoinRules([]byte(`{"allow":[{"room_id":"!a","type":"m.room_membership"},{"room_id":"!b","type":"other"},1,` +
		`{"room_id":3,"type":"m.room_membership"},{"room_id":"!c","type":"m.room_membership"}],"join_rule":"restricted"}`))
	if want := (JoinRules{Rule: JoinRuleRestricted, AllowRooms: []ids.RoomID{"!a", "!c"}}); !reflect.DeepEqual(*rules, want) {
		t.Errorf("%+v", rules)
	}
	for content, want := range map[string]JoinRule{
		`{}`: JoinRuleInvite, `{"join_rule":5}`: JoinRuleInvite, `{"join_rule":"odd"}`: "odd", `{"join_rule":"public"}`: JoinRulePublic,
	} {
		if got := ParseJoinRules([]byte(content)).Rule; got != want {
			t.Errorf("%s: %s", content, got)
		}
	}
	for content, want := range map[string]HistoryVisibility{
		`{}`: VisibilityShared, `{"history_visibility":"odd"}`: VisibilityShared, `{"history_visibility":1}`: VisibilityShared,
		`{"history_visibility":"shared"}`: VisibilityShared, `{"history_visibility":"joined"}`: VisibilityJoined,
		`{"history_visibility":"invited"}`: VisibilityInvited, `{"history_visibility":"world_readable"}`: VisibilityWorldReadable,
	} {
		if got := (&Event{Content: []byte(content)}).HistoryVisibility(); got != want {
			t.Errorf("%s: %s", content, got)
		}
	}
}

func TestFields(t *testing.T) {
	object := []byte(`{"\n":0,"a":{"b":[1,"]}",{}]},"c":"x\"y","d":12,"e":null}`)
	for name, want := range map[string]string{
		"\n": `0`, "a": `{"b":[1,"]}",{}]}`, "c": `"x\"y"`, "d": `12`, "e": `null`,
	} {
		if got, ok := Field(object, name); !ok || string(got) != want {
			t.Errorf("%q: %s, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "b", "f", "x"} {
		if got, ok := Field(object, name); ok {
			t.Errorf("%q: %s", name, got)
		}
	}
	if s, ok := StringField(object, "c"); !ok || s != `x"y` {
		t.Errorf("%q, %v", s, ok)
	}
	if _, ok := StringField(object, "d"); ok {
		t.Error("a number is a string")
	}
	var names []string
	for name := range Members(object) {
		names = append(names, name)
	}
	if want := []string{"\n", "a", "c", "d", "e"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	list, _ := Field([]byte(`{"l":[[1],"a,]",{"k":2},-3]}`), "l")
	var elements []string
	for raw := range Elements(list) {
		elements = append(elements, string(raw))
	}
	if want := []string{`[1]`, `"a,]"`, `{"k":2}`, `-3`}; !slices.Equal(elements, want) {
		t.Errorf("%q", elements)
	}
	for _, bad := range []string{``, `{`, `{"a"`, `{"a":`, `{"a":}`, `{"a":1`, `{a:1}`, `{"a":"x}`, `{"a":{]`, `{"a:1}`, `[1]`, `{,}`, `{"a\`} {
		for name, value := range Members([]byte(bad)) {
			t.Errorf("%s has %s: %s", bad, name, value)
		}
	}
}

func TestSetAndDropField(t *testing.T) {
	for _, tc := range []struct{ object, name, set, dropped string }{
		{`{}`, "a", `{"a":9}`, `{}`},
		{`{"b":1}`, "a", `{"a":9,"b":1}`, `{"b":1}`},
		{`{"a":1,"b":2}`, "a", `{"a":9,"b":2}`, `{"b":2}`},
		{`{"a":1,"b":2}`, "b", `{"a":1,"b":9}`, `{"a":1}`},
		{`{"a":1,"c":2}`, "b", `{"a":1,"b":9,"c":2}`, `{"a":1,"c":2}`},
		{`{"a":1}`, "b\n", `{"a":1,"b\n":9}`, `{"a":1}`},
		{`{"\u0000":[1],"b\n":{}}`, "b\n", `{"\u0000":[1],"b\n":9}`, `{"\u0000":[1]}`},
	} {
		if got := string(SetField([]byte("x"), []byte(tc.object), tc.name, []byte("9"))); got != "x"+tc.set {
			t.Errorf("set %q in %s: %s", tc.name, tc.object, got)
		}
		if got := string(DropField([]byte("x"), []byte(tc.object), tc.name)); got != "x"+tc.dropped {
			t.Errorf("drop %q from %s: %s", tc.name, tc.object, got)
		}
	}
	if got := string(SetField(nil, []byte(`{"a":1}`), strings.Repeat("z", 3), []byte(`"v"`))); got != `{"a":1,"zzz":"v"}` {
		t.Error(got)
	}
}
