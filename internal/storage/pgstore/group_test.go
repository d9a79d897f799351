package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// leaseLock is the first number of the advisory locks that commits share.
const leaseLock = 1752523362

// blocked is a store of which a commit, to partition 0, is held up, so that what comes
// next gathers.
type blocked struct {
	*pgstore.Store
	t       *testing.T
	counter *tripCounter
	epochs  []ids.Epoch
	lock    *pgx.Conn
	held    sync.WaitGroup
}

const groupPartitions = 12

// begin opens the store. A group of commits waits that long for the one before.
func begin(t *testing.T, wait time.Duration) *blocked {
	t.Helper()
	database := pgtest.Start(t).Database(t)
	counter, at := countTrips(t, database)
	b := &blocked{Store: open(t, pgstore.Options{URLs: []string{at}, Connections: 2}), t: t, counter: counter}
	b.Wait(wait)
	for p := range ids.Partition(groupPartitions) {
		l, err := b.Acquire(t.Context(), p, "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		b.epochs = append(b.epochs, l.Epoch)
	}
	var err error
	if b.lock, err = pgx.Connect(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.lock.Close(context.Background()) })
	return b
}

// block opens the store and holds it up.
func block(t *testing.T) *blocked {
	t.Helper()
	b := begin(t, time.Hour)
	for range 2 { // on both connections, alone and together: each prepares the statements
		b.hold()
		b.commitAll(nil)
		b.release()
	}
	b.hold()
	return b
}

func (b *blocked) hold() {
	b.t.Helper()
	if _, err := b.lock.Exec(b.t.Context(), "SELECT pg_advisory_lock($1, 0)", leaseLock); err != nil {
		b.t.Fatal(err)
	}
	b.held.Go(func() {
		if err := b.put(0, "held"); err != nil {
			b.t.Errorf("the commit that was held up: %v", err)
		}
	})
	b.waitFor("the commit waits for its lock", "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 0")
}

func (b *blocked) waitFor(what, query string) {
	b.t.Helper()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var done bool
		if err := b.lock.QueryRow(b.t.Context(), query).Scan(&done); err != nil {
			b.t.Fatal(err)
		}
		if done {
			return
		}
		if time.Now().After(until) {
			b.t.Fatalf("it never came to this: %s", what)
		}
	}
}

// commitAll begins commits to all other partitions and returns when they wait. each is
// told how its commit ended.
func (b *blocked) commitAll(each func(p ids.Partition, err error)) {
	for p := range ids.Partition(groupPartitions) {
		if p == 0 {
			continue
		}
		b.held.Go(func() {
			err := b.put(p, "v")
			switch {
			case each != nil:
				each(p, err)
			case err != nil:
				b.t.Errorf("commit to %d: %v", p, err)
			}
		})
	}
	for until := time.Now().Add(20 * time.Second); b.Waiting() < groupPartitions-1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			b.t.Fatalf("%d commits wait", b.Waiting())
		}
	}
}

func (b *blocked) release() {
	b.t.Helper()
	if _, err := b.lock.Exec(b.t.Context(), "SELECT pg_advisory_unlock_all()"); err != nil {
		b.t.Fatal(err)
	}
	b.held.Wait()
}

func groupKey(p ids.Partition, sort string) storage.Key {
	return storage.Key{Partition: p, Table: 2, Entity: "e", Sort: sort}
}

func (b *blocked) put(p ids.Partition, value string) error {
	var batch storage.Batch
	batch.Put(groupKey(p, "k"), []byte(value))
	return b.Commit(context.Background(), p, b.epochs[p], &batch)
}

// has checks that a partition has a value.
func (b *blocked) has(p ids.Partition, sort, want string) {
	b.t.Helper()
	rows, err := b.Get(b.t.Context(), groupKey(p, sort))
	if err != nil || string(rows[0]) != want {
		b.t.Errorf("partition %d has %q, %v, want %q", p, rows[0], err, want)
	}
}

