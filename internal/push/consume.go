package push

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// watcherPage is how many watchers of a room are judged for at once.
	watcherPage = 200
	// notifyers is how many partitions are told at once.
	notifyers = 8
	// waitingPage is how many waiting pushers one look finds.
	waitingPage = 1000
)

// work is what a batch gives to do.
type work struct {
	// rooms are in the order of their first event.
	rooms  []ids.RoomID
	events map[ids.RoomID][]*room.Stored
	// read are the rooms in which users have read.
	read map[ids.UserID]map[ids.RoomID]struct{}
	// notified are the new notifications by user.
	notified map[ids.UserID]*account.Notified
	// watched is the partition's.
	watched *watched
}

// Handle implements consumer.Handler.
func (s *Service) Handle(ctx context.Context, b consumer.Batch) error {
	w := &work{
		events: make(map[ids.RoomID][]*room.Stored), read: make(map[ids.UserID]map[ids.RoomID]struct{}),
		notified: make(map[ids.UserID]*account.Notified), watched: &s.watched[b.Partition],
	}
	w.watched.expire(s.opts.Clock.Now())
	for i := range b.Records {
		if err := s.sort(ctx, w, &b.Records[i], b.Partition); err != nil {
			return err
		}
	}
	for _, r := range w.rooms {
		if err := s.judgeRoom(ctx, w, r, w.events[r]); err != nil {
			return fmt.Errorf("judge events: %w", err)
		}
	}
	if err := s.noteReads(ctx, w); err != nil {
		return err
	}
	return s.notify(ctx, w)
}

// Missed implements consumer.Handler. Notifications of what is that old are no use
// to anyone. What is queued and what is unread are found as if the partition had
// just come: nobody told of the changes.
func (s *Service) Missed(ctx context.Context, p ids.Partition, _, _ ids.Seq) error {
	return s.Begin(ctx, p)
}

// Begin implements consumer.Beginner: the partition's users are this node's now.
func (s *Service) Begin(ctx context.Context, p ids.Partition) error {
	s.sender.begin(ctx, p)
	s.watched[p] = watched{}
	var last account.Waiting
	for {
		list, err := s.accounts.WaitingPushers(ctx, p, last, waitingPage)
		if err != nil {
			return err
		}
		for _, w := range list {
			s.sender.wake(p, w)
		}
		if len(list) < waitingPage {
			return nil
		}
		last = list[len(list)-1]
	}
}

// sort finds out what a record gives to do.
func (s *Service) sort(ctx context.Context, w *work, r *partition.Record, p ids.Partition) error {
	switch r.Kind {
	case partition.RecordEvent:
		e, err := s.rooms.Record(ctx, r)
		if err != nil || e == nil {
			return err
		}
		if w.events[e.RoomID] == nil {
			w.rooms = append(w.rooms, e.RoomID)
		}
		w.events[e.RoomID] = append(w.events[e.RoomID], e)
	case partition.RecordReceipt:
		user := ids.UserID(r.Data[strings.LastIndexByte(string(r.Data), 0)+1:])
		if w.read[user] == nil {
			w.read[user] = make(map[ids.RoomID]struct{})
		}
		w.read[user][ids.RoomID(r.Entity)] = struct{}{}
	case partition.RecordUser:
		s.userChanged(r)
	case partition.RecordPush:
		pushers, rooms, err := account.DecodePush(r.Data)
		if err != nil {
			s.opts.Log.Error("malformed push record", "partition", p, "seq", r.Seq, "error", err)
			return nil
		}
		s.sender.badges.touch(ids.UserID(r.Entity), rooms)
		for _, id := range pushers {
			s.sender.wake(p, account.Waiting{User: ids.UserID(r.Entity), Pusher: id})
		}
	case partition.RecordWatch:
		w.watched.forget(ids.RoomID(r.Entity))
	}
	return nil
}

func (s *Service) userChanged(r *partition.Record) {
	c, ok := r.Obj.(*account.Change)
	if !ok {
		var err error
		if c, err = account.DecodeChange(r.Seq, r.Data); err != nil {
			s.opts.Log.Error("malformed change", "user", r.Entity, "seq", r.Seq, "error", err)
			return
		}
	}
	s.sender.badges.changed(ids.UserID(r.Entity), c)
}

