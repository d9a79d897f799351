package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
	"github.com/hubbub-chat/hubbub/test/history"
)

// The devices of each user. Both follow; the first one writes.
var devices = [...]ids.DeviceID{"D0", "D1"}

const (
	// Clients work in bursts: hasteTime is the most they wait between operations of
	// one, thinkTime between bursts, and retryTime before they repeat one.
	hasteTime = 30 * time.Millisecond
	thinkTime = 1500 * time.Millisecond
	retryTime = 500 * time.Millisecond
	// keysAtOnce are the one-time keys of an upload.
	keysAtOnce = 3
	algorithm  = "signed_curve25519"
	// attempts bounds how often a request is repeated after all is healed: what
	// fails that often fails for ever.
	attempts = 200
)

// board is what clients tell each other.
type board struct {
	mu     sync.Mutex
	rooms  []ids.RoomID
	events map[ids.RoomID][]ids.EventID
}

func (b *board) addRoom(r ids.RoomID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rooms = append(b.rooms, r)
}

func (b *board) room(d *dice) ids.RoomID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rooms[d.upTo(len(b.rooms))]
}

func (b *board) all() []ids.RoomID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]ids.RoomID(nil), b.rooms...)
}

func (b *board) addEvent(r ids.RoomID, e ids.EventID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.events == nil {
		b.events = make(map[ids.RoomID][]ids.EventID)
	}
	b.events[r] = append(b.events[r], e)
}

func (b *board) event(d *dice, r ids.RoomID) ids.EventID {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events[r]) == 0 {
		return ""
	}
	return b.events[r][d.upTo(len(b.events[r]))]
}

// user is who writes.
type user struct {
	w    *world
	id   ids.UserID
	n    int // of the user
	dice *dice
	// count numbers what the user writes.
	count int
	keys  int
	// sent are messages that were acknowledged.
	sent []sent
}

type sent struct {
	op  *history.Op
	cmd room.Send
}

// definite reports whether an error says for sure that nothing happened.
func definite(err error) bool {
	var e *merr.Error
	return errors.As(err, &e) && e.Status < 500
}

func outcome(err error) history.Outcome {
	switch {
	case err == nil:
		return history.OK
	case definite(err):
		return history.Fail
	default:
		return history.Unknown
	}
}

