package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// serveEnv makes the test binary the server that a run starts as its child.
const serveEnv = "HUBBUB_BENCH_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		if err := serve(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serve is hubbub serve as far as a run needs it.
func serve(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	flags := map[string][]string{}
	for i := 1; i < len(args); i++ {
		name, value, _ := strings.Cut(strings.TrimPrefix(args[i], "--"), "=")
		for _, f := range config.Fields() {
			if f.Flag != name && f.ShortFlag != name {
				continue
			}
			switch {
			case f.Kind == config.KindBool && value == "":
				value = "true"
			case value == "":
				i++
				value = args[i]
			}
			flags[f.Key] = []string{value}
		}
	}
	cfg, err := config.Load(config.Input{Flags: flags})
	if err != nil {
		return err
	}
	s, err := app.New(ctx, cfg, obs.NewLogger(os.Stderr, obs.LogOptions{}))
	if err != nil {
		return err
	}
	if err := s.Announce(ctx, os.Stdout); err != nil {
		return errors.Join(err, s.Close())
	}
	return s.Run(ctx)
}

// run runs Main and returns its report.
func run(t *testing.T, args ...string) *Report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	var stdout, stderr bytes.Buffer
	err := Main(t.Context(), append([]string{"--json", file, "--data", t.TempDir()}, args...), &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, stderr.String(), stdout.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if len(r.Results) != 1 || r.CPUs == 0 || r.Go == "" || r.Commit == "" || len(r.Results[0].Errors) > 0 {
		t.Fatalf("%s", b)
	}
	for _, f := range r.Results[0].Figures {
		if !strings.Contains(stdout.String(), f.Name) {
			t.Errorf("%s is not printed:\n%s", f.Name, stdout.String())
		}
	}
	return r
}

func figure(t *testing.T, r *Report, name string) float64 {
	t.Helper()
	for _, f := range r.Results[0].Figures {
		if f.Name == name {
			return f.Value
		}
	}
	t.Errorf("no figure %q in %+v", name, r.Results[0].Figures)
	return 0
}

