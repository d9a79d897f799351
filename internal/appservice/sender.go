package appservice

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// sendTimeout bounds one attempt to send a transaction: a bridge writes it down
	// and answers, or works it off before it does.
	sendTimeout = 60 * time.Second
	// firstRetry and lastRetry bound the pauses between attempts, which double.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 2 * time.Minute
)

// SenderOptions configure a Sender. All but Metrics are needed.
type SenderOptions struct {
	Services *Registry
	Client   *Client
	Store    storage.Store
	// Count is the number of partitions of the deployment.
	Count  int
	Router partition.Router
	// Owns reports whether this node runs a partition: typing notices reach all
	// nodes, and one of them passes them on.
	Owns    func(ids.Partition) bool
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Retention is how long events are shown, by Clock: a service that was away is not
	// sent what has expired.
	Retention room.Retention
	Clock     clock.Clock
	// Damage is told of rows that cannot be read, nil for nobody.
	Damage *damage.Log
}

// Sender sends services what they are interested in.
//
// How: each service is a consumer of the log, with cursors of its own. What a batch
// of the log holds for it becomes a transaction, which is stored, then sent until the
// service says that it has it, then forgotten when the next one is stored. After a
// crash the log comes again from the cursor: up to the end of the stored transaction
// everything was sent or is in it, so that transaction is sent again as it was, and
// what follows makes new ones.
//
// The order is that of each partition, and so of each room and each user; one
// transaction at a time is on its way to a service.
//
// Rejected: a queue of transactions in the store, beside the log. The log waits for
// its consumers already, and a bridge that is down for a day would double it.
type Sender struct {
	opts     SenderOptions
	rooms    *room.Reader
	accounts *account.Reader
	lines    []*line
	// firstRetry is the first pause between attempts.
	firstRetry time.Duration
	metrics    *senderMetrics
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

type senderMetrics struct {
	sent, failed *prometheus.CounterVec
}

func newSenderMetrics(reg prometheus.Registerer) *senderMetrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "appservice", Name: name, Help: help}, []string{"service"})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	return &senderMetrics{
		sent:   counter("transactions_total", "Transactions that an application service has taken."),
		failed: counter("transaction_failures_total", "Attempts to send a transaction that failed."),
	}
}

