package feed

import "github.com/hubbub-chat/hubbub/internal/ids"

// Who asks for lazy-loaded members is sent the member event of a sender once, and
// again when it changed. So it has to be remembered what a client has, and what
// was sent is not always received: a socket may refuse a frame, a response may be
// lost on its way. A member event that is taken for received and was not leaves a
// client without the name of someone for good, while one sent twice does no harm.
// spec: client-server §Lazy-loading room members.

const (
	// maxLazy bounds what is remembered for one client; beyond it, all is
	// forgotten, and members are sent again.
	maxLazy = 10_000
	// maxPollers is for how many polling devices of a user it is remembered.
	maxPollers = 20
)

type lazyKey struct {
	room ids.RoomID
	user ids.UserID
}

// lazyMember is a member event, by its position.
type lazyMember struct {
	key lazyKey
	at  ids.Seq
}

// lazyMembers are the member events that a client has.
type lazyMembers map[lazyKey]ids.Seq

// lazyMemory says which member event of a user a client has, 0 for none.
type lazyMemory interface {
	member(k lazyKey) ids.Seq
}

func (m lazyMembers) add(list []lazyMember) {
	for _, l := range list {
		if len(m) >= maxLazy {
			clear(m)
		}
		m[l.key] = l.at
	}
}

// polledLazy is what a polling device has. What a response brought counts when a
// request goes on from that response.
type polledLazy struct {
	// has is what the device has if it is at the token at.
	has lazyMembers
	at  string
	// sent is what the last response brought, which ended at the token next.
	sent []lazyMember
	next string
}

// poller is the memory of one request.
type poller struct {
	view   *view
	device ids.DeviceID
}

var (
	_ lazyMemory = poller{}
	_ lazyMemory = (*session)(nil)
)

// begin takes note of where a device is.
func (p poller) begin(since *Position) {
	at := ""
	if since != nil {
		at = since.Token()
	}
	p.view.mu.Lock()
	defer p.view.mu.Unlock()
	polled := p.view.polledLocked()
	if polled.lazy == nil {
		polled.lazy = make(map[ids.DeviceID]*polledLazy)
	}
	d := polled.lazy[p.device]
	switch {
	case d == nil || at == "" || at != d.at && at != d.next:
		if d == nil && len(polled.lazy) >= maxPollers {
			clear(polled.lazy)
		}
		d = &polledLazy{has: make(lazyMembers)}
		polled.lazy[p.device] = d
	case at == d.next:
		d.has.add(d.sent)
	}
	d.at, d.sent, d.next = at, nil, ""
}

// end takes note of what the response brings, and where the device is then.
func (p poller) end(sent []lazyMember, next Position) {
	p.view.mu.Lock()
	defer p.view.mu.Unlock()
	if d := p.view.polledLocked().lazy[p.device]; d != nil {
		d.sent, d.next = sent, next.Token()
	}
}

func (p poller) member(k lazyKey) ids.Seq {
	p.view.mu.Lock()
	defer p.view.mu.Unlock()
	return p.view.lazyOfLocked(p.device)[k]
}

// lazyOfLocked is what a polling device has.
func (v *view) lazyOfLocked(d ids.DeviceID) lazyMembers {
	if v.mu.polled == nil {
		return nil
	}
	if l := v.mu.polled.lazy[d]; l != nil {
		return l.has
	}
	return nil
}

// member implements lazyMemory.
func (s *session) member(k lazyKey) ids.Seq {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.lazy[k]
}
