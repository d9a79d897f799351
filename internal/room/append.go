package room

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// EffectMembership tells a user's partition that the user's membership of a room
// changed. The payload is a MembershipChange in JSON.
const EffectMembership = "membership"

// MembershipChange is a change as the room saw it.
type MembershipChange struct {
	User       ids.UserID       `json:"user"`
	Room       ids.RoomID       `json:"room"`
	Membership event.Membership `json:"membership"`
	// Seq is the position of the member event in the room's partition, TS when
	// that was, in ms since 1970 by the clock of the room's owner.
	Seq     ids.Seq     `json:"seq"`
	TS      int64       `json:"ts,omitempty"`
	EventID ids.EventID `json:"event_id"`
	Sender  ids.UserID  `json:"sender"`
	// Direct is is_direct of an invite.
	Direct bool `json:"direct,omitempty"`
	// Stripped is the stripped state that goes with an invite or a knock, a
	// JSON array.
	Stripped jsontext.Value `json:"stripped,omitempty"`
}

// strippedTypes is the state an invited or knocking user is shown. spec:
// client-server §Stripped state.
var strippedTypes = [...]string{
	event.TypeCreate, event.TypeName, event.TypeAvatar, event.TypeTopic,
	event.TypeJoinRules, event.TypeCanonicalAlias, event.TypeEncryption,
}

// view shows the state of a room as the commands of the batch have left it.
type view struct {
	tx *partition.Tx
	p  Place
}

func (v view) stored(eventType, stateKey string) *Stored {
	s, _ := v.tx.Get(v.p.state(eventType, stateKey)).Obj.(*Stored)
	return s
}

// State implements roomstate.View.
func (v view) State(eventType, stateKey string) *event.Event {
	return v.stored(eventType, stateKey).Bare()
}

// head returns the room's head, nil if there is no room.
func (v view) head() *Head {
	h, _ := v.tx.Get(v.p.head()).Obj.(*Head)
	return h
}

// pinDraft pins all that append needs for a draft, and the row of a transaction
// if there is one.
func pinDraft(ctx context.Context, p *partition.Prep, pl Place, d roomstate.Draft, txn *Txn) error {
	var scratch [10]roomstate.StateKey
	keys := make([]storage.Key, 0, 20)
	keys = append(keys, pl.head())
	for _, k := range roomstate.AppendAuthKeys(scratch[:0], d) {
		keys = append(keys, pl.state(k.Type, k.Key))
	}
	if d.StateKey != nil {
		keys = append(keys, pl.state(d.Type, *d.StateKey))
	}
	if d.Type == event.TypeMember {
		for _, t := range strippedTypes {
			keys = append(keys, pl.state(t, ""))
		}
	}
	keys = txn.appendKeys(keys, pl, d.Sender)
	return p.Pin(ctx, keys...)
}

// appendEvent makes the next event of a room and writes all its rows.
func appendEvent(v view, d roomstate.Draft, txn Txn) (*Stored, error) {
	return appendInThread(v, d, txn, "")
}

// appendInThread is appendEvent for an event in a thread, "" for the main timeline.
func appendInThread(v view, d roomstate.Draft, txn Txn, thread ids.EventID) (*Stored, error) {
	head := v.head()
	if head == nil {
		return nil, errUnknownRoom()
	}
	ev, err := roomstate.Build(&head.Head, d, v.tx.NextSeq(), v)
	if err != nil {
		return nil, err
	}
	return writeEvent(v, head, ev, txn, thread)
}

// writeEvent writes the rows of an authorized event. head is what it follows.
func writeEvent(v view, head *Head, ev *event.Event, txn Txn, thread ids.EventID) (*Stored, error) {
	if strings.IndexByte(ev.Type, 0) >= 0 {
		return nil, merr.InvalidParamErr("An event type may not hold NUL") // it ends the type in sort keys
	}
	s, err := newStored(ev, v.tx.NextSeq())
	if err != nil {
		return nil, err
	}
	s.TxnDevice, s.TxnID, s.Thread = txn.Device, txn.ID, thread
	var replaced *Stored
	if ev.StateKey != nil {
		if replaced = v.stored(ev.Type, *ev.StateKey); replaced != nil {
			s.Replaces, s.PrevContent = replaced.Seq, replaced.Content
		}
	}
	row := s.encode()
	v.tx.Insert(v.p.timeline(s.Seq), row, nil)
	if index, ok := v.p.indexOf(s); ok {
		v.tx.Insert(index, []byte(tables.SeqSort(s.Seq)), nil)
	}
	next := *head
	next.Advance(&s.Event)
	next.Last = s.Seq
	if ev.StateKey != nil {
		v.tx.Put(v.p.state(ev.Type, *ev.StateKey), row, s)
		v.tx.Put(v.p.key(tables.StateLog, tables.SeqSort(s.Seq)), []byte(stateSort(ev.Type, *ev.StateKey)), nil)
		switch {
		case ev.Type == event.TypeMember:
			next.count(replaced, s)
		case ev.Type == TypeRetention && *ev.StateKey == "":
			next.Lifetime = lifetimeOf(s.Content)
		}
		v.index(head, &next, replaced, s)
	}
	v.tx.Put(v.p.head(), next.encode(), &next)
	v.tx.Emit(partition.Record{Kind: partition.RecordEvent, Entity: string(v.p.Room), Body: row, Obj: s})
	if ev.Type == event.TypeMember && ev.StateKey != nil {
		return s, membershipEffect(v, s)
	}
	return s, nil
}

