package roomstate

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// room is a room that lives through Build and Advance.
type room struct {
	world
	head   Head
	events []*event.Event
}

// newRoom makes a room up to the state of its preset.
func newRoom(t fatal, v event.Version, preset string, creator ids.UserID, invite ...ids.UserID) *room {
	t.Helper()
	in, err := Preset(preset, PresetOptions{Version: v, Creator: creator, Invite: invite})
	if err != nil {
		t.Fatalf("%v", err)
	}
	r := &room{world: world{version: v, state: make(map[StateKey]*event.Event)}, head: Head{Version: v}}
	if !v.RoomIDFromCreate {
		r.head.RoomID = "!room:h"
	}
	for _, d := range []Draft{
		{Type: event.TypeCreate, StateKey: key(""), Content: in.Create},
		{Type: event.TypeMember, StateKey: key(string(creator)), Content: []byte(`{"membership":"join"}`)},
		{Type: event.TypePowerLevels, StateKey: key(""), Content: in.PowerLevels},
		{Type: event.TypeJoinRules, StateKey: key(""), Content: in.JoinRules},
		{Type: event.TypeHistoryVisibility, StateKey: key(""), Content: in.HistoryVisibility},
		{Type: event.TypeGuestAccess, StateKey: key(""), Content: in.GuestAccess},
	} {
		d.Sender = creator
		if err := r.send(d); err != nil {
			t.Fatalf("%s: %v", d.Type, err)
		}
	}
	return r
}

// send builds an event and, if the rules allow it, commits it.
func (r *room) send(d Draft) error {
	ev, err := Build(&r.head, d, 0, r)
	if err != nil {
		return err
	}
	r.head.Advance(ev)
	r.events = append(r.events, ev)
	if ev.IsState() {
		r.state[StateKey{ev.Type, *ev.StateKey}] = ev
	}
	return nil
}

// verify replays the chain from its PDUs: links, hashes, IDs and rules.
func (r *room) verify(t fatal) {
	t.Helper()
	replay := &world{version: r.version, state: make(map[StateKey]*event.Event)}
	var last ids.EventID
	for i, made := range r.events {
		ev, err := event.ParsePDU(r.version, made.ID, made.AppendPDU(nil, r.version))
		if err != nil {
			t.Fatalf("%v", err)
		}
		if err := ev.Verify(r.version, 0); err != nil {
			t.Fatalf("%v", err)
		}
		if err := Authorize(r.version, ev, replay); err != nil {
			t.Fatalf("event %d, %s: %v", i, ev.Type, err)
		}
		linked := i == 0 && len(ev.PrevEvents) == 0 || i > 0 && len(ev.PrevEvents) == 1 && ev.PrevEvents[0] == last
		if !linked || ev.Depth != int64(i+1) || ev.RoomID != r.head.RoomID {
			t.Fatalf("event %d is linked to %v, depth %d, room %s", i, ev.PrevEvents, ev.Depth, ev.RoomID)
		}
		if last = ev.ID; ev.IsState() {
			replay.state[StateKey{ev.Type, *ev.StateKey}] = ev
		}
	}
	if last != r.head.LastEvent {
		t.Fatalf("the head is not the last event")
	}
}

func people() []ids.UserID {
	return []ids.UserID{"@alice:h", "@bob:h", "@carol:h", "@dave:h", "@eve:h"}
}

// anyLevel draws raw JSON for a level: mostly an integer, now and then not.
func anyLevel() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{
		"0", "10", "49", "50", "51", "99", "100", "101", "150", "-1", "-50", "9007199254740991", "-9007199254740991",
		"0", "50", "100", `"50"`, "null", "true", "{}", "[]",
	})
}

// anyLevels draws a content for m.room.power_levels.
func anyLevels(t *rapid.T) string {
	var members []string
	for _, name := range []string{"ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"} {
		if rapid.IntRange(0, 3).Draw(t, name+" there") == 0 {
			members = append(members, fmt.Sprintf("%q:%s", name, anyLevel().Draw(t, name)))
		}
	}
	object := func(name string, keys []string) {
		var entries []string
		for _, k := range keys {
			if rapid.Bool().Draw(t, k+" there") {
				entries = append(entries, fmt.Sprintf("%q:%s", k, anyLevel().Draw(t, k)))
			}
		}
		members = append(members, fmt.Sprintf("%q:{%s}", name, strings.Join(entries, ",")))
	}
	object("events", []string{event.TypePowerLevels, event.TypeName, event.TypeMessage})
	object("notifications", []string{"room"})
	var users []string
	for _, u := range people() {
		users = append(users, string(u))
	}
	object("users", users)
	return "{" + strings.Join(members, ",") + "}"
}

