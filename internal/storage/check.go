package storage

import (
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// The checks below are the part of the contract that is the same for every
// backend. A backend calls them before it does anything, so that a wrong call
// has no effect and the same error everywhere.

// Check reports, wrapping ErrInvalid, whether the key may name a row.
func (k Key) Check() error {
	switch {
	case k.Partition >= ids.MaxPartitions:
		return fmt.Errorf("key in partition %d of at most %d: %w", k.Partition, ids.MaxPartitions, ErrInvalid)
	case k.Table == 0:
		return fmt.Errorf("key in table 0, which is reserved: %w", ErrInvalid)
	case len(k.Entity) > MaxEntity:
		return fmt.Errorf("entity of %d bytes, limit %d: %w", len(k.Entity), MaxEntity, ErrInvalid)
	case len(k.Sort) > MaxSort:
		return fmt.Errorf("sort key of %d bytes, limit %d: %w", len(k.Sort), MaxSort, ErrInvalid)
	}
	return nil
}

// Check reports, wrapping ErrInvalid, whether the range may be scanned.
func (r Range) Check() error {
	if err := (Key{Partition: r.Partition, Table: r.Table, Entity: r.Entity, Sort: r.From}).Check(); err != nil {
		return err
	}
	if len(r.To) > MaxSort {
		return fmt.Errorf("end of range of %d bytes, limit %d: %w", len(r.To), MaxSort, ErrInvalid)
	}
	return checkLimit(r.Limit)
}

// CheckPartitionScan reports, wrapping ErrInvalid, whether the arguments suit
// ScanPartition.
func CheckPartitionScan(after Key, limit int) error {
	if after.Partition < ids.MaxPartitions && after == (Key{Partition: after.Partition}) {
		return checkLimit(limit)
	}
	if err := after.Check(); err != nil {
		return err
	}
	return checkLimit(limit)
}

func checkLimit(limit int) error {
	if limit < 1 || limit > MaxScan {
		return fmt.Errorf("limit of %d rows, want 1 to %d: %w", limit, MaxScan, ErrInvalid)
	}
	return nil
}

// Check reports, wrapping ErrInvalid, whether the batch may be committed to the
// partition.
func (b *Batch) Check(p ids.Partition) error {
	if b == nil {
		return fmt.Errorf("no batch: %w", ErrInvalid)
	}
	if p >= ids.MaxPartitions {
		return fmt.Errorf("commit to partition %d of at most %d: %w", p, ids.MaxPartitions, ErrInvalid)
	}
	size := 0
	for i := range b.Ops {
		op := &b.Ops[i]
		if err := op.check(p); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
		size += len(op.Key.Entity) + len(op.Key.Sort) + len(op.Value)
	}
	if size > MaxBatch {
		return fmt.Errorf("batch of %d bytes, limit %d: %w", size, MaxBatch, ErrInvalid)
	}
	return nil
}

func (o *Op) check(p ids.Partition) error {
	if o.Key.Partition != p {
		return fmt.Errorf("key in partition %d, commit to %d: %w", o.Key.Partition, p, ErrInvalid)
	}
	if err := o.Key.Check(); err != nil {
		return err
	}
	switch o.Kind {
	case OpPut:
		if len(o.Value) > MaxValue {
			return fmt.Errorf("value of %d bytes, limit %d: %w", len(o.Value), MaxValue, ErrInvalid)
		}
	case OpDelete:
	case OpDeleteRange:
		if len(o.End) > MaxSort {
			return fmt.Errorf("end of range of %d bytes, limit %d: %w", len(o.End), MaxSort, ErrInvalid)
		}
	default:
		return fmt.Errorf("kind %d: %w", o.Kind, ErrInvalid)
	}
	return nil
}

// CheckAcquire reports, wrapping ErrInvalid, whether the arguments suit Acquire.
func CheckAcquire(p ids.Partition, node ids.NodeID, ttl time.Duration) error {
	switch {
	case p >= ids.MaxPartitions:
		return fmt.Errorf("lease of partition %d of at most %d: %w", p, ids.MaxPartitions, ErrInvalid)
	case node == "" || len(node) > MaxEntity:
		return fmt.Errorf("node ID of %d bytes, want 1 to %d: %w", len(node), MaxEntity, ErrInvalid)
	case ttl <= 0:
		return fmt.Errorf("lease for %v: %w", ttl, ErrInvalid)
	}
	return nil
}

// CheckMeta reports, wrapping ErrInvalid, whether the arguments suit InitMeta.
func CheckMeta(name string, value []byte) error {
	switch {
	case name == "" || len(name) > MaxEntity:
		return fmt.Errorf("setting name of %d bytes, want 1 to %d: %w", len(name), MaxEntity, ErrInvalid)
	case len(value) > MaxValue:
		return fmt.Errorf("value of %d bytes, limit %d: %w", len(value), MaxValue, ErrInvalid)
	}
	return nil
}
