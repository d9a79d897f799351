package room

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Redact appends a redaction and takes the content of its target away, in the
// same batch, wherever it stands: in the timeline, in the current state, and as
// prev_content of the state event after it. The result is the ids.EventID of the
// redaction. spec: client-server §Redactions.
type Redact struct {
	Room   ids.RoomID
	Target ids.EventID
	// Draft is the redaction event; its time is set here unless it is Timestamped.
	Draft       roomstate.Draft
	Timestamped bool
	Txn         Txn

	// seen is what Prepare found, which never changes: where events stand. What
	// they hold is read from pins, since other redactions may change it meanwhile.
	seen struct {
		target *Stored // nil if there is no such event
		// after is the position of the state event that followed the target, 0
		// if the target is current or no state.
		after ids.Seq
		// rel is the relation that the target has, reply the latest reply of the
		// thread beside it.
		rel   *relating
		reply ids.Seq
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
	if err := pinDraft(ctx, p, pl, c.Draft, &c.Txn); err != nil {
		return err
	}
	r := NewReader(p.Store(), p.Count())
	target, err := r.Event(ctx, c.Room, c.Target)
	if err != nil {
		return err
	}
	c.seen.target, c.seen.after, c.seen.rel, c.seen.reply = target, 0, nil, 0
	if target == nil {
		return nil
	}
	if err := p.Pin(ctx, pl.timeline(target.Seq)); err != nil {
		return err
	}
	if err := c.prepareRelation(ctx, p, pl, r); err != nil || target.StateKey == nil {
		return err
	}
	if c.seen.after, err = r.follower(ctx, target); err != nil {
		return err
	}
	keys := []storage.Key{pl.state(target.Type, *target.StateKey)}
	if c.seen.after != 0 {
		keys = append(keys, pl.timeline(c.seen.after))
	}
	return p.Pin(ctx, keys...)
}

// prepareRelation finds the relation that the redaction ends.
func (c *Redact) prepareRelation(ctx context.Context, p *partition.Prep, pl Place, r *Reader) (err error) {
	t := c.seen.target
	if c.seen.rel, err = r.relating(ctx, c.Room, t.Sender, t.Type, t.Content); err != nil || c.seen.rel == nil {
		return err
	}
	if c.seen.rel.kind == relThread {
		if c.seen.reply, err = r.latestReply(ctx, c.Room, c.seen.rel.parent, t.Seq); err != nil {
			return err
		}
	}
	if c.seen.reply != 0 {
		if err := p.Pin(ctx, pl.timeline(c.seen.reply)); err != nil {
			return err
		}
	}
	return c.seen.rel.pin(ctx, p, pl)
}

// follower returns the position of the state event that replaced another, 0 if
// that one is current.
func (r *Reader) follower(ctx context.Context, of *Stored) (ids.Seq, error) {
	s, err := r.StateEvent(ctx, of.RoomID, of.Type, *of.StateKey)
	for err == nil && s != nil && s.Seq > of.Seq {
		if s.Replaces == of.Seq {
			return s.Seq, nil
		}
		s, err = r.Replaced(ctx, s)
	}
	return 0, err
}

// Apply implements partition.Command.
func (c *Redact) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	if id, err := c.Txn.replayed(v, c.Draft.Sender); id != "" || err != nil {
		return id, err
	}
	head := v.head()
	if head == nil {
		return nil, errUnknownRoom()
	}
	if roomstate.Membership(v, c.Draft.Sender) != event.Join {
		return nil, merr.ForbiddenErr("You are not in this room")
	}
	if c.seen.target == nil {
		return nil, merr.NotFoundErr("The event to redact is not in this room")
	}
	target, err := v.event(c.seen.target.Seq)
	if err != nil {
		return nil, err
	}
	if !roomstate.MayRedact(head.Version, c.Draft.Sender, &target.Event, v) {
		return nil, merr.ForbiddenErr("You may not redact this event")
	}
	d := c.Draft
	if !c.Timestamped {
		d.OriginServerTS = tx.Now
	}
	by, err := appendEvent(v, d, c.Txn)
	if err != nil {
		return nil, err
	}
	c.Txn.record(v, d.Sender, by.ID)
	if target.RedactedBy == nil {
		if err := c.strip(v, head.Version, target, by); err != nil {
			return nil, err
		}
	}
	return by.ID, nil
}

// event returns a pinned event of the timeline. It is partition.ErrRetry for one
// that was purged after Prepare found it.
func (v view) event(s ids.Seq) (*Stored, error) {
	e, _ := v.tx.Get(v.p.timeline(s)).Obj.(*Stored)
	if e == nil {
		return nil, partition.ErrRetry
	}
	return e, nil
}

// putEvent rewrites an event where it stands in the timeline, and in the state if
// it is current.
func (v view) putEvent(s *Stored) {
	row := s.encode()
	v.tx.Put(v.p.timeline(s.Seq), row, s)
	if s.StateKey == nil {
		return
	}
	if current := v.stored(s.Type, *s.StateKey); current != nil && current.Seq == s.Seq {
		v.tx.Put(v.p.state(s.Type, *s.StateKey), row, s)
	}
}

// strip rewrites the rows that hold the target's content.
func (c *Redact) strip(v view, version event.Version, target, by *Stored) error {
	left, err := target.redacted(version, by)
	if err != nil {
		return fmt.Errorf("redact event: %w", err)
	}
	v.putEvent(left)
	if err := c.seen.rel.end(v, target, c.seen.reply); err != nil {
		return err
	}
	if target.StateKey == nil {
		return nil
	}
	if c.seen.after == 0 {
		if current := v.stored(target.Type, *target.StateKey); current == nil || current.Seq != target.Seq {
			return partition.ErrRetry // it was current when Prepare looked
		}
		head := v.head()
		v.index(head, head, target, left)
		return nil
	}
	after, err := v.event(c.seen.after)
	if err != nil {
		return err
	}
	v.putEvent(after.withPrevContent(left.Content))
	return nil
}
