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
	if json.Unmarshal(value, r) != nil { // whose text shows what is in the row
		return nil, fmt.Errorf("receipt row: %w", errRow)
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

	at        ids.Seq // of Event, found by Prepare
	elsewhere bool    // Event is not in Thread
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
	r := NewReader(p.Store(), p.Count())
	s, err := r.Event(ctx, c.Room, c.Event)
	if err != nil {
		return err
	}
	c.at, c.elsewhere = 0, false
	if s != nil {
		c.at = s.Seq
	}
	if s != nil && c.Thread != "" {
		in, err := r.inThread(ctx, s, c.Thread)
		if err != nil {
			return err
		}
		c.elsewhere = !in
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
	if c.elsewhere {
		return nil, merr.InvalidParamErr("The event is not in the thread")
	}
	if old := tx.Get(c.key(v.p)).Value; old != nil {
		// One that cannot be read is written anew: nobody's rights rest on it.
		if prev, err := DecodeReceipt(c.key(v.p).Sort, old); err == nil {
			if prev.Seq >= c.at {
				return nil, nil
			}
			tx.Delete(v.p.key(tables.ReceiptLog, tables.SeqSort(prev.Changed)))
		}
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
			if err = r.unreadable(keys[i], err); err != nil {
				return nil, err
			}
			continue
		}
		// One that has moved on since is told of there.
		if rc.Changed == tables.SortSeq(log[len(log)-1-i].Sort) {
			out = append(out, rc)
		}
	}
	return out, nil
}

// ReadMarks is how far a user has read a room. The later of public and private
// receipts counts. spec: client-server §Private read receipts.
type ReadMarks struct {
	// All is up to where everything is read, threads too: the unthreaded receipt.
	All ids.Seq
	// Main is up to where the main timeline is read, at least All.
	Main ids.Seq
}

// threadMain is the main timeline among threads. spec: client-server §Threaded read
// receipts.
const threadMain = "main"

// ReadMarks returns how far a user has read a room.
func (r *Reader) ReadMarks(ctx context.Context, room ids.RoomID, user ids.UserID) (ReadMarks, error) {
	at, err := r.readUpTo(ctx, room, user, "", threadMain)
	if err != nil {
		return ReadMarks{}, err
	}
	return ReadMarks{All: at[0], Main: max(at[0], at[1])}, nil
}

// ReadThreads returns how far a user has read threads by receipts of their own, 0
// for none.
func (r *Reader) ReadThreads(ctx context.Context, room ids.RoomID, user ids.UserID, roots []ids.EventID) (map[ids.EventID]ids.Seq, error) {
	threads := make([]string, len(roots))
	for i, root := range roots {
		threads[i] = string(root)
	}
	at, err := r.readUpTo(ctx, room, user, threads...)
	if err != nil {
		return nil, err
	}
	out := make(map[ids.EventID]ids.Seq, len(roots))
	for i, root := range roots {
		out[root] = at[i]
	}
	return out, nil
}

// HasRead reports whether a user has read an event, by the receipts that count where
// it is: in the main timeline or in a thread.
func (r *Reader) HasRead(ctx context.Context, user ids.UserID, e *Stored) (bool, error) {
	thread := threadMain
	if e.Thread != "" {
		thread = string(e.Thread)
	}
	at, err := r.readUpTo(ctx, e.RoomID, user, "", thread)
	if err != nil {
		return false, err
	}
	return max(at[0], at[1]) >= e.Seq, nil
}

// readUpTo returns the positions of a user's receipts of several threads.
func (r *Reader) readUpTo(ctx context.Context, room ids.RoomID, user ids.UserID, threads ...string) ([]ids.Seq, error) {
	p := r.Place(room)
	keys := make([]storage.Key, 0, 2*len(threads))
	for _, thread := range threads {
		for _, typ := range [...]string{ReceiptRead, ReceiptReadPrivate} {
			keys = append(keys, p.key(tables.Receipt, partition.JoinSort(typ, thread, string(user))))
		}
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read receipts: %w", err)
	}
	out := make([]ids.Seq, len(threads))
	for i, row := range rows {
		if row == nil {
			continue
		}
		rc, err := DecodeReceipt(keys[i].Sort, row)
		if err != nil {
			if err = r.unreadable(keys[i], err); err != nil {
				return nil, err
			}
			continue
		}
		out[i/2] = max(out[i/2], rc.Seq)
	}
	return out, nil
}

// inThread reports whether an event may be read by a receipt of a thread: it is in
// it, or the thread's root, or relates to that. spec: client-server §POST
// /rooms/{roomId}/receipt, thread_id.
func (r *Reader) inThread(ctx context.Context, s *Stored, thread string) (bool, error) {
	if thread == threadMain {
		return s.Thread == "", nil
	}
	for range RelationDepth {
		if string(s.Thread) == thread || string(s.ID) == thread {
			return true, nil
		}
		up, ok := event.RelationOf(s.Content)
		if !ok {
			return false, nil
		}
		parent, err := r.Event(ctx, s.RoomID, up.Parent)
		if err != nil || parent == nil {
			return false, err
		}
		s = parent
	}
	return string(s.ID) == thread, nil
}
