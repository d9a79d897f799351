package room

import (
	"fmt"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// modelState is the state after a position, said by the timeline: event IDs by
// sort key.
func modelState(events []*Stored, upTo ids.Seq, o StateOptions) map[string]ids.EventID {
	out := map[string]ids.EventID{}
	for _, s := range events {
		if s.StateKey == nil || s.Seq > upTo || o.Type != "" && s.Type != o.Type || o.NoMembers && s.Type == event.TypeMember {
			continue
		}
		out[stateSort(s.Type, *s.StateKey)] = s.ID
	}
	return out
}

func asMap(t fatal, list []*Stored) map[string]ids.EventID {
	t.Helper()
	out := map[string]ids.EventID{}
	for _, s := range list {
		k := stateSort(s.Type, *s.StateKey)
		if out[k] != "" {
			t.Fatalf("%q comes twice", k)
		}
		out[k] = s.ID
	}
	return out
}

func equal(a, b map[string]ids.EventID) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// busyRoom makes a room with a random past, among others in its partition.
func busyRoom(rt *rapid.T, w *world) ids.RoomID {
	room := w.create("12")
	others := []ids.RoomID{w.create("12"), w.create("11"), w.create("10"), room, room}
	types := []string{"org.a", "org.b", event.TypeTopic, event.TypeMember, "org.z", ""}
	for i := range rapid.IntRange(0, 30).Draw(rt, "events") {
		in := rapid.SampledFrom(others).Draw(rt, "room")
		typ := rapid.SampledFrom(types).Draw(rt, "type")
		switch typ {
		case "":
			w.mustSend(in, w.message(alice, "x"))
		case event.TypeMember:
			u := ids.UserID(fmt.Sprintf("@u%d:h", rapid.IntRange(0, 3).Draw(rt, "user")))
			w.state(in, u, typ, string(u), fmt.Sprintf(`{"displayname":"%d","membership":"join"}`, i))
		default:
			w.state(in, alice, typ, rapid.SampledFrom([]string{"", "k"}).Draw(rt, "key"), fmt.Sprintf(`{"n":%d}`, i))
		}
	}
	return room
}

func TestStateOfThePast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, nil)
		defer w.close()
		room := busyRoom(rt, w)
		events := w.timeline(room)
		end := int(events[len(events)-1].Seq) + 2
		for range 10 {
			after := ids.Seq(rapid.IntRange(0, end).Draw(rt, "after"))
			upTo := ids.Seq(rapid.IntRange(0, end).Draw(rt, "upTo"))
			o := StateOptions{NoMembers: rapid.Bool().Draw(rt, "no members")}
			if !o.NoMembers {
				o.Type = rapid.SampledFrom([]string{"", "org.a", event.TypeMember, "org"}).Draw(rt, "only")
			}
			list, err := w.r.StateUpTo(ctx, room, upTo, o)
			want := modelState(events, upTo, o)
			if got := asMap(rt, list); err != nil || !equal(got, want) {
				rt.Fatalf("state %+v after %d: %v, %v; want %v", o, upTo, got, err, want)
			}
			key := StateKey{rapid.SampledFrom([]string{"org.a", event.TypeTopic}).Draw(rt, "one"), ""}
			one, err := w.r.StateEventUpTo(ctx, room, key, upTo)
			if id := modelState(events, upTo, StateOptions{})[stateSort(key.Type, "")]; err != nil || (one == nil) != (id == "") || one != nil && one.ID != id {
				rt.Fatalf("%v after %d: %v, %v; want %q", key, upTo, one, err, id)
			}
			checkChanges(rt, w, room, events, after, upTo)
		}
		checkPages(rt, w, room, events)
	})
}

// checkChanges checks StateChanges against the difference of two states.
func checkChanges(rt *rapid.T, w *world, room ids.RoomID, events []*Stored, after, upTo ids.Seq) {
	limit := rapid.IntRange(1, 12).Draw(rt, "limit")
	changed, more, err := w.r.StateChanges(ctx, room, after, upTo, limit)
	if err != nil {
		rt.Fatalf("state changes: %v", err)
	}
	want, n := map[string]ids.EventID{}, 0
	for _, s := range events {
		if s.StateKey != nil && s.Seq > after && s.Seq <= upTo {
			want[stateSort(s.Type, *s.StateKey)] = s.ID
			n++
		}
	}
	if more != (n > limit) {
		rt.Fatalf("%d changes with limit %d: more is %v", n, limit, more)
	}
	if got := asMap(rt, changed); !more && !equal(got, want) {
		rt.Fatalf("changes from %d to %d: %v, want %v", after, upTo, got, want)
	}
	if !slices.IsSortedFunc(changed, func(a, b *Stored) int { return int(a.Seq) - int(b.Seq) }) {
		rt.Fatalf("changes out of order")
	}
}

