package delayed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// pollEvery is how often the queues are looked at although no event is known
	// to be due: it finds those of partitions that came from another node, and
	// those whose notice the bus lost.
	pollEvery = 5 * time.Second
	// sendTimeout bounds one send; the claim outlives it.
	sendTimeout = claimLease / 2
	// maxPasses is how many partitions are worked on at a time.
	maxPasses = 8
)

// Sender sends a delayed event to its room. The error says whether it may work
// later: those of the 4xx kind are final.
type Sender interface {
	SendDelayed(ctx context.Context, e *Event) (ids.EventID, error)
}

// Owner says which partitions this node runs.
type Owner interface {
	Owns(p ids.Partition) bool
}

// Options configure a Service.
type Options struct {
	Count    int
	Store    storage.Store
	Router   partition.Router
	Bus      bus.Bus
	Owner    Owner
	Accounts *account.Reader
	Rooms    *room.Reader
	Clock    clock.Clock
	Log      *slog.Logger
	// MaxDelay is the longest delay, 0 if events cannot be delayed at all.
	MaxDelay time.Duration
	// MaxScheduled is how many events of one user may wait.
	MaxScheduled int
}

// Service schedules events and sends those that are due. Its methods are safe for
// concurrent use.
type Service struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sub    bus.Subscription
	wake   chan struct{}

	mu struct {
		sync.Mutex
		// next is when the first event of a partition is due, in ms since 1970.
		next map[ids.Partition]int64
	}
}

// New returns a service that does not send yet.
func New(opts Options) *Service {
	s := &Service{opts: opts, wake: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.next = make(map[ids.Partition]int64)
	return s
}

// notice tells the other nodes that an event was scheduled.
type notice struct {
	Partition ids.Partition
	Due       int64
}

var _ bus.Payload = (*notice)(nil)

const subject = "delayed"

// MarshalBinary implements bus.Payload.
func (n *notice) MarshalBinary() ([]byte, error) { return json.Marshal(n) }

// Start begins to send what is due, until Close.
func (s *Service) Start(sender Sender) error {
	sub, err := s.opts.Bus.Subscribe(subject, func(p bus.Payload) {
		n, ok := p.(*notice)
		if raw, isRaw := p.(bus.Raw); isRaw {
			n = &notice{}
			ok = json.Unmarshal(raw, n) == nil
		}
		if ok {
			s.expect(n.Partition, n.Due)
		}
	})
	if err != nil {
		return fmt.Errorf("follow delayed events: %w", err)
	}
	s.sub = sub
	s.wg.Go(func() { s.run(sender) })
	return nil
}

// Close stops sending and waits for what is under way.
func (s *Service) Close() {
	s.cancel()
	if s.sub != nil {
		s.sub.Close()
	}
	s.wg.Wait()
}

// expect makes sure that the loop looks at a partition in time.
func (s *Service) expect(p ids.Partition, due int64) {
	s.mu.Lock()
	at, known := s.mu.next[p]
	if !known || due < at {
		s.mu.next[p] = due
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *Service) run(sender Sender) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	polled := time.Time{}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if real := time.Now(); real.Sub(polled) >= pollEvery {
			s.poll()
			polled = real
		}
		s.passes(sender)
		timer.Reset(s.untilNext())
	}
}

// poll finds out when the first event of each partition of this node is due.
func (s *Service) poll() {
	for n := range s.opts.Count {
		p := ids.Partition(n)
		if !s.opts.Owner.Owns(p) {
			s.mu.Lock()
			delete(s.mu.next, p)
			s.mu.Unlock()
			continue
		}
		s.look(p)
	}
}

