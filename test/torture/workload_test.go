package torture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// The size of a run.
const (
	staticUsers  = 4 // stay in the base rooms
	dynamicUsers = 4 // come and go, are invited and kicked
	baseRooms    = 3
	maxRooms     = 40
	password     = "a password for tests"
	// thinkTime is the most a client waits between two operations: so long that
	// the server, not the number of events, sets the pace of a run.
	thinkTime = 80 * time.Millisecond
)

// worker is a client that writes.
type worker struct {
	*device
	static bool
	n      int // counts what it writes
	sent   []*sent
	own    []string // event IDs of its messages, to redact
}

// sent is a request that was acknowledged and may be sent again.
type sent struct {
	op   *history.Op
	path string
	body any
}

// board is what workers tell each other: rooms and events that are there.
type board struct {
	mu struct {
		sync.Mutex
		base, more []string
		events     map[string][]string
	}
}

func (b *board) addRoom(base bool, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if base {
		b.mu.base = append(b.mu.base, id)
	} else {
		b.mu.more = append(b.mu.more, id)
	}
}

func (b *board) crowded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.more) >= maxRooms
}

// room picks a room, a base room mostly.
func (b *board) room(rng *rand.Rand, baseOnly bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !baseOnly && len(b.mu.more) > 0 && rng.IntN(8) == 0 {
		return b.mu.more[rng.IntN(len(b.mu.more))]
	}
	return b.mu.base[rng.IntN(len(b.mu.base))]
}

func (b *board) addEvent(room, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := append(b.mu.events[room], id)
	if len(list) > 50 {
		list = list[1:]
	}
	b.mu.events[room] = list
}

func (b *board) event(rng *rand.Rand, room string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.mu.events[room]
	if len(list) == 0 {
		return ""
	}
	return list[rng.IntN(len(list))]
}

// work writes until stop is closed, and then finishes what it began.
func (w *worker) work(stop <-chan struct{}) {
	caller.Work(w.run.ctx, stop, w.rng, thinkTime, []caller.Choice{
		{Weight: 50, Do: w.send},
		{Weight: 8, Do: w.state},
		{Weight: 6, Do: w.redact},
		{Weight: 5, Do: w.resend},
		{Weight: 8, Do: w.membership},
		{Weight: 2, Do: w.create},
		{Weight: 6, Do: w.data},
		{Weight: 3, Do: w.tag},
		{Weight: 3, Do: w.profile},
		{Weight: 8, Do: w.receipt},
		{Weight: 3, Do: w.session},
		{Weight: 4, Do: w.readBack},
	})
}

func (w *worker) begin(op history.Op) *history.Op {
	op.User, op.Device = w.User, w.Name
	return w.run.rec.Begin(op)
}

func (w *worker) send() {
	room := w.run.board.room(w.rng, false)
	w.n++
	op := w.begin(history.Op{Kind: history.Send, Room: room, Type: "m.room.message", Txn: fmt.Sprintf("t%d", w.n)})
	body := map[string]any{"msgtype": "m.text", "body": op.Mark, "mark": op.Mark}
	p := caller.Path("rooms", room, "send", op.Type, op.Txn)
	mentions := w.rng.IntN(6) == 0
	if mentions {
		body["m.mentions"] = map[string]any{"user_ids": []string{w.run.users[w.rng.IntN(len(w.run.users))]}}
	}
	if !w.insist(op, "PUT", p, body).OK() {
		return
	}
	w.sent = append(w.sent, &sent{op, p, body})
	w.run.board.addEvent(room, op.EventID)
	if !mentions { // redacted, it would mention nobody to those who look later
		w.own = append(w.own, room, op.EventID)
	}
}

// resend repeats a request that was acknowledged, maybe before a crash.
func (w *worker) resend() {
	if len(w.sent) == 0 {
		return
	}
	s := w.sent[w.rng.IntN(len(w.sent))]
	a := w.call(w.run.ctx, "PUT", s.path, s.body)
	switch {
	case a.OK():
		w.finish(s.op, a)
	case !a.Unknown():
		w.run.rec.Note("C3 %s was acknowledged, and its repetition was answered %d %s", s.op, a.Status, a.Body)
	default:
		w.run.srv.awaitUp(w.run.ctx)
	}
}

func (w *worker) state() {
	room := w.run.board.room(w.rng, true)
	op := w.begin(history.Op{Kind: history.State, Room: room, Type: "test.state", Key: fmt.Sprintf("k%d", w.rng.IntN(5))})
	w.once(op, "PUT", caller.Path("rooms", room, "state", op.Type, op.Key), map[string]any{"mark": op.Mark})
}

func (w *worker) redact() {
	if len(w.own) == 0 {
		return
	}
	i := 2 * w.rng.IntN(len(w.own)/2)
	room, target := w.own[i], w.own[i+1]
	w.n++
	op := w.begin(history.Op{Kind: history.Redact, Room: room, Type: "m.room.redaction", Target: target, Txn: fmt.Sprintf("r%d", w.n)})
	p := caller.Path("rooms", room, "redact", target, op.Txn)
	body := map[string]any{"reason": op.Mark}
	if w.insist(op, "PUT", p, body).OK() {
		w.sent = append(w.sent, &sent{op, p, body})
	}
}