// NewSender returns a sender for the services that have a URL. Follow
// sets it to work.
func NewSender(o SenderOptions) *Sender {
	s := &Sender{
		opts: o, rooms: room.NewReader(o.Store, o.Count).WithRetention(o.Retention, o.Clock).Tolerant(o.Damage),
		accounts: account.NewReader(o.Store, o.Count).Tolerant(o.Damage), metrics: newSenderMetrics(o.Metrics), firstRetry: firstRetry,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, svc := range o.Services.All() {
		if svc.URL == "" {
			continue
		}
		l := newLine(s, svc)
		for _, c := range []*prometheus.CounterVec{s.metrics.sent, s.metrics.failed} {
			c.WithLabelValues(svc.ID) // shown at zero, or Prometheus does not see the first count
		}
		s.lines = append(s.lines, l)
		if svc.Ephemeral {
			s.wg.Go(l.noticeLoop)
		}
	}
	return s
}

// consumerName is under which a service follows the log.
func consumerName(id string) string { return "appservice/" + id }

// Retry sends a service at once what it could not be sent before: it is there again.
func (s *Sender) Retry(svc *Service) {
	for _, l := range s.lines {
		if l.svc == svc {
			select {
			case l.retry <- struct{}{}:
			default:
			}
		}
	}
}

// Close ends what runs beside the consumers. It comes before the Close of the
// consumers' set or after it.
func (s *Sender) Close() {
	s.cancel()
	s.wg.Wait()
}

// line is the way to one service.
type line struct {
	sender *Sender
	svc    *Service
	log    *slog.Logger
	// turn is held by who sends: one transaction at a time.
	turn chan struct{}
	// retry has room for one: try again now.
	retry   chan struct{}
	notices chan notice
	parts   []*part
}

// part is what a line knows of one partition. All but rooms is used by the
// partition's follower alone.
type part struct {
	rooms known
	// epoch is the owner's under which the rest was read.
	epoch  ids.Epoch
	loaded bool
	last   *outgoing // nil if there was none
	// delivered: the service has last.
	delivered bool
}

func newLine(s *Sender, svc *Service) *line {
	l := &line{
		sender: s, svc: svc, log: s.opts.Log.With("appservice", svc.ID),
		turn: make(chan struct{}, 1), retry: make(chan struct{}, 1), notices: make(chan notice, noticeQueue),
		parts: make([]*part, s.opts.Count),
	}
	for i := range l.parts {
		l.parts[i] = &part{rooms: known{svc: svc, rooms: s.rooms}}
	}
	return l
}

var _ consumer.Handler = (*line)(nil)

// Handle implements consumer.Handler.
func (l *line) Handle(ctx context.Context, b consumer.Batch) error {
	p := l.parts[b.Partition]
	if err := l.load(ctx, p, b); err != nil {
		return err
	}
	if p.last != nil && !p.delivered {
		if p.last.upTo >= b.First {
			if err := l.deliver(ctx, p.last); err != nil {
				return err
			}
		}
		p.delivered = true // or the cursor is behind it, which it only is then
	}
	t := &draft{}
	for i := range b.Records {
		rec := &b.Records[i]
		if p.last != nil && rec.Seq <= p.last.upTo {
			continue
		}
		if err := l.gather(ctx, p, rec, t); err != nil {
			return err
		}
		if t.full() {
			if err := l.send(ctx, b.Partition, rec.Seq, t); err != nil {
				return err
			}
			t = &draft{}
		}
	}
	if t.items() == 0 {
		return nil
	}
	return l.send(ctx, b.Partition, b.Last, t)
}

// Missed implements consumer.Handler. There is nothing to build anew: what the log
// has lost, the service is not told.
func (l *line) Missed(_ context.Context, p ids.Partition, first, last ids.Seq) error {
	l.parts[p].rooms.clear()
	l.log.Error("the application service was away for too long and has missed events", "partition", p, "first", first, "last", last)
	return nil
}

// load reads what was sent last, if another owner may have sent it.
func (l *line) load(ctx context.Context, p *part, b consumer.Batch) error {
	if p.loaded && p.epoch == b.Epoch {
		return nil
	}
	rows, err := l.sender.opts.Store.Get(ctx, outgoingKey(b.Partition, l.svc.ID))
	if err != nil {
		return fmt.Errorf("read transaction: %w", err)
	}
	p.last, p.delivered = nil, false
	if rows[0] != nil {
		if p.last, err = decodeOutgoing(rows[0]); err != nil {
			return err
		}
	}
	p.rooms.clear()
	p.epoch, p.loaded = b.Epoch, true
	return nil
}

// send stores a transaction and delivers it.
func (l *line) send(ctx context.Context, p ids.Partition, upTo ids.Seq, t *draft) error {
	o := &outgoing{upTo: upTo, txn: fmt.Sprintf("%d-%d-%s", p, upTo, rand.Text()[:8]), body: t.body(l.svc)}
	cmd := &SaveOutgoing{P: p, Service: l.svc.ID, Row: o.encode()}
	if _, err := l.sender.opts.Router.Do(ctx, cmd); err != nil {
		return fmt.Errorf("store transaction: %w", err)
	}
	pt := l.parts[p]
	pt.last, pt.delivered = o, false
	if err := l.deliver(ctx, o); err != nil {
		return err
	}
	pt.delivered = true
	return l.acknowledge(ctx, t.inboxes)
}

// deliver sends a transaction until the service has it or ctx ends.
func (l *line) deliver(ctx context.Context, o *outgoing) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	select {
	case <-l.retry: // of before
	default:
	}
	for pause, failed := l.sender.firstRetry, false; ; pause = min(2*pause, lastRetry) {
		err := l.attempt(ctx, o)
		if err == nil {
			if failed {
				l.log.Info("the application service takes transactions again")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !failed {
			l.log.Warn("the application service does not take a transaction; it is sent again until it does", "txn", o.txn, "error", err)
			failed = true
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-l.retry:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// attempt sends a transaction once.
func (l *line) attempt(ctx context.Context, o *outgoing) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	path := "/transactions/" + segment(o.txn)
	r, err := l.sender.opts.Client.do(ctx, l.svc, http.MethodPut, "/_matrix/app/v1"+path, path, o.body)
	if err == nil && !r.ok() {
		err = fmt.Errorf("status %d", r.status)
	}
	if err != nil {
		l.sender.metrics.failed.WithLabelValues(l.svc.ID).Inc()
		return err
	}
	l.sender.metrics.sent.WithLabelValues(l.svc.ID).Inc()
	return nil
}

// acknowledge removes to-device messages that the service has from the inboxes of
// devices that only it uses. What is left by a crash goes with the next ones.
func (l *line) acknowledge(ctx context.Context, list []inbox) error {
	for _, in := range list {
		own, err := l.alone(ctx, in)
		if err != nil {
			return err
		}
		if !own {
			continue
		}
		if _, err := l.sender.opts.Router.Do(ctx, account.NewAckInbox(in.user, in.device, in.upTo)); err != nil {
			return fmt.Errorf("acknowledge messages: %w", err)
		}
	}
	return nil
}

// alone reports whether nobody but the service reads a device's inbox: the user is
// its own, or the device has no token to sync with.
func (l *line) alone(ctx context.Context, in inbox) (bool, error) {
	if in.user == l.svc.Sender || l.svc.users.exclusive(string(in.user)) {
		return true, nil
	}
	d, err := l.sender.accounts.Device(ctx, in.user, in.device)
	return d != nil && len(d.Tokens) == 0, err
}
