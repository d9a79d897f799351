// Package pgstore keeps the data in PostgreSQL, in one or more databases: the
// partitions are spread over them, which is the sharding. Nodes of a deployment
// share it.
//
// Rows of all tables stand in one table, hubbub_row, whose primary key is the key
// of the interface. A commit is one call of a function of the database, with the check
// of the epoch inside: one round trip and one transaction, which it shares with the
// commits that come at the same time (see groups). An advisory lock,
// shared by commits and exclusive for who takes a lease, keeps an epoch from
// changing between the check and the end of the transaction.
//
// A partition's rows are all in one database, and no transaction spans two. Which
// one follows from the partition's number and the number of databases at first, until
// MovePartition takes it to another; the deployment's settings are in the first.
//
// A database that does not answer is away (see database): calls to it fail at once
// until it is back, and nobody hangs on a connection that leads nowhere.
//
// A connection that breaks in a commit leaves its outcome unknown, as the
// interface allows: the owner of the partition ends and a new one, with a new
// epoch, reads what is there.
//
// Rejected: a table per table of the interface (the planner gains nothing, and
// each new table would be a migration); SERIALIZABLE (a partition has one writer,
// so there is nothing to serialize but the lease); row locks on the lease (each
// commit would write to it).
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// DefaultConnections bounds the connections of one node to one database. Commits
	// take two, the others are for those who read, for a millisecond each; and ten nodes
	// stay below the 100 that a fresh PostgreSQL takes with room for an administrator.
	DefaultConnections = 8
	// connectTimeout is how long a database may take to answer at the start.
	connectTimeout = 10 * time.Second
	// waitTimeout is how long a call waits for a free connection. Who would wait
	// longer is told to come back: a queue here would only hide the overload.
	waitTimeout = 2 * time.Second
	// statementTimeout ends a statement that a database in trouble does not
	// finish. A commit of the largest batch takes a second or two.
	statementTimeout = 30 * time.Second
	// busyRetry is what a refused caller is told to wait.
	busyRetry = 2 * time.Second
)

// ErrBusy: no connection was free in time.
var ErrBusy = errors.New("pgstore: no free connection")

// ErrConnect: a database was not reached at the start.
var ErrConnect = errors.New("pgstore: cannot connect")

// Options configure a Store.
type Options struct {
	// URLs are the databases, as connection URLs or keyword strings. Their order
	// is part of the deployment: it decides where a partition is.
	URLs []string
	// Connections bounds the connections to each database, DefaultConnections if 0.
	Connections int
	// Clock is the one by which leases expire. nil stands for the clocks of the
	// databases, which all nodes share; another one is for tests.
	Clock clock.Clock
	Log   *slog.Logger
}

// Store is a storage.Store.
type Store struct {
	clock  clock.Clock
	log    *slog.Logger
	shards []*database
	// slow is how long a group of commits waits for the one before.
	slow time.Duration
	// background counts what runs for several callers.
	background sync.WaitGroup
	// calls counts the round trips.
	calls atomic.Int64
	// places is the map that calls go by; refreshing is held by who reads it anew.
	places     atomic.Pointer[places]
	refreshing sync.Mutex

	// mu is held shared by each running call, and by Close to wait for them.
	mu struct {
		sync.RWMutex
		closed bool
	}
}

var _ storage.Store = (*Store)(nil)

// Open connects to the databases and brings their schemas up to date.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if len(opts.URLs) == 0 {
		return nil, errors.New("pgstore: no database is named")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{clock: opts.Clock, log: opts.Log, slow: slowGroup}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for i, url := range opts.URLs {
		d, err := connect(ctx, url, opts)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("pgstore: database %d of %d: %w", i+1, len(opts.URLs), err), s.Close())
		}
		s.shards = append(s.shards, d)
	}
	if err := s.checkPlaces(ctx, opts.URLs); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func connect(ctx context.Context, url string, opts Options) (*database, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL is not one of a PostgreSQL database, such as postgres://user:password@host:5432/hubbub")
	}
	cfg.MaxConns = DefaultConnections
	if opts.Connections > 0 {
		cfg.MaxConns = int32(opts.Connections)
	}
	params := cfg.ConnConfig.RuntimeParams
	// What a deployment may have set for its other users does not weaken this one.
	params["synchronous_commit"] = "on"
	params["default_transaction_isolation"] = "read committed"
	params["statement_timeout"] = fmt.Sprint(statementTimeout.Milliseconds())
	params["application_name"] = "hubbub"
	// Every statement looks for keys. A plan is made early, when the table is small and
	// reading all of it seems cheap, and kept until statistics are taken anew: without
	// this the first minutes of a deployment, and each partition that comes, read the
	// whole table for every commit.
	for _, way := range []string{"enable_seqscan", "enable_bitmapscan", "jit"} {
		params[way] = "off"
	}
	params["max_parallel_workers_per_gather"] = "0" // which would mix the order of rows
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConnect, err)
	}
	if err := prepare(ctx, pool, cfg.ConnConfig, opts.Log); err != nil {
		pool.Close()
		return nil, err
	}
	return watch(pool, cfg, opts.Log), nil
}

// prepare looks at what kind of database this is and migrates it.
func prepare(ctx context.Context, pool *pgxpool.Pool, cfg *pgx.ConnConfig, log *slog.Logger) error {
	var fsync string
	var version int
	err := pool.QueryRow(ctx, "SELECT current_setting('fsync'), current_setting('server_version_num')::int").Scan(&fsync, &version)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConnect, err)
	}
	if version < minVersion {
		return fmt.Errorf("PostgreSQL %d is too old; %d is the oldest that is supported", version/10000, minVersion/10000)
	}
	if fsync != "on" {
		log.Warn("fsync is off: a crash of the database's machine loses what was accepted", "database", cfg.Database)
	}
	return migrate(ctx, cfg)
}

// minVersion is the oldest PostgreSQL whose statements are tried in the tests.
const minVersion = 140000

// begin opens a call; the caller defers s.mu.RUnlock if there is no error.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	s.mu.RLock()
	if s.mu.closed {
		s.mu.RUnlock()
		return storage.ErrClosed
	}
	return nil
}

// op names an operation in its error.
func op(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pgstore: %s: %w", name, err)
}

// Stats are the numbers of the connections to all databases.
type Stats struct {
	// Connections are open, InUse of them carry a call, Max may be.
	Connections, InUse, Max int
	// Calls counts the calls: a round trip each.
	Calls int64
	// Waits counts the calls that found no connection free, Waited is how long
	// they waited together.
	Waits  int64
	Waited time.Duration
}

// Stats returns the numbers of the connections.
func (s *Store) Stats() Stats {
	st := Stats{Calls: s.calls.Load()}
	for _, d := range s.shards {
		p := d.stat()
		st.Connections += int(p.TotalConns())
		st.InUse += int(p.AcquiredConns())
		st.Max += int(p.MaxConns())
		st.Waits += p.EmptyAcquireCount()
		st.Waited += p.EmptyAcquireWaitTime()
	}
	return st
}

// Ping reports whether every database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	for i := range s.shards {
		if err := s.again(ctx, i, func(ctx context.Context, c *pgxpool.Conn) error { return c.Ping(ctx) }); err != nil {
			return op(fmt.Sprintf("database %d", i+1), err)
		}
	}
	return nil
}

// Close implements storage.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	s.background.Wait() // whom it ran for may have gone
	for _, d := range s.shards {
		d.close()
	}
	return nil
}
