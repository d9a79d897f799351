package room

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// delayedDevice stands in the place of the device in the transactions of delayed
// events. No client can have it: a device ID holds no control character.
const delayedDevice ids.DeviceID = "\x00delayed"

// DelayedTxn is the transaction that sends a delayed event: whoever sends it
// again, after a crash between the commit and its note, gets the same event.
func DelayedTxn(delayID string) Txn {
	return Txn{Device: delayedDevice, Path: "delayed", ID: delayID}
}

// SendDelayed is Send for an event that was scheduled earlier. It is refused if
// somebody else changed the piece of state that it would set in the meantime:
// what its sender meant to change is no longer there. spec: MSC4140, as servers
// have it (M_CANCELLED_BY_STATE_UPDATE).
type SendDelayed struct {
	Send
	// Scheduled is the room's last position when the event was scheduled.
	Scheduled ids.Seq

	// seen is the position of the present state when Prepare looked, overtaken
	// whether somebody else changed it since Scheduled.
	seen      ids.Seq
	overtaken bool
}

var _ partition.Command = (*SendDelayed)(nil)

// Name implements partition.Command.
func (c *SendDelayed) Name() string { return "send_delayed" }

// Prepare implements partition.Command.
func (c *SendDelayed) Prepare(ctx context.Context, p *partition.Prep) error {
	if err := c.Send.Prepare(ctx, p); err != nil || c.Draft.StateKey == nil {
		return err
	}
	r := NewReader(p.Store(), p.Count())
	var err error
	c.seen, c.overtaken, err = r.Overtaken(ctx, c.Room, c.key(), c.Draft.Sender, c.Scheduled)
	return err
}

func (c *SendDelayed) key() StateKey { return StateKey{c.Draft.Type, *c.Draft.StateKey} }

// Apply implements partition.Command.
func (c *SendDelayed) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	if id, err := c.Txn.replayed(v, c.Draft.Sender); id != "" || err != nil {
		return id, err
	}
	if c.Draft.StateKey != nil {
		present := ids.Seq(0)
		if s := v.stored(c.Draft.Type, *c.Draft.StateKey); s != nil {
			present = s.Seq
		}
		if present != c.seen {
			return nil, partition.ErrRetry
		}
		if c.overtaken {
			return nil, ErrOvertaken()
		}
	}
	return c.Send.Apply(tx)
}

// ErrOvertaken is why a delayed event is not sent any more.
func ErrOvertaken() *merr.Error {
	return merr.New(http.StatusConflict, merr.Unknown, "Somebody else changed this state in the meantime").
		With("org.matrix.msc4140.errcode", "M_CANCELLED_BY_STATE_UPDATE")
}

// Overtaken reports whether anybody but a user changed a piece of state after a
// position, and where its present value stands, 0 if there is none.
func (r *Reader) Overtaken(ctx context.Context, room ids.RoomID, k StateKey, user ids.UserID, after ids.Seq) (present ids.Seq, yes bool, err error) {
	s, err := r.StateEvent(ctx, room, k.Type, k.Key)
	if s != nil {
		present = s.Seq
	}
	for err == nil && s != nil && s.Seq > after {
		if s.Sender != user {
			return present, true, nil
		}
		if s.Replaces == 0 {
			break
		}
		s, err = r.Replaced(ctx, s)
	}
	return present, false, err
}

// Transacted returns the event that a request made, "" if it made none.
func (r *Reader) Transacted(ctx context.Context, room ids.RoomID, user ids.UserID, t Txn) (ids.EventID, error) {
	rows, err := r.st.Get(ctx, t.row(r.Place(room), user))
	if err != nil {
		return "", err
	}
	id, _ := decodeTxn(rows[0])
	return id, nil
}

// Membership returns what a user is in a room.
func (r *Reader) Membership(ctx context.Context, room ids.RoomID, user ids.UserID) (event.Membership, error) {
	s, err := r.StateEvent(ctx, room, event.TypeMember, string(user))
	if err != nil || s == nil {
		return event.NoMembership, err
	}
	return s.Member().Membership, nil
}
