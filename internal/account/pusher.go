package account

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// MaxPushers bounds the pushers of one user: each costs a request for each
// notification. A device has one, rarely two.
const MaxPushers = 50

// Pusher is where a user's notifications are sent. spec: client-server §Push
// Notifications, POST /pushers/set.
type Pusher struct {
	AppID             string         `json:"app_id"`
	PushKey           string         `json:"pushkey"`
	Kind              string         `json:"kind"`
	AppDisplayName    string         `json:"app_display_name"`
	DeviceDisplayName string         `json:"device_display_name"`
	ProfileTag        string         `json:"profile_tag,omitempty"`
	Lang              string         `json:"lang"`
	Data              jsontext.Value `json:"data"`
	// Device is the session that set it, and ends it with itself.
	Device ids.DeviceID `json:"device,omitempty"`
	// SetTS is when it was set, in ms since 1970.
	SetTS int64 `json:"set_ts"`
	// Badge is the number it was last told, Told whether it was told any.
	Badge int  `json:"badge,omitzero"`
	Told  bool `json:"told,omitzero"`
	// Queued is about how many notifications wait to be sent.
	Queued int `json:"queued,omitzero"`
	// Inactive: nobody has proved yet that what is sent arrives. Until its app says Ack,
	// which it is sent, it is sent nothing else. spec: MSC4174.
	Inactive bool   `json:"inactive,omitzero"`
	Ack      string `json:"ack,omitempty"`
}

// PusherID names a pusher of a user: a hash of its app and key.
type PusherID string

// pusherIDBytes make two pushers of one user differ.
const pusherIDBytes = 12

// ID returns the pusher's name, of pusherIDBytes bytes.
func (p *Pusher) ID() PusherID {
	h := p.hash()
	return PusherID(h[:pusherIDBytes])
}

func (p *Pusher) hash() [sha256.Size]byte { return sha256.Sum256([]byte(p.AppID + "\x00" + p.PushKey)) }

// keyEntity is the entity of the PushKey row.
func (p *Pusher) keyEntity() string {
	h := p.hash()
	return "pushkey:" + string(h[:])
}

// PushState is the Push row of a user. It is shared and must not be changed.
type PushState struct {
	Pushers []Pusher `json:"pushers,omitempty"`
	// Listed: the user has asked for the list of notifications, so it is kept
	// though there may be no pusher.
	Listed bool `json:"listed,omitzero"`
	// Watch counts how often the user began to be told of what happens in their
	// rooms; it stands in the rooms' RoomWatch rows.
	Watch uint64 `json:"watch,omitzero"`
	// Count is about how many notifications are kept.
	Count int `json:"count,omitzero"`
}

// Active reports whether the user is to be told of what happens.
func (s *PushState) Active() bool { return s != nil && (s.Listed || len(s.Pushers) > 0) }

// Shows reports whether a pusher of the user may show a number of unread messages
// that is above 0: if not, reading cannot lower it.
func (s *PushState) Shows() bool {
	return s != nil && slices.ContainsFunc(s.Pushers, func(p Pusher) bool {
		return !p.Inactive && (p.Badge > 0 || p.Queued > 0 || !p.Told)
	})
}

// Pusher returns the pusher of a name, nil if there is none.
func (s *PushState) Pusher(id PusherID) *Pusher {
	if s != nil {
		for i := range s.Pushers {
			if s.Pushers[i].ID() == id {
				return &s.Pushers[i]
			}
		}
	}
	return nil
}

func (p Place) push() storage.Key { return p.key(tables.Push, "") }

// pushState returns a copy of the pinned row that may be changed.
func pushState(tx *partition.Tx, p Place) PushState {
	var s PushState
	if old := get[PushState](tx, p.push()); old != nil {
		s = *old
		s.Pushers = slices.Clone(old.Pushers)
	}
	return s
}

func pushTables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.Push:         {Keep: true, Decode: mendable[PushState]},
		tables.Notification: {Decode: decoder[Notification]},
		tables.PushQueue:    {},
		tables.PushKey:      {Decode: decoder[pushKey]},
	}
}

// watching makes a user's rooms tell of what happens in them. It is a part of
// commands. Like an announcement, it lists the rooms in Prepare and notices a join
// meanwhile; a room that is joined later begins to tell by membershipEffects.
type watching struct {
	rooms []ids.RoomID
	joins uint64
	begun bool // the user was watching when prepare looked
}

func (w *watching) prepare(ctx context.Context, p *partition.Prep, pl Place) error {
	r := NewReader(p.Store(), p.Count())
	st, err := one[deviceListState](ctx, r, pl.deviceList()) // before the list of rooms
	if err != nil {
		return err
	}
	state, err := r.PushState(ctx, pl.User)
	if err != nil {
		return err
	}
	w.joins, w.rooms, w.begun = st.joins(), nil, state.Active()
	if !w.begun {
		if w.rooms, err = r.Joined(ctx, pl.User); err != nil {
			return err
		}
	}
	return p.Pin(ctx, pl.deviceList(), pl.push())
}

// apply begins to watch if the user did not yet. s is as it will be stored.
func (w *watching) apply(tx *partition.Tx, p Place, before, s *PushState) error {
	if before.Active() || !s.Active() {
		return nil
	}
	if w.begun || get[deviceListState](tx, p.deviceList()).joins() != w.joins {
		return partition.ErrRetry
	}
	s.Watch++
	for _, r := range w.rooms {
		if err := room.Watch(tx, r, p.User, s.Watch); err != nil {
			return err
		}
	}
	return nil
}

// SetPusher adds a pusher or replaces the one with the same app and key.
// M_TOO_LARGE beyond MaxPushers. spec: client-server §POST /pushers/set.
type SetPusher struct {
	command
	Pusher Pusher
	// Append leaves the pushers of other users with the same app and key alone.
	Append bool

	watch watching
}

