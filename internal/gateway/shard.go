package gateway

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

// shardBufferSize is how many bytes of frames leave in one system call.
const shardBufferSize = 64 << 10

// flushShare is the part of the shards' time that writing may take before the
// interval is stretched: one part in flushShare. It is small, so that frames are
// gathered long before the node is busy: at half of what it can deliver a write with
// four frames was most of what a delivery costs.
const flushShare = 12

// yieldAfter is after how many sessions a round lets others have the processor. With
// thousands of sessions it would keep it for the 10 ms after which Go interrupts a
// goroutine, while a message passes through half a dozen of them: so many times 10 ms.
const yieldAfter = 16

// shard writes the queues of a share of the sessions. There is one per CPU, each
// with one goroutine.
//
// A system call costs several microseconds, a 500-byte frame in it a fraction of
// one. So frames are to leave together when that does not hurt:
//
//  1. A session that has not been written to for a flush interval is written at
//     once: whoever is alone waits for nothing.
//  2. Otherwise its frames wait for the next round, at most one interval.
//  3. The interval is flushMin, and is stretched up to flushMax when rounds take
//     more than a share of the time: a busy node trades milliseconds for CPU,
//     an idle one does not.
//
// Writes do not block: what the socket does not accept is handed to a goroutine
// of its own (writeBlocking), so that one slow reader delays nobody. Frames are
// copied into one buffer instead of being gathered by writev: at 500 bytes a
// frame the copy is cheaper than the kernel's walk over the vector and the
// runtime's building of it (4.4 against 5.6 µs for eight, see BenchmarkGather). A
// goroutine per flush would be simpler, but adds its creation and scheduling to
// each write, and gives no measure of how busy writing is.
type shard struct {
	g        *Gateway
	wake     chan struct{}
	interval atomic.Int64 // nanoseconds
	mu       struct {
		sync.Mutex
		now    []*session
		next   []*session
		nextAt int64 // when next is due
	}

	// Of the shard's goroutine.
	batch []*session
	buf   [shardBufferSize]byte
	out   []byte // what write shall write
	n     int
	err   error
	write func(fd uintptr) bool
	stats struct{ frames, bytes, writes int }
}

func newShard(g *Gateway) *shard {
	sh := &shard{g: g, wake: make(chan struct{}, 1)}
	sh.interval.Store(int64(g.times.flushMin))
	sh.write = sh.writeFD
	return sh
}

// add puts a session on a list. It is called with the session's lock held.
func (sh *shard) add(s *session) {
	now := sh.g.now()
	interval := sh.interval.Load()
	sh.mu.Lock()
	var wake bool
	if now-s.wrote.Load() >= interval {
		wake = len(sh.mu.now) == 0
		sh.mu.now = append(sh.mu.now, s)
	} else {
		wake = len(sh.mu.next) == 0
		if wake {
			sh.mu.nextAt = now + interval
		}
		sh.mu.next = append(sh.mu.next, s)
	}
	sh.mu.Unlock()
	if wake {
		select {
		case sh.wake <- struct{}{}:
		default:
		}
	}
}

func (sh *shard) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if wait := sh.round(); wait > 0 {
			timer.Reset(time.Duration(wait))
		}
		select {
		case <-sh.wake:
		case <-timer.C:
		case <-sh.g.stop:
			return
		}
	}
}

// round writes all that is due, and returns in how many nanoseconds more will
// be, 0 if nothing waits.
func (sh *shard) round() int64 {
	begin := sh.g.now()
	sh.mu.Lock()
	batch := append(sh.batch[:0], sh.mu.now...)
	sh.mu.now = emptied(sh.mu.now)
	if len(sh.mu.next) > 0 && begin >= sh.mu.nextAt {
		batch = append(batch, sh.mu.next...)
		sh.mu.next = emptied(sh.mu.next)
	}
	sh.mu.Unlock()
	for i, s := range batch {
		sh.flush(s)
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched()
		}
	}
	sh.batch = emptied(batch)
	end := sh.g.now()
	if len(batch) > 0 {
		sh.adapt(end - begin)
		sh.g.metrics.wrote(sh.stats.frames, sh.stats.bytes, sh.stats.writes)
		sh.stats.frames, sh.stats.bytes, sh.stats.writes = 0, 0, 0
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.mu.now) > 0 {
		return 1
	}
	if len(sh.mu.next) == 0 {
		return 0
	}
	return max(1, sh.mu.nextAt-end)
}

// keepBatch is the longest list of sessions that is kept between rounds.
const keepBatch = 4096

// emptied clears a list for reuse, so that it holds no session that has ended.
func emptied(list []*session) []*session {
	clear(list)
	if cap(list) > keepBatch {
		return nil
	}
	return list[:0]
}

// adapt moves the interval towards what the last round asks for.
func (sh *shard) adapt(took int64) {
	want := min(max(took*flushShare, int64(sh.g.times.flushMin)), int64(sh.g.times.flushMax))
	old := sh.interval.Load()
	sh.interval.Store(old + (want-old)/4)
}

// flush writes the queue of one session.
func (sh *shard) flush(s *session) {
	list := s.takeFrames()
	if list == nil {
		return
	}
	cur := wire.Cursor{Frames: list.frames}
	raw := s.in.Raw()
	for !cur.Done() && raw != nil {
		want := cur.Fill(sh.buf[:])
		n, err := sh.tryWrite(raw, sh.buf[:want])
		if err != nil {
			s.failed(err)
			return
		}
		sh.stats.writes++
		sh.stats.bytes += n
		cur.Advance(n)
		if n < want {
			break
		}
	}
	if cur.Done() {
		sh.stats.frames += len(list.frames)
		s.written(list, sh.g.now())
		return
	}
	if s.block() {
		go s.writeBlocking(list, cur)
	}
}

// tryWrite writes what the socket accepts at once.
func (sh *shard) tryWrite(raw syscall.RawConn, b []byte) (int, error) {
	sh.out, sh.n, sh.err = b, 0, nil
	if err := raw.Write(sh.write); err != nil {
		return 0, err
	}
	if sh.err != nil {
		return 0, sh.err
	}
	return sh.n, nil
}

func (sh *shard) writeFD(fd uintptr) bool {
	sh.n, sh.err = writeNonblock(fd, sh.out)
	return true // never wait for the socket
}
