package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/longlock"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Times of membership. It is a hint: leases decide who owns what.
const (
	// announceEvery is how often a node says that it is there, and balanceEvery how
	// often it looks whether it should run other partitions than it does. Nothing that
	// waits for the store comes between two notices: a node is silent only if its process
	// stands still or the bus does not carry what it says.
	announceEvery = 500 * time.Millisecond
	balanceEvery  = 500 * time.Millisecond
	// memberTTL is how long a node counts as there after it was last heard of: it takes
	// six notices in a row that are lost. A wrong guess costs little: its leases keep
	// others from its partitions, and commands to it wait until it is heard again.
	memberTTL = 6 * announceEvery
	// silentMemory is how long a node that fell silent is remembered as such.
	silentMemory = time.Hour
	// helloTimeout is how long a new node listens for the others before it takes
	// partitions. One that hears nobody yet takes what is free, and gives it away
	// later.
	helloTimeout = 300 * time.Millisecond
	// takeTimeout is how long a hand-over waits for the new owner, and settleTimeout
	// for effects that callers wait for: together well below the 2 s that a client may
	// notice.
	takeTimeout   = time.Second
	settleTimeout = 500 * time.Millisecond
)

const membersSubject = "members"

// notice is what a node says of itself.
type notice struct {
	Node ids.NodeID `json:"node"`
	// Core: it runs partitions.
	Core bool `json:"core,omitempty"`
	// Worker: what follows the logs runs on it.
	Worker bool `json:"worker,omitempty"`
	// Draining: it gives its partitions away, or has withdrawn, and takes no others.
	Draining bool `json:"draining,omitempty"`
	// Hello asks the others to say who they are, Gone says that this is the last.
	Hello bool `json:"hello,omitempty"`
	Gone  bool `json:"gone,omitempty"`
	// Unfit: it cannot work, and may have to withdraw.
	Unfit bool `json:"unfit,omitempty"`
	// Hears are the nodes that it heard of lately, and whether they run partitions.
	Hears map[ids.NodeID]bool `json:"hears,omitempty"`
	// Runs are the partitions that it runs with their epochs.
	Runs map[ids.Partition]ids.Epoch `json:"runs,omitempty"`
}

var _ bus.Payload = (*notice)(nil)

// MarshalBinary implements bus.Payload.
func (a *notice) MarshalBinary() ([]byte, error) { return json.Marshal(a) }

// place is where a partition is run, as far as this node knows.
type place struct {
	node  ids.NodeID
	epoch ids.Epoch
}

// members are the other nodes.
type members struct {
	sub  bus.Subscription
	take bus.Subscription
	// wake has room for one: something changed.
	wake chan struct{}
	// announcing is held while a notice is made and sent, so that the last one that the
	// others get is the last that was true.
	announcing longlock.Mutex

	mu struct {
		sync.Mutex
		draining bool
		gone     bool
		others   map[ids.NodeID]*member
		// quiet are those that fell silent, as they were.
		quiet  map[ids.NodeID]*member
		places map[ids.Partition]place
		withdrawal
	}
}

type member struct {
	notice
	seen time.Time
	// there ends, by lose, when the node has been silent for long, as giveUp sees to.
	there  context.Context
	lose   context.CancelCauseFunc
	giveUp *time.Timer
}

// errSilent: a node that a command was sent to is not heard any more.
var errSilent = errors.New("cluster: the node is silent")