// checkPages checks stretches of the timeline in both directions.
func checkPages(rt *rapid.T, w *world, room ids.RoomID, events []*Stored) {
	end := int(events[len(events)-1].Seq) + 2
	pg := Page{
		After: ids.Seq(rapid.IntRange(0, end).Draw(rt, "page after")), UpTo: ids.Seq(rapid.IntRange(0, end).Draw(rt, "page upTo")),
		Limit: rapid.IntRange(1, 20).Draw(rt, "page limit"), Newest: rapid.Bool().Draw(rt, "newest"),
	}
	var want []ids.EventID
	for _, s := range events {
		if s.Seq > pg.After && s.Seq <= pg.UpTo {
			want = append(want, s.ID)
		}
	}
	if pg.Newest {
		slices.Reverse(want)
	}
	want = want[:min(len(want), pg.Limit)]
	list, err := w.r.Timeline(ctx, room, pg)
	var got []ids.EventID
	for _, s := range list {
		got = append(got, s.ID)
	}
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("%+v: %v, %v; want %v", pg, got, err, want)
	}
}

func TestNothingThere(t *testing.T) {
	w, room := clean(t, "12")
	if s, err := w.r.Event(ctx, room, "$short"); s != nil || err != nil {
		t.Errorf("event: %v, %v", s, err)
	}
	if s, err := w.r.At(ctx, room, 999); s != nil || err != nil {
		t.Errorf("position: %v, %v", s, err)
	}
	if a, err := w.r.Access(ctx, "!none:h", alice); a != nil || err != nil {
		t.Errorf("access: %v, %v", a, err)
	}
	if a, err := w.r.Alias(ctx, "#none:h"); a != nil || err != nil {
		t.Errorf("alias: %v, %v", a, err)
	}
	if heads, err := w.r.Heads(ctx, "!none:h", room); err != nil || heads[0] != nil || heads[1] == nil {
		t.Errorf("heads: %v, %v", heads, err)
	}
}

// A receipt only moves forward, and the list of changes holds its last.
func TestReceiptsMoveForward(t *testing.T) {
	w, room := clean(t, "12")
	users := []ids.UserID{alice, bob}
	w.member(room, bob, bob, event.Join)
	root := w.mustSend(room, w.message(alice, "root"))
	var events, replies []*Stored
	for i := range 20 {
		replies = append(replies, w.event(room, w.related(room, alice, event.TypeMessage, event.RelThread, root.ID, "")))
		events = append(events, w.mustSend(room, w.message(alice, fmt.Sprint(i))))
	}
	threads := map[string][]*Stored{"": events, "main": events, string(root.ID): replies}
	inParallel(20, func(i int) {
		for _, u := range users {
			for thread, of := range threads {
				_, err := w.node.Do(ctx, &SetReceipt{Room: room, User: u, Type: ReceiptRead, Thread: thread, Event: of[(i*7)%20].ID})
				if err != nil {
					t.Errorf("receipt: %v", err)
				}
			}
		}
	})
	head, err := w.r.Head(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.r.Receipts(ctx, room, 0, head.LastReceipt, 100)
	if err != nil || len(all) != len(users)*len(threads) || len(w.rows(room, tables.ReceiptLog)) != len(all) {
		t.Fatalf("%d receipts, %v", len(all), err)
	}
	seen := map[string]bool{}
	for i, r := range all {
		seen[string(r.User)+r.Thread] = true
		if last := threads[r.Thread][19]; r.Event != last.ID || r.Seq != last.Seq || r.Type != ReceiptRead {
			t.Errorf("receipt %+v", r)
		}
		if i > 0 && r.Changed <= all[i-1].Changed {
			t.Error("receipts out of order")
		}
	}
	if len(seen) != len(all) {
		t.Errorf("receipts of %v", seen)
	}
	if last, err := w.r.Receipts(ctx, room, all[2].Changed, head.LastReceipt, 2); err != nil || len(last) != 2 || last[1].Changed != head.LastReceipt {
		t.Errorf("the newest: %v, %v", last, err)
	}
	if at, err := w.r.ReadMarks(ctx, room, bob); at.Main != events[19].Seq || at.All != at.Main || err != nil {
		t.Errorf("read up to %v, %v", at, err)
	}
	if at, err := w.r.ReadThreads(ctx, room, bob, []ids.EventID{root.ID, "$x"}); at[root.ID] != replies[19].Seq || at["$x"] != 0 || err != nil {
		t.Errorf("read threads up to %v, %v", at, err)
	}
	w.checkRoom(room)
}

func TestReceiptRefused(t *testing.T) {
	w, room := clean(t, "12")
	m := w.mustSend(room, w.message(alice, "x"))
	elsewhere := w.mustSend(w.create("12"), w.message(alice, "x"))
	for _, c := range []struct {
		user  ids.UserID
		event ids.EventID
		want  merr.Code
	}{{bob, m.ID, merr.Forbidden}, {alice, elsewhere.ID, merr.NotFound}, {alice, "$x", merr.NotFound}} {
		_, err := w.node.Do(ctx, &SetReceipt{Room: room, User: c.user, Type: ReceiptRead, Event: c.event})
		if !merr.Is(err, c.want) {
			t.Errorf("%s marks %s: %v", c.user, c.event, err)
		}
	}
}

func TestDecodeReceiptDamaged(t *testing.T) {
	if _, err := DecodeReceipt("m.read", []byte("{")); err == nil {
		t.Error("decoded")
	}
}

// Who may join a restricted room, and in whose name. spec: client-server
// §Restricted rooms.
func TestJoinAuthoriser(t *testing.T) {
	for _, version := range []string{"10", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			w, space := clean(t, version)
			rule := fmt.Sprintf(`{"allow":[{"room_id":%q,"type":"m.room_membership"}],"join_rule":"restricted"}`, space)
			room := w.create(version, [3]string{event.TypeJoinRules, "", rule})
			join := func(u, by ids.UserID) error {
				content := `{"membership":"join"}`
				if by != "" {
					content = fmt.Sprintf(`{"join_authorised_via_users_server":%q,"membership":"join"}`, by)
				}
				_, err := w.send(room, &Send{Draft: w.draft(u, event.TypeMember, string(u), content)})
				return err
			}
			if by, err := w.r.JoinAuthoriser(ctx, room, bob); !merr.Is(err, merr.Forbidden) {
				t.Errorf("a stranger may join by %q: %v", by, err)
			}
			w.member(space, bob, bob, event.Join)
			by, err := w.r.JoinAuthoriser(ctx, room, bob)
			if by != alice || err != nil {
				t.Fatalf("a member of the space joins by %q: %v", by, err)
			}
			if err := join(bob, ""); !merr.Is(err, merr.Forbidden) {
				t.Errorf("joined in nobody's name: %v", err)
			}
			if err := join(bob, by); err != nil {
				t.Errorf("join: %v", err)
			}
			if by, err := w.r.JoinAuthoriser(ctx, room, bob); by != "" || err != nil {
				t.Errorf("who is in the room needs %q: %v", by, err)
			}
			w.member(room, alice, carol, event.Invite)
			if by, err := w.r.JoinAuthoriser(ctx, room, carol); by != "" || err != nil {
				t.Errorf("the invited need %q: %v", by, err)
			}
			if by, err := w.r.JoinAuthoriser(ctx, space, carol); by != "" || err != nil {
				t.Errorf("a public room needs %q: %v", by, err)
			}
			w.member(space, bob, bob, event.Leave)
			w.member(room, bob, bob, event.Leave)
			if _, err := w.r.JoinAuthoriser(ctx, room, bob); !merr.Is(err, merr.Forbidden) {
				t.Errorf("who left the space joins again: %v", err)
			}
			w.member(space, bob, bob, event.Join)
			w.member(room, alice, alice, event.Leave)
			if _, err := w.r.JoinAuthoriser(ctx, room, bob); !merr.Is(err, merr.UnableToAuthoriseJoin) {
				t.Errorf("nobody is left to ask: %v", err)
			}
		})
	}
}

