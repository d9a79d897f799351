package roomstate

import (
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

func TestPowerOf(t *testing.T) {
	type powers map[ids.UserID]Power
	for _, tc := range []struct {
		name, create, levels string // levels "" is no event
		legacy, v12          powers
	}{
		{
			"levels", `{}`, `{"users":{"@admin:h":100,"@low:h":-7},"users_default":5}`,
			powers{"@alice:h": 5, "@admin:h": 100, "@low:h": -7, "@other:h": 5},
			powers{"@alice:h": Infinite, "@admin:h": 100, "@low:h": -7, "@other:h": 5},
		},
		{
			"no levels", `{}`, "",
			powers{"@alice:h": 100, "@admin:h": 0},
			powers{"@alice:h": Infinite, "@admin:h": 0},
		},
		{
			"creator listed below", `{}`, `{"users":{"@alice:h":1}}`,
			powers{"@alice:h": 1},
			powers{"@alice:h": Infinite},
		},
		{
			"additional creators", `{"additional_creators":["@bob:h","@carol:h"]}`, `{"users":{"@bob:h":1}}`,
			powers{"@bob:h": 1, "@carol:h": 0, "@dave:h": 0},
			powers{"@alice:h": Infinite, "@bob:h": Infinite, "@carol:h": Infinite, "@dave:h": 0},
		},
		{
			"levels that cannot be", `{}`, `{"users":{"@admin:h":"100"},"users_default":100}`,
			powers{"@alice:h": -event.MaxInt, "@admin:h": -event.MaxInt},
			powers{"@alice:h": Infinite, "@admin:h": -event.MaxInt},
		},
	} {
		inEachVersion(t, func(t *testing.T, v event.Version) {
			w := newWorld(t, v.ID)
			w.setCreate(t, tc.create)
			if tc.levels == "" {
				delete(w.state, StateKey{event.TypePowerLevels, ""})
			} else {
				w.set(t, "@alice:h", event.TypePowerLevels, "", tc.levels)
			}
			want := tc.legacy
			if v.CreatorPower {
				want = tc.v12
			}
			for user, power := range want {
				if got := PowerOf(v, user, w); got != power {
					t.Errorf("%s: %s has %d, want %d", tc.name, user, got, power)
				}
			}
		})
	}
}

func TestCreators(t *testing.T) {
	for version, want := range map[string][]ids.UserID{
		"10": {"@alice:h"}, "11": {"@alice:h"}, "12": {"@alice:h", "@bob:h"},
	} {
		w := newWorld(t, version)
		w.setCreate(t, `{"additional_creators":["@bob:h","@bob:h","@alice:h"]}`)
		p := PowersOf(w.version, w)
		if got := p.Creators(); !slices.Equal(got, want) {
			t.Errorf("version %s: %v", version, got)
		}
		for _, user := range []ids.UserID{"@alice:h", "@bob:h", "@eve:h"} {
			if p.IsCreator(user) != slices.Contains(want, user) {
				t.Errorf("version %s: %s", version, user)
			}
		}
	}
	// In version 10 the content says who it is, later the sender.
	for version, creator := range map[string]ids.UserID{"10": "@named:h", "11": "@alice:h", "12": "@alice:h"} {
		w := newWorld(t, version)
		w.set(t, "@alice:h", event.TypeCreate, "", `{"creator":"@named:h"}`)
		if p := PowersOf(w.version, w); !p.IsCreator(creator) || len(p.Creators()) != 1 {
			t.Errorf("version %s: %v", version, p.Creators())
		}
	}
	if p := PowersOf(event.Default(), &world{}); p.IsCreator("") || p.Creators() != nil {
		t.Error("no room has a creator")
	}
}

func TestRequiredAndLevels(t *testing.T) {
	w := newWorld(t, "12")
	w.set(t, "@alice:h", event.TypePowerLevels, "",
		`{"ban":1,"events":{"m.room.name":2},"events_default":3,"invite":4,"kick":5,"notifications":{"room":6},"redact":7,"state_default":8}`)
	p := PowersOf(w.version, w)
	for name, tc := range map[string]struct{ got, want Power }{
		"name":    {RequiredFor(w.version, event.TypeName, true, w), 2},
		"state":   {RequiredFor(w.version, "x", true, w), 8},
		"message": {RequiredFor(w.version, "x", false, w), 3},
		"ban":     {p.Level(event.LevelBan), 1},
		"invite":  {p.Level(event.LevelInvite), 4},
		"kick":    {p.Level(event.LevelKick), 5},
		"redact":  {p.Level(event.LevelRedact), 7},
		"room":    {p.Notification("room"), 6},
		"other":   {p.Notification("other"), 50},
	} {
		if tc.got != tc.want {
			t.Errorf("%s takes %d, want %d", name, tc.got, tc.want)
		}
	}
	w.set(t, "@alice:h", event.TypePowerLevels, "", `{"ban":"1"}`)
	broken := PowersOf(w.version, w)
	if broken.Level(event.LevelInvite) != Infinite || broken.RequiredFor("x", false) != Infinite || broken.Notification("room") != Infinite {
		t.Error("levels that cannot be read let somebody do something")
	}
}

// TestPredicatesAgreeWithTheRules asks the predicates and the rules the same.
func TestPredicatesAgreeWithTheRules(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		w := newWorld(t, v.ID)
		w.set(t, "@alice:h", event.TypePowerLevels, "", `{"ban":60,"invite":10,"kick":40,"users":{"@admin:h":100,"@mod:h":50}}`)
		users := []string{"@alice:h", "@admin:h", "@mod:h", "@user:h", "@inv:h", "@knock:h", "@left:h", "@ban:h", "@out:h"}
		allowed := func(sender string, d Draft) bool {
			d.Sender = ids.UserID(sender)
			_, err := Build(w.head(), d, 0, w)
			return err == nil
		}
		become := func(sender, target, membership string) bool {
			return allowed(sender, Draft{Type: event.TypeMember, StateKey: &target, Content: []byte(`{"membership":"` + membership + `"}`)})
		}
		for _, user := range users {
			id := ids.UserID(user)
			if got, want := CanInvite(v, id, w), become(user, "@new:h", "invite"); got != want {
				t.Errorf("CanInvite(%s) = %v", user, got)
			}
			message := Draft{Type: event.TypeMessage, Content: []byte(`{}`)}
			if got, want := CanSend(v, id, message.Type, false, w), allowed(user, message); got != want {
				t.Errorf("CanSend(%s, message) = %v", user, got)
			}
			name := Draft{Type: event.TypeName, StateKey: key(""), Content: []byte(`{}`)}
			if got, want := CanSend(v, id, name.Type, true, w), allowed(user, name); got != want {
				t.Errorf("CanSend(%s, name) = %v", user, got)
			}
			for _, target := range users {
				if got, want := CanBan(v, id, ids.UserID(target), w), become(user, target, "ban"); got != want {
					t.Errorf("CanBan(%s, %s) = %v", user, target, got)
				}
				if user == target {
					continue // leaving is no kick
				}
				if got, want := CanKick(v, id, ids.UserID(target), w), become(user, target, "leave"); got != want {
					t.Errorf("CanKick(%s, %s) = %v", user, target, got)
				}
			}
		}
	})
}