// Commits that come while others are under way share one transaction and round trip.
func TestCommitsTogether(t *testing.T) {
	b := block(t)
	before := b.counter.count()
	b.commitAll(nil)
	b.release()
	if trips := b.counter.count() - before; trips != 1 {
		t.Errorf("%d commits took %d round trips", groupPartitions-1, trips)
	}
	for p := range ids.Partition(groupPartitions) {
		b.has(p, "k", map[bool]string{true: "held", false: "v"}[p == 0])
	}
}

// One whose epoch is over writes nothing, and keeps none of the others from it.
func TestFencedTogether(t *testing.T) {
	b := block(t)
	b.epochs[5]++
	b.commitAll(func(p ids.Partition, err error) {
		if errors.Is(err, storage.ErrFenced) != (p == 5) || p != 5 && err != nil {
			t.Errorf("commit to %d: %v", p, err)
		}
	})
	b.release()
	b.has(4, "k", "v")
	b.has(6, "k", "v")
}

// What the database refuses is rolled back for all, and each is written all the same.
func TestRefusedTogether(t *testing.T) {
	b := block(t)
	const rows = 8 // enough to be written without a look
	insert := func() error {
		var batch storage.Batch
		for i := range rows {
			batch.Insert(groupKey(7, fmt.Sprint(i)), []byte("new"))
		}
		return b.Commit(context.Background(), 7, b.epochs[7], &batch)
	}
	b.release()
	if err := insert(); err != nil {
		t.Fatal(err)
	}
	b.hold()
	b.held.Go(func() {
		if err := insert(); err != nil {
			t.Errorf("insert of what is there: %v", err)
		}
	})
	b.commitAll(nil)
	b.release()
	for p := range ids.Partition(groupPartitions) {
		if p != 0 {
			b.has(p, "k", "v")
		}
	}
	b.has(7, "3", "new")
}

// A partition whose lease is being taken, or which is being moved, holds up none that
// come behind it.
func TestHeldUpAlone(t *testing.T) {
	b := begin(t, 20*time.Millisecond)
	b.hold()
	if err := b.put(1, "v"); err != nil {
		t.Fatal(err)
	}
	b.has(1, "k", "v")
	b.release()
	b.has(0, "k", "held")
}

// Nor does it hold up those that are in one transaction with it.
func TestHeldUpTogether(t *testing.T) {
	b := block(t)
	if _, err := b.lock.Exec(t.Context(), "SELECT pg_advisory_lock($1, 5)", leaseLock); err != nil {
		t.Fatal(err)
	}
	done := make(chan ids.Partition, groupPartitions)
	b.commitAll(func(p ids.Partition, err error) {
		if err != nil {
			t.Errorf("commit to %d: %v", p, err)
		}
		done <- p
	})
	if _, err := b.lock.Exec(t.Context(), "SELECT pg_advisory_unlock($1, 0)", leaseLock); err != nil {
		t.Fatal(err)
	}
	for range groupPartitions - 2 {
		if p := <-done; p == 5 {
			t.Fatal("the partition that was held up was written")
		}
	}
	b.release()
	b.has(5, "k", "v")
}

// A commit with many rows does not wait for others, nor they for it.
func TestManyRowsApart(t *testing.T) {
	b := block(t)
	var batch storage.Batch
	for i := range 100 {
		batch.Put(groupKey(3, fmt.Sprint(i)), []byte("many"))
	}
	if err := b.Commit(t.Context(), 3, b.epochs[3], &batch); err != nil {
		t.Fatal(err)
	}
	b.has(3, "99", "many")
	b.release()
}

// Who gives up does not take the others along.
func TestCommitGivenUp(t *testing.T) {
	b := block(t)
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		var batch storage.Batch
		batch.Put(groupKey(3, "given up"), []byte("v"))
		given <- b.Commit(ctx, 3, b.epochs[3], &batch)
	}()
	b.commitAll(nil)
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	b.release()
	b.has(3, "k", "v")
	b.has(4, "k", "v")
}
