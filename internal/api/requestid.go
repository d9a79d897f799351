package api

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"sync/atomic"
	"time"
)

// requestIDs makes request IDs that are unique across nodes and restarts, short,
// and cheap: a random prefix of the process and a counter. They are no secrets.
type requestIDs struct {
	prefix string
	seed   uint64
	n      *atomic.Uint64
}

func newRequestIDs() requestIDs {
	var b [8]byte
	// crypto/rand.Read never fails: it ends the process instead.
	_, _ = rand.Read(b[:])
	seed := binary.LittleEndian.Uint64(b[:])
	return requestIDs{
		prefix: strconv.FormatUint(seed&0xffffffff, 36) + "-",
		seed:   seed,
		n:      new(atomic.Uint64),
	}
}

func (ids requestIDs) next() string {
	var b [32]byte
	out := append(b[:0], ids.prefix...)
	return string(strconv.AppendUint(out, ids.n.Add(1), 36))
}

// jitter returns a time from 0 up to limit that differs from request to request.
// It spreads load and guards nothing, so it need not be unpredictable.
func (ids requestIDs) jitter(limit time.Duration) time.Duration {
	// The finalizer of SplitMix64 over the counter.
	x := ids.seed + ids.n.Load()*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return time.Duration(x % uint64(limit))
}
