package pgstore_test

import (
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// Nodes of earlier versions, which run on while the first of this one has brought the
// schema up to date, write by the functions that they know.
func TestEarlierVersions(t *testing.T) {
	database := pgtest.Start(t).Database(t)
	s := open(t, pgstore.Options{URLs: []string{database}})
	const p = ids.Partition(3)
	l, err := s.Acquire(t.Context(), p, "a", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k := func(sort string) storage.Key { return storage.Key{Partition: p, Table: 2, Entity: "e", Sort: sort} }
	var b storage.Batch
	for _, sort := range []string{"a", "b", "c", "d"} {
		b.Put(k(sort), []byte("before"))
	}
	if err := s.Commit(t.Context(), p, l.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{
		`SELECT hubbub_write(3, $1, '{2}', '{e}', '{a}', '{b}', '{2}', '{e}', '{b}', '{2}', '{e}', '{c}', '{put}', '{2}', '{e}', '{n}', '{new}')`,
		`SELECT hubbub_write(3, $1, '{}', '{}', '{}', '{}', NULL, NULL, NULL, '{}', '{}', '{}', '{}', '{2}', '{e}', '{o}', '{new}')`,
		`SELECT hubbub_write(3, $1, '{}', '{}', '{}', '{}', NULL, NULL, NULL, '{2}', '{e}', '{d}', '{put}', NULL, NULL, NULL, NULL)`,
		`SELECT hubbub_commit(3, $1, '{2}', '{e}', '{p}', '{""}', '{}', '{}', '{}', '{2}', '{e}', '{d}', '{put}')`,
	} {
		if ok := ask[bool](t, database, call, int64(l.Epoch)); !ok {
			t.Errorf("not written: %s", call)
		}
		if ok := ask[bool](t, database, call, int64(l.Epoch)+1); ok {
			t.Errorf("written in an epoch that is not the partition's: %s", call)
		}
	}
	rows, err := s.Scan(t.Context(), storage.Range{Partition: p, Table: 2, Entity: "e", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range rows {
		got += r.Sort + "=" + string(r.Value) + " "
	}
	if want := "c=put d=put n=new o=new "; got != want {
		t.Errorf("rows %q, want %q", got, want)
	}
}
