package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// run is one run: a server, those who write, those who follow, and the record.
type run struct {
	t     *testing.T
	seed  uint64
	srv   *server
	rec   *history.Recorder
	board board
	users []string
	// ctx ends when everything has been read.
	ctx context.Context

	workers   []*worker
	streamers []*streamer
	following sync.WaitGroup
}

func local(user string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return name
}

func loginBody(user, dev string) any {
	return map[string]any{
		"type": "m.login.password", "password": password, "device_id": dev,
		"identifier": map[string]any{"type": "m.id.user", "user": user},
	}
}

// register makes an account and returns its user ID. Whether an attempt without
// an answer took place shows when it is repeated; then the account must be whole.
func (r *run) register(d *device, username string) string {
	op := r.rec.Begin(history.Op{Kind: history.Register, User: "@" + username + ":localhost", Device: firstDevice})
	body := map[string]any{
		"username": username, "password": password, "device_id": firstDevice, "auth": map[string]any{"type": "m.login.dummy"},
	}
	for unsure := false; r.ctx.Err() == nil; unsure = true {
		a := d.call(r.ctx, "POST", caller.Path("register"), body)
		switch {
		case a.Unknown():
			r.srv.awaitUp(r.ctx)
			continue
		case unsure && a.String("errcode") == "M_USER_IN_USE":
			login := r.rec.Begin(history.Op{Kind: history.Login, User: op.User, Device: firstDevice})
			for a = d.call(r.ctx, "POST", caller.Path("login"), loginBody(op.User, firstDevice)); a.Unknown() && r.ctx.Err() == nil; {
				r.srv.awaitUp(r.ctx)
				a = d.call(r.ctx, "POST", caller.Path("login"), loginBody(op.User, firstDevice))
			}
			if !a.OK() && r.ctx.Err() == nil {
				r.rec.Note("C1 %s: the name is taken, but a login is answered %d %s", op, a.Status, a.Body)
			}
			d.finish(login, a)
			login.Token = a.String("access_token")
		default:
			if !a.OK() {
				r.rec.Note("C1 %s was answered %d %s", op, a.Status, a.Body)
			}
			d.finish(op, a)
			op.Token = a.String("access_token")
		}
		d.User, d.Name, d.Token = op.User, firstDevice, a.String("access_token")
		return op.User
	}
	return ""
}

// populate makes the users, their devices and the base rooms, before the first
// kill.
func (r *run) populate() {
	t := r.t
	for i := range staticUsers + dynamicUsers {
		d := r.newDevice("", "", "", uint64(i))
		user := r.register(d, fmt.Sprintf("u%d", i))
		r.users = append(r.users, user)
		r.workers = append(r.workers, &worker{device: d, static: i < staticUsers})
		second := r.login(d, "D1", uint64(100+i))
		second.OverSockets = true
		r.workers = append(r.workers, &worker{device: second, static: i < staticUsers})
	}
	first := r.workers[0]
	for range baseRooms {
		id := first.makeRoom()
		if id == "" {
			t.Fatalf("cannot make a room\n%s", r.srv.tail())
		}
		r.board.addRoom(true, id)
		for i, u := range r.users[1:] {
			op := r.rec.Begin(history.Op{Kind: history.Join, User: u, Room: id})
			if a := r.workers[2*(i+1)].once(op, "POST", caller.Path("rooms", id, "join"), map[string]any{"reason": op.Mark}); !a.OK() {
				t.Fatalf("cannot join: %d %s", a.Status, a.Body)
			}
		}
	}
	for i := range r.users {
		if i%staticUsers >= 3 {
			continue // some only write
		}
		st := newStreamer(r.login(r.workers[2*i].device, "P", uint64(200+i)), "poll")
		ws := newStreamer(r.login(r.workers[2*i].device, "S", uint64(300+i)), "socket")
		r.streamers = append(r.streamers, st, ws)
	}
}

