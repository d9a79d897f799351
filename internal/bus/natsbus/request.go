package natsbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hubbub-chat/hubbub/internal/bus"
)

// The kinds of messages.
const (
	kindRequest byte = iota + 1
	kindAnswer
	kindError
	kindNobody
	kindBusy
)

// noResponders is the status with which NATS says that nobody subscribes.
const noResponders = "503"

// head begins each part of a request or an answer.
type head struct {
	kind byte
	// left is the time that the caller still waits, 0 if it does not say.
	left time.Duration
	// part counts from 0 up to parts.
	part, parts uint64
}

func (h head) append(b []byte) []byte {
	b = append(b, h.kind)
	b = binary.AppendUvarint(b, uint64(h.left/time.Millisecond))
	b = binary.AppendUvarint(b, h.part)
	return binary.AppendUvarint(b, h.parts)
}

var errHead = errors.New("natsbus: malformed message")

func parseHead(b []byte) (h head, rest []byte, err error) {
	if len(b) == 0 {
		return h, nil, errHead
	}
	h.kind, b = b[0], b[1:]
	var nums [3]uint64
	for i := range nums {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return h, nil, errHead
		}
		nums[i], b = v, b[n:]
	}
	const longest = 24 * time.Hour
	h.left = time.Duration(min(nums[0], uint64(longest/time.Millisecond))) * time.Millisecond
	h.part, h.parts = nums[1], nums[2]
	if h.parts == 0 || h.part >= h.parts || h.parts > maxMessage/maxPart+1 {
		return h, nil, errHead
	}
	return h, b, nil
}

// send publishes a message in parts.
func (b *Bus) send(subject, reply string, h head, data []byte) error {
	if len(data) > maxMessage {
		return fmt.Errorf("%w: %d bytes, of %d", ErrTooLarge, len(data), maxMessage)
	}
	h.parts = uint64(max(1, (len(data)+maxPart-1)/maxPart))
	for h.part = 0; h.part < h.parts; h.part++ {
		n := min(len(data), maxPart)
		msg := append(h.append(make([]byte, 0, n+16)), data[:n]...)
		data = data[n:]
		if err := b.conn.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: msg}); err != nil {
			return fmt.Errorf("natsbus: send: %w", err)
		}
	}
	return nil
}

// assembly are the parts of a message that have come, in order.
type assembly struct {
	data  []byte
	parts uint64
	since time.Time
}

// add appends a part; done when it was the last. Parts come in order, or some are
// lost and the message with them.
func (a *assembly) add(h head, part []byte) (done bool, err error) {
	if h.part != a.parts || len(a.data)+len(part) > maxMessage {
		return false, errHead
	}
	a.parts++
	a.data = append(a.data, part...)
	return a.parts == h.parts, nil
}

// call waits for an answer.
type call struct {
	assembly
	done chan reply
}

type reply struct {
	data bus.Payload
	err  error
}

// Request implements bus.Bus.
func (b *Bus) Request(ctx context.Context, subject string, p bus.Payload) (bus.Payload, error) {
	answer, err := b.local.Request(ctx, subject, p)
	if !errors.Is(err, bus.ErrNoResponder) {
		return answer, err
	}
	data, err := p.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("natsbus: encode request: %w", err)
	}
	h := head{kind: kindRequest}
	if end, ok := ctx.Deadline(); ok {
		if h.left = time.Until(end); h.left < time.Millisecond {
			return nil, context.DeadlineExceeded
		}
	}
	inbox := b.inbox + "." + strconv.FormatUint(b.nextID.Add(1), 36)
	c := &call{done: make(chan reply, 1)}
	b.mu.Lock()
	closed := b.mu.closed
	if !closed {
		b.mu.calls[inbox] = c
	}
	b.mu.Unlock()
	if closed {
		return nil, bus.ErrClosed
	}
	defer b.forget(inbox)
	if err := b.send(b.prefix+subject, inbox, h, data); err != nil {
		return nil, err
	}
	select {
	case r := <-c.done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.ctx.Done():
		return nil, bus.ErrClosed
	}
}

func (b *Bus) forget(inbox string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mu.calls, inbox)
}

// answered takes an answer, or a part of one.
func (b *Bus) answered(m *nats.Msg) {
	b.mu.Lock()
	c := b.mu.calls[m.Subject]
	b.mu.Unlock()
	if c == nil {
		return // nobody waits any more
	}
	var r reply
	if len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
		r.err = bus.ErrNoResponder
	} else {
		h, rest, err := parseHead(m.Data)
		done := false
		if err == nil {
			done, err = c.add(h, rest)
		}
		if err == nil && !done {
			return
		}
		r = toReply(h, c.data, err)
	}
	select {
	case c.done <- r:
	default: // a second answer, of a node that did not know that it is no longer asked
	}
}

func toReply(h head, data []byte, err error) reply {
	if err != nil {
		return reply{err: err}
	}
	switch h.kind {
	case kindAnswer:
		return reply{data: bus.Raw(data)}
	case kindNobody:
		return reply{err: bus.ErrNoResponder}
	case kindBusy:
		return reply{err: ErrBusy}
	default:
		return reply{err: errors.New(string(data))}
	}
}

