package delayed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// errTooMany: the user has as many delayed events as they may.
var errTooMany = errors.New("delayed: too many events")

func errNotFound() error { return merr.NotFoundErr("No such delayed event") }

// Schedule writes a new delayed event. Its result is the delay ID: an earlier
// one if the request is repeated.
type Schedule struct {
	Event Event
	// Txn is the sort key of the request's UserTxn row.
	Txn string
	Max int
}

var _ partition.Command = (*Schedule)(nil)

// Name implements partition.Command.
func (c *Schedule) Name() string { return "schedule_event" }

// Partition implements partition.Command.
func (c *Schedule) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Event.User), count)
}

func txnKey(p ids.Partition, u ids.UserID, txn string) storage.Key {
	return storage.Key{Partition: p, Table: tables.UserTxn, Entity: string(u), Sort: txn}
}

// Prepare implements partition.Command.
func (c *Schedule) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := place(p.Partition())
	keys := []storage.Key{pl.of(c.Event.User)}
	if c.Txn != "" {
		keys = append(keys, txnKey(p.Partition(), c.Event.User, c.Txn))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Schedule) Apply(tx *partition.Tx) (any, error) {
	pl := place(tx.Partition())
	if c.Txn != "" {
		k := txnKey(tx.Partition(), c.Event.User, c.Txn)
		if id := tx.Get(k).Value; id != nil {
			return string(id), nil
		}
		tx.Put(k, []byte(c.Event.ID), nil)
	}
	list := owned{}
	if have := get[owned](tx, pl.of(c.Event.User)); have != nil {
		list = *have
	}
	if len(list.Scheduled) >= c.Max {
		return nil, errTooMany
	}
	list.Scheduled = append(slices.Clip(list.Scheduled), c.Event.ID)
	e := c.Event
	e.Since, e.Status, e.Due = tx.Now, Scheduled, tx.Now+e.Delay
	tx.Put(pl.due(e.Due, e.ID), []byte{}, nil)
	return e.ID, errors.Join(put(tx, pl.event(e.ID), &e), put(tx, pl.of(e.User), &list))
}

// Action is what may be done with a delayed event.
type Action uint8

const (
	// Restart lets the delay begin anew.
	Restart Action = iota + 1
	Cancel
	// Claim marks the event as being sent.
	Claim
	// Release takes a claim back: the room refused, and may yet agree.
	Release
	// Finish notes what became of the event.
	Finish
)

// Update does something with one delayed event. Its result is the *Event as it
// was before, nil if it is as it should be already.
type Update struct {
	ID     string
	User   ids.UserID
	Action Action
	// Of Finish: the event sent, or the error that kept it from being sent.
	EventID ids.EventID
	Error   jsontext.Value
	Status  Status
	Reason  Reason
}

var _ partition.Command = (*Update)(nil)

// Name implements partition.Command.
func (c *Update) Name() string { return "update_delayed_event" }

// Partition implements partition.Command.
func (c *Update) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.User), count) }

// Prepare implements partition.Command.
func (c *Update) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := place(p.Partition())
	return p.Pin(ctx, pl.event(c.ID), pl.of(c.User))
}

func conflict(what string) error {
	return merr.New(http.StatusConflict, merr.Unknown, "The delayed event was %s already", what)
}

// Apply implements partition.Command.
func (c *Update) Apply(tx *partition.Tx) (any, error) {
	pl := place(tx.Partition())
	e := get[Event](tx, pl.event(c.ID))
	if e == nil {
		return nil, errNotFound()
	}
	if done, err := c.settled(e); done || err != nil {
		return nil, err
	}
	n := *e
	switch c.Action {
	case Restart:
		n.Since = tx.Now
		return e, move(tx, pl, e, &n, n.Since+n.Delay)
	case Claim:
		n.Status = Sending
		return e, move(tx, pl, e, &n, tx.Now+claimLease.Milliseconds())
	case Release:
		n.Status = Scheduled
		return e, move(tx, pl, e, &n, n.Since+n.Delay)
	case Cancel:
		n.Status, n.Reason = Cancelled, ByAction
	case Finish:
		n.Status, n.Reason, n.EventID, n.Error = c.Status, c.Reason, c.EventID, c.Error
		if n.Status == Sent {
			n.Content = nil // it stands in the room, and may be redacted or expire there
		}
	default:
		return nil, fmt.Errorf("delayed event: unknown action %d", c.Action)
	}
	return e, finalise(tx, pl, e, &n)
}

