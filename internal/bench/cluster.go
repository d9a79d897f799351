package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	maxNodes = 9
	// goalDistribution is how much the CPU time of a message may grow with further
	// nodes, and goalDatabaseSends how many sends a core of the database should take
	// in a second.
	goalDistribution  = 1.3
	goalDatabaseSends = 20_000
	// meetTimeout bounds how long nodes take to share the partitions.
	meetTimeout = 30 * time.Second
)

func (a *clusterArgs) scenarios() ([]scenario, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.Rate <= 0 {
		return nil, errors.New("--rate must be positive")
	}
	if len(a.Nodes) == 0 {
		return nil, errors.New("--nodes names no number")
	}
	for _, n := range a.Nodes {
		if n < 1 || n > maxNodes {
			return nil, fmt.Errorf("--nodes: 1 to %d", maxNodes)
		}
	}
	return []scenario{{name: "cluster", bare: true, run: a.run}}, nil
}

// run measures each number of nodes on a fresh database. First all senders send as
// fast as they are answered and nobody receives, which loads the database; then all
// members receive, on all nodes, what is sent at a rate that leaves the machine some
// room, so that the CPU time of a message does not depend on how well it is gathered
// with others.
func (a *clusterArgs) run(ctx context.Context, e *env, _ *server, r *Result) (err error) {
	r.Parameters = map[string]any{"rooms": a.Rooms, "members": a.Members, "senders": a.Senders, "size": a.Size, "rate": a.Rate}
	var pg *postgres
	if a.Store != "" {
		pg, err = attachPostgres(ctx, a.Store)
	} else {
		pg, err = startPostgres(ctx, e.dir)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.close()) }()
	var first float64
	for _, n := range a.Nodes {
		each, err := a.measure(ctx, e, pg, n, r)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		if first == 0 {
			first = each
		} else if each > 0 {
			r.add(fmt.Sprintf("%d: CPU per message beside %d", n, a.Nodes[0]), each/first, "").atMost(a.Nodes[0] == 1, goalDistribution)
		}
	}
	return nil
}

// measure runs both phases on n nodes. It returns the CPU time of a message, nodes and
// database together.
func (a *clusterArgs) measure(ctx context.Context, e *env, pg *postgres, n int, r *Result) (each float64, err error) {
	name := strings.TrimSuffix(strings.ReplaceAll(e.runName(), "-", "_"), "_")
	store, err := pg.database(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, pg.drop(context.WithoutCancel(ctx), name)) }()
	nodes, err := e.startNodes(ctx, store, n)
	defer func() {
		for _, s := range nodes {
			err = errors.Join(err, s.close())
		}
	}()
	if err != nil {
		return 0, err
	}
	c := &clusterRun{clusterArgs: a, env: e, pg: pg, store: store, nodes: nodes, result: r, prefix: fmt.Sprintf("%d: ", n)}
	if err := c.saturate(ctx); err != nil {
		return 0, err
	}
	return c.atRate(ctx)
}

// startNodes starts nodes that share a store, and waits until each runs its share.
func (e *env) startNodes(ctx context.Context, store string, n int) (nodes []*server, err error) {
	join := ""
	for i := range n {
		args := []string{"--store", store}
		if n > 1 {
			addr, err := freeAddr(ctx)
			if err != nil {
				return nodes, err
			}
			if args = append(args, "--cluster-listen", addr); join != "" {
				args = append(args, "--join", join)
			} else {
				join = addr
			}
		}
		s, err := e.startServer(ctx, fmt.Sprintf("node%d", i+1), args...)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, s)
	}
	return nodes, shared(ctx, nodes)
}

// shared waits until every node of several runs some of the partitions.
func shared(ctx context.Context, nodes []*server) error {
	if len(nodes) == 1 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	for _, s := range nodes {
		for {
			m, err := s.scrape(ctx)
			if err != nil {
				return err
			}
			if m["hubbub_partition_owned"] > 0 {
				break
			}
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return fmt.Errorf("the nodes do not share the partitions: %w", err)
			}
		}
	}
	return nil
}

