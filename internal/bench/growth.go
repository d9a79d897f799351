package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// The scenarios of growth measure the CPU time of one thing while something else
// grows: each point is a server of its own, with the same load. What is bounded is the
// highest point beside the first; a cost that falls is a cost that is shared.
const (
	goalGrowth = 1.20
	// growthSenders send; where there are many rooms, each in some of them.
	growthSenders = 64
	// growthMembers are the members of each of many rooms.
	growthMembers = 10
	// growthPeople are the users who are members and nothing else.
	growthPeople = 2000
	// historyRooms share the messages of a long history.
	historyRooms = 16
	// syncUsers are in all rooms of a point, and sync after each message.
	syncUsers = 20
	// busyRooms are those of their rooms in which something happens.
	busyRooms = 10
)

// growthKind is one thing that grows.
type growthKind struct {
	name, axis string
	// curves are what is measured of it.
	curves []string
	points []int
	// measure returns a figure for each curve.
	measure func(g *growthRun, ctx context.Context, n int) ([]float64, error)
}

// growthRun is what the points of one thing share.
type growthRun struct {
	*growthArgs
	env *env
	r   *Result
}

func (a *growthArgs) kinds() []growthKind {
	return []growthKind{
		{"rooms", "rooms of 10 members on the server", []string{"send, always in the same 64 rooms", "send, each in another room"}, a.Rooms, (*growthRun).rooms},
		{"members", "members of a room, all connected", []string{"delivery"}, a.Members, (*growthRun).members},
		{"history", "messages in 16 rooms", []string{"send", "the last 20 messages of a room"}, a.History, (*growthRun).history},
		{"user-rooms", "rooms of a user", []string{"incremental sync with a message, always in the same 10 rooms", "incremental sync with a message, each in another room"}, a.UserRooms, (*growthRun).userRooms},
	}
}

func (a *growthArgs) scenarios() ([]scenario, error) {
	if a.Rounds < 1 || a.Rate <= 0 || a.Deliveries <= 0 {
		return nil, errors.New("--rounds, --rate and --deliveries must be positive")
	}
	var out []scenario
	for _, k := range a.kinds() {
		if len(a.Of) > 0 && !slices.Contains(a.Of, k.name) {
			continue
		}
		for _, n := range k.points {
			if n < 1 {
				return nil, fmt.Errorf("--%s: a point is at least 1", k.name)
			}
		}
		out = append(out, scenario{name: "growth-" + k.name, bare: true, run: func(ctx context.Context, e *env, _ *server, r *Result) error {
			return a.run(ctx, e, r, k)
		}})
	}
	return out, nil
}

// run measures all points of one thing, and draws them.
func (a *growthArgs) run(ctx context.Context, e *env, r *Result, k growthKind) error {
	r.Parameters = map[string]any{"points": k.points, "rounds": a.Rounds}
	g := &growthRun{a, e, r}
	p := plot{title: "Server CPU time beside " + k.axis, axis: k.axis, unit: "µs", band: goalGrowth - 1}
	for _, name := range k.curves {
		p.curves = append(p.curves, curve{name: name})
	}
	for _, n := range k.points {
		e.progress("growth of %s: %d", k.name, n)
		figures, err := k.measure(g, ctx, n)
		if err != nil {
			return fmt.Errorf("%s %d: %w", k.name, n, err)
		}
		for i, v := range figures {
			p.curves[i].points = append(p.curves[i].points, point{float64(n), v})
			r.add(fmt.Sprintf("%d: %s", n, k.curves[i]), v, "µs")
		}
	}
	for _, c := range p.curves {
		if first := c.points[0].y; first > 0 { // the kernel counts CPU time in steps of 10 ms
			r.add("highest beside first: "+c.name, c.highest()/first, "").atMost(true, goalGrowth)
		}
	}
	if a.SVG == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(a.SVG, "growth-"+k.name+".svg"), p.svg(), 0o644); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}

// best runs a measurement some times and returns the least of each figure: whatever
// else the machine does only adds to them.
func (g *growthRun) best(once func() ([]float64, error)) ([]float64, error) {
	var out []float64
	for range g.Rounds {
		figures, err := once()
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = figures
		}
		for i, v := range figures {
			out[i] = min(out[i], v)
		}
	}
	return out, nil
}

