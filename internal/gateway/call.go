package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

// maxCalls bounds the open calls of one socket. Ten times what a browser would
// open of HTTP/1 connections.
const maxCalls = 64

// openCall is a call that was not answered yet.
type openCall struct {
	id     uint64
	cancel context.CancelFunc
}

// Answers that the gateway gives itself.
const (
	tooManyCalls  = `{"errcode":"M_LIMIT_EXCEEDED","error":"Too many open calls","retry_after_ms":1000}`
	internalError = `{"errcode":"M_UNKNOWN","error":"Internal server error"}`
)

// request takes a call, which runs beside what else the session does: calls are answered
// in any order.
func (s *session) request(m *message) {
	if m.ID == nil || *m.ID > wire.MaxID || m.Method == "" || m.Path == "" {
		s.close(wire.CloseMalformed, "malformed req")
		return
	}
	id := *m.ID
	s.mu.Lock()
	caller, closing, open := s.mu.caller, s.mu.closing, len(s.mu.calls)
	known := s.findLocked(id) >= 0
	if !closing && !known && open < maxCalls {
		// Not a child of the gateway's context, in whose list all calls would
		// stand, under one lock: finish cancels the calls that are open.
		ctx, cancel := context.WithCancel(context.Background())
		s.mu.calls = append(s.mu.calls, openCall{id: id, cancel: cancel})
		s.mu.Unlock()
		c := api.Call{
			Method: m.Method, Target: m.Path, Body: m.Body,
			Caller: caller, Addr: s.addr, UserAgent: s.userAgent.Value(),
		}
		s.arriving.next = func() { s.call(ctx, id, c) }
		return
	}
	s.mu.Unlock()
	switch {
	case closing:
	case known:
		s.close(wire.CloseMalformed, "id of an open call")
	default:
		s.g.metrics.called(http.StatusTooManyRequests)
		s.answer(wire.OpText, appendAnswer(id, http.StatusTooManyRequests, []byte(tooManyCalls)))
	}
}

// call runs one call. finish waits for it, so it needs no count of its own.
func (s *session) call(ctx context.Context, id uint64, c api.Call) {
	res := api.CallResult{Status: http.StatusInternalServerError, Body: []byte(internalError)}
	defer func() {
		if v := recover(); v != nil {
			s.g.metrics.panics.Inc()
			s.g.cfg.Log.Error("panic in a call", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		s.g.metrics.called(res.Status)
		s.answered(id, appendAnswer(id, res.Status, res.Body))
	}()
	res = s.g.cfg.API.Call(ctx, c)
}

// answered queues a call's answer and closes the call in one step, so that
// finish's close frame comes after it.
func (s *session) answered(id uint64, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ownBytes += len(frame)
	s.pushLocked(wire.Frame{Op: wire.OpText, Own: true, Payload: frame})
	i := s.findLocked(id)
	s.mu.calls[i].cancel()
	last := len(s.mu.calls) - 1
	s.mu.calls[i] = s.mu.calls[last]
	s.mu.calls[last] = openCall{}
	s.mu.calls = s.mu.calls[:last]
	if last == 0 {
		s.mu.calls = nil // an idle session holds nothing
	}
	s.signalLocked()
}

// cancel gives up a call. One that is not open any more was answered.
func (s *session) cancel(m *message) {
	if m.ID == nil {
		s.close(wire.CloseMalformed, "malformed cancel")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findLocked(*m.ID); i >= 0 {
		s.mu.calls[i].cancel()
	}
}

func (s *session) findLocked(id uint64) int {
	for i := range s.mu.calls {
		if s.mu.calls[i].id == id {
			return i
		}
	}
	return -1
}
