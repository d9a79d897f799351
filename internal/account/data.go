package account

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// MaxDataBytes bounds the content of one type of account data. A request can
// hold less; edits that add to what is there, tags and push rules, must end
// somewhere.
const MaxDataBytes = 512 << 10

// Data is account data, of the user or of one room.
type Data struct {
	Room ids.RoomID `json:"-"`
	Type string     `json:"-"`
	// Content is a JSON object.
	Content jsontext.Value `json:"content"`
	// Seq is the position of the last change.
	Seq ids.Seq `json:"seq"`
	// Deleted data is kept as {}, so that a sync can tell of its end. MSC3391.
	Deleted bool `json:"deleted,omitzero"`
}

// SetData replaces account data. M_TOO_LARGE beyond MaxDataBytes. spec:
// client-server §Client Config.
type SetData struct {
	command
	Room    ids.RoomID
	Type    string
	Content jsontext.Value
	// Edit, if not nil, changes a part of the content instead.
	Edit Edit
	// Delete removes it instead; that there is none is fine.
	Delete bool
	// Told makes the end be told of also where there was nothing: who says {} waits for
	// a sync that says so.
	Told bool
}

// Edit is a change to a part of account data. Its exported fields say all there
// is to say about it. Edited is pure; present is nil if there is no such data.
type Edit interface {
	Edited(present jsontext.Value) (jsontext.Value, error)
}

// NewSetData returns the command; room is "" for data of the user.
func NewSetData(user ids.UserID, r ids.RoomID, typ string, content jsontext.Value) *SetData {
	return &SetData{command: command{user}, Room: r, Type: typ, Content: content}
}

// NewEditData returns a command that changes a part of account data.
func NewEditData(user ids.UserID, r ids.RoomID, typ string, edit Edit) *SetData {
	return &SetData{command: command{user}, Room: r, Type: typ, Edit: edit}
}

// NewDeleteData returns the command to remove account data.
func NewDeleteData(user ids.UserID, r ids.RoomID, typ string) *SetData {
	return &SetData{command: command{user}, Room: r, Type: typ, Content: jsontext.Value("{}"), Delete: true}
}

// NewEmptyData returns the command for account data that a client makes empty, which
// is how those delete it that know of no other way. spec: MSC3391.
func NewEmptyData(user ids.UserID, r ids.RoomID, typ string) *SetData {
	c := NewDeleteData(user, r, typ)
	c.Told = true
	return c
}

var _ partition.Command = (*SetData)(nil)

// Name implements partition.Command.
func (c *SetData) Name() string { return "set_account_data" }

// Prepare implements partition.Command.
func (c *SetData) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).data(c.Room, c.Type))
}

// Apply implements partition.Command.
func (c *SetData) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	content := c.Content
	if old := get[Data](tx, p.data(c.Room, c.Type)); c.Delete && !c.Told && (old == nil || old.Deleted) {
		return nil, nil
	}
	if c.Edit != nil {
		var present jsontext.Value
		if old := get[Data](tx, p.data(c.Room, c.Type)); old != nil {
			present = old.Content
		}
		var err error
		if content, err = c.Edit.Edited(present); err != nil {
			return nil, err
		}
	}
	return nil, setData(tx, p, Data{Room: c.Room, Type: c.Type, Content: content, Deleted: c.Delete})
}

// setData writes account data whose row is pinned, under a position of its own.
func setData(tx *partition.Tx, p Place, d Data) error {
	k := p.data(d.Room, d.Type)
	old := get[Data](tx, k)
	if len(d.Content) > MaxDataBytes {
		return merr.TooLargeErr("The account data is larger than %d bytes", MaxDataBytes)
	}
	if old != nil {
		if string(old.Content) == string(d.Content) && old.Deleted == d.Deleted && !d.Deleted {
			return nil
		}
		tx.Delete(p.stream(old.Seq))
	}
	d.Seq = emit(tx, p, Change{Kind: ChangeAccountData, Room: d.Room, Type: d.Type})
	put(tx, k, &d)
	return nil
}

// PutFilter stores a filter under an ID that the caller made from its content.
type PutFilter struct {
	command
	ID     string
	Filter jsontext.Value
}