// clusterRun is the measurement of one number of nodes.
type clusterRun struct {
	*clusterArgs
	env    *env
	pg     *postgres
	store  string
	nodes  []*server
	result *Result
	prefix string
}

func (c *clusterRun) add(name string, v float64, unit string) *Figure {
	return c.result.add(c.prefix+name, v, unit)
}

// both measures a load and the database at the same time.
func (c *clusterRun) both(ctx context.Context, l *load, name string, p phase, run func(<-chan struct{})) (w window, db dbSample, err error) {
	var before, after dbSample
	w, err = l.measureWhile(ctx, fmt.Sprintf("cluster-%d-%s", len(c.nodes), name), p, run, func() (err error) {
		if before, err = c.pg.sample(ctx, c.store); err != nil {
			return err
		}
		if err = sleep(ctx, c.env.Duration); err != nil {
			return err
		}
		after, err = c.pg.sample(ctx, c.store)
		return err
	})
	return w, after.since(before), err
}

func (c *clusterRun) saturate(ctx context.Context) error {
	s := c.shape()
	s.overWS = true
	l, err := newClusterLoad(ctx, c.env, c.nodes, s)
	defer l.close()
	if err != nil {
		return err
	}
	w, db, err := c.both(ctx, l, "saturated", phaseFirst, func(stop <-chan struct{}) { l.closedLoop(ctx, stop, 0) })
	if err != nil {
		return err
	}
	c.add("sends, nobody receives", w.perSecond(w.acked), "/s")
	c.figures("per send", &w, db, w.acked)
	if c.pg.pid != 0 && w.acked > 0 {
		c.add("sends per core of the database", float64(w.acked)/db.cpu.Seconds(), "/s").atLeast(true, goalDatabaseSends)
	}
	return l.finishInto(ctx, c.result)
}

func (c *clusterRun) atRate(ctx context.Context) (each float64, err error) {
	s := c.shape()
	s.overWS, s.receivers = true, s.members
	l, err := newClusterLoad(ctx, c.env, c.nodes, s)
	defer l.close()
	if err != nil {
		return 0, err
	}
	w, db, err := c.both(ctx, l, "rate", phaseSecond, func(stop <-chan struct{}) { l.openLoop(ctx, stop, c.Rate) })
	if err != nil {
		return 0, err
	}
	c.add("messages, all receive", w.perSecond(w.acked), "/s")
	c.figures("per message", &w, db, w.acked)
	c.add("nodes' CPU per delivery", w.cpuEach(w.delivered), "µs")
	c.result.addLatency(c.prefix+"send to receive", l.check.latency(phaseSecond))
	if w.acked > 0 && c.pg.pid != 0 {
		each = micros(w.cpu+db.cpu) / float64(w.acked)
	}
	return each, l.finishInto(ctx, c.result)
}

// figures tells what nodes and database did for each of n.
func (c *clusterRun) figures(what string, w *window, db dbSample, n int64) {
	per := func(v float64) float64 {
		if n == 0 {
			return 0
		}
		return v / float64(n)
	}
	c.add("nodes' CPU "+what, w.cpuEach(n), "µs")
	if c.pg.pid != 0 {
		c.add("database's CPU "+what, per(micros(db.cpu)), "µs")
	}
	c.add("round trips to the database "+what, per(w.metrics["hubbub_store_calls_total"]), "")
	c.add("transactions "+what, per(float64(db.commits)), "")
	c.add("rows written "+what, per(float64(db.rows)), "")
	c.add("bytes of the database's log "+what, per(float64(db.walBytes)), "")
	c.add("its fsyncs "+what, per(float64(db.walSync)), "")
	if w.perBatch > 0 {
		c.add("commands per batch", w.perBatch, "")
	}
	c.add("cores: nodes", w.cores(w.cpu), "")
	c.add("cores: database", w.cores(db.cpu), "")
	c.add("cores: load generator", w.cores(w.clientCPU), "")
}
