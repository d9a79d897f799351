package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/hubbub-chat/hubbub/internal/config"
)

// mainEnv makes the test binary behave as the real one.
const mainEnv = "HUBBUB_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func runForTest(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = run(t.Context(), args, process{stdout: &out, stderr: &errOut})
	return code, out.String(), errOut.String()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("[sever]\nname = \"a\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"help", []string{"--help"}, exitOK, "serve", ""},
		{"help of serve", []string{"serve", "--help"}, exitOK, "--limits.login.burst", ""},
		{"version", []string{"version"}, exitOK, "commit ", ""},
		{"example", []string{"config", "example"}, exitOK, "[server]", ""},
		{"nothing", nil, exitUsage, "", "serve"},
		{"unknown command", []string{"server"}, exitUsage, "", "serve"},
		{"unknown flag", []string{"serve", "--lisen=a"}, exitUsage, "", "did you mean \"--listen\"?"},
		{"bad value", []string{"serve", "--registration", "opne"}, exitUsage, "", "flag --registration"},
		{"bad switch", []string{"serve", "--test-mode=maybe"}, exitUsage, "", "true or false"},
		{"bad file", []string{"serve", "--config", bad}, exitUsage, "", "did you mean server?"},
		{"no file", []string{"serve", "--config", filepath.Join(dir, "none")}, exitUsage, "", "no such file"},
		{"backup without a place", []string{"backup", "--data", dir}, exitUsage, "", "<dir>"},
		{"backup of nothing", []string{"backup", "--data", dir, filepath.Join(dir, "to")}, exitError, "", "no such file"},
		{"migration to nowhere", []string{"migrate-store", "--data", dir}, exitUsage, "", "--to"},
		{"move in an embedded store", []string{"move-partition", "--data", t.TempDir(), "3", "--to", "2"}, exitError, "", "not PostgreSQL"},
		{"migration of nothing", []string{"migrate-store", "--data", dir, "--to", filepath.Join(dir, "to")}, exitError, "", "no such file"},
		{"import of nothing", []string{"import", "--data", dir}, exitUsage, "", "<lines>"},
		{"import of no file", []string{"import", "--data", dir, filepath.Join(dir, "none")}, exitError, "", "no such file"},
		{"no value", []string{"serve", "--listen"}, exitUsage, "", "--listen"},
		{
			"address in use",
			[]string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--metrics-listen", occupied.Addr().String()},
			exitError, "", "address already in use",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runForTest(t, tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("stdout %q\nstderr %q", stdout, stderr)
			}
			if (code == exitOK) != (stderr == "") {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
		})
	}
}

// parseFlags runs the flags of serve through kong.
func parseFlags(t *testing.T, args ...string) (config.Config, error) {
	t.Helper()
	flags := newConfigFlags()
	parser, err := kong.New(&struct{}{}, kong.DynamicCommand("serve", "", "", flags.args))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"serve"}, args...)); err != nil {
		t.Fatal(err)
	}
	return flags.load(process{environ: []string{"HUBBUB_SERVER_NAME=env.example"}})
}

