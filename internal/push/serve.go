package push

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// servePage is how many notifications of a pusher are read at once.
	servePage = 20
	// maxAge is when a notification is too old to be news.
	maxAge = 24 * time.Hour
	// KindHTTP is the kind of pusher that is served. spec: POST /pushers/set, kind.
	KindHTTP = "http"
)

// state is what is to become of a line.
type state int

const (
	// stateMore: there is more to send. The zero state: there is not.
	stateMore state = iota + 1
	// stateFailed: try again later.
	stateFailed
	// stateBusy: the gateway has as many requests as it may.
	stateBusy
)

type result struct {
	state state
	host  string
	// wait is the least time that the gateway asks to be left alone for.
	wait time.Duration
}

// serve sends what waits for a pusher, and removes what was sent.
func (d *sender) serve(ctx context.Context, l *line) result {
	s := d.svc
	st, err := s.accounts.PushState(ctx, l.who.User)
	if err != nil {
		return d.troubled(ctx, l, err)
	}
	queue, err := s.accounts.Queue(ctx, l.who.User, l.who.Pusher, servePage)
	if err != nil {
		return d.troubled(ctx, l, err)
	}
	if len(queue) == 0 {
		return result{}
	}
	acc, err := s.accounts.Account(ctx, l.who.User)
	if err != nil {
		return d.troubled(ctx, l, err)
	}
	if acc == nil || acc.Locked || acc.Deactivated {
		// Who may not look is not told. It is not kept for later: when the lock is opened
		// it is no news, and the app asks for what it missed.
		return d.settle(ctx, l, queue, -1, more(queue))
	}
	ignored, err := s.accounts.Data(ctx, l.who.User, "", feed.TypeIgnored)
	if err != nil {
		return d.troubled(ctx, l, err)
	}
	pu := st.Pusher(l.who.Pusher)
	if pu == nil || !Served(pu.Kind) {
		return d.settle(ctx, l, queue, -1, result{})
	}
	target, err := url.Parse(dataOf(pu).URL)
	if err != nil || target.Host == "" {
		return d.settle(ctx, l, queue, -1, result{}) // it was checked when it was set
	}
	if !d.enter(target.Host) {
		return result{state: stateBusy, host: target.Host}
	}
	defer d.leave(target.Host)
	return d.serveQueue(ctx, l, *pu, target, queue, feed.Ignored(ignored))
}

// serveQueue sends the notifications of a queue, one after another.
func (d *sender) serveQueue(ctx context.Context, l *line, pu account.Pusher, target *url.URL, queue []account.Queued, ignored map[ids.UserID]struct{}) result {
	badge := -1
	for i, q := range queue {
		m, err := d.compose(ctx, l.who.User, &pu, q, ignored)
		if err != nil {
			d.troubled(ctx, l, err)
			return d.settle(ctx, l, queue[:i], badge, result{state: stateFailed})
		}
		if m == nil {
			continue
		}
		begin := time.Now()
		reply := d.deliver(ctx, target, &pu, m)
		if ctx.Err() != nil {
			return d.settle(context.WithoutCancel(ctx), l, queue[:i], badge, result{state: stateFailed})
		}
		d.svc.metrics.sent(reply.verdict, time.Since(begin))
		switch reply.verdict {
		case verdictLater:
			d.svc.opts.Log.Debug("push delayed", "user", l.who.User, "host", target.Host, "error", reply.err)
			return d.settle(ctx, l, queue[:i], badge, result{state: stateFailed, wait: reply.wait})
		case verdictGone:
			end := account.NewEndPusher(l.who.User, pu.AppID, pu.PushKey)
			end.SetTS = pu.SetTS
			if _, err := d.svc.opts.Router.Do(ctx, end); err != nil {
				return d.troubled(ctx, l, err)
			}
			d.svc.opts.Log.Info("push key rejected", "user", l.who.User, "app_id", pu.AppID, "host", target.Host)
			return result{}
		case verdictSent:
			if m.ack == "" {
				badge = m.Notification.Counts.Unread
				pu.Badge, pu.Told = badge, true
			}
		}
	}
	return d.settle(ctx, l, queue, badge, more(queue))
}

// more is the result when all of a page of a queue is done with.
func more(queue []account.Queued) (res result) {
	if len(queue) == servePage {
		res.state = stateMore
	}
	return res
}

// settle removes what is done with, and gives res, or says that it has to be tried
// again: what was sent is sent once more then.
func (d *sender) settle(ctx context.Context, l *line, done []account.Queued, badge int, res result) result {
	if len(done) == 0 && badge < 0 {
		return res
	}
	sorts := make([]string, len(done))
	for i, q := range done {
		sorts[i] = q.Sort
	}
	if _, err := d.svc.opts.Router.Do(ctx, account.NewSent(l.who.User, l.who.Pusher, sorts, badge)); err != nil {
		return d.troubled(ctx, l, err)
	}
	return res
}

// troubled is what an error of the server itself leads to.
func (d *sender) troubled(ctx context.Context, l *line, err error) result {
	if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		d.svc.opts.Log.Warn("push", "user", l.who.User, "error", err)
	}
	return result{state: stateFailed}
}

// compose makes what a pusher is sent, nil if there is nothing to say.
func (d *sender) compose(ctx context.Context, user ids.UserID, pu *account.Pusher, q account.Queued, ignored map[ids.UserID]struct{}) (*message, error) {
	if pu.Inactive || q.Ack {
		// What was queued before it was set anew is not sent.
		if !pu.Asks(&q) || d.svc.opts.Clock.Now().UnixMilli()-pu.SetTS > account.AckLife.Milliseconds() {
			return nil, nil
		}
		m := newMessage(pu, 0)
		m.ack = pu.Ack
		return m, nil
	}
	if q.Badge && dataOf(pu).EventsOnly {
		return nil, nil
	}
	var e *room.Stored
	if !q.Badge {
		var err error
		if e, err = d.news(ctx, user, q.Notification); err != nil || e == nil {
			return nil, err
		}
		if _, ok := ignored[e.Sender]; ok {
			return nil, nil // since it was queued
		}
	}
	unread, err := d.badges.count(ctx, user)
	if err != nil {
		return nil, err
	}
	if q.Badge && pu.Told && pu.Badge == unread {
		return nil, nil
	}
	m := newMessage(pu, unread)
	if q.Badge {
		return m, nil
	}
	return m, d.describe(ctx, m, user, pu, q.Notification, e)
}

// news returns the event of a notification if it still is one.
func (d *sender) news(ctx context.Context, user ids.UserID, n *account.Notification) (*room.Stored, error) {
	if n == nil || d.svc.opts.Clock.Now().UnixMilli()-n.TS > maxAge.Milliseconds() {
		return nil, nil
	}
	e, err := d.svc.rooms.At(ctx, n.Room, n.Seq)
	if err != nil || e == nil || e.RedactedBy != nil {
		return nil, err
	}
	if read, err := d.svc.rooms.HasRead(ctx, user, e); err != nil || read {
		return nil, err
	}
	return e, nil
}

// retryAfter reads how long a gateway wants to be left alone.
func retryAfter(h http.Header) time.Duration {
	wait, err := time.ParseDuration(h.Get("Retry-After") + "s")
	if err != nil || wait < 0 {
		return 0
	}
	return min(wait, maxRetryAfter)
}
