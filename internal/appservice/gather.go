package appservice

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// gather adds what a service wants of a record to a transaction.
func (l *line) gather(ctx context.Context, p *part, rec *partition.Record, t *draft) error {
	id := ids.RoomID(rec.Entity)
	switch rec.Kind {
	case partition.RecordEvent:
		e, err := l.sender.rooms.Record(ctx, rec)
		if err != nil || e == nil {
			return err
		}
		wants, err := p.rooms.event(ctx, e)
		if err != nil || !wants {
			return err
		}
		t.event(e)
		if u, came := entered(e); came && l.svc.Encryption {
			// What changed while they shared no room was not told.
			t.devicesOf(u)
		}
	case partition.RecordAlias:
		p.rooms.forget(id)
	case partition.RecordReceipt:
		if l.svc.Ephemeral {
			return l.gatherReceipt(ctx, p, id, rec, t)
		}
	case partition.RecordDevices:
		if !l.svc.Encryption {
			return nil
		}
		in, err := p.rooms.at(ctx, id, rec.Seq)
		if err == nil && in.any() {
			t.devicesOf(ids.UserID(rec.Data))
		}
		return err
	case partition.RecordUser:
		if u := ids.UserID(rec.Entity); (l.svc.Ephemeral || l.svc.Encryption) && l.svc.HasUser(u) {
			return l.gatherUser(ctx, u, rec, t)
		}
	}
	return nil
}

// entered returns who came into a room by an event.
func entered(e *room.Stored) (ids.UserID, bool) {
	if e.Type != event.TypeMember || e.StateKey == nil || e.Member().Membership != event.Join {
		return "", false
	}
	was := e.PrevContent != nil && event.ParseMember(e.PrevContent).Membership == event.Join
	return ids.UserID(*e.StateKey), !was
}

// gatherReceipt adds a receipt. Private ones are for the user's own service.
// spec: application-service §Pushing EDUs.
func (l *line) gatherReceipt(ctx context.Context, p *part, id ids.RoomID, rec *partition.Record, t *draft) error {
	in, err := p.rooms.at(ctx, id, rec.Seq)
	if err != nil || !in.any() {
		return err
	}
	r, _ := rec.Obj.(*room.Receipt)
	if r == nil {
		list, err := l.sender.rooms.Receipts(ctx, id, rec.Seq-1, rec.Seq, 1)
		if err != nil || len(list) == 0 { // a later one took its place
			return err
		}
		r = list[0]
	}
	if r.Type == room.ReceiptRead || l.svc.HasUser(r.User) {
		t.receipt(id, r)
	}
	return nil
}

// gatherUser adds what happened to one of the service's users.
func (l *line) gatherUser(ctx context.Context, u ids.UserID, rec *partition.Record, t *draft) error {
	c, _ := rec.Obj.(*account.Change)
	if c == nil {
		var err error
		if c, err = account.DecodeChange(rec.Seq, rec.Data); err != nil {
			// Nobody will ever read it, and all that is behind it would wait.
			l.sender.opts.Log.Error("malformed change", "user", u, "seq", rec.Seq, "error", err)
			return nil
		}
	}
	switch {
	case c.Kind == account.ChangeToDevice && l.svc.Ephemeral:
		for _, d := range c.Devices {
			list, err := l.sender.accounts.Inbox(ctx, u, d, rec.Seq-1, rec.Seq, 1)
			if err != nil {
				return err
			}
			in := inbox{u, d, rec.Seq}
			for _, m := range list { // none if the device was quicker
				if m.Event != nil {
					t.message(in, m)
				}
				t.inboxes = append(t.inboxes, in)
			}
		}
	case c.Kind == account.ChangeKeyCounts && l.svc.Encryption:
		for _, d := range c.Devices {
			st, err := l.sender.accounts.KeyState(ctx, u, d)
			if err != nil {
				return err
			}
			if st != nil {
				t.keysOf(u, d, st)
			}
		}
	case c.Kind == account.ChangeDevices && l.svc.Encryption:
		t.devicesOf(c.User)
	}
	return nil
}
