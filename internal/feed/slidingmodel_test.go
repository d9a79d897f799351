package feed

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// slidingAnswer is a response of sliding sync.
type slidingAnswer struct {
	Pos   string                      `json:"pos"`
	Rooms map[ids.RoomID]*slidingTold `json:"rooms"`
}

type slidingTold struct {
	Membership event.Membership `json:"membership"`
	Initial    bool             `json:"initial"`
	Expanded   bool             `json:"unstable_expanded_timeline"`
	Limited    bool             `json:"limited"`
	Live       int              `json:"num_live"`
	State      []clientEvent    `json:"required_state"`
	Timeline   []clientEvent    `json:"timeline"`
	Notify     *int             `json:"notification_count"`
	Highlight  *int             `json:"highlight_count"`
	Joined     *int             `json:"joined_count"`
	Invited    *int             `json:"invited_count"`
}

// slider is a client of sliding sync: what it was told, and what it made of it.
type slider struct {
	p    *play
	name string
	user ids.UserID
	conn string
	rng  *rand.Rand
	pos  string
	told []*slidingAnswer
}

// request looks at some of the rooms, or at all.
func (s *slider) request(all bool) *SlidingRequest {
	any := RequiredState{Include: []StatePattern{{}}}
	l := SlidingList{Name: "l", RoomConfig: RoomConfig{Limit: []int{1, 3, 20}[s.rng.IntN(3)], State: any}}
	if !all && s.rng.IntN(2) == 0 {
		first := s.rng.IntN(2)
		l.Ranges = [][2]int{{first, first + s.rng.IntN(2)}}
	}
	r := &SlidingRequest{User: s.user, Device: "D", Conn: s.conn, Pos: s.pos, Lists: []SlidingList{l}}
	if rooms := s.p.all(); !all && s.rng.IntN(3) == 0 {
		r.Subscriptions = map[ids.RoomID]*RoomConfig{rooms[s.rng.IntN(len(rooms))]: {Limit: 10, State: any}}
	}
	r.Extensions.Receipts.Enabled, r.Extensions.AccountData.Enabled = true, true
	return r
}

// ask asks once; some responses are lost on the way.
func (s *slider) ask(all bool, timeout time.Duration) (empty bool) {
	req := s.request(all)
	req.Timeout = timeout
	b, err := s.p.w.hub.Slide(ctx, req)
	if errors.Is(err, ErrUnknownPosition) && s.pos == "" {
		return false
	}
	if err != nil {
		s.p.w.t.Fatalf("%s: %v", s.name, err)
	}
	if !all && s.rng.IntN(4) == 0 {
		return false
	}
	a := &slidingAnswer{}
	if err := json.Unmarshal(b, a); err != nil {
		s.p.w.t.Fatalf("%s: %v\n%s", s.name, err, b)
	}
	s.pos = a.Pos
	s.told = append(s.told, a)
	return len(a.Rooms) == 0
}

func (s *slider) run(over <-chan struct{}) {
	for {
		select {
		case <-over:
			for !s.ask(true, 0) {
			}
			return
		default:
			s.ask(false, time.Duration(s.rng.IntN(5))*time.Millisecond)
			if s.rng.IntN(20) == 0 {
				h := s.p.w.hub
				h.mu.Lock()
				v := h.mu.users[s.user]
				h.mu.Unlock()
				if v != nil {
					h.discard(v)
				}
			}
			if s.rng.IntN(40) == 0 {
				s.pos = "" // the client forgot where it was
				s.told = append(s.told, nil)
			}
		}
	}
}

// slidRoom is a room as the client knows it.
type slidRoom struct {
	in                                 bool
	pos                                ids.Seq
	state                              map[stateID]ids.EventID
	notify, highlight, joined, invited int
}

// judge follows what the client was told, and compares it with the rooms.
func (s *slider) judge(truths map[ids.RoomID]*truth, of wishes) {
	t := s.p.w.t
	t.Helper()
	rooms := make(map[ids.RoomID]*slidRoom)
	for n, a := range s.told {
		if a == nil {
			clear(rooms)
			continue
		}
		for id, r := range a.Rooms {
			if of.blocks && r.Membership == event.Invite {
				t.Fatalf("%s: response %d: %s: told of an invite", s.name, n, id)
			}
			if err := s.take(rooms, truths[id], r, of.ignored); err != nil {
				t.Fatalf("%s: response %d: %s: %v", s.name, n, id, err)
			}
		}
	}
	for id, tr := range truths {
		end := tr.events[len(tr.events)-1].Seq
		in := tr.membership(s.user, end) == event.Join
		f := rooms[id]
		if known := f != nil && f.in; known != in {
			t.Fatalf("%s: %s: is in %t, was told %t", s.name, id, in, known)
		}
		if !in {
			continue
		}
		if rest := s.between(tr, f.pos, end, of.ignored); len(rest) > 0 {
			t.Fatalf("%s: %s: never told %v", s.name, id, rest)
		}
		if want := tr.state(end); !maps.Equal(f.state, want) {
			t.Fatalf("%s: %s: has the state %v, want %v", s.name, id, f.state, want)
		}
		if f.joined != tr.head.Joined || f.invited != tr.head.Invited {
			t.Fatalf("%s: %s: told %d and %d members, are %d and %d", s.name, id, f.joined, f.invited, tr.head.Joined, tr.head.Invited)
		}
		if notify, _ := tr.unread(s.p.w, s.user, of.ignored); f.notify != notify {
			t.Fatalf("%s: %s: told %d unread, are %d", s.name, id, f.notify, notify)
		}
	}
}

