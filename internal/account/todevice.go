package account

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// EffectToDevice brings messages to the devices of one user. The payload is a
// toDevice in JSON.
const EffectToDevice = "to_device"

// AllDevices stands for all devices of a user.
const AllDevices ids.DeviceID = "*"

// maxTxnID bounds a transaction ID in bytes; it becomes part of a key.
const maxTxnID = 255

// toDevice are the messages of one request to one user.
type toDevice struct {
	User   ids.UserID                      `json:"user"`
	Sender ids.UserID                      `json:"sender"`
	Type   string                          `json:"type"`
	To     map[ids.DeviceID]jsontext.Value `json:"to"`
}

// SendToDevice sends messages to devices. It runs where the sender is, so that a
// repeated request is noticed whoever the receivers are: the transaction and the
// effects that carry the messages are written together. Users and devices that do not exist are passed
// over. spec: client-server §PUT /sendToDevice/{eventType}/{txnId}.
type SendToDevice struct {
	command
	Device ids.DeviceID // the sender's
	Type   string
	TxnID  string
	// Messages are contents by user and device, which may be AllDevices.
	Messages map[ids.UserID]map[ids.DeviceID]jsontext.Value

	expanded map[ids.UserID]map[ids.DeviceID]jsontext.Value
}

// NewSendToDevice returns the command.
func NewSendToDevice(sender ids.UserID, d ids.DeviceID, typ, txn string, messages map[ids.UserID]map[ids.DeviceID]jsontext.Value) *SendToDevice {
	return &SendToDevice{command: command{sender}, Device: d, Type: typ, TxnID: txn, Messages: messages}
}

var _ partition.Command = (*SendToDevice)(nil)

// Name implements partition.Command.
func (c *SendToDevice) Name() string { return "send_to_device" }

func (c *SendToDevice) txn(p Place) storage.Key {
	return p.key(tables.UserTxn, partition.JoinSort(string(c.Device), "sendToDevice/"+c.Type, c.TxnID))
}

// Prepare implements partition.Command. It finds out which devices AllDevices
// are: a device that logs in later was not meant.
func (c *SendToDevice) Prepare(ctx context.Context, p *partition.Prep) error {
	if strings.IndexByte(c.Type, 0) >= 0 || len(c.Type) > ids.MaxLength || len(c.TxnID) > maxTxnID {
		return merr.InvalidParamErr("The event type or the transaction ID is too long, or holds NUL")
	}
	r := NewReader(p.Store(), p.Count())
	c.expanded = make(map[ids.UserID]map[ids.DeviceID]jsontext.Value, len(c.Messages))
	for user, to := range c.Messages {
		content, all := to[AllDevices]
		if !all {
			c.expanded[user] = to
			continue
		}
		devices, err := r.Devices(ctx, user)
		if err != nil {
			return err
		}
		each := make(map[ids.DeviceID]jsontext.Value, len(devices))
		for _, d := range devices {
			each[d.ID] = content
			if own, ok := to[d.ID]; ok {
				each[d.ID] = own
			}
		}
		c.expanded[user] = each
	}
	return p.Pin(ctx, c.txn(c.at(p)))
}

// Apply implements partition.Command.
func (c *SendToDevice) Apply(tx *partition.Tx) (any, error) {
	k := c.txn(c.in(tx))
	if tx.Get(k).Value != nil {
		return nil, nil
	}
	tx.Put(k, []byte{}, nil)
	for user, to := range c.expanded {
		if len(to) == 0 {
			continue
		}
		payload, err := json.Marshal(&toDevice{User: user, Sender: c.User, Type: c.Type, To: to})
		if err != nil {
			return nil, fmt.Errorf("encode to-device messages: %w", err)
		}
		tx.Effect(string(user), EffectToDevice, payload)
	}
	return nil, nil
}

type toDeviceEffects struct{}

var _ partition.EffectHandler = toDeviceEffects{}

