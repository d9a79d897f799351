package sim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Times of the network.
const (
	wireMin, wireMax = 100 * time.Microsecond, 3 * time.Millisecond
	// delayed is how late a message can be.
	delayed = time.Second
)

// network carries what nodes say to each other, as far as it pleases. A message can
// be lost, come late, out of order or twice; a request reaches its handler at most
// once, and its answer may not come.
type network struct {
	world *world
	dice  *dice
	wg    tasks // what is under way

	mu struct {
		sync.Mutex
		buses map[*nodeBus]bool
		// cut are the pairs of nodes, by number, that do not reach each other.
		cut map[[2]int]bool
	}
}

func newNetwork(w *world) *network {
	n := &network{world: w, dice: newDice(w.seed, "network")}
	n.mu.buses = make(map[*nodeBus]bool)
	n.mu.cut = make(map[[2]int]bool)
	return n
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

func (n *network) setCut(a, b int, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[pair(a, b)] = cut
}

func (n *network) isCut(a, b *nodeBus) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.cut[pair(a.node.number, b.node.number)]
}

func (n *network) open(nd *node) *nodeBus {
	b := &nodeBus{net: n, node: nd, done: make(chan struct{})}
	b.mu.subs = make(map[string][]*subscription)
	b.mu.handlers = make(map[string]*handler)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.buses[b] = true
	return b
}

// others are the nodes that a message of b goes to, in the order of their numbers.
func (n *network) others(b *nodeBus) []*nodeBus {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*nodeBus
	for i := range n.world.opts.Nodes {
		for o := range n.mu.buses {
			if o.node.number == i && o != b {
				out = append(out, o)
			}
		}
	}
	return out
}

// nodeBus is the bus as one node has it.
type nodeBus struct {
	net  *network
	node *node
	done chan struct{}
	once sync.Once

	mu struct {
		sync.Mutex
		subs     map[string][]*subscription
		handlers map[string]*handler
	}
}

var _ bus.Bus = (*nodeBus)(nil)

// vanish takes the node off the network.
func (b *nodeBus) vanish() {
	b.net.mu.Lock()
	delete(b.net.mu.buses, b)
	b.net.mu.Unlock()
	b.once.Do(func() { close(b.done) })
}

// Publish implements bus.Bus.
func (b *nodeBus) Publish(subject string, p bus.Payload) error {
	if b.node.isDead() {
		return bus.ErrClosed
	}
	b.offer(subject, p)
	data, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	f := b.net.world.weather
	blank := b.net.world.blank(p)
	for _, o := range b.net.others(b) {
		times := 1
		switch {
		case b.net.isCut(b, o) || b.net.dice.chance(f.lost()):
			times = 0
		case b.net.dice.chance(f.twice()):
			times = 2
		}
		data := data
		if times == 0 && blank != nil {
			data, times = blank, 1
		}
		for range times {
			wait := b.net.dice.between(wireMin, wireMax)
			if b.net.dice.chance(f.slowWire()) {
				wait = b.net.dice.between(wireMin, delayed)
			}
			b.net.wg.Go(func() {
				time.Sleep(wait)
				if !b.net.isCut(b, o) || blank != nil {
					o.offer(subject, bus.Raw(data))
				}
			})
		}
	}
	return nil
}

// blank is what NoGaps makes of a batch that is lost: the positions, so that nobody sees a
// gap, and nothing in them. nil for all others.
func (w *world) blank(p bus.Payload) []byte {
	b, ok := p.(*partition.Published)
	if !ok || w.opts.Mutant != NoGaps {
		return nil
	}
	empty := &partition.Published{Partition: b.Partition, Epoch: b.Epoch, First: b.First, Last: b.Last}
	for range b.Records {
		empty.Records = append(empty.Records, partition.Record{Kind: partition.RecordEffect})
	}
	data, err := empty.MarshalBinary()
	if err != nil {
		panic(err) // it has no bodies that could fail
	}
	return data
}

// offer gives a message to the subscribers on the node.
func (b *nodeBus) offer(subject string, p bus.Payload) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.mu.subs[subject] {
		select {
		case s.queue <- p:
		default: // too slow
		}
	}
}

type subscription struct {
	bus     *nodeBus
	subject string
	queue   chan bus.Payload
	stop    chan struct{}
	once    sync.Once
	ended   chan struct{}
}