// join makes the node known and listens for the others.
func (n *Node) join(ctx context.Context) error {
	m := &n.members
	m.wake, m.announcing = make(chan struct{}, 1), longlock.New()
	m.mu.others, m.mu.quiet = make(map[ids.NodeID]*member), make(map[ids.NodeID]*member)
	var err error
	if m.take, err = n.opts.Bus.Handle("take."+string(n.opts.Node), n.asked); err != nil {
		return err
	}
	if m.sub, err = n.opts.Bus.Subscribe(membersSubject, n.heard); err != nil {
		m.take.Close()
		return err
	}
	n.announce(true)
	select {
	case <-time.After(helloTimeout):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// part ends what join began.
func (m *members) part() {
	if m.sub != nil {
		m.sub.Close()
	}
	if m.take != nil {
		m.take.Close()
	}
}

// idleLocked: the node takes no partitions.
func (m *members) idleLocked() bool { return m.mu.draining || m.mu.why != nil }

func (m *members) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// announce says what this node is and runs.
func (n *Node) announce(hello bool) {
	if !n.opts.Balance || n.members.sub == nil {
		return
	}
	n.members.announcing.Lock()
	defer n.members.announcing.Unlock()
	a := &notice{Node: n.opts.Node, Core: !n.opts.EdgeOnly, Worker: n.opts.Worker, Hello: hello, Runs: make(map[ids.Partition]ids.Epoch)}
	n.members.mu.Lock()
	a.Draining, a.Gone = n.members.idleLocked(), n.members.mu.gone
	a.Unfit = !n.members.mu.unfitSince.IsZero()
	now := time.Now()
	a.Hears = make(map[ids.NodeID]bool, len(n.members.mu.others))
	for id, o := range n.members.mu.others {
		if n.hearsLocked(id, now) {
			a.Hears[id] = o.Core
		}
	}
	n.members.mu.Unlock()
	n.mu.RLock()
	for p, o := range n.mu.owned {
		a.Runs[p] = o.lease.Epoch
	}
	n.mu.RUnlock()
	if err := n.opts.Bus.Publish(membersSubject, a); err != nil && n.ctx.Err() == nil {
		n.opts.Log.Debug("announce", "error", err)
	}
}

// heard takes the notice of a node.
func (n *Node) heard(p bus.Payload) {
	a, ok := p.(*notice)
	if raw, isRaw := p.(bus.Raw); isRaw {
		a = new(notice)
		ok = json.Unmarshal(raw, a) == nil
	}
	if !ok || a.Node == n.opts.Node {
		return
	}
	for p, epoch := range a.Runs {
		n.note(p, place{a.Node, epoch})
	}
	m := &n.members
	m.mu.Lock()
	have := m.mu.others[a.Node]
	changed := have == nil || a.Gone || have.Draining != a.Draining
	delete(m.mu.silent, a.Node)
	switch {
	case a.Gone:
		delete(m.mu.others, a.Node)
	case have == nil:
		m.mu.others[a.Node] = m.comesLocked(a)
		m.mu.heardCore = m.mu.heardCore || a.Core
	default:
		have.notice, have.seen = *a, time.Now()
	}
	m.mu.Unlock()
	if have == nil && !a.Gone {
		n.opts.Log.Info("node joins", "node", a.Node)
	}
	if a.Hello {
		n.announce(false)
	}
	if changed {
		m.signal()
	}
}

// comesLocked is a node that was not heard before, or not lately: then commands to it that
// wait for their answers go on waiting.
func (m *members) comesLocked(a *notice) *member {
	o := m.mu.quiet[a.Node]
	delete(m.mu.quiet, a.Node)
	if o == nil || !o.giveUp.Stop() {
		o = &member{}
		o.there, o.lose = context.WithCancelCause(context.Background())
	}
	o.notice, o.seen = *a, time.Now()
	return o
}

// note remembers where a partition is, unless something newer is known.
func (n *Node) note(p ids.Partition, at place) {
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	if n.members.mu.places == nil {
		n.members.mu.places = make(map[ids.Partition]place)
	}
	if at.epoch >= n.members.mu.places[p].epoch && int(p) < n.opts.Count {
		n.members.mu.places[p] = at
	}
}

// placeOf is where a partition is run, "" if that is not known.
func (n *Node) placeOf(p ids.Partition) ids.NodeID {
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	return n.members.mu.places[p].node
}

// way is the node that a command to a partition is sent to, and a context that ends when
// it has been silent for long, nil if it was never heard. There is no way to a node that
// is silent: what is sent to one whose machine lost power, or behind a network that
// swallows everything, would hang until its deadline, long after another has the
// partition.
func (n *Node) way(p ids.Partition) (to ids.NodeID, there context.Context) {
	n.members.mu.Lock()
	defer n.members.mu.Unlock()
	to = n.members.mu.places[p].node
	if o := n.members.mu.others[to]; o != nil {
		return to, o.there
	}
	if _, silent := n.members.mu.silent[to]; silent {
		return "", nil
	}
	return to, nil
}

// candidates are the nodes among which partitions are spread.
func (n *Node) candidates() []ids.NodeID {
	m := &n.members
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []ids.NodeID
	if !n.opts.EdgeOnly && !m.idleLocked() {
		list = append(list, n.opts.Node)
	}
	for id, o := range m.mu.others {
		if now := time.Now(); now.Sub(o.seen) > memberTTL {
			n.fellSilentLocked(id, now)
			continue
		}
		if o.Core && !o.Draining {
			list = append(list, id)
		}
	}
	return list
}

// Home is the node that runs the partition which a key falls into, "" if none is known or
// it is silent.
func (n *Node) Home(key string) ids.NodeID {
	p := ids.PartitionOf(key, n.opts.Count)
	if n.Owns(p) {
		return n.opts.Node
	}
	to, _ := n.way(p)
	return to
}

// fellSilentLocked forgets a node that says nothing. Commands to it end when it has said
// nothing for as long as makes others withdraw, with an outcome that is not known: sooner
// they gain nothing, since nobody else has its partitions, and it may only be slow.
func (n *Node) fellSilentLocked(id ids.NodeID, now time.Time) {
	n.opts.Log.Warn("node is silent", "node", id)
	m := &n.members
	o := m.mu.others[id]
	o.giveUp = time.AfterFunc(partedPatience, func() { o.lose(errSilent) })
	m.mu.quiet[id] = o
	delete(m.mu.others, id)
	m.mu.withdrawal.fellSilent(id, now)
	maps.DeleteFunc(m.mu.quiet, func(id ids.NodeID, _ *member) bool { return m.mu.silent[id].IsZero() })
}

// rightful is the node that should run a partition: the one with the highest hash of
// both names, so that few partitions move when a node comes or goes. "" if there is
// none.
func rightful(p ids.Partition, nodes []ids.NodeID) ids.NodeID {
	var best ids.NodeID
	var most uint64
	for _, id := range nodes {
		h := fnv.New64a()
		_, _ = h.Write([]byte(id)) // a hash does not fail
		_, _ = h.Write(binary.BigEndian.AppendUint16(nil, uint16(p)))
		// The last bytes hardly reach the high bits of FNV.
		score := h.Sum64() * 0x9e3779b97f4a7c15
		score ^= score >> 29
		score *= 0xbf58476d1ce4e5b9
		if best == "" || score > most || score == most && id < best {
			best, most = id, score
		}
	}
	return best
}

// wants reports whether this node should try to run a partition that it does not.
func (n *Node) wants(p ids.Partition) bool {
	if n.opts.EdgeOnly {
		return false
	}
	return !n.opts.Balance || rightful(p, n.candidates()) == n.opts.Node
}

func (n *Node) announceLoop() {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
			n.announce(false)
		}
	}
}

