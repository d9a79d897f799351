package room

import (
	"slices"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// What a user may see changes only where their membership or the room's
// visibility changes. Between two such positions all events are judged alike, so
// that a stretch of any length which the user may not see is stepped over
// without reading it.

// cuts returns the positions at which the judgement may change, in order.
func (a *Access) cuts() []ids.Seq {
	out := make([]ids.Seq, 0, len(a.members)+len(a.visibility))
	for _, list := range [...][]*Stored{a.members, a.visibility} {
		for _, s := range list {
			out = append(out, s.Seq)
		}
	}
	slices.Sort(out)
	return out
}

// visibleAt is MaySee for an event of which only the position is known. At a
// position that is no event's it is what an event there would be.
func (a *Access) visibleAt(s ids.Seq) bool {
	if a.allowed(s, a.visibilityAt(s)) {
		return true
	}
	if m := last(a.members, s); m != nil && m.Seq == s {
		return true
	}
	v := last(a.visibility, s)
	return v != nil && v.Seq == s && v.Is(event.TypeHistoryVisibility, "") && a.allowed(s, a.visibilityAt(s-1))
}

// LastVisible returns the last position at or before s of which the user may see
// the event, 0 if there is none.
func (a *Access) LastVisible(s ids.Seq) ids.Seq {
	cuts := a.cuts()
	for s > 0 {
		if a.visibleAt(s) {
			return s
		}
		i, found := slices.BinarySearch(cuts, s)
		switch {
		case found:
			s-- // the judgement of what is before it may be another
		case i == 0:
			return 0
		default:
			s = cuts[i-1]
		}
	}
	return 0
}

// NextVisible returns the first position at or behind s of which the user may see
// the event; one behind the end of the room if there is none.
func (a *Access) NextVisible(s ids.Seq) ids.Seq {
	cuts := a.cuts()
	for s <= a.Head.Last && !a.visibleAt(s) {
		i, found := slices.BinarySearch(cuts, s)
		if found {
			s++ // a change itself is judged by before and after
			continue
		}
		if i == len(cuts) {
			return a.Head.Last + 1
		}
		s = cuts[i]
	}
	return min(s, a.Head.Last+1)
}
