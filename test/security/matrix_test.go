// Package security looks at whole servers as those who mean no good do: it asks for
// what is another's, sends what no client sends, and looks where secrets could be left
// lying about. docs/security.md says which test stands for what.
package security

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// The life of a room has four periods. In each, the owner says something, answers
// in threads, and changes a piece of state, in this order; at the beginning of the
// last three the user whose rights are judged does something.
const (
	before = iota
	second
	third
	after
	periods
)

// What a user does at the beginning of a period; several are joined by "+".
const (
	invite = "invite"
	knock  = "knock"
	join   = "join"
	leave  = "leave"
	kick   = "kick"
	ban    = "ban"
	forget = "forget"
)

// stay is one way in which a user can stand to a room.
type stay struct {
	name string
	does [3]string
}

func stays() []stay {
	return []stay{
		{"never", [3]string{"", "", ""}},
		{"invited", [3]string{invite, "", ""}},
		{"declined", [3]string{invite, leave, ""}},
		{"knocked", [3]string{knock, "", ""}},
		{"joined", [3]string{invite, join, ""}},
		{"left", [3]string{invite, join, leave}},
		{"kicked", [3]string{invite, join, kick}},
		{"banned", [3]string{invite, join, ban}},
		{"forgotten", [3]string{invite, join, leave + "+" + forget}},
		{"rejoined", [3]string{invite + "+" + join, leave, invite + "+" + join}},
	}
}

// cell is a way to stand to a room of a history visibility.
type cell struct {
	visibility string
	stay
}

// at is the membership in a period.
func (c cell) at(period int) string {
	m := ""
	for _, did := range c.does[:period] {
		for _, d := range strings.Split(did, "+") {
			if d != "" && d != forget {
				m = d
			}
		}
	}
	return m
}

func (c cell) joined() bool { return c.at(after) == join }

// departed: was a member, and still may look at that time.
func (c cell) departed() bool {
	return slices.Contains([]string{"left", "kicked", "banned"}, c.name)
}

func (c cell) world() bool { return c.visibility == "world_readable" }

// knockable: the room lets knock, for it lets this user.
func (c cell) knockable() bool { return c.name == "knocked" }

// sees is the rule of the specification.
// spec: client-server §Room History Visibility, Server behaviour.
func (c cell) sees(period int) bool {
	switch {
	case c.world():
		return true
	case c.name == "forgotten":
		// spec: client-server §Leaving rooms: who forgot a room cannot retrieve its
		// history any more.
		return false
	case c.at(period) == join:
		return true
	case c.visibility == "shared":
		for p := period; p < periods; p++ {
			if c.at(p) == join {
				return true
			}
		}
		return false
	default:
		return c.visibility == "invited" && c.at(period) == invite
	}
}

// knowsState: a piece of state, as it was set at the end of a period, can be known if
// it was current while the user was a member, if its event can be seen, or if what
// replaced it can: an event of state says what it replaced.
// spec: client-server §Room events, unsigned.prev_content.
func (c cell) knowsState(period int) bool {
	if c.sees(period) {
		return true
	}
	next := min(period+1, after)
	return c.sees(next) || c.heldAt(next) || c.heldAt(min(next+1, after))
}

// heldAt: was a member at the beginning of a period, when the state was what the one
// before had set, and did not forget the room.
func (c cell) heldAt(period int) bool { return c.name != "forgotten" && c.at(period) == join }

// knowsSince: what was set in a period and stayed can be known.
func (c cell) knowsSince(period int) bool {
	for p := period; p < periods; p++ {
		if c.knowsState(p) {
			return true
		}
	}
	return false
}

// verdict is whether a path may be read.
type verdict int

const (
	either verdict = iota
	yes
	no
)

func must(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// history: who may read the history of a room at all.
// spec: client-server §GET /rooms/{roomId}/messages, 403.
func (c cell) history() verdict {
	if c.name == "declined" && !c.world() {
		return either // there is nothing to see but the invitation and its end
	}
	return must(c.world() || c.joined() || c.departed())
}

// state: who may read the state.
// spec: client-server §GET /rooms/{roomId}/state, 403: is no member and was none.
func (c cell) state() verdict { return must(c.world() || c.joined() || c.departed()) }

// members: who may ask who is there now.
// spec: client-server §GET /rooms/{roomId}/joined_members, 403.
func (c cell) members() verdict {
	if c.world() && !c.joined() {
		return either
	}
	return must(c.joined())
}

// aliases: spec: client-server §GET /rooms/{roomId}/aliases.
func (c cell) aliases() verdict { return must(c.joined() || c.world()) }

// summary: spec: client-server §GET /room_summary/{roomIdOrAlias} and §Spaces:
// who could join, knock or read.
func (c cell) summary() verdict {
	return must(c.joined() || c.world() || c.knockable() || c.at(after) == invite)
}

// event: whether one event can be read. An invited user is no member, but the rule
// of visibility lets them.
func (c cell) event(period int) verdict {
	if c.sees(period) && !c.world() && !c.joined() && !c.departed() {
		return either
	}
	return must(c.sees(period))
}

// TestReadMatrix: whatever a user asks for, by whatever path, the answer holds
// nothing of a room that the user may not know, and what the user may know can be
// had. The rules are written from the specification: cell.
func TestReadMatrix(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	cast := newCast(t, s)
	for _, visibility := range []string{"world_readable", "shared", "invited", "joined"} {
		t.Run(visibility, func(t *testing.T) {
			t.Parallel()
			for _, st := range stays() {
				t.Run(st.name, func(t *testing.T) {
					sc := newScene(t, cast, cell{visibility, st})
					for _, p := range paths() {
						sc.judge(t, p)
					}
				})
			}
		})
	}
}

// judge asks on a path and compares the answer with the rules.
func (sc *scene) judge(t *testing.T, p path) {
	t.Helper()
	got := p.ask(t, sc)
	switch want := p.open(sc.cell); {
	case want == yes && got.status != http.StatusOK:
		t.Errorf("%s: %d %.200s, should be answered", p.name, got.status, got.text)
	case want == no && got.status != http.StatusForbidden && got.status != http.StatusNotFound:
		t.Errorf("%s: %d %.400s, should be refused", p.name, got.status, got.text)
	}
	for canary, allowed := range sc.canaries {
		if !allowed && strings.Contains(got.text, canary) {
			t.Errorf("%s gives away %s:\n%.2000s", p.name, canary, got.text)
		}
	}
	if p.shows == nil || got.status != http.StatusOK {
		return
	}
	for _, want := range p.shows(sc) {
		if !strings.Contains(got.text, want) {
			t.Errorf("%s does not show %s:\n%.2000s", p.name, want, got.text)
		}
	}
}

// said is what the owner says in a period, nick what a member is called in the room
// only, secret a piece of state.
func (c cell) canary(kind string, period int) string {
	return fmt.Sprintf("canary/%s/%s/%s/%d.", kind, c.visibility, c.name, period)
}
