package push

import (
	"context"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// maxBadges bounds the users whose counts are kept. Any other is counted anew.
const maxBadges = 20_000

// badges counts what users have not read in all their rooms: the sum of what a sync
// says. All rooms are counted once; from then on only those of which the user's
// log says that something changed.
type badges struct {
	svc *Service
	mu  struct {
		sync.Mutex
		users map[ids.UserID]*badge
	}
}

type badge struct {
	// counting is held by whoever counts.
	counting sync.Mutex
	person   *feed.Person
	rooms    map[ids.RoomID]*roomBadge

	mu struct {
		sync.Mutex
		// all: every room has to be counted; dirty: those have.
		all   bool
		dirty map[ids.RoomID]struct{}
	}
}

type roomBadge struct {
	unread feed.Unread
	n      int
}

func newBadges(svc *Service) *badges {
	b := &badges{svc: svc}
	b.mu.users = make(map[ids.UserID]*badge)
	return b
}

// touch notes that rooms of a user have to be counted again.
func (b *badges) touch(user ids.UserID, rooms []ids.RoomID) {
	if u := b.get(user, false); u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, r := range rooms {
			u.mu.dirty[r] = struct{}{}
		}
	}
}

// changed takes a change of a user: of the list of rooms, or of what decides about
// notifications.
func (b *badges) changed(user ids.UserID, c *account.Change) {
	switch {
	case c.Kind == account.ChangeMembership, c.Kind == account.ChangeThread:
		b.touch(user, []ids.RoomID{c.Room})
	case c.Kind == account.ChangeAccountData && c.Room == "" && (c.Type == account.TypePushRules || c.Type == feed.TypeIgnored):
		if u := b.get(user, false); u != nil {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.mu.all = true
		}
	}
}

// forget drops the users of a partition: what changed while it was elsewhere is not
// known.
func (b *badges) forget(p ids.Partition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u := range b.mu.users {
		if ids.PartitionOf(string(u), b.svc.opts.Count) == p {
			delete(b.mu.users, u)
		}
	}
}

func (b *badges) get(user ids.UserID, add bool) *badge {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.mu.users[user]
	if u != nil || !add {
		return u
	}
	for other := range b.mu.users {
		if len(b.mu.users) < maxBadges {
			break
		}
		delete(b.mu.users, other)
	}
	u = &badge{}
	u.mu.all, u.mu.dirty = true, make(map[ids.RoomID]struct{})
	b.mu.users[user] = u
	return u
}

// count returns the number of notifications that a user has not read.
func (b *badges) count(ctx context.Context, user ids.UserID) (int, error) {
	u := b.get(user, true)
	u.counting.Lock()
	defer u.counting.Unlock()
	u.mu.Lock()
	all, dirty := u.mu.all, u.mu.dirty
	u.mu.all, u.mu.dirty = false, make(map[ids.RoomID]struct{})
	u.mu.Unlock()
	err := b.recount(ctx, user, u, all, dirty)
	if err != nil {
		u.mu.Lock()
		u.mu.all = true
		u.mu.Unlock()
		return 0, err
	}
	total := 0
	for _, r := range u.rooms {
		total += r.n
	}
	return total, nil
}

func (b *badges) recount(ctx context.Context, user ids.UserID, u *badge, all bool, dirty map[ids.RoomID]struct{}) error {
	if all {
		var err error
		if u.person, err = b.svc.judge.ReadPerson(ctx, user); err != nil {
			return err
		}
		rooms, err := b.svc.accounts.Joined(ctx, user)
		if err != nil {
			return err
		}
		u.rooms = make(map[ids.RoomID]*roomBadge)
		for _, r := range rooms {
			dirty[r] = struct{}{}
		}
	}
	for r := range dirty {
		rb := u.rooms[r]
		if rb == nil {
			rb = &roomBadge{}
		}
		var err error
		if rb.n, err = b.svc.judge.Unread(ctx, u.person, r, &rb.unread); err != nil {
			return err
		}
		if rb.n > 0 {
			u.rooms[r] = rb
		} else {
			delete(u.rooms, r)
		}
	}
	return nil
}