func TestFlags(t *testing.T) {
	c, err := parseFlags(t,
		"--listen", "127.0.0.1:1", "--listen=127.0.0.1:2,127.0.0.1:3", "--test-mode", "--limits.login.burst", "7",
		"--server.data-dir", "/d", "--registration=token", "--appservice", "a.yaml", "--appservice", "b.yaml", "--server.pprof=false")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Server.Name = "env.example"
	want.Server.Listen = []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	want.Server.DataDir = "/d"
	want.Server.AppserviceFiles = []string{"a.yaml", "b.yaml"}
	want.Limits.Login.Burst = 7
	if !reflect.DeepEqual(c.Server.Listen, want.Server.Listen) || !reflect.DeepEqual(c.Server.AppserviceFiles, want.Server.AppserviceFiles) ||
		c.Server.Name != want.Server.Name || c.Server.DataDir != want.Server.DataDir || c.Limits.Login != want.Limits.Login {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if !c.Limits.NoRateLimits || c.Registration.Mode != config.RegistrationToken {
		t.Errorf("--test-mode beside --registration=token: %+v", c)
	}
}

// TestEveryFieldHasItsFlag: the systematic flag of each key reaches that key.
func TestEveryFieldHasItsFlag(t *testing.T) {
	for _, f := range config.Fields() {
		flags := newConfigFlags()
		parser, err := kong.New(&struct{}{}, kong.DynamicCommand("serve", "", "", flags.args))
		if err != nil {
			t.Fatal(err)
		}
		names := []string{f.Flag}
		if f.ShortFlag != "" {
			names = append(names, f.ShortFlag)
		}
		for _, name := range names {
			if _, err := parser.Parse([]string{"serve", "--" + name + "=nonsense,"}); err != nil {
				t.Errorf("--%s: %v", name, err)
				continue
			}
			// A key that takes any text shows the text; every other names itself.
			cfg, err := flags.load(process{})
			shown := fmt.Sprintf("%+v", cfg) + cfg.Registration.SharedSecret.Reveal() + cfg.SMTP.Password.Reveal() + cfg.JWT.Secret.Reveal() +
				cfg.Media.StoreAccessKey.Reveal() + cfg.Media.StoreSecretKey.Reveal() + cfg.Cluster.Secret.Reveal()
			if err != nil {
				shown = err.Error()
			}
			if !strings.Contains(shown, f.Key+" (") && !strings.Contains(shown, "nonsense") {
				t.Errorf("--%s did not reach %s: %s", name, f.Key, shown)
			}
		}
	}
}

func TestSecondSignalExits(t *testing.T) {
	signals := make(chan os.Signal)
	ctx, cancel := context.WithCancel(t.Context())
	exited := make(chan int, 1)
	go watch(signals, cancel, func(code int) { exited <- code })
	signals <- syscall.SIGTERM
	<-ctx.Done()
	select {
	case <-exited:
		t.Fatal("the first signal exits")
	default:
	}
	signals <- syscall.SIGTERM
	if code := <-exited; code != exitError {
		t.Errorf("exit code %d", code)
	}
}

// TestServeStopsOnSIGTERM starts the real main in a process of its own.
func TestServeStopsOnSIGTERM(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()

	var output bytes.Buffer
	cmd := exec.Command(os.Args[0], "serve", "--test-mode", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--metrics-listen", addr)
	cmd.Env = []string{mainEnv + "=1", "HUBBUB_SERVER_PARTITIONS=2"}
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ending error
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		ending = cmd.Wait()
	}()
	if err := awaitReady(t.Context(), "http://"+addr+"/readyz", exited); err != nil {
		_ = cmd.Process.Kill()
		<-exited
		t.Fatalf("%v (ended with %v)\n%s", err, ending, output.String())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-exited
	if ending != nil {
		t.Errorf("after SIGTERM: %v\n%s", ending, output.String())
	}
}

// awaitReady asks until the answer is 200 or the process is gone.
func awaitReady(ctx context.Context, url string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if res, err := http.Get(url); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// TestToolGetsItsArguments: what stands behind a tool's name is the tool's.
func TestToolGetsItsArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"send", "--rooms=3", "-v"}, {"--rooms", "3", "send"}, {"--json"}, {"--help"}} {
		var got []string
		c := tool("bench", "x", func(_ context.Context, args []string, stdout, _ io.Writer) error {
			got = args
			_, err := io.WriteString(stdout, "measured")
			return err
		})
		parser, err := kong.New(&struct{}{}, c.option())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"bench"}, args...)); err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		var out bytes.Buffer
		if err := c.run(t.Context(), process{stdout: &out}); err != nil || out.String() != "measured" {
			t.Errorf("%v: printed %q, %v", args, out.String(), err)
		}
		if strings.Join(got, " ") != strings.Join(args, " ") {
			t.Errorf("got %q, want %q", got, args)
		}
	}
}