// look reads when the first event of a partition is due.
func (s *Service) look(p ids.Partition) {
	// Forgotten before it is read: who schedules meanwhile says so again.
	s.mu.Lock()
	delete(s.mu.next, p)
	s.mu.Unlock()
	rows, err := s.opts.Store.Scan(s.ctx, storage.Range{Partition: p, Table: tables.DelayedDue, Limit: 1})
	if err != nil {
		if s.ctx.Err() == nil {
			s.opts.Log.Warn("look for delayed events", "partition", p, "error", err)
		}
		return
	}
	if len(rows) == 0 {
		return
	}
	due, _ := dueRow(rows[0].Sort)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.mu.next[p]; !known || due < at {
		s.mu.next[p] = due
	}
}

func (s *Service) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := pollEvery
	now := s.opts.Clock.Now().UnixMilli()
	for _, at := range s.mu.next {
		wait = min(wait, time.Duration(max(at-now, 1))*time.Millisecond)
	}
	return wait
}

// passes works on all partitions with a due event.
func (s *Service) passes(sender Sender) {
	now := s.opts.Clock.Now().UnixMilli()
	var due []ids.Partition
	s.mu.Lock()
	for p, at := range s.mu.next {
		if at <= now {
			due = append(due, p)
		}
	}
	s.mu.Unlock()
	slots := make(chan struct{}, maxPasses)
	var wg sync.WaitGroup
	for _, p := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.pass(p, sender)
		})
	}
	wg.Wait()
}

// pass sends the due events of a partition, in order of their time.
func (s *Service) pass(p ids.Partition, sender Sender) {
	for s.ctx.Err() == nil && s.opts.Owner.Owns(p) {
		events, err := partition.Do[[]*Event](s.ctx, s.opts.Router, &ClaimDue{In: p, Now: s.opts.Clock.Now().UnixMilli()})
		if err != nil {
			if s.ctx.Err() == nil {
				s.opts.Log.Warn("claim delayed events", "partition", p, "error", err)
			}
			s.mu.Lock()
			s.mu.next[p] = s.opts.Clock.Now().Add(time.Second).UnixMilli()
			s.mu.Unlock()
			return
		}
		for _, e := range events {
			if _, err := s.send(s.ctx, sender, e, ByDelay); err != nil && s.ctx.Err() == nil {
				s.opts.Log.Info("a delayed event was not sent", "room", e.Room, "user", e.User, "error", err)
			}
		}
		if len(events) == 0 {
			break
		}
	}
	s.look(p)
}

// send brings a claimed event to its room and notes what became of it. A refusal
// is final when the event's time has come; before, it can be sent again.
func (s *Service) send(ctx context.Context, sender Sender, e *Event, why Reason) (ids.EventID, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	id, err := s.deliver(ctx, sender, e)
	up := &Update{ID: e.ID, User: e.User, Action: Finish, EventID: id, Status: Sent, Reason: why}
	var refused *merr.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Status < 500 && (why == ByDelay || overtaken(refused)):
		up.Status = Failed
		if up.Error, err = json.Marshal(refused); err != nil {
			return "", fmt.Errorf("delayed event: %w", err)
		}
		err = refused
	case why == ByAction:
		up.Action = Release
	default:
		return "", err // the claim runs out, and it is tried again
	}
	if _, failed := s.opts.Router.Do(ctx, up); failed != nil {
		return "", errors.Join(err, failed)
	}
	if up.Action == Release {
		s.expect(ids.PartitionOf(string(e.User), s.opts.Count), e.Since+e.Delay)
	}
	return id, err
}

// overtaken reports whether an event can never be sent any more.
func overtaken(e *merr.Error) bool { return e.Extra["org.matrix.msc4140.errcode"] != nil }

func (s *Service) deliver(ctx context.Context, sender Sender, e *Event) (ids.EventID, error) {
	// An earlier attempt may have got through, whatever the room would say now.
	id, err := s.opts.Rooms.Transacted(ctx, e.Room, e.User, room.DelayedTxn(e.ID))
	if id != "" || err != nil {
		return id, err
	}
	a, err := s.opts.Accounts.Account(ctx, e.User)
	if err != nil {
		return "", err
	}
	if a == nil || a.Deactivated || a.Locked {
		return "", merr.ForbiddenErr("The account is not active any more")
	}
	if a.Suspended {
		return "", merr.New(http.StatusForbidden, merr.UserSuspended, "The account was suspended in the meantime")
	}
	return sender.SendDelayed(ctx, e)
}

