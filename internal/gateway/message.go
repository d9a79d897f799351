package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// opTimeout bounds a sign-in with the start of its sync: a large account's first
// sync takes seconds.
const opTimeout = time.Minute

// message is any message from a client. Which members count depends on Op.
type message struct {
	Op string `json:"op"`

	// hello and auth
	AccessToken string            `json:"access_token"`
	Sync        bool              `json:"sync"`
	Since       string            `json:"since"` // also of ack
	Marks       map[string]string `json:"marks"`
	Filter      jsontext.Value    `json:"filter"`
	FullState   bool              `json:"full_state"`
	SetPresence string            `json:"set_presence"`

	// req and cancel
	ID     *uint64        `json:"id"`
	Method string         `json:"method"`
	Path   string         `json:"path"`
	Body   jsontext.Value `json:"body"`
}

// HandleMessage takes one message or control frame. It runs on the reading
// goroutine; until it returns, nothing more is read.
func (s *session) HandleMessage(op wire.Op, payload []byte) error {
	s.begin()
	if op == wire.OpClose {
		code, _, err := wire.ParseClose(payload)
		if err != nil {
			return err
		}
		s.close(code, "")
		return errPeerClosed
	}
	if s.isClosing() || !s.charge() {
		return nil
	}
	switch op {
	case wire.OpPong:
		return nil
	case wire.OpPing:
		s.awaitRoom()
		s.answer(wire.OpPong, append([]byte(nil), payload...))
		return nil
	case wire.OpBinary:
		s.close(wire.CloseMalformed, "binary message")
		return nil
	}
	s.awaitRoom()
	var m message
	if err := json.Unmarshal(payload, &m); err != nil {
		s.close(wire.CloseMalformed, "malformed message")
		return nil
	}
	s.dispatch(&m)
	return nil
}

func (s *session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.closing
}

func (s *session) dispatch(m *message) {
	if !s.helloed && m.Op != "hello" {
		s.close(wire.CloseMalformed, "hello expected")
		return
	}
	switch m.Op {
	case "hello":
		s.hello(m)
	case "auth":
		s.auth(m)
	case "req":
		s.request(m)
	case "cancel":
		s.cancel(m)
	case "ack":
		s.acknowledge(m)
	case "ping":
		s.answer(wire.OpText, []byte(`{"op":"pong"}`))
	default:
		s.close(wire.CloseMalformed, "unknown op")
	}
}

type helloAnswer struct {
	Op              string `json:"op"`
	UserID          string `json:"user_id,omitempty"`
	DeviceID        string `json:"device_id,omitempty"`
	HeartbeatMS     int64  `json:"heartbeat_ms"`
	MaxMessageBytes int    `json:"max_message_bytes"`
}

func (s *session) hello(m *message) {
	switch {
	case s.helloed:
		s.close(wire.CloseMalformed, "second hello")
		return
	case m.AccessToken == "" && m.Sync:
		s.close(wire.CloseUnauthorized, string(merr.MissingToken))
		return
	}
	s.helloed = true
	ctx, end := s.beginOp()
	defer end()
	if m.AccessToken != "" && !s.signIn(ctx, m.AccessToken) {
		return
	}
	_ = s.in.Conn().SetReadDeadline(time.Time{})
	s.mu.Lock()
	caller := s.mu.caller
	s.mu.Unlock()
	b, err := json.Marshal(helloAnswer{
		Op: "hello", UserID: string(caller.User), DeviceID: string(caller.Device),
		HeartbeatMS: s.g.times.heartbeat.Milliseconds(), MaxMessageBytes: wire.MaxMessage,
	})
	if err != nil {
		s.close(closeCode(err))
		return
	}
	s.answer(wire.OpText, b)
	if m.Sync {
		s.startSync(ctx, m)
	}
}

// beginOp gives the context of a sign-in; closing the session ends it.
func (s *session) beginOp() (context.Context, func()) {
	ctx, cancel := context.WithTimeout(s.g.ctx, opTimeout)
	s.mu.Lock()
	s.mu.cancelOp = cancel
	if s.mu.closing {
		cancel()
	}
	s.mu.Unlock()
	return ctx, func() {
		cancel()
		s.mu.Lock()
		s.mu.cancelOp = nil
		s.mu.Unlock()
	}
}

