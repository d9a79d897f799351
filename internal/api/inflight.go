package api

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// The limits of requests in flight. Beyond those of the node the answer is 503,
// beyond those of a caller 429; nothing queues.
const (
	// maxShort: at 10,000 requests a second and the 200 ms that an overloaded
	// store may take, 2,000 are in flight; more only wait for each other. With
	// bodies of DefaultMaxBody they hold 256 MB.
	maxShort = 2048
	// reserveShort are places of maxShort that only sending and unlimited routes
	// (log out among them) may take: the last things to fail in an overload.
	reserveShort = maxShort / 8
	// maxLong: a waiting poll costs a connection and some 15 KB, where it cannot be
	// parked 60 KB.
	maxLong = 50_000
	// maxTransfer: a transfer holds some 64 KB of buffers and a file.
	maxTransfer = 1024

	// maxShortUser: the calls that one WebSocket may have open; a browser has six
	// connections.
	maxShortUser = 64
	// maxShortAddr bounds callers without a token, who may share an address. It
	// also bounds the places that slow bodies of one sender can hold.
	maxShortAddr = 256
	// maxLongUser: ten devices with the three connections of sliding sync.
	maxLongUser = 30
	// maxTransferUser: a room full of pictures, on a few devices.
	maxTransferUser = 48

	// overloadRetry is the least time after which an overloaded node wants to see
	// the client again; up to overloadJitter is added, so that they do not come
	// back together.
	overloadRetry  = time.Second
	overloadJitter = 4 * time.Second
	// busyRetry is when a caller with too many requests in flight may try again.
	busyRetry = time.Second

	// holderShards keeps callers on different cores from waiting for one lock.
	holderShards = 64
)

// caps are the limits of a kind of hold.
type caps struct {
	node, reserve  int64
	perUser, perIP int32
}

func defaultCaps() [HoldOwn]caps {
	return [HoldOwn]caps{
		HoldShort:    {node: maxShort, reserve: reserveShort, perUser: maxShortUser, perIP: maxShortAddr},
		HoldLong:     {node: maxLong, perUser: maxLongUser, perIP: maxLongUser},
		HoldTransfer: {node: maxTransfer, perUser: maxTransferUser, perIP: maxShortAddr},
	}
}

// inFlight counts the requests that are being served. HoldOwn is not counted.
type inFlight struct {
	caps   [HoldOwn]caps
	node   [HoldOwn]atomic.Int64
	seed   maphash.Seed
	shards [holderShards]holderShard
	// jitter returns a time below its argument.
	jitter func(time.Duration) time.Duration
}

// holder is who holds places: a user, or an address without one.
type holder struct {
	user ids.UserID
	addr netip.Addr
}

type holderShard struct {
	mu struct {
		sync.Mutex
		held map[holder][HoldOwn]int32
	}
}

func newInFlight(c [HoldOwn]caps, jitter func(time.Duration) time.Duration) *inFlight {
	f := &inFlight{caps: c, seed: maphash.MakeSeed(), jitter: jitter}
	for i := range f.shards {
		f.shards[i].mu.held = make(map[holder][HoldOwn]int32)
	}
	return f
}

func holderOf(r *Request) holder {
	if r.Caller.User != "" {
		return holder{user: r.Caller.User}
	}
	return holder{addr: addressKey(r.Addr)}
}

// enter takes a place on the node; leave gives it back.
func (f *inFlight) enter(hold Hold, class RateClass) error {
	if hold == HoldOwn {
		return nil
	}
	limit := f.caps[hold].node
	if class != RateSend && class != RateNone {
		limit -= f.caps[hold].reserve
	}
	if f.node[hold].Add(1) > limit {
		f.node[hold].Add(-1)
		return merr.UnavailableErr(overloadRetry+f.jitter(overloadJitter), "The server is busy")
	}
	return nil
}

func (f *inFlight) leave(hold Hold) {
	if hold != HoldOwn {
		f.node[hold].Add(-1)
	}
}

// enterHolder takes a place of the caller's; leaveHolder gives it back. A caller
// in the process, with neither user nor address, has only the node's limit.
func (f *inFlight) enterHolder(hold Hold, who holder) error {
	if hold == HoldOwn || who == (holder{}) {
		return nil
	}
	limit := f.caps[hold].perUser
	if who.user == "" {
		limit = f.caps[hold].perIP
	}
	s := f.shard(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.mu.held[who]
	if counts[hold] >= limit {
		return merr.LimitedErr(busyRetry)
	}
	counts[hold]++
	s.mu.held[who] = counts
	return nil
}

func (f *inFlight) leaveHolder(hold Hold, who holder) {
	if hold == HoldOwn || who == (holder{}) {
		return
	}
	s := f.shard(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.mu.held[who]
	counts[hold]--
	if counts == [HoldOwn]int32{} {
		delete(s.mu.held, who)
		return
	}
	s.mu.held[who] = counts
}

func (f *inFlight) shard(who holder) *holderShard {
	return &f.shards[maphash.Comparable(f.seed, who)%holderShards]
}
