package push

import (
	"cmp"
	"context"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// A list of notifications begins with what can be found at once: the last
// firstEvents events of the last firstRooms rooms that the user came into.
const (
	firstRooms  = 100
	firstEvents = 20
)

// List begins to keep the list of notifications of a user for whom none is kept:
// a row for each notification of each user would be far too many, when hardly
// anyone asks.
func (s *Service) List(ctx context.Context, user ids.UserID) error {
	list, err := s.accounts.Watchers(ctx, feed.TypeIgnored, user)
	if err != nil || list[0].State.Active() {
		return err
	}
	person, err := s.judge.Person(user, list[0].Rules, list[0].Ignored)
	if err != nil {
		return err
	}
	if _, err := s.opts.Router.Do(ctx, account.NewListNotifications(user)); err != nil {
		return err
	}
	rooms, err := s.accounts.Memberships(ctx, user)
	if err != nil {
		return err
	}
	rooms = slices.DeleteFunc(rooms, func(m *account.Membership) bool { return m.Membership != event.Join })
	slices.SortFunc(rooms, func(a, b *account.Membership) int { return cmp.Compare(b.Seq, a.Seq) })
	w := &work{notified: make(map[ids.UserID]*account.Notified)}
	for _, m := range rooms[:min(len(rooms), firstRooms)] {
		if err := s.firstOf(ctx, w, user, person, m); err != nil {
			return err
		}
	}
	return s.notify(ctx, w)
}

// firstOf finds what notified a user at the end of a room.
func (s *Service) firstOf(ctx context.Context, w *work, user ids.UserID, person *feed.Person, m *account.Membership) error {
	head, err := s.rooms.Head(ctx, m.Room)
	if err != nil || head == nil {
		return err
	}
	events, err := s.rooms.Timeline(ctx, m.Room, room.Page{After: m.Joined, UpTo: head.Last, Limit: firstEvents, Newest: true})
	if err != nil || len(events) == 0 {
		return err
	}
	bench, err := s.judge.Bench(ctx, m.Room)
	if err != nil {
		return err
	}
	member, err := s.rooms.StateEvent(ctx, m.Room, event.TypeMember, string(user))
	if err != nil || member == nil {
		return err
	}
	threads, err := s.subscribed(ctx, m.Room, events, []ids.UserID{user})
	if err != nil {
		return err
	}
	as := pushrules.NewMember(member.Member().DisplayName)
	if threads != nil {
		as.Threads = threads[0]
	}
	for _, e := range events {
		if out := person.Decide(bench.Case(e), as); out != nil {
			if err := w.add(user, e, out); err != nil {
				return err
			}
		}
	}
	return nil
}
