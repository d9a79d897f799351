package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// behind is the URL of a database seen through a proxy.
func behind(t *testing.T, database string) (*faultnet.Proxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	p := faultnet.New(t, u.Host, nil)
	u.Host = p.Addr()
	return p, u.String()
}

// until waits for something that takes as long as the watch on a database does.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// A database that falls silent: the calls that run end, those that come are refused,
// and when it is back all is as before, a commit of unknown outcome too.
func TestSilentDatabase(t *testing.T) {
	for name, fault := range map[string]faultnet.Fault{"hole": faultnet.Hole, "cut": faultnet.Cut} {
		t.Run(name, func(t *testing.T) {
			proxy, url := behind(t, pgtest.Start(t).Database(t))
			s := open(t, pgstore.Options{URLs: []string{url}})
			ctx := context.Background()
			l, err := s.Acquire(ctx, 1, "a", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			key := storage.Key{Partition: 1, Table: 17, Entity: "e"}
			proxy.Set("", fault)
			var b storage.Batch
			b.Put(key, []byte("v"))
			wanted(t, s.Commit(ctx, 1, l.Epoch, &b)) // nobody gave it a deadline
			until(t, "away", func() bool { return s.Err() != nil })
			_, err = s.Get(ctx, key)
			wanted(t, err)
			wanted(t, s.Ping(ctx))
			proxy.Set("", faultnet.Pass)
			until(t, "back", func() bool { return s.Err() == nil })
			if err := s.Commit(ctx, 1, l.Epoch, &b); err != nil {
				t.Error(err)
			}
			if got, err := s.Get(ctx, key); err != nil || string(got[0]) != "v" {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// wanted checks that a caller is told to come back.
func wanted(t *testing.T, err error) {
	t.Helper()
	if e := new(merr.Error); !errors.Is(err, pgstore.ErrAway) || !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 {
		t.Errorf("a call to a database that is away: %v", err)
	}
}

// A database that is restarted closes the connections that wait in the pool; who reads
// does not notice.
func TestRestartUnnoticed(t *testing.T) {
	pg := pgtest.Start(t)
	s := open(t, pgstore.Options{URLs: []string{pg.Database(t)}})
	ctx := context.Background()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		l, err := s.Acquire(ctx, 2, "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pg.Stop(t, sig)
		pg.StartAgain(t)
		read := func() error {
			_, err := s.Get(ctx, storage.Key{Partition: 2, Table: 17, Entity: fmt.Sprint(sig)})
			return err
		}
		for err = read(); err != nil && s.Err() != nil; err = read() { // the watch looked in between
			until(t, "back", func() bool { return s.Err() == nil })
		}
		if err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		until(t, "committing", func() bool { return s.Commit(ctx, 2, l.Epoch, &storage.Batch{}) == nil })
	}
}