func (s *slider) between(tr *truth, after, upTo ids.Seq, ignored map[ids.UserID]bool) (out []ids.EventID) {
	for _, e := range tr.events {
		if e.Seq > after && e.Seq <= upTo && (e.StateKey != nil || !ignored[e.Sender]) {
			out = append(out, e.ID)
		}
	}
	return out
}

func (s *slider) take(rooms map[ids.RoomID]*slidRoom, tr *truth, r *slidingTold, ignored map[ids.UserID]bool) error {
	f := rooms[tr.id]
	if f == nil || r.Initial {
		if !r.Initial {
			return errors.New("told a change of what is not known")
		}
		f = &slidRoom{state: make(map[stateID]ids.EventID)}
		rooms[tr.id] = f
	}
	f.in = r.Membership == event.Join
	if f.in || len(r.Timeline) > 0 {
		if err := s.timeline(f, tr, r, ignored); err != nil {
			return err
		}
	}
	for i := range r.State {
		e := &r.State[i]
		f.state[stateID{e.Type, *e.StateKey}] = e.ID
	}
	for _, n := range []struct{ from, to *int }{{r.Notify, &f.notify}, {r.Highlight, &f.highlight}, {r.Joined, &f.joined}, {r.Invited, &f.invited}} {
		if n.from != nil {
			*n.to = *n.from
		}
	}
	if !f.in && r.Membership != event.Invite {
		delete(rooms, tr.id)
	}
	return nil
}

// timeline checks that a timeline goes on where the client is, in order, without a gap
// but where it is told of one, and shows nothing that the user may not see.
func (s *slider) timeline(f *slidRoom, tr *truth, r *slidingTold, ignored map[ids.UserID]bool) error {
	if len(r.Timeline) == 0 {
		return nil
	}
	list := eventIDs(r.Timeline)
	first, last := tr.at[list[0]], tr.at[list[len(list)-1]]
	if want := s.between(tr, first-1, last, ignored); !slices.Equal(list, want) {
		return fmt.Errorf("told %v, which is not all of %v", list, want)
	}
	for _, id := range list {
		if !tr.maySee(s.user, tr.event(tr.at[id]), last) {
			return fmt.Errorf("told %s, which the user may not see", id)
		}
	}
	begins := r.Initial || r.Expanded || !f.in
	switch {
	case !begins && first <= f.pos:
		return fmt.Errorf("told %d again after %d", first, f.pos)
	case !begins && !r.Limited && len(s.between(tr, f.pos, first-1, ignored)) > 0:
		return fmt.Errorf("a gap between %d and %d that was not told", f.pos, first)
	case r.Expanded && last < f.pos:
		return fmt.Errorf("grown, but ends at %d before %d", last, f.pos)
	}
	if live := len(s.between(tr, max(f.pos, first-1), last, ignored)); !r.Initial && f.in && f.pos > 0 && live != r.Live {
		return fmt.Errorf("%d live events, want %d", r.Live, live)
	}
	f.pos = max(f.pos, last)
	return nil
}

// settled waits until the lists of the users say what the rooms do.
func (p *play) settled() {
	lists := account.NewReader(p.w.store, partitions)
	for _, r := range p.all() {
		for _, u := range p.users {
			for {
				own, err := p.w.rooms.StateEvent(ctx, r, event.TypeMember, string(u))
				if err != nil {
					p.w.t.Fatalf("member: %v", err)
				}
				m, err := lists.Membership(ctx, u, r)
				if err != nil {
					p.w.t.Fatalf("membership: %v", err)
				}
				if own == nil || m != nil && m.RoomSeq >= own.Seq {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// Whatever happens at the same time, whatever a client looks at and whichever responses
// are lost: what it was told is the truth of the rooms, once.
func TestSlidersAreToldTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lagging := ids.Partition(rapid.IntRange(0, partitions).Draw(t, "lagging"))
		p := &play{w: newWorld(t, slowStore{memstore.New(clock.Real{}), lagging}), users: []ids.UserID{alice, bob, carol, "@dave:h"}}
		defer p.w.close()
		b := newFaultyBus(p.w.bus, 1)
		chance := rapid.SampledFrom([]float64{0, 0.1, 0.5})
		b.chances(chance.Draw(t, "drop"), chance.Draw(t, "double"), chance.Draw(t, "hold"), chance.Draw(t, "raw"))
		p.w.follow(b)
		bobs := p.bobsWishes(t)
		for i := range 2 {
			p.addRoom(p.w.create(p.users[i], []string{"shared", "joined"}[i]))
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				rapid.IntRange(0, stepKinds-1).Draw(t, "kind"), rapid.IntRange(0, 3).Draw(t, "room"), rapid.IntRange(0, 7).Draw(t, "target"),
			}
		}), 5, 25)
		var actors, readers sync.WaitGroup
		over := make(chan struct{})
		var sliders []*slider
		for i := range rapid.IntRange(1, 4).Draw(t, "sliders") {
			s := &slider{
				p: p, user: p.users[rapid.IntRange(0, 3).Draw(t, "follows")], conn: fmt.Sprint(i), rng: rand.New(rand.NewPCG(uint64(i), rapid.Uint64().Draw(t, "seed"))),
			}
			s.name = fmt.Sprint("slider ", i, " of ", s.user)
			sliders = append(sliders, s)
			readers.Go(func() { s.run(over) })
		}
		for _, u := range p.users {
			list := steps.Draw(t, string(u))
			actors.Go(func() {
				for i, s := range list {
					p.act(u, s, i)
				}
			})
		}
		actors.Wait()
		p.settled()
		close(over)
		readers.Wait()
		truths := make(map[ids.RoomID]*truth)
		for _, r := range p.all() {
			truths[r] = p.w.truth(r)
		}
		for _, s := range sliders {
			if s.user == bob {
				s.judge(truths, bobs)
			} else {
				s.judge(truths, wishes{})
			}
		}
	})
}
