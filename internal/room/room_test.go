package room

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestLifeOfARoom(t *testing.T) {
	for _, version := range event.Supported() {
		t.Run(version, func(t *testing.T) {
			w, room := clean(t, version)
			w.member(room, alice, bob, event.Invite)
			head, _ := w.r.Head(ctx, room)
			if head.Joined != 1 || head.Invited != 1 || head.Creator != alice || head.Version.ID != version {
				t.Errorf("head %+v", head)
			}
			w.member(room, bob, bob, event.Join)
			m := w.mustSend(room, w.message(bob, "hello"))
			if string(m.Content) != `{"body":"hello","msgtype":"m.text"}` || m.Sender != bob || m.RoomID != room {
				t.Errorf("message %+v", m)
			}
			if m.OriginServerTS != w.clock.Now().UnixMilli() {
				t.Errorf("time %d", m.OriginServerTS)
			}
			w.state(room, alice, event.TypeName, "", `{"name":"one"}`)
			w.state(room, alice, event.TypeName, "", `{"name":"two"}`)
			w.member(room, bob, bob, event.Leave)
			w.member(room, alice, bob, event.Ban)
			w.checkRoom(room)
			if _, err := w.send(room, w.message(bob, "still here")); !merr.Is(err, merr.Forbidden) {
				t.Errorf("a banned user sends: %v", err)
			}
			if _, err := w.send("!nowhere:h", w.message(bob, "x")); !merr.Is(err, merr.Forbidden) {
				t.Errorf("to a room that is not there: %v", err)
			}
			w.checkRoom(room)
			var memberships []event.Membership
			for _, c := range w.told.of(bob) {
				memberships = append(memberships, c.Membership)
				if s := w.event(room, c.EventID); s.Seq != c.Seq || c.Room != room || s.Sender != c.Sender {
					t.Errorf("told of %+v", c)
				}
			}
			want := []event.Membership{event.Invite, event.Join, event.Leave, event.Ban}
			if !slices.Equal(memberships, want) {
				t.Errorf("bob was told of %v, want %v", memberships, want)
			}
		})
	}
}

// An invite carries the state that the invited may see of the room.
func TestInviteCarriesState(t *testing.T) {
	w, room := clean(t, "12")
	w.state(room, alice, event.TypeName, "", `{"name":"the room"}`)
	w.state(room, alice, event.TypeMember, string(bob), `{"is_direct":true,"membership":"invite"}`)
	c := w.told.of(bob)[0]
	var stripped []struct {
		Type     string
		StateKey string `json:"state_key"`
		Sender   ids.UserID
		Content  json.RawMessage
	}
	if err := json.Unmarshal(c.Stripped, &stripped); err != nil {
		t.Fatalf("stripped state %s: %v", c.Stripped, err)
	}
	var types []string
	for _, s := range stripped {
		types = append(types, s.Type)
		if s.Sender != alice || s.Type == event.TypeName && string(s.Content) != `{"name":"the room"}` {
			t.Errorf("stripped %+v", s)
		}
	}
	if want := []string{event.TypeCreate, event.TypeName, event.TypeJoinRules, event.TypeMember, event.TypeMember}; !slices.Equal(types, want) {
		t.Errorf("stripped %v, want %v", types, want)
	}
	if !c.Direct || stripped[3].StateKey != string(alice) || stripped[4].StateKey != string(bob) {
		t.Errorf("invite %+v", c)
	}
	w.member(room, bob, bob, event.Join)
	if c := w.told.of(bob)[1]; c.Stripped != nil || c.Direct {
		t.Errorf("join %+v", c)
	}
}

