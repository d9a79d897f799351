package room

import (
	"context"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// TypeRetention is the state that says how long the events of a room are kept.
// spec: MSC1763.
const TypeRetention = "m.room.retention"

// Retention is how long the server keeps events that are no state. The zero value
// keeps all for ever, whatever rooms say.
type Retention struct {
	Enabled bool
	// Default is the lifetime in rooms that say nothing, in ms; 0 for ever.
	Default int64
	// Min and Max are the bounds of what rooms can say, in ms; 0 for none.
	Min, Max int64
}

// Lifetime returns how long events of a room are kept, in ms; 0 for ever.
func (p Retention) Lifetime(h *Head) int64 {
	switch {
	case !p.Enabled:
		return 0
	case h.Lifetime == 0:
		return p.Default
	case p.Max != 0:
		return max(min(h.Lifetime, p.Max), p.Min)
	}
	return max(h.Lifetime, p.Min)
}

// lifetimeOf reads m.room.retention: max_lifetime, and no less than min_lifetime;
// 0 for ever, also where the content makes no sense.
func lifetimeOf(content []byte) int64 {
	number := func(name string) int64 {
		raw, ok := event.Field(content, name)
		if !ok {
			return 0
		}
		n := int64(0)
		for _, c := range raw {
			if c < '0' || c > '9' || n > event.MaxInt/10 {
				return 0
			}
			n = 10*n + int64(c-'0')
		}
		return n
	}
	longest := number("max_lifetime")
	if longest == 0 {
		return 0
	}
	return max(longest, number("min_lifetime"))
}

// expiry hides what is older than it may be, also before it is removed.
type expiry struct {
	Retention
	clock clock.Clock
}

// maxExpiredPages bounds the pages that a read steps over because all in them has
// expired: what is left there is removed soon.
const maxExpiredPages = 50

// WithRetention returns a Reader that shows no events which are older than a policy
// allows.
func (r *Reader) WithRetention(p Retention, c clock.Clock) *Reader {
	n := *r
	if p.Enabled {
		n.expiry = &expiry{p, c}
	}
	return &n
}

// Oldest returns the time before which events of a room have expired, in ms since
// 1970; 0 if none have.
func (e *expiry) oldest(h *Head) int64 {
	if h == nil {
		return 0
	}
	if life := e.Lifetime(h); life != 0 {
		return e.clock.Now().UnixMilli() - life
	}
	return 0
}

// freshRecord is the age up to which an event of the log that is in memory is not asked
// about: the room's head would have to be read for each message that is sent.
const freshRecord = time.Minute

// aged reports whether an event may have expired since it was sent.
func (e *expiry) aged(s *Stored) bool {
	return s.StateKey == nil && e.clock.Now().UnixMilli()-s.OriginServerTS > freshRecord.Milliseconds()
}

func expired(s *Stored, oldest int64) bool {
	return s != nil && s.StateKey == nil && s.OriginServerTS < oldest
}

// hide sets expired events to nil.
func (r *Reader) hide(ctx context.Context, room ids.RoomID, list []*Stored) error {
	if r.expiry == nil {
		return nil
	}
	oldest := int64(-1)
	for i, s := range list {
		if s == nil || s.StateKey != nil {
			continue
		}
		if oldest < 0 {
			h, err := r.Head(ctx, room)
			if err != nil {
				return err
			}
			oldest = r.expiry.oldest(h)
		}
		if expired(s, oldest) {
			list[i] = nil
		}
	}
	return nil
}

// unexpired is Timeline that leaves out what has expired: it goes on until the
// page is full, since a short one says that there is no more.
func (r *Reader) unexpired(ctx context.Context, room ids.RoomID, pg Page) ([]*Stored, error) {
	h, err := r.Head(ctx, room)
	if err != nil {
		return nil, err
	}
	oldest := r.expiry.oldest(h)
	if oldest == 0 {
		return r.timeline(ctx, room, pg)
	}
	var out []*Stored
	limit := pg.Limit
	for range maxExpiredPages {
		list, err := r.timeline(ctx, room, pg)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			if !expired(s, oldest) {
				out = append(out, s)
			}
		}
		if len(list) < pg.Limit || len(out) >= limit {
			break
		}
		if last := list[len(list)-1].Seq; pg.Newest {
			pg.UpTo = last - 1
		} else {
			pg.After = last
		}
	}
	return out[:min(len(out), limit)], nil
}