// settled says whether there is nothing to do, or nothing that can be done.
// spec: MSC4140 §Managing scheduled delayed events.
func (c *Update) settled(e *Event) (bool, error) {
	switch c.Action {
	case Restart:
		switch e.Status {
		case Cancelled, Failed:
			return false, conflict("cancelled")
		case Sending, Sent:
			// Who holds an event alive learns by 404 to schedule another.
			return false, errNotFound()
		}
	case Cancel:
		switch e.Status {
		case Cancelled, Failed:
			return true, nil
		case Sending, Sent:
			return false, conflict("sent")
		}
	case Claim:
		switch e.Status {
		case Sent:
			return true, nil
		case Cancelled, Failed:
			return false, conflict("cancelled")
		}
	case Release:
		return e.Status != Sending, nil
	case Finish:
		return e.Status.Finalised(), nil
	}
	return false, nil
}

// move writes an event with another place in the queue.
func move(tx *partition.Tx, pl place, was, e *Event, due int64) error {
	tx.Delete(pl.due(was.Due, was.ID))
	e.Due = due
	tx.Put(pl.due(e.Due, e.ID), []byte{}, nil)
	return put(tx, pl.event(e.ID), e)
}

// finalise moves an event to the place in the queue where it is forgotten, and
// forgets those that are too many.
func finalise(tx *partition.Tx, pl place, was, e *Event) error {
	e.Finalised = tx.Now
	if err := move(tx, pl, was, e, tx.Now+keepFinishedFor.Milliseconds()); err != nil {
		return err
	}
	list := owned{}
	if have := get[owned](tx, pl.of(e.User)); have != nil {
		list = *have
	}
	scheduled := make([]string, 0, len(list.Scheduled))
	for _, id := range list.Scheduled {
		if id != e.ID {
			scheduled = append(scheduled, id)
		}
	}
	finalised := append(slices.Clone(list.Finalised), e.ID)
	for len(finalised) > KeepFinished {
		tx.Delete(pl.event(finalised[0]))
		finalised = finalised[1:]
	}
	return put(tx, pl.of(e.User), &owned{scheduled, finalised})
}

// ClaimDue marks the events of a partition whose time has come, and forgets those
// that were finalised long ago. The result is the []*Event to send, in order of their
// time.
type ClaimDue struct {
	In ids.Partition
	// Now is the time in ms since 1970 up to which Prepare looks.
	Now int64

	found []string // sort keys of the queue
}

var _ partition.Command = (*ClaimDue)(nil)

// Name implements partition.Command.
func (c *ClaimDue) Name() string { return "claim_delayed_events" }

// Partition implements partition.Command.
func (c *ClaimDue) Partition(int) ids.Partition { return c.In }

// Prepare implements partition.Command.
func (c *ClaimDue) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := place(c.In)
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: c.In, Table: tables.DelayedDue, To: pl.due(c.Now+1, "").Sort, Limit: claimLimit,
	})
	if err != nil {
		return fmt.Errorf("find due events: %w", err)
	}
	c.found = c.found[:0]
	keys := make([]storage.Key, 0, len(rows))
	for _, row := range rows {
		_, id := dueRow(row.Sort)
		c.found = append(c.found, row.Sort)
		keys = append(keys, pl.event(id))
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *ClaimDue) Apply(tx *partition.Tx) (any, error) {
	pl := place(c.In)
	var out []*Event
	for _, sort := range c.found {
		at, id := dueRow(sort)
		e := get[Event](tx, pl.event(id))
		if e == nil || e.Due != at || e.Status.Finalised() {
			// It was moved meanwhile. What is still in its old place would be found
			// again and again.
			tx.Delete(pl.due(at, id))
			if e != nil && e.Due == at {
				tx.Delete(pl.event(id)) // the user's list may name what is not there
			}
			continue
		}
		n := *e
		n.Status = Sending
		if err := move(tx, pl, e, &n, tx.Now+claimLease.Milliseconds()); err != nil {
			return nil, err
		}
		out = append(out, &n)
	}
	return out, nil
}

// fresh reports whether a finalised event is still to be shown.
func (e *Event) fresh(now time.Time) bool {
	return !e.Status.Finalised() || now.UnixMilli()-e.Finalised < keepFinishedFor.Milliseconds()
}
