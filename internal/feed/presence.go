package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Presence is whether a user is there. spec: client-server §Presence.
type Presence string

// The states of presence, the least present first.
const (
	Offline     Presence = "offline"
	Unavailable Presence = "unavailable"
	Online      Presence = "online"
)

// Limits of presence. It is the one thing that everyone tells everyone, so all of
// it is bounded.
const (
	// presenceEvery is how often others are told of one user at most; what changed
	// in the meantime is told then, once.
	presenceEvery = 2 * time.Second
	// presenceTick is how often it is looked who is to be told of.
	presenceTick = 200 * time.Millisecond
	// presencePerTick bounds the users that are told of in one tick.
	presencePerTick = 100
	// presenceRooms bounds the rooms of one user in which it is told, and
	// presenceAudience the people in a room: in larger ones nobody asks who is there,
	// and each change would reach thousands.
	presenceRooms    = 100
	presenceAudience = 200
	// presenceTold bounds how many one change reaches.
	presenceTold = 1000
	// presenceNoted bounds the users that a view remembers as changed, which are
	// looked through at each change.
	presenceNoted = 500
	// presenceGrace is how long a user stays present without a request: clients
	// that poll are away between two.
	presenceGrace = 30 * time.Second
	// presenceIdle is without any action, after which who is online counts as
	// unavailable; activeFor is how long an action makes a user currently active.
	presenceIdle = 5 * time.Minute
	activeFor    = time.Minute
	// activeStep is by how much the time of the last action may be out of date.
	activeStep = 15 * time.Second
	// presenceRepeat is how often nodes tell each other who is still there, and
	// remoteGrace how long that is believed.
	presenceRepeat = 2 * time.Minute
	remoteGrace    = 5 * time.Minute
	// presenceForget is how long it is known when a user was last seen.
	presenceForget = time.Hour
)

const presenceSubject = "presence"

// PresenceNotice tells the other nodes how present a user is on one node. Like
// typing it is a hint: nothing of it is stored.
type PresenceNotice struct {
	User  ids.UserID
	State Presence
	// Said is what the user said, wherever that was.
	Said account.Presence
	// Active is the time of the last action.
	Active time.Time
	Node   ids.NodeID
}

var _ bus.Payload = (*PresenceNotice)(nil)

// MarshalBinary implements bus.Payload.
func (n *PresenceNotice) MarshalBinary() ([]byte, error) { return json.Marshal(n) }

// PresenceState is how present a user is.
type PresenceState struct {
	Presence Presence
	// Status is what the user says about it.
	Status string
	// Active is the time of the last action, zero if not known.
	Active time.Time
	// Currently: that was just now.
	Currently bool
}

// present is what a node knows of one user. There is one for each who is there.
type present struct {
	// devices are those of this node, and a place for each other node. People have few: a
	// list takes a quarter of what a map does.
	devices []*presentDevice
	// said is what the user said last, as far as is known; asked: what is stored was
	// read.
	said   account.Presence
	asked  bool
	active time.Time
	// told is what others were told, at a time; repeated is when the other nodes
	// were told last.
	told             toldPresence
	toldAt, repeated moment
}

// toldPresence is the part of a PresenceState that is told when it changes.
type toldPresence struct {
	presence  Presence
	status    string
	currently bool
}

func (st *PresenceState) told() toldPresence {
	return toldPresence{st.Presence, st.Status, st.Currently}
}

type presentDevice struct {
	name   string
	state  Presence
	seen   moment
	open   int32 // requests and sockets under way
	remote bool  // it stands for another node
}

func (d *presentDevice) grace() time.Duration {
	if d.remote {
		return remoteGrace
	}
	return presenceGrace
}

// gone reports whether nobody is there any more.
func (d *presentDevice) gone(now moment) bool { return d.open == 0 && now.sub(d.seen) > d.grace() }

// presence is who is there, as far as this node knows.
//
// A change marks its user; a goroutine tells of the marked users, a few at a time.
// What a client has been told is numbered by the counter of the typing notices, so
// that one number in a token serves both: a view draws a number when it notes a
// user, under the lock under which it is read.
type presence struct {
	hub *Hub
	sub bus.Subscription

	mu struct {
		sync.Mutex
		users map[ids.UserID]*present
		dirty map[ids.UserID]struct{}
	}
}

func (p *presence) init(h *Hub) {
	p.hub = h
	p.mu.users = make(map[ids.UserID]*present)
	p.mu.dirty = make(map[ids.UserID]struct{})
}

