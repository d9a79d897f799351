package account

import (
	"bytes"
	"context"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// forgetPage is how many rows of a user's Stream one ForgetRoom looks at.
const forgetPage = 2000

// ForgetRoom removes what a user's rows hold of a room that is being deleted: its
// place in the list of rooms, its account data, its notifications, and what the
// Stream says of it. It
// looks at a page of the Stream behind After; the result is where to go on, 0 if
// that was all.
type ForgetRoom struct {
	command
	Room  ids.RoomID
	After ids.Seq

	found    []string // sort keys of the Stream
	notified []string // and of the notifications, with the first page
	next     ids.Seq
}

// NewForgetRoom returns the command.
func NewForgetRoom(user ids.UserID, r ids.RoomID, after ids.Seq) *ForgetRoom {
	return &ForgetRoom{command: command{user}, Room: r, After: after}
}

var _ partition.Command = (*ForgetRoom)(nil)

// Name implements partition.Command.
func (c *ForgetRoom) Name() string { return "forget_deleted_room" }

// Prepare implements partition.Command.
func (c *ForgetRoom) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: pl.Partition, Table: tables.Stream, Entity: string(c.User), From: tables.SeqSort(c.After + 1), Limit: forgetPage,
	})
	if err != nil {
		return wrap("read stream", err)
	}
	c.found, c.next = nil, 0
	name := event.AppendString(nil, c.Room)
	for _, row := range rows {
		if bytes.Contains(row.Value, name) {
			c.found = append(c.found, row.Sort)
		}
	}
	if len(rows) == forgetPage {
		c.next = tables.SortSeq(rows[len(rows)-1].Sort)
	}
	return c.findNotified(ctx, p, name)
}

func (c *ForgetRoom) findNotified(ctx context.Context, p *partition.Prep, name []byte) error {
	c.notified = nil
	if c.After != 0 {
		return nil
	}
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: c.at(p).Partition, Table: tables.Notification, Entity: string(c.User), Limit: 2*MaxNotifications + MaxNotify,
	})
	for _, row := range rows {
		if bytes.Contains(row.Value, name) {
			c.notified = append(c.notified, row.Sort)
		}
	}
	return wrap("read notifications", err)
}

// Apply implements partition.Command.
func (c *ForgetRoom) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	for _, sort := range c.found {
		tx.Delete(p.key(tables.Stream, sort))
	}
	for _, sort := range c.notified {
		tx.Delete(p.notification(sort))
	}
	tx.Delete(p.membership(c.Room))
	own := partition.JoinSort(string(c.Room), "")
	for _, t := range []storage.Table{tables.AccountData, tables.ThreadSubscription} {
		tx.DeletePrefix(p.key(t, own))
	}
	return c.next, nil
}