func decodeToDevice(e partition.Effect) (*toDevice, error) {
	m := &toDevice{}
	if err := json.Unmarshal(e.Payload, m); err != nil {
		return nil, fmt.Errorf("decode to-device messages: %w", err)
	}
	return m, nil
}

// Prepare implements partition.EffectHandler.
func (toDeviceEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	m, err := decodeToDevice(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	pl := Place{p.Partition(), m.User}
	keys := make([]storage.Key, 0, len(m.To))
	for d := range m.To {
		if k := pl.device(d); k.Check() == nil {
			keys = append(keys, k)
		}
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.EffectHandler. The record wakes the feeds; what a
// sync shows is the inbox alone, so there is no Stream row.
func (toDeviceEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	m, err := decodeToDevice(e)
	if err != nil {
		return err
	}
	p := Place{tx.Partition(), m.User}
	c := &Change{Kind: ChangeToDevice, Seq: tx.NextSeq()}
	for d, content := range m.To {
		if p.device(d).Check() != nil || get[Device](tx, p.device(d)) == nil {
			continue
		}
		c.Devices = append(c.Devices, d)
		tx.PutNew(p.inbox(d, c.Seq), m.event(content))
	}
	if len(c.Devices) > 0 {
		tx.Emit(partition.Record{Kind: partition.RecordUser, Entity: string(m.User), Data: encode(c), Obj: c})
	}
	return nil
}

// event is a message as its receiver sees it.
func (m *toDevice) event(content jsontext.Value) []byte {
	b := append([]byte(`{"content":`), content...)
	b = event.AppendString(append(b, `,"sender":`...), m.Sender)
	b = event.AppendString(append(b, `,"type":`...), m.Type)
	return append(b, '}')
}

func (p Place) inbox(d ids.DeviceID, s ids.Seq) storage.Key {
	return p.key(tables.Inbox, ofDevice(d)+tables.SeqSort(s))
}

// AckInbox removes the messages that a device has acknowledged: those up to a
// position, which it was sent.
type AckInbox struct {
	command
	Device ids.DeviceID
	UpTo   ids.Seq
}

// NewAckInbox returns the command.
func NewAckInbox(user ids.UserID, d ids.DeviceID, upTo ids.Seq) *AckInbox {
	return &AckInbox{command{user}, d, upTo}
}

var _ partition.Command = (*AckInbox)(nil)

// Name implements partition.Command.
func (c *AckInbox) Name() string { return "ack_inbox" }

// Prepare implements partition.Command.
func (c *AckInbox) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *AckInbox) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	tx.DeleteRange(p.key(tables.Inbox, ofDevice(c.Device)), p.inbox(c.Device, c.UpTo+1).Sort)
	return nil, nil
}

// Message is a to-device message in a device's inbox.
type Message struct {
	Seq ids.Seq
	// Event is its JSON, nil if it cannot be read.
	Event jsontext.Value
}

// Inbox returns messages of a device above after and up to upTo, in order, at most
// limit of them.
func (r *Reader) Inbox(ctx context.Context, user ids.UserID, d ids.DeviceID, after, upTo ids.Seq, limit int) ([]Message, error) {
	p := r.Place(user)
	if upTo <= after || limit <= 0 || p.inbox(d, after).Check() != nil {
		return nil, nil
	}
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.Inbox, Entity: string(user),
		From: p.inbox(d, after+1).Sort, To: p.inbox(d, upTo+1).Sort, Limit: limit,
	})
	if err != nil {
		return nil, wrap("read inbox", err)
	}
	out := make([]Message, len(rows))
	for i, row := range rows {
		out[i] = Message{tables.SortSeq(row.Sort), row.Value}
		if isJSON(row.Value) {
			continue
		}
		if err := r.unreadable(p.key(tables.Inbox, row.Sort), errRow); err != nil {
			return nil, err
		}
		out[i].Event = nil // its place is kept, so that it is acknowledged with the rest
	}
	return out, nil
}