// PusherSet is the result of SetPusher.
type PusherSet struct {
	// Inactive: the pusher has to be activated.
	Inactive bool
}

// NewSetPusher returns the command.
func NewSetPusher(user ids.UserID, p Pusher, appended bool) *SetPusher {
	return &SetPusher{command: command{user}, Pusher: p, Append: appended}
}

var _ partition.Command = (*SetPusher)(nil)

// Name implements partition.Command.
func (c *SetPusher) Name() string { return "set_pusher" }

// Prepare implements partition.Command.
func (c *SetPusher) Prepare(ctx context.Context, p *partition.Prep) error {
	return c.watch.prepare(ctx, p, c.at(p))
}

// Apply implements partition.Command.
func (c *SetPusher) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	before, s := pushState(tx, p), pushState(tx, p)
	set := c.Pusher
	set.SetTS = tx.Now
	if i := s.index(set.AppID, set.PushKey); i >= 0 {
		old := &s.Pushers[i]
		set.Queued = old.Queued
		set.Inactive = set.Inactive && (old.Inactive || !sameResource(old, &set))
		s.Pushers[i] = set
	} else {
		if len(s.Pushers) >= MaxPushers {
			return nil, merr.TooLargeErr("A user may have %d pushers", MaxPushers)
		}
		s.Pushers = append(s.Pushers, set)
	}
	if err := c.watch.apply(tx, p, &before, &s); err != nil {
		return nil, err
	}
	put(tx, p.push(), &s)
	if set.Inactive {
		set.askAck(tx, p)
	}
	tellKey(tx, p.User, &set, pushKeyChange{Add: true, Alone: !c.Append, TS: tx.Now})
	return PusherSet{set.Inactive}, nil
}

func (s *PushState) index(app, key string) int {
	return slices.IndexFunc(s.Pushers, func(p Pusher) bool { return p.AppID == app && p.PushKey == key })
}

// EndPusher removes a pusher; that there is none is fine.
type EndPusher struct {
	command
	AppID, PushKey string
	// SetTS, if not 0, is when the pusher that is meant was set: one that was set
	// anew since stays.
	SetTS int64
}

// NewEndPusher returns the command.
func NewEndPusher(user ids.UserID, app, key string) *EndPusher {
	return &EndPusher{command: command{user}, AppID: app, PushKey: key}
}

var _ partition.Command = (*EndPusher)(nil)

// Name implements partition.Command.
func (c *EndPusher) Name() string { return "end_pusher" }

// Prepare implements partition.Command.
func (c *EndPusher) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).push())
}

// Apply implements partition.Command.
func (c *EndPusher) Apply(tx *partition.Tx) (any, error) {
	endPushers(tx, c.in(tx), func(p *Pusher) bool {
		return p.AppID == c.AppID && p.PushKey == c.PushKey && (c.SetTS == 0 || c.SetTS == p.SetTS)
	})
	return nil, nil
}

// endPushers removes pushers with what waits for them. The Push row is pinned.
func endPushers(tx *partition.Tx, p Place, which func(*Pusher) bool) {
	s := pushState(tx, p)
	kept := s.Pushers[:0:0]
	for i := range s.Pushers {
		if !which(&s.Pushers[i]) {
			kept = append(kept, s.Pushers[i])
			continue
		}
		tx.DeletePrefix(p.queue(s.Pushers[i].ID(), ""))
		tellKey(tx, p.User, &s.Pushers[i], pushKeyChange{})
	}
	if len(kept) < len(s.Pushers) {
		s.Pushers = kept
		put(tx, p.push(), &s)
	}
}

// endDevicePushers removes the pushers that ended devices had set.
func endDevicePushers(tx *partition.Tx, p Place, ended []ids.DeviceID) {
	endPushers(tx, p, func(pu *Pusher) bool { return slices.Contains(ended, pu.Device) })
}

// endPush ends all by which a user is told of anything, and forgets what they were
// told. The Push row is pinned.
func endPush(tx *partition.Tx, p Place) {
	endPushers(tx, p, func(*Pusher) bool { return true })
	if s := pushState(tx, p); s.Listed {
		s.Listed, s.Count = false, 0
		put(tx, p.push(), &s)
	}
	tx.DeletePrefix(p.notification(""))
}

// PushState returns the Push row of a user.
func (r *Reader) PushState(ctx context.Context, user ids.UserID) (*PushState, error) {
	return one[PushState](ctx, r, r.Place(user).push())
}

// Watcher is what decides about the notifications of one user.
type Watcher struct {
	User ids.UserID
	// State is nil for a user who never had a pusher; Rules and Ignored are their
	// account data, nil where there is none.
	State          *PushState
	Rules, Ignored *Data
}

// Watchers reads what decides about the notifications of users, in one read.
func (r *Reader) Watchers(ctx context.Context, ignoredType string, users ...ids.UserID) ([]Watcher, error) {
	const each = 3
	keys := make([]storage.Key, 0, each*len(users))
	for _, u := range users {
		p := r.Place(u)
		keys = append(keys, p.push(), p.data("", TypePushRules), p.data("", ignoredType))
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, wrap("read watchers", err)
	}
	out := make([]Watcher, len(users))
	for i, u := range users {
		w := Watcher{User: u}
		if w.State, err = optional[PushState](r, keys[each*i], rows[each*i]); err != nil {
			return nil, err
		}
		for j, dst := range [...]**Data{&w.Rules, &w.Ignored} {
			at := each*i + 1 + j
			if *dst, err = optional[Data](r, keys[at], rows[at]); err != nil {
				return nil, err
			}
		}
		out[i] = w
	}
	return out, nil
}
