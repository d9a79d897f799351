package roomstate

import (
	"fmt"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	levelsBefore = `"m.room.canonical_alias":50,"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":`
	levelsAfter  = `,"kick":50,"redact":50,"state_default":50,"users":`
)

// levelsJSON is the whole of the default power levels.
func levelsJSON(tombstone, invite int, users string) string {
	return fmt.Sprintf(`{"ban":50,"events":{"m.room.avatar":50,%s%d},"events_default":0,"invite":%d%s%s,"users_default":0}`,
		levelsBefore, tombstone, invite, levelsAfter, users)
}

func TestPresets(t *testing.T) {
	for _, tc := range []struct {
		version, preset                          string
		create, levels, joinRule, guests, visble string
	}{
		{"10", PresetPrivate, `{"creator":"@alice:h","room_version":"10"}`, levelsJSON(100, 0, `{"@alice:h":100}`), "invite", "can_join", "shared"},
		{"11", PresetPrivate, `{"room_version":"11"}`, levelsJSON(100, 0, `{"@alice:h":100}`), "invite", "can_join", "shared"},
		{"12", PresetPrivate, `{"room_version":"12"}`, levelsJSON(150, 0, `{}`), "invite", "can_join", "shared"},
		{"10", PresetPublic, `{"creator":"@alice:h","room_version":"10"}`, levelsJSON(100, 50, `{"@alice:h":100}`), "public", "forbidden", "shared"},
		{"11", PresetPublic, `{"room_version":"11"}`, levelsJSON(100, 50, `{"@alice:h":100}`), "public", "forbidden", "shared"},
		{"12", PresetPublic, `{"room_version":"12"}`, levelsJSON(150, 50, `{}`), "public", "forbidden", "shared"},
		{"10", PresetTrustedPrivate, `{"creator":"@alice:h","room_version":"10"}`, levelsJSON(100, 0, `{"@alice:h":100,"@bob:h":100,"@carol:h":100}`), "invite", "can_join", "shared"},
		{"11", PresetTrustedPrivate, `{"room_version":"11"}`, levelsJSON(100, 0, `{"@alice:h":100,"@bob:h":100,"@carol:h":100}`), "invite", "can_join", "shared"},
		{"12", PresetTrustedPrivate, `{"additional_creators":["@carol:h","@bob:h"],"room_version":"12"}`, levelsJSON(150, 0, `{}`), "invite", "can_join", "shared"},
	} {
		t.Run(tc.preset+" in "+tc.version, func(t *testing.T) {
			v, _ := event.Lookup(tc.version)
			in, err := Preset(tc.preset, PresetOptions{
				Version: v, Creator: "@alice:h", Invite: []ids.UserID{"@carol:h", "@bob:h", "@carol:h", "@alice:h"},
			})
			if err != nil {
				t.Fatal(err)
			}
			for what, pair := range map[string][2]string{
				"create":             {string(in.Create), tc.create},
				"power levels":       {string(in.PowerLevels), tc.levels},
				"join rules":         {string(in.JoinRules), `{"join_rule":"` + tc.joinRule + `"}`},
				"guest access":       {string(in.GuestAccess), `{"guest_access":"` + tc.guests + `"}`},
				"history visibility": {string(in.HistoryVisibility), `{"history_visibility":"` + tc.visble + `"}`},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s\n got %s\nwant %s", what, pair[0], pair[1])
				}
				if again := canonical(t, pair[0]); string(again) != pair[0] {
					t.Errorf("%s is not canonical: %s", what, pair[0])
				}
			}
		})
	}
	if DefaultPreset(true) != PresetPublic || DefaultPreset(false) != PresetPrivate {
		t.Error("default presets")
	}
	if _, err := Preset("secret_chat", PresetOptions{Version: event.Default(), Creator: "@alice:h"}); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("unknown preset: %v", err)
	}
}

func TestPresetCreationContent(t *testing.T) {
	for _, tc := range []struct {
		version, preset, given, want string // want "" is M_BAD_JSON
	}{
		{"10", PresetPrivate, `{"creator":"@eve:h","m.federate":false,"room_version":"1","type":"m.space"}`, `{"creator":"@alice:h","m.federate":false,"room_version":"10","type":"m.space"}`},
		{"11", PresetPrivate, `{"creator":"@eve:h","room_version":"1"}`, `{"room_version":"11"}`},
		{"11", PresetPrivate, `{"additional_creators":"odd"}`, `{"additional_creators":"odd","room_version":"11"}`},
		{"12", PresetPrivate, `{"creator":"@eve:h"}`, `{"room_version":"12"}`},
		{"12", PresetPrivate, `{"additional_creators":["@c:h","@alice:h","@c:h"]}`, `{"additional_creators":["@c:h"],"room_version":"12"}`},
		{"12", PresetTrustedPrivate, `{"additional_creators":["@c:h"]}`, `{"additional_creators":["@c:h","@bob:h"],"room_version":"12"}`},
		{"12", PresetPrivate, `{"additional_creators":[]}`, `{"room_version":"12"}`},
		{"12", PresetPrivate, `{"additional_creators":"@c:h"}`, ""},
		{"12", PresetPrivate, `{"additional_creators":["c"]}`, ""},
		{"12", PresetTrustedPrivate, `{"additional_creators":[1]}`, ""},
	} {
		v, _ := event.Lookup(tc.version)
		in, err := Preset(tc.preset, PresetOptions{
			Version: v, Creator: "@alice:h", Invite: []ids.UserID{"@bob:h"}, CreationContent: canonical(t, tc.given),
		})
		if tc.want == "" {
			if !merr.Is(err, merr.BadJSON) {
				t.Errorf("%s: %v", tc.given, err)
			}
		} else if err != nil || string(in.Create) != tc.want {
			t.Errorf("%s in %s: got %s, %v", tc.given, tc.version, in.Create, err)
		}
	}
}

