package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// RecordKind says what a log record is about. The numbers are part of the
// on-disk format.
type RecordKind uint8

// The kinds of records.
const (
	// RecordEvent: an event of a room; its bytes stand in Timeline at (Entity, Seq).
	RecordEvent RecordKind = 1
	// RecordReceipt: a receipt; Data is the sort key of its Receipt row.
	RecordReceipt RecordKind = 2
	// RecordUser: something changed for a user; Data is the Stream row.
	RecordUser RecordKind = 3
	// RecordEffect: nothing but effects; takes a position, says nothing.
	RecordEffect RecordKind = 4
	// RecordAlias: an alias of a room was added or removed; Data is the alias.
	RecordAlias RecordKind = 6
	// RecordTrimmed: the history of the room Entity was cut; Data is the position up
	// to which.
	RecordTrimmed RecordKind = 7
	// RecordDevices: the devices of a user changed; Entity is a room that
	// others share with the user, Data the user ID.
	RecordDevices RecordKind = 5
	// RecordPush: there is something to send to the pushers of a user, Entity;
	// Data is read by package account.
	RecordPush RecordKind = 16
	// RecordWatch: the room Entity lists a user, Data, as watching.
	RecordWatch RecordKind = 17
)

// Record is one entry of a partition's log.
type Record struct {
	Seq    ids.Seq
	Kind   RecordKind
	Entity string
	Data   []byte
	// Body and Obj travel with the published batch and are not stored with the
	// log: the bytes of a row that stands elsewhere, and its decoded form.
	Body []byte
	Obj  any
}

// Published is a committed batch as subscribers receive it.
type Published struct {
	Partition ids.Partition
	Epoch     ids.Epoch
	// First and Last are the positions of the batch.
	First, Last ids.Seq
	Records     []Record
}

var _ bus.Payload = (*Published)(nil)

// Subject is the bus subject of a partition's committed batches.
func Subject(p ids.Partition) string { return fmt.Sprintf("log.%d", p) }

// MarshalBinary encodes the batch with the bodies of its records.
func (p *Published) MarshalBinary() ([]byte, error) {
	b := binary.AppendUvarint(nil, uint64(p.Partition))
	b = binary.AppendUvarint(b, uint64(p.Epoch))
	b = appendRecords(b, p.First, p.Records, true)
	return b, nil
}

// UnmarshalPublished decodes what MarshalBinary encoded.
func UnmarshalPublished(b []byte) (*Published, error) {
	d := decoder{b: b}
	p := &Published{Partition: ids.Partition(d.uvarint()), Epoch: ids.Epoch(d.uvarint())}
	p.First, p.Records = d.records(true)
	if d.err != nil {
		return nil, fmt.Errorf("decode published batch: %w", d.err)
	}
	p.Last = p.First + ids.Seq(len(p.Records)) - 1
	return p, nil
}

func appendRecords(b []byte, first ids.Seq, records []Record, bodies bool) []byte {
	b = binary.AppendUvarint(b, uint64(first))
	b = binary.AppendUvarint(b, uint64(len(records)))
	for i := range records {
		r := &records[i]
		b = append(b, byte(r.Kind))
		b = appendString(b, r.Entity)
		b = appendString(b, string(r.Data))
		if bodies {
			b = appendString(b, string(r.Body))
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

var errTruncated = errors.New("truncated")

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err, d.b = errTruncated, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.err = errTruncated
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.err, d.b = errTruncated, nil
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) records(bodies bool) (ids.Seq, []Record) {
	first, n := ids.Seq(d.uvarint()), d.uvarint()
	if n > uint64(len(d.b)) { // a record has at least a byte
		d.err = errTruncated
		return 0, nil
	}
	records := make([]Record, n)
	for i := range records {
		r := &records[i]
		r.Seq, r.Kind, r.Entity, r.Data = first+ids.Seq(i), RecordKind(d.byte()), string(d.bytes()), d.bytes()
		if bodies {
			r.Body = d.bytes()
		}
	}
	return first, records
}

// ErrTrimmed: the log no longer goes back to the position asked for.
var ErrTrimmed = errors.New("partition: log trimmed")

// ReadLog returns committed batches with positions above after, oldest first, up
// to limit batches. Records carry no Body. ErrTrimmed if there is a gap behind after,
// which is also what a batch leaves that cannot be read.
func ReadLog(ctx context.Context, st storage.Store, p ids.Partition, after ids.Seq, limit int) ([]*Published, error) {
	rows, err := st.Scan(ctx, storage.Range{Partition: p, Table: tables.Log, From: tables.SeqSort(after + 1), Limit: limit})
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	out := make([]*Published, 0, len(rows))
	for _, row := range rows {
		b, ok := readBatch(p, row)
		if !ok {
			if len(out) == 0 {
				return nil, ErrTrimmed
			}
			break // who goes on behind what is whole is told
		}
		out = append(out, b)
	}
	if len(out) > 0 && out[0].First > after+1 {
		return nil, ErrTrimmed
	}
	return out, nil
}

// readBatch decodes a row of the log; ok is false for one that is damaged.
func readBatch(p ids.Partition, row storage.Entry) (b *Published, ok bool) {
	d := decoder{b: row.Value}
	first, records := d.records(false)
	b = &Published{Partition: p, First: first, Last: tables.SortSeq(row.Sort), Records: records}
	return b, d.err == nil && first+ids.Seq(len(records)) == b.Last+1
}

// Head returns the last committed position of a partition, from the store.
func Head(ctx context.Context, st storage.Store, p ids.Partition) (ids.Seq, error) {
	heads, err := Heads(ctx, st, p)
	if err != nil {
		return 0, err
	}
	return heads[0], nil
}

// Heads returns the last committed positions of partitions, from the store.
func Heads(ctx context.Context, st storage.Store, ps ...ids.Partition) ([]ids.Seq, error) {
	last, err := storage.Last(ctx, st, tables.Log, "", ps...)
	if err != nil {
		return nil, fmt.Errorf("read log heads: %w", err)
	}
	heads := make([]ids.Seq, len(ps))
	for i, sort := range last {
		if sort != "" {
			heads[i] = tables.SortSeq(sort)
		}
	}
	return heads, nil
}
