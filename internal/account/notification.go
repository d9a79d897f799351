package account

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Limits.
const (
	// MaxNotifications is how many notifications of a user are kept; up to twice
	// as many stand there until they are trimmed.
	MaxNotifications = 500
	// MaxQueued is how many notifications wait for one pusher. When more come than
	// its gateway takes, those that wait are dropped: after a day without push
	// nobody wants hundreds of old ones, and the badge tells the number.
	MaxQueued = 100
	// MaxNotify is how many users one command notifies.
	MaxNotify = 200
)

// Notification is an event that a user's push rules notify of.
type Notification struct {
	Room  ids.RoomID  `json:"room"`
	Event ids.EventID `json:"event"`
	// Seq is the event's position in the room's partition.
	Seq ids.Seq `json:"seq"`
	// TS is the event's time, in ms since 1970.
	TS        int64          `json:"ts"`
	Highlight bool           `json:"highlight,omitzero"`
	Sound     string         `json:"sound,omitempty"`
	Actions   jsontext.Value `json:"actions"`
}

// NotificationSort is the place of a notification in a user's list: by time. An
// event has one place, so that one which is told twice is kept once.
func NotificationSort(n *Notification, count int) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(min(max(n.TS, 0), math.MaxInt64-1)))
	b = binary.BigEndian.AppendUint16(b, uint16(ids.PartitionOf(string(n.Room), count)))
	return string(binary.BigEndian.AppendUint64(b, uint64(n.Seq)))
}

// badgeSort stands behind all notifications: it is sent when these are.
const badgeSort = "\xff"

func (p Place) notification(sort string) storage.Key { return p.key(tables.Notification, sort) }

// queue is the row of what a pusher is to be sent, of all of it if sort is "".
func (p Place) queue(id PusherID, sort string) storage.Key {
	return storage.Key{
		Partition: p.Partition, Table: tables.PushQueue,
		Sort: string(p.User) + "\x00" + string(id) + sort,
	}
}

// Notified are the new notifications of a user.
type Notified struct {
	User  ids.UserID
	Items []Notification
	// Read are rooms in which the user has read: their pushers are told the number
	// of what is unread.
	Read []ids.RoomID
}

// Notify keeps notifications, and queues them for the pushers, of users of one
// partition. It is idempotent.
type Notify struct {
	P     ids.Partition
	Users []Notified

	trim []string // by user: what is kept begins here, "" if nothing is trimmed
}

var _ partition.Command = (*Notify)(nil)

// Name implements partition.Command.
func (*Notify) Name() string { return "notify" }

// Partition implements partition.Command.
func (c *Notify) Partition(int) ids.Partition { return c.P }

// Prepare implements partition.Command.
func (c *Notify) Prepare(ctx context.Context, p *partition.Prep) error {
	r := NewReader(p.Store(), p.Count())
	var keys []storage.Key
	c.trim = make([]string, len(c.Users))
	for i, u := range c.Users {
		pl := Place{c.P, u.User}
		keys = append(keys, pl.push())
		for j := range u.Items {
			keys = append(keys, pl.notification(NotificationSort(&u.Items[j], p.Count())))
		}
		s, err := r.PushState(ctx, u.User)
		if err != nil {
			return err
		}
		if s == nil || s.Count < 2*MaxNotifications {
			continue
		}
		if c.trim[i], err = r.oldestKept(ctx, pl); err != nil {
			return err
		}
	}
	return p.Pin(ctx, keys...)
}

// oldestKept is the place of the last notification that a trim leaves.
func (r *Reader) oldestKept(ctx context.Context, p Place) (string, error) {
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.Notification, Entity: string(p.User), Limit: MaxNotifications, Reverse: true,
	})
	if err != nil || len(rows) < MaxNotifications {
		return "", wrap("scan notifications", err)
	}
	return rows[len(rows)-1].Sort, nil
}

// Apply implements partition.Command.
func (c *Notify) Apply(tx *partition.Tx) (any, error) {
	for i := range c.Users {
		c.apply(tx, &c.Users[i], c.trim[i])
	}
	return nil, nil
}

