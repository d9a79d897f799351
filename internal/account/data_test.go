package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// The stream holds the last change of each piece of account data, once.
func TestAccountData(t *testing.T) {
	w := newWorld(t)
	inParallel(20, func(i int) {
		for _, r := range []ids.RoomID{"", "!r:h"} {
			for _, typ := range []string{"a", "b"} {
				if _, err := w.do(NewSetData(alice, r, typ, jsontext.Value(fmt.Sprintf(`{"n":%d}`, i)))); err != nil {
					t.Errorf("set data: %v", err)
				}
			}
		}
	})
	list, at := w.changes(alice, 0)
	if len(list) != 4 {
		t.Errorf("%d changes in the stream", len(list))
	}
	for _, c := range list {
		d, err := w.r.Data(w.ctx, alice, c.Room, c.Type)
		if err != nil || d.Seq != c.Seq || c.Kind != ChangeAccountData || d.Room != c.Room || d.Type != c.Type {
			t.Errorf("change %+v, data %+v, %v", c, d, err)
		}
	}
	d, err := w.r.Data(w.ctx, alice, "", "a")
	if err != nil {
		t.Fatal(err)
	}
	w.must(NewSetData(alice, "", "a", d.Content)) // as it is
	if list, _ := w.changes(alice, at); len(list) != 0 {
		t.Errorf("what is the same changed: %+v", list)
	}
	w.must(NewSetData(alice, "", "a", jsontext.Value(`{}`)))
	list, _ = w.changes(alice, at)
	if len(list) != 1 || list[0].Type != "a" || list[0].Seq <= at {
		t.Errorf("one change gave %+v", list)
	}
	if all, _ := w.changes(alice, 0); len(all) != 4 {
		t.Errorf("%d changes in the stream", len(all))
	}
	for r, want := range map[ids.RoomID]int{"": 2, "!r:h": 2, "!other:h": 0, "!r": 0} {
		if got, err := w.r.AllData(w.ctx, alice, r); err != nil || len(got) != want {
			t.Errorf("data of %q: %v, %v", r, got, err)
		}
	}
	if got, err := w.r.EveryData(w.ctx, alice); err != nil || len(got) != 4 {
		t.Errorf("all data: %v, %v", got, err)
	}
	long := strings.Repeat("x", storage.MaxSort)
	if _, err := w.do(NewSetData(alice, "!r:h", long, jsontext.Value(`{}`))); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("a type of %d bytes: %v", len(long), err)
	}
}

// Edits of one piece of data at once are all kept.
func TestTags(t *testing.T) {
	w := newWorld(t)
	inParallel(20, func(i int) {
		e := EditTag{Tag: fmt.Sprintf("u.%02d", i), Content: jsontext.Value(`{"order":0.5}`)}
		if _, err := w.do(NewEditData(alice, "!r:h", TypeTag, e)); err != nil {
			t.Errorf("edit: %v", err)
		}
	})
	inParallel(18, func(i int) {
		if _, err := w.do(NewEditData(alice, "!r:h", TypeTag, EditTag{Tag: fmt.Sprintf("u.%02d", i)})); err != nil {
			t.Errorf("edit: %v", err)
		}
	})
	d, err := w.r.Data(w.ctx, alice, "!r:h", TypeTag)
	if err != nil || string(d.Content) != `{"tags":{"u.18":{"order":0.5},"u.19":{"order":0.5}}}` {
		t.Errorf("tags %s, %v", d.Content, err)
	}
	w.must(NewSetData(alice, "!r:h", TypeTag, jsontext.Value(`{"tags":7}`)))
	w.must(NewEditData(alice, "!r:h", TypeTag, EditTag{Tag: "m.favourite", Content: jsontext.Value(`{}`)}))
	if d, err := w.r.Data(w.ctx, alice, "!r:h", TypeTag); err != nil || string(d.Content) != `{"tags":{"m.favourite":{}}}` {
		t.Errorf("tags %s, %v", d.Content, err)
	}
	if _, err := w.do(NewEditData(alice, "", "x", badEdit{})); !errors.Is(err, errEdit) {
		t.Errorf("an edit that fails: %v", err)
	}
}

var errEdit = errors.New("edit")

type badEdit struct{}

func (badEdit) Edited(jsontext.Value) (jsontext.Value, error) { return nil, errEdit }

// Every change of membership stays in the stream, with the one before.
func TestMembershipStream(t *testing.T) {
	w := newWorld(t)
	history := []event.Membership{event.Invite, event.Join, event.Leave, event.Join, event.Ban}
	for i, m := range history {
		w.member(alice, "!r:h", m, ids.Seq(i+1))
		w.member(alice, "!other:h", event.Join, ids.Seq(i+1))
	}
	list, _ := w.changes(alice, 0)
	var prev event.Membership
	n := 0
	for _, c := range list {
		if c.Room != "!r:h" {
			continue
		}
		if c.Kind != ChangeMembership || c.Membership != history[n] || c.Prev != prev || c.RoomSeq != ids.Seq(n+1) {
			t.Errorf("change %d: %+v", n, c)
		}
		prev = c.Membership
		n++
	}
	if n != len(history) {
		t.Errorf("%d changes of the room", n)
	}
	m, err := w.r.Membership(w.ctx, alice, "!r:h")
	if err != nil || m.Membership != event.Ban || m.Prev != event.Join || m.RoomSeq != 5 || m.EventID != "$5" || m.Sender != bob {
		t.Errorf("membership %+v, %v", m, err)
	}
	joined, err := w.r.Joined(w.ctx, alice)
	if err != nil || !slices.Equal(joined, []ids.RoomID{"!other:h"}) {
		t.Errorf("joined %v, %v", joined, err)
	}
	if list, err := w.r.Changes(w.ctx, alice, 5, 5); list != nil || err != nil {
		t.Errorf("no stretch gives %v, %v", list, err)
	}
}

