package room

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// maxTxnID bounds a transaction ID in bytes. Clients use a few dozen.
	maxTxnID = 255
	// devicePart and requestPart are the lengths of the two hashes that make the
	// sort key of a Txn row. Devices may share a part by chance, and are then
	// collected together; requests may not.
	devicePart, requestPart = 8, 16
	// maxKnownTxns is how many requests of a device are known in memory. A device
	// that has more is looked up in the store each time.
	maxKnownTxns = 8192
	// txnLifetime is how long a request can be repeated: much longer than any
	// client keeps a message that was not sent.
	txnLifetime = 14 * 24 * time.Hour
	// txnPrune bounds the old rows that one request removes.
	txnPrune = 64
)

// Txn identifies a request, so that a repeated one has no second effect.
// spec: client-server §Transaction identifiers: scope is device and path.
//
// A request leaves a row. Nearly every request is new, and looking for a row
// that is not there is dear: so the hashes of all requests of a device are
// brought into memory once, and only one that is among them is looked up.
type Txn struct {
	Device ids.DeviceID
	// Path distinguishes the endpoints: "send" with its event type, "redact"
	// with its target.
	Path string
	ID   string

	// probe: the request is among the known ones; its row has to be pinned.
	probe bool `wire:"-"`
	// indexSort and rowSort are the sort keys of its rows once they were asked for,
	// which is in Prepare: the owner's loop hashes nothing.
	indexSort, rowSort string `wire:"-"`
}

// Check says whether a transaction ID can be used.
func (t *Txn) Check() error {
	if len(t.ID) > maxTxnID {
		return merr.InvalidParamErr("The transaction ID is longer than %d bytes", maxTxnID)
	}
	return nil
}

// txnHash is the request's part of a sort key.
type txnHash [requestPart]byte

// hashParts hashes the parts of a name as partition.JoinSort joins them.
func hashParts(parts ...string) [sha256.Size]byte {
	var scratch [512]byte // most names fit
	b := scratch[:0]
	for i, part := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}

// index is the key of the device's row. A Txn is of one user, whose ID is given.
func (t *Txn) index(p Place, user ids.UserID) storage.Key {
	if t.indexSort == "" {
		sum := hashParts(string(user), string(t.Device))
		t.indexSort = string(sum[:devicePart])
	}
	return p.key(tables.TxnIndex, t.indexSort)
}

// row is the key of the request's row, likewise.
func (t *Txn) row(p Place, user ids.UserID) storage.Key {
	if t.rowSort == "" {
		request := hashParts(t.Path, t.ID)
		// The whole identity is hashed again, since devices may share their part.
		sum := hashParts(string(user), string(t.Device), string(request[:requestPart]))
		t.rowSort = t.index(p, user).Sort + string(sum[:requestPart])
	}
	return p.key(tables.Txn, t.rowSort)
}

// appendKeys adds what the request has to pin.
func (t *Txn) appendKeys(keys []storage.Key, p Place, user ids.UserID) []storage.Key {
	if t.ID == "" {
		return keys
	}
	keys = append(keys, t.index(p, user))
	if row := t.row(p, user); t.probe {
		keys = append(keys, row)
	}
	return keys
}

// replayed returns the event that the request made before, "" if it is new.
func (t *Txn) replayed(v view, user ids.UserID) (ids.EventID, error) {
	if t.ID == "" {
		return "", nil
	}
	row := t.row(v.p, user)
	if t.probe {
		id, _ := decodeTxn(v.tx.Get(row).Value)
		return id, nil
	}
	known, _ := v.tx.Get(t.index(v.p, user)).Obj.(*knownTxns)
	if known == nil {
		return "", fmt.Errorf("transactions of a device: %w", errRow)
	}
	if known.has(row.Sort) {
		t.probe = true
		return "", partition.ErrRetry
	}
	return "", nil
}

// record keeps the request with the event that it made.
func (t *Txn) record(v view, user ids.UserID, id ids.EventID) {
	if t.ID == "" {
		return
	}
	row := t.row(v.p, user)
	v.tx.Insert(row, encodeTxn(id, v.tx.Now), nil) // or it would have been replayed
	known, _ := v.tx.Get(t.index(v.p, user)).Obj.(*knownTxns)
	if known == nil {
		return
	}
	// Before the commit, and also if the command fails after all: a hash too many
	// costs a look-up.
	known.add(row.Sort)
	n := min(len(known.old), txnPrune)
	for _, sort := range known.old[:n] {
		v.tx.Delete(v.p.key(tables.Txn, sort))
	}
	known.old = known.old[n:]
}

func encodeTxn(id ids.EventID, now int64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(now)), id...)
}

func decodeTxn(row []byte) (id ids.EventID, at int64) {
	if len(row) < 8 {
		return "", 0
	}
	return ids.EventID(row[8:]), int64(binary.BigEndian.Uint64(row))
}

// knownTxns are the requests of a device that may have a row. The owner's loop
// alone uses it.
type knownTxns struct {
	// hashes is nil if there are too many to know.
	hashes map[txnHash]struct{}
	// old are the sort keys of rows whose time is over.
	old []string
}

func (k *knownTxns) has(sort string) bool {
	if k.hashes == nil {
		return true
	}
	_, ok := k.hashes[txnHash([]byte(sort[devicePart:]))]
	return ok
}

func (k *knownTxns) add(sort string) {
	if k.hashes == nil {
		return
	}
	if len(k.hashes) >= maxKnownTxns {
		k.hashes = nil
		return
	}
	k.hashes[txnHash([]byte(sort[devicePart:]))] = struct{}{}
}

// collectTxns reads the requests of a device. Those that are older than any other
// by txnLifetime are over: the newest row, not a clock, says what is old.
func collectTxns(ctx context.Context, st storage.Store, k storage.Key) (any, int, error) {
	rows, err := st.Scan(ctx, storage.Range{
		Partition: k.Partition, Table: tables.Txn, Entity: k.Entity,
		From: k.Sort, To: partition.PrefixEnd(k.Sort), Limit: maxKnownTxns + 1,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read transactions: %w", err)
	}
	newest := int64(0)
	for _, row := range rows {
		_, at := decodeTxn(row.Value)
		newest = max(newest, at)
	}
	known := &knownTxns{hashes: make(map[txnHash]struct{}, len(rows))}
	for _, row := range rows {
		if _, at := decodeTxn(row.Value); newest-at > txnLifetime.Milliseconds() {
			known.old = append(known.old, row.Sort)
		}
		known.hashes[txnHash([]byte(row.Sort[devicePart:]))] = struct{}{}
	}
	if len(rows) > maxKnownTxns {
		known.hashes = nil
	}
	return known, len(rows) * (requestPart + 32), nil
}
