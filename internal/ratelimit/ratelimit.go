// Package ratelimit bounds how often one key (a user, an address, an account)
// may do what belongs to one class (log in, send, …).
//
// Each pair of class and key has a bucket that allows a burst and then a steady
// rate. A bucket is one number, the time at which it would be full again (the
// generic cell rate algorithm): a full bucket needs no memory, so an idle key is
// forgotten without a difference that anyone could see.
//
// Memory is bounded: keys are kept as 64-bit hashes under a seed of the process,
// so the length of a key costs nothing and nobody outside can make two keys
// collide; the number of buckets has a limit, beyond which the fullest of a few
// random ones is forgotten. A flood of new keys therefore cannot empty the
// bucket that was used most.
//
// What guards against guessing and against mail and accounts in masses all nodes count
// together (Shared). The other limits are per node, which they protect: behind a load
// balancer a caller may get these once per node it reaches.
//
// All methods may be called from any goroutine. The package starts none.
package ratelimit

import (
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// Class names a group of actions that share a limit per key.
type Class string

// The classes. Each has a Limit in a Config, except None.
const (
	// None is never limited.
	None Class = "none"
	// Login: attempts to prove an identity, per address.
	Login Class = "login"
	// LoginAccount: failed attempts to prove an identity, per account, from
	// wherever they come. Take a token before the attempt and Refund it when it
	// succeeded: then parallel guesses are bounded too.
	LoginAccount Class = "login_account"
	// Mail: mails to one address, from wherever they are asked for.
	Mail Class = "mail"
	// Registration: new accounts and availability checks, per address.
	Registration Class = "registration"
	// Send: what makes others receive something, per user.
	Send Class = "send"
	// Join: membership changes and room creation, per user.
	Join Class = "join"
	// Read: reads that cost more than a look-up, per user.
	Read Class = "read"
	// Write: writes that only the caller sees, per user.
	Write Class = "write"
	// Sync: the sync family, per user.
	Sync Class = "sync"
	// Media: downloads and thumbnails, per user.
	Media Class = "media"
	// Preview: previews of URLs, per user.
	Preview Class = "preview"
)

// Classes returns every class that needs a limit.
func Classes() []Class {
	return []Class{Login, LoginAccount, Mail, Registration, Send, Join, Read, Write, Sync, Media, Preview}
}

// Limit is a bucket: Burst actions at once, then PerSecond.
type Limit struct {
	// PerSecond is more than 0 and at most 1e6.
	PerSecond float64
	// Burst is at least 1 and at most 1e6.
	Burst int
}

// Config has a Limit for each of Classes.
type Config map[Class]Limit

// Defaults are limits that people do not meet and floods do.
func Defaults() Config {
	return Config{
		// A household or an office shares an address and signs in on Monday morning;
		// ten a minute after that is no help to a guesser.
		Login: {PerSecond: 0.17, Burst: 10},
		// Three slips, then one guess in six seconds however many addresses take part.
		LoginAccount: {PerSecond: 0.17, Burst: 3},
		// A second mail when the first does not come, and a third; then one in five
		// minutes is no nuisance to somebody who never asked.
		Mail: {PerSecond: 1.0 / 300, Burst: 3},
		// A sign-up calls register twice or more (user-interactive stages) and checks
		// the name as it is typed.
		Registration: {PerSecond: 0.1, Burst: 20},
		// Typing, receipts and messages of a busy person stay under two a second; a
		// bridge or bot that needs more is an application service.
		Send: {PerSecond: 10, Burst: 50},
		// Joining a space joins its rooms in one go; each join costs its members a
		// notification.
		Join: {PerSecond: 0.5, Burst: 20},
		// A client that opens rooms quickly asks for members, messages and context of each.
		Read: {PerSecond: 20, Burst: 100},
		// A first start writes account data, filters, keys and push rules at once.
		Write: {PerSecond: 10, Burst: 100},
		// A sync answers at once while the caller's rooms are busy; three connections
		// per device are usual with sliding sync.
		Sync: {PerSecond: 20, Burst: 100},
		// A room full of pictures, and the faces of its members, come at once.
		Media: {PerSecond: 50, Burst: 500},
		// Each may be a request to a stranger's server. A client asks for those of the
		// links on its screen.
		Preview: {PerSecond: 1, Burst: 30},
	}
}

const (
	// shardCount keeps callers on different cores from waiting for one lock.
	shardCount = 64
	// maxBuckets bounds the memory: about 50 bytes each, 13 MB in all, for a
	// quarter of a million callers that were active within a minute.
	maxBuckets = 262144
	// minSweep is the size below which a shard is not worth sweeping.
	minSweep = 64
	// evictionSample is how many buckets are looked at for one to forget when a
	// shard is full of buckets in use: enough that the most used ones stay.
	evictionSample = 8
	// maxRate and maxBurst keep the arithmetic in nanoseconds within 63 bits.
	maxRate, maxBurst = 1e6, 1e6
	// minRate is one action in a day; a lower one is a mistake in the configuration.
	minRate = 1.0 / 86400
)

// Limiter holds the buckets.
type Limiter struct {
	classes map[Class]class
	// perShard is the most buckets of one shard.
	perShard int
	shards   []shard
}

type class struct {
	seed maphash.Seed
	// interval is the time that one action takes to be forgotten; reserve is how
	// far a bucket may be from full and still allow one more.
	interval, reserve time.Duration
}

type shard struct {
	mu struct {
		sync.Mutex
		// fullAt holds, by hash of class and key, the time in nanoseconds at which
		// the bucket is full again.
		fullAt map[uint64]int64
		// sweepAt is the size at which full buckets are looked for.
		sweepAt int
	}
}

// New returns a limiter. It fails if a class is missing, unknown, or has a limit
// out of range.
func New(cfg Config) (*Limiter, error) {
	return newSized(cfg, maxBuckets/shardCount)
}

func newSized(cfg Config, perShard int) (*Limiter, error) {
	l := &Limiter{
		classes:  make(map[Class]class, len(cfg)),
		perShard: perShard,
		shards:   make([]shard, shardCount),
	}
	for _, name := range Classes() {
		limit, ok := cfg[name]
		if !ok {
			return nil, fmt.Errorf("rate limits: no limit for class %q", name)
		}
		// Written so that NaN is refused.
		if !(limit.PerSecond >= minRate && limit.PerSecond <= maxRate) || limit.Burst < 1 || limit.Burst > maxBurst {
			return nil, fmt.Errorf("rate limits: class %q: %v a second with a burst of %d is out of range", name, limit.PerSecond, limit.Burst)
		}
		interval := time.Duration(math.Ceil(float64(time.Second) / limit.PerSecond))
		l.classes[name] = class{
			seed:     maphash.MakeSeed(),
			interval: interval,
			reserve:  interval * time.Duration(limit.Burst-1),
		}
	}
	for name := range cfg {
		if _, ok := l.classes[name]; !ok {
			return nil, fmt.Errorf("rate limits: unknown class %q", name)
		}
	}
	for i := range l.shards {
		l.shards[i].mu.fullAt = make(map[uint64]int64)
		l.shards[i].mu.sweepAt = minSweep
	}
	return l, nil
}

// Off returns a limiter that allows everything: for tests and load generators.
func Off() *Limiter { return &Limiter{} }

// Allow takes one action from the bucket of class and key. If there is none left
// it returns false and the time after which there will be one. A class that the
// limiter does not know (None among them) is allowed; that every other class is
// known is checked by New.
func (l *Limiter) Allow(class Class, key string, now time.Time) (ok bool, retryAfter time.Duration) {
	c, s, hash, limited := l.bucket(class, key)
	if !limited {
		return true, 0
	}
	nowNS := now.UnixNano()

	s.mu.Lock()
	defer s.mu.Unlock()
	fullAt, exists := s.mu.fullAt[hash]
	fullAt = max(fullAt, nowNS)
	if empty := nowNS + int64(c.reserve+c.interval); fullAt > empty {
		// The clock was set back. That must not lock anyone out: a bucket is never
		// further from full than empty.
		fullAt = empty
		s.mu.fullAt[hash] = empty
	}
	if wait := fullAt - nowNS - int64(c.reserve); wait > 0 {
		return false, time.Duration(wait)
	}
	if !exists {
		s.makeRoomLocked(nowNS, l.perShard)
	}
	s.mu.fullAt[hash] = fullAt + int64(c.interval)
	return true, 0
}

// Refund gives back one action that Allow took, as if it had not happened.
func (l *Limiter) Refund(class Class, key string) {
	c, s, hash, limited := l.bucket(class, key)
	if !limited {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fullAt, ok := s.mu.fullAt[hash]; ok {
		s.mu.fullAt[hash] = fullAt - int64(c.interval)
	}
}

func (l *Limiter) bucket(name Class, key string) (c class, s *shard, hash uint64, limited bool) {
	if c, limited = l.classes[name]; !limited {
		return c, nil, 0, false
	}
	hash = maphash.String(c.seed, key)
	return c, &l.shards[hash%shardCount], hash, true
}

// makeRoomLocked forgets full buckets when the shard has doubled since the last
// time, and any bucket when the shard is at its limit.
func (s *shard) makeRoomLocked(nowNS int64, limit int) {
	if len(s.mu.fullAt) < min(s.mu.sweepAt, limit) {
		return
	}
	if len(s.mu.fullAt) >= s.mu.sweepAt {
		for hash, fullAt := range s.mu.fullAt {
			if fullAt <= nowNS {
				delete(s.mu.fullAt, hash)
			}
		}
		s.mu.sweepAt = max(minSweep, 2*len(s.mu.fullAt))
	}
	for len(s.mu.fullAt) >= limit {
		var fullest uint64
		best, seen := int64(math.MaxInt64), 0
		for hash, fullAt := range s.mu.fullAt {
			if fullAt < best {
				fullest, best = hash, fullAt
			}
			if seen++; seen == evictionSample {
				break
			}
		}
		delete(s.mu.fullAt, fullest)
	}
}

// buckets returns how many buckets are kept.
func (l *Limiter) buckets() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.mu.fullAt)
		s.mu.Unlock()
	}
	return n
}