// membership lets dynamic users come and go, and the creator of the base rooms
// kick and invite them.
func (w *worker) membership() {
	room := w.run.board.room(w.rng, true)
	switch {
	case !w.static && w.rng.IntN(3) > 0:
		op := w.begin(history.Op{Kind: history.Join, Room: room})
		w.once(op, "POST", caller.Path("rooms", room, "join"), map[string]any{"reason": op.Mark})
	case !w.static:
		op := w.begin(history.Op{Kind: history.Leave, Room: room})
		w.once(op, "POST", caller.Path("rooms", room, "leave"), map[string]any{"reason": op.Mark})
	case w.User == w.run.users[0]:
		kind := []history.Kind{history.Kick, history.Invite}[w.rng.IntN(2)]
		target := w.run.users[staticUsers+w.rng.IntN(dynamicUsers)]
		op := w.begin(history.Op{Kind: kind, Room: room, Target: target})
		w.once(op, "POST", caller.Path("rooms", room, string(kind)), map[string]any{"reason": op.Mark, "user_id": target})
	}
}

// create makes a room to which a dynamic user is invited.
func (w *worker) create() {
	if w.run.board.crowded() {
		return
	}
	if id := w.makeRoom(w.run.users[staticUsers+w.rng.IntN(dynamicUsers)]); id != "" {
		w.run.board.addRoom(false, id)
	}
}

func (w *worker) makeRoom(invite ...string) string {
	op := w.begin(history.Op{Kind: history.Create})
	a := w.once(op, "POST", caller.Path("createRoom"), map[string]any{
		"preset": "public_chat", "name": op.Mark, "topic": "torture", "invite": invite,
		"creation_content":             map[string]any{"mark": op.Mark},
		"power_level_content_override": map[string]any{"state_default": 0, "invite": 0},
	})
	op.Room = a.String("room_id")
	return op.Room
}

// data writes the next value of account data, of the user or of a room.
func (w *worker) data() {
	room, where := "", caller.Path("user", w.User)
	if w.rng.IntN(2) == 0 {
		room = w.run.board.room(w.rng, true)
		where = caller.Path("user", w.User, "rooms", room)
	}
	typ := dataPrefix + w.Name
	w.n++
	op := w.begin(history.Op{Kind: history.Data, Room: room, Key: dataKey(w.User, room, typ), N: w.n})
	w.once(op, "PUT", where+"/account_data/"+typ, map[string]any{"n": w.n})
}

func (w *worker) tag() {
	room, tag := w.run.board.room(w.rng, true), "u.tag"+w.Name
	w.n++
	op := w.begin(history.Op{Kind: history.Data, Room: room, Key: dataKey(w.User, room, tag), N: w.n})
	w.once(op, "PUT", caller.Path("user", w.User, "rooms", room, "tags", tag), map[string]any{"order": float64(w.n) / tagScale})
}

// profile sets the display name; one device of each user does.
func (w *worker) profile() {
	if w.Name != firstDevice {
		return
	}
	w.n++
	op := w.begin(history.Op{Kind: history.Data, Key: dataKey(w.User, "", profileKey), N: w.n})
	w.once(op, "PUT", caller.Path("profile", w.User, "displayname"), map[string]any{"displayname": fmt.Sprintf("n%d", w.n)})
}

const (
	firstDevice = "D0"
	profileKey  = "profile"
)

func (w *worker) receipt() {
	room := w.run.board.room(w.rng, true)
	target := w.run.board.event(w.rng, room)
	if target == "" {
		return
	}
	op := w.begin(history.Op{Kind: history.Receipt, Room: room, Target: target})
	w.once(op, "POST", caller.Path("rooms", room, "receipt", "m.read", target), map[string]any{})
}

// session registers an account, logs in on a further device, or logs such a
// device out.
func (w *worker) session() {
	anonymous := w.run.newDevice("", "", "", w.rng.Uint64())
	defer anonymous.Close()
	if w.rng.IntN(2) == 0 {
		w.run.register(anonymous, fmt.Sprintf("x%s-%d", w.mxLocal(), w.rng.Uint32()))
		return
	}
	w.n++
	op := w.begin(history.Op{Kind: history.Login})
	op.Device = fmt.Sprintf("L%s-%d", w.Name, w.n)
	a := anonymous.once(op, "POST", caller.Path("login"), loginBody(w.User, op.Device))
	op.Token = a.String("access_token")
	if !a.OK() || w.rng.IntN(2) == 0 {
		return
	}
	anonymous.Token = op.Token
	out := w.begin(history.Op{Kind: history.Logout})
	out.Device = op.Device
	anonymous.once(out, "POST", caller.Path("logout"), map[string]any{})
}

func (w *worker) mxLocal() string { return strings.ToLower(local(w.User) + w.Name) }

// readBack asks for what the worker has just written.
func (w *worker) readBack() {
	if len(w.sent) == 0 {
		return
	}
	s := w.sent[len(w.sent)-1]
	a := w.call(w.run.ctx, "GET", caller.Path("rooms", s.op.Room, "event", s.op.EventID), nil)
	if !a.OK() && !a.Unknown() && (w.static || a.Status != 404 && a.Status != 403) {
		w.run.rec.Note("C1 %s was acknowledged, and reading it was answered %d %s", s.op, a.Status, a.Body)
	}
	if a.Unknown() {
		w.run.srv.awaitUp(w.run.ctx)
	}
}