// judgeRoom judges the events of one room, in order, for all who watch it and for
// those invited.
func (s *Service) judgeRoom(ctx context.Context, w *work, r ids.RoomID, events []*room.Stored) error {
	var bench *feed.Bench
	cases := make([]*feed.Case, len(events))
	open := func() (err error) {
		if bench == nil {
			if bench, err = s.judge.Bench(ctx, r); err != nil {
				return err
			}
			for i, e := range events {
				cases[i] = bench.Case(e)
			}
		}
		return nil
	}
	if err := s.newcomers(ctx, w, r, events, cases, open); err != nil {
		return err
	}
	for after := ids.UserID(""); ; {
		page, err := w.watched.page(ctx, s.rooms, r, after)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := open(); err != nil {
			return err
		}
		if err := s.judgePage(ctx, w, r, events, cases, page); err != nil {
			return err
		}
		if len(page) < watcherPage {
			return nil
		}
		after = page[len(page)-1].User
	}
}

// newcomers looks at invites and joins: who is invited does not watch the room, and
// that who has just joined does may not have arrived yet.
func (s *Service) newcomers(ctx context.Context, w *work, r ids.RoomID, events []*room.Stored, cases []*feed.Case, open func() error) error {
	for i, e := range events {
		if e.Type != event.TypeMember || e.StateKey == nil {
			continue
		}
		m := e.Member().Membership
		joins := m == event.Join && membershipBefore(e) != event.Join
		if !joins && m != event.Invite {
			continue
		}
		list, err := s.accounts.Watchers(ctx, feed.TypeIgnored, ids.UserID(*e.StateKey))
		if err != nil {
			return err
		}
		if !list[0].State.Active() {
			continue
		}
		if joins {
			cmd := &room.AddWatch{Room: r, User: list[0].User, Gen: list[0].State.Watch}
			if _, err := s.opts.Router.Do(ctx, cmd); err != nil {
				return err
			}
			w.watched.forget(r)
			continue
		}
		if err := open(); err != nil {
			return err
		}
		person, err := s.judge.Person(list[0].User, list[0].Rules, list[0].Ignored)
		if err != nil {
			return err
		}
		if out := person.Decide(cases[i], pushrules.Member{}); out != nil {
			if err := w.add(list[0].User, e, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func membershipBefore(e *room.Stored) event.Membership {
	var prev struct {
		Membership event.Membership `json:"membership"`
	}
	if e.PrevContent == nil || json.Unmarshal(e.PrevContent, &prev) != nil {
		return event.NoMembership
	}
	return prev.Membership
}

func (s *Service) judgePage(ctx context.Context, w *work, r ids.RoomID, events []*room.Stored, cases []*feed.Case, page []room.Watching) error {
	users := make([]ids.UserID, len(page))
	keys := make([]room.StateKey, len(page))
	for i, p := range page {
		users[i] = p.User
		keys[i] = room.StateKey{Type: event.TypeMember, Key: string(p.User)}
	}
	list, err := s.accounts.Watchers(ctx, feed.TypeIgnored, users...)
	if err != nil {
		return err
	}
	members, err := s.rooms.StateEvents(ctx, r, keys...)
	if err != nil {
		return err
	}
	threads, err := s.subscribed(ctx, r, events, users)
	if err != nil {
		return err
	}
	vain := &room.Unwatch{Room: r}
	for i, u := range list {
		m := members[i]
		switch {
		case m == nil || m.Member().Membership != event.Join:
			vain.Users = append(vain.Users, room.Unwatched{User: u.User})
			continue
		case !u.State.Active():
			vain.Users = append(vain.Users, room.Unwatched{User: u.User, Gen: page[i].Gen})
			continue
		}
		since, err := s.joinedSince(ctx, m, events[0].Seq)
		if err != nil {
			return err
		}
		as := pushrules.NewMember(m.Member().DisplayName)
		if threads != nil {
			as.Threads = threads[i]
		}
		if err := s.judgeFor(w, u, as, since, events, cases); err != nil {
			return err
		}
	}
	if len(vain.Users) > 0 {
		w.watched.forget(r)
		_, err = s.opts.Router.Do(ctx, vain)
	}
	return err
}

// joinedSince returns the position of a member's join if it is not before first, 0 if
// it is: what came before is no news to who has just joined, nor theirs to see. m is
// the last event of the membership, which may have changed the name since.
func (s *Service) joinedSince(ctx context.Context, m *room.Stored, first ids.Seq) (at ids.Seq, err error) {
	for m != nil && m.Seq >= first {
		if membershipBefore(m) != event.Join {
			return m.Seq, nil
		}
		if m.Replaces == 0 {
			break
		}
		if m, err = s.rooms.Replaced(ctx, m); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// subscribed returns which of the threads that events are in users are subscribed to,
// nil if no rule asks.
func (s *Service) subscribed(ctx context.Context, r ids.RoomID, events []*room.Stored, users []ids.UserID) ([]map[ids.EventID]struct{}, error) {
	if !s.opts.Rules.Threads() {
		return nil, nil
	}
	var roots []ids.EventID
	for _, e := range events {
		if e.Thread != "" && !slices.Contains(roots, e.Thread) {
			roots = append(roots, e.Thread)
		}
	}
	if len(roots) == 0 {
		return nil, nil
	}
	return s.accounts.SubscribedTo(ctx, r, roots, users...)
}

// judgeFor judges events behind a position for one member.
func (s *Service) judgeFor(w *work, u account.Watcher, as pushrules.Member, since ids.Seq, events []*room.Stored, cases []*feed.Case) error {
	person, err := s.judge.Person(u.User, u.Rules, u.Ignored)
	if err != nil {
		return err
	}
	for i, e := range events {
		if e.Seq <= since {
			continue
		}
		if e.Sender == u.User && e.StateKey == nil && u.State.Shows() {
			// Who says something has read what was before.
			n := w.of(u.User)
			n.Read = append(n.Read, e.RoomID)
		}
		if out := person.Decide(cases[i], as); out != nil {
			if err := w.add(u.User, e, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *work) of(user ids.UserID) *account.Notified {
	n := w.notified[user]
	if n == nil {
		n = &account.Notified{User: user}
		w.notified[user] = n
	}
	return n
}

func (w *work) add(user ids.UserID, e *room.Stored, out *pushrules.Outcome) error {
	actions, err := json.Marshal(out.Actions)
	if err != nil {
		return fmt.Errorf("encode actions: %w", err)
	}
	n := w.of(user)
	n.Items = append(n.Items, account.Notification{
		Room: e.RoomID, Event: e.ID, Seq: e.Seq, TS: e.OriginServerTS,
		Highlight: out.Highlight, Sound: out.Sound, Actions: actions,
	})
	return nil
}

// noteReads finds those of the readers who have pushers.
func (s *Service) noteReads(ctx context.Context, w *work) error {
	if len(w.read) == 0 {
		return nil
	}
	users := make([]ids.UserID, 0, len(w.read))
	for u := range w.read {
		users = append(users, u)
	}
	list, err := s.accounts.Watchers(ctx, feed.TypeIgnored, users...)
	if err != nil {
		return err
	}
	for _, u := range list {
		if !u.State.Shows() {
			continue
		}
		n := w.of(u.User)
		for r := range w.read[u.User] {
			n.Read = append(n.Read, r)
		}
	}
	return nil
}

// notify brings the notifications to the partitions of their users.
func (s *Service) notify(ctx context.Context, w *work) error {
	byHome := make(map[ids.Partition][]account.Notified)
	for user, n := range w.notified {
		p := ids.PartitionOf(string(user), s.opts.Count)
		byHome[p] = append(byHome[p], *n)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(notifyers)
	for p, users := range byHome {
		g.Go(func() error {
			for len(users) > 0 {
				n := min(len(users), account.MaxNotify)
				if _, err := s.opts.Router.Do(ctx, &account.Notify{P: p, Users: users[:n]}); err != nil {
					return fmt.Errorf("notify: %w", err)
				}
				users = users[n:]
			}
			return nil
		})
	}
	return g.Wait()
}
