package obs

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// The fixed keys of log lines. A line about one of these things uses its key, so
// that one search finds every line about a room.
const (
	KeyRoom      = "room"
	KeyUser      = "user"
	KeyPartition = "partition"
	KeySeq       = "seq"
	KeyRequestID = "request_id"
	KeyError     = "err"
)

// Room is the attribute of a room.
func Room(id ids.RoomID) slog.Attr { return slog.String(KeyRoom, string(id)) }

// User is the attribute of a user.
func User(id ids.UserID) slog.Attr { return slog.String(KeyUser, string(id)) }

// Partition is the attribute of a partition.
func Partition(p ids.Partition) slog.Attr { return slog.Int(KeyPartition, int(p)) }

// Seq is the attribute of a position in a log.
func Seq(s ids.Seq) slog.Attr { return slog.Uint64(KeySeq, uint64(s)) }

// Err is the attribute of an error.
func Err(err error) slog.Attr { return slog.Any(KeyError, err) }

type requestIDKey struct{}

// WithRequestID returns a context whose log lines carry a request's ID.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the ID that WithRequestID put into the context, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// LogOptions says what a logger writes.
type LogOptions struct {
	Level slog.Level
	// JSON writes a JSON object a line, for machines; else key=value, for people.
	JSON bool
}

// NewLogger returns a logger that writes a line for each record to w, from
// several goroutines without mixing them. Lines logged with a context carry its
// request ID. Attributes whose key names a secret or a message's content lose
// their value: a last net, no licence to log them.
func NewLogger(w io.Writer, opts LogOptions) *slog.Logger {
	ho := &slog.HandlerOptions{Level: opts.Level, ReplaceAttr: redact}
	var h slog.Handler = slog.NewTextHandler(w, ho)
	if opts.JSON {
		h = slog.NewJSONHandler(w, ho)
	}
	return slog.New(requestIDHandler{h})
}

// Discard returns a logger that writes nothing.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

const redacted = "(redacted)"

// redact replaces what must never be in a log. Keys are compared whole, so that
// "token_hash" and "content_type" stay.
func redact(_ []string, a slog.Attr) slog.Attr {
	switch strings.ToLower(a.Key) {
	case "password", "new_password", "token", "access_token", "refresh_token", "login_token", "registration_token",
		"secret", "shared_secret", "authorization", "cookie", "body", "content", "formatted_body", "session_data":
		return slog.String(a.Key, redacted)
	}
	return a
}

// requestIDHandler adds the request ID of the context.
type requestIDHandler struct{ slog.Handler }

var _ slog.Handler = requestIDHandler{}

// Handle adds the attribute and passes the record on.
func (h requestIDHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := RequestID(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String(KeyRequestID, id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the handler around the derived one.
func (h requestIDHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestIDHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the handler around the derived one.
func (h requestIDHandler) WithGroup(name string) slog.Handler {
	return requestIDHandler{h.Handler.WithGroup(name)}
}
