package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// The size of the load.
const (
	users = 4
	// thinkTime is the most a client waits between two operations: the machine is to
	// have time for the faults.
	thinkTime = 120 * time.Millisecond
	// firstKeys are how many one-time keys a device has at the beginning.
	firstKeys   = 40
	fencePrefix = "fence-"
)

func isFence(mark string) bool { return strings.HasPrefix(mark, fencePrefix) }

// load are the clients of a fleet, and what they saw.
type load struct {
	fleet     *fleet
	seed      uint64
	callLimit time.Duration
	// patience is how long the last messages may take to come.
	patience time.Duration
	rec      *history.Recorder
	devices  *Devices
	clients  atomic.Uint64
	// rooms has one in each partition, where all users are; all are all rooms.
	rooms     [partitions]string
	all       map[string]*client
	workers   []*worker
	streamers []*streamer
	phase     atomic.Pointer[phase]
	probes    atomic.Int64
	// ctx ends when everything has been read.
	ctx context.Context
}

// phase counts the answers of a stretch of time.
type phase struct {
	mu      sync.Mutex
	by      map[int]int // status; 0 is no answer
	longest time.Duration
}

func (p *phase) note(a caller.Answer, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[int]int{}
	}
	p.by[a.Status]++
	if a.OK() {
		p.longest = max(p.longest, took)
	}
}

func (p *phase) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, status := range slices.Sorted(maps.Keys(p.by)) {
		fmt.Fprintf(&b, "%d x %d, ", p.by[status], status)
	}
	fmt.Fprintf(&b, "the longest that was served took %v", p.longest.Round(time.Millisecond))
	return b.String()
}

// next begins a phase and returns it.
func (l *load) next() *phase {
	p := &phase{}
	l.phase.Store(p)
	return p
}

// worker is a client that writes.
type worker struct {
	*client
	n    int
	sent []*sent
	// told counts the messages to each device.
	told map[string]int
	keys int
}

// sent is a request that was acknowledged and may be repeated.
type sent struct {
	op     *history.Op
	target string
	body   any
}

func newLoad(ctx context.Context, f *fleet, seed uint64, callLimit time.Duration) *load {
	l := &load{
		fleet: f, seed: seed, callLimit: callLimit, patience: liveness, rec: history.NewRecorder(seed), all: map[string]*client{}, ctx: ctx,
		devices: &Devices{Inboxes: map[string][]string{}, Left: map[string]int{}},
	}
	l.next()
	l.populate()
	return l
}

func (l *load) register(name string) *client {
	op := l.rec.Begin(history.Op{Kind: history.Register, User: "@" + name + ":localhost", Device: "W0"})
	c := l.client(op.User, "W0", "")
	a := c.call(l.ctx, "POST", caller.Path("register"), map[string]any{
		"username": name, "password": password, "device_id": "W0", "auth": map[string]any{"type": "m.login.dummy"},
	})
	c.finish(op, a)
	op.Token = a.String("access_token")
	if c.Token = op.Token; c.Token == "" {
		l.fleet.t.Fatalf("cannot register: %d %s", a.Status, a.Body)
	}
	return c
}

func (l *load) login(user, device string) *client {
	op := l.rec.Begin(history.Op{Kind: history.Login, User: user, Device: device})
	c := l.client(user, device, "")
	a := c.insist(l.ctx, "POST", caller.Path("login"), map[string]any{
		"type": "m.login.password", "password": password, "device_id": device,
		"identifier": map[string]any{"type": "m.id.user", "user": user},
	})
	c.finish(op, a)
	op.Token = a.String("access_token")
	if c.Token = op.Token; c.Token == "" {
		l.fleet.t.Fatalf("cannot log in: %d %s", a.Status, a.Body)
	}
	return c
}