func (r *run) login(of *device, dev string, seed uint64) *device {
	op := r.rec.Begin(history.Op{Kind: history.Login, User: of.User, Device: dev})
	a := of.once(op, "POST", caller.Path("login"), loginBody(of.User, dev))
	op.Token = a.String("access_token")
	if !a.OK() {
		r.t.Fatalf("cannot log in: %d %s", a.Status, a.Body)
	}
	return r.newDevice(of.User, dev, op.Token, seed)
}

// torture runs the workload while the server is killed. The first server is of
// the first binary, those after a kill of the second.
func torture(t *testing.T, first, later string, seed uint64, kills int) *history.History {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &run{t: t, seed: seed, srv: newServer(t, first), rec: history.NewRecorder(seed), ctx: ctx}
	r.board.mu.events = map[string][]string{}
	if err := r.boot(); err != nil {
		t.Fatalf("%v\n%s", err, r.srv.tail())
	}
	r.populate()
	r.srv.binary = later
	following, endFollowing := context.WithCancel(ctx)
	defer endFollowing()
	for _, st := range r.streamers {
		if st.s.Transport == "poll" {
			r.following.Go(func() { st.longPoll(following) })
		} else {
			r.following.Go(func() { st.socket(following) })
		}
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	for _, w := range r.workers {
		working.Go(func() { w.work(stop) })
	}
	err := r.killAll(kills)
	close(stop)
	if err != nil {
		cancel()
	}
	working.Wait()
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, r.srv.tail())
	}
	r.fence()
	endFollowing()
	r.following.Wait()
	h := r.readAll()
	for _, w := range r.workers {
		w.Close()
	}
	for _, st := range r.streamers {
		st.d.Close()
	}
	r.srv.kill()
	if err := r.srv.fsck(); err != nil {
		h.Noted = append(h.Noted, "C7 "+err.Error())
	}
	for _, line := range r.srv.complaints() {
		h.Noted = append(h.Noted, "C0 log: "+line)
	}
	return h
}

func (r *run) boot() error {
	if err := r.srv.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, startupLimit)
	defer cancel()
	return r.srv.ready(ctx)
}

