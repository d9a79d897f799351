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
	rec       *history.Recorder
	devices   *Devices
	clients   atomic.Uint64
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

func (p *phase) note(a answer, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[int]int{}
	}
	p.by[a.status]++
	if a.ok() {
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
		fleet: f, seed: seed, callLimit: callLimit, rec: history.NewRecorder(seed), all: map[string]*client{}, ctx: ctx,
		devices: &Devices{Inboxes: map[string][]string{}, Left: map[string]int{}},
	}
	l.next()
	l.populate()
	return l
}

func (l *load) register(name string) *client {
	op := l.rec.Begin(history.Op{Kind: history.Register, User: "@" + name + ":localhost", Device: "W0"})
	c := l.client(op.User, "W0", "")
	a := c.call(l.ctx, "POST", path("register"), map[string]any{
		"username": name, "password": password, "device_id": "W0", "auth": map[string]any{"type": "m.login.dummy"},
	})
	c.finish(op, a)
	op.Token = a.str("access_token")
	if c.token = op.Token; c.token == "" {
		l.fleet.t.Fatalf("cannot register: %d %s", a.status, a.body)
	}
	return c
}

func (l *load) login(user, device string) *client {
	op := l.rec.Begin(history.Op{Kind: history.Login, User: user, Device: device})
	c := l.client(user, device, "")
	a := c.insist(l.ctx, "POST", path("login"), map[string]any{
		"type": "m.login.password", "password": password, "device_id": device,
		"identifier": map[string]any{"type": "m.id.user", "user": user},
	})
	c.finish(op, a)
	op.Token = a.str("access_token")
	if c.token = op.Token; c.token == "" {
		l.fleet.t.Fatalf("cannot log in: %d %s", a.status, a.body)
	}
	return c
}

// populate makes users with their devices, and rooms, before the first fault.
func (l *load) populate() {
	t := l.fleet.t
	for i := range users {
		c := l.register(fmt.Sprintf("u%d", i))
		second := l.login(c.user, "W1")
		second.overSockets = true
		for _, c := range []*client{c, second} {
			w := &worker{client: c, told: map[string]int{}}
			l.workers = append(l.workers, w)
		}
		l.streamers = append(l.streamers, l.streamer(l.login(c.user, "P"), "poll"), l.streamer(l.login(c.user, "S"), "socket"))
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
			a := w.call(l.ctx, "POST", path("rooms", room, "join"), map[string]any{"reason": op.Mark})
			if w.finish(op, a); !a.ok() {
				t.Fatalf("cannot join in partition %d: %d %s", p, a.status, a.body)
			}
		}
	}
	for i := range users {
		l.workers[2*i].upload(firstKeys)
	}
}

func (l *load) makeRoom(w *worker) {
	op := w.begin(history.Op{Kind: history.Create})
	a := w.call(l.ctx, "POST", path("createRoom"), map[string]any{
		"preset": "public_chat", "name": op.Mark, "topic": "chaos", "creation_content": map[string]any{"mark": op.Mark},
		"power_level_content_override": map[string]any{"state_default": 0},
	})
	w.finish(op, a)
	if op.Room = a.str("room_id"); op.Room == "" {
		l.fleet.t.Fatalf("cannot make a room: %d %s", a.status, a.body)
	}
	l.all[op.Room] = w.client
	if p := ids.PartitionOf(op.Room, partitions); l.rooms[p] == "" {
		l.rooms[p] = op.Room
	}
}

func (w *worker) begin(op history.Op) *history.Op {
	op.User, op.Device = w.user, w.name
	return w.load.rec.Begin(op)
}

// work writes until stop is closed, and then finishes what it began.
func (w *worker) work(stop <-chan struct{}) {
	choices := []struct {
		weight int
		do     func()
	}{{50, w.send}, {8, w.state}, {8, w.data}, {6, w.resend}, {10, w.readBack}, {20, w.tell}, {1, func() { w.upload(5) }}, {6, w.claim}}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	for {
		select {
		case <-stop:
			return
		case <-w.load.ctx.Done():
			return
		case <-time.After(time.Duration(w.rng.Int64N(int64(thinkTime)))):
		}
		pick := w.rng.IntN(total)
		for _, c := range choices {
			if pick -= c.weight; pick < 0 {
				c.do()
				break
			}
		}
	}
}

func (w *worker) room() string { return w.load.rooms[w.rng.IntN(partitions)] }

func (w *worker) send() { w.sendTo(w.room(), "") }