func (c *Notify) apply(tx *partition.Tx, u *Notified, trim string) {
	p := Place{c.P, u.User}
	if get[PushState](tx, p.push()) == nil {
		return
	}
	s := pushState(tx, p)
	if !s.Active() {
		return
	}
	told := pushRecord{Rooms: u.Read}
	for j := range u.Items {
		n := &u.Items[j]
		sort := NotificationSort(n, tx.Count())
		k := p.notification(sort)
		if tx.Get(k).Value != nil {
			continue // told before
		}
		put(tx, k, n)
		s.Count++
		told.Rooms = append(told.Rooms, n.Room)
		for i := range s.Pushers {
			if !s.Pushers[i].Inactive {
				s.Pushers[i].enqueue(tx, p, sort)
			}
		}
	}
	if len(told.Rooms) == 0 {
		return
	}
	if trim != "" && s.Count >= 2*MaxNotifications {
		tx.DeleteRange(p.notification(""), trim)
		s.Count = MaxNotifications
	}
	for i := range s.Pushers {
		if s.Pushers[i].Inactive {
			continue
		}
		if len(u.Read) > 0 {
			tx.Put(p.queue(s.Pushers[i].ID(), badgeSort), []byte{}, nil)
		}
		told.Pushers = append(told.Pushers, []byte(s.Pushers[i].ID()))
	}
	put(tx, p.push(), &s)
	tx.Emit(partition.Record{Kind: partition.RecordPush, Entity: string(u.User), Data: encode(&told)})
}

func (pu *Pusher) enqueue(tx *partition.Tx, p Place, sort string) {
	if pu.Queued >= MaxQueued {
		tx.DeletePrefix(p.queue(pu.ID(), ""))
		pu.Queued = 0
	}
	tx.Put(p.queue(pu.ID(), sort), []byte{}, nil)
	pu.Queued++
}

// pushRecord is the Data of a RecordPush.
type pushRecord struct {
	// Pushers have something to be sent; the counts of Rooms changed.
	Pushers [][]byte     `json:"p"`
	Rooms   []ids.RoomID `json:"r"`
}

// DecodePush reads the Data of a RecordPush.
func DecodePush(data []byte) (pushers []PusherID, rooms []ids.RoomID, err error) {
	var r pushRecord
	if err := decode(data, &r); err != nil {
		return nil, nil, wrap("push record", err)
	}
	for _, id := range r.Pushers {
		pushers = append(pushers, PusherID(id))
	}
	return pushers, r.Rooms, nil
}

// Sent removes from the queue of a pusher what it was sent.
type Sent struct {
	command
	Pusher PusherID
	// Sorts are the rows that are done with.
	Sorts []string
	// Badge is the number that the pusher was told, -1 if it was told none.
	Badge int
}

// NewSent returns the command.
func NewSent(user ids.UserID, id PusherID, sorts []string, badge int) *Sent {
	return &Sent{command{user}, id, sorts, badge}
}

var _ partition.Command = (*Sent)(nil)

// Name implements partition.Command.
func (*Sent) Name() string { return "push_sent" }

// Prepare implements partition.Command.
func (c *Sent) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).push())
}

// Apply implements partition.Command.
func (c *Sent) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	for _, sort := range c.Sorts {
		tx.Delete(p.queue(c.Pusher, sort))
	}
	s := pushState(tx, p)
	if pu := s.Pusher(c.Pusher); pu != nil {
		for _, sort := range c.Sorts {
			if sort != badgeSort && len(sort) != ackSortBytes {
				pu.Queued = max(0, pu.Queued-1)
			}
		}
		if c.Badge >= 0 {
			pu.Badge, pu.Told = c.Badge, true
		}
		put(tx, p.push(), &s)
	}
	return nil, nil
}

// ListNotifications makes the list of notifications be kept for a user who has no
// pusher. A user who has asked for it once wants to see it again.
type ListNotifications struct {
	command
	watch watching
}

// NewListNotifications returns the command.
func NewListNotifications(user ids.UserID) *ListNotifications {
	return &ListNotifications{command: command{user}}
}

var _ partition.Command = (*ListNotifications)(nil)

// Name implements partition.Command.
func (*ListNotifications) Name() string { return "list_notifications" }

