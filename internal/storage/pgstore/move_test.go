package pgstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// moverVariable makes this test program one that moves a partition, as its value says.
const moverVariable = "HUBBUB_TEST_MOVER"

type moverOrder struct {
	URLs []string
	P    ids.Partition
	To   int
}

// runMover moves a partition. Before each step it says so, and waits for a line.
func runMover(text string) error {
	var o moverOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	s, err := pgstore.Open(context.Background(), pgstore.Options{URLs: o.URLs})
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	_, err = s.MovePartition(context.Background(), o.P, pgstore.MoveOptions{To: o.To, Step: func(what string) error {
		fmt.Println(what)
		_, err := in.ReadString('\n')
		return err
	}})
	return errors.Join(err, s.Close())
}

// killMover begins a move and kills it before a step, or lets it end if that is "".
func killMover(t *testing.T, o moverOrder, at string) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), moverVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	steps := bufio.NewReader(out)
	for {
		step, err := steps.ReadString('\n')
		if errors.Is(err, io.EOF) {
			if err := cmd.Wait(); err != nil {
				t.Fatalf("move %+v: %v", o, err)
			}
			if at != "" {
				t.Errorf("a move without the step %q", at)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(step) == at {
			_ = cmd.Process.Kill() // it waits
			_ = cmd.Wait()
			return
		}
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
}

const moved ids.Partition = 4 // in the second of three databases at first

// tenant is an owner of the partition that writes all the time, and another node that
// reads what was answered.
type tenant struct {
	t             *testing.T
	owner, reader *pgstore.Store
	random        *rand.Rand
	lease         storage.Lease
	rows          map[storage.Key]string
	fenced        int
	written       int
}

func (n *tenant) acquire(ctx context.Context) error {
	var err error
	n.lease, err = n.owner.Acquire(ctx, moved, "tenant", time.Hour)
	return err
}

// write commits one batch and looks for it from another node. It takes the lease again
// when it has lost it.
func (n *tenant) write(ctx context.Context) {
	n.written++
	i := n.written
	var b storage.Batch
	want := maps.Clone(n.rows)
	key := func(k int) storage.Key {
		return storage.Key{Partition: moved, Table: storage.Table(1 + k%3), Entity: fmt.Sprint("e", k%2), Sort: fmt.Sprintf("%04d", k)}
	}
	for range 1 + n.random.IntN(4) {
		k := key(n.random.IntN(1500))
		switch n.random.IntN(8) {
		case 0:
			b.Delete(k)
			delete(want, k)
		case 1:
			end := fmt.Sprintf("%04d", n.random.IntN(1500))
			b.DeleteRange(k, end)
			maps.DeleteFunc(want, func(r storage.Key, _ string) bool {
				return r.Table == k.Table && r.Entity == k.Entity && r.Sort >= k.Sort && r.Sort < end
			})
		default:
			v := fmt.Sprint("v", i)
			b.Put(k, []byte(v))
			want[k] = v
		}
	}
	mark := storage.Key{Partition: moved, Table: 9, Entity: "mark", Sort: fmt.Sprintf("%08d", i)}
	b.Put(mark, []byte{})
	b.DeleteRange(storage.Key{Partition: moved, Table: 9, Entity: "mark"}, mark.Sort) // which puts before
	want[mark] = ""
	maps.DeleteFunc(want, func(r storage.Key, _ string) bool { return r.Table == 9 && r.Sort < mark.Sort })
	for {
		err := n.owner.Commit(ctx, moved, n.lease.Epoch, &b)
		if err == nil {
			break
		}
		if !errors.Is(err, storage.ErrFenced) {
			n.t.Errorf("commit: %v", err)
			return
		}
		n.fenced++
		for n.acquire(ctx) != nil && ctx.Err() == nil { // until somebody finishes the move
		}
		if ctx.Err() != nil {
			return
		}
	}
	n.rows = want
	for { // who reads is told to come back while the partition is nowhere
		last, err := n.reader.Last(ctx, 9, "mark", 0, moved)
		if err != nil && ctx.Err() == nil {
			continue
		}
		got, err := n.reader.Get(ctx, mark)
		if err != nil && ctx.Err() == nil {
			continue
		}
		if ctx.Err() == nil && (last[1] != mark.Sort || got[0] == nil) {
			n.t.Errorf("another node does not see what was answered: last %q, want %q", last[1], mark.Sort)
		}
		return
	}
}

// compare reads the whole partition on both nodes.
func (n *tenant) compare(ctx context.Context) {
	n.t.Helper()
	for _, s := range []*pgstore.Store{n.owner, n.reader} {
		rows, err := s.ScanPartition(ctx, storage.Key{Partition: moved}, storage.MaxScan)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(rows) != len(n.rows) {
			n.t.Fatalf("%d rows, want %d", len(rows), len(n.rows))
		}
		for _, r := range rows {
			if want, ok := n.rows[r.Key]; !ok || want != string(r.Value) {
				n.t.Fatalf("%v is %q, want %q", r.Key, r.Value, want)
			}
		}
	}
}

// begin puts an owner and a reader on three databases.
func beginTenant(t *testing.T, urls []string) *tenant {
	t.Helper()
	n := &tenant{t: t, random: rand.New(rand.NewPCG(1, 2)), rows: make(map[storage.Key]string)}
	n.owner, n.reader = open(t, pgstore.Options{URLs: urls}), open(t, pgstore.Options{URLs: urls})
	if err := n.acquire(context.Background()); err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	for i := range 1100 { // more than two pages
		k := storage.Key{Partition: moved, Table: 5, Entity: "e", Sort: fmt.Sprintf("%04d", i)}
		b.Put(k, []byte("v"))
		n.rows[k] = "v"
	}
	if err := n.owner.Commit(context.Background(), moved, n.lease.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		n.write(context.Background())
	}
	return n
}

func three(t *testing.T) []string {
	t.Helper()
	pg := pgtest.Start(t, "fsync=off")
	return []string{pg.Database(t), pg.Database(t), pg.Database(t)}
}

// A partition moves from database to database while it is written and read, and whoever
// moves it is killed at each step: what was answered is there, on all nodes, and once.
func TestMoveUnderLoad(t *testing.T) {
	urls := three(t)
	n := beginTenant(t, urls)
	mover := open(t, pgstore.Options{URLs: urls})
	ctx, from := context.Background(), 2
	for i, step := range []string{
		"begin", "copy", "copy on", "catch up", "compare", "catch up again", "stop", "carry the last changes over",
		"compare the last changes", "switch", "clean up", "",
	} {
		to := from%3 + 1
		writing, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for writing.Err() == nil {
				n.write(ctx)
			}
		})
		killMover(t, moverOrder{urls, moved, to}, step)
		if i%2 == 1 && step != "" { // take it back, and begin anew
			if _, err := mover.MovePartition(ctx, moved, pgstore.MoveOptions{To: from}); err != nil {
				t.Errorf("take back, killed at %q: %v", step, err)
			}
		}
		if _, err := mover.MovePartition(ctx, moved, pgstore.MoveOptions{To: to}); err != nil {
			t.Errorf("go on, killed at %q: %v", step, err)
		}
		stop()
		wg.Wait()
		if t.Failed() {
			t.Fatalf("killed at %q", step)
		}
		n.compare(ctx)
		for i, url := range urls {
			rows := ask[int](t, url, fmt.Sprintf("SELECT count(*)::int FROM hubbub_row WHERE partition = %d", moved))
			if want := map[bool]int{true: len(n.rows)}[i+1 == to]; rows != want {
				t.Errorf("killed at %q: database %d has %d rows, want %d", step, i+1, rows, want)
			}
			if left := ask[int](t, url, "SELECT count(*)::int FROM hubbub_change"); left != 0 {
				t.Errorf("killed at %q: %d changes are left in database %d", step, left, i+1)
			}
		}
		from = to
	}
	if n.fenced == 0 {
		t.Error("the owner was never fenced")
	}
	// A node that begins now finds it.
	n.reader = open(t, pgstore.Options{URLs: urls})
	n.compare(ctx)
}

