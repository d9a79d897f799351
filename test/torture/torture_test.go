// Package torture kills the real server again and again, and lets package history
// decide whether it kept its promises.
package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
	"github.com/hubbub-chat/hubbub/test/history"
)

// The environment of a run: how often to kill, with which seed, where to keep
// the histories of runs that failed.
const (
	killsEnv = "HUBBUB_TEST_KILLS"
	seedEnv  = "HUBBUB_TEST_SEED"
	keepEnv  = "HUBBUB_TEST_KEEP"
)

// killsPerRun are the kills on one data directory; more kills are more runs.
const killsPerRun = 50

// TestTortureKills kills the server at random moments and checks what it promised.
func TestTortureKills(t *testing.T) {
	kills := uint64(8)
	if os.Getenv("CI") == "true" {
		kills = killsPerRun
	}
	kills = ondemand.Number(t, killsEnv, kills)
	seed := ondemand.Number(t, seedEnv, rand.Uint64())
	binary := build(t, "")
	for n := 0; kills > 0; n++ {
		now := min(kills, killsPerRun)
		kills -= now
		run := seed + uint64(n)
		t.Logf("seed %d, %d kills; again: %s=%d %s=%d go test -run TestTortureKills ./test/torture", run, now, seedEnv, run, killsEnv, now)
		h := torture(t, binary, binary, run, int(now))
		report(t, h)
		if t.Failed() {
			return
		}
	}
}

// maxShown is how many breaches are shown: the first say what is wrong.
const maxShown = 100

// report checks a history and says what it holds.
func report(t *testing.T, h *history.History) {
	t.Helper()
	ok, unknown, refused, repeated := 0, 0, 0, 0
	kinds := map[history.Kind]int{}
	for _, op := range h.Ops {
		switch op.Outcome {
		case history.OK:
			ok++
			kinds[op.Kind]++
		case history.Unknown:
			unknown++
		default:
			refused++
		}
		repeated += max(0, len(op.Answers)-1)
	}
	parts, limited := 0, 0
	for _, s := range h.Streams {
		parts += len(s.Parts)
		for _, p := range s.Parts {
			if p.Limited {
				limited++
			}
		}
	}
	t.Logf("%d kills, %d operations acknowledged, %d without an answer, %d refused, %d repeated; %v", h.Kills, ok, unknown, refused, repeated, kinds)
	t.Logf("%d rooms, %d streams with %d parts, %d of them limited", len(h.Final.Rooms), len(h.Streams), parts, limited)
	breaches := history.Check(h)
	for _, b := range breaches[:min(len(breaches), maxShown)] {
		t.Error(b)
	}
	if t.Failed() {
		keep(t, h)
	}
}

// keep writes a history to where it can be looked at.
func keep(t *testing.T, h *history.History) {
	t.Helper()
	dir := os.Getenv(keepEnv)
	if dir == "" {
		return
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, fmt.Sprintf("history-%d.json", h.Seed))
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("history kept in %s", file)
}

// mutantKills are enough for a server that answers too early to lose something.
const mutantKills = 8

// TestTortureFindsEarlyAnswers runs against a server that answers before it
// commits. What it loses must be found, and found as lost.
func TestTortureFindsEarlyAnswers(t *testing.T) {
	seed := ondemand.Number(t, seedEnv, rand.Uint64())
	t.Setenv("MUTANT_ACK_EARLY", "")
	h := torture(t, build(t, ""), build(t, "mutant_ack_early"), seed, mutantKills)
	breaches := history.Check(h)
	lost := 0
	for _, b := range breaches {
		if strings.HasPrefix(b, "C1 op") && strings.HasSuffix(b, "is not there") {
			lost++
		}
	}
	t.Logf("%d kills, %d breaches, %d acknowledged events lost", h.Kills, len(breaches), lost)
	if lost == 0 {
		t.Errorf("seed %d: no lost event was found; breaches: %q", seed, breaches[:min(len(breaches), maxShown)])
	}
}
