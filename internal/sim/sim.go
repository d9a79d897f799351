// Package sim runs a whole deployment in one process, with faults that one seed decides,
// and lets package judge say whether the promises of docs/ARCHITECTURE.md were kept.
//
// The nodes are real: internal/cluster, internal/partition, internal/room,
// internal/account and internal/feed as they are in a server, put together as
// internal/app does. Around them is simulated: the store (commits that fail before or
// after they took effect, come late, or are slow), the bus (loses, repeats, delays,
// reorders, is cut between two nodes), the clocks of nodes and store, the processes
// (crash, stopped for longer than a lease, drain), and the clients, who go to any node
// with each request and repeat what has no answer.
//
// Time is that of a bubble of testing/synctest: it passes when all goroutines wait, so
// that half a minute with dozens of leases that end takes some 50 ms. A lock that is held
// while the store is waited for has to be one of internal/longlock: behind a
// sync.Mutex time would stand still.
//
// # What a seed repeats
//
// Each part draws from dice of its own, made from the seed: what the faults, each client
// and each node's way to the store do. Every call and message takes a time of its own in
// nanoseconds, so that nearly always time decides what comes first. What is not decided by
// the seed is what Go itself leaves open: which of two goroutines that are ready at the
// same nanosecond runs, which ready case a select takes, how a map is walked. One such
// choice can shift the dice of a node from there on. So the same seed meets the same
// schedule of faults at the same times, and a breach comes back most times, not always: run
// it with GOMAXPROCS=1 and several times (-count), as make sim SEED=n does.
//
// # What it does not show
//
// A node that is stopped does nothing that has an effect, but its timers go on, and
// time.Now, by which they go, is the same on all nodes: what jumps is internal/clock. When the
// clock of the store leaps ahead by more than the part of a lease that nodes do not rely on, a
// sync may miss for as long what was just answered (docs/adr/0018), which C10 lets pass; all
// else is to hold. HTTP and sockets are left to test/torture and test/chaos.
package sim

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
	"github.com/hubbub-chat/hubbub/test/history"
)

// Options say what is simulated.
type Options struct {
	Seed   uint64
	Mutant Mutant
	// Nodes, Partitions and Users are those of Default if 0.
	Nodes, Partitions, Users int
	// Length is for how long clients write and faults happen.
	Length time.Duration
	// Trace, if not nil, is told what happens.
	Trace func(at time.Duration, what string)
	// Log, if not nil, gets what the nodes log.
	Log *slog.Logger
}

// What a run is like that does not say otherwise.
const (
	defaultNodes      = 3
	defaultPartitions = 4
	defaultUsers      = 3
	defaultLength     = 20 * time.Second
)

// Result is what a run came to.
type Result struct {
	Case judge.Case
	// Faults are those that happened.
	Faults []string
	// Virtual is how long the run took by its own clock.
	Virtual time.Duration
}

// world is one run.
type world struct {
	opts    Options
	seed    uint64
	begin   time.Time
	log     *slog.Logger
	wire    *partition.Wire
	db      *database
	net     *network
	weather *weather
	rec     *history.Recorder
	ctx     context.Context

	healing tasks
	healed  chan struct{}

	users   []*user
	board   board
	streams []*stream

	mu struct {
		sync.Mutex
		nodes  []*node
		booted int
		faults []string
		// offsets are those of the clock of the store.
		offsets []offset
		// handled is up to where the consumer has come.
		handled map[ids.Partition]ids.Seq
		j       judge.Case // but the history and the ledger
	}
}

// Run simulates a deployment. It is called in a bubble of testing/synctest.
func Run(opts Options) (*Result, error) {
	if opts.Nodes == 0 {
		opts.Nodes = defaultNodes
	}
	if opts.Partitions == 0 {
		opts.Partitions = defaultPartitions
	}
	if opts.Users == 0 {
		opts.Users = defaultUsers
	}
	if opts.Length == 0 {
		opts.Length = defaultLength
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	wire, err := newWire()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &world{
		opts: opts, seed: opts.Seed, begin: time.Now(), log: opts.Log, wire: wire, db: newDatabase(opts.Mutant),
		weather: &weather{w: calm()}, rec: history.NewRecorder(opts.Seed), ctx: ctx, healed: make(chan struct{}),
	}
	w.net = newNetwork(w)
	w.mu.nodes = make([]*node, opts.Nodes)
	w.mu.offsets = []offset{{}}
	w.mu.handled = make(map[ids.Partition]ids.Seq)
	w.db.moved = w.cursorMoved
	w.run()
	r := &Result{Case: w.mu.j, Faults: w.mu.faults, Virtual: time.Since(w.begin)}
	r.Case.History = w.rec.History()
	r.Case.Ledger = w.db.mu.ledger
	return r, nil
}

func (w *world) run() {
	for i := range w.opts.Nodes {
		w.boot(i)
	}
	for i := range w.opts.Nodes {
		<-w.node(i).up
	}
	w.populate()
	end := make(chan struct{})
	var working, following sync.WaitGroup
	for _, s := range w.streams {
		following.Go(s.follow)
	}
	for _, u := range w.users {
		working.Go(func() { u.work(end) })
	}
	w.harm(time.Now().Add(w.opts.Length))
	w.heal()
	close(end)
	working.Wait()
	w.fence()
	for _, s := range w.streams {
		s.stop()
	}
	following.Wait()
	w.awaitConsumer()
	w.readAll()
	w.readLogs()
	for i := range w.opts.Nodes {
		if n := w.node(i); n.isUp() {
			n.drain()
		} else {
			n.crash()
			<-n.ended
		}
	}
	w.net.wg.Wait()
	w.db.late.Wait()
}

// harm makes faults until a time.
func (w *world) harm(until time.Time) {
	d := newDice(w.seed, "faults")
	list := faults()
	total := 0
	for _, f := range list {
		total += f.weight
	}
	for time.Now().Before(until) {
		time.Sleep(d.between(50*time.Millisecond, 2500*time.Millisecond))
		pick := d.upTo(total)
		for _, f := range list {
			if pick -= f.weight; pick < 0 {
				if what := f.do(w, d); what != "" {
					w.mu.Lock()
					w.mu.faults = append(w.mu.faults, fmt.Sprintf("%v %s", w.now(), what))
					w.mu.Unlock()
					w.trace("%s", what)
				}
				break
			}
		}
	}
}

// heal ends all faults and waits until the deployment is whole.
func (w *world) heal() {
	close(w.healed)
	w.healing.Wait()
	w.weather.set(chances{})
	w.jumpStore(0)
	for i := range w.opts.Nodes {
		n := w.node(i)
		n.clock.jump(0)
		<-n.up
	}
	w.db.late.Wait()
	w.trace("healed")
}

func (w *world) now() time.Duration { return time.Since(w.begin) }

func (w *world) trace(format string, args ...any) {
	if w.opts.Trace != nil {
		w.opts.Trace(w.now(), fmt.Sprintf(format, args...))
	}
}

// pick is a node that a client with these dice turns to.
func (w *world) pick(d *dice) *node { return w.node(d.upTo(w.opts.Nodes)) }

// do runs a command on a node as a client's request.
func do[R any](w *world, n *node, cmd partition.Command) (R, error) {
	return serve(w.ctx, n, func(ctx context.Context) (R, error) {
		return partition.Do[R](ctx, n.cluster, cmd)
	})
}

// The users of a run: the first makes rooms and stays, the others come and go.
func userID(i int) ids.UserID { return ids.UserID(fmt.Sprintf("@u%d:h", i)) }