// Subscribe implements bus.Bus.
func (b *nodeBus) Subscribe(subject string, fn func(bus.Payload)) (bus.Subscription, error) {
	s := &subscription{
		bus: b, subject: subject, queue: make(chan bus.Payload, bus.QueueLength),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.subs[subject] = append(b.mu.subs[subject], s)
	go s.run(fn)
	return s, nil
}

func (s *subscription) run(fn func(bus.Payload)) {
	defer close(s.ended)
	for {
		select {
		case <-s.stop:
			return
		case p := <-s.queue:
			if s.bus.node.awake() == nil {
				fn(p)
			}
		}
	}
}

func (s *subscription) Close() {
	s.bus.mu.Lock()
	kept := make([]*subscription, 0, len(s.bus.mu.subs[s.subject]))
	for _, o := range s.bus.mu.subs[s.subject] {
		if o != s {
			kept = append(kept, o)
		}
	}
	s.bus.mu.subs[s.subject] = kept
	s.bus.mu.Unlock()
	s.once.Do(func() { close(s.stop) })
	<-s.ended
}

func (s *subscription) Dropped() uint64 { return 0 }

type handler struct {
	bus     *nodeBus
	subject string
	fn      func(context.Context, bus.Payload) (bus.Payload, error)
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// Handle implements bus.Bus.
func (b *nodeBus) Handle(subject string, fn func(context.Context, bus.Payload) (bus.Payload, error)) (bus.Subscription, error) {
	h := &handler{bus: b, subject: subject, fn: fn}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.handlers[subject] = h
	return h, nil
}

func (h *handler) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
}

func (h *handler) Dropped() uint64 { return 0 }

// begin notes that a request runs; false if nobody is here any more.
func (h *handler) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.running.Add(1)
	return true
}

func (b *nodeBus) handler(subject string) *handler {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.handlers[subject]
}

type reply struct {
	p   bus.Payload
	err error
}

// Request implements bus.Bus.
func (b *nodeBus) Request(ctx context.Context, subject string, p bus.Payload) (bus.Payload, error) {
	if err := b.node.awake(); err != nil {
		return nil, err
	}
	if h := b.handler(subject); h != nil {
		if !h.begin() {
			return nil, bus.ErrNoResponder
		}
		defer h.running.Done()
		return h.fn(ctx, p)
	}
	data, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	left := time.Hour
	if end, ok := ctx.Deadline(); ok {
		left = time.Until(end)
	}
	answer := make(chan reply, 1)
	b.net.wg.Go(func() { b.ask(subject, data, left, answer) })
	select {
	case r := <-answer:
		return r.p, errors.Join(r.err, b.node.awake())
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.done:
		return nil, bus.ErrClosed
	}
}

// ask carries a request there and its answer back.
func (b *nodeBus) ask(subject string, data []byte, left time.Duration, answer chan<- reply) {
	f := b.net.world.weather
	travel := func() { time.Sleep(b.net.dice.between(wireMin, wireMax)) }
	travel()
	var to *nodeBus
	var h *handler
	for _, o := range b.net.others(b) {
		if h = o.handler(subject); h != nil {
			to = o
			break
		}
	}
	switch {
	case to == nil:
		travel()
		answer <- reply{err: bus.ErrNoResponder}
		return
	case b.net.isCut(b, to) || b.net.dice.chance(f.lost()):
		return
	case to.node.awake() != nil:
		return // it died with the request
	case !h.begin():
		travel()
		answer <- reply{err: bus.ErrNoResponder}
		return
	}
	defer h.running.Done()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	r := reply{}
	r.p, r.err = h.fn(ctx, bus.Raw(data))
	if r.err == nil {
		var raw []byte
		if raw, r.err = r.p.MarshalBinary(); r.err == nil {
			r.p = bus.Raw(raw)
		}
	}
	if r.err != nil && !errors.Is(r.err, bus.ErrNoResponder) {
		r.err = errors.New(r.err.Error())
	}
	if to.node.awake() != nil || b.net.isCut(b, to) || b.net.dice.chance(f.lost()) {
		return
	}
	travel()
	answer <- r
}

// Close implements bus.Bus.
func (b *nodeBus) Close() error {
	b.vanish()
	return nil
}