func TestCanNotify(t *testing.T) {
	w := newWorld(t, "11")
	for user, want := range map[ids.UserID]bool{"@admin:h": true, "@mod:h": true, "@user:h": false} {
		if got := CanNotify(w.version, user, "room", w); got != want {
			t.Errorf("%s: %v", user, got)
		}
	}
}

func TestMayRedact(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		w := newWorld(t, v.ID)
		target := func(sender ids.UserID, eventType string, stateKey *string) *event.Event {
			return &event.Event{RoomID: w.room, Type: eventType, StateKey: stateKey, Sender: sender}
		}
		elsewhere := target("@user:h", event.TypeMessage, nil)
		elsewhere.RoomID = "!elsewhere"
		for _, tc := range []struct {
			name     string
			redactor ids.UserID
			target   *event.Event
			want     bool
		}{
			{"own message", "@user:h", target("@user:h", event.TypeMessage, nil), true},
			{"message of another", "@user:h", target("@mod:h", event.TypeMessage, nil), false},
			{"same server is not enough", "@user:h", target("@user2:h", event.TypeMessage, nil), false},
			{"moderator", "@mod:h", target("@admin:h", event.TypeMessage, nil), true},
			{"creator", "@alice:h", target("@user:h", event.TypeMessage, nil), true},
			{"state of another", "@mod:h", target("@admin:h", event.TypeName, key("")), true},
			{"another room, own", "@user:h", elsewhere, false},
			{"another room, as admin", "@admin:h", elsewhere, false},
			{"create event", "@alice:h", w.State(event.TypeCreate, ""), false},
			{"encryption", "@admin:h", target("@admin:h", event.TypeEncryption, key("")), false},
		} {
			if got := MayRedact(v, tc.redactor, tc.target, w); got != tc.want {
				t.Errorf("%s: %v", tc.name, got)
			}
		}
		w.set(t, "@alice:h", event.TypePowerLevels, "", `{"redact":75,"users":{"@admin:h":100,"@mod:h":50}}`)
		message := target("@user:h", event.TypeMessage, nil)
		if MayRedact(v, "@mod:h", message, w) || !MayRedact(v, "@admin:h", message, w) {
			t.Error("the redact level does not count")
		}
		for user, want := range map[ids.UserID][2]bool{
			"@admin:h": {true, true}, "@mod:h": {true, false}, "@user:h": {true, false}, "@left:h": {false, false},
		} {
			if own, others := CanRedact(v, user, w); own != want[0] || others != want[1] {
				t.Errorf("%s redacts own %v, of others %v", user, own, others)
			}
		}
		w.set(t, "@alice:h", event.TypePowerLevels, "", `{"events":{"m.room.redaction":60},"redact":40,"users":{"@mod:h":50}}`)
		if own, others := CanRedact(v, "@mod:h", w); own || others {
			t.Error("redacts without the power to send a redaction")
		}
		if MayRedact(v, "@user:h", message, &world{}) {
			t.Error("redacted in no room")
		}
	})
}

