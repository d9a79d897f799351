package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// ErrOtherEpoch: something was to be written on behalf of an owner that is not, or no
// longer, the owner.
var ErrOtherEpoch = errors.New("partition: of another epoch")

// Limits of the log.
const (
	// logKeep is how many positions of the log stay readable; feeds that are
	// further behind start from the tables of their rooms and users.
	logKeep = 1 << 20
	// logKeepMax is how many positions stay readable for a consumer that has not
	// handled them yet: hours of a busy partition, some hundred MiB of a disk. One
	// that is still further behind is told that it missed some.
	logKeepMax = 4 * logKeep
	// logTrimEvery is how many positions pass between two trims of the log.
	logTrimEvery = 1 << 14
)

func cursorKey(p ids.Partition, consumer string) storage.Key {
	return storage.Key{Partition: p, Table: tables.ConsumerCursor, Sort: consumer}
}

// OpenCursor makes the cursor of a consumer if there is none, and gives its
// position (an ids.Seq): all up to it has been handled.
type OpenCursor struct {
	Consumer string
	P        ids.Partition
	Epoch    ids.Epoch
	// AtHead lets a new cursor stand at the end of the log, otherwise it stands
	// before the beginning.
	AtHead bool
}

// SaveCursor moves the cursor of a consumer, never back.
type SaveCursor struct {
	Consumer string
	P        ids.Partition
	Epoch    ids.Epoch
	To       ids.Seq
}

// DropCursor forgets a consumer, so that the log is not kept for it.
type DropCursor struct {
	Consumer string
	P        ids.Partition
}

var (
	_ Command = OpenCursor{}
	_ Command = SaveCursor{}
	_ Command = DropCursor{}
)

// Name implements Command.
func (OpenCursor) Name() string { return "open_cursor" }

// Partition implements Command.
func (c OpenCursor) Partition(int) ids.Partition { return c.P }

// Prepare implements Command.
func (c OpenCursor) Prepare(ctx context.Context, p *Prep) error {
	return p.Pin(ctx, cursorKey(c.P, c.Consumer))
}

// Apply implements Command.
func (c OpenCursor) Apply(tx *Tx) (any, error) {
	if tx.owner.opts.Epoch != c.Epoch {
		return nil, ErrOtherEpoch
	}
	k := cursorKey(c.P, c.Consumer)
	if v := tx.Get(k).Value; v != nil {
		return decodeCursor(v), nil
	}
	var at ids.Seq
	if c.AtHead {
		at = tx.NextSeq() - 1
	}
	tx.putCursor(k, at)
	return at, nil
}

// Name implements Command.
func (SaveCursor) Name() string { return "save_cursor" }

// Partition implements Command.
func (c SaveCursor) Partition(int) ids.Partition { return c.P }

// Prepare implements Command.
func (c SaveCursor) Prepare(ctx context.Context, p *Prep) error {
	return p.Pin(ctx, cursorKey(c.P, c.Consumer))
}

// Apply implements Command. A cursor that is not there was dropped, and stays so.
func (c SaveCursor) Apply(tx *Tx) (any, error) {
	if tx.owner.opts.Epoch != c.Epoch {
		return nil, ErrOtherEpoch
	}
	k := cursorKey(c.P, c.Consumer)
	if v := tx.Get(k).Value; v != nil && decodeCursor(v) < c.To {
		tx.putCursor(k, c.To)
	}
	return nil, nil
}

// Name implements Command.
func (DropCursor) Name() string { return "drop_cursor" }

// Partition implements Command.
func (c DropCursor) Partition(int) ids.Partition { return c.P }

// Prepare implements Command.
func (c DropCursor) Prepare(ctx context.Context, p *Prep) error {
	return p.Pin(ctx, cursorKey(c.P, c.Consumer))
}

// Apply implements Command.
func (c DropCursor) Apply(tx *Tx) (any, error) {
	tx.Delete(cursorKey(c.P, c.Consumer))
	delete(tx.owner.batch.cursors, c.Consumer)
	return nil, nil
}

// putCursor stores a cursor and tells the loop. Should the command be undone or
// the commit fail, the loop knows a cursor that is ahead: the first cannot be for
// so small a row, and after the second the owner is gone.
func (tx *Tx) putCursor(k storage.Key, at ids.Seq) {
	tx.Put(k, binary.BigEndian.AppendUint64(nil, uint64(at)), nil)
	tx.owner.batch.cursors[k.Sort] = at
}

func decodeCursor(v []byte) ids.Seq {
	if len(v) != 8 {
		return 0
	}
	return ids.Seq(binary.BigEndian.Uint64(v))
}

// loadCursors reads the cursors of a partition's consumers.
func loadCursors(ctx context.Context, st storage.Store, p ids.Partition) (map[string]ids.Seq, error) {
	rows, err := st.Scan(ctx, storage.Range{Partition: p, Table: tables.ConsumerCursor, Limit: storage.MaxScan})
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	at := make(map[string]ids.Seq, len(rows))
	for _, row := range rows {
		at[row.Sort] = decodeCursor(row.Value)
	}
	return at, nil
}

// trimPoint says up to where, not including, the log can go when it ends at last,
// and which consumers have not handled all that goes.
func trimPoint(last ids.Seq, cursors map[string]ids.Seq) (to ids.Seq, late []string) {
	if last <= logKeep {
		return 0, nil
	}
	to = last - logKeep
	for _, at := range cursors {
		to = min(to, at)
	}
	if last <= logKeepMax || to >= last-logKeepMax {
		return to, nil
	}
	to = last - logKeepMax
	for name, at := range cursors {
		if at < to {
			late = append(late, name)
		}
	}
	return to, late
}

// trim adds the removal of the old end of the log to the batch.
func (o *Owner) trim(last ids.Seq) {
	b := &o.batch
	if last < b.trimmed+logTrimEvery {
		return
	}
	b.trimmed = last
	to, late := trimPoint(last, b.cursors)
	if to == 0 {
		return
	}
	for _, name := range late {
		o.opts.Metrics.trimmedUnread()
		o.opts.logger().Error("log trimmed before a consumer handled it", "consumer", name, "cursor", b.cursors[name], "to", to)
	}
	// From where the last trim ended: ranges that begin at one place overlap, and
	// what a store makes of them grows with their square.
	from := storage.Key{Partition: o.opts.Partition, Table: tables.Log}
	if b.logStart > 0 {
		from.Sort = tables.SeqSort(b.logStart)
	}
	b.storage.DeleteRange(from, tables.SeqSort(to))
	b.logStart = max(b.logStart, to)
}

// LogStart returns the first position behind after that the log still has, and that
// can be read; that behind its end if it has none. It is 0 if the log is empty.
func LogStart(ctx context.Context, st storage.Store, p ids.Partition, after ids.Seq) (ids.Seq, error) {
	start := ids.Seq(0)
	for {
		rows, err := st.Scan(ctx, storage.Range{Partition: p, Table: tables.Log, From: tables.SeqSort(after + 1), Limit: 1})
		if err != nil || len(rows) == 0 {
			return start, err
		}
		if b, ok := readBatch(p, rows[0]); ok {
			return max(b.First, start), nil
		}
		after = tables.SortSeq(rows[0].Sort)
		start = after + 1
	}
}
