package appservice

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// maxItems and maxBytes bound one transaction: what a bridge works off before
	// it has to answer. An item may be as large as an event.
	maxItems = 100
	maxBytes = 512 << 10
)

// draft is a transaction in the making. spec: application-service
// §PUT /_matrix/app/v1/transactions/{txnId}; MSC2409, MSC3202 for what is not in
// the specification yet.
type draft struct {
	events, ephemeral, toDevice []jsontext.Value
	// changed are users whose devices changed.
	changed []ids.UserID
	// keys are the devices whose one-time or fallback keys changed.
	keys map[ids.UserID]map[ids.DeviceID]*account.KeyState
	// inboxes are those that toDevice comes from, up to where.
	inboxes []inbox
	bytes   int
}

// inbox is what was read of a device's to-device messages.
type inbox struct {
	user   ids.UserID
	device ids.DeviceID
	upTo   ids.Seq
}

func (d *draft) items() int {
	return len(d.events) + len(d.ephemeral) + len(d.toDevice) + len(d.changed) + len(d.keys)
}

func (d *draft) full() bool { return d.items() >= maxItems || d.bytes >= maxBytes }

func (d *draft) add(to *[]jsontext.Value, v jsontext.Value) {
	*to = append(*to, v)
	d.bytes += len(v)
}

func (d *draft) event(e *room.Stored) {
	d.add(&d.events, e.AppendClient(nil, room.Viewer{RoomID: true}))
}

// receipt adds an m.receipt event. spec: application-service §Pushing EDUs.
func (d *draft) receipt(id ids.RoomID, r *room.Receipt) {
	one := map[string]any{"ts": r.TS}
	if r.Thread != "" {
		one["thread_id"] = r.Thread
	}
	d.add(&d.ephemeral, encode(map[string]any{
		"type": "m.receipt", "room_id": id,
		"content": map[ids.EventID]any{r.Event: map[string]any{r.Type: map[ids.UserID]any{r.User: one}}},
	}))
}

func (d *draft) typing(id ids.RoomID, users []ids.UserID) {
	if users == nil {
		users = []ids.UserID{}
	}
	d.add(&d.ephemeral, encode(map[string]any{
		"type": "m.typing", "room_id": id, "content": map[string]any{"user_ids": users},
	}))
}

// message adds a to-device message, with whom it is for. MSC2409.
func (d *draft) message(in inbox, m account.Message) {
	v := event.SetField(nil, m.Event, "to_device_id", encode(in.device))
	d.add(&d.toDevice, event.SetField(nil, v, "to_user_id", encode(in.user)))
}

func (d *draft) devicesOf(u ids.UserID) {
	if !slices.Contains(d.changed, u) {
		d.changed = append(d.changed, u)
	}
}

func (d *draft) keysOf(u ids.UserID, device ids.DeviceID, st *account.KeyState) {
	if d.keys == nil {
		d.keys = make(map[ids.UserID]map[ids.DeviceID]*account.KeyState)
	}
	if d.keys[u] == nil {
		d.keys[u] = make(map[ids.DeviceID]*account.KeyState)
	}
	d.keys[u][device] = st
}

// body is the transaction as it is sent.
func (d *draft) body(s *Service) []byte {
	list := func(l []jsontext.Value) []jsontext.Value {
		if l == nil {
			return []jsontext.Value{}
		}
		return l
	}
	b := map[string]any{"events": list(d.events)}
	if s.Ephemeral {
		name := "ephemeral"
		if !s.StableEphemeral {
			name = "de.sorunome.msc2409.ephemeral"
		}
		b[name] = list(d.ephemeral)
	}
	if len(d.toDevice) > 0 {
		b["de.sorunome.msc2409.to_device"] = d.toDevice
	}
	if len(d.changed) > 0 {
		b["org.matrix.msc3202.device_lists"] = map[string]any{"changed": d.changed, "left": []ids.UserID{}}
	}
	if len(d.keys) > 0 {
		counts := make(map[ids.UserID]map[ids.DeviceID]map[string]int)
		unused := make(map[ids.UserID]map[ids.DeviceID][]string)
		for u, devices := range d.keys {
			counts[u], unused[u] = make(map[ids.DeviceID]map[string]int), make(map[ids.DeviceID][]string)
			for device, st := range devices {
				counts[u][device] = st.KeyCounts()
				unused[u][device] = append([]string{}, st.UnusedFallbacks()...)
			}
		}
		// Services look for the one name or the other.
		b["org.matrix.msc3202.device_one_time_keys_count"] = counts
		b["org.matrix.msc3202.device_one_time_key_counts"] = counts
		b["org.matrix.msc3202.device_unused_fallback_key_types"] = unused
	}
	return encode(b)
}

// outgoing is a transaction that is stored before it is sent the first time, so
// that it stays the same when it is sent again, also by another process.
// spec: application-service §Pushing events.
type outgoing struct {
	// upTo: it holds what is of interest up to this position of the partition.
	upTo ids.Seq
	txn  string
	body []byte
}

const outgoingFormat = 1

var errOutgoing = errors.New("appservice: malformed row of a transaction")

func (o *outgoing) encode() []byte {
	b := binary.AppendUvarint([]byte{outgoingFormat}, uint64(o.upTo))
	b = binary.AppendUvarint(b, uint64(len(o.txn)))
	return append(append(b, o.txn...), o.body...)
}

func decodeOutgoing(b []byte) (*outgoing, error) {
	if len(b) == 0 || b[0] != outgoingFormat {
		return nil, errOutgoing
	}
	upTo, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return nil, errOutgoing
	}
	b = b[1+n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, errOutgoing
	}
	b = b[n:]
	return &outgoing{ids.Seq(upTo), string(b[:size]), b[size:]}, nil
}

func outgoingKey(p ids.Partition, service string) storage.Key {
	return storage.Key{Partition: p, Table: tables.Outgoing, Entity: service}
}

// SaveOutgoing stores the transaction that a service is sent next of what happened
// in a partition, in place of the one before, which it has.
type SaveOutgoing struct {
	P       ids.Partition
	Service string
	// Row is an encoded transaction.
	Row []byte
}

var _ partition.Command = (*SaveOutgoing)(nil)

// Name implements partition.Command.
func (c *SaveOutgoing) Name() string { return "save_outgoing" }

// Partition implements partition.Command.
func (c *SaveOutgoing) Partition(int) ids.Partition { return c.P }

// Prepare implements partition.Command.
func (c *SaveOutgoing) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *SaveOutgoing) Apply(tx *partition.Tx) (any, error) {
	tx.Put(outgoingKey(c.P, c.Service), c.Row, nil)
	return nil, nil
}
