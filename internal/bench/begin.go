package bench

import (
	"bufio"
	"context"
	"errors"
	"strconv"
	"time"
)

// What a start of goalBegin users and rooms may take.
const (
	goalBegin     = 1_000_000
	goalBeginTime = 2000 // ms
	goalBeginRSS  = 200  // MiB
)

func (a *beginArgs) scenarios() ([]scenario, error) {
	if a.Users < 1 || a.Rooms < 0 {
		return nil, errors.New("--users must be positive and --rooms not negative")
	}
	return []scenario{{name: "begin", bare: true, run: a.run}}, nil
}

// run makes the store, has a server do what an import leaves to the first start, and
// measures the second.
func (a *beginArgs) run(ctx context.Context, e *env, _ *server, r *Result) error {
	r.Parameters = map[string]any{"users": a.Users, "rooms": a.Rooms}
	e.progress("%d users, %d rooms", a.Users, a.Rooms)
	srv, err := e.startImported(ctx, "begin", func(w *bufio.Writer) {
		for i := range a.Users {
			userLine(w, importedUser("p", i), false)
		}
		for i := range a.Rooms {
			roomLine(w, strconv.Itoa(i), importedUser("p", i%a.Users))
		}
	})
	if err != nil {
		return err
	}
	if err := srv.close(); err != nil {
		return err
	}
	o, began := srv.child.serveOptions, time.Now()
	if srv, err = start(ctx, o); err != nil {
		return err
	}
	ready := time.Since(began)
	s := takeSample(ctx, srv)
	goal := a.Users == goalBegin && a.Rooms == goalBegin
	r.add("from start to ready", millis(ready), "ms").atMost(goal, goalBeginTime)
	r.add("server CPU until ready", millis(s.cpu), "ms")
	r.add("RSS when ready", float64(s.rss)/(1<<20), "MiB").atMost(goal, goalBeginRSS)
	if err := srv.calm(ctx, min(calmEvery, e.Duration)); err != nil {
		return errors.Join(err, srv.close())
	}
	r.add("RSS when calm", float64(takeSample(ctx, srv).rss)/(1<<20), "MiB").atMost(goal, goalBeginRSS)
	return errors.Join(s.noCPU, s.noRSS, srv.close())
}
