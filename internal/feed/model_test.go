package feed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// step is something that one user does. What the rules forbid does not happen.
type step struct {
	kind   int
	room   int
	target int
}

const (
	stepSay = iota
	stepMention
	stepName
	stepTopic
	stepJoin
	stepLeave
	stepKick
	stepBan
	stepInvite
	stepRedact
	stepRead
	stepData
	stepProfile
	stepCreate
	stepKinds
)

// play is a model run: what the users do, and who follows it how.
type play struct {
	w     *world
	users []ids.UserID

	mu struct {
		sync.Mutex
		rooms []ids.RoomID
	}
}

func (p *play) addRoom(r ids.RoomID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.rooms = append(p.mu.rooms, r)
}

func (p *play) all() []ids.RoomID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.rooms)
}

// act does one step; n makes what it writes unique.
func (p *play) act(user ids.UserID, s step, n int) {
	rooms := p.all()
	r, target := rooms[s.room%len(rooms)], p.users[s.target%len(p.users)]
	send := func(d draftOf) { _, _ = p.w.sendDraft(r, d) }
	switch s.kind {
	case stepSay:
		send(message(user, fmt.Sprint(user, n)))
	case stepMention:
		send(message(user, fmt.Sprint(user, n), target))
	case stepName:
		send(state(user, event.TypeName, "", fmt.Sprintf(`{"name":"%d"}`, n)))
	case stepTopic:
		send(state(user, event.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, n)))
	case stepJoin:
		if p.membership(r, user) != event.Join {
			send(membership(user, user, event.Join))
		}
	case stepLeave:
		send(membership(user, user, event.Leave))
	case stepKick:
		send(membership(user, target, event.Leave))
	case stepBan:
		send(membership(user, target, event.Ban))
	case stepInvite:
		send(membership(user, target, event.Invite))
	case stepRedact, stepRead:
		events := p.w.timeline(r)
		e := events[len(events)-1-s.target%min(len(events), 5)]
		if s.kind == stepRead {
			_, _ = p.w.do(&room.SetReceipt{Room: r, User: user, Type: room.ReceiptRead, Event: e.ID})
		} else if e.Type == event.TypeMessage {
			_, _ = p.w.do(redaction(r, user, e.ID))
		}
	case stepData:
		_, _ = p.w.do(account.NewSetData(user, r, "test", fmt.Appendf(nil, `{"v":%d}`, n)))
	case stepProfile:
		if p.membership(r, user) == event.Join {
			send(state(user, event.TypeMember, string(user), fmt.Sprintf(`{"displayname":"%d","membership":"join"}`, n)))
		}
	case stepCreate:
		p.addRoom(p.w.create(user, []string{"shared", "joined"}[s.target%2]))
	}
}

func (p *play) membership(r ids.RoomID, u ids.UserID) event.Membership {
	e, err := p.w.rooms.StateEvent(ctx, r, event.TypeMember, string(u))
	if err != nil || e == nil {
		return event.NoMembership
	}
	return e.Member().Membership
}

// slowStore takes its time to commit, so that what belongs together is often seen
// apart. One partition, if it has so many, takes longer: the lists of rooms there
// are far behind the rooms, as they are when a server begins anew with the effects
// of the one that crashed.
type slowStore struct {
	storage.Store
	lagging ids.Partition
}

func (s slowStore) Commit(ctx context.Context, p ids.Partition, e ids.Epoch, b *storage.Batch) error {
	switch {
	case p == s.lagging:
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	case rand.IntN(3) == 0:
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	}
	return s.Store.Commit(ctx, p, e, b)
}

// follower is a client. It keeps what it was told, in order.
type follower struct {
	p       *play
	name    string
	user    ids.UserID
	device  ids.DeviceID
	hub     int // the hub it asks, -1 for one after another
	filter  string
	rng     *rand.Rand
	since   string
	marks   map[string]string
	told    []*response
	sockets bool // now
	pushed  bool // ever
}

func (f *follower) hubNow() *Hub {
	if f.hub >= 0 {
		return f.p.w.hubs[f.hub]
	}
	return f.p.w.hubs[f.rng.IntN(len(f.p.w.hubs))]
}

func (f *follower) token() string {
	t := f.since
	for p, at := range f.marks {
		t += markSeparator + p + "." + at
	}
	return t
}

// take applies a response, as a client would.
func (f *follower) take(r *response) {
	f.told = append(f.told, r)
	if r.NextBatch != "" {
		f.since, f.marks = r.NextBatch, map[string]string{}
	} else if len(r.Mark) == 2 {
		f.marks[r.Mark[0]] = r.Mark[1]
	}
}

// ask polls once. Some responses are lost on the way.
func (f *follower) ask(timeout time.Duration) (empty bool) {
	r := f.p.w.poll(f.hubNow(), &Request{User: f.user, Device: f.device, Timeout: timeout}, f.token(), f.filter)
	if timeout > 0 && f.rng.IntN(5) == 0 {
		return false
	}
	f.take(r)
	return len(r.Rooms.Join)+len(r.Rooms.Leave) == 0
}

// run follows until the play is over, and then to the end.
func (f *follower) run(over <-chan struct{}) {
	if f.sockets {
		f.listen(over)
		return
	}
	for {
		select {
		case <-over:
			for !f.ask(0) {
			}
			return
		default:
			f.ask(time.Duration(f.rng.IntN(5)) * time.Millisecond)
			f.upset()
		}
	}
}

