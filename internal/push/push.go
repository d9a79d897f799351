// Package push tells people who are not connected: it follows the logs, asks each
// user's push rules about each event, keeps a list of notifications, and sends them
// to the gateways of the user's pushers.
// spec: client-server §Push Notifications; push-gateway §POST /_matrix/push/v1/notify.
//
// # Steps of a notification
//
//  1. An event is committed. The consumer (Handle) reads whom the room lists as
//     watching: the members with a pusher, or a list of notifications. What it has
//     read it remembers (watched), until the room lists someone new.
//  2. It judges the event for each of them, as the feed counts what is unread, and
//     brings what notifies to their partitions by account.Notify: rows of the list
//     and of the queue of each pusher, and a record in the log of the user. Then the
//     event is done with, and the cursor moves on.
//  3. The node that owns the user's partition reads that record, and its Sender
//     wakes the line of the pusher, which sends what is queued, in order, and then
//     removes it with account.Sent.
//
// So every step rests on rows. After a crash the consumer judges some events again,
// which Notify notices, and the node that takes the partition finds what is queued
// (Begin). What was sent and not yet removed is sent again: at least once.
//
// # Invariants
//
//   - A pusher is sent one thing at a time, in order. One that does not answer is
//     tried again with growing pauses and delays nobody else.
//   - The number in a push (counts.unread) is the sum of what a sync would say at
//     that moment. It is never queued, so an old one is never sent.
//   - A connection goes to public addresses alone, but for those that the operator
//     allows; checked when it is made, so that no name can be made to mean another.
//
// What must not be here: decisions about what notifies, which are pushrules' and
// feed.Judge's.
package push

import (
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/push/webpush"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// ConsumerName is the name of the consumer; its cursors bear it.
const ConsumerName = "push"

// Gather is how long the consumer gathers records: what is read of those who watch a
// busy room is then read a few times a second, not for each of its messages. A push
// takes longer than that on its way to a phone.
const Gather = 200 * time.Millisecond

// Options configure a Service.
type Options struct {
	Count  int
	Store  storage.Store
	Router partition.Router
	Clock  clock.Clock
	Log    *slog.Logger
	Rules  *pushrules.Defaults
	// Retention is how long events are news.
	Retention room.Retention
	// Allow lists networks that gateways may be in although they are not public.
	Allow []netip.Prefix
	// WebKey is the key by which push services of browsers know the server, and Contact
	// whom they may turn to about it.
	WebKey  *webpush.Key
	Contact string
	// Resolver, if not nil, finds the addresses of gateways.
	Resolver *net.Resolver
	// Damage is told of rows that cannot be read, nil for nobody.
	Damage *damage.Log
	// Metrics is where the service registers its metrics, nil for nowhere.
	Metrics prometheus.Registerer
}

// Service judges events and sends what they notify of. It is the handler of the
// consumer ConsumerName.
type Service struct {
	opts     Options
	rooms    *room.Reader
	accounts *account.Reader
	judge    *feed.Judge
	sender   *sender
	metrics  *metrics
	watched  []watched // by partition
}

var (
	_ consumer.Handler  = (*Service)(nil)
	_ consumer.Beginner = (*Service)(nil)
)

// pace is what tests shorten.
type pace struct {
	retryMin, retryMax time.Duration
}

// A gateway that restarts is found again at once; one that is gone for long is
// asked every half hour.
var defaultPace = pace{retryMin: time.Second, retryMax: 30 * time.Minute}

// New returns a service that runs until Close.
func New(opts Options) *Service { return newService(opts, defaultPace) }

func newService(opts Options, pc pace) *Service {
	s := &Service{
		opts: opts, watched: make([]watched, opts.Count), accounts: account.NewReader(opts.Store, opts.Count).Tolerant(opts.Damage),
		rooms: room.NewReader(opts.Store, opts.Count).WithRetention(opts.Retention, opts.Clock).Tolerant(opts.Damage),
		judge: feed.NewJudge(feed.Options{
			Count: opts.Count, Store: opts.Store, Clock: opts.Clock, Log: opts.Log, Rules: opts.Rules, Retention: opts.Retention, Damage: opts.Damage,
		}),
	}
	s.sender = newSender(s, pc)
	s.metrics = newMetrics(s.sender, opts.Metrics)
	return s
}

// WebKey is the public key with which browsers subscribe.
func (s *Service) WebKey() string { return s.opts.WebKey.Public() }

// Close ends the requests under way and waits. What was not sent stays queued. The
// consumers are closed before.
func (s *Service) Close() { s.sender.close() }
