package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Times of the watch on a database: one that falls silent is noticed within
// probeEvery and two probeTimeouts, well within the lease of a partition, so that
// who waits for it is told and the node can leave its work to others.
const (
	probeEvery   = time.Second
	probeTimeout = 1500 * time.Millisecond
	// awayRetry is what a caller is told to wait while a database is away.
	awayRetry = 2 * time.Second
)

// ErrAway: a database does not answer.
var ErrAway = errors.New("pgstore: the database does not answer")

// database is one of the store's databases, with what is known of whether it
// answers.
//
// A connection whose other end vanished (a cut cable, a machine that lost power)
// says so after minutes, and until then each call on it hangs. So one connection
// beside the pool asks all the time whether the database is there. When it is not,
// the running calls end with ErrAway, those that come are refused at once, and when
// it answers again all go to new connections. A connection that was closed, as in a
// restart of the database, is known to its call at once.
//
// Rejected: a deadline for each call (a large batch on a busy database takes
// seconds, and thousands of callers would each wait it out); TCP's own time-outs
// (they see a dead peer, not one that hangs).
type database struct {
	cfg *pgxpool.Config
	log *slog.Logger
	// stop ends the watch, whose end done tells.
	stop context.CancelFunc
	done chan struct{}
	last lastReads
	// few and many gather commits, by how many rows they have.
	few, many *groups
	// old are the pools from before the database was away; they close by themselves.
	old sync.WaitGroup

	mu struct {
		sync.Mutex
		pool *pgxpool.Pool
		// present ends when the database goes away, by leave.
		present context.Context
		leave   context.CancelCauseFunc
	}
}

// watch begins to watch a database.
func watch(pool *pgxpool.Pool, cfg *pgxpool.Config, log *slog.Logger) *database {
	d := &database{cfg: cfg, log: log, done: make(chan struct{}), few: newGroups(), many: newGroups()}
	d.mu.pool = pool
	d.mu.present, d.mu.leave = context.WithCancelCause(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	go d.run(ctx)
	return d
}

func (d *database) close() {
	d.stop()
	<-d.done
	pool, _ := d.use()
	pool.Close()
	d.old.Wait()
}

// use returns the connections to the database, and a context that ends when it goes
// away.
func (d *database) use() (*pgxpool.Pool, context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.pool, d.mu.present
}

func (d *database) stat() *pgxpool.Stat {
	pool, _ := d.use()
	return pool.Stat()
}

func (d *database) run(ctx context.Context) {
	defer close(d.done)
	p := &probe{cfg: d.cfg.ConnConfig}
	defer p.drop()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := p.ask(ctx)
		if err != nil && ctx.Err() == nil { // maybe only of this connection
			err = p.ask(ctx)
		}
		switch _, present := d.use(); {
		case ctx.Err() != nil:
		case err != nil && present.Err() == nil:
			d.log.Warn("database is away", "database", d.cfg.ConnConfig.Database, "host", d.cfg.ConnConfig.Host, "error", err)
			d.mu.leave(fmt.Errorf("%w: %w", ErrAway, err))
		case err == nil && present.Err() != nil:
			d.log.Warn("database is back", "database", d.cfg.ConnConfig.Database, "host", d.cfg.ConnConfig.Host)
			d.back()
		}
	}
}

// back lets calls use the database again, over new connections: an old one may hang
// for a while yet.
func (d *database) back() {
	pool, err := pgxpool.NewWithConfig(context.Background(), d.cfg.Copy())
	if err != nil { // it connects later; only the configuration can be wrong
		d.log.Error("connect to database again", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.old.Go(d.mu.pool.Close)
	d.mu.pool = pool
	d.mu.present, d.mu.leave = context.WithCancelCause(context.Background())
}

// probe is the connection that asks.
type probe struct {
	cfg  *pgx.ConnConfig
	conn *pgx.Conn
}

func (p *probe) ask(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			p.drop()
		}
	}()
	if p.conn == nil {
		if p.conn, err = pgx.ConnectConfig(ctx, p.cfg.Copy()); err != nil {
			if refusal := new(pgconn.PgError); errors.As(err, &refusal) && !gone(refusal.Code) {
				return nil // it is there, and has no room for one more
			}
			return err
		}
	}
	return p.conn.Ping(ctx)
}

// drop gives a connection up without waiting for it.
func (p *probe) drop() {
	if p.conn != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.conn.Close(ctx) // there may be nobody to say goodbye to
		p.conn = nil
	}
}

// gone reports whether an error code says that the database ends, has crashed or
// begins, or that the connection is lost.
func gone(code string) bool {
	const shutdowns, connections = "57P", "08"
	return len(code) == 5 && (code[:3] == shutdowns || code[:2] == connections)
}

// Err reports, without asking, that a database is away.
func (s *Store) Err() error {
	for i, d := range s.shards {
		if _, present := d.use(); present.Err() != nil {
			return op(fmt.Sprintf("database %d", i+1), context.Cause(present))
		}
	}
	return nil
}

// with runs a call on a connection to a database.
func (s *Store) with(ctx context.Context, shard int, run func(context.Context, *pgxpool.Conn) error) error {
	pool, present := s.shards[shard].use()
	if present.Err() != nil {
		return away(context.Cause(present))
	}
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(present, func() { cancel(context.Cause(present)) })()
	waiting, enough := context.WithTimeout(ctx, waitTimeout)
	conn, err := pool.Acquire(waiting)
	enough()
	switch {
	case err == nil:
	case caller.Err() != nil:
		return err
	case present.Err() != nil:
		return away(context.Cause(present))
	case errors.Is(err, context.DeadlineExceeded):
		return merr.UnavailableErr(busyRetry, "The database is busy, try again").Because(errors.Join(ErrBusy, err))
	default:
		return away(errors.Join(ErrAway, err))
	}
	defer conn.Release()
	s.calls.Add(1)
	err = run(ctx, conn)
	switch refusal := new(pgconn.PgError); {
	case err == nil || caller.Err() != nil:
		return err
	case present.Err() != nil:
		return away(context.Cause(present))
	case errors.As(err, &refusal) && gone(refusal.Code), conn.Conn().IsClosed():
		return away(errors.Join(ErrAway, err))
	default:
		return err
	}
}

// again is with for a call that may be made twice: one whose connection breaks is,
// since a database that was restarted has closed those that waited in the pool.
func (s *Store) again(ctx context.Context, shard int, run func(context.Context, *pgxpool.Conn) error) error {
	err := s.with(ctx, shard, run)
	if errors.Is(err, ErrAway) && ctx.Err() == nil {
		err = s.with(ctx, shard, run)
	}
	return err
}

func away(cause error) error {
	return merr.UnavailableErr(awayRetry, "The database is away, try again").Because(cause)
}
