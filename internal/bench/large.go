package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// What others may feel of a large room.
const (
	goalLargeMembers = 100_000
	goalLargePause   = 100 // ms
)

// otherRooms have otherMembers each; their latencies are measured.
const otherRooms, otherMembers = 64, 10

func (a *largeArgs) scenarios() ([]scenario, error) {
	if a.Members < 2 || a.Times < 1 || a.Rate <= 0 || a.Members < 4*a.Times {
		return nil, errors.New("--times and --rate must be positive, and --members at least four times --times")
	}
	return []scenario{{name: "large", bare: true, run: a.run}}, nil
}

// largeRun is a server with a large room.
type largeRun struct {
	*largeArgs
	env    *env
	srv    *server
	caller *caller
	room   ids.RoomID
	// inside are members of the large room, outside are users who are not yet.
	inside, outside []user
}

// run measures messages in other rooms: alone, and then while each of several things
// is done with the large room.
func (a *largeArgs) run(ctx context.Context, e *env, _ *server, r *Result) (err error) {
	r.Parameters = map[string]any{"members": a.Members, "rate": a.Rate, "times": a.Times, "other rooms": otherRooms}
	e.progress("a room of %d members", a.Members)
	srv, err := e.startImported(ctx, "large", a.lines)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	x := &largeRun{largeArgs: a, env: e, srv: srv, caller: newCaller(srv.url)}
	defer x.caller.http.CloseIdleConnections()
	if err := x.enter(ctx); err != nil {
		return err
	}
	l, err := newLoad(ctx, e, srv, shape{rooms: otherRooms, members: otherMembers, receivers: otherMembers, senders: growthSenders, overWS: true, size: growthSize})
	defer l.close()
	if err != nil {
		return err
	}
	alone, err := l.measure(ctx, r.Scenario, phaseFirst, func(stop <-chan struct{}) { l.openLoop(ctx, stop, a.Rate) })
	if err != nil {
		return err
	}
	r.addLatency("others, alone: send to receive", l.check.latency(phaseFirst))
	r.addCPU("others, alone: ", &alone)
	for i, step := range x.steps() {
		if err := x.beside(ctx, l, r, step, besidePhases[i]); err != nil {
			return err
		}
	}
	return l.finish(ctx, r)
}

func (a *largeArgs) lines(w *bufio.Writer) {
	members := make([]string, a.Members)
	for i := range members {
		members[i] = importedUser("m", i)
		userLine(w, members[i], i < 3*a.Times+1)
	}
	for i := range a.Times {
		userLine(w, importedUser("o", i), true)
	}
	roomLine(w, "large", members...)
}

// enter logs those in who will do something, and finds the room.
func (x *largeRun) enter(ctx context.Context) (err error) {
	name := func(kind string, n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = importedUser(kind, i)
		}
		return out
	}
	if x.inside, err = x.caller.login(ctx, name("m", 3*x.Times+1)); err != nil {
		return err
	}
	if x.outside, err = x.caller.login(ctx, name("o", x.Times)); err != nil {
		return err
	}
	rooms, err := x.caller.joined(ctx, x.inside[0])
	if err == nil && len(rooms) != 1 {
		err = fmt.Errorf("a member of the large room is in %d rooms", len(rooms))
	}
	if err == nil {
		x.room = rooms[0]
	}
	return err
}

// besidePhases are those of the steps.
var besidePhases = [...]phase{phaseSecond, phaseThird, phaseFourth, phaseFifth}

// largeStep is something that is done with the large room, each time by another user.
type largeStep struct {
	name string
	do   func(ctx context.Context, i int) error
}

func (x *largeRun) steps() []largeStep {
	at := "/_matrix/client/v3/rooms/" + url.PathEscape(string(x.room))
	lazy := "/_matrix/client/v3/sync?timeout=0&filter=" + url.QueryEscape(lazyFilter)
	return []largeStep{
		{"join", func(ctx context.Context, i int) error { return x.caller.join(ctx, x.outside[i], x.room) }},
		{"send", func(ctx context.Context, i int) error {
			return x.caller.call(ctx, x.inside[i], "PUT", at+"/send/m.room.message/large"+strconv.Itoa(i), map[string]string{"msgtype": "m.text", "body": "hello all"}, nil)
		}},
		{"lazy initial sync", func(ctx context.Context, i int) error { return x.get(ctx, x.inside[x.Times+i], lazy) }},
		{"list of members", func(ctx context.Context, i int) error { return x.get(ctx, x.inside[2*x.Times+i], at+"/members") }},
	}
}

// get makes a request on a connection of its own, and reads the answer without
// looking at it: there may be tens of megabytes of it.
func (x *largeRun) get(ctx context.Context, u user, target string) error {
	conn, err := newHTTPConn(x.srv.url, u.token)
	if err != nil {
		return err
	}
	defer conn.close()
	status, answer, err := conn.do(ctx, "GET", target, nil)
	if err == nil && status != 200 {
		err = statusError(statusText(status, answer))
	}
	return err
}

// beside does a step again and again, spread over the duration, while others send, and
// tells how long both took.
func (x *largeRun) beside(ctx context.Context, l *load, r *Result, step largeStep, p phase) error {
	x.env.progress("%d × %s", x.Times, step.name)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.openLoop(ctx, stop, x.Rate) })
	defer func() {
		close(stop)
		wg.Wait()
	}()
	if err := sleep(ctx, x.env.Warmup); err != nil {
		return err
	}
	l.phase.Store(int32(p))
	defer l.phase.Store(int32(phaseWarm))
	var took Histogram
	for i := range x.Times {
		began := time.Now()
		if err := step.do(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		took.Record(time.Since(began))
		if err := sleep(ctx, x.env.Duration/time.Duration(x.Times)); err != nil {
			return err
		}
	}
	r.add(step.name+" p50", millis(took.Quantile(0.5)), "ms")
	r.add(step.name+" max", millis(took.Max()), "ms")
	others := l.check.latency(p)
	r.addLatency("others beside "+step.name, others)
	last := &r.Figures[len(r.Figures)-1]
	last.atMost(x.Members == goalLargeMembers, goalLargePause)
	return nil
}
