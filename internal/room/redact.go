package room

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// Redact appends a redaction and takes the content of its target away, in the
// same batch, wherever it stands: in the timeline, in the current state, and as
// prev_content of the state event after it. The result is the ids.EventID of the
// redaction. spec: client-server §Redactions.
type Redact struct {
	Room   ids.RoomID
	Target ids.EventID
	// Draft is the redaction event; its time is set here.
	Draft roomstate.Draft
	Txn   Txn

	// seen is what Prepare found.
	seen struct {
		target *Stored
		// after is the state event that followed the target, nil if the target
		// is current or no state.
		after *Stored
	}
}

var _ partition.Command = (*Redact)(nil)

// Name implements partition.Command.
func (c *Redact) Name() string { return "redact" }

// Partition implements partition.Command.
func (c *Redact) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Redact) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	if err := pinDraft(ctx, p, pl, c.Draft); err != nil {
		return err
	}
	if c.Txn.ID != "" {
		if err := p.Pin(ctx, c.Txn.key(pl, c.Draft.Sender)); err != nil {
			return err
		}
	}
	r := NewReader(p.Store(), p.Count())
	target, err := r.Event(ctx, c.Room, c.Target)
	if err != nil {
		return err
	}
	c.seen.target, c.seen.after = target, nil
	if target == nil || target.StateKey == nil {
		return nil
	}
	if err := p.Pin(ctx, pl.state(target.Type, *target.StateKey)); err != nil {
		return err
	}
	s, err := r.StateEvent(ctx, c.Room, target.Type, *target.StateKey)
	for err == nil && s != nil && s.Seq > target.Seq {
		if s.Replaces == target.Seq {
			c.seen.after = s
			break
		}
		s, err = r.At(ctx, c.Room, s.Replaces)
	}
	return err
}

// Apply implements partition.Command.
func (c *Redact) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	if c.Txn.ID != "" {
		if id, ok := replay(tx, c.Txn.key(v.p, c.Draft.Sender)); ok {
			return id, nil
		}
	}
	head := v.head()
	if head == nil {
		return nil, errUnknownRoom()
	}
	target := c.seen.target
	if roomstate.Membership(v, c.Draft.Sender) != event.Join {
		return nil, merr.ForbiddenErr("You are not in this room")
	}
	if target == nil {
		return nil, merr.NotFoundErr("The event to redact is not in this room")
	}
	if !roomstate.MayRedact(head.Version, c.Draft.Sender, &target.Event, v) {
		return nil, merr.ForbiddenErr("You may not redact this event")
	}
	d := c.Draft
	d.OriginServerTS = tx.Now
	by, err := appendEvent(v, d, c.Txn)
	if err != nil {
		return nil, err
	}
	if c.Txn.ID != "" {
		tx.Put(c.Txn.key(v.p, d.Sender), []byte(by.ID), nil)
	}
	if target.RedactedBy == nil {
		if err := c.strip(v, head.Version, by); err != nil {
			return nil, err
		}
	}
	return by.ID, nil
}

// strip rewrites the rows that hold the target's content.
func (c *Redact) strip(v view, version event.Version, by *Stored) error {
	target := c.seen.target
	left, err := target.redacted(version, by)
	if err != nil {
		return fmt.Errorf("redact event: %w", err)
	}
	row := left.encode()
	v.tx.Put(v.p.timeline(target.Seq), row, nil)
	if target.StateKey == nil {
		return nil
	}
	current := v.stored(target.Type, *target.StateKey)
	switch {
	case current != nil && current.Seq == target.Seq:
		v.tx.Put(v.p.state(target.Type, *target.StateKey), row, left)
	case c.seen.after == nil:
		return partition.ErrRetry // it was current when Prepare looked
	default:
		after := c.seen.after.withPrevContent(left.Content)
		row := after.encode()
		v.tx.Put(v.p.timeline(after.Seq), row, nil)
		if current != nil && current.Seq == after.Seq {
			v.tx.Put(v.p.state(target.Type, *target.StateKey), row, after)
		}
	}
	return nil
}
