package feed

import (
	"context"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// emptied says that a device was found to have no message up to a position. A client that
// polls acknowledges with each request, nearly always nothing: it need not be looked for.
type emptied struct {
	device ids.DeviceID
	upTo   ids.Seq
}

// inboxEmpty reports whether a device is known to have no message up to a position,
// which the view has heard of all up to.
func (v *view) inboxEmpty(device ids.DeviceID, upTo ids.Seq) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.polled == nil {
		return false
	}
	for _, e := range v.mu.polled.emptied {
		if e.device == device {
			return e.upTo >= min(upTo, v.mu.inbox)
		}
	}
	return false
}

// wroteSince reports whether there may be a message to any of the devices behind a
// position.
func (v *view) wroteSince(at ids.Seq) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return at < v.mu.inbox
}

// emptied notes that a device has no message up to a position, likewise.
func (v *view) emptied(device ids.DeviceID, upTo ids.Seq) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.polledLocked()
	list := p.emptied
	for i := range list {
		if list[i].device == device {
			list[i].upTo = max(list[i].upTo, upTo)
			return
		}
	}
	p.emptied = ofDevices(list, emptied{device, upTo})
}

// acknowledged is acknowledge for a client that says with each request what it has. A
// failure does not matter: the messages stay until the next time.
func (h *Hub) acknowledged(ctx context.Context, user ids.UserID, device ids.DeviceID, p *Position) {
	v, err := h.acquire(ctx, user)
	if err != nil {
		return // as what comes next will say
	}
	defer h.release(v)
	upTo := p.inbox(v.home)
	heard := h.shards[v.home].at() >= p.At[v.home]
	if heard && v.inboxEmpty(device, upTo) {
		return
	}
	if err := h.acknowledge(ctx, user, device, p); err != nil {
		h.opts.Log.Warn("remove acknowledged messages", "user", user, "error", err)
	} else if heard {
		v.emptied(device, upTo)
	}
}

// acknowledge removes the to-device messages that a position covers: the client
// says that it has them. A position of the future acknowledges nothing.
func (h *Hub) acknowledge(ctx context.Context, user ids.UserID, device ids.DeviceID, p *Position) error {
	home := h.homeOf(user)
	upTo := p.inbox(home)
	list, err := h.accounts.Inbox(ctx, user, device, 0, upTo, 1)
	if err != nil || len(list) == 0 {
		return err
	}
	heads, err := h.opts.Heads.Heads(ctx, home)
	if err != nil {
		return fmt.Errorf("acknowledge messages: %w", err)
	}
	if head := heads[0]; upTo > head || p.At[home] > head {
		return nil
	}
	_, err = h.opts.Router.Do(ctx, account.NewAckInbox(user, device, upTo))
	return err
}