// upset now and then makes a hub forget the user.
func (f *follower) upset() {
	if f.rng.IntN(20) > 0 {
		return
	}
	h := f.hubNow()
	h.mu.Lock()
	v := h.mu.users[f.user]
	h.mu.Unlock()
	if v != nil {
		h.discard(v)
	}
}

// listen follows over sockets that take little at a time and break.
func (f *follower) listen(over <-chan struct{}) {
	for ended := false; ; {
		k := newSink(f.rng.IntN(4))
		s, err := f.hubNow().Open(ctx, Open{User: f.user, Device: f.device, Since: f.since, Marks: f.marks, Filter: f.filter}, k)
		if err != nil {
			f.p.w.t.Fatalf("%s: open: %v", f.name, err)
		}
		for range 1 + f.rng.IntN(20) {
			select {
			case <-k.arrived:
			case <-over:
				ended = true
			case <-time.After(time.Millisecond):
			}
			frames := k.take()
			broken := f.rng.IntN(10) == 0
			if broken {
				frames = frames[:f.rng.IntN(len(frames)+1)] // the rest is lost with the connection
			}
			for _, b := range frames {
				f.take(parse(f.p.w.t, b))
			}
			if broken || ended {
				break
			}
			k.drain(s, f.rng.IntN(4))
			f.upset()
		}
		s.Close()
		if ended {
			break
		}
	}
	f.sockets = false
	// Behind the last frame there is nothing that a poll from there would not tell.
	for !f.ask(0) {
	}
}

type draftOf = roomstate.Draft

// Whatever happens at the same time, and however a client follows it, it is told
// the truth: each room in order, without a gap but where it is told of one, nothing
// twice, nothing from behind the end of a stay, and the state, the counts and the
// summary that go with it.
func TestEveryoneIsToldTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lagging := ids.Partition(rapid.IntRange(0, partitions).Draw(t, "lagging"))
		p := &play{w: newWorld(t, slowStore{memstore.New(clock.Real{}), lagging}), users: []ids.UserID{alice, bob, carol, "@dave:h"}}
		defer p.w.close()
		chance := rapid.SampledFrom([]float64{0, 0.1, 0.5})
		for i := range 2 {
			b := newFaultyBus(p.w.bus, uint64(i))
			b.chances(chance.Draw(t, "drop"), chance.Draw(t, "double"), chance.Draw(t, "hold"), chance.Draw(t, "raw"))
			p.w.follow(b)
		}
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
		var followers []*follower
		for i, n := 0, rapid.IntRange(2, 5).Draw(t, "followers"); i < n; i++ {
			f := &follower{
				p: p, name: fmt.Sprint("follower", i), marks: map[string]string{},
				user:   p.users[rapid.IntRange(0, 3).Draw(t, "follows")],
				device: ids.DeviceID(fmt.Sprint("D", i)),
				hub:    rapid.IntRange(-1, 1).Draw(t, "hub"),
				filter: rapid.SampledFrom([]string{
					"", `{"room":{"timeline":{"limit":1}}}`, `{"room":{"timeline":{"limit":3}}}`,
					`{"room":{"timeline":{"limit":50},"state":{"lazy_load_members":true}}}`,
					`{"room":{"timeline":{"limit":2},"state":{"lazy_load_members":true}}}`,
					`{"room":{"timeline":{"limit":5,"types":["m.room.message"]}}}`,
				}).Draw(t, "filter"),
				rng:     rand.New(rand.NewPCG(uint64(i), 7)),
				sockets: rapid.Bool().Draw(t, "socket"),
			}
			f.pushed = f.sockets
			f.name += fmt.Sprintf(" (%s, hub %d, socket %t, filter %s)", f.user, f.hub, f.sockets, f.filter)
			followers = append(followers, f)
			readers.Go(func() { f.run(over) })
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
		close(over)
		readers.Wait()
		p.judge(followers, bobs)
	})
}

// wishes are what a user wants to hear nothing of.
type wishes struct {
	ignored map[ids.UserID]bool
	blocks  bool // all invites
}

// bobsWishes has bob ignore carol, or block invites, or both, or neither.
func (p *play) bobsWishes(t *rapid.T) wishes {
	var bobs wishes
	if rapid.Bool().Draw(t, "ignores") {
		bobs.ignored = map[ids.UserID]bool{carol: true}
		p.w.must(account.NewSetData(bob, "", TypeIgnored, []byte(`{"ignored_users":{"@carol:h":{}}}`)))
	}
	if bobs.blocks = rapid.Bool().Draw(t, "blocks"); bobs.blocks {
		p.w.must(account.NewSetData(bob, "", account.TypeInvitePermission, []byte(`{"default_action":"block"}`)))
	}
	return bobs
}

func (p *play) judge(followers []*follower, bobs wishes) {
	p.w.t.Helper()
	truths := make(map[ids.RoomID]*truth)
	for _, r := range p.all() {
		truths[r] = p.w.truth(r)
	}
	for _, f := range followers {
		j := &judge{w: p.w, name: f.name, user: f.user, pushes: f.pushed, rooms: make(map[ids.RoomID]*followed), truths: truths}
		if f.user == bob {
			j.wishes = bobs
		}
		var err error
		if j.filter, err = p.w.hub.LoadFilter(ctx, f.user, f.filter); err != nil {
			p.w.t.Fatalf("filter: %v", err)
		}
		for _, r := range f.told {
			j.take(r)
		}
		j.end()
	}
}
