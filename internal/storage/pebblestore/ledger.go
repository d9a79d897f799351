package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// ledger knows the leases and settings. The apply loop owns it. Epochs and
// settings are durable; who holds a lease and until when is not, because every
// holder is in this process, and gone when it is.
type ledger struct {
	leases map[ids.Partition]storage.Lease // Node is "" if nobody holds it
	metas  map[string][]byte               // those looked up so far
}

// load reads the ledger and the format number, which it writes to a new store and to one
// of an earlier version.
func (s *Store) load() (*ledger, error) {
	if err := s.loadFormat(); err != nil {
		return nil, err
	}
	led := &ledger{leases: map[ids.Partition]storage.Lease{}, metas: map[string][]byte{}}
	iter, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte(epochPrefix), UpperBound: []byte(formatKey),
	})
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	for iter.First(); iter.Valid(); iter.Next() {
		key, value := iter.Key(), iter.Value()
		if len(key) != len(epochPrefix)+2 || len(value) != 8 {
			return nil, errors.Join(fmt.Errorf("epoch row %x: %x is malformed", key, value), iter.Close())
		}
		p := ids.Partition(binary.BigEndian.Uint16(key[len(epochPrefix):]))
		led.leases[p] = storage.Lease{Partition: p, Epoch: ids.Epoch(binary.BigEndian.Uint64(value))}
	}
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	return led, nil
}

func (s *Store) loadFormat() error {
	value, err := get(s.db, []byte(formatKey))
	if err != nil {
		return fmt.Errorf("read format: %w", err)
	}
	if value != nil {
		if len(value) != 8 {
			return fmt.Errorf("format row %x is malformed", value)
		}
		switch n := binary.BigEndian.Uint64(value); {
		case n > storage.Format:
			return fmt.Errorf("%w: it has format %d, this version of hubbub reads up to %d",
				storage.ErrNewerFormat, n, storage.Format)
		case n == storage.Format:
			return nil
		}
	}
	value = binary.BigEndian.AppendUint64(nil, storage.Format)
	if err := s.db.Set([]byte(formatKey), value, pebble.Sync); err != nil {
		return fmt.Errorf("write format: %w", err)
	}
	return s.failure.Err()
}

// get returns a copy of a value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(value)), value...), closer.Close()
}

// mayCommit tells whether epoch is the last one given out.
func (l *ledger) mayCommit(p ids.Partition, epoch ids.Epoch) bool {
	return epoch != 0 && l.leases[p].Epoch == epoch
}

// acquire returns the lease, and whether its epoch is new and has to be
// written, or storage.ErrHeld.
func (l *ledger) acquire(p ids.Partition, node ids.NodeID, ttl time.Duration, now time.Time) (storage.Lease, bool, error) {
	lease := l.leases[p]
	live := lease.Node != "" && now.Before(lease.Expires)
	if live && lease.Node != node {
		return lease, false, fmt.Errorf("pebblestore: partition %d by %s until %s: %w",
			p, lease.Node, lease.Expires.Format(time.RFC3339Nano), storage.ErrHeld)
	}
	if !live {
		lease = storage.Lease{Partition: p, Node: node, Epoch: lease.Epoch + 1}
	}
	lease.Expires = now.Add(ttl)
	l.leases[p] = lease
	return lease, !live, nil
}

// renew makes a lease that is held longer, or returns storage.ErrFenced.
func (l *ledger) renew(want storage.Lease, ttl time.Duration, now time.Time) error {
	have := l.leases[want.Partition]
	if have.Epoch != want.Epoch || have.Node != want.Node || !now.Before(have.Expires) {
		return fmt.Errorf("pebblestore: renew partition %d epoch %d, now %d: %w",
			want.Partition, want.Epoch, have.Epoch, storage.ErrFenced)
	}
	have.Expires = now.Add(ttl)
	l.leases[want.Partition] = have
	return nil
}

func (l *ledger) release(want storage.Lease) error {
	have := l.leases[want.Partition]
	if have.Epoch != want.Epoch || have.Node == "" || have.Node != want.Node {
		return fmt.Errorf("pebblestore: release partition %d epoch %d, now %d: %w",
			want.Partition, want.Epoch, have.Epoch, storage.ErrFenced)
	}
	l.leases[want.Partition] = storage.Lease{Partition: have.Partition, Epoch: have.Epoch}
	return nil
}
