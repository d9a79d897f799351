package roomstate

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

func key(s string) *string { return &s }

// wantRule fails unless err is the rejection of a rule ("" for none).
func wantRule(t *testing.T, err error, rule string) {
	t.Helper()
	var r *Rejection
	switch {
	case rule == "" && err != nil:
		t.Errorf("got %v", err)
	case rule != "" && (!errors.As(err, &r) || r.Rule != rule):
		t.Errorf("want rule %s, got %v", rule, err)
	}
}

func inEachVersion(t *testing.T, f func(t *testing.T, v event.Version)) {
	for _, id := range event.Supported() {
		v, _ := event.Lookup(id)
		t.Run("version "+id, func(t *testing.T) { f(t, v) })
	}
}

func TestRule1Create(t *testing.T) {
	for _, tc := range []struct {
		name, content string
		edit          func(*Head, *Draft)
		rules         [3]string // in version 10, 11, 12
	}{
		{name: "good", content: `{"creator":"@alice:h","room_version":"VERSION"}`},
		{name: "no room version", content: `{"creator":"@alice:h"}`},
		{name: "unknown room version", content: `{"creator":"@alice:h","room_version":"99"}`, rules: [3]string{"1.3", "1.3", "1.3"}},
		{name: "another room version", content: `{"creator":"@alice:h","room_version":"9"}`, rules: [3]string{"1.3", "1.3", "1.3"}},
		{name: "room version no string", content: `{"creator":"@alice:h","room_version":12}`, rules: [3]string{"1.3", "1.3", "1.3"}},
		{name: "no creator", content: `{"room_version":"VERSION"}`, rules: [3]string{"1.4", "", ""}},
		{name: "additional creators", content: `{"additional_creators":["@bob:h"],"creator":"@alice:h"}`},
		{name: "bad additional creators", content: `{"additional_creators":["bob"],"creator":"@alice:h"}`, rules: [3]string{"", "", "1.4"}},
		{name: "additional creators no list", content: `{"additional_creators":"@bob:h","creator":"@alice:h"}`, rules: [3]string{"", "", "1.4"}},
		{
			name: "room exists", content: `{"creator":"@alice:h"}`, rules: [3]string{"1.1", "1.1", "1.1"},
			edit: func(h *Head, _ *Draft) { h.LastEvent = "$x" },
		},
		{
			name: "room of another server", content: `{"creator":"@alice:h"}`, rules: [3]string{"1.2", "1.2", ""},
			edit: func(h *Head, _ *Draft) { h.RoomID = "!room:elsewhere" },
		},
		{
			name: "no room ID", content: `{"creator":"@alice:h"}`, rules: [3]string{"1.2", "1.2", ""},
			edit: func(h *Head, _ *Draft) { h.RoomID = "" },
		},
		{
			name: "a message", content: `{"creator":"@alice:h"}`, rules: [3]string{"1", "1", "1"},
			edit: func(_ *Head, d *Draft) { d.StateKey = nil },
		},
		{
			name: "with a state key", content: `{"creator":"@alice:h"}`, rules: [3]string{"1", "1", "1"},
			edit: func(_ *Head, d *Draft) { d.StateKey = key("x") },
		},
	} {
		for i, id := range []string{"10", "11", "12"} {
			t.Run("rule 1, "+tc.name+" in "+id, func(t *testing.T) {
				v, _ := event.Lookup(id)
				h := &Head{Version: v}
				if !v.RoomIDFromCreate {
					h.RoomID = "!room:h"
				}
				d := Draft{
					Type: event.TypeCreate, StateKey: key(""), Sender: "@alice:h",
					Content: []byte(strings.ReplaceAll(tc.content, "VERSION", id)),
				}
				if tc.edit != nil {
					tc.edit(h, &d)
				}
				ev, err := Build(h, d, 0, &world{})
				wantRule(t, err, tc.rules[i])
				if err == nil && v.RoomIDFromCreate && string(ev.RoomID[1:]) != string(ev.ID[1:]) {
					t.Errorf("room %s made by %s", ev.RoomID, ev.ID)
				}
			})
		}
	}
}

func TestRule1_2CreateNamesItsRoom(t *testing.T) {
	w := newWorld(t, "12")
	create := w.State(event.TypeCreate, "")
	forged := &event.Event{
		RoomID: "!another", Type: create.Type, StateKey: create.StateKey, Sender: create.Sender, Content: create.Content,
		Depth: 1, ID: create.ID, ContentHash: create.ContentHash,
	}
	wantRule(t, Authorize(w.version, forged, w), "1.2")
	wantRule(t, Authorize(w.version, create, w), "")
	linked := &event.Event{
		ID: create.ID, RoomID: create.RoomID, Type: create.Type, StateKey: create.StateKey, Sender: create.Sender,
		Content: create.Content, AuthEvents: []ids.EventID{"$x"},
	}
	wantRule(t, Authorize(w.version, linked, w), "3.2")
}