// sendTo sends a message until there is a definite answer, and returns its event.
func (w *worker) sendTo(room, mark string) {
	w.n++
	op := w.begin(history.Op{Kind: history.Send, Room: room, Type: "m.room.message", Txn: fmt.Sprintf("t%d", w.n), Mark: mark})
	body := map[string]any{"msgtype": "m.text", "body": op.Mark, "mark": op.Mark}
	target := path("rooms", room, "send", op.Type, op.Txn)
	a := w.insist(w.load.ctx, "PUT", target, body)
	if w.finish(op, a); a.ok() {
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
	w.finish(op, w.call(w.load.ctx, "PUT", path("rooms", room, "state", op.Type, op.Key), map[string]any{"mark": op.Mark}))
}

// data writes the next value of account data.
func (w *worker) data() {
	typ := "test.data." + w.name
	w.n++
	op := w.begin(history.Op{Kind: history.Data, Key: w.user + " " + typ, N: w.n})
	w.finish(op, w.call(w.load.ctx, "PUT", path("user", w.user, "account_data", typ), map[string]any{"n": w.n}))
}

// readBack reads, at any node, what the worker has just written.
func (w *worker) readBack() {
	if len(w.sent) == 0 {
		return
	}
	s := w.sent[len(w.sent)-1]
	w.call(w.load.ctx, "GET", path("rooms", s.op.Room, "event", s.op.EventID), nil) // a definite no is noted
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
	a := w.insist(w.load.ctx, "PUT", path("sendToDevice", "test.message", fmt.Sprintf("t%d", w.n)), map[string]any{
		"messages": map[string]any{to.user: map[string]any{to.name: map[string]any{"name": m.name()}}},
	})
	m.Outcome = outcome(a)
	return m
}

func outcome(a answer) history.Outcome {
	switch {
	case a.unknown():
		return history.Unknown
	case a.ok():
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
		k := &Key{Of: w.id(), ID: fmt.Sprintf("%s:%s%d", keyAlgorithm, w.name, w.keys), Outcome: history.Unknown}
		body[k.ID] = map[string]any{"key": k.ID, "signatures": map[string]any{}}
		added = append(added, k)
	}
	w.load.devices.mu.Lock()
	w.load.devices.Keys = append(w.load.devices.Keys, added...)
	w.load.devices.mu.Unlock()
	a := w.insist(w.load.ctx, "POST", path("keys", "upload"), map[string]any{"one_time_keys": body})
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
	a := w.call(w.load.ctx, "POST", path("keys", "claim"), map[string]any{
		"one_time_keys": map[string]any{of.user: map[string]any{of.name: keyAlgorithm}},
	})
	var out struct {
		Keys     map[string]map[string]map[string]any `json:"one_time_keys"`
		Failures map[string]any                       `json:"failures"`
	}
	if a.ok() && json.Unmarshal(a.body, &out) == nil && len(out.Failures) == 0 {
		for id := range out.Keys[of.user][of.name] {
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
			w := &worker{client: l.client(l.workers[0].user, fmt.Sprintf("probe%d", p), l.workers[0].token)}
			defer w.close()
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
			w.close()
		}
		for _, st := range l.streamers {
			st.close()
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
	deadline := time.Now().Add(liveness)
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
			who := reader.user + " at " + n.name
			for _, dir := range []string{"f", "b"} {
				final.Walks = append(final.Walks, history.Walk{Reader: who, Dir: dir, Events: l.walk(reader, n, room, dir)})
			}
			a := reader.callAt(l.ctx, n, "GET", path("rooms", room, "state"), nil)
			var list []json.RawMessage
			if err := json.Unmarshal(a.body, &list); err != nil || !a.ok() {
				l.rec.Note("C7 the state of %s for %s was answered %d %s", room, who, a.status, a.body)
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
			a := c.call(l.ctx, "GET", path("account", "whoami"), nil)
			h.Final.Tokens = append(h.Final.Tokens, history.Token{Op: op.ID, Works: a.ok()})
			c.close()
		}
	}
	return h
}

// readOf reads what belongs to a device: its account data and its keys.
func (l *load) readOf(h *history.History, w *worker) {
	typ := "test.data." + w.name
	data := w.load.client(w.user, w.name, w.token)
	defer data.close()
	if w.keys > 0 {
		var out struct {
			Counts map[string]int `json:"one_time_key_counts"`
		}
		if a := data.call(l.ctx, "POST", path("keys", "upload"), map[string]any{}); !a.ok() || json.Unmarshal(a.body, &out) != nil {
			l.rec.Note("K3 the keys of %s: %d %s", w.id(), a.status, a.body)
		}
		l.devices.Left[w.id()] = out.Counts[keyAlgorithm]
	}
	for _, op := range h.Ops { // one that wrote has something to read
		if op.Kind == history.Data && op.Outcome == history.OK && op.Key == w.user+" "+typ {
			var out struct {
				N int `json:"n"`
			}
			if a := data.call(l.ctx, "GET", path("user", w.user, "account_data", typ), nil); !a.ok() || json.Unmarshal(a.body, &out) != nil {
				l.rec.Note("C7 %s: %d %s", op.Key, a.status, a.body)
			}
			h.Final.Data[op.Key] = out.N
			return
		}
	}
}

// walk pages through a room at a node, and returns its events oldest first.
func (l *load) walk(c *client, n *node, room, dir string) []history.Event {
	var out []history.Event
	for from := ""; ; {
		target := path("rooms", room, "messages") + "?limit=500&dir=" + dir
		if from != "" {
			target += "&from=" + from
		}
		a := c.callAt(l.ctx, n, "GET", target, nil)
		var page struct {
			Chunk []json.RawMessage `json:"chunk"`
			End   string            `json:"end"`
		}
		if err := json.Unmarshal(a.body, &page); err != nil || !a.ok() {
			l.rec.Note("C4 %s of %s at %s was answered %d %s", target, c.id(), n.name, a.status, a.body)
			return out
		}
		out = append(out, history.ParseEvents(page.Chunk)...)
		if page.End == "" || dir == "f" && len(page.Chunk) == 0 {
			break
		}
		from = page.End
	}
	if dir == "b" {
		slices.Reverse(out)
	}
	return out
}