func (u *user) work(end <-chan struct{}) {
	type choice struct {
		weight int
		do     func()
	}
	choices := []choice{
		{40, u.send},
		{8, u.resend},
		{8, u.state},
		{12, u.membership},
		{2, u.create},
		{8, u.receipt},
		{14, u.toDevice},
		{8, u.claim},
		{4, u.upload},
		{4, u.rekey},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	for {
		select {
		case <-end:
			return
		case <-time.After(u.pause()):
		}
		pick := u.dice.upTo(total)
		for _, c := range choices {
			if pick -= c.weight; pick < 0 {
				c.do()
				break
			}
		}
	}
}

// pause is how long the user does nothing.
func (u *user) pause() time.Duration {
	if u.dice.chance(0.25) {
		return u.dice.between(0, thinkTime)
	}
	return u.dice.between(0, hasteTime)
}

func (u *user) begin(op history.Op) *history.Op {
	op.User, op.Device = string(u.id), string(devices[0])
	return u.w.rec.Begin(op)
}

// finish notes how an attempt of an operation ended.
func (u *user) finish(op *history.Op, id ids.EventID, err error) {
	u.w.trace("%v: %v %s %v", op, outcome(err), id, err)
	switch outcome(err) {
	case history.Fail:
		op.Outcome, op.Return, op.Status = history.Fail, u.w.rec.Now(), merr.From(err).Status
	case history.OK:
		if op.Outcome != history.OK {
			op.Outcome, op.Return, op.EventID, op.Status = history.OK, u.w.rec.Now(), string(id), 200
		}
		op.Answers = append(op.Answers, string(id))
	}
}

// insist repeats a request that may be repeated until its outcome is known. A
// refusal after an attempt without an answer leaves it unknown.
func insist[R any](u *user, do func(n *node) (R, error)) (r R, err error, known bool) {
	for try := 0; try < attempts; try++ {
		r, err = do(u.w.pick(u.dice))
		if outcome(err) != history.Unknown {
			return r, err, err == nil || try == 0
		}
		time.Sleep(u.dice.between(0, retryTime))
	}
	return r, err, false
}

func content(v any) []byte {
	raw, err := json.Marshal(v)
	if err == nil {
		raw, err = event.CanonicalObject(nil, raw)
	}
	if err != nil {
		panic(err) // the contents are ours
	}
	return raw
}

func draft(sender ids.UserID, typ string, key *string, v any) roomstate.Draft {
	return roomstate.Draft{Type: typ, StateKey: key, Sender: sender, Content: content(v)}
}

func (u *user) message(mark string) (*history.Op, room.Send) {
	r := u.w.board.room(u.dice)
	return u.messageTo(r, mark)
}

func (u *user) messageTo(r ids.RoomID, mark string) (*history.Op, room.Send) {
	u.count++
	op := u.begin(history.Op{Kind: history.Send, Room: string(r), Type: event.TypeMessage, Txn: fmt.Sprint("t", u.count), Mark: mark})
	return op, room.Send{
		Room: r, Draft: draft(u.id, op.Type, nil, map[string]any{"msgtype": "m.text", "body": op.Mark, "mark": op.Mark}),
		Txn: room.Txn{Device: devices[0], Path: "send/" + op.Type, ID: op.Txn},
	}
}

// post sends a message, as one attempt.
func (u *user) post(n *node, cmd room.Send) (ids.EventID, error) {
	if u.w.opts.Mutant == NoDedup {
		cmd.Txn = room.Txn{}
	}
	return do[ids.EventID](u.w, n, &cmd)
}

func (u *user) send() { u.sendOne(u.message("")) }

func (u *user) sendOne(op *history.Op, cmd room.Send) {
	id, err, known := insist(u, func(n *node) (ids.EventID, error) { return u.post(n, cmd) })
	if !known {
		return
	}
	u.finish(op, id, err)
	if err == nil {
		u.sent = append(u.sent, sent{op, cmd})
		u.w.board.addEvent(cmd.Room, id)
	}
}

// resend repeats what was acknowledged, on any node.
func (u *user) resend() {
	if len(u.sent) == 0 {
		return
	}
	s := u.sent[u.dice.upTo(len(u.sent))]
	id, err := u.post(u.w.pick(u.dice), s.cmd)
	switch outcome(err) {
	case history.OK:
		s.op.Answers = append(s.op.Answers, string(id))
	case history.Fail:
		u.w.rec.Note("C3 %v was acknowledged, and its repetition was answered %v", s.op, err)
	}
}

func (u *user) state() {
	r, key := u.w.board.room(u.dice), fmt.Sprint("k", u.dice.upTo(3))
	op := u.begin(history.Op{Kind: history.State, Room: string(r), Type: "test.state", Key: key})
	u.once(op, &room.Send{Room: r, Draft: draft(u.id, op.Type, &key, map[string]any{"mark": op.Mark})})
}

// once runs a command that is not repeated.
func (u *user) once(op *history.Op, cmd *room.Send) {
	id, err := do[ids.EventID](u.w, u.w.pick(u.dice), cmd)
	u.finish(op, id, err)
}

// membership lets all but the first user come and go.
func (u *user) membership() {
	if u.n == 0 {
		return
	}
	r := u.w.board.room(u.dice)
	if u.dice.upTo(3) > 0 {
		u.join(r)
		return
	}
	op := u.begin(history.Op{Kind: history.Leave, Room: string(r)})
	u.once(op, u.member(r, event.Leave, op.Mark))
}

func (u *user) join(r ids.RoomID) *history.Op {
	op := u.begin(history.Op{Kind: history.Join, Room: string(r)})
	u.once(op, u.member(r, event.Join, op.Mark))
	return op
}

func (u *user) member(r ids.RoomID, m event.Membership, mark string) *room.Send {
	key := string(u.id)
	return &room.Send{Room: r, Draft: draft(u.id, event.TypeMember, &key, map[string]any{"membership": m, "reason": mark})}
}

func (u *user) create() {
	if op, cmd, err := u.newRoom(); err == nil {
		u.makeRoom(op, cmd)
	}
}

func (u *user) makeRoom(op *history.Op, cmd *room.Create) bool {
	id, err := do[ids.RoomID](u.w, u.w.pick(u.dice), cmd)
	u.w.trace("%v: %v %s %v", op, outcome(err), id, err)
	switch outcome(err) {
	case history.OK:
		op.Outcome, op.Return, op.Room = history.OK, u.w.rec.Now(), string(id)
		u.w.board.addRoom(id)
	case history.Fail:
		op.Outcome, op.Return, op.Status = history.Fail, u.w.rec.Now(), merr.From(err).Status
	}
	return err == nil
}

func (u *user) newRoom() (*history.Op, *room.Create, error) {
	u.count++
	op := u.begin(history.Op{Kind: history.Create})
	v, _ := event.Lookup("11")
	own := content(map[string]any{"mark": op.Mark})
	preset, err := roomstate.Preset(roomstate.PresetPublic, roomstate.PresetOptions{
		Version: v, Creator: u.id, CreationContent: own, PowerLevels: []byte(`{"state_default":0}`),
	})
	if err != nil {
		return nil, nil, err
	}
	empty, self := "", string(u.id)
	state := func(typ string, key *string, raw []byte) roomstate.Draft {
		return roomstate.Draft{Type: typ, StateKey: key, Sender: u.id, Content: raw, OriginServerTS: time.Now().UnixMilli()}
	}
	c := &room.Create{Version: "11", Drafts: []roomstate.Draft{
		state(event.TypeCreate, &empty, preset.Create),
		state(event.TypeMember, &self, []byte(`{"membership":"join"}`)),
		state(event.TypePowerLevels, &empty, preset.PowerLevels),
		state(event.TypeJoinRules, &empty, preset.JoinRules),
		state(event.TypeHistoryVisibility, &empty, preset.HistoryVisibility),
		state(event.TypeGuestAccess, &empty, preset.GuestAccess),
		state(event.TypeName, &empty, content(map[string]any{"name": op.Mark})),
		state(event.TypeTopic, &empty, content(map[string]any{"topic": "sim"})),
	}}
	return op, c, c.Seal(ids.RoomID(fmt.Sprintf("!r%d-%d:h", u.n, u.count)))
}

func (u *user) receipt() {
	r := u.w.board.room(u.dice)
	target := u.w.board.event(u.dice, r)
	if target == "" {
		return
	}
	op := u.begin(history.Op{Kind: history.Receipt, Room: string(r), Target: string(target)})
	_, err := do[any](u.w, u.w.pick(u.dice), &room.SetReceipt{Room: r, User: u.id, Type: room.ReceiptRead, Event: target})
	u.finish(op, "", err)
}

// toDevice sends a numbered message to a device of anybody.
func (u *user) toDevice() {
	u.count++
	to := userID(u.dice.upTo(u.w.opts.Users))
	d := devices[u.dice.upTo(len(devices))]
	m := judge.Message{
		Mark: fmt.Sprintf("d%d-%d", u.n, u.count), Sender: string(u.id), To: [2]string{string(to), string(d)},
		Outcome: history.Unknown, Invoke: u.w.rec.Now(),
	}
	messages := map[ids.UserID]map[ids.DeviceID]jsontext.Value{to: {d: content(map[string]any{"mark": m.Mark})}}
	_, err, known := insist(u, func(n *node) (any, error) {
		return do[any](u.w, n, account.NewSendToDevice(u.id, devices[0], "test.message", m.Mark, messages))
	})
	m.Return = u.w.rec.Now()
	if known {
		m.Outcome = outcome(err)
	}
	u.w.trace("to-device %s to %v: %v", m.Mark, m.To, m.Outcome)
	u.w.mu.Lock()
	defer u.w.mu.Unlock()
	u.w.mu.j.Messages = append(u.w.mu.j.Messages, m)
}

// claim takes a one-time key of somebody.
func (u *user) claim() {
	of := userID(u.dice.upTo(u.w.opts.Users))
	c := judge.Claim{User: string(of), Device: string(devices[0]), Invoke: u.w.rec.Now()}
	got, err := do[map[ids.DeviceID]account.OneTimeKey](u.w, u.w.pick(u.dice),
		account.NewClaimKeys(of, []account.Want{{Device: devices[0], Algorithm: algorithm}}))
	c.Return, c.Outcome = u.w.rec.Now(), outcome(err)
	c.Key = got[devices[0]].ID
	u.w.trace("claim of %s: %v %q", of, c.Outcome, c.Key)
	u.w.mu.Lock()
	defer u.w.mu.Unlock()
	u.w.mu.j.Claims = append(u.w.mu.j.Claims, c)
}

// rekey changes the identity keys of the user's device, which all have to be told who
// share a room with them.
func (u *user) rekey() {
	u.count++
	k := judge.Rekey{User: string(u.id), Invoke: u.w.rec.Now()}
	keys := content(map[string]any{"n": u.count})
	_, err, known := insist(u, func(n *node) (any, error) {
		return do[any](u.w, n, account.NewUploadKeys(u.id, devices[0], keys, nil, nil))
	})
	u.w.trace("rekey of %s: %v", u.id, outcome(err))
	if !known || err != nil {
		return
	}
	k.Return = u.w.rec.Now()
	u.w.mu.Lock()
	defer u.w.mu.Unlock()
	u.w.mu.j.Rekeys = append(u.w.mu.j.Rekeys, k)
}

// upload adds one-time keys; repeated, it adds none twice.
func (u *user) upload() {
	var keys []account.OneTimeKey
	for range keysAtOnce {
		u.keys++
		keys = append(keys, account.OneTimeKey{
			Algorithm: algorithm, ID: fmt.Sprintf("%s:%d-%04d", algorithm, u.n, u.keys),
			Key: content(map[string]any{"key": fmt.Sprint(u.n, u.keys)}),
		})
	}
	_, err, known := insist(u, func(n *node) (any, error) {
		return do[any](u.w, n, account.NewUploadKeys(u.id, devices[0], nil, keys, nil))
	})
	u.w.mu.Lock()
	defer u.w.mu.Unlock()
	for i, k := range keys {
		jk := judge.Key{ID: k.ID, User: string(u.id), Device: string(devices[0]), Outcome: history.Unknown, N: u.keys - len(keys) + i}
		if known {
			jk.Outcome = outcome(err)
		}
		u.w.mu.j.Keys = append(u.w.mu.j.Keys, jk)
	}
}
