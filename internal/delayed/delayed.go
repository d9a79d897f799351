// Package delayed sends events at a later time. spec: MSC4140.
//
// A delayed event is a row in the home partition of its sender. Its ID is random
// and hashes to that partition, so that whoever has the ID alone, as the MSC
// wants it, reaches the row.
//
// # How it is sent exactly once
//
//  1. Claim: the owner of the sender's partition marks the row as being sent, and
//     moves its time on by claimLease. From here on it cannot be cancelled.
//  2. Send: the room's command runs with a transaction that is named after the
//     delay ID. Run again, it gives the event that it made before.
//  3. Finish: the row says what became of it.
//
// Who dies between two of these steps leaves a row that is due again when the
// lease is over, on whichever node owns the partition then.
//
// That others change the state which an event would set is noticed when it is
// looked at, from the chain of that state: a change of state costs nothing more
// because there are delayed events.
//
// Rejected: an effect from the sender's partition to the room's. It arrives
// exactly once by itself, but brings no refusal back to who asked to send now.
package delayed

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// claimLease is how long a claimed event is left alone before it is sent
	// again: much longer than a send takes, and no longer than the MSC lets a
	// server be late.
	claimLease = 30 * time.Second
	// claimLimit bounds the events that one command claims: their contents, at
	// 64 KiB each, stay far below what one command may write.
	claimLimit = 64
	// KeepFinished is how many events that were sent or cancelled a user finds in
	// the list, and keepFinishedFor for how long, as the MSC recommends. Then nothing
	// is left of them.
	KeepFinished    = 100
	keepFinishedFor = 7 * 24 * time.Hour
	// idBytes of chance make an ID that nobody can guess; it is a key to the event.
	idBytes = 18
)

// Status says how far an event is.
type Status string

// The states of an event. They are part of the on-disk format.
const (
	Scheduled Status = "scheduled"
	// Sending: it was claimed, and will be sent unless the room refuses it.
	Sending   Status = "sending"
	Sent      Status = "sent"
	Cancelled Status = "cancelled"
	// Failed: the room refused it when its time had come.
	Failed Status = "failed"
)

// Finalised reports whether nothing more becomes of an event.
func (s Status) Finalised() bool { return s == Sent || s == Cancelled || s == Failed }

// Reason says what finalised an event.
type Reason string

// The reasons. spec: MSC4140 §Getting a list of delayed events.
const (
	ByAction Reason = "action"
	ByDelay  Reason = "delay"
)

// Event is an event to be sent later.
type Event struct {
	ID       string       `json:"id"`
	User     ids.UserID   `json:"user"`
	Device   ids.DeviceID `json:"device,omitempty"`
	Guest    bool         `json:"guest,omitzero"`
	Room     ids.RoomID   `json:"room"`
	Type     string       `json:"type"`
	StateKey *string      `json:"state_key,omitzero"`
	// Content is nil in the row of an event that was sent: the room has it.
	Content jsontext.Value `json:"content,omitzero"`
	// Timestamp is the time that an application service gives the event, in ms
	// since 1970, nil for none.
	Timestamp *int64 `json:"ts,omitzero"`
	// Delay is in ms; Since is when it began to count, in ms since 1970.
	Delay int64 `json:"delay"`
	Since int64 `json:"since"`
	// After is the room's last position when the event was scheduled.
	After  ids.Seq `json:"after"`
	Status Status  `json:"status"`
	// Due is where the event stands in the queue, in ms since 1970: when it is sent, or,
	// once finalised, forgotten.
	Due int64 `json:"due,omitzero"`
	// The rest is about finalised events.
	EventID   ids.EventID    `json:"event_id,omitempty"`
	Error     jsontext.Value `json:"error,omitempty"`
	Finalised int64          `json:"finalised,omitzero"`
	Reason    Reason         `json:"reason,omitempty"`
}

// owned is the row that lists a user's delayed events.
type owned struct {
	// Scheduled are those that are not finalised.
	Scheduled []string `json:"scheduled,omitempty"`
	// Finalised are the others, oldest first.
	Finalised []string `json:"finalised,omitempty"`
}

// Tables are the rows that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.Delayed:   {Keep: true, Decode: decode[Event]},
		tables.DelayedOf: {Keep: true, Decode: decode[owned]},
	}
}

func decode[T any](_ storage.Key, row []byte) (any, error) {
	v := new(T)
	return v, json.Unmarshal(row, v)
}

func put(tx *partition.Tx, k storage.Key, v any) error {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err == nil {
		tx.Put(k, b, v)
	}
	return err
}

func get[T any](tx *partition.Tx, k storage.Key) *T {
	v, _ := tx.Get(k).Obj.(*T)
	return v
}

// place is a partition, with the keys of its rows.
type place ids.Partition

func (p place) event(id string) storage.Key {
	return storage.Key{Partition: ids.Partition(p), Table: tables.Delayed, Entity: id}
}

func (p place) of(u ids.UserID) storage.Key {
	return storage.Key{Partition: ids.Partition(p), Table: tables.DelayedOf, Entity: string(u)}
}

func (p place) due(at int64, id string) storage.Key {
	sort := string(binary.BigEndian.AppendUint64(nil, uint64(at))) + id
	return storage.Key{Partition: ids.Partition(p), Table: tables.DelayedDue, Sort: sort}
}

// dueRow reads the sort key of a row of the queue.
func dueRow(sort string) (at int64, id string) {
	if len(sort) < 8 {
		return 0, ""
	}
	return int64(binary.BigEndian.Uint64([]byte(sort))), sort[8:]
}

// newID returns an ID that hashes to a user's partition. It takes as many
// attempts as there are partitions, each of them a hash of a short string.
func newID(u ids.UserID, count int) string {
	home := ids.PartitionOf(string(u), count)
	for {
		var b [idBytes]byte
		_, _ = rand.Read(b[:]) // never fails
		if id := base64.RawURLEncoding.EncodeToString(b[:]); ids.PartitionOf(id, count) == home {
			return id
		}
	}
}

// validID reports whether an ID could be one of ours.
func validID(id string) bool { return len(id) == base64.RawURLEncoding.EncodedLen(idBytes) }
