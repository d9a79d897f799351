package gateway

import (
	"errors"
	"os"
	"time"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

const (
	// maxQueue bounds the sync frames that wait for one socket, in bytes. A frame that
	// is larger by itself is taken when none waits.
	maxQueue = 256 << 10
	// maxOwn is where the session stops reading until the client has taken the
	// answers to what it asked: they cannot be refused, so the questions are.
	maxOwn = 64 << 10
	// keepList is the longest frame list that is kept for reuse.
	keepList = 256
	// blockBufferSize is the buffer of a writer that waits for a slow socket.
	blockBufferSize = 16 << 10
)

// flushState says who takes care of the queue.
type flushState uint8

const (
	flushIdle    flushState = iota // the queue is empty
	flushListed                    // the shard has the session on a list, or is writing it
	flushBlocked                   // a goroutine waits until the socket accepts more
)

// outbox is a session's queue.
type outbox struct {
	out       *frameList // nil while nothing waits
	syncBytes int        // of frames of the feed, queued or being written
	ownBytes  int        // of answers, likewise
	flush     flushState
	refused   bool          // a sync frame was refused, and Drained not called since
	room      chan struct{} // closed when answers have left; nil if nobody waits
}

// frameList is the pooled container of a queue: an idle session has none.
type frameList struct{ frames []wire.Frame }

type blockBuffer [blockBufferSize]byte

// Send queues a sync frame.
func (s *session) Send(frame []byte) bool { return s.SendTail(frame, nil) }

// SendTail queues a sync frame in two parts. After a refusal every frame is refused until Drained
// was called, so that none overtakes.
func (s *session) SendTail(head, tail []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return false
	}
	f := wire.Frame{Op: wire.OpText, Payload: head, Tail: tail}
	if s.mu.refused || s.mu.syncBytes > 0 && s.mu.syncBytes+f.Len() > maxQueue {
		s.mu.refused = true
		s.g.metrics.refused.Inc()
		return false
	}
	s.mu.syncBytes += f.Len()
	s.pushLocked(f)
	return true
}

// answer queues a frame that the client asked for.
func (s *session) answer(op wire.Op, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ownBytes += len(payload)
	s.pushLocked(wire.Frame{Op: op, Own: true, Payload: payload})
}

func (s *session) pushLocked(f wire.Frame) {
	if s.mu.broken || s.mu.sealed {
		return
	}
	if s.mu.out == nil {
		s.mu.out = s.g.list()
	}
	s.mu.out.frames = append(s.mu.out.frames, f)
	if s.mu.flush == flushIdle {
		s.mu.flush = flushListed
		s.shard.add(s)
	}
}

// awaitRoom waits, on the reading goroutine, until the client has taken most of
// its answers.
func (s *session) awaitRoom() {
	for {
		s.mu.Lock()
		if s.mu.ownBytes <= maxOwn || s.mu.closing || s.mu.broken {
			s.mu.Unlock()
			return
		}
		if s.mu.room == nil {
			s.mu.room = make(chan struct{})
		}
		room := s.mu.room
		s.mu.Unlock()
		<-room
	}
}

// takeFrames hands the queue to the writer; nil if there is nothing to write.
func (s *session) takeFrames() *frameList {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.mu.out
	s.mu.out = nil
	if out == nil {
		s.mu.flush = flushIdle
	}
	return out
}

// written tells that all of list has left. The session goes back to idle, or to
// the shard with what was queued meanwhile.
func (s *session) written(list *frameList, now int64) {
	s.wrote.Store(now)
	syncBytes, ownBytes := 0, 0
	for i := range list.frames {
		switch f := &list.frames[i]; {
		case !f.Own:
			syncBytes += f.Len()
		case f.Op != wire.OpClose:
			ownBytes += len(f.Payload)
		}
	}
	s.g.unlist(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.syncBytes -= syncBytes
	s.mu.ownBytes -= ownBytes
	if s.mu.room != nil && s.mu.ownBytes <= maxOwn/2 {
		close(s.mu.room)
		s.mu.room = nil
	}
	s.drainedLocked()
	if s.mu.out != nil && !s.mu.broken {
		s.mu.flush = flushListed
		s.shard.add(s)
		return
	}
	s.mu.flush = flushIdle
	s.signalLocked()
}

// drainedLocked tells the feed, from a goroutine without locks, that there is room
// again after a refusal.
func (s *session) drainedLocked() {
	if !s.mu.refused || s.mu.feed == nil || s.mu.closing || s.mu.syncBytes > maxQueue/2 {
		return
	}
	s.mu.refused = false
	sess := s.mu.feed
	// The session is not closing, so its own count is held: Add cannot race with
	// a Wait at zero.
	s.g.sessions.Go(sess.Drained)
}

// breakLocked drops the queue: nothing will be written any more.
func (s *session) breakLocked() {
	s.mu.broken = true
	s.mu.out = nil
	if s.mu.room != nil {
		close(s.mu.room)
		s.mu.room = nil
	}
	s.signalLocked()
}

// failed ends the session after a write error.
func (s *session) failed(err error) {
	s.mu.Lock()
	s.breakLocked()
	s.mu.flush = flushIdle
	s.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.close(wire.CloseTimeout, "not reading")
		return
	}
	s.close(wire.CloseAbnormal, "")
}

// block marks the session as waiting for its socket. The caller then starts
// writeBlocking. False if the session was broken meanwhile.
func (s *session) block() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.broken {
		s.mu.flush = flushIdle
		s.signalLocked()
		return false
	}
	s.mu.flush = flushBlocked
	return true
}

// writeBlocking writes the rest of a list as the socket accepts it. The deadline
// counts from the last byte that was accepted.
func (s *session) writeBlocking(list *frameList, cur wire.Cursor) {
	buf, ok := s.g.bufs.Get().(*blockBuffer)
	if !ok {
		buf = new(blockBuffer)
	}
	writes, bytes := 0, 0
	for !cur.Done() {
		n := cur.Fill(buf[:])
		_ = s.in.Conn().SetWriteDeadline(time.Now().Add(s.g.times.write))
		m, err := s.in.Conn().Write(buf[:n])
		cur.Advance(m)
		writes++
		bytes += m
		if err != nil && (m == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			s.g.bufs.Put(buf)
			s.failed(err)
			return
		}
	}
	_ = s.in.Conn().SetWriteDeadline(time.Time{})
	s.g.bufs.Put(buf)
	s.g.metrics.wrote(len(list.frames), bytes, writes)
	s.written(list, s.g.now())
}

func (g *Gateway) list() *frameList {
	if l, ok := g.lists.Get().(*frameList); ok {
		return l
	}
	return &frameList{frames: make([]wire.Frame, 0, 4)}
}

func (g *Gateway) unlist(l *frameList) {
	clear(l.frames)
	if cap(l.frames) <= keepList {
		l.frames = l.frames[:0]
		g.lists.Put(l)
	}
}
