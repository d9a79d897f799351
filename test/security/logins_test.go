package security

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
)

// The environment of the runs that measure, which need a machine that does nothing
// else: how many pairs of logins are timed, and whether a flood's memory is.
const (
	loginsEnv = "HUBBUB_TEST_LOGINS"
	floodEnv  = "HUBBUB_TEST_FLOOD"
)

var hashesLine = regexp.MustCompile(`(?m)^hubbub_auth_password_hashes_total (\S+)$`)

// hashes is how many password hashes a server has computed.
func hashes(t *testing.T, s *apptest.Server) int {
	t.Helper()
	resp, err := http.Get(s.MetricsURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := hashesLine.FindSubmatch(raw)
	if m == nil {
		t.Fatal("no count of hashes in the metrics")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLoginTellsNotWhoIsThere: a wrong password gets the same answer for the same
// work, whether the account exists or not. With HUBBUB_TEST_LOGINS=2000 the real
// hashes are computed, so many pairs are timed in turns, and the medians have to be
// within 5 %.
func TestLoginTellsNotWhoIsThere(t *testing.T) {
	pairs := int(ondemand.Number(t, loginsEnv, 0))
	if pairs == 0 {
		t.Parallel()
	}
	s := apptest.Start(t, metrics, func(c *config.Config) { c.Registration.CheapPasswordHashes = pairs == 0 })
	alice := s.User(t, "alice")
	nobody := s.Anonymous()
	nobody.UserID = "@alicf:" + apptest.Name
	var answers [2]string
	try := func(i int, c *apptest.Client) time.Duration {
		begin := time.Now()
		status, raw, _ := s.Anonymous().Raw(t, "POST", v3+"/login", password(c, "wrong"))
		took := time.Since(begin)
		answers[i] = strconv.Itoa(status) + " " + string(raw)
		return took
	}
	for i, c := range []*apptest.Client{alice, nobody} {
		before := hashes(t, s)
		try(i, c)
		if n := hashes(t, s) - before; n != 1 {
			t.Errorf("%s: %d hashes were computed", c.UserID, n)
		}
	}
	if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "403 ") {
		t.Errorf("the answers differ: %q", answers)
	}
	if pairs == 0 {
		return
	}
	var times [2][]time.Duration
	for n := range pairs {
		for k := range 2 {
			i := (k + n) % 2 // each comes first in half of the pairs
			times[i] = append(times[i], try(i, []*apptest.Client{alice, nobody}[i]))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	there, missing := times[0][pairs/2], times[1][pairs/2]
	t.Logf("medians of %d: %v for who is there, %v for who is not", pairs, there, missing)
	if r := float64(there) / float64(missing); r < 0.95 || r > 1.05 {
		t.Errorf("the medians are apart by a factor of %.3f", r)
	}
}

// highWater is the most memory that the process had since it was last forgotten, in
// MiB.
func highWater(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(raw)
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n >> 10
}

// TestFloodWithoutLimits: where the limits of addresses and accounts do not catch a
// flood of logins, the queue of the hashes does: who finds it full is refused before
// anything is computed. With HUBBUB_TEST_FLOOD=1 the hashes are real, and the memory
// that all of it takes is measured.
func TestFloodWithoutLimits(t *testing.T) {
	measured := ondemand.Number(t, floodEnv, 0) != 0
	if !measured {
		t.Parallel()
	}
	s := apptest.Start(t, metrics, func(c *config.Config) { c.Registration.CheapPasswordHashes = !measured })
	alice := s.User(t, "alice")
	before := 0
	if measured {
		runtime.GC()
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // forgets the high water
			t.Fatal(err)
		}
		before = highWater(t)
	}
	computed := hashes(t, s)
	count := flood(t, alice)
	wrong, refused := count[http.StatusForbidden], count[http.StatusTooManyRequests]
	if computed = hashes(t, s) - computed; wrong+refused != floodOfLogins || computed != wrong {
		t.Errorf("answers %v with %d hashes", count, computed)
	}
	if !measured {
		return
	}
	grown := highWater(t) - before
	t.Logf("%d logins at once: %d hashed, %d refused; memory grew by %d MiB from %d MiB on %d processors", floodOfLogins, wrong, refused, grown, before, runtime.GOMAXPROCS(0))
	if most := 64 + 3*19*runtime.GOMAXPROCS(0); grown > most || refused == 0 {
		t.Errorf("%d MiB, %d may be; %d refused", grown, most, refused)
	}
}

// flood is many logins at once with a wrong password; it counts the answers by status.
func flood(t *testing.T, c *apptest.Client) map[int]int {
	t.Helper()
	var wg sync.WaitGroup
	statuses := make(chan int, floodOfLogins)
	for range floodOfLogins {
		wg.Go(func() {
			status, _, _ := c.Raw(t, "POST", v3+"/login", password(c, "wrong"))
			statuses <- status
		})
	}
	wg.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	return count
}
