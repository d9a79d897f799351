package partition

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// ErrNotPinned is a broken invariant: Apply looked at a row that Prepare had not
// pinned.
var ErrNotPinned = errors.New("partition: row not pinned")

// Prep is what Prepare gets: reads of committed data, and pins.
type Prep struct {
	owner *Owner
	task  *task
}

// Partition is the partition the command runs in.
func (p *Prep) Partition() ids.Partition { return p.owner.opts.Partition }

// Count is the number of partitions of the deployment.
func (p *Prep) Count() int { return p.owner.opts.Count }

// Store reads committed data of any partition. What it shows may be overtaken
// before Apply runs, which must therefore check again what it can see in pins.
func (p *Prep) Store() storage.Store { return p.owner.opts.Store }

// Pin brings rows of the partition into memory and keeps them there until the
// command is done. Their tables are in Options.Tables.
func (p *Prep) Pin(ctx context.Context, keys ...storage.Key) error {
	for _, k := range keys {
		if _, ok := p.owner.opts.Tables[k.Table]; !ok || k.Partition != p.owner.opts.Partition {
			return fmt.Errorf("pin table %d of partition %d: %w", k.Table, k.Partition, ErrNotPinned)
		}
		if err := k.Check(); err != nil {
			return merr.InvalidParamErr("A name in the request is too long").Because(err)
		}
	}
	rows, err := p.owner.rows.pin(ctx, keys)
	if err != nil {
		return fmt.Errorf("pin rows: %w", err)
	}
	p.task.pins = append(p.task.pins, rows...)
	return nil
}

// Fresh declares that an entity is new: every row of it that is not pinned is
// absent. The caller pins one row that would exist if the entity did, and Apply
// checks it.
func (p *Prep) Fresh(entity string) { p.task.fresh = entity }

// write is a row that a command set or, if ranged, the removal of the rows from
// key up to end.
type write struct {
	key    storage.Key
	row    Row
	end    string
	ranged bool
}

// covers reports whether the write says what stands at a key.
func (w *write) covers(k storage.Key) bool {
	if !w.ranged {
		return w.key == k
	}
	return k.Table == w.key.Table && k.Entity == w.key.Entity &&
		k.Sort >= w.key.Sort && (w.end == "" || k.Sort < w.end)
}

// Effect is a consequence in another partition.
type Effect struct {
	// Dest is where it is applied; Kind selects the handler there.
	Dest    ids.Partition
	Kind    string
	Payload []byte

	// Origin, Seq and Index say where it comes from; they are set by the engine.
	Origin ids.Partition
	Seq    ids.Seq
	Index  uint16
}

// Tx is what Apply gets. It is valid during the call only.
type Tx struct {
	// Now is the time of the command in ms since 1970.
	Now int64

	owner  *Owner
	task   *task
	batch  *storage.Batch
	next   ids.Seq
	writes []write
	// records are those of the whole batch; from own on they are the command's.
	records []Record
	own     int
	effects []Effect
	bytes   int
}

// Partition is the partition the command runs in.
func (tx *Tx) Partition() ids.Partition { return tx.owner.opts.Partition }

// Epoch is the epoch of the owner that runs the command.
func (tx *Tx) Epoch() ids.Epoch { return tx.owner.opts.Epoch }

// Count is the number of partitions of the deployment.
func (tx *Tx) Count() int { return tx.owner.opts.Count }

// Get returns a pinned row as the commands before, and this one, have left it.
// A row that is not pinned is a broken invariant and panics.
func (tx *Tx) Get(k storage.Key) Row {
	for i := len(tx.writes) - 1; i >= 0; i-- {
		if tx.writes[i].covers(k) {
			return tx.writes[i].row
		}
	}
	for _, r := range tx.task.pins {
		if r.key == k {
			return r.Row
		}
	}
	if tx.task.fresh != "" && k.Entity == tx.task.fresh {
		return Row{}
	}
	panic(fmt.Errorf("table %d of %s: %w", k.Table, tx.task.cmd.Name(), ErrNotPinned))
}

// Put sets a row. value and obj, its decoded form, must not be changed afterwards.
func (tx *Tx) Put(k storage.Key, value []byte, obj any) {
	tx.PutNew(k, value)
	if _, ok := tx.owner.opts.Tables[k.Table]; ok {
		tx.writes = append(tx.writes, write{key: k, row: Row{value, obj}})
	}
}

