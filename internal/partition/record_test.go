package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// What is published is what the log holds: contiguous, in order, once.
func TestPublishedIsTheLog(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				cmd := &test{apply: func(tx *Tx) (any, error) {
					for j := range (i + g) % 4 {
						s := tx.NextSeq()
						data := fmt.Appendf(nil, "%d %d %d", g, i, j)
						if got := tx.Emit(Record{Kind: RecordUser, Entity: fmt.Sprint(g), Data: data, Body: data}); got != s {
							return nil, fmt.Errorf("position %d, announced %d", got, s)
						}
					}
					if i%7 == 0 {
						return nil, errDown
					}
					return nil, nil
				}}
				if _, err := o.Do(context.Background(), cmd); err != nil && !errors.Is(err, errDown) {
					t.Errorf("command: %v", err)
				}
			}
		})
	}
	wg.Wait()
	o.Close()
	at := ids.Seq(0)
	for _, p := range d.allPublished() {
		if p.First != at+1 || p.Epoch != o.Epoch() || p.Partition != 0 {
			t.Fatalf("published %d to %d behind %d", p.First, p.Last, at)
		}
		log, err := ReadLog(context.Background(), d.store, 0, at, 1)
		if err != nil || len(log) != 1 || log[0].First != p.First || log[0].Last != p.Last {
			t.Fatalf("log behind %d: %+v, %v; published %d to %d", at, log, err, p.First, p.Last)
		}
		for i, r := range p.Records {
			l := log[0].Records[i]
			if r.Seq != p.First+ids.Seq(i) || !bytes.Equal(r.Body, r.Data) {
				t.Fatalf("record %d of the batch at %d is %+v", i, p.First, r)
			}
			if l.Seq != r.Seq || l.Kind != r.Kind || l.Entity != r.Entity || !bytes.Equal(l.Data, r.Data) {
				t.Fatalf("logged %+v, published %+v", l, r)
			}
		}
		at = p.Last
	}
	if at != o.Head() || at == 0 {
		t.Errorf("published up to %d, head %d", at, o.Head())
	}
}

// The log keeps its last positions, and says so when it no longer has what is
// asked for.
func TestLogIsTrimmed(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	const each = 1 << 15
	many := &test{apply: func(tx *Tx) (any, error) {
		for range each {
			tx.Emit(Record{Kind: RecordEffect})
		}
		return nil, nil
	}}
	for range logKeep/each + 4 {
		if _, err := o.Do(context.Background(), many); err != nil {
			t.Fatal(err)
		}
	}
	head := o.Head()
	o.Close()
	ctx := context.Background()
	if _, err := ReadLog(ctx, d.store, 0, 0, 1); !errors.Is(err, ErrTrimmed) {
		t.Errorf("reading a log from where it was trimmed: %v", err)
	}
	if log, err := ReadLog(ctx, d.store, 0, head-logKeep, 1); err != nil || len(log) != 1 {
		t.Errorf("reading what is kept: %d batches, %v", len(log), err)
	}
	if log, err := ReadLog(ctx, d.store, 0, head, 1); err != nil || len(log) != 0 {
		t.Errorf("reading behind the end: %d batches, %v", len(log), err)
	}
	if n := len(d.scan(0, tables.Log)); n > logKeep/each+2 {
		t.Errorf("%d batches kept", n)
	}
	o = d.start(0)
	defer o.Close()
	if o.Head() != head {
		t.Errorf("head %d after the trim, %d before", o.Head(), head)
	}
}

// TestReadLogDamaged: a batch that cannot be read is a gap, behind which readers go on.
func TestReadLogDamaged(t *testing.T) {
	d := newDeployment(t, 1)
	o := d.start(0)
	defer o.Close()
	ctx := context.Background()
	put := func(last ids.Seq, value []byte) {
		b := &storage.Batch{}
		b.Put(storage.Key{Table: tables.Log, Sort: tables.SeqSort(last)}, value)
		if err := d.store.Commit(ctx, 0, o.Epoch(), b); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(first ids.Seq, n int) []byte { return appendRecords(nil, first, make([]Record, n), false) }
	put(2, whole(1, 2))
	put(3, []byte{3, 1})   // it ends in the middle
	put(5, whole(4, 1))    // it is of another place
	put(7, whole(6, 2))    // the next that is whole
	put(8, []byte("junk")) // and nothing behind it
	if log, err := ReadLog(ctx, d.store, 0, 0, 10); err != nil || len(log) != 1 || log[0].Last != 2 {
		t.Errorf("what is before the damage: %v, %v", log, err)
	}
	if _, err := ReadLog(ctx, d.store, 0, 2, 10); !errors.Is(err, ErrTrimmed) {
		t.Errorf("the damage: %v", err)
	}
	if start, err := LogStart(ctx, d.store, 0, 2); err != nil || start != 6 {
		t.Errorf("goes on at %d, %v", start, err)
	}
	if log, err := ReadLog(ctx, d.store, 0, 5, 10); err != nil || len(log) != 1 || log[0].First != 6 {
		t.Errorf("what is behind the damage: %v, %v", log, err)
	}
	if start, err := LogStart(ctx, d.store, 0, 7); err != nil || start != 9 {
		t.Errorf("goes on behind the end at %d, %v", start, err)
	}
}

func TestPublishedRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		data := rapid.SliceOf(rapid.Byte())
		first := ids.Seq(rapid.Uint64Range(1, 1<<40).Draw(rt, "first"))
		p := &Published{Partition: 3, Epoch: ids.Epoch(rapid.Uint64().Draw(rt, "epoch")), First: first}
		n := rapid.IntRange(1, 5).Draw(rt, "n")
		for i := range n {
			p.Records = append(p.Records, Record{
				Seq: first + ids.Seq(i), Kind: RecordKind(rapid.Byte().Draw(rt, "kind")),
				Entity: rapid.String().Draw(rt, "entity"), Data: data.Draw(rt, "data"), Body: data.Draw(rt, "body"),
			})
		}
		p.Last = first + ids.Seq(n) - 1
		b, err := p.MarshalBinary()
		if err != nil {
			rt.Fatal(err)
		}
		got, err := UnmarshalPublished(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			rt.Fatalf("%+v came back as %+v, %v", p, got, err)
		}
	})
}

func FuzzUnmarshalPublished(f *testing.F) {
	p := &Published{Partition: 1, Epoch: 2, First: 3, Last: 3, Records: []Record{{Kind: 1, Entity: "e", Data: []byte("d")}}}
	b, err := p.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := UnmarshalPublished(b)
		if err == nil && len(p.Records) > len(b) {
			t.Errorf("%d records out of %d bytes", len(p.Records), len(b))
		}
	})
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a": "b", "a\xff": "b", "\xff\xff": "", "a\x00": "a\x01"} {
		if got := PrefixEnd(prefix); got != want {
			t.Errorf("PrefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}
