package room

import (
	"context"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// wipe removes rows, as if they had never been written.
type wipe struct {
	p    ids.Partition
	from []storage.Key
}

func (wipe) Name() string                                   { return "wipe" }
func (c wipe) Partition(int) ids.Partition                  { return c.p }
func (wipe) Prepare(context.Context, *partition.Prep) error { return nil }
func (c wipe) Apply(tx *partition.Tx) (any, error) {
	for _, k := range c.from {
		tx.DeleteRange(k, "")
	}
	return nil, nil
}

// TestReindex: a room that was made before the indexes gets what it would have.
func TestReindex(t *testing.T) {
	w, room := clean(t, "12")
	w.state(room, alice, event.TypeName, "", `{"name":"Two words"}`)
	w.member(room, bob, bob, event.Join)
	w.member(room, carol, carol, event.Join)
	w.member(room, carol, carol, event.Leave)
	if _, err := w.node.Do(ctx, &SetPublic{Room: room, Sender: alice, Public: true}); err != nil {
		t.Fatal(err)
	}
	p := w.r.Place(room).Partition
	_, err := w.node.Do(ctx, wipe{p, []storage.Key{
		{Partition: p, Table: tables.MemberTerm, Entity: string(room)},
		{Partition: p, Table: tables.DirectoryTerm},
		{Partition: p, Table: tables.DirectoryOrder, Entity: listAll},
		{Partition: p, Table: tables.DirectoryOrder, Entity: listOf("")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if list, _, err := w.r.MembersNamed(ctx, room, "bob", 10); err != nil || len(list) != 0 {
		t.Fatalf("the index is not gone: %v, %v", list, err)
	}
	for range 2 { // the second time changes nothing
		next, err := partition.Do[string](ctx, w.node, &Reindex{Room: room})
		if err != nil || next != "" {
			t.Fatalf("reindex: %q, %v", next, err)
		}
		w.checkRoom(room)
	}
	if _, err := w.node.Do(ctx, &Reindex{Room: "!none:h"}); err != nil {
		t.Errorf("a room that is gone: %v", err)
	}
}