func TestRule4_3_1FirstJoin(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		w := newWorld(t, v.ID)
		create := w.State(event.TypeCreate, "")
		w.state = map[StateKey]*event.Event{{event.TypeCreate, ""}: create}
		h := &Head{RoomID: w.room, Version: v, LastEvent: create.ID, Depth: 1}
		join := func(sender, target string) error {
			_, err := Build(h, Draft{
				Type: event.TypeMember, StateKey: key(target), Sender: ids.UserID(sender), Content: []byte(`{"membership":"join"}`),
			}, 0, w)
			return err
		}
		renumbered := func(rule string) string { f := facts{version: v}; return f.reject(rule, "").(*Rejection).Rule }
		wantRule(t, join("@alice:h", "@alice:h"), "")
		wantRule(t, join("@bob:h", "@bob:h"), renumbered("4.3.7"))
		wantRule(t, join("@bob:h", "@alice:h"), renumbered("4.3.2"))
		// Only the event right after the create event.
		h.LastEvent = "$other"
		wantRule(t, join("@alice:h", "@alice:h"), renumbered("4.3.7"))
	})
}

func TestRule2NoRoom(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		d := Draft{Type: event.TypeMember, StateKey: key("@a:h"), Sender: "@a:h", Content: []byte(`{"membership":"join"}`)}
		_, err := Build(&Head{Version: v, RoomID: "!r"}, d, 0, &world{})
		rule := "2.4"
		if v.RoomIDFromCreate {
			rule = "2"
		}
		wantRule(t, err, rule)
		// The head of one room with the state of another.
		w := newWorld(t, v.ID)
		h := w.head()
		h.RoomID = "!another:h"
		_, err = Build(h, d, 0, w)
		wantRule(t, err, rule)
		if v.RoomIDFromCreate {
			// A create event that does not name the room it is in.
			create := w.State(event.TypeCreate, "")
			w.state[StateKey{event.TypeCreate, ""}] = &event.Event{
				ID: "$forged", RoomID: create.RoomID, Type: create.Type, StateKey: create.StateKey,
				Sender: create.Sender, Content: create.Content,
			}
			_, err = Build(w.head(), d, 0, w)
			wantRule(t, err, rule)
		}
	})
}

func TestRule2AuthEvents(t *testing.T) {
	inEachVersion(t, func(t *testing.T, v event.Version) {
		w := newWorld(t, v.ID)
		number := func(old, v12 string) string {
			if v.RoomIDFromCreate {
				return v12
			}
			return old
		}
		with := func(edit func(auth []ids.EventID) []ids.EventID) error {
			ev, err := Build(w.head(), Draft{Type: event.TypeMessage, Sender: "@user:h", Content: []byte(`{}`)}, 0, w)
			if err != nil {
				t.Fatal(err)
			}
			ev.AuthEvents = edit(slices.Clone(ev.AuthEvents))
			return Authorize(v, ev, w)
		}
		id := func(eventType, key string) ids.EventID { return w.State(eventType, key).ID }
		wantRule(t, with(func(a []ids.EventID) []ids.EventID { return a }), "")
		wantRule(t, with(func(a []ids.EventID) []ids.EventID { return append(a, a[0]) }), number("2.1", "3.1"))
		wantRule(t, with(func(a []ids.EventID) []ids.EventID { return append(a, id(event.TypeMember, "@mod:h")) }), number("2.2", "3.2"))
		wantRule(t, with(func(a []ids.EventID) []ids.EventID { return append(a, "$unknown") }), number("2.2", "3.2"))
		create := id(event.TypeCreate, "")
		if v.RoomIDFromCreate {
			wantRule(t, with(func(a []ids.EventID) []ids.EventID { return append(a, create) }), "3.2")
		} else {
			wantRule(t, with(func([]ids.EventID) []ids.EventID { return nil }), "2.4")
		}
		member := w.State(event.TypeMember, "@user:h")
		other := &event.Event{
			ID: member.ID, RoomID: "!another", Type: member.Type, StateKey: member.StateKey, Sender: member.Sender, Content: member.Content,
		}
		w.state[StateKey{event.TypeMember, "@user:h"}] = other
		_, err := Build(w.head(), Draft{Type: event.TypeMessage, Sender: "@user:h", Content: []byte(`{}`)}, 0, w)
		wantRule(t, err, number("2.5", "3.5"))
	})
}

