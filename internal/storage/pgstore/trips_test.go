package pgstore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// tripCounter is a proxy before a PostgreSQL that counts how often its clients wait for
// an answer: each ends what it asks with a Sync, or asks by a simple query.
type tripCounter struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	// trips are those of each connection that ever committed; the others look whether
	// the database is there.
	trips map[net.Conn]int
	works map[net.Conn]bool
}

// countTrips returns the URL of a database behind a counter.
func countTrips(t *testing.T, database string) (*tripCounter, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &tripCounter{listener: l, to: u.Host, trips: make(map[net.Conn]int), works: make(map[net.Conn]bool)}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	u.Host = l.Addr().String()
	u.RawQuery = "sslmode=disable" // so that the first message is the start
	return c, u.String()
}

func (c *tripCounter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, client, server)
		c.mu.Unlock()
		c.wg.Go(func() {
			_, _ = io.Copy(client, server)
			_ = client.Close()
		})
		c.wg.Go(func() {
			c.forward(client, server)
			_ = server.Close()
		})
	}
}

// forward passes the client's messages on: a length and a body, behind a type for all
// but the first.
func (c *tripCounter) forward(client, server net.Conn) {
	for first := true; ; first = false {
		head := make([]byte, 5)
		if first {
			head = head[:4]
		}
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if !first {
			c.mu.Lock()
			switch head[0] {
			case 'S', 'Q':
				c.trips[client]++
			case 'P':
				c.works[client] = c.works[client] || bytes.Contains(body, []byte("hubbub_write"))
			}
			c.mu.Unlock()
		}
		if _, err := server.Write(append(head, body...)); err != nil {
			return
		}
	}
}

// count is how many round trips the working connections made.
func (c *tripCounter) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.works {
		if c.works[conn] {
			n += c.trips[conn]
		}
	}
	return n
}

// A commit is one round trip, whatever is in it, and so is each read; what is about many
// partitions is one to each database.
func TestRoundTrips(t *testing.T) {
	counter, at := countTrips(t, pgtest.Start(t).Database(t))
	s := open(t, pgstore.Options{URLs: []string{at}, Connections: 1})
	ctx := context.Background()
	var leases []storage.Lease
	for p := range ids.Partition(20) {
		l, err := s.Acquire(ctx, p, "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
	}
	key := func(n int) storage.Key {
		return storage.Key{Partition: 1, Table: 2, Entity: "e", Sort: fmt.Sprint(n)}
	}
	commit := func(rows int) error {
		var b storage.Batch
		for n := range rows {
			b.Put(key(n), bytes.Repeat([]byte("v"), 300))
			if n%3 == 0 {
				b.Delete(key(n + rows))
				b.DeleteRange(key(n+2*rows), "9")
			}
		}
		return s.Commit(ctx, 1, leases[1].Epoch, &b)
	}
	if err := commit(1); err != nil { // now the counter knows the connection
		t.Fatal(err)
	}
	all := make([]ids.Partition, len(leases))
	for i := range all {
		all[i] = ids.Partition(i)
	}
	for name, run := range map[string]func() error{
		"empty commit":       func() error { return commit(0) },
		"commit of a row":    func() error { return commit(1) },
		"commit of 500 rows": func() error { return commit(500) },
		"get": func() error {
			_, err := s.Get(ctx, key(1), key(2), storage.Key{Partition: 7, Table: 2, Entity: "f"})
			return err
		},
		"scan": func() error {
			_, err := s.Scan(ctx, storage.Range{Partition: 1, Table: 2, Entity: "e", Limit: 400})
			return err
		},
		"heads": func() error { _, err := s.Last(ctx, 2, "e", all...); return err },
		"renew all": func() error {
			return s.Renew(ctx, leases, time.Hour)[19]
		},
	} {
		for n := range 4 {
			before := counter.count()
			if err := run(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			// The first time the statement is prepared.
			if trips := counter.count() - before; n > 0 && trips != 1 {
				t.Errorf("%s: %d round trips", name, trips)
			}
		}
	}
}