// signIn proves the token and makes the socket the user's, or closes it.
func (s *session) signIn(ctx context.Context, token string) bool {
	caller, err := s.g.cfg.Auth.Authenticate(ctx, api.Credentials{Token: token, Addr: s.addr, UserAgent: s.userAgent.Value()})
	if err != nil {
		s.closeFor("sign in", err)
		return false
	}
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		return false
	}
	old := s.mu.caller
	if old.User != "" && (old.User != caller.User || old.Device != caller.Device) {
		s.mu.Unlock()
		s.close(wire.CloseUnauthorized, string(merr.UnknownToken))
		return false
	}
	s.mu.caller = caller
	s.mu.Unlock()
	if old.User == "" {
		if oldest := s.g.hub.signIn(s, caller.User); oldest != nil {
			oldest.close(wire.CloseTooMany, "too many sockets of this user")
		}
		if s.isClosing() {
			// finish may have signed it out before it was in.
			s.g.hub.signOut(s, caller.User)
			return false
		}
		// A revocation that came between the look-up and the entry above found no
		// socket to close: look again.
		s.recheck(ctx)
	}
	return !s.isClosing()
}

// closeFor closes the socket for an error, and logs it if it is the server's.
func (s *session) closeFor(what string, err error) {
	code, reason := closeCode(err)
	if code == wire.CloseInternal && !s.isClosing() {
		s.g.cfg.Log.Error("socket: "+what, slog.Any("error", err))
	}
	s.close(code, reason)
}

func (s *session) startSync(ctx context.Context, m *message) {
	filter, ok := filterOf(m.Filter)
	if !ok {
		s.close(wire.CloseMalformed, "malformed filter")
		return
	}
	s.mu.Lock()
	caller := s.mu.caller
	s.mu.Unlock()
	sess, err := s.g.cfg.Feed.Open(ctx, feed.Open{
		User: caller.User, Device: caller.Device,
		Since: m.Since, Marks: m.Marks,
		Filter: filter, FullState: m.FullState, SetPresence: m.SetPresence,
	}, s)
	if err != nil {
		s.closeFor("start sync", err)
		return
	}
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		sess.Close()
		return
	}
	s.mu.feed = sess
	s.drainedLocked()
	s.mu.Unlock()
}

// filterOf turns the filter member into what the feed takes: an ID or an object.
func filterOf(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case 0, 'n':
		return "", len(v) == 0
	case '{':
		return string(v), true
	case '"':
		var id string
		if err := json.Unmarshal(v, &id); err != nil {
			return "", false
		}
		return id, true
	default:
		return "", false
	}
}

// auth replaces the token of a signed-in socket, or signs in one that is not.
func (s *session) auth(m *message) {
	s.mu.Lock()
	syncing := s.mu.feed != nil
	s.mu.Unlock()
	switch {
	case m.AccessToken == "":
		s.close(wire.CloseUnauthorized, string(merr.MissingToken))
		return
	case m.Sync && syncing:
		s.close(wire.CloseMalformed, "sync has started already")
		return
	}
	ctx, end := s.beginOp()
	defer end()
	if !s.signIn(ctx, m.AccessToken) {
		return
	}
	s.answer(wire.OpText, []byte(`{"op":"auth"}`))
	if m.Sync {
		s.startSync(ctx, m)
	}
}

// ackLoop carries acknowledgements to the feed, one at a time; of those that wait
// the newest is enough.
type ackLoop struct {
	since string // the next to be told, "" if none
}

// ackTimeout bounds one acknowledgement's write.
const ackTimeout = 30 * time.Second

func (s *session) acknowledge(m *message) {
	s.mu.Lock()
	ok := s.mu.closing || m.Since != "" && s.mu.feed != nil
	switch {
	case !ok || s.mu.closing:
	case s.mu.ack != nil:
		s.mu.ack.since = m.Since
	default:
		s.mu.ack = &ackLoop{since: m.Since}
		s.g.sessions.Go(s.runAcks)
	}
	s.mu.Unlock()
	if !ok {
		s.close(wire.CloseMalformed, "nothing to acknowledge")
	}
}

func (s *session) runAcks() {
	for {
		s.mu.Lock()
		since, sess := s.mu.ack.since, s.mu.feed
		s.mu.ack.since = ""
		if since == "" || sess == nil {
			s.mu.ack = nil
			s.signalLocked()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.g.ctx, ackTimeout)
		err := sess.Ack(ctx, since)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, feed.ErrUnknownPosition):
			s.close(wire.CloseUnknownPos, "unknown position")
		default:
			// The next acknowledgement covers this one.
			s.g.cfg.Log.Warn("socket: acknowledge", slog.Any("error", err))
		}
	}
}

// appendAnswer builds the answer to a call.
func appendAnswer(id uint64, status int, body []byte) []byte {
	b := make([]byte, 0, len(`{"op":"res","id":,"status":,"body":}`)+16+3+len(body))
	b = strconv.AppendUint(append(b, `{"op":"res","id":`...), id, 10)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(status), 10)
	if len(body) > 0 {
		b = append(append(b, `,"body":`...), body...)
	}
	return append(b, '}')
}