// TestScenarios runs each scenario in small against a whole server. What they
// check is checked for real.
func TestScenarios(t *testing.T) {
	metrics, err := freeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := apptest.Start(t, func(c *config.Config) { c.Server.MetricsListen = metrics })
	tests := []struct {
		args      string
		figure    string
		delivered int64 // for each acknowledged message
	}{
		{"send --rooms 2 --members 3 --senders 4", "sends", 0},
		{"send --rooms 2 --members 3 --senders 4 --receivers 2 --transport ws --size 2000", "sends", 2},
		{"deliver --rooms 2 --members 3 --senders 4", "at rate: send to receive p99", 3},
		{"deliver --rooms 2 --members 3 --senders 4 --rate 50", "at rate: deliveries", 3},
		{"fanout --members 10 --senders 2 --window 4", "saturated: deliveries", 10},
		{"longpoll --rooms 2 --members 3 --senders 4 --rate 50", "deliveries", 3},
		{"longpoll --transport http --rooms 2 --members 3 --senders 2 --rate 200", "deliveries", 3},
		{"idle --sessions 6 --members 3 --settle 0s", "sessions opened", 0},
		{"idle --sessions 6 --members 0 --settle 0s", "sessions opened", 0},
		{"account --rooms 3 --members 2", "incremental sync, one message p50", 0},
		{"join --members 30 --joins 4", "joins of a large room", 0},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := append(strings.Fields(tt.args), "--url", s.URL, "--metrics-url", "http://"+metrics, "--duration", "400ms", "--warmup", "50ms")
			r := run(t, args...)
			if v := figure(t, r, tt.figure); v <= 0 {
				t.Errorf("%s is %v", tt.figure, v)
			}
			c := r.Results[0].Checked
			if tt.delivered == 0 && !strings.HasPrefix(tt.args, "send") {
				return // nobody listens
			}
			if c.Acked == 0 || c.Unknown+c.Refused > 0 || c.Delivered+c.Skipped != c.Acked*tt.delivered {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestChild starts the server as a child, twice for idle sessions, and profiles
// it.
func TestChild(t *testing.T) {
	t.Setenv(serveEnv, "1")
	dir := t.TempDir()
	r := run(t, "idle", "--sessions", "4", "--members", "2", "--settle", "0s", "--serve-arg=--server.partitions=2")
	if figure(t, r, "RSS after") <= 0 || r.Server != "child" {
		t.Errorf("%+v", r)
	}
	run(t, "send", "--rooms=2", "--members=2", "--senders=2", "--duration=1s", "--warmup=0s", "--profile", dir, "--serve-arg=--server.partitions=2")
	for _, kind := range []string{"cpu", "allocs"} {
		if b, err := os.ReadFile(filepath.Join(dir, "send-http-2."+kind+".pb.gz")); err != nil || len(b) < 100 {
			t.Errorf("profile of %d bytes, %v", len(b), err)
		}
	}
}

func TestChildThatDoesNotStart(t *testing.T) {
	t.Setenv(serveEnv, "1")
	err := Main(t.Context(), []string{"send", "--data", t.TempDir(), "--serve-arg=--server.partitions=3"}, new(bytes.Buffer), new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "partitions") {
		t.Errorf("%v, want the server's last words", err)
	}
}

// TestCluster starts nodes over a PostgreSQL that runs, and over one of its own.
func TestCluster(t *testing.T) {
	t.Setenv(serveEnv, "1")
	pg := pgtest.Start(t)
	small := []string{
		"cluster", "--rooms=4", "--members=3", "--senders=4", "--rate=50", "--duration=1200ms", "--warmup=50ms",
		"--serve-arg=--server.partitions=16",
	}
	for _, args := range [][]string{{"--nodes=1,2", "--store", pg.URL("postgres")}, {"--nodes=1"}} {
		r := run(t, append(slices.Clone(small), args...)...)
		names := []string{"1: nodes' CPU per send", "1: database's CPU per message", "1: round trips to the database per send", "1: rows written per send"}
		if len(args) > 1 {
			names = append(names, "2: nodes' CPU per delivery", "2: CPU per message beside 1")
		}
		for _, name := range names {
			if figure(t, r, name) <= 0 {
				t.Errorf("%v: %s is 0", args, name)
			}
		}
		if c := r.Results[0].Checked; c.Acked == 0 || c.Unknown+c.Refused > 0 || c.Delivered == 0 {
			t.Errorf("%v: %+v", args, c)
		}
	}
}

// TestFaultsFail: whatever the figures, a broken promise is an error, and all the
// same the report is complete.
func TestFaultsFail(t *testing.T) {
	s := apptest.Start(t)
	file := filepath.Join(t.TempDir(), "report.json")
	var stdout bytes.Buffer
	e := &env{stdout: &stdout, stderr: new(bytes.Buffer)}
	e.URL, e.JSON, e.Data = s.URL, file, t.TempDir()
	err := e.main(t.Context(), []scenario{
		{name: "bad", run: func(_ context.Context, _ *env, _ *server, r *Result) error {
			c := newChecker()
			c.fault("lost", "$a")
			r.Faults, r.FaultTexts = c.faults()
			return nil
		}},
		{name: "good", run: func(context.Context, *env, *server, *Result) error { return nil }},
	})
	if !errors.Is(err, ErrBroken) || !strings.Contains(stdout.String(), "FAULT: 1 × lost") {
		t.Errorf("%v\n%s", err, stdout.String())
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, []byte(`"good"`)) {
		t.Errorf("%v: %s", err, b)
	}
	broken := errors.New("broken")
	err = e.main(t.Context(), []scenario{{name: "bad", run: func(context.Context, *env, *server, *Result) error { return broken }}})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// TestServerGone: a server that is not there is an error, not a figure.
func TestServerGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, scenario := range []string{"send", "idle"} {
		err := Main(t.Context(), []string{scenario, "--url", "http://" + l.Addr().String(), "--data", t.TempDir()}, new(bytes.Buffer), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
	}
}