// populate makes users with their devices, and rooms, before the first fault.
func (l *load) populate() {
	t := l.fleet.t
	for i := range users {
		c := l.register(fmt.Sprintf("u%d", i))
		second := l.login(c.User, "W1")
		second.OverSockets = true
		for _, c := range []*client{c, second} {
			w := &worker{client: c, told: map[string]int{}}
			l.workers = append(l.workers, w)
		}
		l.streamers = append(l.streamers, l.streamer(l.login(c.User, "P"), "poll"), l.streamer(l.login(c.User, "S"), "socket"))
	}
	for i := 0; slices.Contains(l.rooms[:], ""); i++ {
		l.makeRoom(l.workers[2*(i%users)])
	}
	for p, room := range l.rooms {
		for i := range users {
			w := l.workers[2*i]
			if l.all[room] == w.client {
				continue
			}
			op := w.begin(history.Op{Kind: history.Join, Room: room})
			a := w.call(l.ctx, "POST", caller.Path("rooms", room, "join"), map[string]any{"reason": op.Mark})
			if w.finish(op, a); !a.OK() {
				t.Fatalf("cannot join in partition %d: %d %s", p, a.Status, a.Body)
			}
		}
	}
	for i := range users {
		l.workers[2*i].upload(firstKeys)
	}
}

func (l *load) makeRoom(w *worker) {
	op := w.begin(history.Op{Kind: history.Create})
	a := w.call(l.ctx, "POST", caller.Path("createRoom"), map[string]any{
		"preset": "public_chat", "name": op.Mark, "topic": "chaos", "creation_content": map[string]any{"mark": op.Mark},
		"power_level_content_override": map[string]any{"state_default": 0},
	})
	w.finish(op, a)
	if op.Room = a.String("room_id"); op.Room == "" {
		l.fleet.t.Fatalf("cannot make a room: %d %s", a.Status, a.Body)
	}
	l.all[op.Room] = w.client
	if p := ids.PartitionOf(op.Room, partitions); l.rooms[p] == "" {
		l.rooms[p] = op.Room
	}
}

func (w *worker) begin(op history.Op) *history.Op {
	op.User, op.Device = w.User, w.Name
	return w.load.rec.Begin(op)
}

// work writes until stop is closed, and then finishes what it began.
func (w *worker) work(stop <-chan struct{}) {
	caller.Work(w.load.ctx, stop, w.rng, thinkTime, []caller.Choice{
		{Weight: 50, Do: w.send},
		{Weight: 8, Do: w.state},
		{Weight: 8, Do: w.data},
		{Weight: 6, Do: w.resend},
		{Weight: 10, Do: w.readBack},
		{Weight: 20, Do: w.tell},
		{Weight: 1, Do: func() { w.upload(5) }},
		{Weight: 6, Do: w.claim},
	})
}

func (w *worker) room() string { return w.load.rooms[w.rng.IntN(partitions)] }

func (w *worker) send() { w.sendTo(w.room(), "") }

// sendTo sends a message until there is a definite answer, and returns its event.
func (w *worker) sendTo(room, mark string) {
	w.n++
	op := w.begin(history.Op{Kind: history.Send, Room: room, Type: "m.room.message", Txn: fmt.Sprintf("t%d", w.n), Mark: mark})
	body := map[string]any{"msgtype": "m.text", "body": op.Mark, "mark": op.Mark}
	target := caller.Path("rooms", room, "send", op.Type, op.Txn)
	a := w.insist(w.load.ctx, "PUT", target, body)
	if w.finish(op, a); a.OK() {
		w.sent = append(w.sent, &sent{op, target, body})
	}
}

// resend repeats a request that was acknowledged, maybe by a node that is gone.
func (w *worker) resend() {
	if len(w.sent) == 0 {
		return
	}
	s := w.sent[w.rng.IntN(len(w.sent))]
	w.finish(s.op, w.call(w.load.ctx, "PUT", s.target, s.body))
}

func (w *worker) state() {
	room := w.room()
	op := w.begin(history.Op{Kind: history.State, Room: room, Type: "test.state", Key: fmt.Sprintf("k%d", w.rng.IntN(5))})
	w.finish(op, w.call(w.load.ctx, "PUT", caller.Path("rooms", room, "state", op.Type, op.Key), map[string]any{"mark": op.Mark}))
}

// data writes the next value of account data.
func (w *worker) data() {
	typ := "test.data." + w.Name
	w.n++
	op := w.begin(history.Op{Kind: history.Data, Key: w.User + " " + typ, N: w.n})
	w.finish(op, w.call(w.load.ctx, "PUT", caller.Path("user", w.User, "account_data", typ), map[string]any{"n": w.n}))
}

