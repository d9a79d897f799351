package room

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// accessTable is the specification's rules (client-server §Room history
// visibility), played through. A past is a list of bob's memberships with
// messages of alice's between them: 0 I 1 J 2 is a message, bob's invite,
// another message, his join, a third. Each column lists the messages that he may
// see in the end.
//
//	I invite  J join  L leaves  K kicked  B banned  U unbanned  N knocks  P joins again with another name
var accessTable = []struct {
	name, past                             string
	worldReadable, shared, invited, joined string
}{
	{"never", "0", "0", "", "", ""},
	{"invited", "0 I 1", "0 1", "", "1", ""},
	{"joined", "0 J 1", "0 1", "0 1", "1", "1"},
	{"invited and joined", "0 I 1 J 2", "0 1 2", "0 1 2", "1 2", "2"},
	{"invite rejected", "0 I 1 L 2", "0 1 2", "", "1", ""},
	{"invite withdrawn", "0 I 1 K 2", "0 1 2", "", "1", ""},
	{"left", "0 J 1 L 2", "0 1 2", "0 1", "1", "1"},
	{"kicked", "0 J 1 K 2", "0 1 2", "0 1", "1", "1"},
	{"banned", "0 J 1 B 2", "0 1 2", "0 1", "1", "1"},
	{"banned, never in", "0 B 1", "0 1", "", "", ""},
	{"unbanned", "0 J 1 B 2 U 3", "0 1 2 3", "0 1", "1", "1"},
	{"rejoined", "0 J 1 L 2 J 3", "0 1 2 3", "0 1 2 3", "1 3", "1 3"},
	{"invited back", "0 J 1 K 2 I 3", "0 1 2 3", "0 1", "1 3", "1"},
	{"invited back and joined", "0 J 1 K 2 I 3 J 4", "0 1 2 3 4", "0 1 2 3 4", "1 3 4", "1 4"},
	{"banned and back", "0 J 1 B 2 U 3 J 4", "0 1 2 3 4", "0 1 2 3 4", "1 4", "1 4"},
	{"renamed", "0 J 1 P 2 L 3", "0 1 2 3", "0 1 2", "1 2", "1 2"},
	{"knocked", "0 N 1", "0 1", "", "", ""},
	{"knocked and let in", "0 N 1 I 2 J 3", "0 1 2 3", "0 1 2 3", "2 3", "3"},
}

func TestHistoryVisibility(t *testing.T) {
	for _, row := range accessTable {
		for v, want := range map[event.HistoryVisibility]string{
			event.VisibilityWorldReadable: row.worldReadable, event.VisibilityShared: row.shared,
			event.VisibilityInvited: row.invited, event.VisibilityJoined: row.joined,
		} {
			t.Run(row.name+"/"+string(v), func(t *testing.T) {
				w := newWorld(t, nil)
				defer w.close()
				rule := "public"
				if strings.Contains(row.past, "N") {
					rule = "knock"
				}
				room := w.create("12",
					[3]string{event.TypeJoinRules, "", fmt.Sprintf(`{"join_rule":%q}`, rule)},
					[3]string{event.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, v)})
				messages, own := w.play(room, row.past)
				a, err := w.r.Access(ctx, room, bob)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for i, m := range messages {
					if a.MaySee(m) {
						got = append(got, fmt.Sprint(i))
					}
				}
				if s := strings.Join(got, " "); s != want {
					t.Errorf("bob sees %q, want %q", s, want)
				}
				for _, s := range own {
					if !a.MaySee(s) {
						t.Errorf("bob does not see that he became %s", s.Member().Membership)
					}
				}
				w.checkAccess(t, room, a, own)
			})
		}
	}
}

