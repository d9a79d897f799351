package ratelimit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
)

// shared are the classes that all nodes count together: those whose limit is what keeps
// somebody from guessing, or from flooding strangers, and which are rare and costly
// enough that asking another node is nothing beside them. The others protect a node from
// who it serves, and are counted there: a request that has to be quick asks nobody.
func shared(c Class) bool {
	switch c {
	case Login, LoginAccount, Mail, Registration:
		return true
	default:
		return false
	}
}

const (
	// askTimeout is how long another node may take to answer. Who does not know by then
	// counts by itself: a limit is not worth a wait, and no limit is not an answer either.
	askTimeout = 500 * time.Millisecond
	// maxKey bounds what another node may ask about: an address, or a user ID.
	maxKey = 1024
	// answerBytes holds a time.
	answerBytes = 8
)

// What one node asks of another.
const (
	askAllow byte = iota + 1
	askRefund
)

var errAsked = errors.New("ratelimit: malformed request")

// SharedOptions say who the others are.
type SharedOptions struct {
	Bus bus.Bus
	// Node names this node.
	Node string
	// Home names the node that counts for a key: the same one at all nodes, but for
	// moments. "" if there is none at the moment.
	Home func(key string) string
	// Now is the time of the node.
	Now func() time.Time
}

// Shared is a Limiter whose shared classes are counted by one node for each key, however
// many nodes a caller goes to. When a key gets another home its bucket there is full; a
// home that does not answer is not waited for, and each node counts by itself until it
// does.
type Shared struct {
	*Limiter
	opts SharedOptions
	sub  bus.Subscription
}

// Share lets other nodes ask this one.
func Share(l *Limiter, opts SharedOptions) (*Shared, error) {
	s := &Shared{Limiter: l, opts: opts}
	var err error
	if s.sub, err = opts.Bus.Handle(limitSubject(opts.Node), s.answer); err != nil {
		return nil, fmt.Errorf("ratelimit: %w", err)
	}
	return s, nil
}

// Close ends that.
func (s *Shared) Close() { s.sub.Close() }

func limitSubject(node string) string { return "limit." + node }

// Allow is Limiter.Allow.
func (s *Shared) Allow(class Class, key string, now time.Time) (ok bool, retryAfter time.Duration) {
	if wait, known := s.ask(askAllow, class, key); known {
		return wait == 0, wait
	}
	return s.Limiter.Allow(class, key, now)
}

// Refund is Limiter.Refund.
func (s *Shared) Refund(class Class, key string) {
	if _, known := s.ask(askRefund, class, key); !known {
		s.Limiter.Refund(class, key)
	}
}

// ask asks the home of a key, if that is another node. known: it has answered.
func (s *Shared) ask(what byte, class Class, key string) (wait time.Duration, known bool) {
	if !shared(class) || len(key) > maxKey {
		return 0, false
	}
	home := s.opts.Home(key)
	if home == "" || home == s.opts.Node {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	in := append([]byte{what}, class...)
	in = append(append(in, 0), key...)
	answer, err := s.opts.Bus.Request(ctx, limitSubject(home), bus.Raw(in))
	raw, is := answer.(bus.Raw)
	if err != nil || !is || len(raw) != answerBytes {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint64(raw)), true
}

// answer counts for another node.
func (s *Shared) answer(_ context.Context, in bus.Payload) (bus.Payload, error) {
	raw, is := in.(bus.Raw)
	if !is || len(raw) == 0 {
		return nil, errAsked
	}
	class, key, found := strings.Cut(string(raw[1:]), "\x00")
	if !found || !shared(Class(class)) || len(key) > maxKey {
		return nil, errAsked
	}
	var wait time.Duration
	switch raw[0] {
	case askAllow:
		_, wait = s.Limiter.Allow(Class(class), key, s.opts.Now())
	case askRefund:
		s.Limiter.Refund(Class(class), key)
	default:
		return nil, errAsked
	}
	return bus.Raw(binary.BigEndian.AppendUint64(nil, uint64(wait))), nil
}
