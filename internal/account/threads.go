package account

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// ConflictingUnsubscription: an automatic subscription for something that was said
// before the user unsubscribed. spec: MSC4306.
const ConflictingUnsubscription merr.Code = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"

// ThreadSubscription is whether a user follows a thread. One that ended is kept, so
// that automatic ones from before do not begin it again. spec: MSC4306.
type ThreadSubscription struct {
	Room ids.RoomID  `json:"-"`
	Root ids.EventID `json:"-"`
	// Subscribed is false once the user has unsubscribed.
	Subscribed bool `json:"subscribed"`
	// Automatic: by the user's client, not by the user.
	Automatic bool `json:"automatic,omitzero"`
	// EndedAt is the end of the room at the time when the user unsubscribed.
	EndedAt ids.Seq `json:"ended_at,omitzero"`
	// Seq is the position of the last change.
	Seq ids.Seq `json:"seq"`
}

// The rows of a table with two orders: a room ID begins with "!", and the list by
// change with a byte that no ID begins with.
const threadLogPrefix = "\x01"

func (p Place) threadSubscription(r ids.RoomID, root ids.EventID) storage.Key {
	return p.key(tables.ThreadSubscription, partition.JoinSort(string(r), string(root)))
}

func (p Place) threadLog(s ids.Seq) storage.Key {
	return p.key(tables.ThreadSubscription, threadLogPrefix+tables.SeqSort(s))
}

// SubscribeThread subscribes a user to a thread, or ends that. Whether there is such
// a thread the caller knows.
type SubscribeThread struct {
	command
	Room ids.RoomID
	Root ids.EventID
	// Subscribed says which.
	Subscribed bool
	// Cause is the position of the event that an automatic subscription is for, 0
	// for what the user wants.
	Cause ids.Seq
	// End is the end of the room, for the end of a subscription.
	End ids.Seq
}

// NewSubscribeThread returns a command to subscribe; cause is 0 unless it is
// automatic.
func NewSubscribeThread(user ids.UserID, r ids.RoomID, root ids.EventID, cause ids.Seq) *SubscribeThread {
	return &SubscribeThread{command: command{user}, Room: r, Root: root, Subscribed: true, Cause: cause}
}

// NewUnsubscribeThread returns a command to end a subscription in a room that ends
// at a position.
func NewUnsubscribeThread(user ids.UserID, r ids.RoomID, root ids.EventID, end ids.Seq) *SubscribeThread {
	return &SubscribeThread{command: command{user}, Room: r, Root: root, End: end}
}

var _ partition.Command = (*SubscribeThread)(nil)

// Name implements partition.Command.
func (c *SubscribeThread) Name() string { return "subscribe_thread" }

// Prepare implements partition.Command.
func (c *SubscribeThread) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).threadSubscription(c.Room, c.Root))
}

// Apply implements partition.Command.
func (c *SubscribeThread) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	k := p.threadSubscription(c.Room, c.Root)
	old := get[ThreadSubscription](tx, k)
	if old == nil {
		old = &ThreadSubscription{}
	}
	automatic := c.Subscribed && c.Cause != 0
	switch {
	case !c.Subscribed && !old.Subscribed:
		return nil, nil
	case automatic && old.Subscribed, c.Subscribed && !automatic && old.Subscribed && !old.Automatic:
		return nil, nil // what the user wanted stays that
	case automatic && c.Cause <= old.EndedAt:
		return nil, merr.New(http.StatusConflict, ConflictingUnsubscription, "You have unsubscribed after that event")
	}
	// The record wakes the feeds, if there is one that shows this; a sync does not.
	change := &Change{Kind: ChangeThread, Seq: tx.NextSeq(), Room: c.Room}
	tx.Emit(partition.Record{Kind: partition.RecordUser, Entity: string(c.User), Data: encode(change), Obj: change})
	if old.Seq != 0 {
		tx.Delete(p.threadLog(old.Seq))
	}
	tx.Put(p.threadLog(change.Seq), []byte(k.Sort), nil)
	put(tx, k, &ThreadSubscription{Subscribed: c.Subscribed, Automatic: automatic, EndedAt: max(old.EndedAt, c.End), Seq: change.Seq})
	return nil, nil
}

