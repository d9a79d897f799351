package idleread

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pairs makes one connection of each kind: with readiness and without.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	t.Cleanup(func() {
		for _, c := range []net.Conn{client, server, a, b} {
			_ = c.Close()
		}
	})
	return map[string][2]net.Conn{"tcp": {client, server}, "pipe": {a, b}}
}

func TestReader(t *testing.T) {
	for name, p := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			var pool Pool
			var r Reader
			r.Init(p[1])
			if (r.Raw() != nil) != (name == "tcp" && readable) {
				t.Fatalf("raw access: %v", r.Raw())
			}
			if err := p[1].SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Next(&pool); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("past the deadline: %v", err)
			}
			if err := p[1].SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			sent := bytes.Repeat([]byte("0123456789abcdef!"), 10_000)
			go func() {
				_, _ = p[0].Write(sent)
				_ = p[0].Close()
			}()
			var got []byte
			for i := 0; ; i++ {
				buf, n, err := r.Next(&pool)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, buf[:n]...)
				if i%2 == 0 && len(got) < len(sent) {
					if n, err = r.More(buf); err != nil {
						t.Fatal(err)
					}
					got = append(got, buf[:n]...)
				}
				pool.Put(buf)
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("got %d bytes, want %d", len(got), len(sent))
			}
		})
	}
}
