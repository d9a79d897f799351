package pushrules

import (
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// CopyRoom gives a room the user's rules about another one, which it replaces: the
// rule of kind room, and the others that ask for that room by its ID, as clients
// mute rooms. A rule that is there already stays as it is. It reports whether
// anything changed; beyond the limits the rest is left out.
func (s *Set) CopyRoom(from, to ids.RoomID) bool {
	changed := false
	for _, kind := range Kinds() {
		// Each new rule goes before the ones there are: the least important first.
		for _, r := range slices.Backward(slices.Clone(s.changes.Rules[kind])) {
			id, conditions, about := r.movedTo(kind, from, to)
			if !about || s.position(kind, id) >= 0 {
				continue
			}
			if s.Put(kind, id, NewRule{Actions: r.Actions, Conditions: conditions, Pattern: r.Pattern}, r.ID, "") != nil {
				continue
			}
			if r.Disabled {
				if s.SetEnabled(kind, id, false) != nil {
					continue
				}
			}
			changed = true
		}
	}
	return changed
}

// movedTo returns the ID and the conditions of a rule as they are for another
// room; about is false if it says nothing of from.
func (r *storedRule) movedTo(kind Kind, from, to ids.RoomID) (id string, conditions []Condition, about bool) {
	id = strings.ReplaceAll(r.ID, string(from), string(to))
	if kind == Room {
		return id, nil, r.ID == string(from)
	}
	conditions = slices.Clone(r.Conditions)
	for i, c := range conditions {
		if c.Kind == condEventMatch && c.Key == "room_id" && c.Pattern == string(from) {
			conditions[i], about = eventMatch("room_id", string(to)), true
		}
	}
	if id == r.ID {
		id += "." + string(to)
	}
	return id, conditions, about
}