// MaxDelay is the longest delay, 0 if events cannot be delayed at all.
func (s *Service) MaxDelay() time.Duration { return s.opts.MaxDelay }

// Scheduled returns the delay ID that a request made before, "" if it is new.
func (s *Service) Scheduled(ctx context.Context, u ids.UserID, txn string) (string, error) {
	k := txnKey(ids.PartitionOf(string(u), s.opts.Count), u, txn)
	if k.Check() != nil {
		return "", merr.InvalidParamErr("The event type or the transaction ID is too long")
	}
	rows, err := s.opts.Store.Get(ctx, k)
	if err != nil {
		return "", fmt.Errorf("find request: %w", err)
	}
	return string(rows[0]), nil
}

// Schedule takes an event and returns its delay ID. txn is the sort key of the
// request's UserTxn row, "" for none. Only members of the room may schedule;
// whether they may send is asked when it is sent.
func (s *Service) Schedule(ctx context.Context, e *Event, txn string) (string, error) {
	m, err := s.opts.Rooms.Membership(ctx, e.Room, e.User)
	if err != nil {
		return "", err
	}
	head, err := s.opts.Rooms.Head(ctx, e.Room)
	if err != nil {
		return "", err
	}
	if head == nil || m != event.Join {
		return "", merr.ForbiddenErr("You are not in this room")
	}
	n := *e
	n.After = head.Last
	n.ID = newID(e.User, s.opts.Count)
	id, err := partition.Do[string](ctx, s.opts.Router, &Schedule{Event: n, Txn: txn, Max: s.opts.MaxScheduled})
	if errors.Is(err, errTooMany) {
		return "", s.tooMany(ctx, e.User)
	}
	if err != nil {
		return "", err
	}
	due := s.opts.Clock.Now().UnixMilli() + n.Delay
	_ = s.opts.Bus.Publish(subject, &notice{ids.PartitionOf(string(e.User), s.opts.Count), due}) // poll finds it otherwise
	return id, nil
}

// tooMany tells when there will be room for another. spec: MSC4140 §Scheduling a
// delayed event.
func (s *Service) tooMany(ctx context.Context, u ids.UserID) error {
	list, err := s.List(ctx, u)
	if err != nil {
		return err
	}
	wait := s.opts.MaxDelay
	for _, e := range list {
		if !e.Status.Finalised() {
			left := e.Since + e.Delay - s.opts.Clock.Now().UnixMilli()
			wait = min(wait, time.Duration(max(left, time.Second.Milliseconds()))*time.Millisecond)
		}
	}
	return merr.LimitedErr(wait).With("org.matrix.msc4140.errcode", "M_MAX_DELAYED_EVENTS_EXCEEDED")
}

// find returns an event by its ID: 404 M_NOT_FOUND if there is none.
func (s *Service) find(ctx context.Context, id string) (*Event, error) {
	if !validID(id) {
		return nil, errNotFound()
	}
	list, err := s.read(ctx, ids.PartitionOf(id, s.opts.Count), id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || !list[0].fresh(s.opts.Clock.Now()) {
		return nil, errNotFound()
	}
	return list[0], nil
}

func (s *Service) read(ctx context.Context, p ids.Partition, list ...string) ([]*Event, error) {
	keys := make([]storage.Key, len(list))
	for i, id := range list {
		keys[i] = place(p).event(id)
	}
	rows, err := s.opts.Store.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read delayed events: %w", err)
	}
	out := make([]*Event, 0, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		v, err := decode[Event](keys[i], row)
		if err != nil {
			return nil, fmt.Errorf("read delayed event: %w", err)
		}
		out = append(out, v.(*Event))
	}
	return out, nil
}