// play lets a past happen and returns alice's messages and bob's member events.
func (w *world) play(room ids.RoomID, past string) (messages, own []*Stored) {
	w.t.Helper()
	for _, step := range strings.Fields(past) {
		var s *Stored
		switch step {
		case "I":
			s = w.member(room, alice, bob, event.Invite)
		case "J":
			s = w.member(room, bob, bob, event.Join)
		case "L":
			s = w.member(room, bob, bob, event.Leave)
		case "K", "U":
			s = w.member(room, alice, bob, event.Leave)
		case "B":
			s = w.member(room, alice, bob, event.Ban)
		case "N":
			s = w.member(room, bob, bob, event.Knock)
		case "P":
			s = w.state(room, bob, event.TypeMember, string(bob), `{"displayname":"other","membership":"join"}`)
		default:
			messages = append(messages, w.mustSend(room, w.message(alice, step)))
			continue
		}
		own = append(own, s)
	}
	return messages, own
}

// checkAccess checks what an Access says besides MaySee.
func (w *world) checkAccess(t *testing.T, room ids.RoomID, a *Access, own []*Stored) {
	t.Helper()
	var now event.Membership
	was, stayed := false, ids.Seq(0)
	for _, s := range own {
		m := s.Member().Membership
		if now == event.Join && m != event.Join {
			stayed = s.Seq
		}
		now, was = m, was || m == event.Join
		if got := a.MembershipAt(s.Seq); got != m {
			t.Errorf("membership at %d is %q, want %q", s.Seq, got, m)
		}
	}
	if a.Membership != now || a.WasJoined() != was || (a.Member != nil) != (len(own) > 0) {
		t.Errorf("membership %q, ever in the room %v", a.Membership, a.WasJoined())
	}
	until, err := a.Until()
	head, _ := w.r.Head(ctx, room)
	switch {
	case now == event.Join || a.WorldReadable():
		if until != head.Last || err != nil {
			t.Errorf("sees state until %d, %v; want %d", until, err, head.Last)
		}
	case stayed != 0:
		if until != stayed || err != nil {
			t.Errorf("sees state until %d, %v; want %d", until, err, stayed)
		}
	default:
		if !merr.Is(err, merr.Forbidden) {
			t.Errorf("a stranger sees state until %d, %v", until, err)
		}
	}
}

// The event that changes the visibility can be seen by those who may see what was
// before or what comes after.
func TestVisibilityChanges(t *testing.T) {
	w, room := clean(t, "12")
	set := func(v event.HistoryVisibility) *Stored {
		return w.state(room, alice, event.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, v))
	}
	say := func() *Stored { return w.mustSend(room, w.message(alice, "x")) }
	m0 := say()
	open := set(event.VisibilityWorldReadable)
	m1 := say()
	shut := set(event.VisibilityJoined)
	m2 := say()
	odd := set("nonsense") // counts as shared
	m3 := say()
	w.member(room, bob, bob, event.Join)
	for who, want := range map[ids.UserID][]bool{
		carol: {false, true, true, true, false, false, false},
		bob:   {true, true, true, true, false, true, true},
		alice: {true, true, true, true, true, true, true},
	} {
		a, err := w.r.Access(ctx, room, who)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range []*Stored{m0, open, m1, shut, m2, odd, m3} {
			if got := a.MaySee(s); got != want[i] {
				t.Errorf("%s sees event %d: %v", who, i, got)
			}
		}
		if a.WorldReadable() {
			t.Error("the room can be read by all the world")
		}
	}
}

// A past that is longer than what is read is judged strictly.
func TestLongHistory(t *testing.T) {
	w, room := clean(t, "12")
	secret := w.mustSend(room, w.message(alice, "x"))
	for i := range maxHistory + 5 {
		v := []event.HistoryVisibility{event.VisibilityShared, event.VisibilityInvited}[i%2]
		w.state(room, alice, event.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q,"n":%d}`, v, i))
	}
	w.member(room, bob, bob, event.Join)
	a, err := w.r.Access(ctx, room, bob)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.visibility) != maxHistory || a.MaySee(secret) {
		t.Errorf("with %d changes read, the oldest part is open", len(a.visibility))
	}
}
