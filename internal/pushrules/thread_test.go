package pushrules

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// In a thread that the user is not subscribed to only mentions and keywords notify; in
// one that they are, everything does, whatever is set for the room. spec: MSC4306.
func TestThreadSubscription(t *testing.T) {
	const me, root = ids.UserID("@alice:h"), ids.EventID("$root")
	said := func(thread ids.EventID, content string) *Event {
		return NewEvent(Fields{ID: "$e", Room: "!r", Sender: "@bob:h", Type: "m.room.message", Content: []byte(content), Thread: thread})
	}
	subscribed := Member{Threads: map[ids.EventID]struct{}{root: {}}}
	const plain, mention, keyword = `{"body":"x"}`, `{"body":"x","m.mentions":{"user_ids":["@alice:h"]}}`, `{"body":"cake!","m.mentions":{}}`
	for _, tt := range []struct {
		name    string
		on      bool
		thread  ids.EventID
		member  Member
		content string
		rule    string
		notify  bool
	}{
		{"main timeline", true, "", subscribed, plain, RuleMessage, true},
		{"unsubscribed", true, root, Member{}, plain, RuleUnsubscribedThread, false},
		{"subscribed to another", true, "$other", subscribed, plain, RuleUnsubscribedThread, false},
		{"subscribed", true, root, subscribed, plain, RuleSubscribedThread, true},
		{"mentioned", true, root, Member{}, mention, RuleIsUserMention, true},
		{"keyword", true, root, Member{}, keyword, "cake", true},
		{"switched off", false, root, Member{}, plain, RuleMessage, true},
		{"switched off, subscribed", false, root, subscribed, plain, RuleMessage, true},
	} {
		s, err := NewDefaults(Options{ThreadSubscriptions: tt.on}).Open(me, nil)
		if err != nil {
			t.Fatal(err)
		}
		pattern := "cake"
		if err := s.Put(Content, "cake", NewRule{Actions: []Action{Notify()}, Pattern: &pattern}, "", ""); err != nil {
			t.Fatal(err)
		}
		room := RoomInfo{Members: 3}
		if o, ok := s.Compile().Evaluate(said(tt.thread, tt.content), &room, tt.member); !ok || o.RuleID != tt.rule || o.Notify != tt.notify {
			t.Errorf("%s: %+v", tt.name, o)
		}
		if !tt.on {
			continue
		}
		if err := s.Put(Room, "!r", NewRule{Actions: []Action{}}, "", ""); err != nil { // the room is muted
			t.Fatal(err)
		}
		want := tt.notify && tt.rule != RuleMessage
		if o, ok := s.Compile().Evaluate(said(tt.thread, tt.content), &room, tt.member); !ok || o.Notify != want {
			t.Errorf("%s, in a muted room: %+v", tt.name, o)
		}
	}
}

// The rules can be switched off and given other actions, and nobody adds any of their
// kind; a rule of the user's own may have the condition.
func TestThreadRules(t *testing.T) {
	d := NewDefaults(Options{ThreadSubscriptions: true})
	s, err := d.Open("@alice:h", nil)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(s.Ruleset())
	if err != nil || !strings.Contains(string(shown), `"postcontent":[{"rule_id":"`+RuleUnsubscribedThread+`","default":true,"enabled":true,"actions":[],"conditions":[{"kind":"io.element.msc4306.thread_subscription","subscribed":false}]}`) {
		t.Errorf("%s %v", shown, err)
	}
	if err := s.Put(PostContent, "mine", NewRule{Actions: []Action{}}, "", ""); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("a rule of that kind: %v", err)
	}
	if err := s.SetEnabled(PostContent, RuleUnsubscribedThread, false); err != nil {
		t.Fatal(err)
	}
	ev := NewEvent(Fields{Sender: "@bob:h", Type: "m.room.message", Content: []byte(`{"body":"x"}`), Thread: "$root"})
	evaluate := func() *Outcome {
		o, _ := s.Compile().Evaluate(ev, &RoomInfo{Members: 3}, Member{})
		return o
	}
	if o := evaluate(); o.RuleID != RuleMessage {
		t.Errorf("switched off: %+v", o)
	}
	for raw, matches := range map[string]bool{
		`{"conditions":[{"kind":"io.element.msc4306.thread_subscription","subscribed":false}],"actions":[]}`: true,
		`{"conditions":[{"kind":"io.element.msc4306.thread_subscription","subscribed":true}],"actions":[]}`:  false,
		`{"conditions":[{"kind":"io.element.msc4306.thread_subscription","subscribed":0}],"actions":[]}`:     false,
		`{"conditions":[{"kind":"io.element.msc4306.thread_subscription"}],"actions":[]}`:                    false,
	} {
		r, err := DecodeRule(Override, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(Override, "mine", r, "", ""); err != nil {
			t.Fatal(err)
		}
		if o := evaluate(); (o.RuleID == "mine") != matches {
			t.Errorf("%s: %+v", raw, o)
		}
	}
	off, err := NewDefaults(Options{}).Open("@alice:h", nil)
	if err != nil {
		t.Fatal(err)
	}
	if shown, err := json.Marshal(off.Ruleset()); err != nil || strings.Contains(string(shown), "postcontent") {
		t.Errorf("switched off: %s %v", shown, err)
	}
}