// A copy that is not like its original is not switched to, and the partition can stay
// where it was.
func TestMoveNoticesDifferences(t *testing.T) {
	urls := three(t)
	n := beginTenant(t, urls)
	ctx := context.Background()
	for _, tc := range []struct{ at, statement string }{
		{"compare", "UPDATE hubbub_row SET value = 'x' WHERE (tbl, entity, sort) = (SELECT tbl, entity, sort FROM hubbub_row LIMIT 1)"},
		{"compare", "DELETE FROM hubbub_row WHERE (tbl, entity, sort) = (SELECT tbl, entity, sort FROM hubbub_row LIMIT 1)"},
		{"compare the last changes", "DELETE FROM hubbub_row WHERE tbl = 9"},
	} {
		_, err := n.owner.MovePartition(ctx, moved, pgstore.MoveOptions{To: 3, Step: func(what string) error {
			if what == "catch up again" {
				n.write(ctx)
			}
			if what == tc.at {
				exec(t, urls[2], tc.statement)
			}
			return nil
		}})
		if err == nil || !strings.Contains(err.Error(), "differs") {
			t.Errorf("%s: %v", tc.statement, err)
		}
		if _, err := n.owner.MovePartition(ctx, moved, pgstore.MoveOptions{To: 1}); err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("to a third database: %v", err)
		}
		if _, err := n.owner.MovePartition(ctx, moved, pgstore.MoveOptions{To: 2}); err != nil {
			t.Errorf("take back: %v", err)
		}
		n.write(ctx)
		n.compare(ctx)
	}
}

