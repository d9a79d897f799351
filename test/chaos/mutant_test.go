package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
	"github.com/hubbub-chat/hubbub/test/history"
)

// mutants are the tags of a build in which guards can be switched off, each by a variable
// of the environment: it names a file that wakes the fault while it is there.
const mutants = "mutant_ack_early,mutant_no_fence"

// mutantLease is short, since the fault that shows a missing fence outlasts it.
const mutantLease = 2 * time.Second

// mutantScene is a fleet of mutants with the file that wakes them.
type mutantScene struct {
	*scene
	file string
}

// wake wakes the fault, or lets it sleep again.
func (s *mutantScene) wake(awake bool) {
	err := os.Remove(s.file)
	if awake {
		err = os.WriteFile(s.file, nil, 0o600)
	}
	if err != nil {
		s.fleet.t.Fatal(err)
	}
}

// killAll ends all processes when messages to all partitions have just been
// acknowledged, before a mutant that answers early has committed the last of them.
func (s *mutantScene) killAll() {
	s.wake(true)
	s.probe()
	for _, n := range s.fleet.nodes {
		n.kill()
	}
	s.wake(false)
	s.fleet.start()
}

// stopInCommit stops two nodes in the middle of commits until the third has gone on with
// their partitions, and lets them finish. At least one of two nodes runs partitions.
func (s *mutantScene) stopInCommit() {
	_, two := s.one()
	s.wake(true)
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		s.probe() // something for each partition to commit
	}()
	var at []string
	for _, n := range two {
		at = append(at, fmt.Sprint(n.proc.Process.Pid))
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(s.file)
		if err != nil {
			s.fleet.t.Fatal(err)
		}
		if slices.ContainsFunc(strings.Fields(string(b)), func(pid string) bool { return slices.Contains(at, pid) }) {
			break
		}
		if time.Since(begin) > liveness {
			s.fleet.t.Fatal("nothing is committed")
		}
	}
	for _, n := range two {
		n.signal(syscall.SIGSTOP)
	}
	s.wake(false)
	s.back()
	for _, n := range two {
		n.signal(syscall.SIGCONT)
	}
	<-probed
	s.fleet.await(s.fleet.nodes...)
	s.back()
}

// lost tells of a message that was acknowledged and is not there.
func lost(breach string) bool {
	return strings.HasPrefix(breach, "C1 op") && strings.HasSuffix(breach, "is not there")
}

// twice tells of a message that is there at two places.
func twice(breach string) bool {
	return strings.HasPrefix(breach, "C3 ") && strings.Contains(breach, " is there at ")
}

// What a server with one guard off does wrong is found, and found as what it is:
// otherwise a run that finds nothing would say nothing. What is committed without a
// fence takes the place of what the new owner has there, or, where that was no message,
// stands beside what its sender has sent again meanwhile.
func TestChaosFindsMutants(t *testing.T) {
	binary := buildWith(t, mutants)
	for _, m := range []struct {
		env   string
		do    func(*mutantScene)
		shows func(breach string) bool
	}{
		{"MUTANT_ACK_EARLY", (*mutantScene).killAll, lost},
		{"MUTANT_NO_FENCE", (*mutantScene).stopInCommit, func(b string) bool { return lost(b) || twice(b) }},
	} {
		t.Run(m.env, func(t *testing.T) {
			seed := ondemand.Number(t, seedEnv, rand.Uint64())
			fl := newFleet(t, binary, []string{"a", "b", "c"},
				fmt.Sprintf("--cluster.lease-ms=%d", mutantLease.Milliseconds()), "--cluster.drain-ms=100")
			s := &mutantScene{file: filepath.Join(t.TempDir(), "awake")}
			fl.env = []string{m.env + "=" + s.file}
			fl.start()
			s.scene = &scene{rng: rand.New(rand.NewPCG(seed, 0)), lease: mutantLease, load: newLoad(t.Context(), fl, seed, 6*time.Second)}
			s.patience = time.Second // what is lost does not come
			end := s.run()
			m.do(s)
			h, _ := end()
			breaches := history.Check(h)
			t.Logf("%d operations, %d breaches", len(h.Ops), len(breaches))
			if !slices.ContainsFunc(breaches, m.shows) {
				t.Errorf("seed %d: what the mutant does was not found; breaches: %q", seed, breaches[:min(len(breaches), maxShown)])
			}
		})
	}
}