// count keeps the numbers of members.
func (h *Head) count(before, after *Stored) {
	add := func(s *Stored, n int) {
		if s == nil {
			return
		}
		switch s.Member().Membership {
		case event.Join:
			h.Joined += n
		case event.Invite:
			h.Invited += n
		}
	}
	add(before, -1)
	add(after, 1)
}

func membershipEffect(v view, s *Stored) error {
	m := s.Member()
	c := MembershipChange{
		User: ids.UserID(*s.StateKey), Room: v.p.Room, Membership: m.Membership, Seq: s.Seq, TS: v.tx.Now,
		EventID: s.ID, Sender: s.Sender, Direct: m.IsDirect,
	}
	if m.Membership == event.Invite || m.Membership == event.Knock {
		c.Stripped = strippedState(v, s)
	}
	payload, err := json.Marshal(&c)
	if err != nil {
		return fmt.Errorf("encode membership change: %w", err)
	}
	v.tx.Effect(string(c.User), EffectMembership, payload)
	return nil
}

// strippedState shows who is invited the inviter too: clients name the inviter, and a
// direct conversation, which has no name of its own, after that row.
func strippedState(v view, member *Stored) jsontext.Value {
	b := []byte{'['}
	for _, t := range strippedTypes {
		if s := v.stored(t, ""); s != nil {
			b = append(s.AppendStripped(b), ',')
		}
	}
	if sender := string(member.Sender); sender != *member.StateKey {
		if s := v.stored(event.TypeMember, sender); s != nil {
			b = append(s.AppendStripped(b), ',')
		}
	}
	b = member.AppendStripped(b)
	return append(b, ']')
}

// Send appends one event, of any type but those with commands of their own. Its
// result is the ids.EventID.
type Send struct {
	Room  ids.RoomID
	Draft roomstate.Draft
	// Timestamped: the draft has a time of its own, which only application
	// services may set. Otherwise it is set here.
	Timestamped bool
	// Txn is the zero Txn for requests without a transaction ID.
	Txn Txn
	// Unchanged: a state event that would change nothing is not appended; the
	// result is the event there is.
	Unchanged bool
	// Expect, if not nil, checks the state before; for membership changes.
	Expect *Expect

	rel *relating // found by Prepare
}

// Expect is what a membership change asks of the target's membership before.
type Expect struct {
	// OneOf lists the memberships that are fine.
	OneOf []event.Membership
	// Code and Msg are the refusal, status 403 unless Code is M_BAD_STATE's 400.
	Code merr.Code
	Msg  string
}

var _ partition.Command = (*Send)(nil)

// Name implements partition.Command.
func (c *Send) Name() string { return "send" }

// Partition implements partition.Command.
func (c *Send) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Room), count) }

// Prepare implements partition.Command.
func (c *Send) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := Place{p.Partition(), c.Room}
	c.rel = nil
	if _, ok := event.RelationOf(c.Draft.Content); ok {
		var err error
		r := NewReader(p.Store(), p.Count())
		if c.rel, err = r.relating(ctx, c.Room, c.Draft.Sender, c.Draft.Type, c.Draft.Content); err != nil {
			return err
		}
		if err := c.rel.pin(ctx, p, pl); err != nil {
			return err
		}
	}
	return pinDraft(ctx, p, pl, c.Draft, &c.Txn)
}

// Apply implements partition.Command.
func (c *Send) Apply(tx *partition.Tx) (any, error) {
	v := view{tx, Place{tx.Partition(), c.Room}}
	if id, err := c.Txn.replayed(v, c.Draft.Sender); id != "" || err != nil {
		return id, err
	}
	d := c.Draft
	if !c.Timestamped {
		d.OriginServerTS = tx.Now
	}
	if d.StateKey != nil {
		before := v.stored(d.Type, *d.StateKey)
		if err := c.Expect.check(before); err != nil {
			return nil, err
		}
		if c.Unchanged && before != nil && before.Sender == d.Sender && string(before.Content) == string(d.Content) {
			return before.ID, nil
		}
	}
	thread, err := c.rel.admit(v)
	if err != nil {
		return nil, err
	}
	s, err := appendInThread(v, d, c.Txn, thread)
	if err != nil {
		return nil, err
	}
	c.Txn.record(v, c.Draft.Sender, s.ID)
	return s.ID, c.rel.write(v, s)
}

func (x *Expect) check(before *Stored) error {
	if x == nil {
		return nil
	}
	m := event.NoMembership
	if before != nil {
		m = before.Member().Membership
	}
	for _, ok := range x.OneOf {
		if m == ok {
			return nil
		}
	}
	status := http.StatusForbidden
	if x.Code == merr.BadState {
		status = http.StatusBadRequest
	}
	return merr.New(status, x.Code, "%s", x.Msg)
}