// readBack reads, at any node, what the worker has just written.
func (w *worker) readBack() {
	if len(w.sent) == 0 {
		return
	}
	s := w.sent[len(w.sent)-1]
	w.call(w.load.ctx, "GET", caller.Path("rooms", s.op.Room, "event", s.op.EventID), nil) // a definite no is noted
}

// tell sends a message to a device, until there is a definite answer.
func (w *worker) tell() { w.tellTo(w.load.streamers[w.rng.IntN(len(w.load.streamers))]) }

func (w *worker) tellTo(to *streamer) *Message {
	w.told[to.id()]++
	m := &Message{From: w.id(), To: to.id(), N: w.told[to.id()], Outcome: history.Unknown}
	w.load.devices.mu.Lock()
	w.load.devices.Messages = append(w.load.devices.Messages, m)
	w.load.devices.mu.Unlock()
	w.n++
	a := w.insist(w.load.ctx, "PUT", caller.Path("sendToDevice", "test.message", fmt.Sprintf("t%d", w.n)), map[string]any{
		"messages": map[string]any{to.User: map[string]any{to.Name: map[string]any{"name": m.name()}}},
	})
	m.Outcome = outcome(a)
	return m
}

func outcome(a caller.Answer) history.Outcome {
	switch {
	case a.Unknown():
		return history.Unknown
	case a.OK():
		return history.OK
	default:
		return history.Fail
	}
}

const keyAlgorithm = "signed_curve25519"

// upload gives the device further one-time keys; a repeated upload adds none.
func (w *worker) upload(n int) {
	body := map[string]any{}
	var added []*Key
	for range n {
		w.keys++
		k := &Key{Of: w.id(), ID: fmt.Sprintf("%s:%s%d", keyAlgorithm, w.Name, w.keys), Outcome: history.Unknown}
		body[k.ID] = map[string]any{"key": k.ID, "signatures": map[string]any{}}
		added = append(added, k)
	}
	w.load.devices.mu.Lock()
	w.load.devices.Keys = append(w.load.devices.Keys, added...)
	w.load.devices.mu.Unlock()
	a := w.insist(w.load.ctx, "POST", caller.Path("keys", "upload"), map[string]any{"one_time_keys": body})
	for _, k := range added {
		k.Outcome = outcome(a)
	}
}

// claim asks for a one-time key of somebody's device.
func (w *worker) claim() {
	of := w.load.workers[2*w.rng.IntN(users)]
	c := &Claim{Of: of.id(), Outcome: history.Unknown}
	w.load.devices.mu.Lock()
	w.load.devices.Claims = append(w.load.devices.Claims, c)
	w.load.devices.mu.Unlock()
	a := w.call(w.load.ctx, "POST", caller.Path("keys", "claim"), map[string]any{
		"one_time_keys": map[string]any{of.User: map[string]any{of.Name: keyAlgorithm}},
	})
	var out struct {
		Keys     map[string]map[string]map[string]any `json:"one_time_keys"`
		Failures map[string]any                       `json:"failures"`
	}
	if a.OK() && json.Unmarshal(a.Body, &out) == nil && len(out.Failures) == 0 {
		for id := range out.Keys[of.User][of.Name] {
			c.Key = id
		}
		c.Outcome = history.OK
	}
}