// handler answers the requests of other nodes to one subject.
type handler struct {
	bus     *Bus
	fn      func(context.Context, bus.Payload) (bus.Payload, error)
	local   bus.Subscription
	sub     *nats.Subscription
	waiting map[string]*assembly // by inbox; the goroutine's of the subscription
	bytes   int
	mu      struct {
		sync.Mutex
		closed bool
	}
	running sync.WaitGroup
}

// Handle implements bus.Bus.
func (b *Bus) Handle(subject string, fn func(context.Context, bus.Payload) (bus.Payload, error)) (bus.Subscription, error) {
	local, err := b.local.Handle(subject, fn)
	if err != nil {
		return nil, err
	}
	h := &handler{bus: b, fn: fn, local: local, waiting: make(map[string]*assembly)}
	h.sub, err = b.conn.Subscribe(b.prefix+subject, h.receive)
	if err == nil {
		err = h.sub.SetPendingLimits(pendingMessages, pendingBytes)
	}
	if err != nil {
		local.Close()
		return nil, fmt.Errorf("natsbus: handle: %w", err)
	}
	return h, nil
}

func (h *handler) Dropped() uint64 { return 0 }

// Close implements bus.Subscription. Who asks from now on is told that nobody is
// here.
func (h *handler) Close() {
	h.mu.Lock()
	h.mu.closed = true
	h.mu.Unlock()
	h.local.Close()
	h.running.Wait()
	// A request that is on its way would be dropped by NATS, and its caller would
	// wait: it is refused until all servers know that nobody is here.
	time.AfterFunc(linger, func() { _ = h.sub.Unsubscribe() }) // fails when the connection is closed
}

// receive takes a part of a request. It does not wait.
func (h *handler) receive(m *nats.Msg) {
	hd, rest, err := parseHead(m.Data)
	if err != nil || m.Reply == "" || hd.kind != kindRequest {
		h.bus.opts.Log.Warn("malformed request", "subject", m.Subject, "error", err)
		return
	}
	data, ok := h.assemble(m.Reply, hd, rest)
	if !ok {
		return
	}
	h.mu.Lock()
	closed := h.mu.closed
	if !closed {
		h.running.Add(1)
	}
	h.mu.Unlock()
	if closed {
		h.refuse(m.Reply, kindNobody)
		return
	}
	select {
	case h.bus.running <- struct{}{}:
	default:
		h.running.Done()
		h.refuse(m.Reply, kindBusy)
		return
	}
	h.bus.workers.do(h.bus.ctx, request{h, m.Reply, hd.left, data})
}

// request is one that another node sent, and that has its place.
type request struct {
	to    *handler
	inbox string
	left  time.Duration
	data  []byte
}

func (r *request) run() {
	h := r.to
	defer h.running.Done()
	defer func() { <-h.bus.running }()
	ctx := h.bus.ctx
	if r.left > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.left)
		defer cancel()
	}
	p, err := h.fn(ctx, bus.Raw(r.data))
	kind, out := kindAnswer, []byte(nil)
	if err == nil {
		out, err = p.MarshalBinary()
	}
	switch {
	case errors.Is(err, bus.ErrNoResponder):
		kind, out = kindNobody, nil
	case err != nil:
		kind, out = kindError, []byte(err.Error())
	}
	err = h.bus.send(r.inbox, "", head{kind: kind}, out)
	if errors.Is(err, ErrTooLarge) {
		err = h.bus.send(r.inbox, "", head{kind: kindError}, []byte(err.Error()))
	}
	if err != nil && h.bus.ctx.Err() == nil {
		h.bus.opts.Log.Warn("answer a request", "error", err)
	}
}

func (h *handler) refuse(inbox string, kind byte) {
	_ = h.bus.send(inbox, "", head{kind: kind}, nil) // the caller's deadline tells it otherwise
}

// assemble returns a request when it is whole.
func (h *handler) assemble(inbox string, hd head, part []byte) ([]byte, bool) {
	if hd.parts == 1 {
		return part, true
	}
	a := h.waiting[inbox]
	if a == nil {
		h.expire()
		if h.bytes > maxAssembly {
			if hd.part == 0 {
				h.refuse(inbox, kindBusy)
			}
			return nil, false
		}
		a = &assembly{since: time.Now()}
		h.waiting[inbox] = a
	}
	done, err := a.add(hd, part)
	if err == nil {
		h.bytes += len(part)
	}
	if err == nil && !done {
		return nil, false
	}
	delete(h.waiting, inbox)
	h.bytes -= len(a.data)
	return a.data, err == nil
}

// expire forgets messages whose rest does not come.
func (h *handler) expire() {
	for inbox, a := range h.waiting {
		if time.Since(a.since) > assemblyAge {
			delete(h.waiting, inbox)
			h.bytes -= len(a.data)
		}
	}
}
