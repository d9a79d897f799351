// Package room holds rooms as they are stored: the commands that change them,
// run by the owner of the room's partition, and the Reader that shows them.
//
// The rules themselves are in roomstate; this package gives them the rows they
// need, and turns an event that they made into rows, a log record, and effects
// for the users whose membership changed.
//
// Invariants: the rows of one event are written in one batch; RoomHead names the
// last event of the chain; a State row is a copy of the Timeline row it came
// from; the Replaces chain of state events leads through the whole history of a
// piece of state.
package room

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Tables are the rows of rooms that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.DeviceList: {},
		tables.RoomHead: {Keep: true, Decode: decoding(func(k storage.Key, v []byte) (any, error) {
			return decodeHead(ids.RoomID(k.Entity), v)
		})},
		tables.State:     {Keep: true, Decode: decoding(decodeStoredRow)},
		tables.Timeline:  {Decode: decoding(decodeStoredRow)},
		tables.Txn:       {},
		tables.TxnIndex:  {Keep: true, Collect: collectTxns},
		tables.Receipt:   {},
		tables.Alias:     {},
		tables.RoomWatch: {},

		tables.RelationCount: {Keep: true, Decode: decoding(decodeRelCount)},
		tables.Annotation:    {},
		tables.Erased:        {},
		tables.ThreadMember:  {},
	}
}

func decodeStoredRow(k storage.Key, v []byte) (any, error) {
	return decodeAt(k, v)
}

// errUnknownRoom is what a command on a room that does not exist gives. It does
// not tell an unknown room from one that is none of the caller's business.
func errUnknownRoom() error { return merr.ForbiddenErr("You are not in this room") }

// Place locates the rows of a room.
type Place struct {
	Partition ids.Partition
	Room      ids.RoomID
}

// PlaceOf returns the place of a room in a deployment of count partitions.
func PlaceOf(room ids.RoomID, count int) Place {
	return Place{ids.PartitionOf(string(room), count), room}
}

func (p Place) key(t storage.Table, sort string) storage.Key {
	return storage.Key{Partition: p.Partition, Table: t, Entity: string(p.Room), Sort: sort}
}

func (p Place) head() storage.Key { return p.key(tables.RoomHead, "") }

func (p Place) state(eventType, stateKey string) storage.Key {
	return p.key(tables.State, stateSort(eventType, stateKey))
}

func (p Place) timeline(s ids.Seq) storage.Key { return p.key(tables.Timeline, tables.SeqSort(s)) }

// eventIndex reports false for an ID that no event of this server can have.
func (p Place) eventIndex(id ids.EventID) (storage.Key, bool) {
	var scratch [hashSize]byte
	hash, ok := appendHash(scratch[:0], id)
	return p.key(tables.EventIndex, string(hash)), ok
}

// indexOf is the row of the index that leads to an event, false for one whose ID does.
func (p Place) indexOf(s *Stored) (storage.Key, bool) {
	if event.Position(s.ID) == s.Seq {
		return storage.Key{}, false
	}
	return p.eventIndex(s.ID)
}

// stateSort is the sort key of a piece of state.
func stateSort(eventType, stateKey string) string {
	if sort, ok := onceSorts[eventType]; ok && stateKey == "" {
		return sort
	}
	return partition.JoinSort(eventType, stateKey)
}

// onceSorts are the sort keys of what each event is authorized by and a room has once,
// joined once.
var onceSorts = func() map[string]string {
	sorts := make(map[string]string)
	for _, t := range []string{event.TypeCreate, event.TypePowerLevels, event.TypeJoinRules} {
		sorts[t] = partition.JoinSort(t, "")
	}
	return sorts
}()

// appendHash appends the bytes an event ID stands for.
func appendHash(dst []byte, id ids.EventID) ([]byte, bool) {
	if len(id) != 44 {
		return dst, false
	}
	dst, err := base64.RawURLEncoding.AppendDecode(dst, []byte(id[1:]))
	return dst, err == nil
}