// probe sends a message into each partition and returns how long the last one took.
func (l *load) probe() time.Duration {
	begin := time.Now()
	var wg sync.WaitGroup
	for p, room := range l.rooms {
		wg.Go(func() {
			w := &worker{client: l.client(l.workers[0].User, fmt.Sprintf("probe%d", p), l.workers[0].Token)}
			defer w.Close()
			w.measures = true
			w.n = int(l.probes.Add(1)) << 32 // its transactions are those of the device of the token
			w.sendTo(room, "")
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// run starts the clients; end lets them finish, reads everything, and returns it.
func (l *load) run() (end func() (*history.History, *Devices)) {
	following, endFollowing := context.WithCancel(l.ctx)
	var streams, working sync.WaitGroup
	for _, st := range l.streamers {
		if st.s.Transport == "poll" {
			streams.Go(func() { st.longPoll(following) })
		} else {
			streams.Go(func() { st.socket(following) })
		}
	}
	stop := make(chan struct{})
	for _, w := range l.workers {
		working.Go(func() { w.work(stop) })
	}
	return func() (*history.History, *Devices) {
		close(stop)
		working.Wait()
		l.fence()
		endFollowing()
		streams.Wait()
		h := l.readAll()
		for _, w := range l.workers {
			w.Close()
		}
		for _, st := range l.streamers {
			st.Close()
			l.devices.Inboxes[st.id()] = st.mu.inbox
		}
		return h, l.devices
	}
}

// fence sends a last message to each room and device, and waits until all came.
func (l *load) fence() {
	w := l.workers[0]
	var marks []string
	for i, room := range l.rooms {
		marks = append(marks, fmt.Sprintf("%s%d", fencePrefix, i))
		w.sendTo(room, marks[i])
	}
	deadline := time.Now().Add(l.patience)
	for _, st := range l.streamers {
		last := w.tellTo(st).name()
		for _, m := range append(slices.Clone(marks), last) {
			for !st.saw(m) && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
			if !st.saw(m) {
				l.rec.Note("C5 %s %s never saw %s", st.s.Transport, st.id(), m)
			}
		}
		st.s.Ended = true
	}
}

// readAll reads, at each node, what users can read.
func (l *load) readAll() *history.History {
	h := l.rec.History()
	h.Final = history.Final{Rooms: map[string]*history.Room{}, Data: map[string]int{}}
	for room, by := range l.all {
		final := &history.Room{States: map[string][]history.Event{}}
		h.Final.Rooms[room] = final
		shared := slices.Contains(l.rooms[:], room)
		for i, n := range l.fleet.nodes {
			if i > 0 && !shared {
				break
			}
			reader := by
			if shared {
				reader = l.workers[2*(i%users)].client
			}
			who := reader.User + " at " + n.name
			for _, dir := range []string{"f", "b"} {
				final.Walks = append(final.Walks, history.Walk{Reader: who, Dir: dir, Events: l.walk(reader, n, room, dir)})
			}
			a := reader.callAt(l.ctx, n, "GET", caller.Path("rooms", room, "state"), nil)
			var list []json.RawMessage
			if err := json.Unmarshal(a.Body, &list); err != nil || !a.OK() {
				l.rec.Note("C7 the state of %s for %s was answered %d %s", room, who, a.Status, a.Body)
			}
			final.States[who] = history.ParseEvents(list)
		}
	}
	for _, w := range l.workers {
		l.readOf(h, w)
	}
	for _, op := range h.Ops {
		if op.Token != "" {
			c := l.client(op.User, op.Device, op.Token)
			a := c.call(l.ctx, "GET", caller.Path("account", "whoami"), nil)
			h.Final.Tokens = append(h.Final.Tokens, history.Token{Op: op.ID, Works: a.OK()})
			c.Close()
		}
	}
	return h
}

// readOf reads what belongs to a device: its account data and its keys.
func (l *load) readOf(h *history.History, w *worker) {
	typ := "test.data." + w.Name
	data := w.load.client(w.User, w.Name, w.Token)
	defer data.Close()
	if w.keys > 0 {
		var out struct {
			Counts map[string]int `json:"one_time_key_counts"`
		}
		if a := data.call(l.ctx, "POST", caller.Path("keys", "upload"), map[string]any{}); !a.OK() || json.Unmarshal(a.Body, &out) != nil {
			l.rec.Note("K3 the keys of %s: %d %s", w.id(), a.Status, a.Body)
		}
		l.devices.Left[w.id()] = out.Counts[keyAlgorithm]
	}
	for _, op := range h.Ops { // one that wrote has something to read
		if op.Kind == history.Data && op.Outcome == history.OK && op.Key == w.User+" "+typ {
			var out struct {
				N int `json:"n"`
			}
			if a := data.call(l.ctx, "GET", caller.Path("user", w.User, "account_data", typ), nil); !a.OK() || json.Unmarshal(a.Body, &out) != nil {
				l.rec.Note("C7 %s: %d %s", op.Key, a.Status, a.Body)
			}
			h.Final.Data[op.Key] = out.N
			return
		}
	}
}

// walk pages through a room at a node, and returns its events oldest first.
func (l *load) walk(c *client, n *node, room, dir string) []history.Event {
	return caller.Walk(l.rec, c.id()+" at "+n.name, room, dir, "500",
		func(target string) caller.Answer { return c.callAt(l.ctx, n, "GET", target, nil) })
}