func TestCreateTwice(t *testing.T) {
	w, _ := clean(t, "12")
	c := &Create{Version: "12", Drafts: []roomstate.Draft{
		w.draft(bob, event.TypeCreate, "", `{"room_version":"12"}`),
		w.draft(bob, event.TypeMember, string(bob), `{"membership":"join"}`),
	}, Public: true}
	if err := c.Seal(""); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int32
	inParallel(20, func(int) {
		again := *c
		_, err := w.node.Do(ctx, &again)
		if err == nil {
			made.Add(1)
		} else if !merr.Is(err, merr.RoomInUse) {
			t.Errorf("create again: %v", err)
		}
	})
	if n := made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
	w.checkRoom(c.Room)
	place := Listing{Joined: 1, Room: c.Room}
	if list, err := w.r.Listed(ctx, ListQuery{Limit: 10}); err != nil || !slices.Equal(list, []Listing{place}) {
		t.Errorf("directory %v, %v", list, err)
	}
	if list, err := w.r.Listed(ctx, ListQuery{Limit: 10, From: &place}); err != nil || len(list) != 0 {
		t.Errorf("directory behind the last: %v, %v", list, err)
	}
}

// A room whose first events are refused does not exist.
func TestCreateRefused(t *testing.T) {
	w, _ := clean(t, "12")
	c := &Create{Version: "11", Drafts: []roomstate.Draft{
		w.draft(bob, event.TypeCreate, "", `{"room_version":"11"}`),
		w.draft(bob, event.TypeMember, string(bob), `{"membership":"join"}`),
		w.draft(carol, event.TypeName, "", `{"name":"mine"}`),
	}, Public: true}
	if err := c.Seal("!x:h"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.node.Do(ctx, c); !merr.Is(err, merr.Forbidden) {
		t.Errorf("created: %v", err)
	}
	if head, err := w.r.Head(ctx, "!x:h"); head != nil || err != nil {
		t.Errorf("head %v, %v", head, err)
	}
	if n := len(w.rows("!x:h", tables.Timeline)) + len(w.rows("!x:h", tables.State)); n != 0 || len(w.told.of(bob)) != 0 {
		t.Errorf("%d rows of a room that is not there", n)
	}
}

// A request that is repeated gives the event it gave before; another device,
// endpoint or ID makes another event.
func TestTransactions(t *testing.T) {
	w, room := clean(t, "12")
	txns := []Txn{
		{Device: "D1", Path: "send/m.room.message", ID: "1"},
		{Device: "D1", Path: "send/m.room.message", ID: "2"},
		{Device: "D2", Path: "send/m.room.message", ID: "1"},
		{Device: "D1", Path: "send/other", ID: "1"},
	}
	seen := map[ids.EventID]bool{}
	for _, txn := range txns {
		got := make([]ids.EventID, 20)
		inParallel(len(got), func(i int) {
			m := w.message(alice, fmt.Sprint("body ", i))
			m.Txn = txn
			id, err := w.send(room, m)
			if err != nil {
				t.Errorf("send: %v", err)
			}
			got[i] = id
		})
		if len(slices.Compact(got)) != 1 {
			t.Errorf("%v gave %v", txn, got)
		}
		seen[got[0]] = true
		s := w.event(room, got[0])
		own := string(s.AppendClient(nil, Viewer{User: alice, Device: txn.Device}))
		if !strings.Contains(own, `"unsigned":{"transaction_id":"`+txn.ID+`"}`) {
			t.Errorf("the device sees %s", own)
		}
		for _, v := range []Viewer{{User: alice, Device: "D3"}, {User: bob, Device: txn.Device}} {
			if strings.Contains(string(s.AppendClient(nil, v)), "unsigned") {
				t.Errorf("%v sees the transaction ID", v)
			}
		}
	}
	if len(seen) != len(txns) {
		t.Errorf("%d events of %d transactions", len(seen), len(txns))
	}
	target := w.mustSend(room, w.message(alice, "x"))
	ids := make([]string, 10)
	inParallel(len(ids), func(i int) {
		r := w.redaction(room, alice, target.ID)
		r.Txn = Txn{Device: "D1", Path: "redact/" + string(target.ID), ID: "1"}
		id, err := w.node.Do(ctx, r)
		if err != nil {
			t.Errorf("redact: %v", err)
		}
		ids[i] = fmt.Sprint(id)
	})
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("redactions %v", ids)
	}
	w.checkRoom(room)
	if n := len(w.timeline(room)); n != 5+len(txns)+2 {
		t.Errorf("%d events", n)
	}
	for id, ok := range map[string]bool{strings.Repeat("x", 255): true, strings.Repeat("x", 256): false} {
		if err := (&Txn{ID: id}).Check(); (err == nil) != ok {
			t.Errorf("ID of %d bytes: %v", len(id), err)
		}
	}
}