func TestAuthEventsSelection(t *testing.T) {
	const (
		levels, rules = event.TypePowerLevels, event.TypeJoinRules
		member        = event.TypeMember
	)
	for _, tc := range []struct {
		name, sender, eventType string
		key                     *string
		content                 string
		want                    []StateKey // beside create, before version 12
	}{
		{"message", "@user:h", event.TypeMessage, nil, `{}`, []StateKey{{levels, ""}, {member, "@user:h"}}},
		{"state", "@mod:h", event.TypeName, key(""), `{}`, []StateKey{{levels, ""}, {member, "@mod:h"}}},
		{"join again", "@user:h", member, key("@user:h"), `{"membership":"join"}`, []StateKey{{levels, ""}, {member, "@user:h"}, {rules, ""}}},
		{"first join", "@out:h", member, key("@out:h"), `{"join_authorised_via_users_server":"@mod:h","membership":"join"}`, []StateKey{{levels, ""}, {rules, ""}, {member, "@mod:h"}}},
		{"join by oneself", "@inv:h", member, key("@inv:h"), `{"join_authorised_via_users_server":"@inv:h","membership":"join"}`, []StateKey{{levels, ""}, {member, "@inv:h"}, {rules, ""}}},
		{"invite", "@mod:h", member, key("@left:h"), `{"membership":"invite"}`, []StateKey{{levels, ""}, {member, "@mod:h"}, {member, "@left:h"}, {rules, ""}}},
		{"kick", "@mod:h", member, key("@user:h"), `{"membership":"leave"}`, []StateKey{{levels, ""}, {member, "@mod:h"}, {member, "@user:h"}}},
		{"ban", "@mod:h", member, key("@out:h"), `{"membership":"ban"}`, []StateKey{{levels, ""}, {member, "@mod:h"}}},
		{"leave", "@user:h", member, key("@user:h"), `{"membership":"leave","join_authorised_via_users_server":"@mod:h"}`, []StateKey{{levels, ""}, {member, "@user:h"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inEachVersion(t, func(t *testing.T, v event.Version) {
				w := newWorld(t, v.ID)
				rule := "restricted"
				if !v.Restricted {
					rule = "public"
				}
				w.set(t, "@alice:h", rules, "", `{"join_rule":"`+rule+`"}`)
				w.set(t, "@alice:h", event.TypeThirdPartyInvite, "tok", `{}`)
				d := Draft{Type: tc.eventType, StateKey: tc.key, Sender: ids.UserID(tc.sender), Content: canonical(t, tc.content)}
				ev, err := Build(w.head(), d, 0, w)
				if err != nil {
					t.Fatal(err)
				}
				var want []ids.EventID
				if !v.RoomIDFromCreate {
					want = append(want, w.State(event.TypeCreate, "").ID)
				}
				for _, k := range tc.want {
					want = append(want, w.state[k].ID)
				}
				if !slices.Equal(ev.AuthEvents, want) {
					t.Errorf("got %d auth events, want %v", len(ev.AuthEvents), tc.want)
				}
			})
		})
	}
}

func TestRule4_4_1ThirdPartyInvite(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(bytes.NewReader(make([]byte, ed25519.SeedSize)))
	otherPublic, otherPrivate, _ := ed25519.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	encode := base64.RawStdEncoding.EncodeToString
	sign := func(body string, by ed25519.PrivateKey) string {
		signature := encode(ed25519.Sign(by, canonical(t, body)))
		return strings.TrimSuffix(body, "}") + `,"signatures":{"id.example":{"ed25519:0":"` + signature + `"}}}`
	}
	const body = `{"mxid":"@out:h","token":"tok"}`
	good := sign(body, private)
	oneKey := `{"public_key":"` + encode(public) + `"}`
	many := `,{"public_key":"` + encode(otherPublic) + `"}`
	for _, tc := range []struct {
		name, sender, target, signed, invite, rule string
	}{
		{"4.4.1.7.1 public_key", "@user:h", "@out:h", good, oneKey, ""},
		{"4.4.1.7.1 URL-safe and padded", "@user:h", "@out:h", good, `{"public_key":"` + base64.URLEncoding.EncodeToString(public) + `"}`, ""},
		{"4.4.1.7.2 public_keys", "@user:h", "@out:h", good, `{"public_key":"","public_keys":[{"public_key":"x"},{"public_key":"` + encode(public) + `"}]}`, ""},
		{"unsigned is not signed", "@user:h", "@out:h", strings.TrimSuffix(good, "}") + `,"unsigned":{"a":1}}`, oneKey, ""},
		{"4.4.1.1 banned target", "@user:h", "@ban:h", sign(`{"mxid":"@ban:h","token":"tok"}`, private), oneKey, "4.4.1.1"},
		{"4.4.1.2 no signed", "@user:h", "@out:h", "", oneKey, "4.4.1.2"},
		{"4.4.1.3 no mxid", "@user:h", "@out:h", sign(`{"token":"tok"}`, private), oneKey, "4.4.1.3"},
		{"4.4.1.3 no token", "@user:h", "@out:h", sign(`{"mxid":"@out:h"}`, private), oneKey, "4.4.1.3"},
		{"4.4.1.4 another user", "@user:h", "@left:h", good, oneKey, "4.4.1.4"},
		{"4.4.1.5 unknown token", "@user:h", "@out:h", sign(`{"mxid":"@out:h","token":"nok"}`, private), oneKey, "4.4.1.5"},
		{"4.4.1.6 another sender", "@admin:h", "@out:h", good, oneKey, "4.4.1.6"},
		{"4.4.1.8 wrong key", "@user:h", "@out:h", sign(body, otherPrivate), oneKey, "4.4.1.8"},
		{"4.4.1.7 second key", "@user:h", "@out:h", sign(body, otherPrivate), `{"public_key":"` + encode(public) + `","public_keys":[{"public_key":"` + encode(public) + `"}` + many + `]}`, ""},
		{"4.4.1.8 altered", "@user:h", "@out:h", strings.Replace(good, `"tok"`, `"tok","x":1`, 1), oneKey, "4.4.1.8"},
		{"4.4.1.8 no signature", "@user:h", "@out:h", body, oneKey, "4.4.1.8"},
		{"4.4.1.8 other algorithm", "@user:h", "@out:h", strings.Replace(good, "ed25519:0", "rsa:0", 1), oneKey, "4.4.1.8"},
		{"4.4.1.8 no key", "@user:h", "@out:h", good, `{}`, "4.4.1.8"},
		{"4.4.1.8 too many pairs to try", "@user:h", "@out:h", good, `{"public_key":"` + encode(public) + `","public_keys":[` + strings.Repeat(many, maxSignatureChecks)[1:] + `]}`, "4.4.1.8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inEachVersion(t, func(t *testing.T, v event.Version) {
				w := newWorld(t, v.ID)
				w.set(t, "@user:h", event.TypeThirdPartyInvite, "tok", tc.invite)
				third := `{"display_name":"x"}`
				if tc.signed != "" {
					third = `{"display_name":"x","signed":` + tc.signed + `}`
				}
				d := Draft{
					Type: event.TypeMember, StateKey: key(tc.target), Sender: ids.UserID(tc.sender),
					Content: canonical(t, `{"membership":"invite","third_party_invite":`+third+`}`),
				}
				ev, err := Build(w.head(), d, 0, w)
				rule := tc.rule
				if rule != "" && v.RoomIDFromCreate {
					rule = "5" + rule[1:]
				}
				wantRule(t, err, rule)
				if err == nil && !slices.Contains(ev.AuthEvents, w.State(event.TypeThirdPartyInvite, "tok").ID) {
					t.Error("the invite is not among the auth events")
				}
			})
		})
	}
}

