package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/bench"
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
	// tags are kong's for the command as a whole.
	tags []string
}

// option makes the subcommand known to kong.
func (c command) option() kong.Option {
	return kong.DynamicCommand(c.name, c.help, "", c.args, c.tags...)
}

// commands is the table of subcommands.
func commands() []command {
	return []command{
		serveCommand(),
		fsckCommand(),
		backupCommand(),
		restoredCommand(),
		importCommand(),
		migrateStoreCommand(),
		movePartitionCommand(),
		tool("bench", "Measure a server under load.", bench.Main),
		configCommand(),
		versionCommand(),
	}
}

// tool makes a subcommand of a program that reads its own arguments, --help
// among them.
func tool(name, help string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) command {
	args := &struct {
		Args []string `arg:"" optional:"" help:"Its own arguments."`
	}{}
	return command{
		name: name, help: help, args: args, tags: []string{`cmd:"" passthrough:""`},
		run: func(ctx context.Context, p process) error { return run(ctx, args.Args, p.stdout, p.stderr) },
	}
}

func serveCommand() command {
	flags := newConfigFlags()
	return command{name: "serve", help: "Run the server.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		log := obs.NewLogger(p.stderr, obs.LogOptions{Level: cfg.Log.Level.Slog(), JSON: cfg.Log.Format == config.LogJSON})
		s, err := app.New(ctx, cfg, log)
		if err != nil {
			return err
		}
		if err := s.Announce(ctx, p.stdout); err != nil {
			return errors.Join(err, s.Close())
		}
		return s.Run(ctx)
	}}
}

func fsckCommand() command {
	flags := newConfigFlags()
	return command{name: "fsck", help: "Check the data of a stopped server.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.Fsck(ctx, cfg, p.stdout)
	}}
}

func backupCommand() command {
	flags := newConfigFlags(reflect.StructField{
		Name: "Dir", Type: reflect.TypeFor[string](),
		Tag: `arg:"" help:"A directory that does not exist yet. It becomes a data directory."`,
	})
	return command{name: "backup", help: "Copy the data directory, of a running server too.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.Backup(ctx, cfg, flags.own("Dir"), p.stdout)
	}}
}

func restoredCommand() command {
	flags := newConfigFlags()
	return command{name: "restored", help: "Say that the store of a stopped server was restored by other means than from a backup of ours.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.Restored(ctx, cfg, p.stdout)
	}}
}

func importCommand() command {
	flags := newConfigFlags(
		reflect.StructField{
			Name: "Lines", Type: reflect.TypeFor[string](),
			Tag: `arg:"" help:"A file of JSON lines, as docs/operations.md describes them; - for the standard input."`,
		},
		reflect.StructField{
			Name: "Unsearched", Type: reflect.TypeFor[bool](),
			Tag: `name:"unsearched" help:"Leave what is imported out of the search index."`,
		},
	)
	return command{name: "import", help: "Bring users, rooms and history from elsewhere into the store of a stopped server.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		o := app.ImportOptions{File: flags.own("Lines"), In: os.Stdin, Unsearched: flags.ownSwitch("Unsearched")}
		return app.Import(ctx, cfg, o, p.stdout)
	}}
}

func migrateStoreCommand() command {
	flags := newConfigFlags(reflect.StructField{
		Name: "To", Type: reflect.TypeFor[string](),
		Tag: `name:"to" required:"" placeholder:"STORE" help:"An empty PostgreSQL store, as server.store names it, or the data directory of a new embedded store."`,
	})
	return command{name: "migrate-store", help: "Copy the store of a stopped server to another place.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.MigrateStore(ctx, cfg, flags.own("To"), p.stdout)
	}}
}

func movePartitionCommand() command {
	flags := newConfigFlags(
		reflect.StructField{
			Name: "Partition", Type: reflect.TypeFor[string](),
			Tag: `arg:"" optional:"" help:"The number of a partition. Without it, where all are is printed."`,
		},
		reflect.StructField{
			Name: "To", Type: reflect.TypeFor[string](),
			Tag: `name:"to" placeholder:"N" help:"The number of the database, as server.store names them, from 1. That which the partition comes from takes back a move that was interrupted."`,
		},
		reflect.StructField{
			Name: "Keep", Type: reflect.TypeFor[bool](),
			Tag: `name:"keep" help:"Leave the old copy in its database."`,
		},
	)
	return command{name: "move-partition", help: "Take a partition to another PostgreSQL database while servers run.", args: flags.args, run: func(ctx context.Context, p process) error {
		cfg, err := flags.load(p)
		if err != nil {
			return err
		}
		return app.MovePartition(ctx, cfg, app.MoveOptions{Partition: flags.own("Partition"), To: flags.own("To"), Keep: flags.ownSwitch("Keep")}, p.stdout)
	}}
}

func configCommand() command {
	args := &struct {
		Example struct{} `cmd:"" help:"Print an example file with every key, its text and its default."`
	}{}
	return command{name: "config", help: "Help with the configuration.", args: args, run: func(_ context.Context, p process) error {
		return config.WriteExample(p.stdout)
	}}
}

func versionCommand() command {
	return command{name: "version", help: "Print the version of this binary.", args: &struct{}{}, run: func(_ context.Context, p process) error {
		b := obs.ReadBuild()
		_, err := fmt.Fprintf(p.stdout, "hubbub %s\ncommit %s\n%s\n", b.Version, b.Commit, b.Go)
		return err
	}}
}