// Prepare implements partition.Command.
func (c *ListNotifications) Prepare(ctx context.Context, p *partition.Prep) error {
	return c.watch.prepare(ctx, p, c.at(p))
}

// Apply implements partition.Command.
func (c *ListNotifications) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	before, s := pushState(tx, p), pushState(tx, p)
	if s.Listed {
		return nil, nil
	}
	s.Listed = true
	if err := c.watch.apply(tx, p, &before, &s); err != nil {
		return nil, err
	}
	put(tx, p.push(), &s)
	return nil, nil
}

// ListedNotification is a notification with its place in the list.
type ListedNotification struct {
	Notification
	Sort string
}

// Notifications returns notifications of a user, newest first, that are older than
// the place before ("" to begin), at most limit.
func (r *Reader) Notifications(ctx context.Context, user ids.UserID, before string, limit int) ([]ListedNotification, error) {
	p := r.Place(user)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.Notification, Entity: string(user), To: before, Limit: limit, Reverse: true,
	})
	if err != nil {
		return nil, wrap("scan notifications", err)
	}
	out := make([]ListedNotification, 0, len(rows))
	for _, row := range rows {
		n := ListedNotification{Sort: row.Sort}
		ok, err := listed(r, p, tables.Notification, row, &n.Notification)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, n)
		}
	}
	if left := len(rows) - len(out); left > 0 && len(rows) == limit { // a short list says that there is no more
		more, err := r.Notifications(ctx, user, rows[len(rows)-1].Sort, left)
		return append(out, more...), err
	}
	return out, nil
}

// Queued is one row of the queue of a pusher. Its Notification is nil if it asks
// for the badge alone, or if the notification was trimmed.
type Queued struct {
	Sort string
	// Badge: only the number of what is unread is to be told.
	Badge bool
	// Ack: the pusher's Ack is to be told.
	Ack          bool
	Notification *Notification
}

// Queue returns what a pusher is to be sent, in order, at most limit.
func (r *Reader) Queue(ctx context.Context, user ids.UserID, id PusherID, limit int) ([]Queued, error) {
	p := r.Place(user)
	prefix := p.queue(id, "").Sort
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.PushQueue, From: prefix, To: partition.PrefixEnd(prefix), Limit: limit,
	})
	if err != nil {
		return nil, wrap("scan push queue", err)
	}
	out := make([]Queued, len(rows))
	for i, row := range rows {
		q := &out[i]
		q.Sort = row.Sort[len(prefix):]
		if q.Badge, q.Ack = q.Sort == badgeSort, len(q.Sort) == ackSortBytes; q.Badge || q.Ack {
			continue
		}
		if q.Notification, err = maybe[Notification](ctx, r, p.notification(q.Sort)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Waiting is a pusher that has something to be sent.
type Waiting struct {
	User   ids.UserID
	Pusher PusherID
}

// WaitingPushers lists the pushers of a partition that have something to be sent,
// behind one of them (the zero Waiting to begin), at most limit.
func (r *Reader) WaitingPushers(ctx context.Context, p ids.Partition, after Waiting, limit int) ([]Waiting, error) {
	var out []Waiting
	from := ""
	if after.User != "" {
		from = partition.PrefixEnd(Place{p, after.User}.queue(after.Pusher, "").Sort)
	}
	for len(out) < limit {
		rows, err := r.st.Scan(ctx, storage.Range{Partition: p, Table: tables.PushQueue, From: from, Limit: 1})
		if err != nil || len(rows) == 0 {
			return out, wrap("scan push queue", err)
		}
		w, ok := splitQueue(rows[0].Sort)
		if ok {
			out = append(out, w)
			from = partition.PrefixEnd(Place{p, w.User}.queue(w.Pusher, "").Sort)
		} else {
			from = rows[0].Sort + "\x00"
		}
	}
	return out, nil
}

func splitQueue(sort string) (Waiting, bool) {
	for i := range len(sort) {
		if sort[i] == 0 && len(sort) >= i+1+pusherIDBytes {
			return Waiting{ids.UserID(sort[:i]), PusherID(sort[i+1 : i+1+pusherIDBytes])}, true
		}
	}
	return Waiting{}, false
}
