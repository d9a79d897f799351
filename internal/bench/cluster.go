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
	if a.Rate <= 0 || a.Rounds < 1 {
		return nil, errors.New("--rate and --rounds must be positive")
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

// clusterPhases are what is measured on each number of nodes. What a further node costs
// is bounded where the machine is full. At a rate that leaves it half idle, most of what
// a message costs is that it wakes threads and processors which wait, and of those there
// are more with each node; that is told, and has no goal.
var clusterPhases = [...]struct {
	what, each      string
	receivers, rate bool
}{
	{what: "sends, nobody receives", each: "send"},
	{what: "messages, all receive", each: "message", receivers: true},
	{what: "messages at the rate", each: "message at the rate", receivers: true, rate: true},
}

// run measures each number of nodes in turn, some rounds, each time on a fresh
// database. Of each phase the round counts in which a message took the least.
func (a *clusterArgs) run(ctx context.Context, e *env, _ *server, r *Result) (err error) {
	r.Parameters = map[string]any{"rooms": a.Rooms, "members": a.Members, "senders": a.Senders, "size": a.Size, "rate": a.Rate, "rounds": a.Rounds}
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
	best := make([]clusterFound, len(a.Nodes))
	for round := range a.Rounds {
		for i, n := range a.Nodes {
			found, err := a.measure(ctx, e, pg, n, r)
			if err != nil {
				return fmt.Errorf("%d nodes: %w", n, err)
			}
			for j := range found {
				if round == 0 || found[j].each < best[i][j].each {
					best[i][j] = found[j]
				}
			}
		}
	}
	for i, n := range a.Nodes {
		for j, p := range clusterPhases {
			f, first := &best[i][j], &best[0][j]
			r.Figures = append(r.Figures, f.found.Figures...)
			if i > 0 && first.each > 0 {
				r.add(fmt.Sprintf("%d: CPU per %s beside %d", n, p.each, a.Nodes[0]), f.each/first.each, "").
					atMost(a.Nodes[0] == 1 && !p.rate, goalDistribution)
			}
		}
	}
	return nil
}

// clusterFound is what the phases found on one number of nodes.
type clusterFound [len(clusterPhases)]phaseFound

// phaseFound is what one phase found.
type phaseFound struct {
	found Result
	// each is the CPU time of a message in microseconds, nodes and database together; 0
	// if that of the database is not known.
	each float64
}

// measure runs the phases on n nodes.
func (a *clusterArgs) measure(ctx context.Context, e *env, pg *postgres, n int, r *Result) (found clusterFound, err error) {
	name := strings.TrimSuffix(strings.ReplaceAll(e.runName(), "-", "_"), "_")
	store, err := pg.database(ctx, name)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, pg.drop(context.WithoutCancel(ctx), name)) }()
	nodes, err := e.startNodes(ctx, store, n)
	defer func() {
		for _, s := range nodes {
			err = errors.Join(err, s.close())
		}
	}()
	if err != nil {
		return found, err
	}
	for i := range clusterPhases {
		c := &clusterRun{
			clusterArgs: a, env: e, pg: pg, store: store, nodes: nodes, result: r,
			prefix: fmt.Sprintf("%d: ", n), phaseFound: &found[i],
		}
		if err := c.phase(ctx, i); err != nil {
			return found, err
		}
	}
	return found, nil
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

// clusterRun is the measurement of one phase on one number of nodes.
type clusterRun struct {
	*clusterArgs
	*phaseFound
	env    *env
	pg     *postgres
	store  string
	nodes  []*server
	result *Result
	prefix string
}

func (c *clusterRun) add(name string, v float64, unit string) *Figure {
	return c.found.add(c.prefix+name, v, unit)
}

// both measures a load and the database at the same time.
func (c *clusterRun) both(ctx context.Context, l *load, name string, run func(<-chan struct{})) (w window, db dbSample, err error) {
	var before, after dbSample
	w, err = l.measureWhile(ctx, fmt.Sprintf("cluster-%d-%s", len(c.nodes), name), phaseFirst, run, func() (err error) {
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

// phase measures one phase.
func (c *clusterRun) phase(ctx context.Context, i int) error {
	p, s := clusterPhases[i], c.shape()
	s.overWS = true
	window := 0
	if p.receivers {
		s.receivers, window = s.members, deliverWindow
	}
	l, err := newClusterLoad(ctx, c.env, c.nodes, s)
	defer l.close()
	if err != nil {
		return err
	}
	w, db, err := c.both(ctx, l, fmt.Sprint("phase", i+1), func(stop <-chan struct{}) {
		if p.rate {
			l.openLoop(ctx, stop, c.Rate)
		} else {
			l.closedLoop(ctx, stop, window)
		}
	})
	if err != nil {
		return err
	}
	c.add(p.what, w.perSecond(w.acked), "/s")
	c.figures(p.each, &w, db)
	if p.receivers {
		c.add("nodes' CPU per delivery, "+p.each, w.cpuEach(w.delivered), "µs")
	}
	if p.rate {
		c.found.addLatency(c.prefix+"send to receive", l.check.latency(phaseFirst))
	}
	if !p.receivers && c.pg.pid != 0 && w.acked > 0 {
		c.add("sends per core of the database", float64(w.acked)/db.cpu.Seconds(), "/s").atLeast(true, goalDatabaseSends)
	}
	return l.finishInto(ctx, c.result)
}

// figures tells what nodes and database did for each message.
func (c *clusterRun) figures(each string, w *window, db dbSample) {
	n := w.acked
	per := func(v float64) float64 {
		if n == 0 {
			return 0
		}
		return v / float64(n)
	}
	c.add("nodes' CPU per "+each, w.cpuEach(n), "µs")
	if c.pg.pid != 0 {
		c.each = per(micros(w.cpu + db.cpu))
		c.add("database's CPU per "+each, per(micros(db.cpu)), "µs")
	}
	c.add("round trips to the database per "+each, per(w.metrics["hubbub_store_calls_total"]), "")
	c.add("transactions per "+each, per(float64(db.commits)), "")
	c.add("rows written per "+each, per(float64(db.rows)), "")
	c.add("bytes of the database's log per "+each, per(float64(db.walBytes)), "")
	c.add("its fsyncs per "+each, per(float64(db.walSync)), "")
	if w.perBatch > 0 {
		c.add("commands per batch, "+each, w.perBatch, "")
	}
	c.add("cores: nodes, "+each, w.cores(w.cpu), "")
	c.add("cores: database, "+each, w.cores(db.cpu), "")
	c.add("cores: load generator, "+each, w.cores(w.clientCPU), "")
}
