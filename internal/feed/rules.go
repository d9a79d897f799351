package feed

import (
	"context"
	"log/slog"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Judge says what push rules make of events for users who need not be connected,
// and counts what they have not read, in the way that a sync does. It keeps
// nothing. Its methods are safe for concurrent use.
type Judge struct {
	hub Hub // reads only
}

// NewJudge returns a judge that goes by the rules and reads the store of opts.
func NewJudge(opts Options) *Judge {
	return &Judge{hub: Hub{
		opts: opts, accounts: account.NewReader(opts.Store, opts.Count).Tolerant(opts.Damage),
		rooms: room.NewReader(opts.Store, opts.Count).WithRetention(opts.Retention, opts.Clock).Tolerant(opts.Damage),
	}}
}

// Person is what decides about the notifications of one user. It does not change.
type Person struct {
	user    ids.UserID
	program *pushrules.Program
	ignored map[ids.UserID]struct{}
}

// Person makes a Person from the user's account data, nil where there is none.
func (j *Judge) Person(user ids.UserID, rules, ignored *account.Data) (*Person, error) {
	program, err := compileRules(j.hub.opts.Rules, j.hub.opts.Log, user, rules)
	if err != nil {
		return nil, err
	}
	return &Person{user: user, program: program, ignored: Ignored(ignored)}, nil
}

// ReadPerson is Person for a user whose account data has to be read.
func (j *Judge) ReadPerson(ctx context.Context, user ids.UserID) (*Person, error) {
	data, err := j.hub.accounts.GlobalData(ctx, user, account.TypePushRules, TypeIgnored)
	if err != nil {
		return nil, err
	}
	return j.Person(user, data[0], data[1])
}

// Case is an event that is judged for several users, by one goroutine.
type Case struct {
	sender ids.UserID
	event  *pushrules.Event
	info   *pushrules.RoomInfo
}

// Bench is what the events of one room are judged by.
type Bench struct{ push *roomPush }

// Bench reads what push rules ask about a room.
func (j *Judge) Bench(ctx context.Context, r ids.RoomID) (*Bench, error) {
	p, err := j.hub.readRoomPush(ctx, r)
	return &Bench{p}, err
}

// Case prepares an event.
func (b *Bench) Case(s *room.Stored) *Case {
	return &Case{s.Sender, newPushEvent(s), b.push.info(s.Sender)}
}

// Decide says how a user is notified of an event, nil if not.
func (p *Person) Decide(c *Case, m pushrules.Member) *pushrules.Outcome {
	out, ok := p.program.Evaluate(c.event, c.info, m)
	if !ok || !out.Notify {
		return nil
	}
	if p.ignores(c.sender) {
		return nil
	}
	return out
}

func (p *Person) ignores(u ids.UserID) bool {
	_, ok := p.ignored[u]
	return ok
}

// Unread is what a user has not read in a room, carried on from one count to the
// next. The zero value is for a room that was not counted yet.
type Unread struct{ counts counts }

// Unread counts again and returns the number of notifications that a sync would
// tell. A user who is not in the room has none.
func (j *Judge) Unread(ctx context.Context, p *Person, r ids.RoomID, u *Unread) (int, error) {
	m, err := j.hub.accounts.Membership(ctx, p.user, r)
	if err != nil || m == nil || m.Membership != event.Join {
		*u = Unread{}
		return 0, err
	}
	head, err := j.hub.rooms.Head(ctx, r)
	if err != nil || head == nil {
		return 0, err
	}
	c := &u.counts
	// Nobody tells what changed meanwhile.
	c.fresh, c.push = false, nil
	k := &counter{j.hub.rooms, p, func(ctx context.Context, id ids.RoomID) (*pushContext, error) {
		shared, err := j.hub.readRoomPush(ctx, id)
		if err != nil {
			return nil, err
		}
		return j.hub.pushContext(ctx, id, p.user, shared)
	}}
	if err := k.recount(ctx, r, m.Joined, c, head.Last); err != nil {
		return 0, err
	}
	return c.total().notify, nil
}

// compileRules makes a user's rules ready. Damaged ones give way to the defaults.
func compileRules(d *pushrules.Defaults, log *slog.Logger, user ids.UserID, rules *account.Data) (*pushrules.Program, error) {
	var stored []byte
	if rules != nil {
		stored = rules.Content
	}
	set, err := d.Open(user, stored)
	if err != nil {
		log.Warn("push rules are damaged, the defaults serve", "user", user, "error", err)
		if set, err = d.Open(user, nil); err != nil {
			return nil, err
		}
	}
	return set.Compile(), nil
}
