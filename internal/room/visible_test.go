package room

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// What is stepped over is exactly what MaySee refuses.
func TestVisibleStretches(t *testing.T) {
	const user = ids.UserID("@user:x")
	rapid.Check(t, func(t *rapid.T) {
		end := ids.Seq(rapid.IntRange(1, 40).Draw(t, "end"))
		a := &Access{Head: &Head{Last: end}, user: user}
		events := make([]*Stored, end+1)
		for s := ids.Seq(1); s <= end; s++ {
			e := &Stored{Seq: s}
			e.Type = event.TypeMessage
			switch rapid.IntRange(0, 7).Draw(t, "kind") {
			case 0:
				key := string(user)
				m := rapid.SampledFrom([]string{"join", "leave", "invite", "ban"}).Draw(t, "membership")
				e.Type, e.StateKey, e.Content = event.TypeMember, &key, []byte(`{"membership":"`+m+`"}`)
				a.members = append(a.members, e)
			case 1:
				key := ""
				v := rapid.SampledFrom([]string{"shared", "joined", "invited", "world_readable"}).Draw(t, "visibility")
				e.Type, e.StateKey, e.Content = event.TypeHistoryVisibility, &key, []byte(`{"history_visibility":"`+v+`"}`)
				a.visibility = append(a.visibility, e)
			}
			events[s] = e
		}
		for s := ids.Seq(0); s <= end; s++ {
			want := s
			for want > 0 && !a.MaySee(events[want]) {
				want--
			}
			if got := a.LastVisible(s); got != want {
				t.Fatalf("last visible at %d: got %d, want %d", s, got, want)
			}
			want = max(s, 1)
			for want <= end && !a.MaySee(events[want]) {
				want++
			}
			if got := a.NextVisible(max(s, 1)); got != want {
				t.Fatalf("next visible from %d: got %d, want %d", s, got, want)
			}
		}
	})
}
