package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/sim/judge"
)

// weather is how likely small faults are. It changes in the course of a run.
type weather struct {
	mu sync.Mutex
	w  chances
}

// chances are those of single calls and messages.
type chances struct {
	lost, twice, slowWire                   float64
	refused, noWord, lateWrite, slowStoreBy float64
}

// calm is a fine day: only the bus is what a bus is.
func calm() chances { return chances{lost: 0.01, twice: 0.01, slowWire: 0.02} }

func (f *weather) set(w chances) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.w = w
}

func (f *weather) get() chances {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w
}

func (f *weather) lost() float64      { return f.get().lost }
func (f *weather) twice() float64     { return f.get().twice }
func (f *weather) slowWire() float64  { return f.get().slowWire }
func (f *weather) refused() float64   { return f.get().refused }
func (f *weather) noWord() float64    { return f.get().noWord }
func (f *weather) lateWrite() float64 { return f.get().lateWrite }
func (f *weather) slowStore() float64 { return f.get().slowStoreBy }

// fault is one entry of a schedule.
type fault struct {
	weight int
	name   string
	do     func(w *world, d *dice) string
}

// faults are what a run can suffer. Each ends by itself.
func faults() []fault {
	return []fault{
		{4, "crash", crashed},
		{4, "pause", paused},
		{3, "cut", parted},
		{3, "store cut", storeParted},
		{2, "drain", drained},
		{4, "weather", changed},
		{2, "clock", jumped},
	}
}

func (w *world) anyNode(d *dice) *node { return w.node(d.upTo(w.opts.Nodes)) }

// later undoes a fault when its time is over.
func (w *world) later(after time.Duration, undo func()) {
	w.healing.Go(func() {
		select {
		case <-time.After(after):
		case <-w.healed:
		}
		undo()
	})
}

func crashed(w *world, d *dice) string {
	n := w.anyNode(d)
	if n.isDead() {
		return ""
	}
	back := d.between(50*time.Millisecond, 2*lease)
	n.crash()
	w.later(back, n.reboot)
	return fmt.Sprintf("%s crashes, back after %v", n.id, back)
}

func paused(w *world, d *dice) string {
	n := w.anyNode(d)
	length := d.between(100*time.Millisecond, 3*lease)
	n.pause()
	w.later(length, n.resume)
	return fmt.Sprintf("%s is stopped for %v", n.id, length)
}

func parted(w *world, d *dice) string {
	a, b := d.upTo(w.opts.Nodes), d.upTo(w.opts.Nodes)
	if a == b {
		return ""
	}
	length := d.between(100*time.Millisecond, 3*lease)
	w.net.setCut(a, b, true)
	w.later(length, func() { w.net.setCut(a, b, false) })
	return fmt.Sprintf("n%d and n%d do not reach each other for %v", a, b, length)
}

func storeParted(w *world, d *dice) string {
	n := w.anyNode(d)
	length := d.between(100*time.Millisecond, 2*lease)
	n.setStoreCut(true)
	w.later(length, func() { n.setStoreCut(false) })
	return fmt.Sprintf("%s does not reach the store for %v", n.id, length)
}

func drained(w *world, d *dice) string {
	n := w.anyNode(d)
	if !n.isUp() {
		return ""
	}
	w.healing.Go(func() {
		n.drain()
		n.reboot()
	})
	return fmt.Sprintf("%s leaves", n.id)
}

func changed(w *world, d *dice) string {
	c := calm()
	c.lost = float64(d.upTo(30)) / 100
	c.twice = float64(d.upTo(20)) / 100
	c.slowWire = float64(d.upTo(40)) / 100
	if d.chance(0.6) {
		c.refused = float64(d.upTo(8)) / 100
		c.noWord = float64(d.upTo(8)) / 100
		c.lateWrite = float64(d.upTo(5)) / 100
		c.slowStoreBy = float64(d.upTo(8)) / 100
	}
	length := d.between(time.Second, 3*lease)
	w.weather.set(c)
	w.later(length, func() { w.weather.set(calm()) })
	return fmt.Sprintf("weather for %v: %+v", length, c)
}

// The clocks: those of nodes are wrong by hours, or by about a lease. That of the store is
// mostly wrong by so little that two of it are less than the part of a lease that no node
// relies on, and seldom by more than that.
const (
	maxSkew      = time.Hour
	leaseSkew    = 2 * lease
	maxStoreSkew = lease/4 - 100*time.Millisecond
)

func jumped(w *world, d *dice) string {
	if d.chance(0.6) {
		n, most := w.anyNode(d), leaseSkew
		if d.chance(0.3) {
			most = maxSkew
		}
		to := d.between(-most, most)
		n.clock.jump(to)
		return fmt.Sprintf("the clock of %s is %v off", n.id, to)
	}
	most := maxStoreSkew
	if d.chance(0.3) {
		most = leaseSkew
	}
	to := d.between(-most, most)
	w.jumpStore(to)
	return fmt.Sprintf("the clock of the store is %v off", to)
}

// jumpStore sets the clock of the store, and notes if leases that nodes rely on may have
// ended by that.
func (w *world) jumpStore(to time.Duration) {
	now := w.rec.Now()
	w.db.clock.jump(to)
	w.mu.Lock()
	defer w.mu.Unlock()
	least := to
	for i, o := range w.mu.offsets {
		if i+1 == len(w.mu.offsets) || now-w.mu.offsets[i+1].at < int64(lease) {
			least = min(least, o.to)
		}
	}
	w.mu.offsets = append(w.mu.offsets, offset{now, to})
	if to-least > lease/2 {
		w.mu.j.Leaps = append(w.mu.j.Leaps, judge.Leap{At: now, Until: now + int64(lease)})
	}
}

// offset is how wrong the clock of the store is from a time on.
type offset struct {
	at int64
	to time.Duration
}