// rooms makes n rooms, and sends in the same few of them, then in all in turn.
func (g *growthRun) rooms(ctx context.Context, n int) (figures []float64, err error) {
	senders := min(growthSenders, n)
	srv, err := g.env.startImported(ctx, "rooms", func(w *bufio.Writer) {
		writePeople(w, senders)
		for i := range n {
			members := []string{importedUser("s", i%senders)}
			for j := range growthMembers - 1 {
				members = append(members, importedUser("p", (i*(growthMembers-1)+j)%growthPeople))
			}
			roomLine(w, strconv.Itoa(i), members...)
		}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	return g.sends(ctx, srv, senders, 1, 0)
}

// writePeople writes the users of an import: those who send, and the others.
func writePeople(w *bufio.Writer, senders int) {
	for i := range senders {
		userLine(w, importedUser("s", i), true)
	}
	for i := range growthPeople {
		userLine(w, importedUser("p", i), false)
	}
}

// sends measures sends by imported users, for each reach in so many rooms of each; 0
// stands for all of them.
func (g *growthRun) sends(ctx context.Context, srv *server, senders int, reaches ...int) (out []float64, err error) {
	l, err := g.load(ctx, srv, senders)
	if err != nil {
		return nil, err
	}
	defer l.close()
	for _, reach := range reaches {
		l.reach.Store(int32(reach))
		figures, err := g.best(func() ([]float64, error) {
			w, err := l.measure(ctx, g.r.Scenario, phaseFirst, func(stop <-chan struct{}) { l.openLoop(ctx, stop, g.Rate) })
			return []float64{w.cpuEach(w.acked)}, err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, figures...)
	}
	l.keepUsed()
	return out, l.finishInto(ctx, g.r)
}

// load lets imported users send in rooms that they are in.
func (g *growthRun) load(ctx context.Context, srv *server, senders int) (*load, error) {
	l := &load{env: g.env, srv: srv, nodes: []*server{srv}, caller: newCaller(srv.url), check: newChecker(), now: sinceStart(), run: g.env.runName(), older: true}
	l.size = growthSize
	names := make([]string, senders)
	for i := range names {
		names[i] = importedUser("s", i)
	}
	users, err := l.caller.login(ctx, names)
	if err != nil {
		return nil, err
	}
	known := make(map[ids.RoomID]*roomLog)
	for i, u := range users {
		joined, err := l.caller.joined(ctx, u)
		if err != nil {
			return nil, err
		}
		s := &sender{l: l, ledger: l.check.ledger()}
		if s.http, err = newHTTPConn(srv.url, u.token); err != nil {
			return nil, err
		}
		rand.Shuffle(len(joined), func(i, j int) { joined[i], joined[j] = joined[j], joined[i] })
		for _, id := range joined {
			if known[id] == nil {
				known[id] = l.check.room(id)
				l.rooms = append(l.rooms, room{id: id, users: []user{u}})
			}
			s.add(known[id], l.run+strconv.Itoa(i)+"-")
		}
		l.senders = append(l.senders, s)
	}
	return l, nil
}

// growthSize is the size of a message's content.
const growthSize = 100

// keepUsed forgets the rooms that nothing was sent to: there may be a hundred thousand.
func (l *load) keepUsed() {
	used := l.check.used()
	l.rooms = slices.DeleteFunc(l.rooms, func(r room) bool { return !used[r.id] })
}

// members connects all members of rooms of n members: as many rooms as make the sockets
// the same for all points.
func (g *growthRun) members(ctx context.Context, n int) (figures []float64, err error) {
	srv, err := g.env.startServer(ctx, "members")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	rooms := max(1, g.Sockets/n)
	l, err := newLoad(ctx, g.env, srv, shape{rooms: rooms, members: n, receivers: n, senders: min(growthSenders, rooms*n), size: growthSize, lazy: true})
	defer l.close()
	if err != nil {
		return nil, err
	}
	figures, err = g.best(func() ([]float64, error) {
		w, err := l.measure(ctx, g.r.Scenario, phaseFirst, func(stop <-chan struct{}) { l.openLoop(ctx, stop, g.Deliveries/float64(n)) })
		return []float64{w.cpuEach(w.delivered)}, err
	})
	if err != nil {
		return nil, err
	}
	return figures, l.finishInto(ctx, g.r)
}

// history sends to rooms in which n messages stand, and reads their ends.
func (g *growthRun) history(ctx context.Context, n int) (figures []float64, err error) {
	srv, err := g.env.startImported(ctx, "history", func(w *bufio.Writer) {
		writePeople(w, historyRooms)
		for i := range historyRooms {
			roomLine(w, strconv.Itoa(i), importedUser("s", i), importedUser("p", i))
		}
		for i := range n {
			room := i % historyRooms
			fmt.Fprintf(w, `{"event":"m.room.message","room":"%d","sender":%q,"ts":%d,"content":{"msgtype":"m.text","body":"It was said long ago, and is number %d of all"}}`+"\n",
				room, importedUser("p", room), 1_600_000_000_000+int64(i), i)
		}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	sends, err := g.sends(ctx, srv, historyRooms, 0)
	if err != nil {
		return nil, err
	}
	reads, err := g.reads(ctx, srv, n)
	return append(sends, reads...), err
}

// reads measures requests for the last messages of rooms in which n stand.
func (g *growthRun) reads(ctx context.Context, srv *server, n int) ([]float64, error) {
	l, err := g.load(ctx, srv, historyRooms)
	if err != nil {
		return nil, err
	}
	defer l.close()
	return g.timed(ctx, srv, fmt.Sprintf("growth-history-%d-read", n), func(i int) (int, error) {
		s := l.senders[i%len(l.senders)]
		status, answer, err := s.http.do(ctx, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(string(s.places[0].log.id))+"/messages?dir=b&limit=20", nil)
		if err == nil && status != 200 {
			err = statusError(statusText(status, answer))
		}
		return 1, err
	})
}

// timed runs something for the duration of each round, and returns the CPU time of the
// server for each of what it says that it did. Profiles have the name.
func (g *growthRun) timed(ctx context.Context, srv *server, name string, do func(i int) (int, error)) ([]float64, error) {
	i := 0
	return g.best(func() ([]float64, error) {
		var profiling sync.WaitGroup
		defer profiling.Wait()
		if g.env.Profile != "" {
			profiling.Go(func() { g.env.profile(ctx, srv, name, g.env.Duration) })
		}
		before, done := takeSample(ctx, srv), 0
		for end := before.at.Add(g.env.Duration); time.Now().Before(end); i++ {
			n, err := do(i)
			if err != nil {
				return nil, err
			}
			done += n
		}
		w := between(before, takeSample(ctx, srv))
		return []float64{w.cpuEach(int64(done))}, w.noCPU
	})
}

// userRooms has some users, who are all in n rooms, sync after each message. The server
// has the same rooms at each point, which others are in: how much a server holds is not
// what grows here.
func (g *growthRun) userRooms(ctx context.Context, n int) (figures []float64, err error) {
	srv, err := g.env.startImported(ctx, "user-rooms", func(w *bufio.Writer) {
		writePeople(w, syncUsers)
		var members, others []string
		for i := range syncUsers {
			members, others = append(members, importedUser("s", i)), append(others, importedUser("p", i))
		}
		for i := range slices.Max(g.UserRooms) {
			if i == n {
				members = others
			}
			roomLine(w, strconv.Itoa(i), members...)
		}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	l, err := g.load(ctx, srv, syncUsers)
	if err != nil {
		return nil, err
	}
	defer l.close()
	since := make([]string, syncUsers)
	for i, s := range l.senders {
		if since[i], _, err = s.sync(ctx, "", ""); err != nil {
			return nil, err
		}
	}
	step := func(int) (int, error) {
		if !l.senders[0].send(ctx, l.now(), phaseFirst) {
			return 0, fmt.Errorf("send: %v", l.errs.all())
		}
		sent := l.senders[0].ledger.last()
		for i, s := range l.senders {
			var got int
			if since[i], got, err = s.sync(ctx, since[i], string(sent)); err != nil {
				return 0, err
			}
			if got != 1 {
				l.check.fault("sync", "user %d got %s %d times in the sync after it", i, sent, got)
			}
		}
		return syncUsers, nil
	}
	for _, reach := range []int32{busyRooms, 0} {
		l.reach.Store(reach)
		one, err := g.timed(ctx, srv, fmt.Sprintf("growth-user-rooms-%d-of-%d", reach, n), step)
		if err != nil {
			return nil, err
		}
		figures = append(figures, one...)
	}
	l.keepUsed()
	return figures, l.finishInto(ctx, g.r)
}

// sync makes a sync over a sender's connection. It returns where the next one begins,
// and how often an event was in it.
func (s *sender) sync(ctx context.Context, since, eventID string) (next string, found int, err error) {
	q := url.Values{"timeout": {"0"}, "filter": {lazyFilter}}
	if since != "" {
		q.Set("since", since)
	}
	status, answer, err := s.http.do(ctx, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil)
	if err != nil {
		return since, 0, err
	}
	if status != 200 {
		return since, 0, statusError(statusText(status, answer))
	}
	if eventID != "" {
		found = bytes.Count(answer, []byte(`"event_id":"`+eventID+`"`))
	}
	return nextBatch(answer), found, nil
}
