package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
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

// serve is hubbub serve, and hubbub import, as far as a run needs them.
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
	if args[0] == "import" {
		return app.Import(ctx, cfg, app.ImportOptions{File: "-", In: os.Stdin, Unsearched: true}, os.Stdout)
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
		{"longpoll --rooms 2 --members 3 --senders 4 --rate 50", "saturated: deliveries", 3},
		{"longpoll --transport http --rooms 2 --members 3 --senders 2 --rate 200", "at rate: deliveries", 3},
		{"idle --sessions 6 --members 3 --settle 0s", "sessions opened", 0},
		{"idle --sessions 6 --members 0 --settle 0s", "sessions opened", 0},
		{"idle --transport poll --sessions 6 --members 3 --settle 0s", "sessions opened", 0},
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
	for _, args := range [][]string{{"--nodes=1,2", "--rounds=1", "--store", pg.URL("postgres")}, {"--nodes=1", "--rounds=2"}} {
		r := run(t, append(slices.Clone(small), args...)...)
		names := []string{"1: nodes' CPU per send", "1: database's CPU per message", "1: round trips to the database per send", "1: rows written per send"}
		if len(args) > 2 {
			names = append(names, "2: nodes' CPU per delivery, message", "2: CPU per send beside 1", "2: CPU per message beside 1",
				"2: CPU per message at the rate beside 1")
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

// TestGrowth measures small points on servers whose data an import made, and draws
// them.
func TestGrowth(t *testing.T) {
	t.Setenv(serveEnv, "1")
	dir := t.TempDir()
	for _, tt := range []struct {
		args    string
		figures []string
	}{
		{"--of rooms --rooms 2,5", []string{"2: send, always in the same 64 rooms", "5: send, each in another room", "highest beside first: send, each in another room"}},
		{"--of members --members 4 --sockets 8 --deliveries 2000", []string{"4: delivery"}},
		{"--of history --history 0,40", nil},
		{"--of history --history 40", []string{"40: send", "40: the last 20 messages of a room"}},
		{"--of user-rooms --user-rooms 3", []string{"3: incremental sync with a message, always in the same 10 rooms", "3: incremental sync with a message, each in another room"}},
	} {
		args := append([]string{"growth", "--duration=600ms", "--warmup=50ms", "--rounds=1", "--rate=1000", "--svg", dir, "--serve-arg=--server.partitions=2"}, strings.Fields(tt.args)...)
		if tt.figures == nil {
			if err := Main(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); !errors.Is(err, ErrArgs) {
				t.Errorf("%s: %v", tt.args, err)
			}
			continue
		}
		r := run(t, args...)
		for _, name := range tt.figures {
			if figure(t, r, name) <= 0 {
				t.Errorf("%s: %s is 0", tt.args, name)
			}
		}
		if c := r.Results[0].Checked; c.Acked == 0 || c.Unknown+c.Refused+c.Skipped > 0 {
			t.Errorf("%s: %+v", tt.args, c)
		}
		name := "growth-" + strings.Fields(tt.args)[1] + ".svg"
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || xml.Unmarshal(b, new(struct{})) != nil || !bytes.Contains(b, []byte("prefers-color-scheme")) {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
}

// TestLarge has a large room of a few.
func TestLarge(t *testing.T) {
	t.Setenv(serveEnv, "1")
	r := run(t, "large", "--members=9", "--times=2", "--rate=50", "--duration=200ms", "--warmup=50ms", "--serve-arg=--server.partitions=2")
	for _, name := range []string{"others, alone: send to receive max", "join max", "send p50", "lazy initial sync max", "list of members max", "others beside list of members max"} {
		if figure(t, r, name) <= 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if c := r.Results[0].Checked; c.Acked == 0 || c.Delivered != 10*c.Acked {
		t.Errorf("%+v", c)
	}
}

// TestBegin starts a server on few users and rooms.
func TestBegin(t *testing.T) {
	t.Setenv(serveEnv, "1")
	r := run(t, "begin", "--users=30", "--rooms=40", "--serve-arg=--server.partitions=2")
	for _, name := range []string{"from start to ready", "RSS when ready", "RSS when calm"} {
		if figure(t, r, name) <= 0 {
			t.Errorf("%s is 0", name)
		}
	}
}

// A point lies where its figure says: further right by the logarithm, higher by the
// figure, with the band around the first.
func TestPlot(t *testing.T) {
	p := plot{title: "a < b", axis: "rooms", unit: "µs", band: 0.2, curves: []curve{{"one", []point{{10, 50}, {100, 100}, {1000, 0}}}, {"none", nil}}}
	svg := string(p.svg())
	s := p.scale()
	if left, mid, right := s.x(10), s.x(100), s.x(1000); left != plotLeft || right != plotWidth-plotRight || mid != (left+right)/2 {
		t.Errorf("x: %v %v %v", left, mid, right)
	}
	if bottom, half, top := s.y(0), s.y(s.top/2), s.y(s.top); bottom != plotHeight-plotBottom || top != plotTop || half != (bottom+top)/2 {
		t.Errorf("y: %v %v %v", bottom, half, top)
	}
	for _, want := range []string{
		"a &lt; b", fmt.Sprintf(`points="%.1f,%.1f %.1f,%.1f %.1f,%.1f"`, s.x(10), s.y(50), s.x(100), s.y(100), s.x(1000), s.y(0)),
		fmt.Sprintf(`y="%.1f" width="%d" height="%.1f"`, s.y(60), plotWidth-plotLeft-plotRight, s.y(40)-s.y(60)), ">1,000</text>",
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	if got := p.curves[0].highest(); got != 100 {
		t.Errorf("highest %v", got)
	}
}
