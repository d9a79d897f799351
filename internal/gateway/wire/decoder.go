package wire

import (
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// firstAlloc is how much is allocated at once for a message that is only
// announced: what a peer claims costs nothing until its bytes arrive.
const firstAlloc = 4 << 10

// Handler takes what a Decoder finds. payload is valid until HandleMessage
// returns and may be changed. An error ends the decoding and is returned by Feed.
type Handler interface {
	// HandleMessage takes a whole data message (OpText, OpBinary) or a control
	// frame. Text is valid UTF-8.
	HandleMessage(op Op, payload []byte) error
}

// Decoder turns the bytes of one direction of a connection into messages. It is
// pushed: the owner reads however it likes and feeds what came. Between
// messages it holds no buffer, so that an idle connection costs its size alone.
//
// Steps: gather a header; check it (reserved bits, opcode, mask, length, order
// of fragments) before anything is allocated; take the payload, in place when
// the frame lies whole in the fed bytes, else into a buffer that grows as bytes
// arrive; hand over when the message is complete. After an error the stream has
// no known position any more and the Decoder must not be fed again.
type Decoder struct {
	// Masked says whether frames must be masked (a server's decoder) or must not
	// be (a client's).
	Masked bool
	// Max is the largest message in bytes.
	Max int
	// Fragments counts frames that did not end a message, for rate limits. The
	// owner may reset it.
	Fragments int

	hdr   [maxHeader]byte
	nhdr  uint8
	frame bool // a header was read, its payload is not complete
	cur   header
	got   int    // payload bytes of cur that were taken
	msgOp Op     // opcode of the message under way, 0 if none
	msg   []byte // payload of the message under way, if it came in parts
	ctl   []byte // payload of a control frame that came in parts
}

// Idle reports whether the decoder stands between two messages.
func (d *Decoder) Idle() bool { return d.nhdr == 0 && !d.frame && d.msgOp == 0 }

// Feed takes the next bytes of the stream. It changes b (unmasking in place).
// The error is a *Violation or comes from the handler.
func (d *Decoder) Feed(b []byte, h Handler) error {
	for {
		if !d.frame {
			n, ok := d.header(b)
			b = b[n:]
			if !ok {
				return nil
			}
			if err := d.check(); err != nil {
				return err
			}
			d.frame, d.got = true, 0
		}
		want := int(d.cur.length) - d.got
		n := min(want, len(b))
		part := b[:n]
		if d.cur.masked {
			ws.Cipher(part, d.cur.mask, d.got)
		}
		b = b[n:]
		d.got += n
		if n < want {
			d.keep(part)
			return nil
		}
		d.frame = false
		if err := d.complete(part, h); err != nil {
			return err
		}
	}
}

// header gathers a frame header from the start of b and reports how many bytes
// it took and whether the header is complete.
func (d *Decoder) header(b []byte) (int, bool) {
	if d.nhdr == 0 {
		if h, n := parseHeader(b); n > 0 {
			d.cur = h
			return n, true
		}
	}
	for i, c := range b {
		d.hdr[d.nhdr] = c
		d.nhdr++
		if h, n := parseHeader(d.hdr[:d.nhdr]); n > 0 {
			d.cur, d.nhdr = h, 0
			return i + 1, true
		}
	}
	return len(b), false
}

// check refuses a header that breaks the protocol. spec: RFC 6455 §5.
func (d *Decoder) check() error {
	h := &d.cur
	switch {
	case h.rsv:
		return violation(CloseProtocol, "reserved bit set")
	case h.masked != d.Masked:
		return violation(CloseProtocol, "wrong masking")
	case h.length > 1<<63-1:
		return violation(CloseProtocol, "invalid length")
	}
	switch h.op {
	case OpClose, OpPing, OpPong:
		if !h.fin || h.length > maxControl {
			return violation(CloseProtocol, "control frame fragmented or too long")
		}
		return nil
	case OpText, OpBinary:
		if d.msgOp != 0 {
			return violation(CloseProtocol, "message within a message")
		}
		d.msgOp = h.op
	case OpContinuation:
		if d.msgOp == 0 {
			return violation(CloseProtocol, "continuation of nothing")
		}
	default:
		return violation(CloseProtocol, "unknown opcode")
	}
	if h.length > uint64(d.Max) || len(d.msg)+int(h.length) > d.Max {
		return violation(CloseTooLarge, "message too large")
	}
	return nil
}

// keep stores the first part of a payload whose rest has not come yet.
func (d *Decoder) keep(part []byte) {
	if len(part) == 0 {
		return
	}
	if d.cur.op.control() {
		d.ctl = append(d.ctl, part...)
		return
	}
	if d.msg == nil {
		d.msg = make([]byte, 0, max(len(part), min(int(d.cur.length), firstAlloc)))
	}
	d.msg = append(d.msg, part...)
}

// complete hands over a frame whose last payload bytes are part.
func (d *Decoder) complete(part []byte, h Handler) error {
	if d.cur.op.control() {
		if d.ctl != nil {
			part = append(d.ctl, part...)
			d.ctl = nil
		}
		return h.HandleMessage(d.cur.op, part)
	}
	if !d.cur.fin {
		d.Fragments++
		d.keep(part)
		return nil
	}
	op := d.msgOp
	if d.msg != nil {
		part = append(d.msg, part...)
		d.msg = nil
	}
	d.msgOp = 0
	if op == OpText && !utf8.Valid(part) {
		return violation(CloseBadUTF8, "text is not UTF-8")
	}
	return h.HandleMessage(op, part)
}
