package pushrules

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	alice = ids.UserID("@alice:example.org")
	bob   = ids.UserID("@bob:example.org")
)

// eventOf makes an event of bob's; stateKey "-" stands for none.
func eventOf(typ, stateKey, content string) *Event {
	canonical, err := event.CanonicalObject(nil, []byte(content))
	if err != nil {
		panic(err)
	}
	f := Fields{ID: "$e", Room: "!room", Sender: bob, Type: typ, Content: canonical}
	if stateKey != "-" {
		f.StateKey = &stateKey
	}
	return NewEvent(f)
}

func message(content string) *Event { return eventOf("m.room.message", "-", content) }

func open(t testing.TB, legacy bool) *Set {
	t.Helper()
	s, err := NewDefaults(Options{LegacyMentions: legacy}).Open(alice, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Set, kind Kind, id, body string) {
	t.Helper()
	r, err := DecodeRule(kind, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(kind, id, r, "", ""); err != nil {
		t.Fatal(err)
	}
}

// check evaluates and compares the rule that matched, "" for none.
func check(t *testing.T, p *Program, ev *Event, room RoomInfo, want string) *Outcome {
	t.Helper()
	o, ok := p.Evaluate(ev, &room, NewMember("Alice A."))
	got := ""
	if ok {
		got = o.RuleID
	}
	if got != want {
		t.Errorf("matched %q, want %q", got, want)
	}
	return o
}

func TestDefaultRules(t *testing.T) {
	type outcome struct {
		rule              string
		notify, highlight bool
		sound             string
	}
	group := RoomInfo{Members: 3}
	pair := RoomInfo{Members: 2}
	powerful := RoomInfo{Members: 3, SenderPower: 50}
	mention := func(s string) string { return `{"msgtype":"m.text","body":"x","m.mentions":` + s + `}` }
	for _, tt := range []struct {
		name   string
		ev     *Event
		room   RoomInfo
		want   outcome
		legacy bool
	}{
		{name: "message in group", ev: message(`{"msgtype":"m.text","body":"hi"}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "message in pair", ev: message(`{"body":"hi"}`), room: pair, want: outcome{RuleOneToOne, true, false, "default"}},
		{name: "encrypted in group", ev: eventOf("m.room.encrypted", "-", `{}`), room: group, want: outcome{RuleEncrypted, true, false, ""}},
		{name: "encrypted in pair", ev: eventOf("m.room.encrypted", "-", `{}`), room: pair, want: outcome{RuleEncryptedOneToOne, true, false, "default"}},
		{name: "call", ev: eventOf("m.call.invite", "-", `{}`), room: pair, want: outcome{RuleCall, true, false, "ring"}},
		{name: "notice", ev: message(`{"msgtype":"m.notice","body":"hi"}`), room: pair, want: outcome{rule: RuleSuppressNotices}},
		{name: "notice with mention", ev: message(`{"msgtype":"m.notice","m.mentions":{"user_ids":["@alice:example.org"]}}`), room: pair, want: outcome{rule: RuleSuppressNotices}},
		{name: "invite", ev: eventOf("m.room.member", string(alice), `{"membership":"invite"}`), room: pair, want: outcome{RuleInviteForMe, true, false, "default"}},
		{name: "invite of another", ev: eventOf("m.room.member", "@carol:example.org", `{"membership":"invite"}`), room: pair, want: outcome{rule: RuleMemberEvent}},
		{name: "join", ev: eventOf("m.room.member", string(bob), `{"membership":"join"}`), room: pair, want: outcome{rule: RuleMemberEvent}},
		{name: "user mention", ev: message(mention(`{"user_ids":["@x:y","@alice:example.org"]}`)), room: group, want: outcome{RuleIsUserMention, true, true, "default"}},
		{name: "mention of another", ev: message(mention(`{"user_ids":["@alice:example.orgs"]}`)), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "mention not a list", ev: message(mention(`{"user_ids":"@alice:example.org"}`)), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "mention among garbage", ev: message(mention(`{"user_ids":[{},[],1,null,"@alice:example.org"]}`)), room: group, want: outcome{RuleIsUserMention, true, true, "default"}},
		{name: "room mention", ev: message(mention(`{"room":true}`)), room: powerful, want: outcome{RuleIsRoomMention, true, true, ""}},
		{name: "room mention, no power", ev: message(mention(`{"room":true}`)), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "room mention, not true", ev: message(mention(`{"room":"true"}`)), room: powerful, want: outcome{RuleMessage, true, false, ""}},
		{name: "tombstone", ev: eventOf("m.room.tombstone", "", `{}`), room: group, want: outcome{RuleTombstone, true, true, ""}},
		{name: "tombstone, not state", ev: eventOf("m.room.tombstone", "-", `{}`), room: group},
		{name: "tombstone, state key", ev: eventOf("m.room.tombstone", "x", `{}`), room: group},
		{name: "reaction", ev: eventOf("m.reaction", "-", `{"m.relates_to":{"rel_type":"m.annotation"}}`), room: pair, want: outcome{rule: RuleReaction}},
		{name: "server ACL", ev: eventOf("m.room.server_acl", "", `{}`), room: pair, want: outcome{rule: RuleServerACL}},
		{name: "edit", ev: message(`{"body":"x","m.relates_to":{"rel_type":"m.replace"}}`), room: pair, want: outcome{rule: RuleSuppressEdits}},
		{name: "edit with mention", ev: message(`{"m.mentions":{"user_ids":["@alice:example.org"]},"m.relates_to":{"rel_type":"m.replace"}}`), room: pair, want: outcome{RuleIsUserMention, true, true, "default"}},
		{name: "vote", ev: eventOf("org.matrix.msc3381.poll.response", "-", `{}`), room: pair, want: outcome{rule: RulePollResponse}},
		{name: "poll of two", ev: eventOf("org.matrix.msc3381.poll.start", "-", `{}`), room: pair, want: outcome{RulePollStartOneToOne, true, false, "default"}},
		{name: "poll", ev: eventOf("org.matrix.msc3381.poll.start", "-", `{}`), room: group, want: outcome{RulePollStart, true, false, ""}},
		{name: "end of a poll of two", ev: eventOf("org.matrix.msc3381.poll.end", "-", `{}`), room: pair, want: outcome{RulePollEndOneToOne, true, false, "default"}},
		{name: "end of a poll", ev: eventOf("org.matrix.msc3381.poll.end", "-", `{}`), room: group, want: outcome{RulePollEnd, true, false, ""}},
		{name: "other state", ev: eventOf("m.room.topic", "", `{"topic":"x"}`), room: pair},
		{name: "type in capitals", ev: eventOf("M.ROOM.MESSAGE", "-", `{}`), room: group, want: outcome{RuleMessage, true, false, ""}},

		{name: "display name, current", ev: message(`{"body":"Alice A.: hi"}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "display name", legacy: true, ev: message(`{"body":"hi alice a. there"}`), room: group, want: outcome{RuleContainsDisplayName, true, true, "default"}},
		{name: "display name in a word", legacy: true, ev: message(`{"body":"malice a.b"}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "display name, m.mentions", legacy: true, ev: message(`{"body":"Alice A.","m.mentions":{}}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "user name", legacy: true, ev: message(`{"body":"ALICE, hi"}`), room: group, want: outcome{RuleContainsUserName, true, true, "default"}},
		{name: "user name, m.mentions", legacy: true, ev: message(`{"body":"alice","m.mentions":{}}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "user name, m.mentions odd", legacy: true, ev: message(`{"body":"alice","m.mentions":null}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "@room", legacy: true, ev: message(`{"body":"hey @ROOM!"}`), room: powerful, want: outcome{RuleRoomNotif, true, true, ""}},
		{name: "@room, no power", legacy: true, ev: message(`{"body":"hey @room!"}`), room: group, want: outcome{RuleMessage, true, false, ""}},
		{name: "@room, m.mentions", legacy: true, ev: message(`{"body":"@room","m.mentions":{}}`), room: powerful, want: outcome{RuleMessage, true, false, ""}},
		{name: "no body", legacy: true, ev: message(`{"body":7}`), room: group, want: outcome{RuleMessage, true, false, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := check(t, open(t, tt.legacy).Compile(), tt.ev, tt.room, tt.want.rule)
			if o == nil {
				return
			}
			if got := (outcome{o.RuleID, o.Notify, o.Highlight, o.Sound}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestOwnEvent(t *testing.T) {
	p := open(t, true).Compile()
	ev := NewEvent(Fields{Sender: alice, Type: "m.room.message"})
	if _, ok := p.Evaluate(ev, &RoomInfo{Members: 2}, NewMember("")); ok {
		t.Error("notified of an event of their own")
	}
}

func TestMaster(t *testing.T) {
	s := open(t, false)
	put(t, s, Override, "mine", `{"actions":["notify"],"conditions":[]}`)
	room := RoomInfo{Members: 2}
	check(t, s.Compile(), message(`{}`), room, "mine")
	if err := s.SetEnabled(Override, RuleMaster, true); err != nil {
		t.Fatal(err)
	}
	if o := check(t, s.Compile(), message(`{}`), room, RuleMaster); o.Notify {
		t.Error("master notifies")
	}
}

// TestKindOrder removes the winner again and again.
func TestKindOrder(t *testing.T) {
	s := open(t, true)
	all := `{"actions":["notify"],"conditions":[]}`
	put(t, s, Override, "over", all)
	put(t, s, Content, "cont", `{"actions":["notify"],"pattern":"alice"}`)
	put(t, s, Room, "!room", `{"actions":[]}`)
	put(t, s, Sender, string(bob), `{"actions":[]}`)
	put(t, s, Underride, "under", all)
	for _, step := range []struct {
		kind Kind
		id   string
	}{
		{Override, "over"},
		{Override, RuleContainsDisplayName},
		{Content, "cont"},
		{Content, RuleContainsUserName},
		{Room, "!room"},
		{Sender, string(bob)},
		{Underride, "under"},
		{Underride, RuleMessage},
	} {
		o := check(t, s.Compile(), message(`{"body":"Alice A."}`), RoomInfo{Members: 3}, step.id)
		if o == nil || o.Kind != step.kind {
			t.Fatalf("got %+v", o)
		}
		if err := s.SetEnabled(step.kind, step.id, false); err != nil {
			t.Fatal(err)
		}
	}
	check(t, s.Compile(), message(`{"body":"Alice A."}`), RoomInfo{Members: 3}, "")
}

func TestConditions(t *testing.T) {
	ev := message(`{"body":"Some Cake, please","n":5,"neg":-9007199254740991,"s":"Text","t":true,"z":null,"l":["a",1,null,{}],"o":{"k":"v"}}`)
	five := RoomInfo{Members: 5, SenderPower: 10, NotificationPower: map[string]int64{"low": 10, "high": 11}}
	for _, tt := range []struct {
		condition string
		want      bool
	}{
		{`{"kind":"event_match","key":"content.body","pattern":"cake"}`, true},
		{`{"kind":"event_match","key":"content.body","pattern":"cak"}`, false},
		{`{"kind":"event_match","key":"content.s","pattern":"tex"}`, false},
		{`{"kind":"event_match","key":"content.s","pattern":"tex?"}`, true},
		{`{"kind":"event_match","key":"content.n","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"content.missing","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"content.z","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"room_id","pattern":"!ROOM"}`, true},
		{`{"kind":"event_match","key":"sender","pattern":"@bob:*"}`, true},
		{`{"kind":"event_match","key":"state_key","pattern":"*"}`, false},
		{`{"kind":"event_match","key":"content.o.k","pattern":"v"}`, true},
		{`{"kind":"event_property_is","key":"content.s","value":"Text"}`, true},
		{`{"kind":"event_property_is","key":"content.s","value":"text"}`, false},
		{`{"kind":"event_property_is","key":"content.n","value":5}`, true},
		{`{"kind":"event_property_is","key":"content.n","value":"5"}`, false},
		{`{"kind":"event_property_is","key":"content.neg","value":-9007199254740991}`, true},
		{`{"kind":"event_property_is","key":"content.neg","value":-9007199254740990}`, false},
		{`{"kind":"event_property_is","key":"content.t","value":true}`, true},
		{`{"kind":"event_property_is","key":"content.t","value":1}`, false},
		{`{"kind":"event_property_is","key":"content.z","value":null}`, true},
		{`{"kind":"event_property_is","key":"content.missing","value":null}`, false},
		{`{"kind":"event_property_is","key":"content.l","value":null}`, false},
		{`{"kind":"event_property_contains","key":"content.l","value":"a"}`, true},
		{`{"kind":"event_property_contains","key":"content.l","value":1}`, true},
		{`{"kind":"event_property_contains","key":"content.l","value":null}`, true},
		{`{"kind":"event_property_contains","key":"content.l","value":"A"}`, false},
		{`{"kind":"event_property_contains","key":"content.s","value":"Text"}`, false},
		{`{"kind":"event_property_contains","key":"content.missing","value":null}`, false},
		{`{"kind":"contains_display_name"}`, false},
		{`{"kind":"room_member_count","is":"5"}`, true},
		{`{"kind":"room_member_count","is":"==5"}`, true},
		{`{"kind":"room_member_count","is":"4"}`, false},
		{`{"kind":"room_member_count","is":">4"}`, true},
		{`{"kind":"room_member_count","is":">5"}`, false},
		{`{"kind":"room_member_count","is":">=5"}`, true},
		{`{"kind":"room_member_count","is":">=6"}`, false},
		{`{"kind":"room_member_count","is":"<6"}`, true},
		{`{"kind":"room_member_count","is":"<5"}`, false},
		{`{"kind":"room_member_count","is":"<=5"}`, true},
		{`{"kind":"room_member_count","is":"<=4"}`, false},
		{`{"kind":"sender_notification_permission","key":"low"}`, true},
		{`{"kind":"sender_notification_permission","key":"high"}`, false},
		{`{"kind":"sender_notification_permission","key":"room"}`, false},
		{`{"kind":"org.example.unknown","key":"content.body"}`, false},
	} {
		s := open(t, false)
		put(t, s, Override, "r", `{"actions":["notify"],"conditions":[`+tt.condition+`]}`)
		o, ok := s.Compile().Evaluate(ev, &five, NewMember("Nobody"))
		if got := ok && o.RuleID == "r"; got != tt.want {
			t.Errorf("%s: got %v", tt.condition, got)
		}
	}
}

func TestAllConditionsMustHold(t *testing.T) {
	s := open(t, false)
	put(t, s, Override, "r", `{"actions":[],"conditions":[
		{"kind":"event_match","key":"type","pattern":"m.room.message"},{"kind":"room_member_count","is":"2"}]}`)
	check(t, s.Compile(), message(`{}`), RoomInfo{Members: 2}, "r")
	check(t, s.Compile(), message(`{}`), RoomInfo{Members: 3}, RuleMessage)
}

func TestCreatorPower(t *testing.T) {
	p := open(t, false).Compile()
	room := RoomInfo{Members: 3, SenderPower: math.MaxInt64, NotificationPower: map[string]int64{"room": 100}}
	check(t, p, message(`{"m.mentions":{"room":true}}`), room, RuleIsRoomMention)
}

func TestDisplayName(t *testing.T) {
	p := open(t, true).Compile()
	for _, tt := range []struct {
		name, body string
		want       bool
	}{
		{"", "anything", false},
		{"a*", "abc", false}, // not a glob
		{"a*", "see a* there", true},
		{"Ärger", "so ein ärger!", true},
		{"x", strings.Repeat("ax ", 50) + "x", true},
	} {
		ev := message(`{"body":"` + tt.body + `"}`)
		o, _ := p.Evaluate(ev, &RoomInfo{Members: 3}, NewMember(tt.name))
		if got := o.RuleID == RuleContainsDisplayName; got != tt.want {
			t.Errorf("name %q in %q: got %v", tt.name, tt.body, got)
		}
	}
}

func TestHighlightValues(t *testing.T) {
	for _, tt := range []struct {
		actions string
		want    bool
	}{
		{`["notify",{"set_tweak":"highlight"}]`, true},
		{`["notify",{"set_tweak":"highlight","value":true}]`, true},
		{`["notify",{"set_tweak":"highlight","value":false}]`, false},
		{`["notify"]`, false},
		{`[{"set_tweak":"highlight"}]`, false},
		{`["dont_notify",{"set_tweak":"highlight"}]`, false},
		{`["coalesce",{"set_tweak":"highlight"}]`, false},
		{`["notify","dont_notify",{"set_tweak":"highlight"}]`, true},
	} {
		s := open(t, false)
		put(t, s, Room, "!room", `{"actions":`+tt.actions+`}`)
		if o := check(t, s.Compile(), message(`{}`), RoomInfo{}, "!room"); o.Highlight != tt.want {
			t.Errorf("%s: highlight %v", tt.actions, o.Highlight)
		}
	}
}

// TestManyMentions proves that an event view finds each of many mentioned users.
func TestManyMentions(t *testing.T) {
	var list []string
	for i := range 3000 {
		list = append(list, fmt.Sprintf(`"@u%d:example.org"`, i))
	}
	ev := message(`{"m.mentions":{"user_ids":[` + strings.Join(list, ",") + `]}}`)
	d := NewDefaults(Options{})
	for _, tt := range []struct {
		user ids.UserID
		want string
	}{{"@u0:example.org", RuleIsUserMention}, {"@u2999:example.org", RuleIsUserMention}, {"@u3000:example.org", RuleMessage}} {
		s, err := d.Open(tt.user, nil)
		if err != nil {
			t.Fatal(err)
		}
		check(t, s.Compile(), ev, RoomInfo{Members: 3}, tt.want)
	}
}

// hostile returns a user with n rules whose patterns are hard, and a body for them.
func hostile(t testing.TB, n int, pattern string) (*Program, *Event) {
	s := open(t, true)
	for i := range n {
		put(t, s, Content, fmt.Sprint("r", i), `{"actions":["notify"],"pattern":"`+pattern+`"}`)
	}
	return s.Compile(), message(`{"body":"` + strings.Repeat("a", 60<<10) + `"}`)
}

// TestWorkIsBounded: the work of one evaluation does not grow past maxWork by more
// than one pattern's single look at the text.
func TestWorkIsBounded(t *testing.T) {
	p, ev := hostile(t, 150, "a?a?a?a?a?a?a?a?b*a")
	e := evaluation{program: p, event: ev, room: &RoomInfo{Members: 3}, work: maxWork}
	o := e.run()
	if o == nil || o.RuleID != RuleMessage {
		t.Errorf("got %+v", o)
	}
	if e.work < -64<<10 {
		t.Errorf("%d steps past the limit", -e.work)
	}
}

// TestEvaluateIsBounded: rules that cost too much end the looking for one that
// matches; what matches before them still does.
func TestEvaluateIsBounded(t *testing.T) {
	for _, n := range []int{0, 500} {
		s := open(t, true)
		put(t, s, Content, "last", `{"actions":["notify"],"pattern":"aaaa*"}`)
		for i := range n { // each comes before those that were there
			put(t, s, Content, fmt.Sprint("r", i), `{"actions":["notify"],"pattern":"a?a?a?a?a?a?a?a?b*a"}`)
		}
		ev := message(`{"body":"` + strings.Repeat("a", 60<<10) + `"}`)
		want := "last"
		if n > 0 {
			want = RuleMessage
		}
		if o, ok := s.Compile().Evaluate(ev, &RoomInfo{Members: 3}, Member{}); !ok || o.RuleID != want {
			t.Errorf("with %d costly rules: %+v, %v", n, o, ok)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	member := NewMember("Alice")
	for _, bb := range []struct {
		name, content string
		legacy        bool
	}{
		{"plain", `{"body":"Shall we meet at ten, or is that too early for you?","msgtype":"m.text","m.mentions":{}}`, true},
		{"noMentions", `{"body":"Shall we meet at ten, or is that too early for you?","msgtype":"m.text"}`, true},
		{"current", `{"body":"Shall we meet at ten, or is that too early for you?","msgtype":"m.text"}`, false},
	} {
		p := open(b, bb.legacy).Compile()
		room := RoomInfo{Members: 20}
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			ev := message(bb.content)
			for b.Loop() {
				p.Evaluate(ev, &room, member)
			}
		})
		b.Run(bb.name+"/newEvent", func(b *testing.B) {
			b.ReportAllocs()
			fields := message(bb.content).fields
			for b.Loop() {
				p.Evaluate(NewEvent(fields), &room, member)
			}
		})
	}
}

func BenchmarkHostile(b *testing.B) {
	for _, pattern := range []string{strings.Repeat("*a", 100) + "b", "aaaaaaab", "a?a?a?a?a?a?a?a?b*a", strings.Repeat("a?", 50) + "a*a"} {
		p, ev := hostile(b, 1000, pattern)
		b.Run(pattern[:min(len(pattern), 12)], func(b *testing.B) {
			for b.Loop() {
				p.Evaluate(ev, &RoomInfo{Members: 3}, NewMember("Alice"))
			}
		})
	}
}