func TestBuildPlacesRedacts(t *testing.T) {
	for _, tc := range []struct{ name, content, redacts, want, contentAfter string }{
		{"given", `{"reason":"r"}`, "$x", "$x", `{"reason":"r","redacts":"$x"}`},
		{"in the content", `{"redacts":"$x"}`, "", "$x", `{"redacts":"$x"}`},
		{"given wins", `{"redacts":"$y"}`, "$x", "$x", `{"redacts":"$x"}`},
		{"nowhere", `{}`, "", "", `{}`},
		{"no string", `{"redacts":5}`, "$x", "$x", `{"redacts":"$x"}`},
	} {
		inEachVersion(t, func(t *testing.T, v event.Version) {
			w := newWorld(t, v.ID)
			ev, err := Build(w.head(), Draft{
				Type: event.TypeRedaction, Sender: "@user:h", Content: []byte(tc.content), Redacts: ids.EventID(tc.redacts),
			}, 0, w)
			if err != nil {
				t.Fatal(err)
			}
			want := tc.contentAfter
			if !v.RedactsInContent {
				want = tc.content
			}
			if string(ev.Redacts) != tc.want || string(ev.Content) != want {
				t.Errorf("%s: %q, %s", tc.name, ev.Redacts, ev.Content)
			}
			back, err := event.ParsePDU(v, ev.ID, ev.AppendPDU(nil, v))
			if err != nil || back.Redacts != ev.Redacts {
				t.Errorf("%s: reads back as %v, %v", tc.name, back, err)
			}
		})
	}
}

