package wsclient

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gobwas/ws"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/idleread"
)

// maxFrame is the largest message from the server: a first sync of a large
// account is tens of megabytes.
const maxFrame = 256 << 20

// writeTimeout bounds one write.
const writeTimeout = 30 * time.Second

// link is one connection.
type link struct {
	c    *Client
	conn net.Conn
	in   idleread.Reader
	dec  wire.Decoder

	// Of the reading goroutine.
	ready    bool          // hello was answered
	ended    error         // why it ended already while hello was read
	quiet    time.Duration // close after so long without a byte
	deadline time.Time     // when the read deadline was last set

	writing sync.Mutex
}

var _ wire.Handler = (*link)(nil)

// send writes one masked frame.
func (l *link) send(op wire.Op, payload []byte) error {
	buf, ok := l.c.d.bufs.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	defer l.c.d.bufs.Put(buf)
	var mask [4]byte
	binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
	b := wire.AppendHeader((*buf)[:0], op, len(payload), &mask)
	start := len(b)
	b = append(b, payload...)
	ws.Cipher(b[start:], mask, 0)
	*buf = b
	l.writing.Lock()
	defer l.writing.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := l.conn.Write(b)
	return err
}

// readAll reads until the connection ends.
func (l *link) readAll() error {
	if l.ended != nil {
		return l.ended
	}
	for {
		if err := l.readSome(); err != nil {
			return err
		}
	}
}

// readSome waits for bytes and reads to the next edge between messages.
func (l *link) readSome() error {
	if l.quiet > 0 {
		if now := time.Now(); now.Sub(l.deadline) > l.quiet/8 {
			l.deadline = now
			_ = l.conn.SetReadDeadline(now.Add(l.quiet))
		}
	}
	buf, n, err := l.in.Next(&l.c.d.pool)
	defer l.c.d.pool.Put(buf)
	for err == nil {
		if err = l.dec.Feed(buf[:n], l); err != nil || l.dec.Idle() {
			return err
		}
		n, err = l.in.More(buf)
	}
	return err
}

// HandleMessage takes one message from the server.
func (l *link) HandleMessage(op wire.Op, payload []byte) error {
	switch op {
	case wire.OpPing:
		return l.send(wire.OpPong, payload)
	case wire.OpPong:
		return nil
	case wire.OpClose:
		code, reason, err := wire.ParseClose(payload)
		if err != nil {
			return err
		}
		_ = l.send(wire.OpClose, wire.ClosePayload(code, ""))
		return &CloseError{Code: code, Reason: reason}
	case wire.OpText:
		if bytes.HasPrefix(payload, []byte(`{"op":"sync"`)) {
			return l.sync(payload)
		}
		return l.message(payload)
	default:
		return &wire.Violation{Code: wire.CloseMalformed, Reason: "binary message"}
	}
}

func (l *link) sync(payload []byte) error {
	if l.c.opts.OnFrame != nil {
		l.c.opts.OnFrame(payload)
	}
	if l.c.opts.NoPosition {
		return nil
	}
	p, err := positionOf(payload)
	if err != nil {
		return fmt.Errorf("sync frame: %w", err)
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	switch {
	case p.nextBatch != "":
		l.c.mu.since, l.c.mu.marks = p.nextBatch, nil
	case p.mark[0] != "":
		if l.c.mu.marks == nil {
			l.c.mu.marks = make(map[string]string)
		}
		l.c.mu.marks[p.mark[0]] = p.mark[1]
	}
	return nil
}

type position struct {
	nextBatch string
	mark      [2]string
}

// positionOf finds the position among the members of a frame without building the
// rest.
func positionOf(frame []byte) (p position, err error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(frame))
	if _, err := dec.ReadToken(); err != nil {
		return p, err
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return p, err
		}
		switch name.String() {
		case "next_batch":
			return p, json.UnmarshalDecode(dec, &p.nextBatch)
		case "mark":
			return p, json.UnmarshalDecode(dec, &p.mark)
		}
		if err := dec.SkipValue(); err != nil {
			return p, err
		}
	}
	_, err = dec.ReadToken()
	return p, err
}

type serverMessage struct {
	Op     string         `json:"op"`
	ID     uint64         `json:"id"`
	Status int            `json:"status"`
	Body   jsontext.Value `json:"body"`
	Hello
}

// message takes everything but sync frames that begin as usual.
func (l *link) message(payload []byte) error {
	var m serverMessage
	if err := json.Unmarshal(payload, &m); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	c := l.c
	if m.Op == "sync" {
		return l.sync(payload)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m.Op {
	case "hello":
		l.ready = true
		l.quiet = 2 * time.Duration(m.HeartbeatMS) * time.Millisecond
		c.mu.hello = m.Hello
	case "res":
		if ch := c.mu.pending[m.ID]; ch != nil {
			delete(c.mu.pending, m.ID)
			ch <- Result{Status: m.Status, Body: m.Body}
		}
	case "pong":
		answer(&c.mu.pings)
	case "auth":
		answer(&c.mu.auths)
	}
	return nil
}

// answer tells the first that waits.
func answer(waiting *[]chan struct{}) {
	if len(*waiting) > 0 {
		(*waiting)[0] <- struct{}{}
		*waiting = (*waiting)[1:]
	}
}
