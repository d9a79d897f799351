package feed

import (
	"context"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// maxToDevice is how many to-device messages one response carries, and how many a
// socket is sent before it acknowledges some. docs/websocket.md §Acknowledgement.
const maxToDevice = 100

// e2ee is the part of a response that end-to-end encryption lives on.
// spec: client-server §Extensions to /sync.
type e2ee struct {
	// toDevice are the messages, as elements of a list; sent their positions.
	toDevice []byte
	sent     []ids.Seq
	// changed and left are the device lists.
	changed, left []ids.UserID
	// keys is the state of the device's own keys, nil if it has none; keysMoved
	// tells that it changed.
	keys      *account.KeyState
	keysMoved bool
}

func (e *e2ee) empty() bool {
	return len(e.toDevice)+len(e.changed)+len(e.left) == 0 && !e.keysMoved
}

// append writes the members of the response. The counts of keys are always
// there: for clients, a count that is absent is zero.
func (e *e2ee) append(b []byte) []byte {
	if len(e.toDevice) > 0 {
		b = append(append(append(b, `,"to_device":{"events":[`...), e.toDevice...), `]}`...)
	}
	return e.appendKeys(b)
}

// appendKeys writes the members about devices and their keys.
func (e *e2ee) appendKeys(b []byte) []byte {
	if len(e.changed)+len(e.left) > 0 {
		b = appendUsers(append(b, `,"device_lists":{"changed":`...), e.changed)
		b = append(appendUsers(append(b, `,"left":`...), e.left), '}')
	}
	b = append(b, `,"device_one_time_keys_count":{`...)
	counts := e.keys.KeyCounts()
	for i, algorithm := range sortedKeys(counts) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(event.AppendString(b, algorithm), ':')
		b = strconv.AppendInt(b, int64(counts[algorithm]), 10)
	}
	b = append(b, `},"device_unused_fallback_key_types":[`...)
	for i, algorithm := range e.keys.UnusedFallbacks() {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, algorithm)
	}
	return append(b, ']')
}

func appendUsers(b []byte, users []ids.UserID) []byte {
	b = append(b, '[')
	for i, u := range users {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendString(b, u)
	}
	return append(b, ']')
}

// addE2EE adds what concerns encryption.
func (s *syncer) addE2EE(ctx context.Context, changes []*account.Change, moved map[ids.RoomID]*account.Change) error {
	if err := s.addToDevice(ctx); err != nil {
		return err
	}
	return s.addKeys(ctx, changes, moved)
}

// addKeys adds what concerns devices and their keys.
func (s *syncer) addKeys(ctx context.Context, changes []*account.Change, moved map[ids.RoomID]*account.Change) error {
	out := &s.out.e2ee
	for _, c := range changes {
		if c.Kind == account.ChangeKeyCounts && slices.Contains(c.Devices, s.req.Device) {
			out.keysMoved = true
		}
	}
	var err error
	if out.keys, err = s.keyState(ctx); err != nil || s.req.Since == nil {
		return err
	}
	out.changed, out.left, err = s.deviceLists(ctx, changes, moved)
	return err
}

// keyState is the state of the device's keys. Who is pushed responses is told of it
// seldom, and a view need not keep it for them.
func (s *syncer) keyState(ctx context.Context) (*account.KeyState, error) {
	if s.req.Pushed {
		return s.h.accounts.KeyState(ctx, s.v.user, s.req.Device)
	}
	return s.v.keyState(ctx, s.req.Device)
}

// addToDevice adds the messages that the client has not had, and notes in next how
// far that is. What it has had it acknowledged by its since.
func (s *syncer) addToDevice(ctx context.Context) error {
	after, upTo := ids.Seq(0), s.next.At[s.v.home]
	if s.req.Since != nil {
		after = s.since.inbox(s.v.home)
	}
	budget := maxToDevice - int(s.req.Unacked)
	if budget <= 0 {
		s.next.Inbox = after
		return nil
	}
	var err error
	s.next.Inbox, err = s.readInbox(ctx, after, upTo, budget)
	return err
}

// readInbox adds the messages between two positions, at most as many as the budget
// says, and returns how far it came.
func (s *syncer) readInbox(ctx context.Context, after, upTo ids.Seq, budget int) (ids.Seq, error) {
	if !s.v.wroteSince(after) {
		return upTo, nil
	}
	list, err := s.h.accounts.Inbox(ctx, s.v.user, s.req.Device, after, upTo, budget)
	if err != nil {
		return 0, err
	}
	if len(list) == budget {
		upTo = list[len(list)-1].Seq // there may be more
	}
	for _, m := range list {
		if m.Event != nil {
			s.out.e2ee.toDevice = appendList(s.out.e2ee.toDevice, m.Event)
		}
		s.out.e2ee.sent = append(s.out.e2ee.sent, m.Seq)
	}
	return upTo, nil
}

func (h *Hub) homeOf(user ids.UserID) ids.Partition {
	return ids.PartitionOf(string(user), h.opts.Count)
}
