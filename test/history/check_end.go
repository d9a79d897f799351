package history

import (
	"maps"
	"slices"
)

// stateKey names a piece of state.
type stateKey struct{ typ, key string }

func foldOf(events []Event) map[stateKey]string {
	state := map[stateKey]string{}
	for _, e := range events {
		if e.StateKey != nil {
			state[stateKey{e.Type, *e.StateKey}] = e.ID
		}
	}
	return state
}

// fold is C7 for the state of a room.
func (c *checker) fold(r *roomOrder, final *Room) {
	want := foldOf(r.events)
	for reader, list := range final.States {
		if got := foldOf(list); !maps.Equal(got, want) {
			c.breach("C7 %s: /state of %s is not the fold of its events: %s", r.id, reader, difference(got, want))
		}
	}
}

func difference(got, want map[stateKey]string) string {
	var out string
	for k, v := range want {
		if got[k] != v {
			out += k.typ + " " + k.key + ": got " + got[k] + " want " + v + "; "
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			out += k.typ + " " + k.key + ": got " + v + ", want nothing; "
		}
	}
	return out
}

// wholeRoom are the state events every room of a run is made with.
func wholeRoom() []string {
	return []string{
		"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility",
		"m.room.guest_access", "m.room.name", "m.room.topic",
	}
}

// roomsWhole: a room is there with all it was made with, or not at all, once.
func (c *checker) roomsWhole() {
	made := map[string]string{}
	for id, r := range c.rooms {
		if r.created == 0 {
			c.breach("C7 %s has no beginning", id)
			continue
		}
		mark := r.events[0].Mark
		op := c.byMark[mark]
		switch {
		case op == nil || op.Kind != Create:
			c.breach("C2 %s: nobody asked for the room", id)
			continue
		case op.Outcome == Fail:
			c.breach("C2 %s: %s was refused with %d, but the room is there", id, op, op.Status)
		case op.Outcome == OK && op.Room != id:
			c.breach("C3 %s: %s was answered with room %s", id, op, op.Room)
		case made[mark] != "":
			c.breach("C3 %s and %s are both of %s", id, made[mark], op)
		}
		made[mark] = id
		var types []string
		for _, e := range r.events[:r.created] {
			types = append(types, e.Type)
		}
		for _, t := range wholeRoom() {
			if !slices.Contains(types, t) {
				c.breach("C7 %s was made without %s: %v", id, t, types)
			}
		}
	}
	for _, op := range c.h.Ops {
		if op.Kind == Create && op.Outcome == OK && made[op.Mark] == "" {
			c.breach("C1 %s was acknowledged and the room is not there", op)
		}
	}
}

// values is C7 for what one client writes: the last that was acknowledged, or a
// later one of which nothing is known.
func (c *checker) values() {
	last := map[string]int{}
	for _, op := range c.h.Ops {
		if op.Kind == Data && op.Outcome == OK {
			last[op.Key] = max(last[op.Key], op.N)
		}
	}
	may := map[string]map[int]bool{}
	for _, op := range c.h.Ops {
		if op.Kind == Data && op.Outcome != Fail {
			if may[op.Key] == nil {
				may[op.Key] = map[int]bool{}
			}
			may[op.Key][op.N] = true
		}
	}
	for key, n := range last {
		if got := c.h.Final.Data[key]; got < n {
			c.breach("C1 %s: %d was acknowledged, %d is there", key, n, got)
		}
	}
	for key, n := range c.h.Final.Data {
		if !may[key][n] {
			c.breach("C2 %s: nobody wrote the %d that is there", key, n)
		}
	}
}

// receipts is C7 for receipts: never behind one that was acknowledged, and one
// that was asked for.
func (c *checker) receipts() {
	type place struct{ room, user string }
	least, asked := map[place]int{}, map[place]map[string]bool{}
	for _, op := range c.h.Ops {
		r := c.rooms[op.Room]
		if op.Kind != Receipt || op.Outcome == Fail || r == nil {
			continue
		}
		p := place{op.Room, op.User}
		if asked[p] == nil {
			asked[p] = map[string]bool{}
		}
		asked[p][op.Target] = true
		if i, ok := r.pos[op.Target]; ok && op.Outcome == OK {
			least[p] = max(least[p], i)
		}
	}
	for p, n := range least {
		target := c.h.Final.Rooms[p.room].Receipts[p.user]
		if i, ok := c.rooms[p.room].pos[target]; !ok || i < n {
			c.breach("C1 %s: the receipt of %s is %q at %d, one up to %d was acknowledged", p.room, p.user, target, i, n)
		}
	}
	for id, r := range c.h.Final.Rooms {
		for user, target := range r.Receipts {
			if !asked[place{id, user}][target] {
				c.breach("C2 %s: %s never read %s", id, user, target)
			}
		}
	}
}

// tokens is C7 for sessions.
func (c *checker) tokens() {
	type device struct{ user, name string }
	ended, maybe := map[device]bool{}, map[device]bool{}
	for _, op := range c.h.Ops {
		if d := (device{op.User, op.Device}); op.Kind == Logout && op.Outcome != Fail {
			ended[d] = ended[d] || op.Outcome == OK
			maybe[d] = true
		}
	}
	for _, t := range c.h.Final.Tokens {
		op := c.h.Ops[t.Op]
		switch {
		case !t.Works && !maybe[device{op.User, op.Device}]:
			c.breach("C1 the token of %s, device %s, does not work", op, op.Device)
		case t.Works && ended[device{op.User, op.Device}]:
			c.breach("C1 the token of %s, device %s, works after a logout", op, op.Device)
		}
	}
}