// NewPutFilter returns the command.
func NewPutFilter(user ids.UserID, id string, filter jsontext.Value) *PutFilter {
	return &PutFilter{command{user}, id, filter}
}

var _ partition.Command = (*PutFilter)(nil)

// Name implements partition.Command.
func (c *PutFilter) Name() string { return "put_filter" }

// Prepare implements partition.Command.
func (c *PutFilter) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *PutFilter) Apply(tx *partition.Tx) (any, error) {
	tx.Put(c.in(tx).key(tables.Filter, c.ID), c.Filter, nil)
	return nil, nil
}

// Forget takes a room that the user has left out of their list. spec:
// client-server §POST /rooms/{roomId}/forget.
type Forget struct {
	command
	Room ids.RoomID
}

// NewForget returns the command.
func NewForget(user ids.UserID, r ids.RoomID) *Forget { return &Forget{command{user}, r} }

var _ partition.Command = (*Forget)(nil)

// Name implements partition.Command.
func (c *Forget) Name() string { return "forget" }

// Prepare implements partition.Command.
func (c *Forget) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).membership(c.Room))
}

// Apply implements partition.Command.
func (c *Forget) Apply(tx *partition.Tx) (any, error) {
	k := c.in(tx).membership(c.Room)
	m := get[Membership](tx, k)
	if m == nil || m.Forgotten {
		return nil, nil
	}
	if m.Membership != event.Leave && m.Membership != event.Ban {
		return nil, merr.New(http.StatusBadRequest, merr.Unknown, "You are still in this room")
	}
	forgotten := *m
	forgotten.Forgotten = true
	put(tx, k, &forgotten)
	return nil, nil
}

// Effects are the effects that users receive.
func Effects() map[string]partition.EffectHandler {
	return map[string]partition.EffectHandler{
		room.EffectMembership: membershipEffects{},
		EffectNames:           namesEffects{},
		EffectToDevice:        toDeviceEffects{},
		EffectReleaseContact:  releaseEffects{},
		EffectPushKey:         pushKeyEffects{},
		EffectPusherTaken:     pusherTakenEffects{},
	}
}

type membershipEffects struct{}

func decodeMembership(e partition.Effect) (*room.MembershipChange, error) {
	c := &room.MembershipChange{}
	if err := json.Unmarshal(e.Payload, c); err != nil {
		return nil, fmt.Errorf("decode membership change: %w", err)
	}
	return c, nil
}

// Prepare implements partition.EffectHandler.
func (membershipEffects) Prepare(ctx context.Context, p *partition.Prep, e partition.Effect) error {
	c, err := decodeMembership(e)
	if err != nil {
		return nil // Apply says so, and the effects behind it go on
	}
	pl := Place{p.Partition(), c.User}
	return p.Pin(ctx, pl.membership(c.Room), pl.deviceList(), pl.push())
}

// Apply implements partition.EffectHandler.
func (membershipEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	c, err := decodeMembership(e)
	if err != nil {
		return err
	}
	p := Place{tx.Partition(), c.User}
	k := p.membership(c.Room)
	var prev event.Membership
	var joined ids.Seq
	if c.Membership == event.Join {
		joined = c.Seq
	}
	if old := get[Membership](tx, k); old != nil {
		prev = old.Membership
		if joined != 0 && prev == event.Join {
			joined = old.Joined
		}
	}
	s := emit(tx, p, Change{
		Kind: ChangeMembership, Room: c.Room, Membership: c.Membership, Prev: prev, RoomSeq: c.Seq, Joined: joined,
	})
	put(tx, k, &Membership{
		Room: c.Room, Membership: c.Membership, Prev: prev, RoomSeq: c.Seq, Seq: s, Joined: joined,
		EventID: c.EventID, Sender: c.Sender, Direct: c.Direct, Stripped: c.Stripped,
	})
	if c.Membership != event.Join || prev == event.Join {
		return nil
	}
	if st := get[PushState](tx, p.push()); st.Active() {
		if err := room.Watch(tx, c.Room, c.User, st.Watch); err != nil {
			return err
		}
	}
	return joinedRoom(tx, p, c.Room, c.TS)
}