// A change that cannot be read holds up nobody behind it.
func TestDamagedMembershipEffect(t *testing.T) {
	w := newWorld(t)
	good := encode(&room.MembershipChange{User: alice, Room: "!r:h", Membership: event.Join, Seq: 1})
	w.must(tell{room.EffectMembership, alice, [][]byte{[]byte("{"), good}})
	if m, err := w.r.Membership(w.ctx, alice, "!r:h"); err != nil || m == nil || m.Membership != event.Join {
		t.Errorf("membership %+v, %v", m, err)
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t)
	w.must(NewForget(alice, "!never:h"))
	w.member(alice, "!r:h", event.Join, 1)
	if _, err := w.do(NewForget(alice, "!r:h")); !merr.Is(err, merr.Unknown) {
		t.Errorf("forget a room one is in: %v", err)
	}
	w.member(alice, "!r:h", event.Leave, 2)
	forgotten := func() bool {
		m, err := w.r.Membership(w.ctx, alice, "!r:h")
		if err != nil {
			t.Fatal(err)
		}
		return m.Forgotten
	}
	w.must(NewForget(alice, "!r:h"))
	w.must(NewForget(alice, "!r:h"))
	if !forgotten() {
		t.Error("not forgotten")
	}
	w.member(alice, "!r:h", event.Invite, 3)
	if forgotten() {
		t.Error("invited to a room that stays forgotten")
	}
}

func TestProfileAndFilter(t *testing.T) {
	w := newWorld(t)
	if p, err := w.r.Profile(w.ctx, alice); p != nil || err != nil {
		t.Errorf("nobody's profile: %v, %v", p, err)
	}
	if _, err := w.do(NewSetProfile(alice, "displayname", jsontext.Value(`"A"`))); !merr.Is(err, merr.NotFound) {
		t.Errorf("nobody's profile: %v", err)
	}
	w.register(alice)
	w.must(NewSetProfile(alice, "displayname", jsontext.Value(`"A"`)))
	w.must(NewSetProfile(alice, "m.tz", jsontext.Value(`"UTC"`)))
	w.must(NewSetProfile(alice, "displayname", nil))
	if p, err := w.r.Profile(w.ctx, alice); err != nil || len(p) != 1 || string(p["m.tz"]) != `"UTC"` {
		t.Errorf("profile %v, %v", p, err)
	}
	long := strings.Repeat("x", storage.MaxSort+1)
	if _, err := w.do(NewSetProfile(alice, long, jsontext.Value(`1`))); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("a field of %d bytes: %v", len(long), err)
	}
	w.must(NewPutFilter(alice, "1", jsontext.Value(`{"a":1}`)))
	if f, err := w.r.Filter(w.ctx, alice, "1"); err != nil || string(f) != `{"a":1}` {
		t.Errorf("filter %s, %v", f, err)
	}
	if f, err := w.r.Filter(w.ctx, bob, "1"); err != nil || f != nil {
		t.Errorf("another's filter %s, %v", f, err)
	}
}

// What is asked for comes in its order, and what there is none of is nil.
func TestGlobalData(t *testing.T) {
	w := newWorld(t)
	w.must(NewSetData(alice, "", "a", jsontext.Value(`{"n":1}`)))
	w.must(NewSetData(alice, "!r:h", "b", jsontext.Value(`{"n":2}`)))
	w.must(NewSetData(alice, "", "c", jsontext.Value(`{"n":3}`)))
	got, err := w.r.GlobalData(w.ctx, alice, "c", "b", "a")
	if err != nil || len(got) != 3 || got[1] != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, typ := range map[int]string{0: "c", 2: "a"} {
		want, err := w.r.Data(w.ctx, alice, "", typ)
		if err != nil || fmt.Sprintf("%+v", got[i]) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, want %+v, %v", typ, got[i], want, err)
		}
	}
}

// Only what the specification says blocks invites does.
func TestBlocksInvites(t *testing.T) {
	for content, want := range map[string]bool{
		`{"default_action":"block"}`:               true,
		`{"x":1, "default_action" : "bl\u006fck"}`: true,
		`{}`:                                        false,
		`{"default_action":"allow"}`:                false,
		`{"default_action":"Block"}`:                false,
		`{"default_action":["block"]}`:              false,
		`{"default_action":true}`:                   false,
		`{"block":true,"action":"block"}`:           false,
		`{"content":{"default_action":"block"}}`:    false,
		`{"default_action":null,"block_all":"yes"}`: false,
	} {
		if got := BlocksInvites(&Data{Content: jsontext.Value(content)}); got != want {
			t.Errorf("%s: %t", content, got)
		}
	}
	if BlocksInvites(nil) {
		t.Error("nothing blocks")
	}
	for user, want := range map[ids.UserID]bool{NoticesUser("h"): true, alice: false, "@_server2:h": false} {
		if got := Unblockable(user); got != want {
			t.Errorf("%s: %t", user, got)
		}
	}
}