// Head is a room's first row: the end of its chain, and what is counted.
type Head struct {
	roomstate.Head
	// Creator is the sender of the create event.
	Creator ids.UserID
	// Last is the position of the last event, LastReceipt of the last change
	// of a receipt, LastDevices of the last change of a member's devices.
	Last, LastReceipt, LastDevices ids.Seq
	// Joined and Invited count the members.
	Joined, Invited int
	// Public: the room is in the directory.
	Public bool
	// Erased counts the members whose events are hidden from those who came later.
	Erased int
	// Purged is up to where the history was removed, 0 if it is whole, and
	// PurgedEvent the event that stood there: the next one is linked to it.
	Purged      ids.Seq
	PurgedEvent ids.EventID
	// Lifetime is what the room says of how long events are kept, in ms; 0 for
	// nothing.
	Lifetime int64
}

const headFormat = 1

func (h *Head) encode() []byte {
	b := append(make([]byte, 0, 160), headFormat)
	b = appendString(b, h.Version.ID)
	b = appendString(b, string(h.LastEvent))
	b = binary.AppendUvarint(b, uint64(h.Depth))
	b = appendString(b, string(h.Creator))
	for _, n := range []uint64{uint64(h.Last), uint64(h.LastReceipt), uint64(h.Joined), uint64(h.Invited)} {
		b = binary.AppendUvarint(b, n)
	}
	public := byte(0)
	if h.Public {
		public = 1
	}
	b = binary.AppendUvarint(append(b, public), uint64(h.LastDevices))
	purged := h.Purged != 0 || h.PurgedEvent != "" || h.Lifetime != 0
	if h.Erased != 0 || purged {
		b = binary.AppendUvarint(b, uint64(h.Erased))
	}
	if purged {
		b = binary.AppendUvarint(b, uint64(h.Purged))
		b = appendString(b, string(h.PurgedEvent))
		b = binary.AppendUvarint(b, uint64(h.Lifetime))
	}
	return b
}

func decodeHead(room ids.RoomID, b []byte) (*Head, error) {
	r := rowReader{s: string(b)}
	if f := r.byte(); f != headFormat {
		return nil, fmt.Errorf("room head: format %d: %w", f, errRow)
	}
	h := &Head{}
	h.RoomID = room
	v, ok := event.Lookup(r.str())
	h.Version = v
	h.LastEvent = ids.EventID(r.str())
	h.Depth = int64(r.uvarint())
	h.Creator = ids.UserID(r.str())
	h.Last, h.LastReceipt = ids.Seq(r.uvarint()), ids.Seq(r.uvarint())
	h.Joined, h.Invited = int(r.uvarint()), int(r.uvarint())
	h.Public = r.byte() == 1
	if r.s != "" { // a row written before this was kept ends here
		h.LastDevices = ids.Seq(r.uvarint())
	}
	if r.s != "" {
		h.Erased = int(r.uvarint())
	}
	if r.s != "" { // else the history is whole
		h.Purged, h.PurgedEvent = ids.Seq(r.uvarint()), ids.EventID(r.str())
	}
	if r.s != "" {
		h.Lifetime = int64(r.uvarint())
	}
	if r.err != nil || !ok {
		return nil, fmt.Errorf("room head: %w", errRow)
	}
	return h, nil
}

var errRow = errors.New("room: malformed row")

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// rowReader reads a row; all strings it gives share the row's memory.
type rowReader struct {
	s   string
	err error
}

func (r *rowReader) byte() byte {
	if r.s == "" {
		r.err = errRow
		return 0
	}
	c := r.s[0]
	r.s = r.s[1:]
	return c
}

func (r *rowReader) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		v |= uint64(r.s[i]&0x7f) << (7 * i)
		if r.s[i] < 0x80 {
			r.s = r.s[i+1:]
			return v
		}
	}
	r.s, r.err = "", errRow
	return 0
}

func (r *rowReader) str() string { return r.take(r.uvarint()) }

func (r *rowReader) take(n uint64) string {
	if n > uint64(len(r.s)) {
		r.s, r.err = "", errRow
		return ""
	}
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}
