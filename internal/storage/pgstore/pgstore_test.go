package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
		"none":               {nil, "no database is named"},
		"malformed":          {[]string{"postgres://:x:y"}, "not one of a PostgreSQL database"},
		"nobody there":       {[]string{"postgres://hubbub@127.0.0.1:1/x"}, "connect"},
		"no such database":   {[]string{pg.URL("nothing")}, `"nothing" does not exist`},
		"other order":        {[]string{b, a}, "name all databases in their order"},
		"one is missing":     {[]string{a}, "name all databases in their order"},
		"one too many":       {[]string{a, b, pg.Database(t)}, "name all databases in their order"},
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