// anyDraft draws something that somebody may try.
func anyDraft(t *rapid.T) Draft {
	user := rapid.SampledFrom(people())
	d := Draft{Sender: user.Draw(t, "sender"), OriginServerTS: 1}
	content := `{}`
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0, 1, 2:
		d.Type, d.StateKey = event.TypeMember, key(string(user.Draw(t, "target")))
		content = `{"membership":"` + rapid.SampledFrom([]string{"join", "invite", "leave", "ban", "knock", "x"}).Draw(t, "membership") + `"}`
		if rapid.IntRange(0, 3).Draw(t, "vouched") == 0 {
			content = content[:len(content)-1] + `,"join_authorised_via_users_server":"` + string(user.Draw(t, "voucher")) + `"}`
		}
	case 3:
		d.Type, d.StateKey = event.TypePowerLevels, key("")
		content = anyLevels(t)
	case 4:
		d.Type, d.StateKey = event.TypeJoinRules, key("")
		content = `{"join_rule":"` + rapid.SampledFrom([]string{"public", "invite", "knock", "restricted", "knock_restricted", "private"}).Draw(t, "rule") + `"}`
	case 5:
		d.Type = rapid.SampledFrom([]string{event.TypeMessage, event.TypeRedaction, event.TypePowerLevels, event.TypeCreate}).Draw(t, "type")
	default:
		d.Type = rapid.SampledFrom([]string{event.TypeName, "org.x", event.TypeCreate, event.TypeThirdPartyInvite}).Draw(t, "type")
		d.StateKey = key(rapid.SampledFrom([]string{"", "@bob:h", "@eve:h", "x"}).Draw(t, "key"))
	}
	d.Content = canonical(t, content)
	return d
}

// TestNoHistoryBreaksTheLaw lets people try anything in any order, and checks
// after each event what must hold whatever the rules are called.
func TestNoHistoryBreaksTheLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, _ := event.Lookup(rapid.SampledFrom(event.Supported()).Draw(t, "version"))
		preset := rapid.SampledFrom([]string{PresetPrivate, PresetPublic, PresetTrustedPrivate}).Draw(t, "preset")
		r := newRoom(t, v, preset, "@alice:h", "@bob:h")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			d := anyDraft(t)
			before := &world{version: v, state: make(map[StateKey]*event.Event, len(r.state))}
			for k, ev := range r.state {
				before.state[k] = ev
			}
			if err := r.send(d); err != nil {
				var rejection *Rejection
				if !errors.As(err, &rejection) {
					t.Fatalf("not by a rule: %v", err)
				}
				continue
			}
			checkLaw(t, v, d, before, r)
		}
		r.verify(t)
	})
}

// checkLaw states the law once more, with no look at the rules.
func checkLaw(t *rapid.T, v event.Version, d Draft, before *world, r *room) {
	membership := Membership(before, d.Sender)
	power := PowerOf(v, d.Sender, before)
	if d.Type == event.TypeCreate {
		t.Fatalf("a room was created twice")
	}
	if membership != event.Join && (d.Type != event.TypeMember || *d.StateKey != string(d.Sender)) {
		t.Fatalf("%s, who is %q, acted on the room: %+v", d.Sender, membership, d)
	}
	if d.Type == event.TypeMember {
		checkMember(t, v, d, before)
	}
	for _, user := range people() {
		was, is := PowerOf(v, user, before), PowerOf(v, user, r)
		switch {
		case is > was && is > power:
			t.Fatalf("%s of power %d raised %s from %d to %d", d.Sender, power, user, was, is)
		case is < was && user != d.Sender && was >= power && listed(v, user, before):
			t.Fatalf("%s of power %d lowered %s from %d to %d", d.Sender, power, user, was, is)
		case v.CreatorPower && (is == Infinite) != (was == Infinite):
			t.Fatalf("%s became, or ceased to be, a creator", user)
		}
	}
	for l := range event.Level(event.NumLevels) {
		was, is := PowersOf(v, before).Level(l), PowersOf(v, r).Level(l)
		if was != is && (was > power || is > power) {
			t.Fatalf("%s of power %d moved %s from %d to %d", d.Sender, power, l.Name(), was, is)
		}
	}
}