func TestBuildRefusesWhatIsNoEvent(t *testing.T) {
	w := newWorld(t, "12")
	long := strings.Repeat("x", event.MaxFieldSize+1)
	for name, tc := range map[string]struct {
		d      Draft
		status int
		code   merr.Code
		want   error
	}{
		"type too long":      {Draft{Type: long, Sender: "@user:h", Content: []byte(`{}`)}, 413, merr.TooLarge, event.ErrTooLarge},
		"state key too long": {Draft{Type: "t", StateKey: &long, Sender: "@mod:h", Content: []byte(`{}`)}, 413, merr.TooLarge, event.ErrTooLarge},
		"content too long":   {Draft{Type: "t", Sender: "@user:h", Content: []byte(`{"x":"` + strings.Repeat("x", event.MaxEventSize) + `"}`)}, 413, merr.TooLarge, event.ErrTooLarge},
		"type no UTF-8":      {Draft{Type: "\xff", Sender: "@user:h", Content: []byte(`{}`)}, 400, merr.BadJSON, event.ErrBadJSON},
		"no content":         {Draft{Type: "t", Sender: "@user:h"}, 400, merr.BadJSON, event.ErrBadJSON},
		"time below zero":    {Draft{Type: "t", Sender: "@user:h", Content: []byte(`{}`), OriginServerTS: -1}, 400, merr.BadJSON, event.ErrBadJSON},
	} {
		_, err := Build(w.head(), tc.d, 0, w)
		if client := merr.From(err); !errors.Is(err, tc.want) || client.Status != tc.status || client.Code != tc.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBuildChangesNothing(t *testing.T) {
	w := newWorld(t, "12")
	h := w.head()
	before := *h
	content := []byte(`{"body":"x"}`)
	ev, err := Build(h, Draft{Type: event.TypeMessage, Sender: "@user:h", Content: content, OriginServerTS: 7}, 0, w)
	if err != nil {
		t.Fatal(err)
	}
	if *h != before || string(content) != `{"body":"x"}` {
		t.Error("head or content changed")
	}
	if ev.Depth != h.Depth+1 || !slices.Equal(ev.PrevEvents, []ids.EventID{"$last"}) || ev.OriginServerTS != 7 || ev.RoomID != w.room {
		t.Errorf("%+v", ev)
	}
	h.Advance(ev)
	if h.LastEvent != ev.ID || h.Depth != ev.Depth || h.RoomID != w.room || h.Version != before.Version {
		t.Errorf("%+v", h)
	}
	h.Depth = event.MaxInt
	if ev, err = Build(h, Draft{Type: event.TypeMessage, Sender: "@user:h", Content: content}, 0, w); err != nil || ev.Depth != event.MaxInt {
		t.Errorf("at the greatest depth: %v, %v", ev, err)
	}
	// Neighbouring slices share one array: growing one must not reach the other.
	auth := ev.AuthEvents[0]
	_ = append(ev.PrevEvents, "$other")
	if ev.AuthEvents[0] != auth {
		t.Error("prev_events grow into auth_events")
	}
}

func BenchmarkBuildMessage(b *testing.B) {
	for _, id := range event.Supported() {
		b.Run("version "+id, func(b *testing.B) {
			w := newWorld(b, id)
			for i := range 1000 {
				w.set(b, "@alice:h", event.TypeMember, fmt.Sprintf("@u%d:h", i), `{"membership":"join"}`)
			}
			h := w.head()
			h.LastEvent = w.State(event.TypePowerLevels, "").ID
			d := Draft{
				Type: event.TypeMessage, Sender: "@user:h", OriginServerTS: 1700000000000,
				Content: []byte(`{"body":"Hello, world, how are you today?","msgtype":"m.text"}`),
			}
			b.ReportAllocs()
			for b.Loop() {
				ev, err := Build(h, d, 0, w)
				if err != nil {
					b.Fatal(err)
				}
				h.Advance(ev)
			}
		})
	}
}

func BenchmarkAuthorizeMessage(b *testing.B) {
	w := newWorld(b, "12")
	ev, err := Build(w.head(), Draft{Type: event.TypeMessage, Sender: "@user:h", Content: []byte(`{}`)}, 0, w)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Authorize(w.version, ev, w); err != nil {
			b.Fatal(err)
		}
	}
}
