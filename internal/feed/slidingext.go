package feed

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// everyList and everyRoom in a scope.
const everything = "*"

// covers reports whether an extension is about a room.
func (s *Scope) covers(w *wanted) bool {
	if s.Lists == nil && len(w.lists) > 0 || s.Rooms == nil && w.named {
		return true
	}
	return w.named && (slices.Contains(s.Rooms, everything) || slices.Contains(s.Rooms, w.r.id)) ||
		len(w.lists) > 0 && slices.Contains(s.Lists, everything) ||
		slices.ContainsFunc(w.lists, func(l string) bool { return slices.Contains(s.Lists, l) })
}

// text is equal where scopes are, "" if the extension is off.
func (s *Scope) text() string {
	if !s.Enabled {
		return ""
	}
	b := []byte("on")
	if s.Lists != nil {
		b = append(b, " lists "...)
	}
	for _, l := range s.Lists {
		b = event.AppendString(b, l)
	}
	if s.Rooms != nil {
		b = append(b, " rooms "...)
	}
	for _, r := range s.Rooms {
		b = event.AppendString(b, r)
	}
	return string(b)
}

// beginExtensions finds out which extensions the client has nothing of: it asks for
// them for the first time, or for other rooms.
func (b *slide) beginExtensions() {
	x, was := &b.ask.Extensions, b.step.ext
	now := sentExtensions{data: x.AccountData.text(), receipts: x.Receipts.text(), typing: x.Typing.text()}
	if x.E2EE {
		now.e2ee = "on"
	}
	if x.Threads.Enabled {
		now.threads = "on"
	}
	begins := func(now, was string) bool { return now != "" && now != was }
	b.begins.data = begins(now.data, was.data)
	b.begins.receipts = begins(now.receipts, was.receipts)
	b.begins.typing = begins(now.typing, was.typing)
	b.begins.e2ee = begins(now.e2ee, was.e2ee)
	b.begins.threads = begins(now.threads, was.threads)
	b.step.ext = now
}

// readSlidingData reads the account data that changed; of the user all, where the
// client has none.
func (b *slide) readSlidingData(ctx context.Context, changes []*account.Change) error {
	switch {
	case !b.ask.Extensions.AccountData.Enabled:
		return nil
	case !b.begins.data:
		return b.readData(ctx, changes)
	}
	all, err := b.h.accounts.AllData(ctx, b.v.user, "")
	b.data = map[ids.RoomID][]*account.Data{"": slices.DeleteFunc(all, func(d *account.Data) bool { return d.Deleted })}
	return err
}

// addRoomExtensions adds what extensions say of a room that the user is in.
func (b *slide) addRoomExtensions(ctx context.Context, st *stay) error {
	x := &b.ask.Extensions
	if x.AccountData.Enabled && x.AccountData.covers(st.w) {
		list, err := b.roomData(ctx, st)
		if err != nil {
			return err
		}
		var events []byte
		for _, d := range list {
			events = AppendDataEvent(events, d.Type, d.Content)
		}
		if len(events) > 0 {
			addRoom(&b.parts.data, st.r.id, append(append([]byte{'['}, events...), ']'))
		}
	}
	if x.Receipts.Enabled && x.Receipts.covers(st.w) {
		from := st.upTo
		if b.begins.receipts {
			from = 0
		}
		list, err := st.receipts(ctx, from)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			addRoom(&b.parts.receipts, st.r.id, appendReceipts(nil, list))
		}
	}
	if x.Typing.Enabled && x.Typing.covers(st.w) {
		known := b.known && !st.fresh && st.sent.watched && !b.begins.typing
		if e := b.h.typing.event(st.r.id, b.since.Typing, known, b.v.ignores); e != nil {
			addRoom(&b.parts.typing, st.r.id, e)
		}
	}
	return nil
}

// roomData is the account data of a room that the client does not have.
func (b *slide) roomData(ctx context.Context, st *stay) ([]*account.Data, error) {
	whole := st.fresh || b.begins.data
	if !whole && st.sent.watched {
		return b.data[st.r.id], nil
	}
	all, err := b.h.accounts.AllData(ctx, b.v.user, st.r.id)
	return slices.DeleteFunc(all, func(d *account.Data) bool {
		return whole && d.Deleted || !whole && d.Seq <= st.sent.dataAt
	}), err
}

// addExtensions adds what extensions say that is not about rooms.
func (b *slide) addExtensions(ctx context.Context, changes []*account.Change) error {
	x := &b.ask.Extensions
	if x.AccountData.Enabled {
		if err := b.addAccountData(b.begins.data); err != nil {
			return err
		}
	}
	if x.E2EE {
		if b.begins.e2ee {
			changes, b.req.Since = nil, nil // no list of devices is known that could have changed
		}
		if err := b.addKeys(ctx, changes, b.moved); err != nil {
			return err
		}
	}
	if x.ToDevice.Enabled {
		if err := b.addInbox(ctx); err != nil {
			return err
		}
	}
	if x.Threads.Enabled {
		return b.addThreads(ctx)
	}
	return nil
}

