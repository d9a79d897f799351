package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	// alone is how many cores the server takes for the others alone.
	alone float64
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
	machine := watchLateness()
	alone, err := l.measure(ctx, r.Scenario, phaseFirst, func(stop <-chan struct{}) { l.openLoop(ctx, stop, a.Rate) })
	late := machine.end()
	if err != nil {
		return err
	}
	x.alone = alone.cores(alone.cpu)
	r.add("the machine's own delay, alone max", millis(late.Max()), "ms")
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

// get makes a request and reads the answer without keeping it: it may be tens of
// megabytes.
func (x *largeRun) get(ctx context.Context, u user, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.srv.url+target, nil)
	if err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token)
	res, err := x.caller.http.Do(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %w: %d", target, errStatus, res.StatusCode)
	}
	return nil
}

// lateness is how much later than asked for the machine lets this process go on: of
// what others feel, so much is not the server's doing.
type lateness struct {
	h    Histogram
	stop chan struct{}
	done sync.WaitGroup
}

func watchLateness() *lateness {
	l := &lateness{stop: make(chan struct{})}
	l.done.Go(func() {
		tick := time.NewTimer(0)
		defer tick.Stop()
		for {
			due := time.Now().Add(time.Millisecond)
			tick.Reset(time.Millisecond)
			select {
			case <-tick.C:
				l.h.Record(max(0, time.Since(due)))
			case <-l.stop:
				return
			}
		}
	})
	return l
}

func (l *lateness) end() *Histogram {
	close(l.stop)
	l.done.Wait()
	return &l.h
}

// beside does a step again and again, spread over the duration, while others send, and
// tells how long both took.
func (x *largeRun) beside(ctx context.Context, l *load, r *Result, step largeStep, p phase) error {
	var took Histogram
	var late *Histogram
	w, err := l.measureWhile(ctx, r.Scenario+"-"+step.name, p, func(stop <-chan struct{}) { l.openLoop(ctx, stop, x.Rate) }, func() error {
		machine := watchLateness()
		defer func() { late = machine.end() }()
		for i := range x.Times {
			began := time.Now()
			err := step.do(ctx, i)
			took.Record(time.Since(began))
			if err == nil {
				err = sleep(ctx, x.env.Duration/time.Duration(x.Times))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.add(step.name+" p50", millis(took.Quantile(0.5)), "ms")
	r.add(step.name+" max", millis(took.Max()), "ms")
	// Beyond what the others cost alone. The kernel counts in steps of 10 ms.
	r.add(step.name+", server CPU", max(0, millis(w.cpu)-x.alone*millis(w.elapsed))/float64(x.Times), "ms")
	r.add("the machine's own delay beside "+step.name+" max", millis(late.Max()), "ms")
	others := l.check.latency(p)
	r.addLatency("others beside "+step.name, others)
	last := &r.Figures[len(r.Figures)-1]
	last.atMost(x.Members == goalLargeMembers, goalLargePause)
	return nil
}