// State that is as wanted already is not written again.
func TestUnchanged(t *testing.T) {
	w, room := clean(t, "12")
	name := func(n string) *Send {
		return &Send{Draft: w.draft(alice, event.TypeName, "", fmt.Sprintf(`{"name":%q}`, n)), Unchanged: true}
	}
	first := w.mustSend(room, name("a"))
	if again := w.mustSend(room, name("a")); again.ID != first.ID {
		t.Error("the same name was set again")
	}
	if other := w.mustSend(room, name("b")); other.ID == first.ID || other.Replaces != first.Seq {
		t.Error("another name was not set")
	}
	w.checkRoom(room)
}

func TestExpect(t *testing.T) {
	w, room := clean(t, "12")
	unban := func() *Send {
		s := &Send{Draft: w.draft(alice, event.TypeMember, string(bob), `{"membership":"leave"}`)}
		s.Expect = &Expect{OneOf: []event.Membership{event.Ban}, Code: merr.BadState, Msg: "not banned"}
		return s
	}
	if _, err := w.send(room, unban()); !merr.Is(err, merr.BadState) || merr.From(err).Status != http.StatusBadRequest {
		t.Errorf("unban of a stranger: %v", err)
	}
	w.member(room, alice, bob, event.Ban)
	if s := w.mustSend(room, unban()); s.Member().Membership != event.Leave {
		t.Errorf("unbanned: %+v", s)
	}
	none := &Send{Draft: w.draft(alice, event.TypeMember, string(carol), `{"membership":"invite"}`)}
	none.Expect = &Expect{OneOf: []event.Membership{event.NoMembership}, Code: merr.Forbidden, Msg: "known"}
	w.mustSend(room, none)
	if _, err := w.send(room, none); !merr.Is(err, merr.Forbidden) {
		t.Errorf("expected nobody: %v", err)
	}
}

// Parallel senders of one room and others: every room stays whole.
func TestParallelSenders(t *testing.T) {
	w, first := clean(t, "12")
	rooms := []ids.RoomID{first, w.create("11"), w.create("10")}
	inParallel(12, func(g int) {
		u := ids.UserID(fmt.Sprintf("@user%d:h", g))
		for i, room := range rooms {
			join := &Send{Draft: w.draft(u, event.TypeMember, string(u), `{"membership":"join"}`), Room: room}
			if _, err := w.node.Do(ctx, join); err != nil {
				t.Errorf("join: %v", err)
			}
			for j := range 10 {
				m := w.message(u, fmt.Sprint(i, j))
				m.Room = room
				if _, err := w.node.Do(ctx, m); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		}
	})
	for _, room := range rooms {
		w.checkRoom(room)
		if n := len(w.timeline(room)); n != 5+12*11 {
			t.Errorf("%d events", n)
		}
	}
}

// Types and threads become parts of sort keys, where NUL ends them.
func TestNULInNames(t *testing.T) {
	w, room := clean(t, "12")
	bad := &Send{Draft: w.draft(alice, "m.room.member\x00x", "", `{"membership":"join"}`)}
	if _, err := w.send(room, bad); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("type with NUL: %v", err)
	}
	s := w.mustSend(room, w.message(alice, "x"))
	r := &SetReceipt{Room: room, User: alice, Type: ReceiptRead, Thread: "a\x00@bob:h", Event: s.ID}
	if _, err := w.node.Do(ctx, r); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("thread with NUL: %v", err)
	}
	w.state(room, alice, "org.x", "key\x00with", `{}`) // a state key comes last
	w.checkRoom(room)
	long := &SetReceipt{Room: room, User: alice, Type: ReceiptRead, Thread: strings.Repeat("x", storage.MaxSort), Event: s.ID}
	if _, err := w.node.Do(ctx, long); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("long thread: %v", err)
	}
}

