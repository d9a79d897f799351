package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/importer"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/search"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// importLease is how long the partitions are an import's without a renewal, which on a
// disk that is busy with what it writes may take long. After one that was killed, a
// server waits this long at most.
const importLease = time.Minute

// ImportOptions say what is imported.
type ImportOptions struct {
	// File is where the lines are, "-" for In.
	File string
	In   io.Reader
	// Unsearched leaves what is imported out of the search index.
	Unsearched bool
}

// Import brings users, rooms and events from elsewhere into the store of a stopped
// deployment, and writes to out how far it is. See package importer.
func Import(ctx context.Context, cfg config.Config, o ImportOptions, out io.Writer) (err error) {
	in := o.In
	if o.File != "-" {
		f, err := os.Open(o.File)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	st, err := openStore(ctx, cfg, prometheus.NewRegistry(), obs.Discard())
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	bus := membus.New()
	defer func() { err = errors.Join(err, bus.Close(), st.Close()) }()
	node, err := cluster.Start(ctx, cluster.Options{
		Node: ids.NodeID("import-" + rand.Text()), Count: st.partitions, Store: st, Bus: bus, Clock: clock.Real{},
		Log: obs.Discard(), Tables: pinned(), Effects: effects(), CacheBytes: rowCacheBytes, LeaseTTL: importLease,
	})
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer node.Close()
	if node.Owned() < st.partitions {
		return errors.New("import: a server is running (or was killed a moment ago): stop all nodes first, or wait a minute")
	}
	began := time.Now()
	report := func(d importer.Done) {
		_, _ = fmt.Fprintf(out, "%d users, %d rooms, %d events, %.0f lines a second\n",
			d.Users, d.Rooms, d.Events, float64(d.Lines)/time.Since(began).Seconds())
	}
	done, err := importer.Run(ctx, in, importer.Options{
		Router: node, Accounts: account.NewReader(st, st.partitions), Clock: clock.Real{},
		Server: cfg.Server.Name, DefaultVersion: cfg.Rooms.DefaultVersion,
		Hash: newHasher(cfg).Hash, CheckHash: auth.CheckHash, Report: report,
	})
	if err == nil && o.Unsearched {
		err = passOver(ctx, node, st)
	}
	if err == nil {
		report(done)
	}
	return err
}

// passOver moves the search index to the ends of the logs, without a look at them.
func passOver(ctx context.Context, node *cluster.Node, st storage.Store) error {
	set := consumer.NewSet(consumer.Options{Store: st, Router: node, Clock: clock.Real{}, Log: obs.Discard()})
	defer set.Close()
	if err := set.Add(consumer.Consumer{Name: search.Name, Start: consumer.AtHead, Handler: passing{}}); err != nil {
		return err
	}
	node.Watch(set)
	return set.Await(ctx, search.Name)
}

// passing handles nothing.
type passing struct{}

var _ consumer.Handler = passing{}

// Handle implements consumer.Handler.
func (passing) Handle(context.Context, consumer.Batch) error { return nil }

// Missed implements consumer.Handler.
func (passing) Missed(context.Context, ids.Partition, ids.Seq, ids.Seq) error { return nil }
