package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(moverVariable) != "" {
		if err := runMover(os.Getenv(moverVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, opts pgstore.Options) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	pg := pgtest.Start(t, "fsync=off") // no machine crashes here, and there are thousands of commits
	for name, databases := range map[string]int{"OneDatabase": 1, "ThreeDatabases": 3} {
		t.Run(name, func(t *testing.T) {
			var urls []string
			for range databases {
				urls = append(urls, pg.Database(t))
			}
			storagetest.Run(t, func(t testing.TB) storagetest.Opened {
				c := clock.NewManual(time.Unix(1_700_000_000, 0))
				opts := pgstore.Options{URLs: urls, Clock: c}
				current := open(t, opts)
				for _, url := range urls { // quicker than a new database
					exec(t, url, "DELETE FROM hubbub_row; DELETE FROM hubbub_lease; DELETE FROM hubbub_meta")
				}
				return storagetest.Opened{Store: current, Clock: c, Reopen: func(t testing.TB) storage.Store {
					if err := current.Close(); err != nil {
						t.Fatal(err)
					}
					current = open(t, opts)
					return current
				}}
			})
		})
	}
}

// A lease that expires by the database's own clock, as it does outside of tests.
func TestDatabaseClock(t *testing.T) {
	s := open(t, pgstore.Options{URLs: []string{pgtest.Start(t).Database(t)}})
	l, err := s.Acquire(context.Background(), 3, "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Until(l.Expires); d < 30*time.Second || d > 2*time.Minute {
		t.Errorf("a lease of a minute expires in %v", d)
	}
	if _, err := s.Acquire(context.Background(), 3, "b", time.Minute); !errors.Is(err, storage.ErrHeld) {
		t.Errorf("another node gets it: %v", err)
	}
	short, err := s.Acquire(context.Background(), 4, "a", time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	if next, err := s.Acquire(context.Background(), 4, "b", time.Minute); err != nil || next.Epoch <= short.Epoch {
		t.Errorf("an expired lease: %+v, %v", next, err)
	}
}

func TestMisconfiguration(t *testing.T) {
	pg := pgtest.Start(t)
	a, b, other := pg.Database(t), pg.Database(t), pg.Database(t)
	if err := open(t, pgstore.Options{URLs: []string{a, b}}).Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, pgstore.Options{URLs: []string{other}}).Close(); err != nil {
		t.Fatal(err)
	}
	newer := pg.Database(t)
	if err := open(t, pgstore.Options{URLs: []string{newer}}).Close(); err != nil {
		t.Fatal(err)
	}
	exec(t, newer, "INSERT INTO hubbub_schema (version_id, is_applied) VALUES (99, true)")
	for name, tc := range map[string]struct {
		urls []string
		want string
	}{
		"a stranger behind":  {[]string{a, b, other}, "name all databases in their order"},
		"none":               {nil, "no database is named"},
		"malformed":          {[]string{"postgres://:x:y"}, "not one of a PostgreSQL database"},
		"nobody there":       {[]string{"postgres://hubbub@127.0.0.1:1/x"}, "connect"},
		"no such database":   {[]string{pg.URL("nothing")}, `"nothing" does not exist`},
		"other order":        {[]string{b, a}, "name all databases in their order"},
		"one is missing":     {[]string{a}, "name all databases in their order"},
		"another deployment": {[]string{a, second(t, pg)}, "belongs to another deployment"},
		"a newer schema":     {[]string{newer}, "start the newer program"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := pgstore.Open(context.Background(), pgstore.Options{URLs: tc.urls})
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q in it", err, tc.want)
			}
			if strings.HasPrefix(name, "a newer") != errors.Is(err, storage.ErrNewerFormat) {
				t.Errorf("newer format? %v", err)
			}
		})
	}
}

// second is the second database of a deployment of its own.
func second(t *testing.T, pg *pgtest.Server) string {
	t.Helper()
	urls := []string{pg.Database(t), pg.Database(t)}
	if err := open(t, pgstore.Options{URLs: urls}).Close(); err != nil {
		t.Fatal(err)
	}
	return urls[1]
}