func (n *Node) balanceLoop() {
	balance := time.NewTicker(balanceEvery)
	defer balance.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-balance.C:
		case <-n.members.wake:
		}
		n.balance(n.ctx)
	}
}

// balance takes what this node should run and is free, and gives away what another
// should run.
func (n *Node) balance(ctx context.Context) {
	n.reconsider(ctx)
	nodes := n.candidates()
	moved := false
	for i := range n.opts.Count {
		p := ids.Partition(i)
		to := rightful(p, nodes)
		switch owns := n.Owns(p); {
		case ctx.Err() != nil:
			return
		case owns && to != n.opts.Node && to != "":
			n.handOver(ctx, p, to)
			moved = true
		case !owns && to == n.opts.Node:
			if err := n.begin(ctx, p); err == nil {
				moved = true
			} else if !errors.Is(err, storage.ErrHeld) && ctx.Err() == nil {
				n.opts.Log.Warn("take partition", "partition", p, "error", err)
			}
		}
	}
	if moved {
		n.announce(false)
	}
}

// handOver finishes what is queued for a partition, releases it, and tells the node
// that should run it. If that does not answer it finds the partition free by itself.
func (n *Node) handOver(ctx context.Context, p ids.Partition, to ids.NodeID) {
	if !n.release(p) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	answer, err := n.opts.Bus.Request(ctx, "take."+string(to), bus.Raw(binary.BigEndian.AppendUint16(nil, uint16(p))))
	if errors.Is(err, bus.ErrNoResponder) {
		// It is gone, and the partition is somebody else's.
		n.members.mu.Lock()
		if o := n.members.mu.others[to]; o != nil {
			o.lose(errSilent)
		}
		delete(n.members.mu.others, to)
		n.members.mu.Unlock()
		n.members.signal()
	}
	if err != nil {
		n.opts.Log.Warn("hand partition over", "partition", p, "to", to, "error", err)
		return
	}
	if raw, ok := answer.(bus.Raw); ok && len(raw) == 8 {
		n.note(p, place{to, ids.Epoch(binary.BigEndian.Uint64(raw))})
	}
}