func TestSetPublic(t *testing.T) {
	w, room := clean(t, "12")
	set := func(u ids.UserID, public, admin bool) error {
		_, err := w.node.Do(ctx, &SetPublic{Room: room, Sender: u, Public: public, Admin: admin})
		return err
	}
	listed := func() bool {
		head, err := w.r.Head(ctx, room)
		if err != nil {
			t.Fatal(err)
		}
		w.checkDirectory(room, head)
		return head.Public
	}
	w.state(room, alice, event.TypeName, "", `{"name":"Two words"}`)
	w.member(room, bob, bob, event.Join)
	if err := set(bob, true, false); !merr.Is(err, merr.Forbidden) || listed() {
		t.Errorf("bob lists the room: %v", err)
	}
	if err := set(alice, true, false); err != nil || !listed() {
		t.Errorf("alice lists the room: %v", err)
	}
	w.state(room, alice, event.TypeName, "", `{"name":"Three words here"}`)
	topic := w.state(room, alice, event.TypeTopic, "", `{"topic":"words"}`)
	w.member(room, bob, bob, event.Leave)
	w.checkRoom(room)
	redaction := &Redact{Room: room, Target: topic.ID, Draft: roomstate.Draft{Type: event.TypeRedaction, Sender: alice, Content: []byte("{}"), Redacts: topic.ID}}
	if _, err := w.node.Do(ctx, redaction); err != nil {
		t.Fatal(err)
	}
	w.checkRoom(room)
	if err := set(carol, false, true); err != nil || listed() {
		t.Errorf("an administrator takes it out: %v", err)
	}
	_, err := w.node.Do(ctx, &SetPublic{Room: "!none:h", Sender: alice, Public: true})
	if !merr.Is(err, merr.NotFound) {
		t.Errorf("a room that is not there: %v", err)
	}
	w.checkRoom(room)
}

func TestAliases(t *testing.T) {
	w, room := clean(t, "12")
	other := w.create("12")
	const alias ids.RoomAlias = "#a:h"
	won := make([]ids.RoomID, 50)
	inParallel(len(won), func(i int) {
		target := []ids.RoomID{room, other}[i%2]
		_, err := w.node.Do(ctx, &SetAlias{Alias: alias, Target: AliasTarget{Room: target, Creator: alice}})
		switch {
		case err == nil:
			won[i] = target
		case merr.From(err).Status != http.StatusConflict:
			t.Errorf("set alias: %v", err)
		}
	})
	winners := slices.DeleteFunc(won, func(r ids.RoomID) bool { return r == "" })
	target, err := w.r.Alias(ctx, alias)
	if err != nil || len(winners) != 1 || target.Room != winners[0] || target.Creator != alice {
		t.Fatalf("winners %v, target %+v, %v", winners, target, err)
	}
	loser := room
	if winners[0] == room {
		loser = other
	}
	list := func(r ids.RoomID) int {
		l, err := w.r.Aliases(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	if list(winners[0]) != 1 || list(loser) != 0 {
		t.Errorf("%d and %d aliases listed", list(winners[0]), list(loser))
	}
	if _, err := w.node.Do(ctx, &DeleteAlias{Alias: alias, Room: loser}); !merr.Is(err, merr.NotFound) {
		t.Errorf("delete another room's alias: %v", err)
	}
	gone := 0
	for range 2 {
		if _, err := w.node.Do(ctx, &DeleteAlias{Alias: alias, Room: winners[0]}); err == nil {
			gone++
		}
	}
	if target, err := w.r.Alias(ctx, alias); target != nil || err != nil || gone != 1 || list(winners[0]) != 0 {
		t.Errorf("after the removal: %+v, %v; removed %d times", target, err, gone)
	}
	if _, err := w.node.Do(ctx, &DeleteAlias{Alias: "#never:h", Room: room}); !merr.Is(err, merr.NotFound) {
		t.Errorf("an alias that never was: %v", err)
	}
}