// killAll kills and restarts the server: mostly while it serves, now and then
// while it starts.
func (r *run) killAll(kills int) error {
	rng := rand.New(rand.NewPCG(r.seed, 1<<32))
	for range kills {
		delay := time.Duration(rng.Int64N(int64(2 * time.Second)))
		if rng.IntN(5) == 0 {
			delay /= 20
		}
		select {
		case <-time.After(delay):
		case <-r.srv.exited:
			return errExited
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		r.srv.kill()
		r.rec.Killed()
		if rng.IntN(6) == 0 {
			if err := r.srv.start(); err != nil {
				return err
			}
			time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
			r.srv.kill()
			r.rec.Killed()
		}
		if err := r.boot(); err != nil {
			return err
		}
	}
	return nil
}

// fenceLimit is how long streams may take to see the last events.
const fenceLimit = time.Minute

// fence sends a last message to each base room and waits until every stream whose
// user is there has seen it. Dynamic users join first.
func (r *run) fence() {
	w := r.workers[0]
	for i := staticUsers; i < len(r.users); i++ {
		d := r.workers[2*i]
		for _, room := range r.board.mu.base {
			op := d.begin(history.Op{Kind: history.Join, Room: room})
			if a := d.once(op, "POST", caller.Path("rooms", room, "join"), map[string]any{"reason": op.Mark}); !a.OK() {
				r.rec.Note("C0 %s was answered %d %s", op, a.Status, a.Body)
			}
		}
	}
	var marks []string
	for i, room := range r.board.mu.base {
		op := w.begin(history.Op{Kind: history.Send, Room: room, Type: "m.room.message", Txn: fmt.Sprintf("fence%d", i), Mark: fmt.Sprintf("%s%d", fencePrefix, i)})
		w.insist(op, "PUT", caller.Path("rooms", room, "send", op.Type, op.Txn), map[string]any{"msgtype": "m.text", "body": "end", "mark": op.Mark})
		marks = append(marks, op.Mark)
	}
	// Rooms beyond the base rooms get one too, from whoever made them.
	deadline := time.Now().Add(fenceLimit)
	for _, st := range r.streamers {
		for _, m := range marks {
			for !st.saw(m) && time.Now().Before(deadline) {
				time.Sleep(5 * time.Millisecond)
			}
			if !st.saw(m) {
				r.rec.Note("C5 %s %s never saw %s", st.s.Transport, st.s.User, m)
			}
		}
		st.s.Ended = true
	}
}

// readAll reads everything that readers can read.
func (r *run) readAll() *history.History {
	h := r.rec.History()
	h.Final = history.Final{Rooms: map[string]*history.Room{}, Data: map[string]int{}}
	readers := map[string]*device{}
	for i, u := range r.users {
		readers[u] = r.workers[2*i].device
	}
	for _, u := range r.users {
		r.readUser(h, readers[u])
	}
	for _, op := range h.Ops {
		if op.Token == "" {
			continue
		}
		d := r.newDevice(op.User, op.Device, op.Token, 0)
		a := d.call(r.ctx, "GET", caller.Path("account", "whoami"), nil)
		if a.OK() && (a.String("user_id") != op.User || a.String("device_id") != op.Device) {
			r.rec.Note("C7 the token of %s is of %s", op, a.Body)
		}
		h.Final.Tokens = append(h.Final.Tokens, history.Token{Op: op.ID, Works: a.OK()})
		d.Close()
	}
	return h
}

// readUser reads what one user has: their rooms, data and receipts.
func (r *run) readUser(h *history.History, d *device) {
	a := d.call(r.ctx, "GET", caller.API+`/sync?filter={"room":{"timeline":{"limit":1}}}`, nil)
	var b caller.Sync
	if err := json.Unmarshal(a.Body, &b); err != nil || !a.OK() {
		r.rec.Note("C7 the first sync of %s was answered %d %s", d.User, a.Status, a.Body)
		return
	}
	keep := func(m map[string]int) {
		for k, v := range m {
			h.Final.Data[k] = v
		}
	}
	keep(counted("", b.AccountData.Events, d.User))
	if p := d.call(r.ctx, "GET", caller.Path("profile", d.User), nil); p.OK() {
		var n int
		if _, err := fmt.Sscanf(p.String("displayname"), "n%d", &n); err == nil {
			h.Final.Data[dataKey(d.User, "", profileKey)] = n
		}
	}
	for id, room := range b.Rooms.Join {
		keep(counted(id, room.AccountData.Events, d.User))
		final := h.Final.Rooms[id]
		if final == nil {
			final = &history.Room{States: map[string][]history.Event{}, Receipts: map[string]string{}, Unread: map[string]history.Unread{}}
			h.Final.Rooms[id] = final
		}
		r.readReceipts(final, room.Ephemeral.Events)
		if room.Unread != nil {
			final.Unread[d.User] = *room.Unread
		}
		for _, dir := range []string{"f", "b"} {
			final.Walks = append(final.Walks, history.Walk{Reader: d.User, Dir: dir, Events: r.walk(d, id, dir)})
		}
		a := d.call(r.ctx, "GET", caller.Path("rooms", id, "state"), nil)
		var list []json.RawMessage
		if err := json.Unmarshal(a.Body, &list); err != nil || !a.OK() {
			r.rec.Note("C7 the state of %s for %s was answered %d %s", id, d.User, a.Status, a.Body)
			continue
		}
		final.States[d.User] = history.ParseEvents(list)
	}
}

func (r *run) readReceipts(final *history.Room, events []json.RawMessage) {
	for _, raw := range events {
		var e struct {
			Type    string                               `json:"type"`
			Content map[string]map[string]map[string]any `json:"content"`
		}
		if json.Unmarshal(raw, &e) != nil || e.Type != "m.receipt" {
			continue
		}
		for id, types := range e.Content {
			for user := range types["m.read"] {
				final.Receipts[user] = id
			}
		}
	}
}

// walk pages through a room, and returns its events oldest first.
func (r *run) walk(d *device, room, dir string) []history.Event {
	return caller.Walk(r.rec, d.User, room, dir, "100", func(target string) caller.Answer { return d.call(r.ctx, "GET", target, nil) })
}
