package room

import (
	"fmt"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// A request that an earlier owner answered is answered the same by the next,
// which has to find it in the store; a new one is not taken for an old one.
func TestTransactionsSurviveTheOwner(t *testing.T) {
	w, room := clean(t, "12")
	message := func(id string) *Send {
		m := w.message(alice, "body")
		m.Txn = Txn{Device: "D", Path: "send", ID: id}
		return m
	}
	const requests = 30
	before := make([]string, requests)
	for i := range before {
		before[i] = string(w.mustSend(room, message(fmt.Sprint(i))).ID)
	}
	next := newWorld(t, w.store)
	w.node.Close()
	next.node.Renew(ctx)
	defer next.close()
	for i, want := range before {
		id, err := next.send(room, message(fmt.Sprint(i)))
		if err != nil || string(id) != want {
			t.Errorf("request %d again: %s, %v; want %s", i, id, err, want)
		}
	}
	id, err := next.send(room, message("new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range before {
		if string(id) == old {
			t.Error("a new request was answered with an old event")
		}
	}
}

// Rows of requests that are over are removed bit by bit; all others stay.
func TestOldTransactionsArePruned(t *testing.T) {
	w, room := clean(t, "12")
	send := func(id string) {
		t.Helper()
		m := w.message(alice, "body")
		m.Txn = Txn{Device: "D", Path: "send", ID: id}
		w.mustSend(room, m)
	}
	const old = txnPrune + 10
	for i := range old {
		send(fmt.Sprint("old", i))
	}
	w.clock.Advance(txnLifetime + time.Hour)
	send("young")
	next := newWorld(t, w.store)
	w.node.Close()
	next.clock.Advance(txnLifetime + time.Hour)
	next.node.Renew(ctx)
	defer next.close()
	w.node = next.node
	send("first")
	if rows := w.rows(room, tables.Txn); len(rows) != old+2-txnPrune {
		t.Errorf("%d rows after the first request, want %d", len(rows), old+2-txnPrune)
	}
	send("second")
	if rows := w.rows(room, tables.Txn); len(rows) != 3 {
		t.Errorf("%d rows after the second request, want the three young ones", len(rows))
	}
}

// A device with more requests than are known in memory is looked up each time.
func TestManyTransactions(t *testing.T) {
	k := &knownTxns{hashes: map[txnHash]struct{}{}}
	sort := func(i int) string { return fmt.Sprintf("%08d%016d", 0, i) }
	for i := range maxKnownTxns {
		k.add(sort(i))
	}
	if k.has(sort(maxKnownTxns)) {
		t.Error("an unknown request is known")
	}
	k.add(sort(maxKnownTxns))
	if !k.has(sort(maxKnownTxns + 1)) {
		t.Error("beyond the bound a request passes for unknown")
	}
	obj, _, err := collectTxns(ctx, newTxnStore(t, maxKnownTxns+1), storage.Key{Table: tables.TxnIndex, Entity: "!r", Sort: "00000000"})
	if err != nil {
		t.Fatal(err)
	}
	if !obj.(*knownTxns).has(sort(1 << 20)) {
		t.Error("collected beyond the bound, a request passes for unknown")
	}
}

// newTxnStore returns a store with n requests of one device.
func newTxnStore(t *testing.T, n int) storage.Store {
	t.Helper()
	w, _ := clean(t, "12")
	l, err := w.store.Acquire(ctx, 0, "n", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var b storage.Batch
	for i := range n {
		b.Put(storage.Key{Table: tables.Txn, Entity: "!r", Sort: fmt.Sprintf("%08d%016d", 0, i)}, encodeTxn("$e", int64(i)))
	}
	if err := w.store.Commit(ctx, 0, l.Epoch, &b); err != nil {
		t.Fatal(err)
	}
	return w.store
}
