package api

import (
	"net/http"
	"time"
)

const (
	// headerTimeout: headers come in one or two packets. It ends connections that
	// send a byte now and then to keep one occupied.
	headerTimeout = 10 * time.Second
	// readTimeout bounds headers and body together: 128 KB at 5 KB/s, with time
	// to spare. Uploads have their own.
	readTimeout = 30 * time.Second
	// serverWriteTimeout is for what the dispatcher does not serve, and the outer bound
	// where it does not set a deadline of its own. It has to be longer than a long
	// poll: HTTP/2 counts it from the beginning of the stream.
	serverWriteTimeout = MaxLongPoll + longGrace + writeTimeout
	// idleTimeout is longer than the pause between two polls of a client.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes: the longest path with escapes is under 10 KB, a since token
	// of MaxPartitions positions about 16 KB.
	maxHeaderBytes = 64 << 10
	// maxStreams is the most requests at once on one HTTP/2 connection, which a
	// proxy may share among its clients.
	maxStreams = 250
)

// NewHTTPServer returns a server for handler with every limit set. The caller sets
// Addr or serves a listener, TLSConfig, ErrorLog, and BaseContext: a context that
// ends when the node stops lets long polls return.
func NewHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      serverWriteTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
}
