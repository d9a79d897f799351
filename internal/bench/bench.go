// Package bench is the load generator: hubbub bench. It measures a server from
// outside, as its clients do, and checks all that is delivered.
//
// It runs in a process of its own, against a server that it starts as a child
// or one that runs already, so that what the load costs is not counted as the
// server's. CPU time and memory of the server are read from /proc, or from its
// metrics.
//
// Invariants: latency counts from the moment a message was due, not from when it
// was sent (no coordinated omission); a scenario whose messages were lost,
// doubled or out of order is an error whatever its figures; only servers on this
// machine are loaded unless it was allowed.
//
// It shares nothing with the server but the frames of the WebSocket. Main may be
// called from any goroutine.
package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/obs"
)

// ErrBroken: the server broke a promise about delivery; the report says which.
var ErrBroken = errors.New("messages were not delivered as promised")

// Main runs the load generator with its arguments, those behind the name of the
// subcommand. It prints to stdout what it found and to stderr what it does. The
// error is about the arguments, a server that does not work, or ErrBroken.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	a, run, err := parseArgs(args, stdout, stderr)
	if err != nil || run == nil {
		return err
	}
	if a.Compare.One != "" {
		return a.Compare.compare(stdout)
	}
	e := &env{commonArgs: a.commonArgs, targetArgs: a.targetArgs, stdout: stdout, stderr: stderr, started: time.Now()}
	return e.main(ctx, run)
}

// scenario measures one thing on one server.
type scenario struct {
	name string
	// bare: it starts what it needs by itself.
	bare bool
	run  func(context.Context, *env, *server, *Result) error
}

// env is what all scenarios of a run share.
type env struct {
	commonArgs
	targetArgs
	stdout, stderr io.Writer
	started        time.Time
	// dir is for the data of servers that are started.
	dir string
}

// progress says on stderr what is going on.
func (e *env) progress(format string, args ...any) {
	fmt.Fprintf(e.stderr, "%6.1fs "+format+"\n", append([]any{time.Since(e.started).Seconds()}, args...)...)
}

// runName returns a name for users that no other run has.
func (e *env) runName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return "load-" + hex.EncodeToString(b[:]) + "-"
}

func (e *env) main(ctx context.Context, run []scenario) (err error) {
	if e.Profile != "" {
		if err := os.MkdirAll(e.Profile, 0o700); err != nil {
			return fmt.Errorf("profiles: %w", err)
		}
	}
	e.dir, err = os.MkdirTemp(e.Data, "hubbub-bench-")
	if err != nil {
		return fmt.Errorf("directory for data: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(e.dir); rerr != nil {
			err = errors.Join(err, fmt.Errorf("remove data: %w", rerr))
		}
	}()
	report := e.newReport()
	for _, s := range run {
		e.progress("scenario %s", s.name)
		r := Result{Scenario: s.name, Parameters: map[string]any{}}
		if err := e.runOne(ctx, s, &r); err != nil {
			return errors.Join(fmt.Errorf("scenario %s: %w", s.name, err), e.writeJSON(report))
		}
		if err := r.print(e.stdout); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		report.Results = append(report.Results, r)
	}
	if err := e.writeJSON(report); err != nil {
		return err
	}
	for i := range report.Results {
		if report.Results[i].failed() {
			return ErrBroken
		}
	}
	return nil
}

// runOne runs a scenario on a fresh server, or the one that was named.
func (e *env) runOne(ctx context.Context, s scenario, r *Result) (err error) {
	if s.bare {
		return s.run(ctx, e, nil, r)
	}
	var srv *server
	if e.URL != "" {
		srv, err = attach(ctx, &e.targetArgs)
	} else {
		srv, err = e.startServer(ctx, s.name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	return s.run(ctx, e, srv, r)
}

func (e *env) startServer(ctx context.Context, name string, more ...string) (*server, error) {
	o, err := e.serveOptions(name, more...)
	if err != nil {
		return nil, err
	}
	return start(ctx, o)
}

// serveOptions are those of a new server.
func (e *env) serveOptions(name string, more ...string) (serveOptions, error) {
	program := e.Serve
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return serveOptions{}, fmt.Errorf("find the server's program: %w", err)
		}
	}
	dir, err := os.MkdirTemp(e.dir, name+"-")
	if err != nil {
		return serveOptions{}, fmt.Errorf("directory for data: %w", err)
	}
	return serveOptions{program: program, args: append(slices.Clone(e.ServeArgs), more...), dir: filepath.Clean(dir), profile: e.Profile != ""}, nil
}

func (e *env) newReport() *Report {
	b := obs.ReadBuild()
	server := e.URL
	if server == "" {
		server = "child"
	}
	return &Report{
		Time: e.started.UTC(), Go: b.Go, CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Version: b.Version, Commit: b.Commit, Server: server,
	}
}

func (e *env) writeJSON(r *Report) error {
	if e.JSON == "" {
		return nil
	}
	b, err := json.Marshal(r, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(e.JSON, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
