package gateway

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// rawConn is a connection after the handshake, for frames that no client library
// would send.
type rawConn struct {
	net.Conn
	tb testing.TB
}

func dialRaw(tb testing.TB, f *fixture) *rawConn {
	tb.Helper()
	conn, early, _, err := ws.Dialer{Protocols: []string{wire.Subprotocol}}.Dial(context.Background(), "ws://"+f.addr+wire.Path)
	if err != nil {
		tb.Fatal(err)
	}
	if early != nil {
		tb.Fatal("the server spoke first")
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	tb.Cleanup(func() { _ = conn.Close() })
	return &rawConn{Conn: conn, tb: tb}
}

var testMask = [4]byte{0xa1, 0xb2, 0xc3, 0xd4}

// masked builds a frame with a right header.
func masked(first byte, payload string) []byte {
	b := wire.AppendHeader(nil, 0, len(payload), &testMask)
	b[0] = first
	n := len(b)
	b = append(b, payload...)
	ws.Cipher(b[n:], testMask, 0)
	return b
}

func text(payload string) []byte { return masked(0x81, payload) }

func (c *rawConn) send(frames ...[]byte) {
	c.tb.Helper()
	if _, err := c.Write(bytes.Join(frames, nil)); err != nil {
		c.tb.Fatal(err)
	}
}

// next reads one frame.
func (c *rawConn) next() (op byte, payload []byte) {
	c.tb.Helper()
	h, err := ws.ReadHeader(c)
	if err != nil {
		c.tb.Fatal(err)
	}
	payload = make([]byte, h.Length)
	if _, err := io.ReadFull(c, payload); err != nil {
		c.tb.Fatal(err)
	}
	return byte(h.OpCode), payload
}

// expectClose reads up to the close frame, and that nothing follows it.
func (c *rawConn) expectClose(code int) {
	c.tb.Helper()
	for {
		op, payload := c.next()
		if op != byte(wire.OpClose) {
			continue
		}
		if got := int(binary.BigEndian.Uint16(payload)); got != code {
			c.tb.Fatalf("closed with %d %q, want %d", got, payload[2:], code)
		}
		c.send(masked(0x88, string(payload)))
		if n, err := io.Copy(io.Discard, c); n > 0 {
			c.tb.Fatalf("%d bytes after the close frame, %v", n, err)
		}
		_ = c.Close()
		return
	}
}

const helloText = `{"op":"hello","access_token":"@a:x/D"}`

func TestHostileFrames(t *testing.T) {
	huge := func(length uint64) []byte {
		b := binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, length)
		return append(b, testMask[:]...)
	}
	for name, c := range map[string]struct {
		send [][]byte
		code int
	}{
		"unmasked":              {[][]byte{append([]byte{0x81, 2}, "{}"...)}, wire.CloseProtocol},
		"reserved bit":          {[][]byte{masked(0xc1, "{}")}, wire.CloseProtocol},
		"reserved opcode":       {[][]byte{masked(0x83, "{}")}, wire.CloseProtocol},
		"length 2^63":           {[][]byte{huge(1 << 63)}, wire.CloseProtocol},
		"length 2^63-1":         {[][]byte{huge(1<<63 - 1)}, wire.CloseTooLarge},
		"one byte too large":    {[][]byte{huge(wire.MaxMessage + 1)}, wire.CloseTooLarge},
		"too large in parts":    {[][]byte{masked(0x01, strings.Repeat("x", wire.MaxMessage)), masked(0x80, "x")}, wire.CloseTooLarge},
		"too large and sent":    {[][]byte{text(strings.Repeat("x", 4*wire.MaxMessage))}, wire.CloseTooLarge},
		"bad UTF-8":             {[][]byte{text("{\"op\":\"\xff\"}")}, wire.CloseBadUTF8},
		"surrogate in UTF-8":    {[][]byte{text("{\"op\":\"\xed\xa0\x80\"}")}, wire.CloseBadUTF8},
		"fragmented ping":       {[][]byte{masked(0x09, "")}, wire.CloseProtocol},
		"long ping":             {[][]byte{masked(0x89, strings.Repeat("x", 126))}, wire.CloseProtocol},
		"lone continuation":     {[][]byte{masked(0x80, "{}")}, wire.CloseProtocol},
		"close of one byte":     {[][]byte{masked(0x88, "x")}, wire.CloseProtocol},
		"close with a bad code": {[][]byte{masked(0x88, "\x03\xee")}, wire.CloseProtocol},
		"close without code":    {[][]byte{masked(0x88, "")}, wire.CloseNormal},
		"close with own code":   {[][]byte{masked(0x88, "\x0f\xa1")}, 4001},
		"not a frame":           {[][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, wire.CloseProtocol},
	} {
		for when, hello := range map[string][]byte{"first": nil, "after hello": text(helloText)} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				f := serve(t, Config{})
				conn := dialRaw(t, f)
				conn.send(append([][]byte{hello}, c.send...)...)
				conn.expectClose(c.code)
				eventually(t, func() bool { return f.Sockets() == 0 })
			})
		}
	}
}