func (p *presence) start() error {
	if !p.hub.opts.Presence {
		return nil
	}
	sub, err := p.hub.opts.Bus.Subscribe(presenceSubject, func(m bus.Payload) {
		n, ok := m.(*PresenceNotice)
		if raw, isRaw := m.(bus.Raw); isRaw {
			n = &PresenceNotice{}
			ok = json.Unmarshal(raw, n) == nil
		}
		if ok && n.Node != p.hub.opts.Node {
			p.remote(n)
		}
	})
	if err != nil {
		return fmt.Errorf("follow presence: %w", err)
	}
	p.sub = sub
	p.hub.wg.Go(p.loop)
	return nil
}

func (p *presence) close() {
	if p.sub != nil {
		p.sub.Close()
	}
}

// userLocked returns what is known of a user, to be changed.
func (p *presence) userLocked(u ids.UserID) *present {
	s := p.mu.users[u]
	if s == nil {
		s = &present{toldAt: longAgo, repeated: longAgo}
		s.told.presence = Offline
		p.mu.users[u] = s
	}
	return s
}

func (s *present) device(name string, remote bool) *presentDevice {
	for _, d := range s.devices {
		if d.name == name {
			return d
		}
	}
	d := &presentDevice{name: name, remote: remote, seen: longAgo}
	s.devices = append(s.devices, d)
	return d
}

// saidBy takes what the user said if it is newer than what is known: what one node
// says may be on its way for longer than what another says after it.
func (s *present) saidBy(said *account.Presence) {
	s.asked = true
	if said.TS > s.said.TS {
		s.said = *said
	}
}

// state is how present the user is at a time.
func (p *presence) state(s *present, now time.Time) PresenceState {
	out := PresenceState{Presence: Offline, Status: s.said.Status, Active: s.active}
	for _, d := range s.devices {
		if d.gone(p.hub.moment(now)) {
			continue
		}
		if d.state == Online || out.Presence == Offline {
			out.Presence = d.state
		}
	}
	quiet := now.Sub(s.active)
	if out.Presence == Online && quiet > presenceIdle {
		out.Presence = Unavailable
	}
	out.Currently = out.Presence == Online && quiet < activeFor
	return out
}

// checkLocked marks a user of whom there is something to tell.
func (p *presence) checkLocked(u ids.UserID, s *present, now time.Time) {
	if st := p.state(s, now); st.told() != s.told {
		p.mu.dirty[u] = struct{}{}
	}
}

// begin notes that a device is there with a state, until end is called with what it
// returns and a while beyond.
func (p *presence) begin(u ids.UserID, device ids.DeviceID, state Presence) *presentDevice {
	if !p.hub.opts.Presence || state == Offline {
		return nil
	}
	if state != Unavailable {
		state = Online
	}
	now := p.hub.opts.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.userLocked(u)
	d := s.device(string(device), false)
	if p.state(s, now).Presence == Offline {
		s.active = now // who comes back is active
	}
	d.state, d.seen = state, p.hub.moment(now)
	d.open++
	p.checkLocked(u, s, now)
	return d
}

// end notes that what begin returned device for is over, unless that was noted.
func (p *presence) end(device **presentDevice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := *device; d != nil {
		d.open--
		d.seen = p.hub.moment(p.hub.opts.Clock.Now())
		*device = nil
	}
}

// SetPresence is what a user says of themselves; said is what is stored of that now,
// nil to leave it as it is.
func (h *Hub) SetPresence(u ids.UserID, device ids.DeviceID, state Presence, said *account.Presence) {
	p := &h.presence
	now := h.opts.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.userLocked(u)
	d := s.device(string(device), false)
	d.state, d.seen = state, h.moment(now)
	if state == Online {
		s.active = now
	}
	if said != nil {
		s.saidBy(said)
	}
	p.checkLocked(u, s, now)
}

// Active notes that a user did something. It is cheap: callers need not ask
// whether it matters.
func (h *Hub) Active(u ids.UserID) {
	if !h.opts.Presence {
		return
	}
	p := &h.presence
	now := h.opts.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.mu.users[u]; s != nil && now.Sub(s.active) > activeStep {
		s.active = now
		p.checkLocked(u, s, now)
	}
}

// remote takes what another node says.
func (p *presence) remote(n *PresenceNotice) {
	now := p.hub.opts.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.userLocked(n.User)
	d := s.device("\x00"+string(n.Node), true)
	d.state, d.seen = n.State, p.hub.moment(now)
	s.saidBy(&n.Said)
	if n.Active.After(s.active) {
		s.active = n.Active
	}
	p.checkLocked(n.User, s, now)
}

