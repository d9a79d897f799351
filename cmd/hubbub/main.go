// Command hubbub is the chat server and its tools in one binary.
//
// This package has flags and exit codes only: 0 is success, 1 a failure while
// running, 2 a mistake on the command line or in the configuration. What the
// subcommands do lives in internal/app and internal/bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// process is what a subcommand sees of its surroundings.
type process struct {
	environ        []string
	stdout, stderr io.Writer
}

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	go watch(signals, cancel, os.Exit)
	os.Exit(run(ctx, os.Args[1:], process{environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr}))
}

// watch asks for a graceful end at the first signal and exits at the second:
// whoever asks twice does not want to wait.
func watch(signals <-chan os.Signal, cancel func(), exit func(int)) {
	<-signals
	cancel()
	<-signals
	exit(exitError)
}

// run parses the arguments, runs the subcommand until it or the context ends,
// and returns the exit code.
func run(ctx context.Context, args []string, p process) int {
	ended := false // by --help, which kong ends through Exit
	options := []kong.Option{
		kong.Name("hubbub"),
		kong.Description("A Matrix chat server that scales out. Start with: hubbub serve"),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { ended = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	}
	byName := map[string]command{}
	for _, c := range commands() {
		byName[c.name] = c
		options = append(options, c.option())
	}
	parser, err := kong.New(&struct{}{}, options...)
	if err != nil {
		panic(fmt.Sprintf("the table of subcommands is broken: %v", err))
	}
	parsed, err := parser.Parse(args)
	switch {
	case ended:
		return exitOK
	case err != nil:
		fmt.Fprintf(p.stderr, "hubbub: %v\nhubbub: see hubbub --help\n", err)
		return exitUsage
	}
	name, _, _ := strings.Cut(parsed.Command(), " ")
	return exitCode(byName[name].run(ctx, p), p.stderr)
}

// exitCode prints an error and says how the process ends.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "hubbub: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nhubbub: "))
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitError
}