// release ends the owner of a partition and gives its lease up.
func (n *Node) release(p ids.Partition) bool {
	n.slots[p].Lock()
	defer n.slots[p].Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	o := n.dropLocked(p, func(o *partition.Owner) { o.CloseSettled(ctx) })
	if o == nil {
		return false
	}
	err := n.opts.Store.Release(context.Background(), o.lease)
	if err != nil && !errors.Is(err, storage.ErrFenced) {
		n.opts.Log.Warn("release partition", "partition", p, "error", err)
		return false
	}
	return true
}

var errTake = errors.New("cluster: malformed request to take a partition")

// asked takes a partition that another node has released for this one.
func (n *Node) asked(ctx context.Context, in bus.Payload) (bus.Payload, error) {
	raw, ok := in.(bus.Raw)
	if !ok || len(raw) != 2 || int(binary.BigEndian.Uint16(raw)) >= n.opts.Count {
		return nil, errTake
	}
	p := ids.Partition(binary.BigEndian.Uint16(raw))
	n.members.mu.Lock()
	idle := n.members.idleLocked()
	n.members.mu.Unlock()
	if n.ctx.Err() != nil || n.opts.EdgeOnly || idle {
		return nil, bus.ErrNoResponder
	}
	// Who asked may stop waiting; what was begun is done all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.opts.LeaseTTL)
	defer cancel()
	if err := n.begin(ctx, p); err != nil {
		return nil, err
	}
	n.announce(false)
	o := n.owned(p)
	if o == nil {
		return nil, bus.ErrNoResponder
	}
	return bus.Raw(binary.BigEndian.AppendUint64(nil, uint64(o.lease.Epoch))), nil
}

// leave gives all partitions to the others, one after another, so that effects
// between them still find their way.
func (n *Node) leave() {
	m := &n.members
	m.mu.Lock()
	m.mu.draining = true
	m.mu.Unlock()
	n.announce(false)
	nodes := n.candidates()
	for p := range n.opts.Count {
		if to := rightful(ids.Partition(p), nodes); to != "" && n.Owns(ids.Partition(p)) {
			n.handOver(context.Background(), ids.Partition(p), to)
		}
	}
}

// part says that this node is gone.
func (n *Node) part() {
	n.members.mu.Lock()
	n.members.mu.gone = true
	n.members.mu.Unlock()
	n.announce(false)
}

// unknown is the error of a command of which it is not known whether it was applied.
func unknown(err error) error {
	return merr.UnavailableErr(moved, "The outcome is not known, try again").Because(errors.Join(partition.ErrLost, err))
}
