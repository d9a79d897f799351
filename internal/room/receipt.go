package room

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// The types of receipts. spec: client-server §Receipts.
const (
	ReceiptRead        = "m.read"
	ReceiptReadPrivate = "m.read.private"
)

// Receipt is how far a user has read a room, or one of its threads.
type Receipt struct {
	Type string `json:"-"`
	// Thread is "" for an unthreaded receipt, "main", or a thread's root.
	Thread string      `json:"-"`
	User   ids.UserID  `json:"-"`
	Event  ids.EventID `json:"event_id"`
	// TS is in ms since 1970.
	TS int64 `json:"ts"`
	// Seq is the position of the event, Changed that of the receipt itself.
	Seq     ids.Seq `json:"seq"`
	Changed ids.Seq `json:"changed"`
}

func (r *Receipt) sort() string { return partition.JoinSort(r.Type, r.Thread, string(r.User)) }

// DecodeReceipt reads a Receipt row.
func DecodeReceipt(sort string, value []byte) (*Receipt, error) {
	r := &Receipt{}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("receipt row: %w", err)
	}
	var user string
	r.Type, user, _ = strings.Cut(sort, "\x00")
	r.Thread, user, _ = strings.Cut(user, "\x00")
	r.User = ids.UserID(user)
	return r, nil
}

// SetReceipt moves a receipt forward. One that would go back is ignored.
type SetReceipt struct {
	Room   ids.RoomID
	User   ids.UserID
	Type   string
	Thread string
	Event  ids.EventID

	at ids.Seq // of Event, found by Prepare
}

var _ partition.Command = (*SetReceipt)(nil)

// Name implements partition.Command.
func (c *SetReceipt) Name() string { return "set_receipt" }

// Partition implements partition.Command.
func (c *SetReceipt) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Room), count)
}

func (c *SetReceipt) key(pl Place) storage.Key {
	return pl.key(tables.Receipt, partition.JoinSort(c.Type, c.Thread, string(c.User)))
}

// Prepare implements partition.Command.
func (c *SetReceipt) Prepare(ctx context.Context, p *partition.Prep) error {
	if strings.IndexByte(c.Type+c.Thread, 0) >= 0 {
		return merr.InvalidParamErr("Type and thread of a receipt may not hold NUL")
	}
	s, err := NewReader(p.Store(), p.Count()).Event(ctx, c.Room, c.Event)
	if err != nil {
		return err
	}
	if s != nil {
		c.at = s.Seq
	}
	pl := Place{p.Partition(), c.Room}
	return p.Pin(ctx, pl.head(), pl.state(event.TypeMember, string(c.User)), c.key(pl))
}

// Apply implements partition.Command.
func (c *SetReceipt) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	head := v.head()
	if head == nil || roomstate.Membership(v, c.User) != event.Join {
		return nil, errUnknownRoom()
	}
	if c.at == 0 {
		return nil, merr.NotFoundErr("The event is not in this room")
	}
	if old := tx.Get(c.key(v.p)).Value; old != nil {
		prev, err := DecodeReceipt(c.key(v.p).Sort, old)
		if err != nil {
			return nil, err
		}
		if prev.Seq >= c.at {
			return nil, nil
		}
		tx.Delete(v.p.key(tables.ReceiptLog, tables.SeqSort(prev.Changed)))
	}
	r := &Receipt{
		Type: c.Type, Thread: c.Thread, User: c.User, Event: c.Event,
		TS: tx.Now, Seq: c.at, Changed: tx.NextSeq(),
	}
	row, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode receipt: %w", err)
	}
	tx.Put(c.key(v.p), row, nil)
	tx.Put(v.p.key(tables.ReceiptLog, tables.SeqSort(r.Changed)), []byte(r.sort()), nil)
	tx.Emit(partition.Record{
		Kind: partition.RecordReceipt, Entity: string(c.Room), Data: []byte(r.sort()), Body: row, Obj: r,
	})
	next := *head
	next.LastReceipt = r.Changed
	tx.Put(v.p.head(), next.encode(), &next)
	return nil, nil
}

// Receipts returns the receipts of a room that changed above after and up to upTo,
// oldest change first, at most limit of them, the newest if there are more.
func (r *Reader) Receipts(ctx context.Context, room ids.RoomID, after, upTo ids.Seq, limit int) ([]*Receipt, error) {
	if upTo <= after {
		return nil, nil
	}
	p := r.Place(room)
	log, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.ReceiptLog, Entity: string(room),
		From: tables.SeqSort(after + 1), To: tables.SeqSort(upTo + 1), Limit: limit, Reverse: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	keys := make([]storage.Key, len(log))
	for i, row := range log {
		keys[len(log)-1-i] = p.key(tables.Receipt, string(row.Value))
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	out := make([]*Receipt, 0, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		rc, err := DecodeReceipt(keys[i].Sort, row)
		if err != nil {
			return nil, err
		}
		out = append(out, rc)
	}
	return out, nil
}

// ReadUpTo returns the position up to which a user has read a room: the later of
// their public and private unthreaded receipts and those of the main timeline.
func (r *Reader) ReadUpTo(ctx context.Context, room ids.RoomID, user ids.UserID) (ids.Seq, error) {
	p := r.Place(room)
	var keys []storage.Key
	for _, typ := range [...]string{ReceiptRead, ReceiptReadPrivate} {
		for _, thread := range [...]string{"", "main"} {
			keys = append(keys, p.key(tables.Receipt, partition.JoinSort(typ, thread, string(user))))
		}
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return 0, fmt.Errorf("read receipts: %w", err)
	}
	var at ids.Seq
	for i, row := range rows {
		if row == nil {
			continue
		}
		rc, err := DecodeReceipt(keys[i].Sort, row)
		if err != nil {
			return 0, err
		}
		at = max(at, rc.Seq)
	}
	return at, nil
}
