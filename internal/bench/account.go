package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

const (
	// coldSyncs is how many initial syncs are measured, each of another member,
	// so that each finds a server that knows nothing of the user.
	coldSyncs = 20
	// warmSyncs is how many incremental ones follow, a message before each.
	warmSyncs = 200
	// lazyFilter is what apps ask for.
	lazyFilter = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":20}}}`
)

func (a *accountArgs) scenarios() ([]scenario, error) {
	if a.Rooms < 1 || a.Members < 2 {
		return nil, errors.New("--rooms must be positive, and --members at least 2")
	}
	return one("account", a.run), nil
}

// run measures what a sync costs a user who is in many rooms with many others.
func (a *accountArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	r.Parameters = map[string]any{"rooms": a.Rooms, "members": a.Members}
	c := newCaller(srv.url)
	defer c.http.CloseIdleConnections()
	e.progress("%d users, who are all in %d rooms", a.Members, a.Rooms)
	users, rooms, err := a.setUp(ctx, e, c)
	if err != nil {
		return err
	}
	if srv.child != nil { // it knows the users from their joins
		if err := srv.restart(ctx); err != nil {
			return err
		}
		c = newCaller(srv.url)
	}
	goal := a.Rooms == goalAccountRooms && a.Members == goalAccountMembers
	var first Histogram
	since, size := "", 0
	before := takeSample(ctx, srv)
	n := min(coldSyncs, a.Members)
	for i := range n {
		if since, size, err = timedSync(ctx, srv, users[i], "", &first); err != nil {
			return err
		}
	}
	w := between(before, takeSample(ctx, srv))
	r.add("initial sync p50", millis(first.Quantile(0.5)), "ms").atMost(goal, goalInitialSync)
	r.add("initial sync max", millis(first.Max()), "ms")
	r.add("initial sync, server CPU", w.cpuEach(int64(n))/1000, "ms")
	r.add("initial sync, size", float64(size)/(1<<10), "KiB")
	return a.follow(ctx, srv, c, r, users[n-1], since, rooms, goal)
}

// follow measures incremental syncs: with nothing new, and with one message.
func (a *accountArgs) follow(ctx context.Context, srv *server, c *caller, r *Result, u user, since string, rooms []room, goal bool) error {
	for _, kind := range []string{"nothing new", "one message"} {
		var h Histogram
		for i := range warmSyncs {
			if kind == "one message" {
				target := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/bench%d", url.PathEscape(string(rooms[i%len(rooms)].id)), i)
				if err := c.call(ctx, rooms[0].users[0], "PUT", target, map[string]string{"msgtype": "m.text", "body": "hello"}, nil); err != nil {
					return err
				}
			}
			var err error
			if since, _, err = timedSync(ctx, srv, u, since, &h); err != nil {
				return err
			}
		}
		r.add("incremental sync, "+kind+" p50", millis(h.Quantile(0.5)), "ms").atMost(goal, goalIncrementalSync)
		r.add("incremental sync, "+kind+" p99", millis(h.Quantile(0.99)), "ms")
	}
	return nil
}

// setUp makes the users and the rooms; each user is in each room.
func (a *accountArgs) setUp(ctx context.Context, e *env, c *caller) ([]user, []room, error) {
	users, err := c.register(ctx, e.runName(), a.Members)
	if err != nil {
		return nil, nil, err
	}
	rooms := make([]room, a.Rooms)
	err = parallel(ctx, a.Rooms, setupWorkers, func(ctx context.Context, i int) error {
		rooms[i].users = users
		return c.createRoom(ctx, &rooms[i], fmt.Sprintf("load %d", i))
	})
	if err != nil {
		return nil, nil, err
	}
	return users, rooms, parallel(ctx, (a.Members-1)*a.Rooms, setupWorkers, func(ctx context.Context, i int) error {
		return c.join(ctx, users[1+i/a.Rooms], rooms[i%a.Rooms].id)
	})
}

// timedSync makes one sync on a connection of its own and records how long the
// answer took.
func timedSync(ctx context.Context, srv *server, u user, since string, h *Histogram) (next string, size int, err error) {
	conn, err := newHTTPConn(srv.url, u.token)
	if err != nil {
		return "", 0, err
	}
	defer conn.close()
	q := url.Values{"timeout": {"0"}, "filter": {lazyFilter}}
	if since != "" {
		q.Set("since", since)
	}
	start := time.Now()
	status, answer, err := conn.do(ctx, "GET", "/_matrix/client/v3/sync?"+q.Encode(), nil)
	if err != nil {
		return "", 0, err
	}
	if status != 200 {
		return "", 0, statusError(statusText(status, answer))
	}
	h.Record(time.Since(start))
	return nextBatch(answer), len(answer), nil
}

func (a *joinArgs) scenarios() ([]scenario, error) {
	if a.Members < 1 || a.Joins < 1 {
		return nil, errors.New("--members and --joins must be positive")
	}
	return one("join", a.run), nil
}

// run compares a join of a small room with one of a large room.
func (a *joinArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	r.Parameters = map[string]any{"members": a.Members, "joins": a.Joins}
	c := newCaller(srv.url)
	defer c.http.CloseIdleConnections()
	e.progress("a room of %d", a.Members)
	crowd, err := c.register(ctx, e.runName(), a.Members)
	if err != nil {
		return err
	}
	large, err := c.createRooms(ctx, crowd, a.Members)
	if err != nil {
		return err
	}
	e.progress("%d rooms of %d", a.Joins, smallRoom)
	neighbours, err := c.register(ctx, e.runName(), a.Joins*smallRoom)
	if err != nil {
		return err
	}
	small, err := c.createRooms(ctx, neighbours, smallRoom)
	if err != nil {
		return err
	}
	joiners, err := c.register(ctx, e.runName(), 2*a.Joins)
	if err != nil {
		return err
	}
	measure := func(size string, joiners []user, roomOf func(int) room) (float64, error) {
		before := takeSample(ctx, srv)
		err := parallel(ctx, a.Joins, joinWorkers, func(ctx context.Context, i int) error { return c.join(ctx, joiners[i], roomOf(i).id) })
		w := between(before, takeSample(ctx, srv))
		r.add("joins of a "+size+" room", w.perSecond(int64(a.Joins)), "/s")
		r.add("server CPU per join of a "+size+" room", w.cpuEach(int64(a.Joins)), "µs")
		return w.cpuEach(int64(a.Joins)), errors.Join(err, w.noCPU)
	}
	e.progress("%d joins each", a.Joins)
	few, err := measure("small", joiners[:a.Joins], func(i int) room { return small[i] })
	if err != nil {
		return err
	}
	many, err := measure("large", joiners[a.Joins:], func(int) room { return large[0] })
	if err != nil {
		return err
	}
	if few > 0 { // the kernel counts CPU time in steps of 10 ms
		r.add("large to small", many/few, "").atMost(a.Members == goalLargeRoom, goalJoinRatio)
	}
	return nil
}

const (
	// smallRoom is how many members a small room has.
	smallRoom = 10
	// joinWorkers join at the same time.
	joinWorkers = 8
)
