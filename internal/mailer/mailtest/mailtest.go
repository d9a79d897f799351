// Package mailtest runs SMTP servers that keep what they are sent. For tests only.
package mailtest

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"github.com/emersion/go-smtp"
)

// Serve runs a server until the test ends, and returns its address. With implicit the
// connection is encrypted from the first byte; nil is none.
func Serve(t testing.TB, srv *smtp.Server, implicit *tls.Config) (addr string) {
	t.Helper()
	srv.Domain, srv.ErrorLog = "mail.example", slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if implicit != nil {
		l = tls.NewListener(l, implicit)
	}
	done := make(chan struct{})
	go func() {
		_ = srv.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return addr
}
