package feed

import (
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// ErrUnknownPosition: a since token or mark that cannot be resumed from. The
// client starts again without one (socket close code 4409).
var ErrUnknownPosition = errors.New("feed: unknown position")

// ErrRestored is an ErrUnknownPosition: the position is one of the store as it was
// before it was restored from a backup.
var ErrRestored = fmt.Errorf("the store was restored: %w", ErrUnknownPosition)

// Sink is the way from the feed to one socket. The gateway implements it.
type Sink interface {
	// Send queues one complete sync frame (a JSON object, docs/websocket.md
	// §Sync). The bytes are shared between sinks and must not be changed. It
	// never blocks: false means that the queue is full and the frame was not
	// taken; the feed then sends nothing more until Session.Drained is called.
	Send(frame []byte) bool
	// SendTail is Send of a frame in two parts, of which the first is shared with
	// more sinks than the second.
	SendTail(head, tail []byte) bool
	// Close ends the socket with a close code of docs/websocket.md. It never
	// blocks and may be called more than once.
	Close(code int, reason string)
}

// Open says what a socket wants to receive.
type Open struct {
	User   ids.UserID
	Device ids.DeviceID
	// Since is a sync token or "". Marks are positions seen after it.
	Since string
	Marks map[string]string
	// Filter is a filter ID, a JSON object, or "".
	Filter      string
	FullState   bool
	SetPresence string
}

// Session is one socket's place in the feed. Its methods are safe for
// concurrent use.
type Session interface {
	// Drained tells that a sink that had refused a frame has room again.
	Drained()
	// Ack tells that the client has stored everything up to since.
	Ack(ctx context.Context, since string) error
	// Close leaves the feed and waits until nothing more is sent to the sink.
	Close()
}