// Who knows fewer databases than there are does not begin, a partition that is where it
// should be stays, and an old copy can be kept.
func TestMoveToNewDatabase(t *testing.T) {
	urls := three(t)
	n := beginTenant(t, urls[:2]) // in the first of two
	ctx := context.Background()
	s := open(t, pgstore.Options{URLs: urls})
	for _, to := range []int{0, 4} {
		if _, err := s.MovePartition(ctx, moved, pgstore.MoveOptions{To: to}); err == nil {
			t.Errorf("moved to database %d", to)
		}
	}
	if r, err := s.MovePartition(ctx, moved, pgstore.MoveOptions{To: 1}); err != nil || !r.Already {
		t.Errorf("to where it is: %+v, %v", r, err)
	}
	r, err := s.MovePartition(ctx, moved, pgstore.MoveOptions{To: 3, Keep: true})
	if err != nil || r.Rows != int64(len(n.rows)) {
		t.Fatalf("%+v, %v", r, err)
	}
	if rows := ask[int](t, urls[0], "SELECT count(*)::int FROM hubbub_row"); rows != len(n.rows) {
		t.Errorf("%d of %d rows were kept", rows, len(n.rows))
	}
	// A node that knows two databases only can do nothing with it any more.
	if err := n.owner.Commit(ctx, moved, n.lease.Epoch, &storage.Batch{}); !errors.Is(err, storage.ErrFenced) {
		t.Errorf("commit to the old place: %v", err)
	}
	if _, err := n.owner.Get(ctx, storage.Key{Partition: moved, Table: 9}); err == nil || !strings.Contains(err.Error(), "database 3") {
		t.Errorf("read in the old place: %v", err)
	}
	if o, err := pgstore.Open(ctx, pgstore.Options{URLs: urls[:2]}); err == nil || !strings.Contains(err.Error(), "database 3") {
		if err == nil {
			_ = o.Close()
		}
		t.Errorf("opened with two databases: %v", err)
	}
	if l, err := s.Acquire(ctx, moved, "another", time.Hour); !errors.Is(err, storage.ErrHeld) || l.Node != "tenant" {
		t.Errorf("the lease did not come along: %+v, %v", l, err)
	}
	n.owner, n.reader = s, s
	if err := n.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	n.write(ctx)
	n.compare(ctx)
}
