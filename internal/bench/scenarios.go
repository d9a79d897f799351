package bench

import (
	"context"
	"errors"
	"fmt"
)

// The goals, and the parameters they were set for.
const (
	goalSenders        = 64
	goalSends          = 10_000 // a second
	goalSendCPU        = 100    // µs
	goalFanoutMembers  = 500
	goalDeliverCPU     = 3  // µs
	goalDeliverP99     = 20 // ms
	goalIdleSessions   = 15_000
	goalIdleSessionRSS = 12 // KiB
	goalIdlePollRSS    = 15 // KiB

	goalAccountRooms    = 300
	goalAccountMembers  = 300
	goalInitialSync     = 1000 // ms
	goalIncrementalSync = 2    // ms
	goalLargeRoom       = 10_000
	goalJoinRatio       = 2
)

func one(name string, run func(context.Context, *env, *server, *Result) error) []scenario {
	return []scenario{{name: name, run: run}}
}

func (a *sendArgs) scenarios() ([]scenario, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.Receivers < 0 || a.Receivers > a.Members {
		return nil, errors.New("--receivers must be 0 to --members")
	}
	name := fmt.Sprintf("send-%s-%d", a.Transport, a.Senders)
	if a.Receivers > 0 {
		name += fmt.Sprintf("-to-%d", a.Receivers)
	}
	return one(name, a.run), nil
}

func (r *roomArgs) shape() shape {
	return shape{rooms: r.Rooms, members: r.Members, senders: r.Senders, size: r.Size}
}

func (s *shape) parameters(r *Result) {
	r.Parameters = map[string]any{"rooms": s.rooms, "members": s.members, "receivers": s.receivers, "senders": s.senders, "size": s.size}
}

// run drives the senders as fast as they are answered.
func (a *sendArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	s := a.shape()
	s.receivers, s.overWS = a.Receivers, a.Transport == "ws"
	s.parameters(r)
	r.Parameters["transport"] = a.Transport
	l, err := newLoad(ctx, e, srv, s)
	defer l.close()
	if err != nil {
		return err
	}
	w, err := l.measure(ctx, r.Scenario, phaseFirst, func(stop <-chan struct{}) { l.closedLoop(ctx, stop, 0) })
	if err != nil {
		return err
	}
	goal := a.Senders == goalSenders && a.Receivers == 0
	r.add("sends", w.perSecond(w.acked), "/s").atLeast(goal, goalSends)
	r.add("server CPU per send", w.cpuEach(w.acked), "µs").atMost(goal, goalSendCPU)
	r.addLatency("send to ack", &l.waiting[phaseFirst])
	if a.Receivers > 0 {
		r.add("deliveries", w.perSecond(w.delivered), "/s")
		r.addLatency("send to receive", l.check.latency(phaseFirst))
	}
	w.addBatches(r)
	r.addCPU("", &w)
	return l.finish(ctx, r)
}

// addBatches tells how well work was gathered.
func (w *window) addBatches(r *Result) {
	if w.framesPerWrite > 0 {
		r.add("frames per write", w.framesPerWrite, "")
	}
	if w.perBatch > 0 {
		r.add("commands per batch", w.perBatch, "")
	}
}

func (a *deliverArgs) scenarios() ([]scenario, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.Rate < 0 {
		return nil, errNegativeRate
	}
	return one("deliver", a.run), nil
}

var errNegativeRate = errors.New("--rate must not be negative")

// deliverWindow is how many messages may be under way while saturation is
// looked for: more only wait.
const deliverWindow = 256

// run looks for saturation, then sends at half of it, all members receiving.
func (a *deliverArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	s := a.shape()
	s.receivers, s.overWS = a.Members, true
	s.parameters(r)
	l, err := newLoad(ctx, e, srv, s)
	defer l.close()
	if err != nil {
		return err
	}
	rate := a.Rate
	if rate == 0 {
		w, err := l.saturate(ctx, r, deliverWindow)
		if err != nil {
			return err
		}
		rate = w.perSecond(w.delivered) / float64(s.receivers) / 2
	}
	r.Parameters["rate"] = int(rate)
	if _, err := l.atRate(ctx, r, rate); err != nil {
		return err
	}
	return l.finish(ctx, r)
}

// saturate drives the senders as fast as their messages are delivered.
func (l *load) saturate(ctx context.Context, r *Result, messages int) (window, error) {
	w, err := l.measure(ctx, r.Scenario+"-saturated", phaseFirst, func(stop <-chan struct{}) { l.closedLoop(ctx, stop, messages) })
	if err != nil {
		return w, err
	}
	l.figures(r, "saturated: ", phaseFirst, &w)
	return w, l.drain(ctx)
}

// atRate sends at a rate.
func (l *load) atRate(ctx context.Context, r *Result, rate float64) (window, error) {
	w, err := l.measure(ctx, r.Scenario+"-rate", phaseSecond, func(stop <-chan struct{}) { l.openLoop(ctx, stop, rate) })
	if err == nil {
		l.figures(r, "at rate: ", phaseSecond, &w)
	}
	return w, err
}

// figures tells what a phase with receivers found.
func (l *load) figures(r *Result, prefix string, p phase, w *window) {
	r.add(prefix+"sends", w.perSecond(w.acked), "/s")
	r.add(prefix+"deliveries", w.perSecond(w.delivered), "/s")
	r.add(prefix+"server CPU per delivery", w.cpuEach(w.delivered), "µs").
		atMost(l.shape.rooms == 1 && l.shape.members == goalFanoutMembers, goalDeliverCPU)
	r.addLatency(prefix+"send to ack", &l.waiting[p])
	r.addLatency(prefix+"send to receive", l.check.latency(p)).atMost(r.Scenario == "deliver" && p == phaseSecond, goalDeliverP99)
	if w.framesPerWrite > 0 {
		r.add(prefix+"frames per write", w.framesPerWrite, "")
	}
	r.addCPU(prefix, w)
}

func (a *fanoutArgs) scenarios() ([]scenario, error) {
	rooms := roomArgs{Rooms: 1, Members: a.Members, Senders: a.Senders, Size: a.Size}
	if err := rooms.check(); err != nil {
		return nil, err
	}
	switch {
	case a.Rate < 0:
		return nil, errNegativeRate
	case a.Window < 1:
		return nil, errors.New("--window must be positive")
	}
	return one("fanout", a.run), nil
}

// run drives one room to saturation, then at a rate.
func (a *fanoutArgs) run(ctx context.Context, e *env, srv *server, r *Result) error {
	s := shape{rooms: 1, members: a.Members, receivers: a.Members, senders: a.Senders, overWS: true, size: a.Size}
	s.parameters(r)
	r.Parameters["window"] = a.Window
	l, err := newLoad(ctx, e, srv, s)
	defer l.close()
	if err != nil {
		return err
	}
	w, err := l.saturate(ctx, r, a.Window)
	if err != nil {
		return err
	}
	rate := a.Rate
	if rate == 0 {
		rate = w.perSecond(w.delivered) / float64(a.Members) / 2
	}
	r.Parameters["rate"] = int(rate)
	if _, err := l.atRate(ctx, r, rate); err != nil {
		return err
	}
	return l.finish(ctx, r)
}
