package feed

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// RequiredState says which state of a room is sent: what a pattern of Include matches
// and none of Exclude. Lazy adds the members that the timeline is about; a pattern for
// everything leaves the other members out then. spec: MSC4186, RequiredStateRequest.
type RequiredState struct {
	Include, Exclude []StatePattern
	Lazy             bool
}

// StatePattern matches state by type and key; nil matches all.
type StatePattern struct{ Type, Key *string }

func (p *StatePattern) matches(typ, key string) bool {
	return (p.Type == nil || *p.Type == typ) && (p.Key == nil || *p.Key == key)
}

func (p *StatePattern) text() string {
	b := []byte{'['}
	for _, s := range []*string{p.Type, p.Key} {
		if s == nil {
			b = append(b, '*')
		} else {
			b = event.AppendString(b, *s)
		}
		b = append(b, ',')
	}
	return string(b)
}

// required is the state that all that matches a room requires together.
type required struct {
	all  []*RequiredState
	lazy bool
	// key is equal where all is.
	key string
}

func newRequired(all []*RequiredState) *required {
	q := &required{all: all}
	var b strings.Builder
	for _, s := range all {
		q.lazy = q.lazy || s.Lazy
		fmt.Fprintf(&b, "{%t", s.Lazy)
		for _, list := range [][]StatePattern{s.Include, s.Exclude} {
			b.WriteByte(';')
			for i := range list {
				b.WriteString(list[i].text())
			}
		}
	}
	q.key = b.String()
	return q
}

// everyButMembers reports whether a pattern is for all state but lazy members.
func (s *RequiredState) everyButMembers(p *StatePattern) bool {
	return s.Lazy && p.Type == nil && p.Key == nil
}

func (s *RequiredState) matches(typ, key string) bool {
	in := slices.ContainsFunc(s.Include, func(p StatePattern) bool {
		return p.matches(typ, key) && !(typ == event.TypeMember && s.everyButMembers(&p))
	})
	return in && !slices.ContainsFunc(s.Exclude, func(p StatePattern) bool { return p.matches(typ, key) })
}

func (q *required) matches(e *room.Stored) bool {
	return e.StateKey != nil && slices.ContainsFunc(q.all, func(s *RequiredState) bool { return s.matches(e.Type, *e.StateKey) })
}

// stateReads are what has to be read to know all state that is required.
type stateReads struct {
	all, members bool // everything, members too
	types        map[string]bool
	keys         map[room.StateKey]bool
}

func (q *required) reads() *stateReads {
	r := &stateReads{types: make(map[string]bool), keys: make(map[room.StateKey]bool)}
	for _, s := range q.all {
		for i := range s.Include {
			p := &s.Include[i]
			switch {
			case p.Type != nil && p.Key != nil:
				r.keys[room.StateKey{Type: *p.Type, Key: *p.Key}] = true
			case p.Type != nil:
				r.types[*p.Type] = true
			case p.Key != nil:
				r.all = true
				r.keys[room.StateKey{Type: event.TypeMember, Key: *p.Key}] = true
			default:
				r.all = true
				r.members = r.members || !s.Lazy
			}
		}
	}
	return r
}

// requiredState reads the state at the end of the section that is required and not
// among what the client has (nil for none).
func (sec *section) requiredState(ctx context.Context, q, has *required) ([]*room.Stored, error) {
	rd, reads := sec.s.h.rooms, q.reads()
	var list []*room.Stored
	if reads.all {
		some, err := rd.StateUpTo(ctx, sec.r.id, sec.to, room.StateOptions{NoMembers: !reads.members})
		if err != nil {
			return nil, err
		}
		list = some
	}
	for _, typ := range sortedKeys(reads.types) {
		if reads.all && (typ != event.TypeMember || reads.members) {
			continue
		}
		some, err := rd.StateUpTo(ctx, sec.r.id, sec.to, room.StateOptions{Type: typ})
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	var keys []room.StateAt
	for k := range reads.keys {
		if !reads.types[k.Type] && (!reads.all || k.Type == event.TypeMember && !reads.members) {
			keys = append(keys, room.StateAt{StateKey: k, UpTo: sec.to})
		}
	}
	some, err := rd.StateEventsAt(ctx, sec.r.id, keys...)
	if err != nil {
		return nil, err
	}
	list = append(list, some...)
	list = slices.DeleteFunc(list, func(e *room.Stored) bool { return !q.matches(e) || has != nil && has.matches(e) })
	slices.SortFunc(list, func(a, b *room.Stored) int { return cmp.Compare(a.Seq, b.Seq) })
	return list, nil
}

// stateChange is what a client learns of the state of a room.
type stateChange struct {
	list []*room.Stored
	// types are those that changed; all if it is not known which.
	types map[string]bool
	all   bool
}

func (c *stateChange) has(types ...string) bool {
	return c.all || slices.ContainsFunc(types, func(t string) bool { return c.types[t] })
}

// readRequired collects the state for a client that knows the room up to a position
// and has what another required_state asked for; nil if it has nothing.
func (sec *section) readRequired(ctx context.Context, q, has *required, from ids.Seq) (*stateChange, error) {
	c := &stateChange{all: has == nil, types: make(map[string]bool)}
	if has != nil {
		changed, more, err := sec.s.h.stateChanges(ctx, sec.r.id, from, sec.to, maxStateChanges)
		if err != nil {
			return nil, err
		}
		for _, e := range changed {
			c.types[e.Type] = true
			if q.matches(e) {
				c.list = append(c.list, e)
			}
		}
		c.all = more
	}
	var err error
	switch {
	case c.all:
		c.list, err = sec.requiredState(ctx, q, nil)
	case has.key != q.key:
		var more []*room.Stored
		more, err = sec.requiredState(ctx, q, has)
		c.list = append(c.list, more...)
	}
	if err == nil && q.lazy {
		var members []*room.Stored
		members, err = sec.lazyMembers(ctx, has == nil, nil)
		c.list = append(c.list, members...)
	}
	c.list = onceEach(c.list)
	return c, err
}

// onceEach leaves out what is there twice: required in two ways.
func onceEach(list []*room.Stored) []*room.Stored {
	seen := make(map[ids.Seq]bool, len(list))
	return slices.DeleteFunc(list, func(e *room.Stored) bool {
		twice := seen[e.Seq]
		seen[e.Seq] = true
		return twice
	})
}

// appendStates writes state, as elements of a list.
func (sec *section) appendStates(b []byte, list []*room.Stored) []byte {
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = sec.s.appendEvent(b, e, room.Viewer{User: sec.s.req.User, Device: sec.s.req.Device, Erasures: sec.erasures()})
	}
	return b
}