// ThreadSubscription returns a user's subscription to a thread, nil if there never
// was one.
func (r *Reader) ThreadSubscription(ctx context.Context, user ids.UserID, room ids.RoomID, root ids.EventID) (*ThreadSubscription, error) {
	s, err := one[ThreadSubscription](ctx, r, r.Place(user).threadSubscription(room, root))
	if s != nil {
		s.Room, s.Root = room, root
	}
	return s, err
}

// ThreadSubscriptions returns the subscriptions that changed above after and up to
// upTo, the last change first, at most limit of them; next is the upTo to go on
// with, 0 if there are no more.
func (r *Reader) ThreadSubscriptions(ctx context.Context, user ids.UserID, after, upTo ids.Seq, limit int) (list []*ThreadSubscription, next ids.Seq, err error) {
	if upTo <= after {
		return nil, 0, nil
	}
	p := r.Place(user)
	from, to := p.threadLog(after+1), p.threadLog(upTo+1)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: from.Partition, Table: from.Table, Entity: from.Entity, From: from.Sort, To: to.Sort, Limit: limit + 1, Reverse: true,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list subscriptions: %w", err)
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next = tables.SortSeq(rows[limit-1].Sort) - 1
	}
	keys := make([]storage.Key, len(rows))
	for i, row := range rows {
		keys[i] = p.key(tables.ThreadSubscription, string(row.Value))
	}
	values, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, 0, fmt.Errorf("read subscriptions: %w", err)
	}
	for i, value := range values {
		if value == nil {
			continue // the room was taken from the user's list
		}
		s, err := optional[ThreadSubscription](r, keys[i], value)
		if err != nil {
			return nil, 0, err
		}
		if s == nil {
			continue
		}
		room, root, _ := strings.Cut(keys[i].Sort, "\x00")
		s.Room, s.Root = ids.RoomID(room), ids.EventID(root)
		list = append(list, s)
	}
	return list, next, nil
}

// SubscribedThreads returns the roots of the threads of a room that a user is
// subscribed to.
func (r *Reader) SubscribedThreads(ctx context.Context, user ids.UserID, room ids.RoomID) (map[ids.EventID]struct{}, error) {
	out := make(map[ids.EventID]struct{})
	prefix := partition.JoinSort(string(room), "")
	err := r.scan(ctx, r.Place(user), tables.ThreadSubscription, prefix, partition.PrefixEnd(prefix), func(e storage.Entry) error {
		s := ThreadSubscription{}
		if ok, err := listed(r, r.Place(user), tables.ThreadSubscription, e, &s); !ok {
			return err
		}
		if s.Subscribed {
			out[ids.EventID(e.Sort[len(prefix):])] = struct{}{}
		}
		return nil
	})
	return out, err
}

// SubscribedTo returns, by user, which of some threads of a room they are subscribed
// to, in one read.
func (r *Reader) SubscribedTo(ctx context.Context, room ids.RoomID, roots []ids.EventID, users ...ids.UserID) ([]map[ids.EventID]struct{}, error) {
	keys := make([]storage.Key, 0, len(users)*len(roots))
	for _, u := range users {
		for _, root := range roots {
			keys = append(keys, r.Place(u).threadSubscription(room, root))
		}
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	out := make([]map[ids.EventID]struct{}, len(users))
	for i := range users {
		out[i] = make(map[ids.EventID]struct{})
		for j, root := range roots {
			at := i*len(roots) + j
			s, err := optional[ThreadSubscription](r, keys[at], rows[at])
			if err != nil {
				return nil, err
			}
			if s != nil && s.Subscribed {
				out[i][root] = struct{}{}
			}
		}
	}
	return out, nil
}