// TestNoCompression: compression is not agreed to, however it is offered, and a frame
// that says it is compressed is not unpacked: there is no bomb of a gigabyte in ten
// kilobytes.
func TestNoCompression(t *testing.T) {
	f := serve(t, Config{})
	for _, offer := range []string{"permessage-deflate", "permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame, permessage-deflate; server_no_context_takeover"} {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\nSec-WebSocket-Extensions: %s\r\n\r\n", wire.Path, wire.Subprotocol, offer)
		res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Values("Sec-WebSocket-Extensions"); res.StatusCode != http.StatusSwitchingProtocols || len(got) > 0 {
			t.Errorf("%s: %d, agreed to %q", offer, res.StatusCode, got)
		}
		raw := &rawConn{Conn: conn, tb: t}
		var bomb bytes.Buffer
		w, err := flate.NewWriter(&bomb, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		raw.send(masked(0xc1, bomb.String()))
		raw.expectClose(wire.CloseProtocol)
	}
}

// A message that comes byte by byte, in fragments with a ping between.
func TestFragments(t *testing.T) {
	f := serve(t, Config{})
	conn := dialRaw(t, f)
	for _, b := range text(helloText) {
		conn.send([]byte{b})
	}
	if op, payload := conn.next(); op != 1 || !bytes.Contains(payload, []byte(`"@a:x"`)) {
		t.Fatalf("%d %s", op, payload)
	}
	conn.send(masked(0x01, `{"op":`), masked(0x89, "are you there"), masked(0x00, ""), masked(0x80, `"ping"}`))
	if op, payload := conn.next(); op != byte(wire.OpPong) || string(payload) != "are you there" {
		t.Fatalf("%d %s", op, payload)
	}
	if op, payload := conn.next(); op != 1 || string(payload) != `{"op":"pong"}` {
		t.Fatalf("%d %s", op, payload)
	}
}

func TestLargestMessage(t *testing.T) {
	f := serve(t, Config{})
	conn := dialRaw(t, f)
	start := `{"op":"req","id":1,"method":"PUT","path":"/x","body":"`
	body := strings.Repeat("x", wire.MaxMessage-len(start)-2)
	conn.send(text(helloText), text(start+body+`"}`))
	conn.next()
	if _, payload := conn.next(); !bytes.Contains(payload, []byte(body)) {
		t.Fatalf("%d bytes came back", len(payload))
	}
}

func TestFloods(t *testing.T) {
	for name, frame := range map[string][]byte{
		"messages":        text(`{"op":"ping"}`),
		"pings":           masked(0x89, "x"),
		"pongs":           masked(0x8a, ""),
		"empty fragments": masked(0x00, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, Config{})
			conn := dialRaw(t, f)
			conn.send(text(helloText))
			if name == "empty fragments" {
				conn.send(masked(0x01, ""))
			}
			go func() {
				// More than the burst and what flows back while it is sent.
				_, _ = conn.Write(bytes.Repeat(frame, 3000))
			}()
			conn.expectClose(wire.CloseTooMany)
		})
	}
}