func TestAsk(t *testing.T) {
	w, room := clean(t, "12")
	var m event.Membership
	if err := w.r.Ask(ctx, room, func(v roomstate.View) { m = roomstate.Membership(v, alice) }); err != nil || m != event.Join {
		t.Errorf("%q, %v", m, err)
	}
	r := NewReader(failing{w.store}, partitions)
	if err := r.Ask(ctx, room, func(v roomstate.View) { m = roomstate.Membership(v, alice) }); err == nil {
		t.Error("a failed read is no answer")
	}
}

// failing is a store that cannot be read.
type failing struct{ storage.Store }

func (failing) Get(ctxT, ...storage.Key) ([][]byte, error) { return nil, storage.ErrClosed }

// The state of more rows than one page is walked once each, in order.
func TestWalkStatePages(t *testing.T) {
	w, room := clean(t, "12")
	inParallel(8, func(g int) {
		for i := range statePage/8 + 40 {
			u := ids.UserID(fmt.Sprintf("@u%d-%d:h", g, i))
			s := &Send{Room: room, Draft: w.draft(u, event.TypeMember, string(u), `{"membership":"join"}`)}
			if _, err := w.node.Do(ctx, s); err != nil {
				t.Errorf("join: %v", err)
			}
		}
	})
	var keys []string
	err := w.r.WalkState(ctx, room, event.TypeMember, func(s *Stored) bool {
		keys = append(keys, *s.StateKey)
		return true
	})
	if err != nil || len(keys) != 8*(statePage/8+40)+1 || !sort.StringsAreSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
		t.Errorf("%d members, %v", len(keys), err)
	}
	n := 0
	if err := w.r.WalkState(ctx, room, "", func(*Stored) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("the walk ended after %d, %v", n, err)
	}
	head, _ := w.r.Head(ctx, room)
	if head.Joined != len(keys) {
		t.Errorf("%d joined, want %d", head.Joined, len(keys))
	}
}