func TestStateReaders(t *testing.T) {
	w := newWorld(t, "12")
	for user, want := range map[ids.UserID]event.Membership{
		"@user:h": event.Join, "@inv:h": event.Invite, "@left:h": event.Leave, "@ban:h": event.Ban,
		"@knock:h": event.Knock, "@out:h": event.NoMembership,
	} {
		if got := Membership(w, user); got != want {
			t.Errorf("%s: %q", user, got)
		}
	}
	if got := HistoryVisibility(w); got != event.VisibilityShared {
		t.Errorf("no visibility is %s", got)
	}
	w.set(t, "@alice:h", event.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`)
	if got := HistoryVisibility(w); got != event.VisibilityJoined {
		t.Errorf("joined is %s", got)
	}
	w.set(t, "@alice:h", event.TypeJoinRules, "", `{"allow":[{"room_id":"!x","type":"m.room_membership"}],"join_rule":"restricted"}`)
	if rule, allow := JoinRule(w); rule != event.JoinRuleRestricted || !slices.Equal(allow, []ids.RoomID{"!x"}) {
		t.Errorf("%s, %v", rule, allow)
	}
	delete(w.state, StateKey{event.TypeJoinRules, ""})
	if rule, allow := JoinRule(w); rule != event.JoinRuleInvite || allow != nil {
		t.Errorf("%s, %v", rule, allow)
	}
}
