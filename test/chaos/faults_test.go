package chaos

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
)

// scene is what a fault is made with.
type scene struct {
	*load
	rng   *rand.Rand
	lease time.Duration
	// drain is how long a node that stops still serves.
	drain time.Duration
	// hold is how long a fault lasts that has no length of its own.
	hold    time.Duration
	sockets int
	// crowd are the users of a storm.
	crowd []*client
}

// fault is one thing that goes wrong, and is mended.
type fault struct {
	name string
	// form is the shortest form of a run that it is part of.
	form form
	// do makes the fault, waits until the service is back where that can be seen, and
	// mends it. It returns what it measured, in words.
	do func(*scene) string
}

// form is how long a run is.
type form int

// The forms: the first is for everyday, the second for CI, the third on demand.
const (
	everyday form = iota
	ci
	long
)

func faults() []fault {
	return []fault{
		{"SIGKILL of a node", everyday, (*scene).killNode},
		{"SIGSTOP for longer than the lease", ci, (*scene).stopNode},
		{"a node cut off from the others", ci, (*scene).cutNode},
		{"a node that the others cannot reach, and nobody is told", long, (*scene).holeNode},
		{"the link between two nodes cut", long, (*scene).cutLink},
		{"all links between nodes cut", ci, (*scene).cutLinks},
		{"slow links between nodes", ci, (*scene).slowLinks},
		{"a node cut off from the database", ci, (*scene).cutDatabase},
		{"a node whose database falls silent", everyday, (*scene).holeDatabase},
		{"a slow way to the database", ci, (*scene).slowDatabase},
		{"restart of the database, fast", ci, func(s *scene) string { return s.restartDatabase(syscall.SIGINT) }},
		{"restart of the database, immediate", ci, func(s *scene) string { return s.restartDatabase(syscall.SIGQUIT) }},
		{"a database that everyone loses", long, (*scene).loseDatabase},
		{"rolling restart", everyday, (*scene).rollingRestart},
		{"reconnect storm", ci, (*scene).storm},
	}
}

// one picks a node and the rest.
func (s *scene) one() (n *node, rest []*node) {
	at := s.rng.IntN(len(s.fleet.nodes))
	for i, other := range s.fleet.nodes {
		if i != at {
			rest = append(rest, other)
		}
	}
	return s.fleet.nodes[at], rest
}

// back waits until every partition takes messages, and says how long that took.
func (s *scene) back() string {
	return fmt.Sprintf("every partition serves again after %v", s.probe().Round(10*time.Millisecond))
}

// unready waits until the load balancer sees that a node does not serve.
func (s *scene) unready(n *node) string {
	begin := time.Now()
	for n.isReady() {
		if time.Since(begin) > liveness {
			n.hung("still says that it is ready")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Sprintf("%s says that it is not ready after %v", n.name, time.Since(begin).Round(10*time.Millisecond))
}

func (s *scene) killNode() string {
	n, _ := s.one()
	n.kill()
	text := s.back()
	n.start()
	return text
}

// stopNode pauses a node until others have what it had, and then lets it go on where
// it was: what it still believes to own must be refused.
func (s *scene) stopNode() string {
	n, _ := s.one()
	n.signal(syscall.SIGSTOP)
	// Who asks the node itself waits for as long as it likes to: that says nothing.
	text := s.unready(n)
	text += "; " + s.back()
	time.Sleep(s.lease / 4)
	n.signal(syscall.SIGCONT)
	return text
}

func (s *scene) cutNode() string  { return s.parted(faultnet.Cut) }
func (s *scene) holeNode() string { return s.parted(faultnet.Hole) }

func (s *scene) parted(f faultnet.Fault) string {
	n, _ := s.one()
	s.fleet.isolate(n, f)
	text := s.unready(n)
	text += "; " + s.back()
	time.Sleep(s.hold)
	s.fleet.isolate(n, faultnet.Pass)
	return text
}

func (s *scene) cutLink() string {
	_, two := s.one()
	s.fleet.part(two[0], two[1], faultnet.Cut)
	begin := time.Now()
	for two[0].isReady() && two[1].isReady() {
		if time.Since(begin) > liveness {
			s.fleet.t.Fatalf("%s and %s both stay", two[0].name, two[1].name)
		}
		time.Sleep(10 * time.Millisecond)
	}
	text := fmt.Sprintf("one of the two is not ready after %v; %s", time.Since(begin).Round(10*time.Millisecond), s.back())
	time.Sleep(s.hold)
	s.fleet.part(two[0], two[1], faultnet.Pass)
	return text
}

func (s *scene) cutLinks() string {
	for _, n := range s.fleet.nodes {
		s.fleet.isolate(n, faultnet.Cut)
	}
	text := s.unready(s.fleet.nodes[s.rng.IntN(len(s.fleet.nodes))])
	text += "; " + s.back()
	time.Sleep(s.hold)
	for _, n := range s.fleet.nodes {
		s.fleet.isolate(n, faultnet.Pass)
	}
	return text
}

func (s *scene) slowLinks() string {
	for _, n := range s.fleet.nodes {
		s.fleet.isolate(n, faultnet.Slow)
	}
	text := s.back()
	time.Sleep(s.hold)
	for _, n := range s.fleet.nodes {
		s.fleet.isolate(n, faultnet.Pass)
	}
	return text
}

func (s *scene) cutDatabase() string  { return s.withoutDatabase(faultnet.Cut) }
func (s *scene) holeDatabase() string { return s.withoutDatabase(faultnet.Hole) }

func (s *scene) withoutDatabase(f faultnet.Fault) string {
	n, _ := s.one()
	n.database.Set("", f)
	text := s.unready(n)
	text += "; " + s.back()
	time.Sleep(s.hold)
	n.database.Set("", faultnet.Pass)
	return text
}

func (s *scene) slowDatabase() string {
	n, _ := s.one()
	n.database.Set("", faultnet.Slow)
	text := s.back()
	time.Sleep(s.hold)
	n.database.Set("", faultnet.Pass)
	return text
}

func (s *scene) restartDatabase(sig syscall.Signal) string {
	s.fleet.pg.Stop(s.fleet.t, sig)
	s.fleet.pg.StartAgain(s.fleet.t)
	return s.back()
}

// loseDatabase cuts all nodes off from the database, for less than their leases.
func (s *scene) loseDatabase() string {
	for _, n := range s.fleet.nodes {
		n.database.Set("", faultnet.Hole)
	}
	text := s.unready(s.fleet.nodes[0])
	time.Sleep(s.hold)
	for _, n := range s.fleet.nodes {
		n.database.Set("", faultnet.Pass)
	}
	return text + "; " + s.back()
}

// rollingRestart restarts one node after another, as an upgrade does.
func (s *scene) rollingRestart() string {
	for _, n := range s.fleet.nodes {
		n.stop()
		n.start()
		s.fleet.await(n)
	}
	return "all three were restarted"
}
