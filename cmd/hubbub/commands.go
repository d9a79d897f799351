package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// errUsage is wrapped by errors that the operator mends on the command line or
// in the configuration.
var errUsage = errors.New("usage")

// command is one subcommand. args points to a struct whose fields and kong tags
// are its flags and arguments; run is called after it was filled.
type command struct {
	name, help string
	args       any
	run        func(context.Context, process) error
}

// commands is the table of subcommands.
func commands() []command {
	return []command{
		serveCommand(),
		fsckCommand(),
		configCommand(),
		versionCommand(),
	}
}

func serveCommand() command {
	flags := newConfigFlags()
	return command{"serve", "Run the server.", flags.args, func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		log := obs.NewLogger(p.stderr, obs.LogOptions{Level: cfg.Log.Level.Slog(), JSON: cfg.Log.Format == config.LogJSON})
		s, err := app.New(ctx, cfg, log)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	}}
}

func fsckCommand() command {
	flags := newConfigFlags()
	return command{"fsck", "Check the data of a stopped server.", flags.args, func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.Fsck(ctx, cfg, p.stdout)
	}}
}

func configCommand() command {
	args := &struct {
		Example struct{} `cmd:"" help:"Print an example file with every key, its text and its default."`
	}{}
	return command{"config", "Help with the configuration.", args, func(_ context.Context, p process) error {
		return config.WriteExample(p.stdout)
	}}
}

func versionCommand() command {
	return command{"version", "Print the version of this binary.", &struct{}{}, func(_ context.Context, p process) error {
		b := obs.ReadBuild()
		_, err := fmt.Fprintf(p.stdout, "hubbub %s\ncommit %s\n%s\n", b.Version, b.Commit, b.Go)
		return err
	}}
}