// Insert is Put of a row of which the command knows that it is not there.
func (tx *Tx) Insert(k storage.Key, value []byte, obj any) {
	tx.Put(k, value, obj)
	tx.batch.Ops[len(tx.batch.Ops)-1].New = true
}

// PutNew sets a row that nobody can know of before it is committed, since its
// key holds a position given out by this Tx. It is Put without the cost of
// showing the row to other commands of the batch.
func (tx *Tx) PutNew(k storage.Key, value []byte) {
	tx.batch.Put(k, value)
	tx.bytes += len(value) + len(k.Entity) + len(k.Sort)
}

// Delete removes a row.
func (tx *Tx) Delete(k storage.Key) {
	tx.batch.Delete(k)
	tx.bytes += len(k.Entity) + len(k.Sort)
	if _, ok := tx.owner.opts.Tables[k.Table]; ok {
		tx.writes = append(tx.writes, write{key: k})
	}
}

// DeletePrefix removes the rows of from's entity whose sort keys begin with
// from.Sort. Rows in memory are removed too.
func (tx *Tx) DeletePrefix(from storage.Key) {
	tx.DeleteRange(from, PrefixEnd(from.Sort))
}

// DeleteRange removes the rows of from's entity from from up to, not including,
// the sort key to ("" for all the rest). Rows in memory are removed too.
func (tx *Tx) DeleteRange(from storage.Key, to string) {
	tx.batch.DeleteRange(from, to)
	tx.bytes += len(from.Entity) + len(from.Sort) + len(to)
	if _, ok := tx.owner.opts.Tables[from.Table]; ok {
		tx.writes = append(tx.writes, write{key: from, end: to, ranged: true})
	}
}

// PrefixEnd returns the first key behind all keys with a prefix, "" if there is
// none.
func PrefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// NextSeq is the position that the next record will have.
func (tx *Tx) NextSeq() ids.Seq { return tx.next }

// Emit appends a record to the log and returns its position.
func (tx *Tx) Emit(r Record) ids.Seq {
	r.Seq = tx.next
	tx.next++
	tx.records = append(tx.records, r)
	tx.bytes += len(r.Entity) + len(r.Data)
	return r.Seq
}

// Effect sends a consequence to the partition of entity. The caller of the
// command is answered when it has been applied. An effect may have effects of its
// own, which nobody waits for.
func (tx *Tx) Effect(entity, kind string, payload []byte) {
	if len(tx.records) == tx.own {
		// An effect is numbered by a record: the log, not the outbox, remembers
		// the highest number given out.
		tx.Emit(Record{Kind: RecordEffect})
	}
	tx.bytes += len(kind) + len(payload)
	tx.effects = append(tx.effects, Effect{
		Dest: ids.PartitionOf(entity, tx.owner.opts.Count), Kind: kind, Payload: payload,
		Origin: tx.owner.opts.Partition, Seq: tx.next - 1, Index: uint16(len(tx.effects)),
	})
}

// mark is a point in a command that undo can go back to.
type mark struct {
	ops, writes, records, effects, bytes int
	next                                 ids.Seq
}

func (tx *Tx) mark() mark {
	return mark{len(tx.batch.Ops), len(tx.writes), len(tx.records), len(tx.effects), tx.bytes, tx.next}
}

// undo takes back what was done since the mark.
func (tx *Tx) undo(m mark) {
	clear(tx.batch.Ops[m.ops:])
	clear(tx.writes[m.writes:])
	clear(tx.records[m.records:])
	clear(tx.effects[m.effects:])
	tx.batch.Ops = tx.batch.Ops[:m.ops]
	tx.writes, tx.records, tx.effects = tx.writes[:m.writes], tx.records[:m.records], tx.effects[:m.effects]
	tx.bytes, tx.next = m.bytes, m.next
}

// check reports whether the store can take what the command wrote, so that one
// command cannot make the commit of a whole batch fail.
func (tx *Tx) check(m mark) error {
	if tx.bytes > maxCommandBytes {
		return merr.TooLargeErr("The request changes too much at once")
	}
	own := storage.Batch{Ops: tx.batch.Ops[m.ops:]}
	if err := own.Check(tx.Partition()); err != nil {
		return merr.InvalidParamErr("A part of the request is too long").Because(err)
	}
	return nil
}

// JoinSort joins parts of a sort key with NUL bytes, which no part but the last
// may hold.
func JoinSort(parts ...string) string { return strings.Join(parts, "\x00") }