// PresenceOf returns how present a user is.
func (h *Hub) PresenceOf(ctx context.Context, u ids.UserID) (PresenceState, error) {
	if !h.opts.Presence {
		return PresenceState{Presence: Offline}, nil
	}
	p := &h.presence
	p.mu.Lock()
	s := p.mu.users[u]
	if s != nil && s.asked {
		defer p.mu.Unlock()
		return p.state(s, h.opts.Clock.Now()), nil
	}
	p.mu.Unlock()
	stored, err := h.accounts.Presence(ctx, u)
	if err != nil {
		return PresenceState{}, err
	}
	if stored == nil {
		stored = &account.Presence{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s = p.mu.users[u]; s == nil {
		st := PresenceState{Presence: Offline, Status: stored.Status}
		if stored.TS != 0 {
			st.Active = time.UnixMilli(stored.TS)
		}
		return st, nil
	}
	s.saidBy(stored)
	return p.state(s, h.opts.Clock.Now()), nil
}

func (p *presence) loop() {
	tick := time.NewTicker(presenceTick)
	defer tick.Stop()
	for {
		select {
		case <-p.hub.ctx.Done():
			return
		case <-tick.C:
			for _, u := range p.due() {
				if err := p.tell(p.hub.ctx, u); err != nil && p.hub.ctx.Err() == nil {
					p.hub.opts.Log.Warn("tell presence", "user", u, "error", err)
				}
			}
		}
	}
}

// due takes marked users whom others may be told of now.
func (p *presence) due() []ids.UserID {
	now := p.hub.moment(p.hub.opts.Clock.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []ids.UserID
	for u := range p.mu.dirty {
		if len(out) == presencePerTick {
			break
		}
		if s := p.mu.users[u]; s == nil || now.sub(s.toldAt) >= presenceEvery {
			delete(p.mu.dirty, u)
			out = append(out, u)
		}
	}
	return out
}

// tell tells those who share a room with a user, and the other nodes.
func (p *presence) tell(ctx context.Context, u ids.UserID) error {
	st, err := p.hub.PresenceOf(ctx, u)
	if err != nil {
		return err
	}
	now := p.hub.opts.Clock.Now()
	p.mu.Lock()
	if s := p.mu.users[u]; s != nil {
		s.told, s.toldAt = st.told(), p.hub.moment(now)
	}
	notice := p.noticeLocked(u, now)
	p.mu.Unlock()
	if notice != nil {
		// A lost one is repeated later.
		_ = p.hub.opts.Bus.Publish(presenceSubject, notice)
	}
	rooms, err := p.hub.accounts.Joined(ctx, u)
	if err != nil {
		return err
	}
	rooms = rooms[:min(len(rooms), presenceRooms)]
	told := st.event(u, now)
	if also := p.hub.opts.Present; also != nil {
		also(u, told, rooms)
	}
	frame := append(append([]byte(`{"op":"sync","presence":{"events":[`), told...), `]}}`...)
	seen := make(map[*view]bool)
	for _, r := range rooms {
		for _, v := range p.audience(r) {
			if !seen[v] && len(seen) < presenceTold {
				seen[v] = true
				v.presenceChanged(u, frame)
			}
		}
	}
	return nil
}

// noticeLocked is what other nodes are told: what the devices of this node say.
// nil if they say nothing.
func (p *presence) noticeLocked(u ids.UserID, now time.Time) *PresenceNotice {
	s := p.mu.users[u]
	if s == nil {
		return nil
	}
	own := *s
	own.devices = nil
	for _, d := range s.devices {
		if !d.remote {
			own.devices = append(own.devices, d)
		}
	}
	if len(own.devices) == 0 {
		return nil
	}
	s.repeated = p.hub.moment(now)
	return &PresenceNotice{User: u, State: p.state(&own, now).Presence, Said: s.said, Active: s.active, Node: p.hub.opts.Node}
}

// audience are the views in a room that is small enough.
func (p *presence) audience(r ids.RoomID) []*view {
	s := p.hub.shardOf(string(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mu.rooms[r]
	if a == nil || len(a.seats) > presenceAudience {
		return nil
	}
	out := make([]*view, len(a.seats))
	for i, st := range a.seats {
		out[i] = st.view
	}
	return out
}

// expire looks who has gone in the meantime, and repeats to other nodes who has not.
func (p *presence) expire(now time.Time) {
	var repeat []*PresenceNotice
	p.mu.Lock()
	for u, s := range p.mu.users {
		s.devices = slices.DeleteFunc(s.devices, func(d *presentDevice) bool { return d.gone(p.hub.moment(now)) })
		p.checkLocked(u, s, now)
		_, dirty := p.mu.dirty[u]
		switch {
		case dirty:
		case len(s.devices) == 0 && now.Sub(s.active) > presenceForget:
			delete(p.mu.users, u)
		case len(s.devices) > 0 && p.hub.moment(now).sub(s.repeated) > presenceRepeat:
			if n := p.noticeLocked(u, now); n != nil {
				repeat = append(repeat, n)
			}
		}
	}
	p.mu.Unlock()
	for _, n := range repeat {
		_ = p.hub.opts.Bus.Publish(presenceSubject, n)
	}
}

// event is the m.presence event of a user. spec: client-server §m.presence.
func (st *PresenceState) event(u ids.UserID, now time.Time) []byte {
	b := append([]byte(`{"content":`), st.AppendContent(nil, now)...)
	b = event.AppendString(append(b, `,"sender":`...), u)
	return append(b, `,"type":"m.presence"}`...)
}

// AppendContent appends the state as the specification has it.
func (st *PresenceState) AppendContent(b []byte, now time.Time) []byte {
	b = append(b, `{"currently_active":`...)
	b = strconv.AppendBool(b, st.Currently)
	if !st.Active.IsZero() {
		b = strconv.AppendInt(append(b, `,"last_active_ago":`...), max(now.Sub(st.Active).Milliseconds(), 0), 10)
	}
	b = event.AppendString(append(b, `,"presence":`...), st.Presence)
	if st.Status != "" {
		b = event.AppendString(append(b, `,"status_msg":`...), st.Status)
	}
	return append(b, '}')
}

// notePresenceLocked notes that the client has to learn how present a user is.
func (v *view) notePresenceLocked(u ids.UserID) {
	if !v.hub.opts.Presence {
		return
	}
	at := v.hub.typing.next()
	if i := slices.IndexFunc(v.mu.present, func(c presentChange) bool { return c.user == u }); i >= 0 {
		v.mu.present[i].at = at
		return
	}
	if len(v.mu.present) >= presenceNoted {
		// Those who have not asked since learn of the rest when it changes again.
		v.mu.present = nil
	}
	if n := len(v.mu.present); n == cap(v.mu.present) {
		// Each user who is there has such a list, and with them it grows seldom: not by
		// doubling.
		v.mu.present = append(make([]presentChange, 0, n+n/4+presentStep), v.mu.present...)
	}
	v.mu.present = append(v.mu.present, presentChange{u, at})
}

// presentStep is by how much the list of a view grows at least.
const presentStep = 2

// presenceChanged tells a view how present a user is.
func (v *view) presenceChanged(u ids.UserID, frame []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ignoresLocked(u) {
		return
	}
	v.notePresenceLocked(u)
	v.wakePollersLocked()
	for _, s := range v.mu.sessions {
		s.presence(u, frame)
	}
}

// presence takes a frame that tells how present a user is.
func (s *session) presence(u ids.UserID, frame []byte) {
	s.hint(frame, s.req.Filter.presence(u))
}

// presence reports whether the filter lets presence of a user pass.
func (f *Filter) presence(u ids.UserID) bool {
	p := &f.Presence
	return p.Type("m.presence") && (p.Senders == nil || slices.Contains(*p.Senders, u)) && !slices.Contains(p.NotSenders, u)
}

// addPresence adds how present those are whom the client has to learn about: who
// changed, who is in a room that is new, and at first all who are there.
func (s *syncer) addPresence(ctx context.Context, moved map[ids.RoomID]*account.Change) error {
	if !s.h.opts.Presence || !s.req.Filter.Presence.Type("m.presence") {
		return nil
	}
	all := s.req.Since == nil || !s.known
	users := make(map[ids.UserID]bool) // whether to tell of who is not there
	s.v.mu.Lock()
	for _, c := range s.v.mu.present {
		if !all && c.at > s.since.Typing {
			users[c.user] = true
		}
	}
	s.v.mu.Unlock()
	asked := 0
	for i := range s.rooms {
		r := &s.rooms[i]
		c := moved[r.id]
		entered := c != nil && c.Membership == event.Join && c.Prev != event.Join
		if r.membership != event.Join || !all && !entered || asked == presenceRooms {
			continue
		}
		asked++
		for _, v := range s.h.presence.audience(r.id) {
			if _, known := users[v.user]; !known && len(users) < presenceTold {
				users[v.user] = false
			}
		}
	}
	now := s.h.opts.Clock.Now()
	for u, always := range users {
		if !s.req.Filter.presence(u) || s.v.ignores(u) {
			continue
		}
		st, err := s.h.PresenceOf(ctx, u)
		if err != nil {
			return err
		}
		if always || st.Presence != Offline {
			s.out.presence = appendList(s.out.presence, st.event(u, now))
		}
	}
	return nil
}