// The burst that the specification grants is granted.
func TestBurstIsGranted(t *testing.T) {
	f := serve(t, Config{})
	conn := dialRaw(t, f)
	conn.send(text(helloText), bytes.Repeat(text(`{"op":"ping"}`), 399))
	conn.next()
	for range 399 {
		if op, _ := conn.next(); op != 1 {
			t.Fatalf("opcode %d", op)
		}
	}
}

func TestNoHello(t *testing.T) {
	f := serve(t, Config{times: times{hello: 50 * time.Millisecond}})
	for name, send := range map[string][]byte{
		"silent": nil, "half a header": {0x81}, "half a message": text(helloText)[:20],
		"pings only": masked(0x8a, ""),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, f)
			conn.send(send)
			conn.expectClose(wire.CloseTimeout)
		})
	}
}

// A message that starts and does not end holds its memory only for a while.
func TestHalfMessage(t *testing.T) {
	f := serve(t, Config{times: times{message: 50 * time.Millisecond}})
	conn := dialRaw(t, f)
	conn.send(text(helloText), text(helloText)[:20])
	conn.expectClose(wire.CloseTimeout)
}

func TestStrayAndDeadSockets(t *testing.T) {
	t.Run("never signs in", func(t *testing.T) {
		f := serve(t, Config{times: times{signIn: 50 * time.Millisecond, recheck: 100 * time.Millisecond}})
		conn := dialRaw(t, f)
		conn.send(text(`{"op":"hello"}`))
		conn.expectClose(wire.CloseTimeout)
	})
	t.Run("never answers pings", func(t *testing.T) {
		f := serve(t, Config{times: times{heartbeat: 100 * time.Millisecond, recheck: 40 * time.Millisecond}})
		conn := dialRaw(t, f)
		conn.send(text(helloText))
		conn.next()
		if op, _ := conn.next(); op != byte(wire.OpPing) {
			t.Fatalf("opcode %d", op)
		}
		conn.expectClose(wire.CloseTimeout)
	})
	t.Run("is pinged though frames flow", func(t *testing.T) {
		f := serve(t, Config{times: times{heartbeat: 100 * time.Millisecond, recheck: 40 * time.Millisecond}})
		conn := dialRaw(t, f)
		conn.send(text(`{"op":"hello","access_token":"@a:x/D","sync":true}`))
		conn.next()
		s := <-f.feed.opened
		for op := byte(0); op != byte(wire.OpPing); op, _ = conn.next() {
			s.sink.Send([]byte(`{}`))
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("lives by its pongs", func(t *testing.T) {
		f := serve(t, Config{times: times{heartbeat: 100 * time.Millisecond, recheck: 40 * time.Millisecond}})
		conn := dialRaw(t, f)
		conn.send(text(helloText))
		conn.next()
		for begin := time.Now(); time.Since(begin) < 500*time.Millisecond; {
			if op, _ := conn.next(); op != byte(wire.OpPing) {
				t.Fatalf("opcode %d", op)
			}
			conn.send(masked(0x8a, ""))
		}
	})
}

// fill sends frames until one is refused.
func fill(t *testing.T, s *fakeSession) (sent int) {
	t.Helper()
	frame := []byte(`{"op":"sync","pad":"` + strings.Repeat("x", 16<<10) + `"}`)
	for s.sink.Send(frame) {
		sent++
		if sent > 10_000 {
			t.Fatal("nothing is refused")
		}
	}
	return sent
}

// A reader that never reads: frames are refused, memory is bounded, and it is
// closed at the write deadline.
func TestReaderThatNeverReads(t *testing.T) {
	f := serve(t, Config{times: times{write: 300 * time.Millisecond}})
	conn := dialRaw(t, f)
	_ = conn.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	conn.send(text(`{"op":"hello","access_token":"@a:x/D","sync":true}`))
	s := <-f.feed.opened
	for range 100 {
		fill(t, s)
		if f.Sockets() == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	eventually(t, func() bool { return f.Sockets() == 0 })
	if n := value(t, f.metrics.closes.WithLabelValues("4408")); n != 1 {
		t.Errorf("%v closes with 4408", n)
	}
	if value(t, f.metrics.refused) == 0 {
		t.Error("nothing was counted as refused")
	}
}

// A slow reader loses nothing that was accepted, in order; after a refusal nothing
// is accepted before Drained; and the answers to calls are not refused.
func TestSlowReader(t *testing.T) {
	f := serve(t, Config{})
	conn := dialRaw(t, f)
	conn.send(text(`{"op":"hello","access_token":"@a:x/D","sync":true}`))
	s := <-f.feed.opened
	conn.next()
	pad := strings.Repeat("x", 8<<10)
	sent := 0
	for ; ; sent++ {
		if !s.sink.Send(fmt.Appendf(nil, `{"n":%d,"pad":%q}`, sent, pad)) {
			break
		}
	}
	if s.sink.Send([]byte(`{}`)) {
		t.Fatal("a small frame overtook the refused one")
	}
	conn.send(text(`{"op":"req","id":1,"method":"GET","path":"/x"}`))
	answered := false
	for n := 0; n < sent || !answered; {
		_, payload := conn.next()
		if bytes.HasPrefix(payload, []byte(`{"op":"res"`)) {
			answered = true
			continue
		}
		if !bytes.HasPrefix(payload, fmt.Appendf(nil, `{"n":%d,`, n)) {
			t.Fatalf("frame %d: %.40s", n, payload)
		}
		n++
	}
	<-s.drained
	if !s.sink.Send([]byte(`{"n":"last"}`)) {
		t.Fatal("refused after Drained")
	}
	if _, payload := conn.next(); string(payload) != `{"n":"last"}` {
		t.Fatalf("%.40s", payload)
	}
	if len(s.drained) != 0 {
		t.Error("Drained was called twice for one refusal")
	}
}

// A frame larger than the whole queue is taken when nothing else waits.
func TestFrameLargerThanTheQueue(t *testing.T) {
	f := serve(t, Config{})
	conn := dialRaw(t, f)
	conn.send(text(`{"op":"hello","access_token":"@a:x/D","sync":true}`))
	s := <-f.feed.opened
	conn.next()
	big := bytes.Repeat([]byte("y"), 20<<20)
	if !s.sink.Send(big) {
		t.Fatal("refused")
	}
	if s.sink.Send([]byte("{}")) {
		t.Fatal("accepted beyond the limit")
	}
	if _, payload := conn.next(); !bytes.Equal(payload, big) {
		t.Fatalf("got %d bytes", len(payload))
	}
	<-s.drained
}

// Whoever asks without reading the answers is not read any more, so that answers
// do not pile up; and everything is answered once they read.
func TestAnswersAreBounded(t *testing.T) {
	f := serve(t, Config{})
	client, server := net.Pipe()
	_ = client.SetDeadline(time.Now().Add(patience))
	conn := &rawConn{client, t}
	f.Gateway.serve(server, nil, netip.Addr{}, "")
	s := f.hub.sessions()[0]
	conn.send(text(helloText))
	conn.next()
	conn.send(text(`{"op":"req","id":1,"method":"GET","path":"/large"}`))
	locked := func(ok func() bool) func() bool {
		return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return ok()
		}
	}
	eventually(t, locked(func() bool { return s.mu.ownBytes > maxOwn }))
	conn.send(text(`{"op":"ping"}`))
	eventually(t, locked(func() bool { return s.mu.room != nil }))
	if _, payload := conn.next(); len(payload) < 1<<20 {
		t.Fatalf("%d bytes", len(payload))
	}
	if _, payload := conn.next(); string(payload) != `{"op":"pong"}` {
		t.Fatalf("%.40s", payload)
	}
	_ = client.Close()
}

// sessions lists all.
func (h *hub) sessions() (all []*session) {
	for slot := range wheelSlots {
		all = h.inSlot(slot, all)
	}
	return all
}

// The deadline of a write that had to wait does not outlive it.
func TestSlowReaderRecovers(t *testing.T) {
	const write = 500 * time.Millisecond
	f := serve(t, Config{times: times{write: write}})
	conn := dialRaw(t, f)
	conn.send(text(`{"op":"hello","access_token":"@a:x/D","sync":true}`))
	s := <-f.feed.opened
	conn.next()
	sess := s.sink.(*session)
	sent := 0
	eventually(t, func() bool {
		sent += fill(t, s)
		sess.mu.Lock()
		defer sess.mu.Unlock()
		return sess.mu.flush == flushBlocked
	})
	for range sent {
		conn.next()
	}
	<-s.drained
	time.Sleep(2 * write) // what would go wrong needs this time to pass
	for range 3 {
		if !s.sink.Send([]byte(`{}`)) {
			t.Fatal("refused")
		}
		conn.next()
	}
}

// The sign-in races with a revocation and with the end of the socket.
func TestSignInRaces(t *testing.T) {
	f := serve(t, Config{})
	for i := range 50 {
		token := fmt.Sprintf("@a:x/D%d", i)
		conn := dialRaw(t, f)
		go f.CloseUser("@a:x", wire.CloseUnauthorized)
		go f.auth.revoke(token, merr.New(401, merr.UnknownToken, "revoked"))
		conn.send(text(fmt.Sprintf(`{"op":"hello","access_token":%q,"sync":true}`, token)))
		if i%2 == 0 {
			_ = conn.Close()
		}
	}
	f.CloseUser("@a:x", wire.CloseUnauthorized)
	for i := range 50 {
		f.auth.revoke(fmt.Sprintf("@a:x/D%d", i), merr.New(401, merr.UnknownToken, "revoked"))
	}
	eventually(t, func() bool { return f.Sockets() == 0 })
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if len(f.hub.mu.users) != 0 {
		t.Errorf("%d users are left", len(f.hub.mu.users))
	}
}

// FuzzSession: whatever a client sends, the session ends, nothing panics and no
// goroutine stays.
func FuzzSession(f *testing.F) {
	f.Add([]byte(helloText+"\n"+`{"op":"ping"}`), false)
	f.Add([]byte(helloText+"\n"+`{"op":"req","id":1,"method":"GET","path":"/x","body":{}}`+"\n"+`{"op":"cancel","id":1}`), false)
	f.Add([]byte(`{"op":"hello","access_token":"@a:x/D","sync":true,"filter":"1","marks":{"1":"2"}}`+"\n"+`{"op":"ack","since":"s"}`), false)
	f.Add(append(text(helloText), masked(0x88, "\x03\xe8")...), true)
	f.Add(append(masked(0x01, `{"op":`), masked(0x80, `"hello"}`)...), true)
	f.Fuzz(func(t *testing.T, in []byte, raw bool) {
		calls := &fakeAPI{block: make(chan struct{}), cancelled: make(chan struct{}, 1000)}
		close(calls.block)
		calls.onLogout = func(api.Call) {}
		g := New(Config{
			API: calls, Auth: &fakeAuth{}, DrainSpread: 1,
			Feed:  &fakeFeed{opened: make(chan *fakeSession, 10), acks: make(chan string, 1000)},
			times: times{closing: 50 * time.Millisecond},
		})
		client, server := net.Pipe()
		_ = client.SetDeadline(time.Now().Add(patience))
		g.serve(server, nil, netip.MustParseAddr("127.0.0.1"), "fuzz")
		go func() { _, _ = io.Copy(io.Discard, client) }()
		if raw {
			_, _ = client.Write(in)
		} else {
			for line := range bytes.SplitSeq(in, []byte("\n")) {
				if _, err := client.Write(text(string(line))); err != nil {
					break
				}
			}
		}
		_ = client.Close()
		if err := g.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g.Sockets() != 0 || value(t, g.metrics.sockets) != 0 {
			t.Fatal("a session is left")
		}
		if n := value(t, g.metrics.panics); n != 0 && !bytes.Contains(in, []byte("/panic")) {
			t.Fatalf("%v panics", n)
		}
	})
}