// List returns the delayed events of a user, those that wait and those that were
// finalised lately, in no particular order.
func (s *Service) List(ctx context.Context, u ids.UserID) ([]*Event, error) {
	p := ids.PartitionOf(string(u), s.opts.Count)
	rows, err := s.opts.Store.Get(ctx, place(p).of(u))
	if err != nil {
		return nil, fmt.Errorf("list delayed events: %w", err)
	}
	if rows[0] == nil {
		return nil, nil
	}
	v, err := decode[owned](storage.Key{}, rows[0])
	if err != nil {
		return nil, fmt.Errorf("list delayed events: %w", err)
	}
	o := v.(*owned)
	list, err := s.read(ctx, p, slices.Concat(o.Scheduled, o.Finalised)...)
	if err != nil {
		return nil, err
	}
	out := list[:0]
	for _, e := range list {
		if !e.fresh(s.opts.Clock.Now()) {
			continue
		}
		if e, err = s.shown(ctx, e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Get returns one of a user's delayed events: 404 M_NOT_FOUND if there is none.
func (s *Service) Get(ctx context.Context, u ids.UserID, id string) (*Event, error) {
	e, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if e.User != u {
		return nil, errNotFound()
	}
	return s.shown(ctx, e)
}

// shown is settle for whoever looks at an event: the content of one that was sent is
// what the room has of it, {} if it expired there.
func (s *Service) shown(ctx context.Context, e *Event) (*Event, error) {
	e, err := s.settle(ctx, e)
	if err != nil || e.Status != Sent {
		return e, err
	}
	sent, err := s.opts.Rooms.Event(ctx, e.Room, e.EventID)
	if err != nil {
		return nil, err
	}
	n := *e
	n.Content = []byte("{}")
	if sent != nil {
		n.Content = jsontext.Value(sent.Content)
	}
	return &n, nil
}

// settle ends an event that somebody overtook, and returns it as it stands: one
// that has reached its room is sent, also before that is noted.
func (s *Service) settle(ctx context.Context, e *Event) (*Event, error) {
	if e.Status == Sending {
		id, err := s.opts.Rooms.Transacted(ctx, e.Room, e.User, room.DelayedTxn(e.ID))
		if id == "" || err != nil {
			return e, err
		}
		sent := *e
		sent.Status, sent.EventID, sent.Content = Sent, id, nil
		return &sent, nil
	}
	if e.Status != Scheduled || e.StateKey == nil {
		return e, nil
	}
	_, yes, err := s.opts.Rooms.Overtaken(ctx, e.Room, room.StateKey{Type: e.Type, Key: *e.StateKey}, e.User, e.After)
	if err != nil || !yes {
		return e, err
	}
	why, err := json.Marshal(room.ErrOvertaken())
	if err != nil {
		return nil, fmt.Errorf("delayed event: %w", err)
	}
	_, err = s.opts.Router.Do(ctx, &Update{ID: e.ID, User: e.User, Action: Finish, Status: Failed, Reason: ByAction, Error: why})
	if err != nil {
		return nil, err
	}
	return s.find(ctx, e.ID)
}

// Do restarts, cancels or sends an event, for whoever has its ID: the name of the
// action is MSC4140's. Unknown names are 404 M_UNRECOGNIZED's business.
func (s *Service) Do(ctx context.Context, sender Sender, id, name string) error {
	e, err := s.find(ctx, id)
	if err == nil {
		e, err = s.settle(ctx, e)
	}
	if err != nil {
		return err
	}
	up := &Update{ID: id, User: e.User}
	switch name {
	case "restart":
		up.Action = Restart
	case "cancel":
		up.Action = Cancel
	default:
		up.Action = Claim
	}
	was, err := partition.Do[*Event](ctx, s.opts.Router, up)
	if err != nil || was == nil || up.Action != Claim {
		return err
	}
	_, err = s.send(ctx, sender, was, ByAction)
	return err
}