func exec(t testing.TB, url, statement string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Nodes that start together do not wait for each other where the schema is what they
// know, and on an empty database for one that migrates it.
func TestStartTogether(t *testing.T) {
	url := pgtest.Start(t, "fsync=off").Database(t)
	var started sync.WaitGroup
	for range 4 {
		started.Go(func() {
			s, err := pgstore.Open(t.Context(), pgstore.Options{URLs: []string{url}})
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lock.DefaultLockID); err != nil {
		t.Fatal(err)
	}
	// As long as c has the lock, who waits for it waits for ever.
	if err := open(t, pgstore.Options{URLs: []string{url}}).Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What was answered is there after the database crashed, and the store goes on
// by itself when the database is back.
func TestDatabaseCrash(t *testing.T) {
	pg := pgtest.Start(t)
	s := open(t, pgstore.Options{URLs: []string{pg.Database(t)}, Connections: 2})
	ctx := context.Background()
	l, err := s.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put := func(sort string) error {
		var b storage.Batch
		b.Put(storage.Key{Partition: 1, Table: 1, Entity: "e", Sort: sort}, []byte(sort))
		return s.Commit(ctx, 1, l.Epoch, &b)
	}
	acked := 0
	for round := range 3 {
		for i := range 20 {
			if err := put(string(rune('A'+round)) + string(rune('a'+i))); err != nil {
				t.Fatal(err)
			}
			acked++
		}
		pg.Stop(t, syscall.SIGQUIT)
		if err := put("none"); err == nil {
			t.Error("a commit was answered without a database")
		}
		if _, err := s.Get(ctx, storage.Key{Partition: 1, Table: 1}); err == nil {
			t.Error("a read was answered without a database")
		}
		pg.StartAgain(t)
		// The first call may find a connection that is broken, or a database that was
		// away when it was last looked for.
		until(t, "back", func() bool { return s.Ping(ctx) == nil })
	}
	rows, err := s.Scan(ctx, storage.Range{Partition: 1, Table: 1, Entity: "e", Limit: 100})
	if err != nil || len(rows) != acked {
		t.Errorf("%d rows of %d, %v", len(rows), acked, err)
	}
}

// A call that finds no free connection is told so, and when to come back.
func TestBusy(t *testing.T) {
	pg := pgtest.Start(t)
	url := pg.Database(t)
	s := open(t, pgstore.Options{URLs: []string{url}, Connections: 1})
	ctx := context.Background()
	l, err := s.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "BEGIN; LOCK TABLE hubbub_lease IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	stuck := make(chan error, 1)
	go func() { stuck <- s.Commit(ctx, 1, l.Epoch, &storage.Batch{}) }()
	for s.Stats().InUse == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Get(ctx, storage.Key{Partition: 1, Table: 1}); !errors.Is(err, pgstore.ErrBusy) {
		t.Errorf("no connection is free: %v", err)
	}
	if _, err := c.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-stuck; err != nil {
		t.Errorf("the call that waited for the lock: %v", err)
	}
	if st := s.Stats(); st.Waits == 0 || st.Max != 1 {
		t.Errorf("stats %+v", st)
	}
}

// BenchmarkCommit commits batches of 8 rows of 300 bytes from 8 partitions.
func BenchmarkCommit(b *testing.B) {
	s := open(b, pgstore.Options{URLs: []string{pgtest.Start(b).Database(b)}})
	ctx := context.Background()
	value := []byte(strings.Repeat("x", 300))
	next := make(chan ids.Partition, 8)
	epochs := make([]ids.Epoch, 8)
	for p := range ids.Partition(8) {
		l, err := s.Acquire(ctx, p, "a", time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		epochs[p] = l.Epoch
		next <- p
	}
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for i := uint32(0); pb.Next(); i++ {
			p := <-next
			var batch storage.Batch
			for j := range 8 {
				sort := string([]byte{byte(p), byte(j), byte(i >> 16), byte(i >> 8), byte(i)})
				batch.Put(storage.Key{Partition: p, Table: 17, Entity: "!room:h", Sort: sort}, value)
			}
			if err := s.Commit(ctx, p, epochs[p], &batch); err != nil {
				b.Error(err)
				return
			}
			next <- p
		}
	})
}

// A lease that is being renewed as it runs out is either renewed or taken, not both.
func TestRenewOrTake(t *testing.T) {
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	s := open(t, pgstore.Options{URLs: []string{pgtest.Start(t, "fsync=off").Database(t)}, Clock: c})
	ctx := context.Background()
	for round := range 100 {
		node, rival := ids.NodeID([]string{"a", "b"}[round%2]), ids.NodeID([]string{"b", "a"}[round%2])
		l, err := s.Acquire(ctx, 1, node, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var renewed, taken error
		var wg sync.WaitGroup
		// For longer than the clock moves: a renewal that reads the clock before it
		// does is good, and the lease is then not to be had.
		wg.Go(func() { renewed = s.Renew(ctx, []storage.Lease{l}, 2*time.Minute)[0] })
		c.Advance(time.Minute)
		wg.Go(func() { _, taken = s.Acquire(ctx, 1, rival, time.Minute) })
		wg.Wait()
		if (renewed == nil) == (taken == nil) {
			t.Fatalf("round %d: renewed %v, taken %v", round, renewed, taken)
		}
		c.Advance(2 * time.Minute)
	}
}

// Statements look for keys by the index from the first one on, whatever the planner
// believes of a table that has grown since it last looked.
func TestReadsNoWholeTable(t *testing.T) {
	pg := pgtest.Start(t, "fsync=off", "autovacuum=off")
	url := pg.Database(t)
	s := open(t, pgstore.Options{URLs: []string{url}})
	ctx := context.Background()
	l, err := s.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	before := ask[int64](t, url, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'hubbub_row'")
	const rows, rounds = 5000, 20
	key := func(n int) storage.Key {
		return storage.Key{Partition: 1, Table: 2, Entity: "e", Sort: fmt.Sprintf("%05d", n)}
	}
	commit := func(fill func(b *storage.Batch)) {
		t.Helper()
		var b storage.Batch
		fill(&b)
		if err := s.Commit(ctx, 1, l.Epoch, &b); err != nil {
			t.Fatal(err)
		}
	}
	work := func() {
		for n := range rounds {
			commit(func(b *storage.Batch) {
				b.Put(key(n), []byte("v"))
				b.Delete(key(n + 1))
				b.DeleteRange(key(n+2), key(n+4).Sort)
			})
			if _, err := s.Get(ctx, key(n), key(n+1), storage.Key{Partition: 2, Table: 2, Entity: "e"}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Scan(ctx, storage.Range{Partition: 1, Table: 2, Entity: "e", From: key(n).Sort, Limit: 3}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.ScanPartition(ctx, key(n), 3); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Last(ctx, 2, "e", 1, 2, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	work() // now the plans are made
	commit(func(b *storage.Batch) {
		for n := range rows {
			b.Put(key(n), []byte("v"))
		}
	})
	work()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "all connections have told what they did", func() bool {
		return ask[int64](t, url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hubbub'") == 0
	})
	scans := ask[int64](t, url, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'hubbub_row'")
	read := ask[int64](t, url, "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'hubbub_row'")
	if scans > before || read == 0 || read > rows {
		t.Errorf("the table was read %d times, and %d entries of its index", scans, read)
	}
}

func ask[T any](t testing.TB, url, statement string, args ...any) (v T) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	err = c.QueryRow(context.Background(), statement, args...).Scan(&v)
	if err := errors.Join(err, c.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	return v
}

// A node of the version before commits by a function of its own, in which an empty end
// is the end of the entity.
func TestVersionBefore(t *testing.T) {
	url := pgtest.Start(t, "fsync=off").Database(t)
	s := open(t, pgstore.Options{URLs: []string{url}})
	ctx := context.Background()
	l, err := s.Acquire(ctx, 1, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	for _, sort := range []string{"a", "b", "c"} {
		b.Put(storage.Key{Partition: 1, Table: 2, Entity: "e", Sort: sort}, []byte("v"))
	}
	if err := s.Commit(ctx, 1, l.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	commit := func(epoch ids.Epoch) bool {
		return ask[bool](t, url, fmt.Sprintf(`SELECT hubbub_commit(1, %d, '{2}', '{e}', '{b}', '{""}', '{}', '{}', '{}', '{2}', '{e}', '{d}', '{new}')`, epoch))
	}
	if commit(l.Epoch + 1) {
		t.Error("committed with an epoch that is not the partition's")
	}
	if !commit(l.Epoch) {
		t.Error("not committed")
	}
	rows, err := s.Scan(ctx, storage.Range{Partition: 1, Table: 2, Entity: "e", Limit: 10})
	if err != nil || len(rows) != 2 || rows[0].Sort != "a" || rows[1].Sort != "d" || string(rows[1].Value) != "new" {
		t.Errorf("%v, %v", rows, err)
	}
}
