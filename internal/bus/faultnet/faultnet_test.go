package faultnet_test

import (
	"bufio"
	"net"
	"os"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
)

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for in := bufio.NewScanner(c); in.Scan(); {
					if _, err := c.Write([]byte(in.Text() + "\n")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

func TestProxy(t *testing.T) {
	me := faultnet.Processes(func() map[int]string { return map[int]string{os.Getpid(): "me"} })
	p := faultnet.New(t, echo(t), me)
	c, in := dial(t, p.Addr())
	say := func(word string) (string, error) {
		if _, err := c.Write([]byte(word + "\n")); err != nil {
			return "", err
		}
		return in.ReadString('\n')
	}
	for _, f := range []faultnet.Fault{faultnet.Pass, faultnet.Slow} {
		p.Set("me", f)
		if got, err := say("one"); got != "one\n" || err != nil {
			t.Fatalf("fault %d: %q, %v", f, got, err)
		}
	}
	p.Set("somebody else", faultnet.Cut)
	p.Set("", faultnet.Cut)
	if got, err := say("two"); got != "two\n" || err != nil {
		t.Fatalf("others are cut: %q, %v", got, err)
	}

	p.Set("me", faultnet.Hole)
	heard := make(chan string, 1)
	go func() {
		got, _ := say("three")
		heard <- got
	}()
	other, _ := dial(t, p.Addr()) // is let in, and waits
	if _, err := other.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-heard:
		t.Fatalf("out of the hole came %q", got)
	default:
	}
	p.Set("me", faultnet.Pass)
	if got := <-heard; got != "three\n" {
		t.Fatalf("after the hole: %q", got)
	}
	p.Set("me", faultnet.Cut)
	if got, err := say("four"); err == nil {
		t.Fatalf("a cut connection says %q", got)
	}
	late, in := dial(t, p.Addr())
	if got, err := in.ReadString('\n'); err == nil {
		t.Fatalf("%v says %q", late.RemoteAddr(), got)
	}
}