func TestPresetPowerLevelOverride(t *testing.T) {
	field := func(in Initial, name string) string {
		raw, _ := event.Field(in.PowerLevels, name)
		return string(raw)
	}
	for _, tc := range []struct {
		version, given, field, want string // field "" is M_INVALID_ROOM_STATE
	}{
		{"11", `{"ban":7}`, "ban", `7`},
		{"11", `{"ban":7}`, "kick", `50`},
		{"11", `{"org.own":{"a":[]}}`, "org.own", `{"a":[]}`},
		{"11", `{"users":{"@bob:h":5}}`, "users", `{"@bob:h":5}`},
		{"11", `{"events":{"m.room.name":3}}`, "events", `{"m.room.name":3}`},
		{"12", `{"users":{"@bob:h":5}}`, "users", `{"@bob:h":5}`},
		{"12", `{"events":{"m.room.name":3}}`, "events", `{"m.room.name":3,"m.room.tombstone":150}`},
		{"12", `{"events":{"m.room.tombstone":20}}`, "events", `{"m.room.tombstone":20}`},
		{"12", `{"events":{},"state_default":200}`, "events", `{"m.room.tombstone":201}`},
		{"12", `{"events":{},"state_default":9007199254740991}`, "events", `{"m.room.tombstone":9007199254740991}`},
		{"12", `{"users":{"@alice:h":100}}`, "", ""},
		{"12", `{"users":{"@second:h":100}}`, "", ""},
		{"12", `{"ban":"7"}`, "", ""},
		{"10", `{"users":null}`, "", ""},
	} {
		v, _ := event.Lookup(tc.version)
		in, err := Preset(PresetPrivate, PresetOptions{
			Version: v, Creator: "@alice:h", PowerLevels: canonical(t, tc.given),
			CreationContent: []byte(`{"additional_creators":["@second:h"]}`),
		})
		if tc.field == "" {
			if client := merr.From(err); client.Status != 400 || client.Code != merr.InvalidRoomState {
				t.Errorf("%s: %v", tc.given, err)
			}
		} else if err != nil || field(in, tc.field) != tc.want {
			t.Errorf("%s in %s: got %s, %v", tc.given, tc.version, field(in, tc.field), err)
		}
		if canonical(t, string(orEmpty(in.PowerLevels))); err == nil {
			if again := canonical(t, string(in.PowerLevels)); string(again) != string(in.PowerLevels) {
				t.Errorf("not canonical: %s", in.PowerLevels)
			}
		}
	}
}

// TestRoomsCanBeMade builds the first events of a room as a request would.
func TestRoomsCanBeMade(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		for _, preset := range []string{PresetPrivate, PresetTrustedPrivate, PresetPublic} {
			r := newRoom(t, v, preset, "@alice:h", "@bob:h")
			for _, d := range []Draft{
				{Type: event.TypeCanonicalAlias, StateKey: key(""), Sender: "@alice:h", Content: []byte(`{"alias":"#a:h"}`)},
				{Type: event.TypeName, StateKey: key(""), Sender: "@alice:h", Content: []byte(`{"name":"n"}`)},
				{Type: event.TypeMember, StateKey: key("@bob:h"), Sender: "@alice:h", Content: []byte(`{"membership":"invite"}`)},
				{Type: event.TypeMember, StateKey: key("@bob:h"), Sender: "@bob:h", Content: []byte(`{"membership":"join"}`)},
				{Type: event.TypeTombstone, StateKey: key(""), Sender: "@alice:h", Content: []byte(`{"body":"b","replacement_room":"!new"}`)},
			} {
				if err := r.send(d); err != nil {
					t.Fatalf("%s, %s: %v", preset, d.Type, err)
				}
			}
			err := r.send(Draft{Type: event.TypeTombstone, StateKey: key(""), Sender: "@bob:h", Content: []byte(`{}`)})
			if trusted := preset == PresetTrustedPrivate; (err == nil) != trusted {
				t.Errorf("%s: tombstone by the invited: %v", preset, err)
			}
			r.verify(t)
		}
	})
}
