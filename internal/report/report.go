// Package report keeps what users report to the administrators of the server:
// messages, rooms and users. spec: client-server §Reporting Content.
//
// Reports are few, and are read together. So all of them are rows of one
// partition, in the order in which they came. Add writes one, Resolve removes
// one; a Reader lists them. Whether somebody may report a thing is asked by who
// runs Add, whether somebody may read reports by who uses the Reader.
package report

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Report is what a user reported. It is about an event if Event is set, else about
// a room if Room is, else about User.
type Report struct {
	// ID is the report's place in the list of all.
	ID ids.Seq `json:"-"`
	// TS is when it came, in ms since 1970.
	TS       int64       `json:"ts"`
	Reporter ids.UserID  `json:"reporter"`
	Room     ids.RoomID  `json:"room,omitempty"`
	Event    ids.EventID `json:"event,omitempty"`
	// User is who is reported, or who sent the event.
	User   ids.UserID `json:"user,omitempty"`
	Reason string     `json:"reason,omitempty"`
	// Score is from -100 (most offensive) to 0; nil if the client gave none.
	Score *int `json:"score,omitempty"`
}

// home is what all reports are hashed by.
const home = "reports"

func key(count int, id ids.Seq) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(home, count), Table: tables.Report, Sort: tables.SeqSort(id)}
}

// Tables are the rows that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{tables.Report: {}}
}

// Add stores a report. The result is its ids.Seq.
type Add struct{ Report Report }

var _ partition.Command = (*Add)(nil)

// Name implements partition.Command.
func (c *Add) Name() string { return "add_report" }

// Partition implements partition.Command.
func (c *Add) Partition(count int) ids.Partition { return ids.PartitionOf(home, count) }

// Prepare implements partition.Command.
func (c *Add) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *Add) Apply(tx *partition.Tx) (any, error) {
	r := c.Report
	r.TS = tx.Now
	row, err := json.Marshal(&r, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	// The record takes the position and says nothing: nobody's feed shows reports.
	id := tx.Emit(partition.Record{Kind: partition.RecordEffect})
	tx.PutNew(key(tx.Count(), id), row)
	return id, nil
}

// Resolve removes a report. M_NOT_FOUND if there is none of that ID.
type Resolve struct{ ID ids.Seq }

var _ partition.Command = (*Resolve)(nil)

// Name implements partition.Command.
func (c *Resolve) Name() string { return "resolve_report" }

// Partition implements partition.Command.
func (c *Resolve) Partition(count int) ids.Partition { return ids.PartitionOf(home, count) }

// Prepare implements partition.Command.
func (c *Resolve) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, key(p.Count(), c.ID))
}

// Apply implements partition.Command.
func (c *Resolve) Apply(tx *partition.Tx) (any, error) {
	k := key(tx.Count(), c.ID)
	if tx.Get(k).Value == nil {
		return nil, merr.NotFoundErr("There is no such report")
	}
	tx.Delete(k)
	return nil, nil
}

// Reader shows committed reports. Its methods are safe for concurrent use.
type Reader struct {
	st    storage.Store
	count int
}

// NewReader reads reports from a store with count partitions.
func NewReader(st storage.Store, count int) *Reader { return &Reader{st, count} }

// Get returns a report, nil if there is none of that ID.
func (r *Reader) Get(ctx context.Context, id ids.Seq) (*Report, error) {
	rows, err := r.st.Get(ctx, key(r.count, id))
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if rows[0] == nil {
		return nil, nil
	}
	return decode(id, rows[0])
}

// List returns up to limit reports, the newest first: those before the one with
// an ID, or from the last if that is 0.
func (r *Reader) List(ctx context.Context, before ids.Seq, limit int) ([]*Report, error) {
	k := key(r.count, before)
	to := k.Sort
	if before == 0 {
		to = ""
	}
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: k.Partition, Table: k.Table, To: to, Limit: min(max(limit, 1), storage.MaxScan), Reverse: true,
	})
	if err != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	out := make([]*Report, len(rows))
	for i, row := range rows {
		if out[i], err = decode(tables.SortSeq(row.Sort), row.Value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func decode(id ids.Seq, row []byte) (*Report, error) {
	r := &Report{}
	if err := json.Unmarshal(row, r); err != nil {
		return nil, fmt.Errorf("decode report %d: %w", id, err)
	}
	r.ID = id
	return r, nil
}