// listed reports whether the power of a user is their own, not the default,
// which whoever has as much may lower.
func listed(v event.Version, user ids.UserID, st View) bool {
	levels, err := st.State(event.TypePowerLevels, "").PowerLevels()
	_, ok := levels.Users[user]
	return err == nil && ok && PowerOf(v, user, st) != Infinite
}

func checkMember(t *rapid.T, v event.Version, d Draft, before *world) {
	target := ids.UserID(*d.StateKey)
	was, is := Membership(before, target), event.ParseMember(d.Content).Membership
	if target == d.Sender {
		rule, _ := JoinRule(before)
		switch {
		case was == event.Ban:
			t.Fatalf("the banned %s went to %s", target, is)
		case is == event.Join && was != event.Join && was != event.Invite && (rule == event.JoinRuleInvite || rule == event.JoinRulePrivate || rule == event.JoinRuleKnock):
			t.Fatalf("%s joined by rule %s from %q", target, rule, was)
		case is == event.Ban || is == event.Invite:
			t.Fatalf("%s did %s to oneself", target, is)
		}
		return
	}
	mine, theirs := PowerOf(v, d.Sender, before), PowerOf(v, target, before)
	switch {
	case is == event.Join || is == event.Knock:
		t.Fatalf("%s made %s %s", d.Sender, target, is)
	case (is == event.Leave || is == event.Ban) && theirs >= mine:
		t.Fatalf("%s of power %d removed %s of %d", d.Sender, mine, target, theirs)
	case is == event.Invite && (was == event.Ban || was == event.Join):
		t.Fatalf("%s invited %s, who is %q", d.Sender, target, was)
	}
}

// FuzzAuthorize gives the rules contents of any shape, in the event and in the
// state it is judged by.
func FuzzAuthorize(f *testing.F) {
	f.Add(event.TypeMember, "@out:h", []byte(`{"membership":"invite","third_party_invite":{"signed":{"mxid":"@out:h","token":"t","signatures":{"a":{"ed25519:0":"AA"}}}}}`), []byte(`{"public_keys":[{"public_key":"AA"}]}`))
	f.Add(event.TypeMember, "@user:h", []byte(`{"membership":"join","join_authorised_via_users_server":"@mod:h"}`), []byte(`{"membership":"join"}`))
	f.Add(event.TypePowerLevels, "", []byte(`{"users":{"@admin:h":100},"events":{},"ban":50}`), []byte(`{"users":{"@user:h":100},"notifications":{"room":1}}`))
	f.Add(event.TypeCreate, "", []byte(`{"additional_creators":["@user:h"],"m.federate":false}`), []byte(`{"additional_creators":[{}],"creator":1}`))
	f.Add(event.TypeJoinRules, "x", []byte(`{"join_rule":"restricted"}`), []byte(`{"allow":[{"room_id":1}]}`))
	f.Fuzz(func(t *testing.T, eventType, stateKey string, content, inState []byte) {
		state, err := event.CanonicalObject(nil, inState)
		if err != nil {
			return
		}
		sent, err := event.CanonicalObject(nil, content)
		if err != nil {
			return
		}
		for _, version := range event.Supported() {
			w := newWorld(t, version)
			for _, replaced := range []StateKey{
				{event.TypePowerLevels, ""},
				{event.TypeMember, stateKey},
				{event.TypeJoinRules, ""},
				{event.TypeThirdPartyInvite, "t"},
				{event.TypeCreate, ""},
			} {
				if len(replaced.Key) > event.MaxFieldSize || strings.ToValidUTF8(replaced.Key, "") != replaced.Key {
					return
				}
				w.set(t, "@user:h", replaced.Type, replaced.Key, string(state))
				for _, sender := range []ids.UserID{"@alice:h", "@user:h"} {
					d := Draft{Type: eventType, StateKey: &stateKey, Sender: sender, Content: sent}
					if ev, err := Build(w.head(), d, 0, w); err == nil && Authorize(w.version, ev, w) != nil {
						t.Fatal("built what is not authorized")
					}
				}
			}
		}
	})
}
