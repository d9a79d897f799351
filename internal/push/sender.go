package push

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/http"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// maxWorkers is how many pushers are served at once, maxPerGateway how many
	// of them by one gateway, so that one that is slow leaves room for others.
	maxWorkers    = 256
	maxPerGateway = 32
)

// sender sends what is queued. Each pusher that has something waiting has a line,
// and one dispatcher gives the lines that are due to workers.
type sender struct {
	svc    *Service
	pace   pace
	client *http.Client
	badges *badges
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// nudge has room for one: there may be a line that is due.
	nudge chan struct{}

	mu struct {
		sync.Mutex
		// owned are the contexts of the partitions of this node.
		owned    map[ids.Partition]context.Context
		lines    map[account.Waiting]*line
		due      lineHeap
		workers  int
		gateways map[string]*gateway
	}
}

// line is a pusher that has something to be sent. It is in the heap, or with a
// worker, or waits for its gateway.
type line struct {
	who      account.Waiting
	home     ids.Partition
	due      time.Time
	attempts int
	// working: it is with a worker; again: something came meanwhile.
	working, again bool
}

// gateway counts the workers that a gateway has, and keeps the lines that wait for
// one of them to be done.
type gateway struct {
	workers int
	waiting []*line
}

func newSender(svc *Service, pc pace) *sender {
	d := &sender{svc: svc, pace: pc, nudge: make(chan struct{}, 1), client: newClient(&svc.opts)}
	d.badges = newBadges(svc)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.mu.owned = make(map[ids.Partition]context.Context)
	d.mu.lines = make(map[account.Waiting]*line)
	d.mu.gateways = make(map[string]*gateway)
	d.wg.Go(d.dispatch)
	return d
}

func (d *sender) close() {
	d.cancel()
	d.wg.Wait()
	d.client.CloseIdleConnections()
}

// begin takes a partition's users over, until ctx ends.
func (d *sender) begin(ctx context.Context, p ids.Partition) {
	d.badges.forget(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.owned[p] = ctx
}

// wake tells that a pusher of a user of this node may have something waiting.
func (d *sender) wake(p ids.Partition, w account.Waiting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.mu.lines[w]
	switch {
	case l == nil:
		l = &line{who: w, home: p}
		d.mu.lines[w] = l
		d.scheduleLocked(l, time.Now())
	case l.working:
		l.again = true
	}
	// Otherwise it is waiting already, maybe for its gateway to come back.
}

func (d *sender) scheduleLocked(l *line, due time.Time) {
	l.due = due
	heap.Push(&d.mu.due, l)
	select {
	case d.nudge <- struct{}{}:
	default:
	}
}

// dispatch gives lines to workers.
func (d *sender) dispatch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(d.startDue())
		select {
		case <-d.nudge:
		case <-timer.C:
		case <-d.ctx.Done():
			return
		}
	}
}

// startDue starts workers for what is due and returns when to look again.
func (d *sender) startDue() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.mu.due) > 0 && d.mu.workers < maxWorkers {
		if wait := time.Until(d.mu.due[0].due); wait > 0 {
			return wait
		}
		l := heap.Pop(&d.mu.due).(*line)
		ctx := d.mu.owned[l.home]
		if ctx == nil || ctx.Err() != nil {
			delete(d.mu.lines, l.who) // the partition's next owner finds it
			continue
		}
		l.working = true
		d.mu.workers++
		d.wg.Go(func() { d.work(ctx, l) })
	}
	return time.Hour // a worker that ends nudges
}

// work serves a line and puts it where it belongs then.
func (d *sender) work(home context.Context, l *line) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	defer context.AfterFunc(home, cancel)()
	res := d.serve(ctx, l)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.workers--
	l.working = false
	again := l.again
	l.again = false
	switch res.state {
	case stateBusy:
		g := d.gatewayLocked(res.host)
		if g.workers < maxPerGateway { // it has room again
			d.scheduleLocked(l, time.Now())
		} else {
			g.waiting = append(g.waiting, l)
		}
	case stateFailed:
		l.attempts++
		d.scheduleLocked(l, time.Now().Add(max(d.backoff(l.attempts), res.wait)))
	default:
		l.attempts = 0
		if again || res.state == stateMore {
			d.scheduleLocked(l, time.Now())
		} else {
			delete(d.mu.lines, l.who)
		}
	}
	select { // there is room for a worker
	case d.nudge <- struct{}{}:
	default:
	}
}

// backoff is the pause behind a number of attempts that failed: twice as long each
// time, and somewhere in its second half, so that pushers whose gateway went
// away together do not come back together.
func (d *sender) backoff(attempts int) time.Duration {
	pause := d.pace.retryMax
	if attempts < 32 {
		pause = min(pause, d.pace.retryMin<<(attempts-1))
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return pause/2 + time.Duration(binary.BigEndian.Uint64(random[:])%uint64(pause/2+1))
}

// enter takes one of the places of a gateway, false if there is none.
func (d *sender) enter(host string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.gatewayLocked(host)
	if g.workers >= maxPerGateway {
		return false
	}
	g.workers++
	return true
}

// leave gives it back, to the line that has waited longest.
func (d *sender) leave(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.gatewayLocked(host)
	g.workers--
	if len(g.waiting) > 0 {
		l := g.waiting[0]
		g.waiting = g.waiting[1:]
		d.scheduleLocked(l, time.Now())
	} else if g.workers == 0 {
		delete(d.mu.gateways, host)
	}
}

func (d *sender) gatewayLocked(host string) *gateway {
	g := d.mu.gateways[host]
	if g == nil {
		g = &gateway{}
		d.mu.gateways[host] = g
	}
	return g
}

// waiting is how many pushers have something to be sent.
func (d *sender) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.lines)
}

// lineHeap has the line that is due first on top.
type lineHeap []*line

var _ heap.Interface = (*lineHeap)(nil)

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
}

// Push implements heap.Interface.
func (h *lineHeap) Push(x any) {
	l := x.(*line)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *lineHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}
