package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
	"github.com/hubbub-chat/hubbub/test/history"
)

// The environment of a run: how many rounds of all faults (none is the short form),
// how long a fault lasts, how many sockets are in a storm, the seed, which faults (a
// regular expression for their names), and where the histories of runs that failed are kept.
const (
	roundsEnv  = "HUBBUB_TEST_CHAOS_ROUNDS"
	holdEnv    = "HUBBUB_TEST_CHAOS_HOLD"
	socketsEnv = "HUBBUB_TEST_CHAOS_SOCKETS"
	faultEnv   = "HUBBUB_TEST_CHAOS_FAULT"
	seedEnv    = "HUBBUB_TEST_SEED"
	keepEnv    = "HUBBUB_TEST_KEEP"
)

// The two forms of a run. In the short one leases are short too, so that it waits less.
const (
	shortLease = 3 * time.Second
	longLease  = 8 * time.Second
)

// TestChaos lets one fault after another happen to three nodes under load, and then
// judges what the clients saw.
func TestChaos(t *testing.T) {
	rounds := ondemand.Number(t, roundsEnv, 0)
	seed := ondemand.Number(t, seedEnv, rand.Uint64())
	s := &scene{rng: rand.New(rand.NewPCG(seed, 0)), lease: longLease, drain: 5 * time.Second, hold: 5 * time.Second, sockets: 5000}
	limit := 15 * time.Second
	f := long
	if rounds == 0 {
		if f = everyday; os.Getenv("CI") == "true" || os.Getenv(faultEnv) != "" {
			f = ci
		}
		s.lease, s.drain, s.hold, s.sockets = shortLease, time.Second, 500*time.Millisecond, 300
		limit = 6 * time.Second
	}
	if text := os.Getenv(holdEnv); text != "" {
		var err error
		if s.hold, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", holdEnv, err)
		}
	}
	wanted, err := regexp.Compile(os.Getenv(faultEnv))
	if err != nil {
		t.Fatalf("%s: %v", faultEnv, err)
	}
	s.sockets = int(ondemand.Number(t, socketsEnv, uint64(s.sockets)))
	t.Logf("seed %d; again: %s=%d go test -run TestChaos ./test/chaos", seed, seedEnv, seed)
	fl := newFleet(t, build(t), []string{"a", "b", "c"},
		fmt.Sprintf("--cluster.lease-ms=%d", s.lease.Milliseconds()), fmt.Sprintf("--cluster.drain-ms=%d", s.drain.Milliseconds()))
	fl.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.load = newLoad(ctx, fl, seed, limit)
	end := s.run()
	for range max(rounds, 1) {
		for _, ft := range faults() {
			if ft.form > f || !wanted.MatchString(ft.name) {
				continue
			}
			begin := time.Now()
			calls := s.next()
			text := ft.do(s)
			fl.await(fl.nodes...)
			t.Logf("%s: %s; all was mended after %v; answers: %v", ft.name, text, time.Since(begin).Round(10*time.Millisecond), calls)
		}
	}
	s.next()
	h, d := end()
	for _, n := range fl.nodes {
		h.Noted = append(h.Noted, n.complaints()...)
	}
	judge(t, h, d)
}

// maxShown is how many breaches are shown: the first say what is wrong.
const maxShown = 60

// judge checks what was seen, says what it holds, and keeps it if it is wrong.
func judge(t *testing.T, h *history.History, d *Devices) {
	t.Helper()
	outcomes := map[history.Outcome]int{}
	for _, op := range h.Ops {
		outcomes[op.Outcome]++
	}
	claimed := 0
	for _, c := range d.Claims {
		if c.Key != "" {
			claimed++
		}
	}
	parts := 0
	for _, st := range h.Streams {
		parts += len(st.Parts)
	}
	t.Logf("operations: %v; %d rooms, %d streams with %d parts; %d messages to devices; %d keys, %d of them claimed",
		outcomes, len(h.Final.Rooms), len(h.Streams), parts, len(d.Messages), len(d.Keys), claimed)
	breaches := append(history.Check(h), CheckDevices(d)...)
	for _, b := range breaches[:min(len(breaches), maxShown)] {
		t.Error(b)
	}
	dir := os.Getenv(keepEnv)
	if dir == "" || !t.Failed() {
		return
	}
	for name, what := range map[string]any{"history": h, "devices": d} {
		b, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("chaos-%d-%s.json", h.Seed, name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