// inboxToken writes the position of a device in its messages: a page token, and the
// generation of a store that was restored.
func (h *Hub) inboxToken(at ids.Seq) string {
	token := PageToken(at)
	if g := h.opts.Generation; g != 0 {
		token += "." + strconv.FormatUint(uint64(g), markBase)
	}
	return token
}

// parseInbox reads the position of a device in its messages, 0 for one from before the
// store was restored: nothing of what is there now was acknowledged by it. spec:
// MSC3885.
func (h *Hub) parseInbox(since string) (ids.Seq, error) {
	if since == "" {
		return 0, nil
	}
	token, generation, restored := strings.Cut(since, ".")
	g, err := strconv.ParseUint(generation, markBase, 32)
	if !strings.HasPrefix(token, pagePrefix) || restored && err != nil {
		return 0, merr.InvalidParamErr("Unknown since of to_device")
	}
	at, err := ParsePage(token, 0, 0)
	if err != nil {
		return 0, merr.InvalidParamErr("Unknown since of to_device").Because(err)
	}
	if uint32(g) != h.opts.Generation {
		return 0, nil
	}
	return at, nil
}

// ackSliding removes the messages that the device has had.
func (h *Hub) ackSliding(ctx context.Context, req *SlidingRequest) error {
	if !req.Extensions.ToDevice.Enabled {
		return nil
	}
	at, err := h.parseInbox(req.Extensions.ToDevice.Since)
	if err != nil || at == 0 {
		return err
	}
	p := h.position()
	p.At[h.homeOf(req.User)] = at
	h.acknowledged(ctx, req.User, req.Device, &p)
	return nil
}

// addInbox adds the messages to the device. What it has is for the device to say, not
// for the connection: it may ask for them on another one next.
func (b *slide) addInbox(ctx context.Context) error {
	x := &b.ask.Extensions.ToDevice
	after, err := b.h.parseInbox(x.Since)
	if err != nil {
		return err
	}
	upTo := b.next.At[b.v.home]
	if after > upTo {
		after = 0 // of another deployment, or from before a backup: nothing of it was acknowledged
	}
	budget := maxToDevice
	if x.Limit > 0 {
		budget = min(budget, x.Limit)
	}
	b.parts.inbox, err = b.readInbox(ctx, after, upTo, budget)
	return err
}

// addThreads adds the subscriptions to threads that changed. spec: MSC4308.
func (b *slide) addThreads(ctx context.Context) error {
	after := b.since.At[b.v.home]
	if b.begins.threads {
		after = 0
	}
	limit := maxThreadChanges
	if n := b.ask.Extensions.Threads.Limit; n > 0 {
		limit = min(limit, n)
	}
	list, next, err := b.h.accounts.ThreadSubscriptions(ctx, b.v.user, after, b.next.At[b.v.home], limit)
	if err != nil || len(list) == 0 {
		return err
	}
	out := account.NewThreadList(list)
	if next != 0 {
		out.PrevBatch = PageToken(next)
	}
	b.parts.threads, err = json.Marshal(out)
	return err
}

// appendExtensions writes the extensions that have something to tell, and those parts
// that are always there.
func (b *slide) appendExtensions(out []byte) []byte {
	x, start := &b.ask.Extensions, len(out)
	name := func(n string) {
		if len(out) > start {
			out = append(out, ',')
		}
		out = append(event.AppendString(out, n), ':')
	}
	if x.ToDevice.Enabled {
		name("to_device")
		out = event.AppendString(append(out, `{"next_batch":`...), b.h.inboxToken(b.parts.inbox))
		out = append(append(append(out, `,"events":[`...), b.out.e2ee.toDevice...), `]}`...)
	}
	if x.E2EE {
		name("e2ee")
		keys := b.out.e2ee.appendKeys(nil)
		out = append(append(append(out, '{'), keys[1:]...), '}')
	}
	if len(b.out.accountData)+len(b.parts.data) > 0 {
		name("account_data")
		out = append(append(out, `{"global":[`...), b.out.accountData...)
		out = append(append(append(out, `],"rooms":{`...), b.parts.data...), `}}`...)
	}
	for _, e := range []struct {
		name  string
		rooms []byte
	}{{"receipts", b.parts.receipts}, {"typing", b.parts.typing}} {
		if len(e.rooms) > 0 {
			name(e.name)
			out = append(append(append(out, `{"rooms":{`...), e.rooms...), `}}`...)
		}
	}
	if b.parts.threads != nil {
		threads := "io.element.msc4308.thread_subscriptions"
		if b.ask.Stable {
			threads = "thread_subscriptions"
		}
		name(threads)
		out = append(out, b.parts.threads...)
	}
	return out
}
